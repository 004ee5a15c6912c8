"""Forms, headers, paths and cookies that must do no harm (rows FM)."""

import json
from uuid import uuid4

import pytest
from django.conf import settings as project
from django.test import Client
from django.urls import reverse

from tests.bad_inputs.payloads import PAYLOADS
from tests.factories import make_user, show_who
from tests.web.run_scene import Stage, no_agents
from upgrades.models import Application, RegisterEntry, RunEvent
from upgrades.queries.environment_export import changes_book

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _no_agents(monkeypatch):
    no_agents(monkeypatch)


@pytest.fixture
def stage():
    made = Stage()
    made.advance()
    return made


@pytest.fixture
def send(client, stage):
    client.force_login(stage.operator)
    show_who(client, stage.operator)

    def post(verb, headers=None, **fields):
        values = {"command_id": str(uuid4()), **fields}
        return client.post(f"/runs/{stage.run_id}/{verb}/", values, headers=headers or {})

    return post


def events(stage):
    return RunEvent.objects.filter(run=stage.run_id).count()


# FM01, FM02: texts and numbers.


@pytest.mark.bad_input("FM01")
@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "Nothing was changed. Note: This field is required."),
        ("  \n\t ", "Nothing was changed. Note: This field is required."),
        ("a\x00b", "Nothing was changed. Note: Null characters are not allowed."),
        ("x" * 1_000_000, "The note has 1000000 characters; at most 2000 are kept. Shorten it."),
        ("a\x07b", "The note contains control characters. Type it again without them."),
    ],
)
def test_a_text_that_cannot_be_kept_is_refused_at_its_field(send, stage, text, told):
    before = events(stage)
    answer = send("note", text=text)

    assert answer.status_code == 400
    assert answer.context["refusal"] == told
    assert events(stage) == before


@pytest.mark.bad_input("FM01", "L04", "L05")
def test_a_text_that_can_be_kept_is_shown_as_it_was_typed(send, client, stage):
    kept = [text for text in PAYLOADS if "\x1b" not in text and "\u202e" not in text]
    kept += ["{{7*7}}", "'; DROP TABLE x; --", "😀 עברית 漢字", "%s %(x)s {0}", "a\r\nb"]
    for text in kept:
        assert send("note", text=text).status_code == 303, text
    html = client.get(f"/runs/{stage.run_id}/?record=all").content.decode()

    for sign in (
        "<script>fetch",
        "<img src",
        "<svg onload",
        "<svg/onload",
        "<iframe",
        "<object",
        "<base",
        '<form action="/beacon',
        '<a href="javascript',
    ):
        assert sign not in html, sign
    assert "{{7*7}}" in html
    assert "DROP TABLE x" in html


@pytest.mark.bad_input("FM02", "FM06")
@pytest.mark.parametrize(
    "visit", ["-1", "0", "2", "1e9", "NaN", "٣", "1,5", "0x10", "1" + "0" * 400, "", " ", "1;2", "true", "[]"]
)
def test_a_number_of_another_kind_confirms_nothing(send, stage, visit):
    before = events(stage)
    answer = send(
        "confirm", step=stage.state.current, visit=visit, gate=stage.step.gates[0].id, answer="pass", text="x"
    )

    assert answer.status_code in (400, 409)
    assert [event.kind for event in RunEvent.objects.filter(run=stage.run_id).order_by("seq")[before:]] == []


@pytest.mark.bad_input("FM02")
@pytest.mark.parametrize("port", ["-1", "1e9", "NaN", "٣", "1,5", "0x10", "1" + "0" * 400, "65536"])
def test_a_port_of_another_kind_is_refused_at_its_field(client, stage, port):
    client.force_login(make_user("administrator", environment=stage.environment))
    server = Application.objects.filter(environment=stage.environment, name="messageserver").get()
    at = reverse("edit-record", args=[stage.environment.pk, "application", server.pk])
    record = {"name": "messageserver", "type": "MessageServer", "host": "fra-scs-01", "port": port}
    answer = client.post(at, {"command_id": uuid4(), **record})

    assert answer.status_code == 400
    server.refresh_from_db()
    assert server.port == Application.objects.get(pk=server.pk).port
    assert not RegisterEntry.objects.filter(book=changes_book(stage.environment.pk)).exists()


