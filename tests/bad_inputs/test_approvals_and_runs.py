"""Approvals and runs under bad inputs (rows D). Most are proved beside their services; here is the rest."""

import json
from uuid import uuid4

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.utils import timezone

from tests.factories import make_user
from tests.web.run_scene import Stage, no_agents
from upgrades.domain import run as core
from upgrades.domain.refusal import Refused
from upgrades.models import Membership, RegisterEntry

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _no_agents(monkeypatch):
    no_agents(monkeypatch)


@pytest.mark.bad_input("D01")
def test_no_command_of_the_shell_signs_anything():
    """Whoever has the machine can do much; a signature of another person is not among the commands."""
    from django.core.management import get_commands

    ours = [name for name, app in get_commands().items() if app == "upgrades"]
    assert not [name for name in ours if "approve" in name or "sign" in name.replace("sign_checkpoints", "")]
    with pytest.raises(CommandError):
        call_command("approve")


@pytest.mark.bad_input("D08")
@pytest.mark.parametrize("reason", ["", "   ", "x", "😀" * 5, "short", "x" * 1_000_000, "a\x00b" * 10])
def test_a_reason_that_is_none_is_refused_and_nothing_is_asked(reason):
    stage = Stage()
    stage.advance()
    with pytest.raises(Refused, match="The reason"):
        stage.act(core.AskDeviation(**stage.seen, what="skip", reason=reason))

    assert stage.state.deviations == {}


def lines(answer):
    body = b"".join(answer.streaming_content) if answer.streaming else answer.content
    return [json.loads(line) for line in body.decode().splitlines()]


@pytest.mark.bad_input("D17")
def test_a_long_account_comes_whole_and_up_to_the_moment_at_which_it_was_asked_for(client):
    """The list is taken in one piece: what is added meanwhile is in the next one, and the first says when it was made."""
    stage = Stage()
    client.force_login(stage.auditor)
    first = lines(client.get("/audit/?export=jsonl"))
    other = Stage()
    Membership.objects.create(
        environment=other.environment, user=stage.auditor, role="auditor", given_at=timezone.now()
    )
    second = lines(client.get("/audit/?export=jsonl"))

    assert len(second) == len(first) + 1
    assert second[2:] == first[1:] or second[1:-1] == first[1:]
    assert RegisterEntry.objects.filter(kind="list.exported").count() == 3, "once for each environment in it"


@pytest.mark.bad_input("D17")
def test_whoever_lost_the_right_gets_no_further_account(client):
    stage = Stage()
    client.force_login(stage.auditor)
    assert client.get("/audit/?export=csv").status_code == 200
    Membership.objects.filter(user=stage.auditor).delete()

    assert client.get("/audit/?export=csv").status_code == 404
    client.force_login(make_user())
    assert client.get("/audit/?export=csv").status_code == 404


@pytest.mark.bad_input("D06")
@pytest.mark.parametrize("method", ["get", "head"])
def test_a_link_that_a_mail_scanner_opens_signs_nothing(client, method):
    stage = Stage().reach("stop-old")
    client.force_login(stage.approver)
    gate = stage.step.gate("approval")
    before = stage.run.version
    for address in (
        f"/approvals/{stage.run_id}/stop-old/approval/",
        f"/runs/{stage.run_id}/sign/?step=stop-old&visit=1&gate=approval&digest={stage.digest(gate)}&command_id={uuid4()}",
    ):
        assert getattr(client, method)(address).status_code in (200, 405)

    assert stage.run.version == before
