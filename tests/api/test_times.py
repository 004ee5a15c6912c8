"""Planned times over the API: the items of a plan, and all of one's planned runs."""

from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from tests.api.caller import Caller, problem
from tests.factories import give, make_environment, make_user
from upgrades.adapters import register
from upgrades.models import PlanItem, PlannedTime, PlanOfRecord, RegisterEntry
from upgrades.queries.environment_export import changes_book

pytestmark = pytest.mark.django_db
AT = datetime(2026, 12, 5, 22, 0, tzinfo=UTC)
SPAN = {"begins_at": "2026-12-05T22:00:00Z", "ends_at": "2026-12-06T02:00:00+01:00"}


@pytest.fixture
def environment():
    return make_environment()


@pytest.fixture
def api(environment):
    return Caller(make_user("operator", environment=environment, first_name="Olga"))


def plan(environment, *titles, number=3):
    """A plan in force with an item for each title, the keys server:1, server:2 …"""
    environment.plans.filter(replaced_at=None).update(replaced_at=timezone.now())
    record = PlanOfRecord.objects.create(
        environment=environment,
        number=number,
        saved_at=timezone.now(),
        saved_by_id="user:1",
        saved_by_name="Olga",
        digest="0" * 64,
    )
    PlanItem.objects.bulk_create(
        PlanItem(
            plan=record,
            key=f"server:{place}",
            position=place,
            stage="master",
            procedure="config-server-ha",
            title=title,
            reason="",
        )
        for place, title in enumerate(titles, 1)
    )


def times(environment, *hours):
    """The items are planned for two hours each, so many hours after AT."""
    for place, later in enumerate(hours, 1):
        begins_at = AT + timedelta(hours=later)
        PlannedTime.objects.create(
            environment=environment,
            key=f"server:{place}",
            begins_at=begins_at,
            ends_at=begins_at + timedelta(hours=2),
            set_at=timezone.now(),
            set_by_name="Olga",
        )


def path(environment):
    return f"environments/{environment.pk}/planned-times"


def change(api, environment, sent, match=None):
    tag = match or api.get(path(environment)).headers["ETag"]
    return api.send("PATCH", path(environment), {"times": sent}, match=tag)


def test_an_operator_plans_and_moves_and_unplans_items_and_each_change_is_on_record(api, environment):
    plan(environment, "Upgrade confserv", "Upgrade scs")
    answer = change(api, environment, {"server:1": SPAN})
    assert answer.status_code == 200
    assert answer.json() == api.read(path(environment))
    assert answer.json()["plan"] == 3
    first, second = answer.json()["items"]
    assert (first["begins_at"], first["ends_at"], first["set_by"]) == (
        "2026-12-05T22:00:00Z",
        "2026-12-06T01:00:00Z",
        "Olga",
    )
    assert (second["key"], second["begins_at"], second["set_by"]) == ("server:2", None, "")

    later = {"begins_at": "2026-12-07T22:00:00Z", "ends_at": "2026-12-07T23:00:00Z"}
    moved = change(api, environment, {"server:1": later}, answer.headers["ETag"])
    assert moved.status_code == 200
    assert api.read("planned-runs")["items"][0]["revision"] == 1
    assert change(api, environment, {"server:1": None}).json()["items"][0]["begins_at"] is None
    assert not PlannedTime.objects.exists()

    rows = RegisterEntry.objects.filter(book=changes_book(environment.pk), kind="plan.timed")
    found = [register.read(row) for row in rows.order_by("number")]
    assert [entry.body["changes"][0]["act"] for entry in found] == ["added", "changed", "removed"]
    assert {entry.by.token for entry in found} == {api.token.split("_")[1]}