# FM03, FM04: fields that nobody asked for, and fields twice.


@pytest.mark.bad_input("FM03")
def test_fields_that_the_form_does_not_have_change_nothing(send, stage):
    before = stage.state
    extra = {
        "is_staff": "1",
        "is_superuser": "1",
        "state": "approved",
        "run": "999",
        "approved_by": "x",
        "status": "ended",
    }
    answer = send("note", text="A note like any other.", **extra)
    stage.operator.refresh_from_db()

    assert answer.status_code == 303
    assert not stage.operator.is_staff
    assert stage.state.current == before.current
    last = RunEvent.objects.filter(run=stage.run_id).order_by("seq").last()
    assert (last.kind, last.run_id) == ("note.added", stage.run_id)
    assert json.loads(last.text)["body"] == {"step": before.current, "text": "A note like any other."}


@pytest.mark.bad_input("FM04")
@pytest.mark.parametrize("body", ["text=one&text=two", "text=a+whole+note&decision=approve&decision=reject"])
def test_a_field_that_comes_twice_is_refused(client, stage, body):
    client.force_login(stage.operator)
    before = events(stage)
    answer = client.post(
        f"/runs/{stage.run_id}/note/?text=three",
        f"command_id={uuid4()}&{body}",
        content_type="application/x-www-form-urlencoded",
    )
    assert answer.status_code == 400
    assert "came with the same field more than once" in answer.content.decode()
    assert events(stage) == before


@pytest.mark.bad_input("FM04")
def test_what_stands_in_the_address_is_no_field(client, stage):
    client.force_login(stage.operator)
    answer = client.post(f"/runs/{stage.run_id}/note/?text=from+the+address", {"command_id": uuid4()})

    assert answer.status_code == 400
    assert not RunEvent.objects.filter(run=stage.run_id, kind="note.added").exists()


# FM05: objects.


@pytest.mark.bad_input("FM05")
@pytest.mark.parametrize("number", ["0", "-1", "9223372036854775808", "1;2", "१", "1e3", "%31%00", "null"])
def test_a_number_of_no_run_is_not_found(client, stage, number):
    client.force_login(stage.operator)

    assert client.get(f"/runs/{number}/").status_code == 404
    assert client.post(f"/runs/{number}/note/", {"command_id": uuid4(), "text": "x"}).status_code == 404


# FM07: methods.


@pytest.mark.bad_input("FM07")
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "TRACE", "OPTIONS", "PROPFIND"])
def test_an_act_takes_post_and_nothing_else(client, stage, method):
    client.force_login(stage.operator)
    before = events(stage)
    answer = client.generic(method, f"/runs/{stage.run_id}/note/", headers={"X-HTTP-Method-Override": "POST"})

    assert answer.status_code == 405
    assert "POST" in answer.headers["Allow"]
    assert events(stage) == before


@pytest.mark.bad_input("FM07")
def test_no_header_makes_a_post_of_a_get_or_the_other_way_round(client, stage):
    client.force_login(stage.operator)
    for header in ("X-HTTP-Method-Override", "X-Method-Override", "X-HTTP-Method"):
        assert client.post(f"/runs/{stage.run_id}/", headers={header: "GET"}).status_code == 405
    assert client.post(f"/runs/{stage.run_id}/", {"_method": "GET"}).status_code == 405


# FM08, FM09: tokens and headers of htmx.


@pytest.mark.bad_input("FM08")
@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({}, id="no token"),
        pytest.param({"X-CSRFToken": "x" * 64}, id="a wrong one"),
        pytest.param({"Origin": "null"}, id="from nowhere"),
        pytest.param({"Origin": "https://testserver.evil.example"}, id="a look-alike"),
        pytest.param({"Origin": "https://evil.example"}, id="from elsewhere"),
        pytest.param({"HX-Request": "true"}, id="as htmx"),
    ],
)
def test_a_post_that_is_not_from_our_page_is_explained_and_does_nothing(stage, headers):
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(stage.operator)
    before = events(stage)
    answer = strict.post(f"/runs/{stage.run_id}/note/", {"command_id": uuid4(), "text": "x"}, headers=headers)

    assert answer.status_code == 403
    assert "it was sent from another site, so nothing was changed" in answer.content.decode()
    assert events(stage) == before


