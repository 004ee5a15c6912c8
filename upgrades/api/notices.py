"""Who is told of what: what is mailed to the token's owner, and the endpoints of an environment, for its administrators.

Addresses and secrets are shown to nobody. The secret of a webhook is in the answer that makes it, once.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from django.http import HttpRequest, HttpResponse
from pydantic import Field, model_validator

from upgrades.api.door import command_id, only_in, person, seen, tagged
from upgrades.api.environments import original
from upgrades.api.operations import operation
from upgrades.api.problems import not_found
from upgrades.api.shapes import In, Out, Page
from upgrades.domain.api_scopes import NOTICES
from upgrades.models import Environment as Row
from upgrades.queries.notices import (
    ChoicesHere,
    EndpointView,
    choices_page,
    endpoint_view,
    message_line,
    notices_page,
)
from upgrades.services import notice_endpoints
from upgrades.services.environment_editing import administered_by
from upgrades.services.notice_choices import choose_here

TAG = "Notices"
KindWord = Literal[
    "approval-wanted",
    "gate-open",
    "gate-doubt",
    "exposure-long",
    "countdown",
    "duty-overdue",
    "review-overdue",
]
FormWord = Literal["webhook", "slack", "teams"]
Kinds = Annotated[list[KindWord], Field(min_length=1, max_length=20, examples=[["gate-doubt", "countdown"]])]


# What is mailed to the token's owner.


class NoticeChoice(Out):
    """Whether the token's owner gets a kind of notice by mail; `by_role`: nobody has chosen it."""

    kind: str
    title: str
    wanted: bool
    by_role: bool


class NoticesHere(Out):
    """What is mailed of one environment. `is_silent`: simulated servers tell nobody of anything."""

    environment: int
    name: str
    roles: list[str]
    is_silent: bool
    choices: list[NoticeChoice]


class Wishes(In):
    """The kinds that change: true for told, false for not told. The others stay."""

    wanted: dict[KindWord, bool] = Field(min_length=1, max_length=20, examples=[{"gate-open": True}])


def _choices(request: HttpRequest) -> list[ChoicesHere]:
    only = only_in(request)
    found = choices_page(person(request)).environments
    return [here for here in found if only is None or here.environment == only]


@operation("GET", "notices", Page[NoticesHere], tag=TAG)
def list_notice_choices(request: HttpRequest) -> dict[str, object]:
    """What is mailed to the token's owner, environment by environment."""
    return {"items": _choices(request), "next": None}


@operation(
    "PATCH",
    "environments/{int:environment_id}/notices",
    NoticesHere,
    tag=TAG,
    scope=NOTICES,
    takes=["application/json"],
)
def choose_notices(request: HttpRequest, environment_id: int, sent: Wishes) -> object:
    """Choose what is mailed to the token's owner of one environment."""
    original(request, environment_id)
    choose_here(person(request), environment_id, {str(kind): wish for kind, wish in sent.wanted.items()})
    [here] = [one for one in _choices(request) if one.environment == environment_id]
    return here


# The endpoints of an environment.


class Message(Out):
    """A message and what came of it. `state`: sent, waiting (it is tried again), parked (given up) or dropped."""

    title: str
    at: datetime
    state: str
    outcome: str
    attempts: int
    next_at: datetime
    to: Annotated[str, Field(description="Empty beside its own endpoint")]


class Endpoint(Out):
    """An endpoint, without its address and its secret. `tag` goes into If-Match when it is changed or removed."""

    id: int
    name: str
    form: str
    host: str
    fingerprint: Annotated[str, Field(description="The beginning of the SHA-256 of its address")]
    kinds: list[str]
    paused: bool
    made_at: datetime
    tag: Annotated[str, Field(description="As an ETag, quotes included")]
    results: list[Message]


class Endpoints(Out):
    """All endpoints of an environment, 20 at most. `waiting` and `given_up` count messages, mails included."""

    items: list[Endpoint]
    next: None
    waiting: int
    given_up: int
    parked: list[Message]


class NewEndpoint(In):
    """An endpoint to add. The address is shown to nobody again: with chats it is the secret itself."""

    name: str = Field(min_length=1, max_length=80, examples=["Change desk"])
    form: FormWord
    address: str = Field(min_length=1, max_length=2000, examples=["https://hooks.example.net/runbook"])
    kinds: Kinds


class ChangeOfEndpoint(In):
    """What changes of an endpoint; what is left out stays."""

    kinds: Kinds | None = None
    paused: bool | None = None

    @model_validator(mode="after")
    def _must_change_something(self) -> ChangeOfEndpoint:
        if self.kinds is None and self.paused is None:
            raise ValueError("name “kinds” or “paused”, or both")
        return self


class EndpointMade(Out):
    """`secret` is what webhooks are signed with, in this answer alone; empty for chats, and when the key is sent again."""

    endpoint: Endpoint
    secret: str


class Removed(Out):
    name: str


class SentAgain(Out):
    """How many messages that were given up are tried again."""

    messages: int