def test_times_are_changed_only_as_they_and_the_plan_were_seen(api, environment):
    plan(environment, "Upgrade confserv")
    old = api.get(path(environment)).headers["ETag"]
    assert api.send("PATCH", path(environment), {"times": {"server:1": SPAN}}).status_code == 428
    assert change(api, environment, {"server:1": SPAN}, old).status_code == 200
    newer = api.get(path(environment)).headers["ETag"]
    plan(environment, "Upgrade confserv", number=4)
    for match in (old, newer):
        answer = change(api, environment, {"server:1": None}, match)
        assert (answer.status_code, problem(answer)) == (412, "record-changed")
        assert "The plan or its times were changed since you looked." in answer.json()["detail"]
    assert PlannedTime.objects.count() == 1


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        ({"server:1": SPAN, "server:9": SPAN}, "The plan in force has no item “server:9”."),
        ({"server:1": {**SPAN, "ends_at": SPAN["begins_at"]}}, "A run ends after it begins."),
        ({"server:1": {**SPAN, "ends_at": "2026-12-25T22:00:00Z"}}, "seven days at most"),
        ({"server:1": {"begins_at": SPAN["begins_at"]}}, "ends_at: Field required"),
        ({"server:1": {**SPAN, "begins_at": "2026-12-05T22:00:00"}}, "with its zone"),
        ({"server:1": {**SPAN, "ends_at": "10000-01-01T00:00:00Z"}}, "a time is written as"),
        ({"server:1": {**SPAN, "set_by": "Anna"}}, "Extra inputs are not permitted"),
        ({}, "at least 1 item"),
    ],
)
def test_times_that_cannot_be_are_answered_400_and_none_is_changed(api, environment, sent, told):
    plan(environment, "Upgrade confserv", "Upgrade scs")
    answer = change(api, environment, {"server:2": SPAN, **sent} if sent else sent)
    assert (answer.status_code, problem(answer)) == (400, "bad-input")
    assert told in answer.json()["detail"]
    assert not PlannedTime.objects.exists()


def test_without_a_plan_there_is_nothing_to_plan(api, environment):
    assert api.read(path(environment)) == {"plan": 0, "items": [], "next": None}


def test_planned_runs_come_by_their_begin_piece_by_piece_and_only_from_where_one_has_a_role(api, environment):
    lab, strange = make_environment("Lab · Berlin"), make_environment("Lab · Madrid")
    give(api.user, lab, "auditor")
    for place in (environment, lab, strange):
        plan(place, "Upgrade confserv", "Upgrade scs")
    times(environment, 3, 1)
    times(lab, 2, 4)
    times(strange, 0, 5)

    page = api.read("planned-runs?limit=3")
    rest = api.read(f"planned-runs?limit=3&cursor={page['next']}")
    found = [(one["environment"], one["key"]) for one in (*page["items"], *rest["items"])]
    assert found == [
        (environment.pk, "server:2"),
        (lab.pk, "server:1"),
        (environment.pk, "server:1"),
        (lab.pk, "server:2"),
    ]
    assert rest["next"] is None
    assert (page["items"][0]["title"], page["items"][0]["run"]) == ("Upgrade scs", None)

    answer = api.get(f"planned-runs?limit=3&environment={lab.pk}&cursor={page['next']}")
    assert (answer.status_code, problem(answer)) == (400, "bad-cursor")
    there = Caller(api.user, environment=lab)
    assert {one["environment"] for one in there.read("planned-runs")["items"]} == {lab.pk}
    assert there.get(path(environment)).status_code == 404


def test_planned_runs_are_listed_with_as_many_queries_however_many_there_are(api, environment):
    def count():
        with CaptureQueriesContext(connection) as queries:
            api.read("planned-runs")
            api.read(path(environment))
        return len(queries)

    plan(environment, "Upgrade confserv")
    times(environment, 0)
    before = count()
    for number in range(3):
        place = make_environment(f"Lab {number}")
        give(api.user, place, "operator")
        plan(place, *(f"Upgrade {n}" for n in range(5)))
        times(place, *range(5))
    assert count() == before


def test_a_copy_of_an_environment_has_no_planned_times(api, environment):
    copy = make_environment("copy")
    copy.rehearsal_of = environment
    copy.save()
    assert api.get(path(copy)).status_code == 404