@pytest.mark.bad_input("FM08")
def test_the_token_of_another_session_is_refused(stage):
    theirs, ours = Client(enforce_csrf_checks=True), Client(enforce_csrf_checks=True)
    for browser, user in ((theirs, stage.second), (ours, stage.operator)):
        browser.force_login(user)
        browser.get(f"/runs/{stage.run_id}/")
    token = theirs.cookies[project.CSRF_COOKIE_NAME].value
    answer = ours.post(
        f"/runs/{stage.run_id}/note/", {"command_id": uuid4(), "text": "x", "csrfmiddlewaretoken": token}
    )
    assert answer.status_code == 403


@pytest.mark.bad_input("FM09")
@pytest.mark.parametrize(
    "headers",
    [
        {"HX-Target": "<script>alert(1)</script>"},
        {"HX-Current-URL": "javascript:alert(1)"},
        {"HX-Current-URL": "https://evil.example/%"},
        {"HX-Prompt": "x" * 1_000_000},
        {"HX-Trigger": '"><img src=x>', "HX-Trigger-Name": "\u202e"},
        {"HX-Boosted": "true", "HX-History-Restore-Request": "true"},
    ],
)
def test_headers_of_htmx_are_never_trusted_and_never_repeated(client, stage, headers):
    client.force_login(stage.operator)
    answer = client.get(f"/runs/{stage.run_id}/", headers={"HX-Request": "true", **headers})

    assert answer.status_code == 200
    for value in headers.values():
        assert value == "true" or value[:40] not in answer.content.decode()
    assert "evil.example" not in str(answer.headers)


# FM10, FM11, FM12: hosts, paths, cookies.


@pytest.mark.bad_input("FM10")
@pytest.mark.parametrize(
    "host",
    ["evil.example", "testserver.evil.example", "a b", "<x>", "testserver@evil", ""],
)
def test_a_host_that_is_not_ours_is_refused(client, host):
    answer = client.get("/sign-in/", headers={"Host": host})

    assert answer.status_code == 400
    assert "evil" not in answer.content.decode()


@pytest.mark.bad_input("FM10")
@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-Host": "evil.example"},
        {"X-Forwarded-For": ", ".join(["192.0.2.1"] * 100)},
        {"X-Forwarded-Proto": "http"},
        {"X-Forwarded-Server": "evil.example", "X-Original-URL": "/audit/", "X-Rewrite-URL": "/audit/"},
        {"Forwarded": "for=192.0.2.1;host=evil.example;proto=http"},
    ],
)
def test_what_only_a_proxy_may_say_is_passed_over(client, headers):
    answer = client.get("/runs/", headers=headers)

    assert answer.status_code == 302
    assert answer.headers["Location"] == "/sign-in/?next=/runs/"


@pytest.mark.bad_input("FM11")
@pytest.mark.parametrize(
    "path",
    [
        "/runs/{run}/..;/audit/",
        "/runs/{run};x/",
        "/runs/{run}/;x",
        "//runs/{run}/",
        "/RUNS/{run}/",
        "/runs/{run}/%2e%2e/audit/",
        "/runs%2f{run}/",
        "/runs/%5c{run}/",
        "/runs/{run}.../",
        "/runs/{run}/board/%00",
        "/runs/0{run}e/",
        "/static/../manage.py",
        "/static/%2e%2e/runbook/settings.py",
        "/static/..%2f..%2fetc/passwd",
        "/i18ntranslation/../runs/{run}/",
    ],
)
def test_odd_paths_lead_nowhere_and_give_nobody_a_right(client, stage, path):
    """P26 too: what stands behind a path never opens what is before it."""
    address = path.format(run=stage.run_id)
    for who in (None, make_user()):
        if who:
            client.force_login(who)
        answer = client.get(address)
        assert answer.status_code in ((302, 404) if who is None else (404,)), address
        assert b"SECRET_KEY" not in b"".join(answer)


