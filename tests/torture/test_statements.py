"""The n-th statement loop: whichever statement or commit of an act fails, nothing is half done.

Each act is sent with statement 1, 2, … failing, until it goes through without a failure. After each: the answer is one that
says that nothing was changed (409, 503) and nothing was; or the act is done as a whole, and sent again it answers the same and
does nothing more.
"""

from contextlib import suppress
from datetime import timedelta
from uuid import uuid4

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import DatabaseError
from django.test import Client
from django.utils import timezone

from tests.factories import bind, make_environment, make_user, publish, show_who
from tests.record.scene import Vault
from tests.services.fake_agent import news, part
from tests.services.night import Night, check_every_run, rows
from tests.torture.statements import Eye, failing, failing_commit
from tests.web.run_scene import REASON, Stage, closing, no_agents
from upgrades.adapters import event_store
from upgrades.domain import run as core
from upgrades.models import Agent, Checkpoint, CheckpointDelivery, CommandReceipt, RunEvent
from upgrades.services import agents, polling, projections, runs

pytestmark = pytest.mark.django_db(transaction=True)
MOST = 400  # statements of one act; a loop that never ends is a fault of the loop

# Two faults alternate, so that each statement meets one that leaves the connection and one that takes it away.
LOOPS = (("serialization failure", "deadlock"), ("connection lost",))


@pytest.fixture(autouse=True)
def _stage_is_set(monkeypatch, settings, tmp_path):
    no_agents(monkeypatch)
    settings.STORAGES["default"]["OPTIONS"]["location"] = str(tmp_path / "evidence")
    monkeypatch.setattr(runs, "_alarm", [])  # the bell is Redis's; its loss is tested elsewhere


@pytest.fixture
def eye():
    eye = Eye()
    yield eye
    eye.close()


class Act:
    """A form that is about to be sent: always the same one, with the same id."""

    def __init__(self, user, path, data, file=None):
        self.path, self.file = path, file
        self.data = {"command_id": str(uuid4()), **data}
        self.client = Client(raise_request_exception=False)
        self.client.force_login(user)
        show_who(self.client, user)

    def send(self):
        data = dict(self.data)
        if self.file is not None:
            data["file"] = SimpleUploadedFile("dump.bin", self.file)
        return self.client.post(self.path, data)


def on_stage(verb, stage, who=None, file=None, **data):
    return Act(who or stage.operator, f"/runs/{stage.run_id}/{verb}/", data, file)


def waiting():
    stage = Stage()
    stage.advance()
    return stage


def at(step):
    stage = Stage().reach(step)
    stage.advance()
    return stage


def ready_to_complete():
    stage = waiting()
    stage.fulfil(stage.step.gates)
    return on_stage("complete", stage, **stage.seen)


def signing(verb, **more):
    stage = Stage().reach("stop-old")
    digest = stage.digest(stage.step.gate("approval"))
    return on_stage(verb, stage, stage.approver, **stage.seen, gate="approval", digest=digest, **more)


def beginning():
    stage = Stage().reach("stop-old")
    stage.sign(stage.step.gate("approval"))
    return on_stage("begin", stage, **stage.seen)


def asked(verb, **more):
    stage = at("read-only")
    on_stage("ask-deviation", stage, **stage.seen, about="skip", reason=REASON).send()
    return on_stage(verb, stage, stage.approver, number=1, **more)


def held():
    stage = waiting()
    on_stage("hold", stage, reason="The phones ring.").send()
    return on_stage("resume", stage, reason="It was a drill.")


def burdened():
    stage = closing()
    return on_stage("take-over", stage, stage.approver, burden=next(iter(stage.state.burdens)), reason=REASON)


def beyond_rights():
    stage = waiting()
    return on_stage("note", stage, stage.auditor, text="I may only read.")


def starting():
    publish()
    environment = make_environment(f"Production · {uuid4().hex[:6]}")
    bound = bind(environment, new="confserv_b", old="confserv")
    data = {
        "kind": "live",
        "role-new": bound["new"],
        "role-old": bound["old"],
        "parameter-target": "8.5.101",
        "parameter-database-upgraded": "false",
        "parameter-keep-database-until": "",
        "change": "CHG0042317",
        "category": "normal",
    }
    user = make_user("operator", environment=environment)
    return Act(user, f"/environments/{environment.pk}/start/config-server-ha/", data)


def simple(make, verb, *, seen=False, file=None, **data):
    def prepare():
        stage = make()
        return on_stage(verb, stage, file=file, **(stage.seen if seen else {}), **data)

    return prepare


ACTS = {
    "start a run": starting,
    "note": simple(waiting, "note", text="The dump is on tape 7."),
    "confirm": simple(
        waiting, "confirm", seen=True, gate="packages-delivered", answer="pass", text="Both hosts"
    ),
    "complete": ready_to_complete,
    "attach a text": simple(
        lambda: at("backup-database"), "attach", seen=True, gate="database-copy", text="cfg.dmp"
    ),
    "attach a file": simple(
        lambda: at("backup-database"),
        "attach",
        seen=True,
        gate="database-copy",
        text="cfg.dmp",
        file=b"dump" * 300,
    ),
    "sign": lambda: signing("sign"),
    "reject": lambda: signing("reject", reason=REASON),
    "begin": beginning,
    "hold": simple(waiting, "hold", reason="The phones ring."),
    "resume": held,
    "take the step": simple(waiting, "take-step", seen=True, reason=REASON),
    "restart": simple(lambda: at("read-only"), "restart", seen=True, reason=REASON),
    "ask for a deviation": simple(
        lambda: at("read-only"), "ask-deviation", seen=True, about="skip", reason=REASON
    ),
    "sign a deviation": lambda: asked("sign-deviation", comment="I looked."),
    "reject a deviation": lambda: asked("reject-deviation", reason="The mode must be seen."),
    "take a burden over": burdened,
    "abort": simple(waiting, "abort", reason="The window was withdrawn."),
}


