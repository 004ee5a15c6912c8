"""The pages about notices: one's own choices, an environment's endpoints, planned times, and the calendar."""

import re
from datetime import UTC, datetime, timedelta

import icalendar
import pytest
from django.core import mail
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from tests.factories import frankfurt, make_environment, make_user, show_who
from tests.services.receiver import Receiver
from upgrades.adapters import register
from upgrades.models import (
    CalendarFeed,
    Environment,
    NoticeChoice,
    NoticeDelivery,
    NoticeEndpoint,
    PlanItem,
    PlannedTime,
    PlanOfRecord,
    RegisterEntry,
)
from upgrades.queries.environment_export import changes_book
from upgrades.queries.notices import choices_page, notices_page
from upgrades.services import notice_choices, notice_endpoints

pytestmark = pytest.mark.django_db
AT = datetime(2026, 12, 5, 22, 0, tzinfo=UTC)


@pytest.fixture
def place():
    environment = make_environment()
    roles = ("operator", "approver", "auditor", "administrator")
    people = {role: make_user(role, environment=environment, email=f"{role}@example.org") for role in roles}
    return environment, people


@pytest.fixture
def receiver():
    receiver = Receiver()
    yield receiver
    receiver.close()


def checked(page):
    return set(re.findall(r'name="wanted" value="(\d+:[a-z-]+)"[^>]* checked', page))


# One's own.


def test_the_page_begins_with_what_the_role_brings_and_keeps_what_is_chosen(client, place):
    environment, people = place
    client.force_login(people["operator"])
    here = environment.pk
    brought = {f"{here}:{kind}" for kind in ("gate-doubt", "exposure-long", "countdown", "duty-overdue")}
    assert checked(client.get("/account/notices/").text) == brought

    wanted = [f"{here}:gate-open", f"{here}:countdown", "999:countdown", "x", f"{here}:no-such"]
    answer = client.post("/account/notices/", {"do": "choose", "wanted": wanted})

    assert answer.status_code == 303
    assert checked(client.get("/account/notices/").text) == {f"{here}:gate-open", f"{here}:countdown"}
    rows = NoticeChoice.objects.filter(user=people["operator"]).values_list("kind", "wanted")
    assert dict(rows) == {
        "gate-open": True,
        "gate-doubt": False,
        "exposure-long": False,
        "duty-overdue": False,
    }
    assert not NoticeChoice.objects.exclude(user=people["operator"]).exists()


def test_what_the_role_brings_is_no_choice_and_goes_with_the_role(place):
    environment, people = place
    approver = people["approver"]
    notice_choices.choose(approver, {(environment.pk, "approval-wanted")})
    assert not NoticeChoice.objects.exists()
    [here] = choices_page(approver).environments
    assert [choice.kind for choice in here.choices if choice.wanted] == ["approval-wanted"]


def test_an_account_without_an_address_is_told_so_and_simulated_servers_say_that_they_are_silent(client):
    simulated = make_environment("Simulated", world=frankfurt(world="demo"))
    client.force_login(make_user("operator", environment=simulated))
    page = client.get("/account/notices/").text
    assert "Your account has no mail address." in page
    assert "Simulated servers tell nobody of anything." in page


def test_an_address_is_changed_by_who_shows_who_they_are_and_the_one_before_is_told(
    client, place, django_capture_on_commit_callbacks
):
    _, people = place
    operator = people["operator"]
    client.force_login(operator)
    asked = client.post("/account/notices/", {"do": "address", "address": "new@example.org"})
    assert asked.status_code == 303
    assert asked.headers["Location"].startswith("/account/confirm/")
    operator.refresh_from_db()
    assert operator.email == "operator@example.org"

    show_who(client, operator)
    with django_capture_on_commit_callbacks(execute=True):
        answer = client.post("/account/notices/", {"do": "address", "address": " new@example.org "})

    assert (answer.status_code, answer.headers["Location"]) == (303, "/account/notices/")
    operator.refresh_from_db()
    assert operator.email == "new@example.org"
    [sent] = mail.outbox
    assert (sent.to, "tell whoever runs Runbook" in sent.body) == (["operator@example.org"], True)


