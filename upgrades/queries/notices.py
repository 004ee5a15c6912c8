"""What the pages about notices show: one's own choices, and the endpoints of an environment with what came of their messages."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from django.contrib.auth.models import AbstractUser

from upgrades.domain.notices import TITLES, Kind, told_by_role
from upgrades.domain.record import digest
from upgrades.models import (
    CalendarFeed,
    Environment,
    Membership,
    NoticeChoice,
    NoticeDelivery,
    NoticeEndpoint,
)
from upgrades.queries.people import actor_id, name_of, signing_people

RESULTS = 5  # of each endpoint
RECENT = 200  # messages of an environment that are looked through for them
PARKED = 20


@dataclass(frozen=True, slots=True)
class Choice:
    """Whether this person gets a kind of notice; `by_role`: nobody has chosen it."""

    kind: str
    title: str
    wanted: bool
    by_role: bool


@dataclass(frozen=True, slots=True)
class ChoicesHere:
    environment: int
    name: str
    roles: tuple[str, ...]
    is_silent: bool  # simulated servers tell nobody of anything
    choices: tuple[Choice, ...]


@dataclass(frozen=True, slots=True)
class ChoicesPage:
    """`mail` is empty where the account has no address."""

    mail: str
    environments: tuple[ChoicesHere, ...]
    feed_made_at: datetime | None
    feed_read_at: datetime | None


def choices_page(user: AbstractUser) -> ChoicesPage:
    """What this person is told of, by environment; three queries."""
    chosen = {
        (environment, kind): wanted
        for environment, kind, wanted in NoticeChoice.objects.filter(
            user_id=user.pk, channel=NoticeChoice.Channel.MAIL
        ).values_list("environment_id", "kind", "wanted")
    }
    feed = CalendarFeed.objects.filter(user_id=user.pk).first()
    return ChoicesPage(
        mail=user.email,
        environments=tuple(
            ChoicesHere(
                environment=environment.pk,
                name=environment.name,
                roles=roles,
                is_silent=environment.is_simulated,
                choices=tuple(
                    _choice(kind, by_role, chosen.get((environment.pk, kind)))
                    for kind, by_role in defaults.items()
                ),
            )
            for environment, roles, defaults in defaults_of(user)
        ),
        feed_made_at=feed.made_at if feed is not None else None,
        feed_read_at=feed.read_at if feed is not None else None,
    )


def _choice(kind: Kind, by_role: bool, chosen: bool | None) -> Choice:
    return Choice(kind, TITLES[kind], by_role if chosen is None else chosen, chosen is None and by_role)


def defaults_of(user: AbstractUser) -> list[tuple[Environment, tuple[str, ...], dict[Kind, bool]]]:
    """Each environment in which the person has a role, the roles there, and what they bring; one query."""
    rows = Membership.objects.filter(user_id=user.pk, environment__rehearsal_of=None)
    roles: dict[int, list[str]] = defaultdict(list)
    environments: dict[int, Environment] = {}
    for row in rows.select_related("environment").order_by("environment__name", "environment_id", "role"):
        environments[row.environment_id] = row.environment
        roles[row.environment_id].append(row.role)
    found = []
    for key, environment in environments.items():
        rights = (*roles[key], *signing_people(environment).groups_of(actor_id(user)))
        found.append((environment, tuple(roles[key]), {kind: told_by_role(kind, rights) for kind in Kind}))
    return found


# An environment's endpoints.


@dataclass(frozen=True, slots=True)
class MessageLine:
    """A message and what came of it. `to` is empty beside its own endpoint."""

    title: str
    at: datetime
    state: str
    outcome: str
    attempts: int
    next_at: datetime
    to: str = ""


@dataclass(frozen=True, slots=True)
class EndpointView:
    """An endpoint as its administrators see it. `version` changes with whatever of it can be changed."""

    id: int
    name: str
    form: str
    form_title: str
    host: str
    fingerprint: str
    kinds: tuple[str, ...]
    told_of: tuple[str, ...]
    paused: bool
    made_at: datetime
    version: str
    results: tuple[MessageLine, ...]

    @property
    def tone(self) -> str:
        """How the last message that is over, or was tried, went."""
        if self.paused:
            return "paused"
        tried = [line for line in self.results if line.outcome]
        if not tried:
            return "new"
        return "well" if tried[0].state == "sent" else "trouble"


@dataclass(frozen=True, slots=True)
class NoticesPage:
    """`waiting` counts messages that are still to be sent, `given_up` those that are not tried any more."""

    endpoints: tuple[EndpointView, ...]
    waiting: int
    given_up: int
    parked: tuple[MessageLine, ...]


FORM_TITLES = {"webhook": "Signed webhook", "slack": "Slack", "teams": "Teams"}


def notices_page(environment: Environment) -> NoticesPage:
    """The endpoints with their last results, and what was given up; five queries, however many there are."""
    rows = NoticeDelivery.objects.filter(notice__environment=environment).select_related("notice")
    results: dict[int, list[MessageLine]] = defaultdict(list)
    for row in rows.filter(endpoint__isnull=False).order_by("-pk")[:RECENT]:
        assert row.endpoint_id is not None
        if len(results[row.endpoint_id]) < RESULTS:
            results[row.endpoint_id].append(message_line(row))
    parked = rows.filter(state=NoticeDelivery.State.PARKED).select_related("notice", "user", "endpoint")
    return NoticesPage(
        endpoints=tuple(
            endpoint_view(endpoint, results[endpoint.pk])
            for endpoint in NoticeEndpoint.objects.filter(environment=environment).defer("address", "secret")
        ),
        waiting=rows.filter(state=NoticeDelivery.State.WAITING).count(),
        given_up=rows.filter(state=NoticeDelivery.State.PARKED).count(),
        parked=tuple(message_line(row, _recipient(row)) for row in parked.order_by("-pk")[:PARKED]),
    )


def endpoint_view(row: NoticeEndpoint, results: Iterable[MessageLine] = ()) -> EndpointView:
    """An endpoint without its address and its secret."""
    return EndpointView(
        id=row.pk,
        name=row.name,
        form=row.form,
        form_title=FORM_TITLES[row.form],
        host=row.host,
        fingerprint=row.fingerprint,
        kinds=tuple(row.kinds),
        told_of=tuple(TITLES[Kind(kind)] for kind in row.kinds),
        paused=row.paused,
        made_at=row.made_at,
        version=endpoint_version(row),
        results=tuple(results),
    )


def endpoint_version(row: NoticeEndpoint) -> str:
    """The hash of what people may see and change of it: another one after each change."""
    return digest(
        {
            "id": row.pk,
            "name": row.name,
            "form": row.form,
            "host": row.host,
            "fingerprint": row.fingerprint,
            "kinds": list(row.kinds),
            "paused": row.paused,
        }
    )


def message_line(row: NoticeDelivery, to: str = "") -> MessageLine:
    """A message and what came of it, as pages and the API show it; `to` where it is not beside its endpoint."""
    return MessageLine(
        title=row.notice.title,
        at=row.notice.at,
        state=row.state,
        outcome=row.outcome,
        attempts=row.attempts,
        next_at=row.next_at,
        to=to,
    )


def _recipient(row: NoticeDelivery) -> str:
    if row.endpoint is not None:
        return row.endpoint.name
    return name_of(row.user) if row.user is not None else ""
