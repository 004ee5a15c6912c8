"""The main job in a real browser, on everything that `make demo` starts."""

import time

import pytest

from tests.e2e.person import Person

pytestmark = [pytest.mark.browser, pytest.mark.processes]
TURNS = 400  # of a tenth of a second and more each


def operate(operator):
    """What the operator does in one look at the page: begin, answer the gates, complete."""
    if operator.click("form[id^=begin] button"):
        return
    for form, values in (
        ("attach-", {"text": "cfg_8130.dmp on the backup server, SHA-256 9f2c0000"}),
        ("confirm-", {"answer": "pass", "text": "Seen by me on the server."}),
    ):
        if operator.send(form, **values):
            return
    operator.click("form[id^=complete] button")


def carry_out(operator, approver, run, *, until):
    """Both do what the page says, the operator on the simulated servers too, until `until(operator)` is true."""
    served = ""
    for _ in range(TURNS):
        if until(operator):
            return
        if operator.step != served and operator.click("#simulated-step button"):
            served = operator.step
        operate(operator)
        if operator.step == "stop-old" and operator.sees("form[id^=begin] button[disabled]"):
            approver.page.goto(run)
            approver.click("form[id^=sign] button")
        time.sleep(0.1)
    pytest.fail(f"The run still stands at {operator.step}:\n{operator.text()[:3000]}")


@pytest.fixture
def operator(chromium, demo):
    person = Person(chromium, demo.url, "operator", viewport={"width": 1440, "height": 1000})
    yield person
    assert person.complaints == []
    person.close()


@pytest.fixture
def approver(chromium, demo):
    person = Person(chromium, demo.url, "approver", viewport={"width": 390, "height": 844})
    yield person
    assert person.complaints == []
    person.close()


def test_a_new_user_carries_the_upgrade_through_to_its_report(demo, operator, approver):
    assert "operator" in demo.said
    run = operator.start_run()
    carry_out(operator, approver, run, until=lambda person: "Ended as “completed”" in person.text())
    report = operator.page.inner_text("main")
    for evidence in ("21-25301", "21-22170", "21-22172", "Tomas Lindqvist", "cfg_8130.dmp"):
        assert evidence in report
    assert not operator.sees("form[id^=complete], form[id^=begin]")


def test_a_server_on_the_wrong_database_holds_the_run(demo, operator, approver):
    operator.begin_course("wrong-database")
    run = operator.start_run()
    carry_out(operator, approver, run, until=lambda person: person.sees("div#hold"))
    assert operator.step == "launch-new"
    assert "On hold" in operator.text()
    assert "21-22171" in operator.text()
    assert not operator.click("form[id^=complete] button")
