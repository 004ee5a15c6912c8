"""The HA run through the API as far as its first signature, by a program with an operator's token; agents are real enough."""

import hashlib

import pytest

from tests.api.caller import Caller, problem
from tests.factories import make_environment, make_user, publish
from tests.services.night import Night, check_every_run
from tests.web.run_scene import Stage
from upgrades.models import Agent, Run
from upgrades.services import runs

pytestmark = pytest.mark.django_db


class Program:
    """Reads what the run waits for and does it, as an operator would on the page."""

    def __init__(self, environment, user):
        self.api = Caller(user)
        self.environment = environment

    def start(self):
        offered = self.api.read(f"environments/{self.environment.pk}/start/config-server-ha")
        bindings = {role["name"]: role["chosen"] for role in offered["roles"]}
        answers = {one["name"]: one["answer"] for one in offered["parameters"] if one["answer"]}
        answers |= {"target": "8.5.101", "database-upgraded": "false"}
        confirmed = {one["id"]: "Seen." for one in offered["prerequisites"] if one["is_confirmed"]}
        answer = self.api.post(
            f"environments/{self.environment.pk}/runs",
            {
                "procedure": "config-server-ha",
                "bindings": bindings,
                "parameters": answers,
                "confirmations": confirmed,
                "kind": "live",
                "change": "CHG0042317",
                "reason": "The vendor ends support of 8.1.",
            },
        )
        assert answer.status_code == 201, answer.content
        assert answer.headers["Location"] == f"/api/v1/runs/{answer.json()['run']}"
        self.run = answer.json()["run"]
        return self

    def turn(self):
        """One thing that can be done now; False when nothing can."""
        step = self.api.read(f"runs/{self.run}")["step"]
        if step["begin"]["allowed"] and not step["begun"]:
            return self.must("begin")
        for gate in (*step["needs"], *step["gates"]):
            if gate["verdict"] == "met":
                continue
            if gate["attach"]["allowed"]:
                return self.attach(step, gate)
            if gate["confirm"]["allowed"]:
                return self.must("confirm", gate=gate["id"], answer="pass", text="Seen by two of us.")
        if step["complete"]["allowed"]:
            return self.must("complete")
        return False

    def must(self, verb, **fields):
        answer = self.api.act(self.run, verb, **fields)
        assert answer.status_code == 200, answer.content
        return True

    def attach(self, step, gate):
        tag = self.api.get(f"runs/{self.run}").headers["ETag"]
        answer = self.api.client.post(
            f"/api/v1/runs/{self.run}/attach",
            {"step": step["id"], "visit": step["visit"], "gate": gate["id"], "text": "Kept at fra-bak-01."},
            headers={
                "Authorization": f"Bearer {self.api.token}",
                "Idempotency-Key": f"{gate['id']}-{tag[1:9]}",
                "If-Match": tag,
            },
        )
        assert answer.status_code == 200, answer.content
        return True


def test_a_program_carries_the_run_as_far_as_its_first_signature_and_no_further(fake_agent, settings):
    settings.API_RATE = 10_000
    environment = make_environment()
    for row in Agent.objects.filter(environment=environment):
        fake_agent.stands_for(row)
    publish()
    operator = make_user("operator", environment=environment, first_name="Olga")
    make_user("approver", environment=environment, first_name="Anna")
    program = Program(environment, operator).start()
    night = Night.beside(program.run, environment)
    stage = Stage.beside(program.run, environment)

    for _ in range(80):
        runs.advance_run(program.run)
        night.answer_probes()
        stage.log_what_is_due()
        if not program.turn() and night.waits_for_signature():
            break
    state = program.api.read(f"runs/{program.run}")

    waiting = [gate for gate in state["step"]["needs"] if gate["approval"]]
    assert waiting, state["step"]["id"]
    assert waiting[0]["approval"]["signed"] == 0
    assert [item["run"] for item in program.api.read("approvals")["items"]] == [program.run]

    for verb in ("sign", "reject", "ask-override"):
        answer = program.api.post(f"runs/{program.run}/{verb}", {"gate": waiting[0]["id"]})
        assert (answer.status_code, problem(answer)) == (403, "token-never-signs")
        assert answer.json()["title"] == "A token can never sign"
    assert program.api.act(program.run, "begin").status_code == 409

    events = program.api.read(f"runs/{program.run}/events?limit=200")["items"]
    acted = [event for event in events if event["by"]["kind"] == "person"]
    public_id = program.api.token.split("_")[1]
    assert {(event["by"]["id"], event["by"]["token"]) for event in acted} == {
        (f"user:{operator.pk}", public_id)
    }
    assert [event["kind"] for event in events if event["kind"] == "attempt.refused"] == [
        "attempt.refused"
    ] * 3
    assert events[-1]["hash"] == Run.objects.get(pk=program.run).head
    check_every_run()


def test_whoever_started_through_a_token_does_not_approve_on_the_page(night, client):
    """Segregation of duties counts the owner of a token as the person."""
    night.go_to("install-new")
    both = make_user("operator", "approver", environment=night.environment)
    answer = Caller(both).act(night.run, "note", on_step=False, text="The phones are quiet.")
    assert answer.status_code == 200
    acted = night.history[-1]
    assert (acted.by.id, acted.by.token) == (f"user:{both.pk}", both.api_tokens.get().public_id)


def test_a_file_comes_in_whole_and_goes_out_by_the_audit_scope_alone(night):
    from django.core.files.uploadedfile import SimpleUploadedFile

    night.go_to("backup-database")
    api = Caller(night.operator)
    shown = api.get(f"runs/{night.run}")
    step = shown.json()["step"]
    gate = next(one["id"] for one in (*step["needs"], *step["gates"]) if one["accepts"])
    content = b"pg_dump of the configuration database"

    def send(name="dump.sql", data=content, key="backup-1"):
        return api.client.post(
            f"/api/v1/runs/{night.run}/attach",
            {
                "step": step["id"],
                "visit": step["visit"],
                "gate": gate,
                "file": SimpleUploadedFile(name, data),
            },
            headers={
                "Authorization": f"Bearer {api.token}",
                "Idempotency-Key": key,
                "If-Match": shown.headers["ETag"],
            },
        )

    first, again = send(), send()
    assert first.status_code == again.status_code == 200, first.content
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.json() == first.json()
    assert send(data=b"something else").status_code == 422
    assert send(key="backup-2").status_code == 412  # the run has gone on

    attached = next(
        event
        for event in api.read(f"runs/{night.run}/events")["items"]
        if event["kind"] == "evidence.attached"
    )
    assert attached["body"]["sha256"] == hashlib.sha256(content).hexdigest()
    path = f"runs/{night.run}/evidence/{attached['body']['evidence']}"
    answer = api.get(path)
    assert b"".join(answer.streaming_content) == content
    for close in answer._resource_closers:  # not answer.close(): that ends the connection of the test, too
        close()
    assert problem(Caller(night.operator, "read", "operate").get(path)) == "scope-missing"