def _endpoint(view: EndpointView) -> Endpoint:
    told = {name: getattr(view, name) for name in Endpoint.model_fields if name != "tag"}
    return Endpoint.model_validate({**told, "tag": f'"{view.version}"'})


def _administered(request: HttpRequest, environment_id: int) -> Row:
    original(request, environment_id)
    environment, _ = administered_by(environment_id, person(request))
    return environment


def _must_be_there(environment: Row, endpoint_id: int) -> None:
    if not environment.notice_endpoints.filter(pk=endpoint_id).exists():
        raise not_found("There is no endpoint of this number here.")


@operation("GET", "environments/{int:environment_id}/endpoints", Endpoints, tag=TAG)
def list_endpoints(request: HttpRequest, environment_id: int) -> dict[str, object]:
    """The endpoints that an environment tells, with the last results of each. For its administrators."""
    page = notices_page(_administered(request, environment_id))
    return {
        "items": [_endpoint(view) for view in page.endpoints],
        "next": None,
        "waiting": page.waiting,
        "given_up": page.given_up,
        "parked": page.parked,
    }


@operation(
    "POST",
    "environments/{int:environment_id}/endpoints",
    EndpointMade,
    tag=TAG,
    scope=NOTICES,
    status=201,
    shows_once="secret",
)
def add_endpoint(request: HttpRequest, environment_id: int, sent: NewEndpoint) -> EndpointMade:
    """Have an environment tell one more endpoint: a signed webhook, or a channel of Slack or Teams."""
    _administered(request, environment_id)
    made = notice_endpoints.add_endpoint(
        environment_id=environment_id,
        name=sent.name,
        form=sent.form,
        address=sent.address,
        kinds=sent.kinds,
        by=person(request),
        command_id=command_id(request),
    )
    return EndpointMade(endpoint=_endpoint(endpoint_view(made.endpoint)), secret=made.secret)


@operation(
    "PATCH",
    "environments/{int:environment_id}/endpoints/{int:endpoint_id}",
    Endpoint,
    tag=TAG,
    scope=NOTICES,
    takes=["application/json"],
    needs_match=True,
)
def change_endpoint(
    request: HttpRequest,
    response: HttpResponse,
    environment_id: int,
    endpoint_id: int,
    sent: ChangeOfEndpoint,
) -> Endpoint:
    """Choose anew what an endpoint is told of, pause it, or have it told again."""
    _must_be_there(_administered(request, environment_id), endpoint_id)
    endpoint = notice_endpoints.change_endpoint(
        environment_id=environment_id,
        endpoint_id=endpoint_id,
        kinds=sent.kinds,
        paused=sent.paused,
        by=person(request),
        seen=seen(request),
    )
    view = endpoint_view(endpoint)
    tagged(response, view.version)
    return _endpoint(view)


@operation(
    "DELETE",
    "environments/{int:environment_id}/endpoints/{int:endpoint_id}",
    Removed,
    tag=TAG,
    scope=NOTICES,
    needs_match=True,
)
def remove_endpoint(request: HttpRequest, environment_id: int, endpoint_id: int) -> Removed:
    """Remove an endpoint with its messages."""
    _must_be_there(_administered(request, environment_id), endpoint_id)
    name = notice_endpoints.remove_endpoint(
        environment_id=environment_id, endpoint_id=endpoint_id, by=person(request), seen=seen(request)
    )
    return Removed(name=name)


@operation(
    "POST",
    "environments/{int:environment_id}/endpoints/{int:endpoint_id}/test",
    Message,
    tag=TAG,
    scope=NOTICES,
    takes=[],
)
def try_endpoint(request: HttpRequest, environment_id: int, endpoint_id: int) -> object:
    """Send a test message now, and say what came of it. Ten a minute in an environment."""
    _must_be_there(_administered(request, environment_id), endpoint_id)
    row = notice_endpoints.try_endpoint(
        environment_id=environment_id,
        endpoint_id=endpoint_id,
        by=person(request),
        command_id=command_id(request),
    )
    return message_line(row)


@operation(
    "POST",
    "environments/{int:environment_id}/endpoints/{int:endpoint_id}/renew-secret",
    EndpointMade,
    tag=TAG,
    scope=NOTICES,
    takes=[],
    shows_once="secret",
)
def renew_secret(request: HttpRequest, environment_id: int, endpoint_id: int) -> EndpointMade:
    """A new secret for a webhook; the next message is signed with it."""
    _must_be_there(_administered(request, environment_id), endpoint_id)
    made = notice_endpoints.renew_secret(
        environment_id=environment_id,
        endpoint_id=endpoint_id,
        by=person(request),
        command_id=command_id(request),
    )
    return EndpointMade(endpoint=_endpoint(endpoint_view(made.endpoint)), secret=made.secret)


@operation(
    "POST",
    "environments/{int:environment_id}/endpoints/send-again",
    SentAgain,
    tag=TAG,
    scope=NOTICES,
    takes=[],
)
def send_again(request: HttpRequest, environment_id: int) -> SentAgain:
    """Have every message of the environment that was given up tried again."""
    _administered(request, environment_id)
    return SentAgain(messages=notice_endpoints.send_again(environment_id=environment_id, by=person(request)))
