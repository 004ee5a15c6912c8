"""Who is told of what: notices and their messages are written here, in the transaction of what they tell of.

Nothing is sent here (services/notice_sending.py). Rehearsals and simulated servers tell nobody anything.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import QuerySet
from django.urls import reverse

from upgrades.domain import notices as core
from upgrades.domain.notices import Kind, told_by_role
from upgrades.domain.procedure import Procedure
from upgrades.domain.run_events import Actor, Recorded
from upgrades.domain.run_state import RunState
from upgrades.models import (
    Environment,
    Membership,
    Notice,
    NoticeChoice,
    NoticeDelivery,
    NoticeEndpoint,
    Run,
    RunBurden,
)
from upgrades.queries.people import Held, actor_with, held_by

logger = logging.getLogger(__name__)

MOST = 200  # that one look at the clock tells of
QUIET = 5.0  # seconds without ringing after a broker did not answer


@dataclass(frozen=True, slots=True)
class _Told:
    """A notice as it is stored, and who of those told by their role may give the signature that it wants.

    `started_at` is when the run began that wants one: what came to somebody later does not sign in it.
    """

    row: Notice
    rights: frozenset[str] = frozenset()
    barred: frozenset[str] = frozenset()
    by_deputies: bool = True
    started_at: datetime | None = None


def speaks(environment: Environment, *, rehearsal: bool) -> bool:
    """Whether what happens there is told to anybody."""
    return not (rehearsal or environment.is_simulated or environment.rehearsal_of_id is not None)


def tell(
    run: Run, procedure: Procedure, before: RunState | None, after: RunState, recorded: Sequence[Recorded]
) -> None:
    """Write what is to be told of the newest events of a run; the caller holds its lock and the transaction."""
    if not speaks(run.environment, rehearsal=run.rehearsal):
        return
    at = recorded[-1].at
    try:
        found = [_of_run(run, notice, at) for notice in core.notices_of(procedure, before, after, recorded)]
    except Exception:
        # At three in the night a mistake in a notice must not keep a run from going on. No query is made above.
        logger.exception("run %s: what is to be told could not be told", run.pk)
        return
    if found:
        _write(run.environment, found, at)


def _of_run(run: Run, notice: core.Notice, at: datetime) -> _Told:
    path = reverse("show-run", args=[run.pk])
    if notice.kind is Kind.APPROVAL and notice.gate:
        path = reverse("approval", args=[run.pk, notice.step, notice.gate])
    row = Notice(
        identity=f"run:{run.pk}:{notice.identity}"[:200],
        kind=notice.kind,
        environment=run.environment,
        run=run.pk,
        run_title=run.title,
        title=notice.title[:300],
        text=notice.text[:600],
        whom=notice.whom[:300],
        path=path,
        at=at,
    )
    return _Told(row, notice.rights, notice.barred, notice.by_deputies, run.started_at)


# What no event says: time has passed.


def look_at_clock(now: datetime) -> int:
    """Tell of exposures, duties and reviews that are over their time; how many notices are new.

    Two workers may look at once: the database takes each notice once.
    """
    found: dict[int, list[_Told]] = defaultdict(list)
    for burden in _late_burdens(now):
        found[burden.environment_id].append(_of_burden(burden, now))
    for run in _late_reviews(now):
        found[run.environment_id].append(_of_review(run, now))
    known = _known(told.row.identity for told_here in found.values() for told in told_here)
    new = 0
    for told_here in found.values():
        fresh = [told for told in told_here if told.row.identity not in known]
        if fresh:
            with transaction.atomic():
                _write(fresh[0].row.environment, fresh, now)
            new += len(fresh)
    return new


def _known(identities: Iterable[str]) -> set[str]:
    return set(Notice.objects.filter(identity__in=list(identities)).values_list("identity", flat=True))


def _late_burdens(now: datetime) -> QuerySet[RunBurden]:
    rows = RunBurden.objects.filter(closed_at=None, due_at__lte=now)
    rows = rows.filter(run__rehearsal=False, environment__world="", environment__rehearsal_of=None)
    return rows.select_related("run", "environment").order_by("-due_at", "pk")[:MOST]


def _late_reviews(now: datetime) -> QuerySet[Run]:
    late = now - timedelta(days=settings.REVIEW_DAYS)
    rows = Run.objects.filter(reviews_open__gt=0, ended_at__lte=late)
    rows = rows.filter(rehearsal=False, environment__world="", environment__rehearsal_of=None)
    return rows.select_related("environment").order_by("-ended_at", "pk")[:MOST]


def _of_burden(burden: RunBurden, now: datetime) -> _Told:
    if burden.burden.startswith("exposure:"):
        kind, title = Kind.EXPOSURE, f"Longer than expected: {burden.title}"
        text = f"It stands since {burden.opened_at:%Y-%m-%d %H:%M} UTC. The page of the run shows its clock."
    else:
        kind, title = Kind.DUTY, f"Duty overdue: {burden.title}"
        text = f"It is owed since {burden.opened_at:%Y-%m-%d %H:%M} UTC. Do it, then close it on the page of the run."
    # A burden that a later run carries on is the same one: its beginning stays.
    identity = f"burden:{burden.environment_id}:{burden.burden}:{burden.opened_at.isoformat()}"
    whom = burden.owner_name or core.OPERATORS
    return _by_time(burden.run, burden.environment, kind, identity, title, text, whom, now)


def _of_review(run: Run, now: datetime) -> _Told:
    assert run.ended_at is not None
    title = "Review overdue: an emergency"
    text = (
        f"The run ended at {run.ended_at:%Y-%m-%d %H:%M} UTC, and no auditor has looked into its emergency. Of this run "
        f"{run.reviews_open} such review{'s are' if run.reviews_open > 1 else ' is'} open."
    )
    identity = f"review:{run.pk}:{run.ended_at.isoformat()}"
    return _by_time(run, run.environment, Kind.REVIEW, identity, title, text, "the auditors", now)


def _by_time(
    run: Run,
    environment: Environment,
    kind: Kind,
    identity: str,
    title: str,
    text: str,
    whom: str,
    now: datetime,
) -> _Told:
    return _Told(
        Notice(
            identity=identity[:200],
            kind=kind,
            environment=environment,
            run=run.pk,
            run_title=run.title,
            title=title[:300],
            text=text,
            whom=whom[:300],
            path=reverse("show-run", args=[run.pk]),
            at=now,
        )
    )


# Writing.


def _write(environment: Environment, told: Sequence[_Told], at: datetime) -> None:
    """The notices and one message to each recipient; what is there already stays as it is. Five queries at most."""
    Notice.objects.bulk_create([one.row for one in told], ignore_conflicts=True)
    stored = {
        row.identity: row for row in Notice.objects.filter(identity__in=[one.row.identity for one in told])
    }
    people = _people(environment, at)
    choices = _choices(environment)
    endpoints = list(NoticeEndpoint.objects.filter(environment=environment, paused=False))
    rows: list[NoticeDelivery] = []
    for one in told:
        notice = stored[one.row.identity]
        rows += [
            NoticeDelivery(notice=notice, channel="mail", recipient=person.id, user_id=user_id, next_at=at)
            for user_id, person in people.items()
            if _is_told(one, person, choices.get((user_id, notice.kind)))
        ]
        rows += [delivery_to(endpoint, notice, at) for endpoint in endpoints if notice.kind in endpoint.kinds]
    if rows:
        NoticeDelivery.objects.bulk_create(rows, ignore_conflicts=True)
        transaction.on_commit(ring)


def delivery_to(endpoint: NoticeEndpoint, notice: Notice, at: datetime) -> NoticeDelivery:
    """The message of a notice to an endpoint, not stored yet."""
    return NoticeDelivery(
        notice=notice,
        channel=endpoint.form,
        recipient=f"endpoint:{endpoint.pk}",
        endpoint=endpoint,
        next_at=at,
    )


def _people(environment: Environment, at: datetime) -> dict[int, Actor]:
    """Everybody with an open account and a role there, with their rights now, by the key of the account."""
    rows = Membership.objects.filter(environment=environment, user__is_active=True).select_related("user")
    roles: dict[int, list[Held]] = defaultdict(list)
    users = {}
    for row in rows.order_by("user_id", "role"):
        roles[row.user_id].append(held_by(row))
        users[row.user_id] = row.user
    return {key: actor_with(user, roles[key], environment, at) for key, user in users.items()}


def _choices(environment: Environment) -> dict[tuple[int, str], bool]:
    rows = NoticeChoice.objects.filter(environment=environment, channel=NoticeChoice.Channel.MAIL)
    return {(user, kind): wanted for user, kind, wanted in rows.values_list("user_id", "kind", "wanted")}


def _is_told(told: _Told, person: Actor, choice: bool | None) -> bool:
    """By choice; without one by role, and of a wanted signature only who may give it."""
    if choice is not None:
        return choice
    if told.row.kind == Kind.APPROVAL and told.started_at is not None:
        signer = person.signing(told.started_at)
        absent = signer.stands_for if told.by_deputies else ()
        rights = set(signer.roles).union(*(one.roles for one in absent if one.id not in told.barred))
        return person.id not in told.barred and bool(rights & told.rights)
    return told_by_role(Kind(told.row.kind), person.roles)


# Ringing. Set by `tasks.py`; nothing depends on it: the reconciler finds what is due.

_alarm: list[Callable[[], None]] = []
_quiet_until = 0.0


def on_due(alarm: Callable[[], None]) -> None:
    """Register what rings a worker's bell when there is something to send."""
    _alarm[:] = [alarm]


def ring() -> None:
    """Ring the bell; a broker that is away is no error."""
    global _quiet_until  # one per process: each of its threads would wait in vain
    if time.monotonic() < _quiet_until:
        return
    for alarm in _alarm:
        try:
            alarm()
        except Exception as trouble:  # whatever the broker's client raises
            _quiet_until = time.monotonic() + QUIET
            logger.warning("no worker could be told of messages that wait: %s", trouble)