@pytest.mark.parametrize(
    "address", ["nobody", "a@b\r\nBcc: c@example.org", "a@example.org, b@example.org", "@"]
)
def test_what_is_no_address_is_refused_and_changes_nothing(client, place, address):
    _, people = place
    client.force_login(people["operator"])
    show_who(client, people["operator"])
    answer = client.post("/account/notices/", {"do": "address", "address": address})
    assert answer.status_code == 400
    people["operator"].refresh_from_db()
    assert people["operator"].email == "operator@example.org"


# An environment's endpoints.


@pytest.fixture
def send(client, place):
    environment, people = place
    client.force_login(people["administrator"])
    return lambda **data: client.post(f"/environments/{environment.pk}/notices/", data)


def added(send, url, **changes):
    values = {"do": "add", "name": "Desk", "form": "webhook", "address": url, "kinds": ["countdown"]}
    return send(**values | changes)


def entries(environment):
    rows = RegisterEntry.objects.filter(book=changes_book(environment.pk)).order_by("number")
    return [register.read(row) for row in rows]


def test_an_endpoint_is_added_tried_paused_and_removed_and_all_of_it_stands_on_record(
    client, send, place, receiver
):
    environment, _ = place
    answer = added(send, f"{receiver.url}hook?token=hush-hush")
    [secret] = re.findall(r"whsec_[A-Za-z0-9+/=]{44}", answer.text)
    endpoint = NoticeEndpoint.objects.get()
    assert endpoint.address == f"{receiver.url}hook?token=hush-hush"

    tried = send(do="test", row=endpoint.pk)
    assert tried.status_code == 303
    assert "The test message was taken. Answered 204." in client.get(tried.headers["Location"]).text
    assert receiver.received[0].path == "/hook?token=hush-hush"

    assert send(do="pause", row=endpoint.pk).status_code == 303
    assert send(do="test", row=endpoint.pk).status_code == 409
    assert send(do="resume", row=endpoint.pk).status_code == 303
    assert send(do="change", row=endpoint.pk, kinds=["gate-doubt", "countdown"]).status_code == 303
    assert secret not in send(do="renew", row=endpoint.pk).text
    assert send(do="remove", row=endpoint.pk).status_code == 303
    assert not NoticeEndpoint.objects.exists()

    kinds = [entry.kind for entry in entries(environment)]
    tail = ["added", "tried", "changed", "changed", "changed", "secret", "removed"]
    assert kinds[-7:] == [f"endpoint.{act}" for act in tail]
    said = str([entry.body for entry in entries(environment)])
    assert "hush-hush" not in said
    assert secret not in said
    page = client.get(f"/environments/{environment.pk}/changes/").text
    assert "added an endpoint for notices" in page
    assert "hush-hush" not in page


def test_the_page_never_shows_an_address_or_a_secret_again(client, send, place, receiver):
    environment, _ = place
    answer = added(send, f"{receiver.url}hook?token=hush-hush")
    [secret] = re.findall(r"whsec_[A-Za-z0-9+/=]{44}", answer.text)
    page = client.get(f"/environments/{environment.pk}/notices/").text
    assert f"127.0.0.1:{receiver.port}" in page
    assert "hush-hush" not in page
    assert secret not in page


def test_what_is_wrong_is_said_beside_the_field_and_what_was_typed_stays(send):
    answer = added(send, "ftp://hooks.example.net/", name="Desk 7")
    assert answer.status_code == 400
    assert "Write a whole address as https://host/path" in answer.text
    assert 'value="Desk 7"' in answer.text
    assert added(send, "https://hooks.example.net/", kinds=[]).status_code == 400
    assert added(send, "https://hooks.example.net/", form="pigeon").status_code == 400
    assert not NoticeEndpoint.objects.exists()


def test_a_try_that_fails_shows_a_cause_of_ours_and_nothing_of_the_answer(send, receiver):
    def answer(handler):
        body = b"<h1>internal secrets</h1>"
        handler.send_response(500, "Internal words")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    added(send, receiver.url)
    receiver.answers = [answer]
    tried = send(do="test", row=NoticeEndpoint.objects.get().pk)
    assert tried.status_code == 503
    assert "The test message was not taken yet. It answered 500." in tried.text
    assert "internal secrets" not in tried.text
    assert "Internal words" not in tried.text


def test_ten_tries_a_minute_are_enough(send, receiver, monkeypatch):
    monkeypatch.setattr(notice_endpoints, "TRIES_A_MINUTE", 2)
    added(send, receiver.url)
    row = NoticeEndpoint.objects.get().pk
    assert [send(do="test", row=row).status_code for _ in range(3)] == [303, 303, 503]
    assert len(receiver.received) == 2


