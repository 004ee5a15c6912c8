"""A signature takes a fresh proof of who gives it: asked for on the page, enforced in the service, told by the record."""

import time
from datetime import timedelta

import pytest
from django.utils import timezone

from tests.factories import make_user, proof_of, show_who
from tests.services.night import Night
from tests.web.run_scene import Stage, no_agents
from tests.web.second_factor import codes_of, set_up_app
from upgrades.domain import run as core
from upgrades.domain.refusal import NotAllowed
from upgrades.models import Environment
from upgrades.services import runs
from upgrades.services.sign_in import Proof, ProofNeeded

pytestmark = pytest.mark.django_db
PASSWORD = "quiet-night-in-frankfurt"


# The service.


@pytest.fixture
def night():
    return Night().go_to("stop-old")


def sign(night, proof, by=None):
    from uuid import uuid4

    by = by or night.approver
    return runs.act(run_id=night.run, command=night.sign(), by=by, command_id=uuid4(), proof=proof)


def test_without_a_proof_nothing_is_signed_whoever_asks(night):
    before = night.kinds
    with pytest.raises(ProofNeeded, match="needs a fresh proof"):
        sign(night, None)
    assert night.kinds == before


@pytest.mark.parametrize(
    ("ago", "counts"),
    [(0, True), (290, True), (310, False), (-60, False)],
    ids=["now", "4:50", "5:10", "to come"],
)
def test_a_proof_counts_for_five_minutes(night, ago, counts):
    proof = Proof("password", night.approver.pk, timezone.now() - timedelta(seconds=ago))
    if counts:
        sign(night, proof)
        assert night.history[-1].event.proof == "password"
    else:
        with pytest.raises(ProofNeeded):
            sign(night, proof)


def test_the_proof_of_somebody_else_is_none(night):
    with pytest.raises(NotAllowed, match="not one of the person who signs"):
        sign(night, proof_of(night.operator))


def test_who_has_a_second_factor_needs_it(night):
    set_up_app(night.approver)
    with pytest.raises(ProofNeeded, match="second factor"):
        sign(night, proof_of(night.approver))
    sign(night, proof_of(night.approver, "code"))
    assert night.history[-1].event.proof == "code"


def test_the_crew_of_rehearsals_signs_on_simulated_servers_alone(night):
    with pytest.raises(NotAllowed, match="simulated servers only"):
        sign(night, proof_of(night.approver, "rehearsal"))
    Environment.objects.filter(pk=night.environment.pk).update(world="w-1")
    sign(night, proof_of(night.approver, "rehearsal"))
    assert night.history[-1].event.proof == "rehearsal"


def test_a_deviation_takes_a_proof_too_and_asking_for_one_does_not(night):
    from uuid import uuid4

    asked = core.AskDeviation(
        step="stop-old", visit=1, what="skip", reason="The window closes in ten minutes."
    )
    runs.act(run_id=night.run, command=asked, by=night.operator, command_id=uuid4())
    signature = core.SignDeviation(number=len(night.state.deviations))
    with pytest.raises(ProofNeeded):
        runs.act(run_id=night.run, command=signature, by=night.approver, command_id=uuid4())
    night.act(signature, night.approver)
    assert "deviation.signed" in night.kinds


def test_whoever_may_not_sign_is_told_so_before_anything_is_asked(night):
    with pytest.raises(NotAllowed):
        sign(night, None, by=night.operator)


# The page.


@pytest.fixture
def stage(monkeypatch):
    no_agents(monkeypatch)
    stage = Stage().reach("stop-old")
    stage.approver.set_password(PASSWORD)
    stage.approver.save()
    return stage


@pytest.fixture
def press(client, stage):
    from uuid import uuid4

    def press(htmx=False, **fields):
        gate = stage.step.gate("approval")
        data = {"command_id": str(uuid4()), **stage.seen, "gate": "approval", "digest": stage.digest(gate)}
        headers = {"HX-Request": "true"} if htmx else {}
        return client.post(f"/runs/{stage.run_id}/sign/", {**data, **fields}, headers=headers)

    client.force_login(stage.approver)
    return press


def signatures(stage):
    return [one.event for one in stage_history(stage) if one.event.kind == "approval.signed"]


def stage_history(stage):
    from upgrades.adapters import event_store

    return event_store.load(stage.run_id)


def test_a_signature_asks_who_it_is_and_follows_with_what_was_typed(client, stage, press):
    asked = press(comment="Read and agreed.")
    assert (asked.status_code, signatures(stage)) == (303, [])
    page = client.get(asked.headers["Location"])
    assert "You are about to do this" in page.text
    assert f"Sign: {stage.run.title}" in page.text

    mark = page.context["next"]
    wrong = client.post("/account/confirm/", {"password": "wrong", "next": mark})
    assert "not your password" in wrong.text
    assert signatures(stage) == []

    done = client.post("/account/confirm/", {"password": PASSWORD, "next": mark})
    assert (done.status_code, done.headers["Location"]) == (303, f"/runs/{stage.run_id}/")
    (signed,) = signatures(stage)
    assert (signed.comment, signed.proof) == ("Read and agreed.", "password")


def test_with_htmx_the_whole_page_goes_to_the_question(stage, press):
    answer = press(htmx=True)
    assert (answer.status_code, answer.content) == (401, b"")
    assert answer.headers["HX-Redirect"].startswith("/account/confirm/?next=")


def test_who_has_just_shown_who_they_are_signs_at_once(client, stage, press):
    show_who(client, stage.approver)
    assert press().headers["Location"] == f"/runs/{stage.run_id}/"
    assert len(signatures(stage)) == 1


@pytest.mark.bad_input("D06")
def test_a_proof_of_this_morning_asks_again(client, stage, press):
    show_who(client, stage.approver, at=time.time() - 3600)
    assert press().headers["Location"].startswith("/account/confirm/")
    assert signatures(stage) == []


def test_what_waited_does_not_happen_when_the_proof_was_for_something_else(client, stage, press):
    press()
    done = client.post("/account/confirm/", {"password": PASSWORD, "next": "/account/authenticator/"})
    assert done.headers["Location"] == "/account/"
    assert signatures(stage) == []


def test_what_changed_in_the_meantime_is_not_signed(client, stage, press):
    asked = press()
    stage.sign(stage.step.gate("approval"), by=make_user("approver", environment=stage.environment))
    stage.act(core.Begin(**stage.seen), stage.second)
    mark = client.get(asked.headers["Location"]).context["next"]
    done = client.post("/account/confirm/", {"password": PASSWORD, "next": mark})
    assert done.status_code == 409
    assert len(signatures(stage)) == 1


def test_with_an_authenticator_app_its_code_is_asked_for(client, stage, press):
    secret = set_up_app(stage.approver)
    show_who(client, stage.approver)
    asked = press()
    assert asked.headers["Location"].startswith("/account/confirm/code/")
    mark = client.get(asked.headers["Location"]).context["next"]
    client.post("/account/confirm/code/", {"code": codes_of(secret)[0], "next": mark})
    (signed,) = signatures(stage)
    assert signed.proof == "code"


def test_the_password_alone_proves_nothing_for_whoever_has_a_second_factor(client, stage, press):
    set_up_app(stage.approver)
    asked = press()
    mark = client.get(asked.headers["Location"]).context["next"]
    client.post("/account/confirm/", {"password": PASSWORD, "next": mark})
    assert signatures(stage) == []


def test_nobody_signs_by_a_proof_of_an_earlier_person_in_the_same_browser(client, stage, press):
    show_who(client, make_user())
    assert press().headers["Location"].startswith("/account/confirm/")
