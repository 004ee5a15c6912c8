"""Everything that the page of a run shows, computed from its events and its procedure.

`run_page` is what the view asks for; `seen_by` answers first whether this person may look at all, and at which
version, so that a page that has not changed costs one query.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.contrib.auth.models import AbstractUser
from django.contrib.postgres.expressions import ArraySubquery
from django.db.models import OuterRef, Q, QuerySet
from django.db.models.functions import Coalesce, JSONObject
from django.utils import timezone

from upgrades.domain import run as core
from upgrades.domain.freshness import CLOCKS_DIFFER, too_old
from upgrades.domain.run_state import RunStatus
from upgrades.models import Agent, Membership, Run, RunBinding
from upgrades.queries.people import Held, actor_with, members
from upgrades.queries.procedures import procedure_of
from upgrades.queries.rollback import way_back_known
from upgrades.queries.run_lines import OVER
from upgrades.queries.run_page import overview, record, servers, steps
from upgrades.queries.run_page.history import history_of
from upgrades.queries.run_page.shapes import CurrentStep, GateRow, May, RunPage
from upgrades.queries.run_page.sight import ENOUGH, Sight, clock
from upgrades.queries.run_page.timeline import timeline

__all__ = ["CurrentStep", "GateRow", "May", "RunPage", "Seen", "run_page", "seen_by", "sight_of"]

RECORD = 30  # events of a run under way that the page shows at once

STATUS = {
    "running": ("Running", "act"),
    "held": ("On hold", "wait"),
    "closing": ("Closing", "wait"),
    "ended": ("Ended", "go"),
    "aborted": ("Aborted", "stop"),
}


@dataclass(frozen=True, slots=True)
class Seen:
    """A run that this person may see: how new it is, and the roles held in its environment."""

    run: int
    version: int
    environment_version: int
    held: tuple[Held, ...]
    silent: tuple[int, ...] = ()  # agents that it has no news of, while it is under way

    @property
    def roles(self) -> tuple[str, ...]:
        return tuple(one.role for one in self.held)


def seen_by(run_id: int, user: AbstractUser) -> Seen | None:
    """None when there is no such run, or this person has no role in its environment: both look the same."""
    roles = Membership.objects.filter(environment_id=OuterRef("owner"), user_id=user.pk).order_by("role")
    row = (
        Run.objects.filter(pk=run_id)
        .annotate(
            owner=Coalesce("environment__rehearsal_of_id", "environment_id"),
            held=ArraySubquery(
                roles.values(one=JSONObject(role="role", given_at="given_at", confirmed_by="confirmed_by"))
            ),
            silent=ArraySubquery(_silent()),
        )
        .values_list("version", "environment__version", "held", "status", "silent")
        .first()
    )
    if row is None or not row[2]:
        return None
    version, environment_version, found, status, silent = row
    return Seen(
        run_id,
        version,
        environment_version,
        tuple(map(_held, found)),
        () if status in OVER else tuple(silent),
    )


def _held(row: dict[str, str]) -> Held:
    return Held(row["role"], datetime.fromisoformat(row["given_at"]), bool(row["confirmed_by"]))


def _silent() -> QuerySet[Agent, int]:
    """The agents on hosts of the run in question that were not heard within two polls."""
    theirs = RunBinding.objects.filter(run=OuterRef(OuterRef("pk"))).values("application__host")
    now = timezone.now()
    old = Q(seen_at__lt=now - too_old(watched=True)) | Q(seen_at__gt=now + CLOCKS_DIFFER)
    return Agent.objects.filter(old, host__in=theirs).order_by("pk").values_list("pk", flat=True)


def sight_of(seen: Seen, user: AbstractUser) -> tuple[Run, Sight]:
    """The run with everything that its pages are made of, as this person sees it now."""
    run = Run.objects.select_related("environment__rehearsal_of", "procedure").get(pk=seen.run)
    history = history_of(run)
    procedure = procedure_of(run.procedure, history.state.started)
    return run, Sight(
        procedure=procedure,
        history=history.events,
        state=history.state,
        me=actor_with(user, seen.held, run.environment, timezone.now()),
        now=timezone.now(),
        numbers=dict(procedure.numbers()),
        members=() if history.state.is_over else members(run.environment),
    )


def run_page(seen: Seen, user: AbstractUser, *, whole_record: bool = False) -> RunPage:
    """The page of a run for whoever may see it, with all of its record and of its steps only when they are asked for.

    A run that is over always shows everything.
    """
    run, sight = sight_of(seen, user)
    return RunPage(**_facts(run, sight, seen), **_parts(run, sight, whole_record=whole_record))


def _facts(run: Run, sight: Sight, seen: Seen) -> dict[str, Any]:
    state = sight.state
    text, tone = STATUS[state.status]
    if state.status is RunStatus.ENDED:
        text = "Ended" if state.ending == "completed" else f"Ended: {state.ending}"
    return {
        "id": run.pk,
        "title": state.started.title,
        "version": seen.version,
        "environment_id": run.environment_id,
        "environment": state.started.environment_name,
        "rehearsal": state.started.rehearsal,
        "simulated": run.environment.is_simulated,
        "procedure": sight.say(sight.procedure.title),
        "procedure_id": sight.procedure.id,
        "procedure_version": sight.procedure.version,
        "procedure_hash": sight.procedure.text_hash,
        "change": state.started.change,
        "category": state.started.category,
        "reason": state.started.reason,
        "clocks": state.started.clocks,
        "review": overview.whole_review(sight),
        "starter": state.starter.name,
        "starter_is_me": state.starter.id == sight.me.id,
        "started_at": state.started_at,
        "ended_at": state.ended_at,
        "took": clock(state.ended_at - state.started_at) if state.ended_at else "",
        "status": str(state.status),
        "status_text": text,
        "tone": tone,
        "ending": state.hold_reason if state.status is RunStatus.ABORTED else state.ending,
        "position": _position(run, sight),
        "roles": seen.roles,
        "can_roll_back": "operator" in seen.roles and way_back_known(sight.procedure, state),
        "head": run.head,
    }


def _position(run: Run, sight: Sight) -> str:
    number = sight.numbers.get(sight.state.current or "", "")
    if sight.state.is_over or not number:
        return f"{run.steps_done} of {run.steps_total} steps behind"
    if number != "–":
        return f"Step {number} of {run.steps_total}"
    return (
        f"{run.steps_done} of {run.steps_total} steps behind" if run.steps_done else "Before the first step"
    )


def _parts(run: Run, sight: Sight, *, whole_record: bool) -> dict[str, Any]:
    bound = servers.bound_applications(run.pk)
    applications = servers.in_view(sight, bound)
    files = [] if sight.state.is_over else servers.files_of(applications)
    listed = list(reversed(sight.history))
    whole = whole_record or sight.state.is_over
    shown = listed if whole else listed[:RECORD]
    return {
        "tiles": overview.tiles(sight),
        "phases": steps.phases(sight),
        "step": steps.current_step(sight, servers.agent_lines(sight, bound, files)),
        "hold": overview.hold(sight),
        "burdens": overview.burdens(sight),
        "closed": overview.closed_burdens(sight),
        "deviations": overview.deviations(sight),
        "notes": overview.notes(sight),
        "no_news": servers.no_news(sight, bound),
        "parked_since": None if sight.state.is_over else run.parked_since,
        "pairs": servers.pairs(sight, applications),
        "tail": None if sight.state.is_over else servers.tail(sight, applications, files),
        "timeline": timeline(sight),
        "record": record.entries(sight, shown),
        "record_more": len(listed) - len(shown),
        "accounts": steps.accounts(sight) if whole else (),
        "signatures": overview.signatures(sight) if sight.state.is_over else (),
        "files": overview.files(sight) if sight.state.is_over else (),
        "whole": whole,
        "answers": overview.answers(sight),
        "may": _may(sight),
    }


def _may(sight: Sight) -> dict[str, May]:
    """What concerns the run as a whole."""
    return {
        "hold": sight.may(core.Hold(reason=ENOUGH)),
        "note": sight.may(core.AddNote(text=ENOUGH)),
        "correct": _may_correct(sight),
        "abort": sight.may(core.Abort(reason=ENOUGH)),
    }


def _may_correct(sight: Sight) -> May:
    """Whether this person may ask to correct an answer, whichever it is."""
    if not sight.procedure.parameters:
        return May(allowed=False)
    asked = sight.may(core.CorrectFact(name=sight.procedure.parameters[0].name, value="", reason=ENOUGH))
    # What is wrong with the value alone is said when there is one.
    return May(allowed=asked.mine and not sight.state.is_over, mine=asked.mine)
