"""Procedures: the list, and one version as it was published."""

from __future__ import annotations

from datetime import datetime

from django.http import HttpRequest

from upgrades.api.operations import operation
from upgrades.api.problems import not_found
from upgrades.api.shapes import Out, Page
from upgrades.models import ProcedureVersion
from upgrades.queries.procedure_pages import procedure_list, procedure_page

TAG = "Procedures"


class ProcedureLine(Out):
    """A procedure by its newest version."""

    procedure: str
    version: int
    title: str
    summary: str
    component: str
    steps: int
    versions: int
    published_at: datetime


class StepOfText(Out):
    id: str
    number: str
    title: str
    phase: str
    source: list[str]
    when: str
    do: list[str]
    needs: list[str]
    gates: list[str]
    is_aside: bool


class Procedure(Out):
    """A published version. `text` is the YAML that runs follow, `text_hash` its SHA-256."""

    procedure: str
    version: int
    title: str
    versions: list[int]
    text_hash: str
    published_at: datetime
    steps: list[StepOfText]
    text: str


@operation("GET", "procedures", Page[ProcedureLine], tag=TAG)
def list_procedures(request: HttpRequest) -> dict[str, object]:  # noqa: ARG001
    """All published procedures, each by its newest version."""
    return {"items": procedure_list(), "next": None}


@operation("GET", "procedures/{slug:procedure}/{int:version}", Procedure, tag=TAG)
def show_procedure(request: HttpRequest, procedure: str, version: int) -> Procedure:  # noqa: ARG001
    """One version of a procedure, with its text."""
    page = procedure_page(procedure, version)
    if page is None:
        raise not_found("No procedure is published under this name and number.")
    row = ProcedureVersion.objects.get(procedure=procedure, version=version)
    return Procedure(
        procedure=procedure,
        version=version,
        title=page.procedure.title,
        versions=list(page.versions),
        text_hash=page.text_hash,
        published_at=page.published_at,
        steps=[
            StepOfText(
                id=step.id,
                number=step.number,
                title=step.title,
                phase=step.phase,
                source=list(step.source),
                when=step.when,
                do=list(step.do),
                needs=[gate.title for gate in step.needs],
                gates=[gate.title for gate in step.gates],
                is_aside=step.is_aside,
            )
            for step in page.steps
        ],
        text=row.text,
    )
