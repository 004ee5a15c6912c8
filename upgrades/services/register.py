"""What goes into the register: starts and refused starts, and who read or took away evidence."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from django.contrib.auth.models import AbstractUser
from django.db import transaction

from upgrades.adapters import register
from upgrades.domain.refusal import BadInput, Refused, Unavailable
from upgrades.domain.run_events import Actor, RunStarted
from upgrades.models import Environment, Evidence, Run
from upgrades.services.people import actor_for

R = TypeVar("R")

STARTED = "run.started"
REFUSED = "start.refused"
OPENED = "evidence.opened"
EXPORTED = "record.exported"
LIST_EXPORTED = "list.exported"


def owner_of(environment: Environment) -> int:
    """The environment whose books tell of this one: a copy for rehearsals belongs to its original."""
    return environment.rehearsal_of_id or environment.pk


def run_started(run: Run, started: RunStarted, by: Actor) -> None:
    """Number the run in its environment's list, in the transaction that writes its first events."""
    register.enter(
        register.runs_book(owner_of(run.environment)),
        STARTED,
        by=by,
        run=run.pk,
        body={
            "title": started.title,
            "environment": started.environment_name,
            "procedure": started.procedure,
            "version": started.procedure_version,
            "procedure_hash": started.procedure_hash,
            "rehearsal": started.rehearsal,
            "change": started.change,
            "category": started.category,
        },
    )


def start_refused(
    environment: Environment, procedure: str, refusal: Refused, by: Actor, *, rehearsal: bool, change: str
) -> None:
    """Number a refused start in the same list: an auditor sees what was tried, too."""
    register.enter(
        register.runs_book(owner_of(environment)),
        REFUSED,
        by=by,
        body={
            "environment": environment.name,
            "procedure": procedure,
            "rehearsal": rehearsal,
            "change": change[:120],
            "code": refusal.code,
            "reason": refusal.message[:1000],
        },
    )


def evidence_opened(evidence: Evidence, by: AbstractUser) -> None:
    environment = evidence.run.environment
    body = {"evidence": evidence.pk, "name": evidence.name, "sha256": evidence.sha256}
    _read(environment, OPENED, by, body, run=evidence.run_id)


def record_exported(run: Run, by: AbstractUser, *, manifest: str, events: int) -> int:
    """Put the export on the record, with the digest of what was handed out; gives the entry's number."""
    return _read(run.environment, EXPORTED, by, {"manifest": manifest, "events": events}, run=run.pk)


def list_exported(environment: Environment, by: AbstractUser, body: Mapping[str, Any]) -> int:
    """Put on the record which list was taken away, in which form, and how it was narrowed."""
    return _read(environment, LIST_EXPORTED, by, body)


def _read(
    environment: Environment, kind: str, by: AbstractUser, body: Mapping[str, Any], run: int | None = None
) -> int:
    book = register.reads_book(owner_of(environment))
    with transaction.atomic():
        return register.enter(book, kind, by=actor_for(by, environment), run=run, body=body)


def registering_refusals(start: Callable[..., R]) -> Callable[..., R]:
    """Wrap `start_run`: what it refuses by right or by state goes on the register. Slips of the form do not."""

    @functools.wraps(start)
    def start_or_register(**wishes: Any) -> R:
        try:
            return start(**wishes)
        except (BadInput, Unavailable):
            raise
        except Refused as refusal:
            environment = Environment.objects.filter(pk=wishes["environment_id"]).first()
            if environment is not None:
                with transaction.atomic():
                    start_refused(
                        environment,
                        wishes["procedure"],
                        refusal,
                        actor_for(wishes["by"], environment),
                        rehearsal=wishes["rehearsal"],
                        change=wishes["change"],
                    )
            raise

    return start_or_register
