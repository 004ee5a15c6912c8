"""The page of a run in a real Chromium, against the whole server: pages, stream, and NOTIFY of the real database."""

import asyncio
import contextlib
import re
import threading

import pytest
import uvicorn
from django.conf import settings as project
from django.db import connections
from django.test import Client
from playwright.sync_api import expect

from runbook.stores import free_port
from tests.factories import show_who
from tests.web.run_scene import Stage, no_agents

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def site(transactional_db, settings, monkeypatch):
    """The address of the server as it is deployed, in a thread: it works on the database of the tests."""
    from runbook.asgi import application

    no_agents(monkeypatch)
    monkeypatch.setitem(connections["default"].settings_dict, "CONN_MAX_AGE", 0)
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(application, port=port, log_level="warning", lifespan="on"))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(timeout=30)


@pytest.fixture
def visit(chromium, site):
    """Opens a run's page as a person, in a browser of its own; `script=False` turns JavaScript off."""
    with contextlib.ExitStack() as contexts:

        def open_page(stage, who=None, script=True):
            context = chromium.new_context(
                java_script_enabled=script, viewport={"width": 1440, "height": 900}
            )
            contexts.callback(context.close)
            context.add_cookies(
                [{"name": project.SESSION_COOKIE_NAME, "value": session(who or stage.operator), "url": site}]
            )
            page = context.new_page()
            page.goto(f"{site}/runs/{stage.run_id}/")
            return page

        yield open_page


def session(user):
    """The key of a session in which `user` has just shown who they are."""
    client = Client()
    client.force_login(user)
    show_who(client, user)
    return client.session.session_key


def watching():
    stage = Stage().reach("launch-new")
    stage.advance()
    return stage


def test_a_log_line_moves_the_track_of_an_open_page_and_typed_text_stays(visit):
    stage = watching()
    page = visit(stage)
    expect(page.locator("html")).to_have_attribute("data-link", "live")
    page.locator("#ask-note summary").click()
    page.locator("#note textarea").fill("half a thought")
    expect(page.locator(".station.next")).to_contain_text("21-25300 or 21-25301")

    stage.log("confserv_b", "00-05060", "21-22911", "21-25301")

    expect(page.locator(".station.seen")).to_contain_text("21-25301")
    expect(page.locator(".station.next")).to_contain_text("21-22170 or 21-22171")
    expect(page.locator("#note textarea")).to_have_value("half a thought")
    expect(page.locator("#note textarea")).to_be_visible()


def test_the_gate_opens_and_the_run_goes_on_before_the_readers_eyes(visit):
    stage = watching()
    page = visit(stage)
    stage.log("confserv_b", "00-05060", "21-22911", "21-25301", "21-22170")
    expect(page.locator(".step h2")).to_have_text("7 · Shut down confserv")
    expect(page.locator(".steps .now")).to_contain_text("approval: 0 of 1 signed")


def test_an_act_with_htmx_swaps_the_board_and_stays_on_the_page(visit):
    stage = watching()
    page = visit(stage)
    page.evaluate("window.same = true")
    page.locator("#ask-note summary").click()
    page.locator("#note textarea").fill("The dump is on tape 7.")
    page.get_by_role("button", name="Add the note").click()
    expect(page.locator("#notes")).to_contain_text("The dump is on tape 7.")
    expect(page.locator("#ask-note")).not_to_have_attribute("open", re.compile(".*"))
    assert page.evaluate("window.same") is True


def test_what_was_said_of_an_act_goes_with_the_next_one(visit):
    """“The run has started” stood above its report still, for whoever never loaded the page anew."""
    stage = watching()
    page = visit(stage)
    page.evaluate("document.getElementById('messages').append('The run has started.')")
    stage.log("confserv_b", "00-05060", "21-22911", "21-25301")
    expect(page.locator(".station.seen")).to_contain_text("21-25301")
    expect(page.locator("#messages")).to_contain_text("The run has started.")
    page.locator("#ask-note summary").click()
    page.locator("#note textarea").fill("The dump is on tape 7.")
    page.get_by_role("button", name="Add the note").click()
    expect(page.locator("#notes")).to_contain_text("The dump is on tape 7.")
    expect(page.locator("#messages")).not_to_contain_text("The run has started.")


