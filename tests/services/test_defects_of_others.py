"""Defects that products of this kind were shipped with, where no other test holds us to it; docs/approvals.md lists all."""

from pathlib import Path

import pytest

from tests.factories import bind, start
from tests.services.night import REASON
from upgrades import management
from upgrades.domain import run as core
from upgrades.domain.refusal import OutOfTurn
from upgrades.domain.run_state import RunStatus
from upgrades.models import RegisterEntry, Run, RunEvent
from upgrades.queries.run_page import run_page, seen_by


@pytest.fixture
def at_stop_old(night):
    return night.go_to("stop-old")


def test_what_an_approver_signed_outlives_the_account(at_stop_old):
    night = at_stop_old
    night.act(night.sign(), night.approver)
    told = [row.text for row in RunEvent.objects.filter(run=night.run).order_by("seq")]
    night.approver.delete()
    assert [row.text for row in RunEvent.objects.filter(run=night.run).order_by("seq")] == told
    assert night.verdict("stop-old", "approval").is_met
    page = run_page(seen_by(night.run, night.operator), night.operator, whole_record=True)
    assert any(entry.by.startswith("Anna") for entry in page.record)


def test_a_run_that_waits_for_a_person_holds_its_servers_all_the_same(at_stop_old):
    night = at_stop_old
    assert not night.verdict("stop-old", "approval").is_met
    wish = {"bindings": bind(night.environment, new="confserv_b", old="confserv")}
    with pytest.raises(OutOfTurn, match=f"run {night.run}\\b"):
        start(night.environment, night.operator, **wish)
    assert Run.objects.count() == 1


def test_a_run_on_hold_takes_no_next_step_and_can_be_aborted(night):
    night.act(core.Hold(reason=REASON))
    before = night.kinds
    night.advance()
    assert night.kinds == before
    night.act(core.Abort(reason=REASON))
    assert night.state.status is RunStatus.ABORTED


def test_looking_at_pages_is_no_entry_in_the_record(night, client):
    client.force_login(night.approver)
    entries, events = RegisterEntry.objects.count(), RunEvent.objects.count()
    for page in (
        "/",
        "/runs/",
        f"/runs/{night.run}/",
        "/approvals/",
        f"/environments/{night.environment.pk}/",
    ):
        assert client.get(page, follow=True).status_code == 200
    assert (RegisterEntry.objects.count(), RunEvent.objects.count()) == (entries, events)


def test_no_command_of_the_shell_signs_anything():
    commands = Path(management.__path__[0], "commands")
    for file in commands.glob("*.py"):
        imported = {part for line in file.read_text("utf-8").splitlines() for part in line.split()}
        # Rehearsals have people of their own on simulated copies; nothing else acts in runs.
        assert file.stem == "rehearse" or not imported & {"Sign", "SignDeviation", "runs.act", "core"}, (
            file.stem
        )
