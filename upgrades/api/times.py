"""When runs are meant to be made: the planned times of the items of an environment's plan, and all of one's planned runs."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from django.http import HttpRequest, HttpResponse
from pydantic import Field

from upgrades.api.cursors import cursor_for, gone, position_of
from upgrades.api.door import only_in, person, seen, tagged
from upgrades.api.environments import original
from upgrades.api.operations import operation
from upgrades.api.shapes import Cursor, In, Limit, Moment, Number, Out, Page
from upgrades.domain.api_scopes import OPERATE
from upgrades.models import Environment as Row
from upgrades.queries.calendar import plan_number, planned_runs, timed_items, times_version
from upgrades.services.planned_times import set_times

TAG = "Planned times"


class PlannedRun(Out):
    """A run that is planned for a time, by its item (`key`, `number`) in `plan`. `run` is the live run that carries it out."""

    environment: int
    environment_name: str
    plan: int
    key: str
    number: int
    title: str
    begins_at: datetime
    ends_at: datetime
    set_by: str
    set_at: datetime
    revision: Annotated[int, Field(description="Counts the changes of its time")]
    run: int | None
    is_over: bool


@operation("GET", "planned-runs", Page[PlannedRun], tag=TAG)
def list_planned_runs(
    request: HttpRequest,
    environment: Number | None = None,
    limit: Limit = 50,
    cursor: Cursor | None = None,
) -> dict[str, object]:
    """The runs that are planned for a time, by their begin: what the calendar of the token's owner shows."""
    only, reader = only_in(request), person(request)
    query = {"list": "planned-runs", "environment": environment, "only": only}
    found = [
        one
        for one in planned_runs(reader, most=None)
        if (only is None or one.environment == only)
        and (environment is None or one.environment == environment)
    ]
    behind = position_of(cursor, reader=reader.pk, query=query)
    if behind is not None:
        places = [place for place, one in enumerate(found) if one.id == behind]
        if not places:
            raise gone()
        found = found[places[0] + 1 :]
    more = len(found) > limit
    return {
        "items": found[:limit],
        "next": cursor_for(found[limit - 1].id, reader=reader.pk, query=query) if more else None,
    }


class PlannedItem(Out):
    """An item of the plan in force. Null times: it is planned for none."""

    key: str
    number: int
    title: str
    begins_at: datetime | None
    ends_at: datetime | None
    set_by: str


class PlannedTimes(Out):
    """Every item of the plan in force (`plan`, 0 without one). The ETag is the version of the plan and all its times."""

    plan: int
    items: list[PlannedItem]
    next: None


class Time(In):
    begins_at: Moment
    ends_at: Moment


class NewTimes(In):
    """Times by the keys of items; null takes a time away. Items that are not named keep theirs."""

    times: dict[Annotated[str, Field(max_length=200)], Time | None] = Field(
        min_length=1,
        max_length=500,
        examples=[
            {"config-server-ha:1": {"begins_at": "2026-12-05T22:00:00Z", "ends_at": "2026-12-06T01:00:00Z"}}
        ],
    )


def _times(response: HttpResponse, environment: Row) -> dict[str, object]:
    plan, items = plan_number(environment), timed_items(environment)
    tagged(response, times_version(plan, items))
    return {"plan": plan, "items": items, "next": None}


@operation("GET", "environments/{int:environment_id}/planned-times", PlannedTimes, tag=TAG)
def show_planned_times(
    request: HttpRequest, response: HttpResponse, environment_id: int
) -> dict[str, object]:
    """When the items of the plan in force are meant to be carried out. A planned time opens and shuts nothing."""
    return _times(response, original(request, environment_id))


@operation(
    "PATCH",
    "environments/{int:environment_id}/planned-times",
    PlannedTimes,
    tag=TAG,
    scope=OPERATE,
    takes=["application/json"],
    needs_match=True,
)
def plan_times(
    request: HttpRequest, response: HttpResponse, environment_id: int, sent: NewTimes
) -> dict[str, object]:
    """Plan items for a time or for none: all of them, or none when one cannot be."""
    environment = original(request, environment_id)
    spans = {
        key: (time.begins_at, time.ends_at) if time is not None else None for key, time in sent.times.items()
    }
    set_times(environment_id=environment_id, times=spans, by=person(request), seen=seen(request))
    return _times(response, environment)