def test_an_endpoint_of_another_environment_is_not_found(client, send, place, receiver):
    elsewhere = make_environment("Lab · Berlin")
    administrator = make_user("administrator", environment=elsewhere)
    made = notice_endpoints.add_endpoint(
        environment_id=elsewhere.pk,
        name="Theirs",
        form="slack",
        address=receiver.url,
        kinds=["countdown"],
        by=administrator,
    )
    for do in ("test", "pause", "renew", "remove"):
        assert send(do=do, row=made.endpoint.pk).status_code == 409
    assert receiver.received == []
    assert NoticeEndpoint.objects.filter(pk=made.endpoint.pk, paused=False).exists()


def test_what_was_given_up_is_shown_and_sent_again(client, send, place, receiver):
    environment, _ = place
    added(send, receiver.url)
    receiver.answers = [410]
    assert send(do="test", row=NoticeEndpoint.objects.get().pk).status_code == 503
    page = client.get(f"/environments/{environment.pk}/notices/").text
    assert "1 was given up." in page
    assert "nobody listens there any more" in page
    assert send(do="again").status_code == 303
    assert NoticeDelivery.objects.get().state == "waiting"


def test_the_pages_ask_no_more_the_more_there_is(client, place, receiver):
    environment, people = place
    administrator = people["administrator"]

    def count():
        with CaptureQueriesContext(
            connection,
        ) as queries:
            notices_page(environment)
            choices_page(administrator)
        return len(queries)

    def more(name):
        made = notice_endpoints.add_endpoint(
            environment_id=environment.pk,
            name=name,
            form="slack",
            address=receiver.url,
            kinds=["countdown"],
            by=administrator,
        )
        notice_endpoints.try_endpoint(
            environment_id=environment.pk, endpoint_id=made.endpoint.pk, by=administrator
        )
        make_user(name=f"else-{name}", environment=make_environment(name))

    more("one")
    before = count()
    for name in ("two", "three", "four"):
        more(name)
    assert count() == before <= 9


# Planned times and the calendar.


def plan(environment, *titles):
    record = PlanOfRecord.objects.create(
        environment=environment,
        number=3,
        saved_at=timezone.now(),
        saved_by_id="user:1",
        saved_by_name="Olga",
        digest="0" * 64,
    )
    for number, title in enumerate(titles, 1):
        PlanItem.objects.create(
            plan=record,
            key=f"server:{number}",
            position=number,
            stage="master",
            procedure="config-server-ha",
            title=title,
            reason="",
        )
    return record


def timed(environment, key, begins_at=AT, hours=2, **changes):
    values = {"ends_at": begins_at + timedelta(hours=hours), "set_at": timezone.now(), "set_by_name": "Olga"}
    return PlannedTime.objects.create(
        environment=environment, key=key, begins_at=begins_at, **values | changes
    )


def events(client, address):
    answer = client.get(address)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/calendar; charset=utf-8"
    calendar = icalendar.Calendar.from_ical(answer.content)
    assert calendar["version"] == "2.0"
    return list(calendar.walk("VEVENT"))


def feed_of(client, person):
    client.force_login(person)
    page = client.post("/account/notices/", {"do": "renew"}).text
    [address] = re.findall(r"http://127\.0\.0\.1:8000(/calendar/[A-Za-z0-9_-]{43}\.ics)", page)
    client.logout()
    return address


def test_an_operator_plans_times_and_the_calendar_shows_them(client, place):
    environment, people = place
    plan(environment, "Upgrade confserv", "Upgrade scs")
    client.force_login(people["operator"])
    times = {"begins-1": "2026-12-05T22:00", "ends-1": "2026-12-06T01:00", "begins-2": "2026-12-06T02:00"}
    answer = client.post(f"/environments/{environment.pk}/times/", {"plan": "3", **times, "ends-2": ""})
    assert answer.status_code == 303
    assert entries(environment)[-1].kind == "plan.timed"

    first, second = events(client, feed_of(client, people["auditor"]))

    assert first["summary"] == "Upgrade confserv · Production · Frankfurt"
    assert (first.decoded("dtstart"), first.decoded("dtend")) == (AT, AT + timedelta(hours=3))
    assert second.decoded("dtend") - second.decoded("dtstart") == timedelta(hours=2)
    assert str(first["url"]) == f"http://127.0.0.1:8000/environments/{environment.pk}/plan/#item-1"
    assert (first["status"], first["sequence"]) == ("TENTATIVE", 0)