@pytest.mark.bad_input("FM12")
@pytest.mark.parametrize("value", ["x" * 8192, "", "a" * 32, "../../etc/passwd", "null", "0"])
def test_a_session_that_is_none_is_signed_out_cleanly(client, stage, value):
    client.force_login(stage.operator)
    client.cookies[project.SESSION_COOKIE_NAME] = value
    answer = client.get(f"/runs/{stage.run_id}/")

    assert answer.status_code == 302
    assert answer.headers["Location"].startswith("/sign-in/?next=")


@pytest.mark.bad_input("FM12")
def test_of_two_session_cookies_none_opens_more_than_one_alone(stage):
    browser = Client()
    browser.force_login(stage.operator)
    name, key = project.SESSION_COOKIE_NAME, browser.session.session_key
    for header in (f"{name}={key}; {name}=wrong", f"{name}=wrong; {name}={key}"):
        answer = Client().get(f"/runs/{stage.run_id}/", headers={"Cookie": header})
        assert answer.status_code in (200, 302)


# FM13: searches.


@pytest.mark.bad_input("FM13")
@pytest.mark.parametrize(
    "query",
    [
        "person=%25",
        "person=_",
        "person=" + "word+" * 10_000,
        "person=a+%26+!",
        "person=(a%2B)%2B%24",
        "person=%00",
        "page=-1",
        "page=999999999999",
        "page=1e3",
        "order_by=password",
        "user__password__startswith=a",
        "environment=1%20or%201=1",
        "since=0000-00-00&until=9999-99-99",
        "status=x&kind=y&only=z",
        "page_size=1000000000",
    ],
)
def test_a_search_that_makes_no_sense_finds_nothing_more_and_breaks_nothing(client, stage, query):
    """P12: what is not in the form's own list narrows nothing and tells nothing."""
    client.force_login(stage.auditor)
    answer = client.get(f"/audit/?{query}")

    assert answer.status_code == 200
    assert stage.operator.password not in answer.content.decode()
    assert answer.context["page"].paginator.count <= 1


# FM15, FM17, FM18.


@pytest.mark.bad_input("FM15")
@pytest.mark.parametrize(
    "path",
    [
        "password/reset/",
        "account/password/reset/",
        "confirm-email/x/",
        "sign-up/",
        "invitations/accept/x/",
        "account/email/",
    ],
)
def test_there_are_no_links_by_mail_that_could_be_used_twice_or_by_others(client, path):
    """Accounts are made and set back by whoever runs the installation (docs/sign-in.md)."""
    assert client.get(f"/{path}").status_code in (302, 404)
    client.force_login(make_user())
    assert client.get(f"/{path}").status_code == 404


@pytest.mark.bad_input("FM17")
def test_a_note_that_names_another_run_is_a_text_and_no_link(send, client, stage):
    send("note", text="See /runs/999999/ and https://evil.example/runs/1/ and #7.")
    html = client.get(f"/runs/{stage.run_id}/").content.decode()

    assert "See /runs/999999/" in html
    assert 'href="/runs/999999/"' not in html
    assert 'href="https://evil' not in html


@pytest.mark.bad_input("FM18")
@pytest.mark.parametrize(
    "headers",
    [
        {"Accept-Language": "../../etc/passwd"},
        {"Accept-Language": "x" * 1_000_000},
        {"Accept-Language": "de-" * 5000},
        {"Cookie": "django_language=../../x; timezone=../../etc/passwd; tz=" + "x" * 100_000},
        {"Accept": "\x00", "Accept-Charset": "utf-7"},
    ],
)
def test_language_and_time_zone_of_a_browser_choose_nothing(client, headers):
    plain = client.get("/sign-in/")
    answer = Client().get("/sign-in/", headers=headers)

    assert answer.status_code == 200
    assert answer.headers.get("Content-Language") == plain.headers.get("Content-Language")
    assert "Sign in" in answer.content.decode()
