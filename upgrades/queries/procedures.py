"""Procedure texts as the core understands them."""

from __future__ import annotations

from functools import lru_cache

from upgrades.domain.procedure import Procedure
from upgrades.models import ProcedureVersion
from upgrades.procedures.loader import load


@lru_cache(maxsize=64)
def _read(text: str, name: str) -> Procedure:
    return load(text.encode(), name=name)


def procedure_of(version: ProcedureVersion) -> Procedure:
    """The procedure that a published version holds. Texts never change, so each is read once per process."""
    return _read(version.text, f"{version.procedure}/{version.version}.yaml")


def newest(procedure: str) -> ProcedureVersion:
    """The newest published version; `ProcedureVersion.DoesNotExist` when there is none."""
    return ProcedureVersion.objects.filter(procedure=procedure).order_by("-version")[0:1].get()