def test_a_refusal_says_why_at_the_head_of_the_page_and_keeps_the_text(visit):
    stage = Stage().reach("stop-old")
    page = visit(stage, stage.approver)
    expect(page.locator("html")).to_have_attribute("data-link", "live")
    page.locator("#sign-approval textarea").fill("I looked at it twice.")
    stage.environment.memberships.filter(user=stage.approver).update(role="auditor")
    page.get_by_role("button", name="Sign this step").click()
    expect(page.locator("#messages")).to_contain_text("may not approve this step")
    typed = page.locator("textarea").evaluate_all("all => all.map(one => one.value)")
    assert "I looked at it twice." in typed
    with page.expect_response(re.compile("/approvals/count/")) as asked:
        page.evaluate("document.body.dispatchEvent(new Event('approvals-changed'))")
    asked.value.finished()
    expect(page.locator("#messages")).to_contain_text("may not approve this step")


def test_two_people_see_the_same_run_move(visit):
    stage = Stage().reach("stop-old")
    operator, approver = visit(stage), visit(stage, stage.approver)
    begin = operator.get_by_role("button", name="Begin step 7")
    expect(begin).to_be_disabled()
    approver.get_by_role("button", name="Sign this step").click()
    expect(begin).to_be_enabled()
    begin.click()
    expect(operator.locator(".step h2 + .chip")).to_have_text("Waiting for the agent")


def test_everything_works_without_a_script(visit):
    stage = Stage()
    stage.advance()
    page = visit(stage, script=False)
    form = page.locator("#confirm-packages-delivered")
    form.get_by_label("Fail").check()
    form.get_by_role("button", name="Record the answer").click()
    assert "is empty. Write it down" in page.content()
    form.get_by_label("What you saw").fill("The package of fra-cfg-02 is cut off.")
    form.get_by_role("button", name="Record the answer").click()
    assert page.url.endswith(f"/runs/{stage.run_id}/")
    assert "Answered “fail” by Nina Adler: The package of fra-cfg-02 is cut off." in page.content()


def test_no_policy_is_violated_on_the_page_of_a_run(visit):
    stage = watching()
    stage.log(
        "confserv_b", "21-22911", text='<img src=x onerror=alert(1)><b hx-post="/x" hx-trigger="load">{}'
    )
    page = visit(stage)
    told = []
    page.on("console", lambda message: told.append(message.text))
    page.reload()
    expect(page.locator("html")).to_have_attribute("data-link", "live")
    page.locator("#ask-hold summary").click()
    assert [text for text in told if "violat" in text.lower() or "blocked" in text.lower()] == []


@pytest.mark.parametrize("width", [820, 1180, 1280, 1440])
def test_the_forms_at_the_head_of_the_page_open_within_the_window(visit, width):
    page = visit(watching())
    page.set_viewport_size({"width": width, "height": 900})
    for name in ("hold", "abort"):
        page.locator(f"#ask-{name} > summary").click()
        form = page.locator(f"#ask-{name} > div").bounding_box()
        assert form["x"] >= 0, name
        assert form["x"] + form["width"] <= width, name
        page.locator(f"#ask-{name} > summary").click()


def test_an_export_that_is_refused_is_told_on_the_page_and_not_saved_as_a_file(visit, monkeypatch):
    monkeypatch.setattr("upgrades.services.exports.PDF_ROWS", 0)
    stage = watching()
    page = visit(stage, who=stage.auditor)
    page.get_by_role("link", name="Audit", exact=True).click()
    page.get_by_role("link", name="PDF").click()
    expect(page.locator("#messages")).to_contain_text("A PDF has room for 0 rows, and this list has 1.")
    with page.expect_download() as saved:
        page.get_by_role("link", name="CSV").click()
    assert saved.value.suggested_filename.endswith(".csv")