def test_a_moved_run_keeps_its_uid_and_counts_on_and_one_without_a_begin_goes(client, place):
    environment, people = place
    plan(environment, "Upgrade confserv")
    timed(environment, "server:1")
    address = feed_of(client, people["approver"])
    [before] = events(client, address)
    client.force_login(people["operator"])
    sent = {"plan": "3", "begins-1": "2026-12-07T22:00", "ends-1": "2026-12-07T23:00"}
    client.post(f"/environments/{environment.pk}/times/", sent)
    [after] = events(client, address)
    assert before["uid"] == after["uid"]
    assert (before["sequence"], after["sequence"]) == (0, 1)
    client.post(f"/environments/{environment.pk}/times/", {"plan": "3", "begins-1": "", "ends-1": ""})
    assert events(client, address) == []


def test_the_calendar_has_only_what_its_reader_may_see_at_that_moment(client, place):
    environment, people = place
    elsewhere = make_environment("Lab · Berlin")
    for where in (environment, elsewhere):
        plan(where, f"Upgrade {where.name}")
        timed(where, "server:1")
        timed(where, "server:gone")
    address = feed_of(client, people["operator"])
    assert [event["location"] for event in events(client, address)] == ["Production · Frankfurt"]
    people["operator"].memberships.all().delete()
    assert events(client, address) == []


def test_a_renewed_or_revoked_address_and_a_closed_account_have_no_calendar(client, place):
    _, people = place
    old = feed_of(client, people["operator"])
    new = feed_of(client, people["operator"])
    assert (client.get(old).status_code, client.get(new).status_code) == (404, 200)
    assert CalendarFeed.objects.get().read_at is not None
    client.force_login(people["operator"])
    client.post("/account/notices/", {"do": "revoke"})
    assert client.get(new).status_code == 404
    last = feed_of(client, people["operator"])
    people["operator"].is_active = False
    people["operator"].save()
    assert client.get(last).status_code == 404
    token = last.removeprefix("/calendar/").removesuffix(".ics")
    with connection.cursor() as cursor:
        cursor.execute("SELECT token_hash FROM upgrades_calendarfeed")
        assert token not in cursor.fetchone()[0]


def test_a_title_with_line_breaks_adds_nothing_to_the_calendar(client, place):
    environment, people = place
    plan(environment, "Upgrade\r\nEND:VEVENT\r\nBEGIN:VALARM;x,y\\")
    timed(environment, "server:1")
    [event] = events(client, feed_of(client, people["operator"]))
    assert event["summary"].startswith("Upgrade END:VEVENT BEGIN:VALARM;x,y\\")
    assert event.subcomponents == []


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"begins-1": "2026-12-05T22:00", "ends-1": "2026-12-05T21:00"}, "A run ends after it begins."),
        ({"begins-1": "2026-12-05T22:00", "ends-1": "2027-12-05T21:00"}, "seven days at most"),
        ({"begins-1": "", "ends-1": "2026-12-05T21:00"}, "An end needs a begin."),
        ({"begins-1": "tomorrow", "ends-1": ""}, "Look at the times that are marked."),
        ({"begins-1": "9999-12-31T23:00", "ends-1": ""}, "This year is far off."),
        ({"begins-1": "0001-01-01T00:00", "ends-1": ""}, "This year is far off."),
        ({"plan": "2", "begins-1": "2026-12-05T22:00"}, "The plan was saved anew"),
    ],
)
def test_times_that_cannot_be_are_refused_and_nothing_changes(client, place, fields, said):
    environment, people = place
    plan(environment, "Upgrade confserv")
    client.force_login(people["operator"])
    answer = client.post(f"/environments/{environment.pk}/times/", {"plan": "3", **fields})
    assert answer.status_code in (400, 409)
    assert said in answer.text
    assert not PlannedTime.objects.exists()


def test_a_copy_of_an_environment_has_neither_endpoints_nor_times(client, place):
    environment, people = place
    copy = make_environment("copy")
    Environment.objects.filter(pk=copy.pk).update(rehearsal_of=environment)
    client.force_login(people["administrator"])
    for page in ("notices", "times"):
        assert client.get(f"/environments/{copy.pk}/{page}/").status_code == 404