def receipts(act):
    return CommandReceipt.objects.filter(pk=act.data["command_id"]).count()


def settle(act, answer, before, eye):
    """After a failure: nothing was changed and the answer says so, or all of it was. True when the act is done."""
    if eye.look() == before:
        assert answer.status_code in (409, 503), answer.status_code
        assert "othing was" in answer.content.decode(), answer.content
        return False
    assert receipts(act) == 1
    check_every_run()
    once = eye.look()
    again = act.send()
    assert again.status_code == 303, again.status_code
    assert eye.look() == once
    return True


@pytest.mark.parametrize("name", ACTS)
def test_an_act_whose_nth_statement_fails_is_done_wholly_or_not_at_all(name, eye):
    for faults in LOOPS:
        act, before = ACTS[name](), None
        for k in range(1, MOST):
            before = before or eye.look()
            with failing(k, faults[k % len(faults)]) as fault:
                answer = act.send()
            if not fault.fired:
                assert answer.status_code == 303
                assert receipts(act) == 1
                break
            if settle(act, answer, before, eye):
                act, before = ACTS[name](), None
        else:
            pytest.fail("it never came to its end")
    check_every_run()


@pytest.mark.parametrize("done", [False, True], ids=["never arrived", "answer lost"])
@pytest.mark.parametrize("name", ACTS)
def test_an_act_whose_nth_commit_fails_is_done_once_when_it_is_sent_again(name, done, eye):
    act, before = ACTS[name](), None
    for k in range(1, MOST):
        before = before or eye.look()
        with failing_commit(k, done=done) as fault:
            answer = act.send()
        if not fault.fired:
            assert answer.status_code == 303
            break
        assert answer.status_code in (303, 503), answer.content.decode()
        if settle(act, answer, before, eye):
            act, before = ACTS[name](), None
    else:
        pytest.fail("it never came to its end")
    check_every_run()


# What workers do. It consists of several transactions, so between two of them it may stand anywhere; but nowhere half, and
# repeated it comes to the same end.


def kinds(run_id):
    return list(RunEvent.objects.filter(run=run_id).order_by("seq").values_list("kind", flat=True))


def beginning_a_step(night):
    for gate in ("packages-delivered", "related-components"):
        night.act(night.confirm(gate))
    night.act(core.Complete(step="prerequisites", visit=1))
    return lambda: runs.advance_run(night.run)


def taking_news(night):
    agent, content = night.agent("new"), b"10:00:02.000 Std 22170 synthetic\n" * 3
    answer = news(part(content), process="up")
    return lambda: agents.take_news(agent.pk, answer)


def taking_trouble(night):
    Agent.objects.update(trouble="no connection", trouble_since=timezone.now() - timedelta(minutes=1))
    agent = night.agent("new")

    def work():
        agents.record_trouble(agent.pk, "still no connection", at=timezone.now())
        runs.advance_run(night.run)

    return work


def leasing(night):
    def work():
        token, now = uuid4(), timezone.now()
        ours = Agent.objects.filter(environment=night.environment)
        ours.update(lease_token=None, lease_until=None, due_at=None)
        for agent in polling.claim(token):
            polling.plan(agent, token)
            polling.release(agent, token, due_at=now, followed_since=now)

    return work


WORK = {
    "advance a run": beginning_a_step,
    "take news": taking_news,
    "take trouble": taking_trouble,
    "claim and release": leasing,
}


def check(run_id):
    """As `check_every_run`, for one."""
    assert list(event_store.broken_links(run_id)) == []
    before = rows(run_id)
    projections.rebuild(run_id)
    assert rows(run_id) == before


def another_night(before=None):
    """A night of its own; the one before is over and costs nothing any more."""
    if before is not None:
        before.act(core.Abort(reason="The next night begins."))
    Agent.objects.update(due_at="2100-01-01T00:00Z")
    return Night(place=f"Production · {uuid4().hex[:6]}")


@pytest.mark.parametrize("name", WORK)
def test_work_whose_nth_statement_fails_comes_to_the_same_end_when_it_is_repeated(name, eye):
    night = another_night()
    WORK[name](night)()
    right = kinds(night.run)
    for faults in LOOPS:
        night = another_night(night)
        work = WORK[name](night)
        for k in range(1, MOST):
            before = eye.look()
            with failing(k, faults[k % len(faults)]) as fault, suppress(DatabaseError):
                work()
            if not fault.fired:
                break
            if eye.look() != before:
                check(night.run)
                work()
                assert kinds(night.run) == right
                night = another_night(night)
                work = WORK[name](night)
        else:
            pytest.fail("it never came to its end")
        assert kinds(night.run) == right
        check(night.run)


def test_a_checkpoint_whose_nth_statement_fails_is_signed_once_when_it_is_repeated(tmp_path, eye):
    vault = Vault(tmp_path)
    waiting()
    for faults in LOOPS:
        for k in range(1, MOST):
            vault.restart()
            with failing(k, faults[k % len(faults)]) as fault, suppress(DatabaseError):
                vault.sign()
            if not fault.fired:
                break
        vault.restart()
        vault.sign()
        waiting()
    numbers = list(Checkpoint.objects.order_by("number").values_list("number", flat=True))
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(vault.file.read_text().splitlines()) == len(numbers)
    assert not CheckpointDelivery.objects.filter(done_at=None).exists()
