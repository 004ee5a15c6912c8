"""Who gets which answer from each operation: tokens of people by role, here and elsewhere, and tokens for one place.

The operations come from the OpenAPI document. A new one without a line in `EXPECTED` fails; so does a line without one.
"""

import re

import pytest
from django.db import transaction
from django.utils import timezone

from tests.api.caller import ALL, Caller, problem
from tests.factories import give, make_environment, make_user, publish, start
from upgrades.api.document import document
from upgrades.models import ApiToken, NoticeEndpoint, Run, RunEvent
from upgrades.queries.calendar import times_version
from upgrades.queries.notices import endpoint_version

pytestmark = pytest.mark.django_db
ROLES = ("operator", "approver", "author", "auditor", "administrator")
REASON = "It is needed now, and everybody agrees."

NEVER_DONE = ("sign", "reject", "sign-deviation", "reject-deviation", "ask-override", "review-override")
EVERYBODY = (200,) * 5
OPERATOR = (200, 403, 403, 403, 403)
NEVER = (403,) * 5
AUDIT = (404, 404, 404, 200, 200)
ADMINISTRATOR = (403, 403, 403, 403, 200)
# For each operation the status for the five roles in their order. Where an address names an environment or a run, members
# of another environment get 404; the others are lists of what is one's own.
EXPECTED = {
    "begin_in_run": OPERATOR,
    "complete_in_run": (409, 403, 403, 403, 403),
    "confirm_in_run": OPERATOR,
    "restart_in_run": OPERATOR,
    "take_step_in_run": OPERATOR,
    "ask_again_in_run": (400, 403, 403, 403, 403),
    "ask_skip_in_run": OPERATOR,
    "ask_waiver_in_run": OPERATOR,
    "ask_doubt_in_run": (400, 403, 403, 403, 403),
    "ask_correction_in_run": OPERATOR,
    "hold_in_run": OPERATOR,
    "resume_in_run": OPERATOR,
    "note_in_run": (200, 200, 403, 403, 403),
    "take_over_in_run": (409, 409, 409, 409, 409),
    "close_burden_in_run": (409, 409, 409, 409, 409),
    "abort_in_run": OPERATOR,
    "hand_over_in_run": (400, 403, 403, 403, 403),
    "attach_in_run": OPERATOR,
    "sign_in_run": NEVER,
    "reject_in_run": NEVER,
    "sign_deviation_in_run": NEVER,
    "reject_deviation_in_run": NEVER,
    "ask_override_in_run": NEVER,
    "review_override_in_run": NEVER,
    "list_runs": EVERYBODY,
    "show_run": EVERYBODY,
    "list_events": EVERYBODY,
    "show_evidence": (404, 404, 404, 404, 404),
    "export_record": EVERYBODY,
    "list_approvals": EVERYBODY,
    "list_audited_runs": AUDIT,
    "export_report": AUDIT,
    "list_register": AUDIT,
    "show_record": AUDIT,
    "check_record": AUDIT,
    "list_environments": EVERYBODY,
    "make_environment": (403, 403, 403, 403, 201),
    "show_environment": EVERYBODY,
    "list_agents": EVERYBODY,
    "export_environment": EVERYBODY,
    "list_changes": EVERYBODY,
    "list_records": EVERYBODY,
    "add_record": (403, 403, 403, 403, 201),
    "change_record": (403, 403, 403, 403, 409),
    "delete_record": (403, 403, 403, 403, 400),
    "import_environment": (403, 403, 403, 403, 200),
    "list_notice_choices": EVERYBODY,
    "choose_notices": EVERYBODY,
    "list_endpoints": ADMINISTRATOR,
    "add_endpoint": (403, 403, 403, 403, 201),
    "change_endpoint": ADMINISTRATOR,
    "remove_endpoint": ADMINISTRATOR,
    "try_endpoint": (403, 403, 403, 403, 409),
    "renew_secret": ADMINISTRATOR,
    "send_again": ADMINISTRATOR,
    "list_planned_runs": EVERYBODY,
    "show_planned_times": EVERYBODY,
    "plan_times": (400, 403, 403, 403, 403),
    "list_procedures": EVERYBODY,
    "show_procedure": EVERYBODY,
    "show_plan": EVERYBODY,
    "save_plan_of_record": (409, 403, 403, 403, 403),
    "show_start": OPERATOR,
    "start_in_environment": (400, 403, 403, 403, 403),
    "show_way_back": (409, 409, 409, 409, 409),
    "roll_back_run": (409, 403, 403, 403, 403),
}
ON_STEP = {"step": "prerequisites", "visit": 1}
SENT = {
    "confirm_in_run": {**ON_STEP, "gate": "packages-delivered", "answer": "pass"},
    "ask_again_in_run": {**ON_STEP, "gate": "approval", "reason": REASON},
    "ask_waiver_in_run": {**ON_STEP, "gate": "packages-delivered", "reason": REASON},
    "ask_doubt_in_run": {**ON_STEP, "doubt": 1, "reason": REASON},
    "ask_correction_in_run": {"name": "target", "value": "8.5.102", "reason": REASON},
    "take_over_in_run": {"burden": "exposure:read-only", "reason": REASON},
    "close_burden_in_run": {"burden": "exposure:read-only", "text": REASON},
    "hold_in_run": {"reason": REASON},
    "resume_in_run": {"reason": REASON},
    "abort_in_run": {"reason": REASON},
    "note_in_run": {"text": "The phones are quiet."},
    "hand_over_in_run": {**ON_STEP, "to": "user:999999"},
    "restart_in_run": {**ON_STEP, "reason": REASON},
    "ask_skip_in_run": {**ON_STEP, "reason": REASON},
    "take_step_in_run": {**ON_STEP, "reason": REASON},
    "begin_in_run": ON_STEP,
    "complete_in_run": ON_STEP,
    "roll_back_run": {
        "procedure": "config-server-rollback",
        "operational": True,
        "former_database": True,
        "copy_there": True,
        "reason": REASON,
    },
    "make_environment": {"name": "Lab · Madrid"},
    "add_record": {"kind": "host", "fields": {"host": "fra-cfg-09", "host_type": "Linux"}},
    "change_record": {"fields": {"site": "Offenbach"}},
    "save_plan_of_record": {"digest": "0" * 64},
    "choose_notices": {"wanted": {"countdown": False}},
    "add_endpoint": {
        "name": "Bridge",
        "form": "webhook",
        "address": "https://hooks.example.net/runbook",
        "kinds": ["countdown"],
    },
    "change_endpoint": {"kinds": ["gate-doubt"]},
    "plan_times": {"times": {"server:1": None}},
    "start_in_environment": {"procedure": "config-server-ha", "bindings": {}, "kind": "live"},
}
BOUNDARY = "b1a7"
FORM = (
    "".join(
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in {**ON_STEP, "text": "Seen."}.items()
    ).encode()
    + f"--{BOUNDARY}--\r\n".encode()
)


def operations():
    """(operation id, method, path) of everything that the API offers."""
    for path, methods in document()["paths"].items():
        for method, told in methods.items():
            yield told["operationId"], method.upper(), path.removeprefix("/api/v1/")


@pytest.fixture
def place():
    environment = make_environment()
    publish()
    NoticeEndpoint.objects.create(
        environment=environment,
        name="Desk",
        form="webhook",
        address="https://hooks.example.net/",
        host="hooks.example.net",
        kinds=["countdown"],
        paused=True,  # so nothing leaves here
        made_at=timezone.now(),
    )
    people = {role: make_user(role, environment=environment) for role in ROLES}
    elsewhere = make_environment("Lab · Berlin")
    people |= {f"{role} elsewhere": make_user(role, environment=elsewhere) for role in ROLES}
    return environment, start(environment, people["operator"]), people


def filled(path, environment, run):
    host = environment.hosts.order_by("pk").first().pk
    ids = {"environment_id": environment.pk, "run_id": run, "procedure": "config-server-ha", "version": 1}
    ids |= {
        "kind": "host",
        "record_id": host,
        "endpoint_id": environment.notice_endpoints.get().pk,
        "evidence_id": 1,
        "book": "access",
        "report": "duties",
        "form": "csv",
    }
    return re.sub(r"\{(\w+)\}", lambda match: str(ids[match[1]]), path)


def request(api, name, method, path, environment, run):
    """Send it complete, so that only the right decides; whatever it did is taken back."""
    options = {"match": f'"{Run.objects.get(pk=run).head}"'}
    if "records" in path and method in ("PATCH", "DELETE"):
        options["match"] = _tag_of_a_host(environment)
    if "endpoints/" in path:
        options["match"] = f'"{endpoint_version(environment.notice_endpoints.get())}"'
    if name == "plan_times":
        options["match"] = f'"{times_version(0, [])}"'
    body = SENT.get(name)
    if name == "attach_in_run":
        body, options["media"] = FORM, f"multipart/form-data; boundary={BOUNDARY}"
    if name == "import_environment":
        body, options["media"] = b"kind,host\nhost,fra-cfg-09\n", "text/csv"
    if method == "GET":
        options = {}
    with transaction.atomic():
        answer = api.send(method, filled(path, environment, run), body, **options)
        for (
            close
        ) in answer._resource_closers:  # not answer.close(): that ends the connection of the test, too
            close()
        transaction.set_rollback(True)
    return answer


def _tag_of_a_host(environment):
    from upgrades.queries.environment_export import host_record

    return f'"{host_record(environment.hosts.order_by("pk").first()).digest()}"'


def test_every_operation_has_its_expectation_and_every_expectation_its_operation():
    assert {name for name, _, _ in operations()} == set(EXPECTED)


def test_each_operation_answers_each_role_here_and_elsewhere_as_it_must(place, settings):
    settings.API_RATE = 100_000
    environment, run, people = place
    callers = {who: Caller(user) for who, user in people.items()}
    wrong = []
    for name, method, path in operations():
        for who, api in callers.items():
            role, _, elsewhere = who.partition(" ")
            row = EXPECTED[name]
            wanted = row[ROLES.index(role)]
            if elsewhere and re.search(r"\{(environment|run)_id\}", path):
                wanted = 404
            answer = request(api, name, method, path, environment, run)
            if answer.status_code != wanted:
                wrong.append(
                    (
                        name,
                        who,
                        wanted,
                        answer.status_code,
                        answer.content[:300] if not answer.streaming else b"",
                    )
                )
    assert wrong == []


@pytest.mark.bad_input("AP04")
def test_a_token_without_the_scope_gets_nothing_whatever_its_owner_may_do(place, settings):
    settings.API_RATE = 100_000
    environment, run, people = place
    owner = people["operator"]
    told = {op["operationId"]: op["x-scope"] for ops in document()["paths"].values() for op in ops.values()}
    callers = {scope: Caller(owner, *(one for one in ALL if one != scope)) for scope in ALL}
    for name, method, path in operations():
        if told[name] != "none":
            answer = request(callers[told[name]], name, method, path, environment, run)
            assert (name, answer.status_code, problem(answer)) == (name, 403, "scope-missing")


@pytest.mark.bad_input("AP04")
def test_a_token_for_one_environment_knows_of_no_other(place, settings):
    settings.API_RATE = 100_000
    environment, run, people = place
    owner = people["administrator elsewhere"]
    give(owner, environment, "operator")
    elsewhere = owner.memberships.exclude(environment=environment).get().environment
    api = Caller(owner, environment=elsewhere)
    for name, method, path in operations():
        if re.search(r"\{(environment|run)_id\}", path):
            answer = request(api, name, method, path, environment, run)
            assert (name, answer.status_code, problem(answer)) == (name, 404, "not-found")
    assert [one["id"] for one in api.read("environments")["items"]] == [elsewhere.pk]
    assert api.read("runs")["items"] == api.read("approvals")["items"] == []
    assert {line["environment"] for line in api.read("audit/runs")["items"]} <= {elsewhere.name}
    assert api.get(f"audit/runs?environment={environment.pk}").status_code == 404
    assert problem(api.post("environments", {"name": "Lab · Madrid"})) == "scope-missing"


def test_a_role_that_is_taken_away_ends_what_a_token_may_at_once(place):
    environment, run, people = place
    api = Caller(people["operator"])
    assert api.get(f"runs/{run}").status_code == 200
    environment.memberships.filter(user=people["operator"]).delete()
    assert api.get(f"runs/{run}").status_code == 404
    assert api.read("runs")["items"] == []


@pytest.mark.bad_input("AP04")
@pytest.mark.parametrize("verb", NEVER_DONE)
def test_no_token_signs_whoever_owns_it_and_the_attempt_is_on_record(place, verb):
    """Not an approver's, nor an administrator's; whatever is sent with it."""
    environment, run, _ = place
    owner = make_user("approver", "operator", "administrator", environment=environment)
    path = f"runs/{run}/{verb}"
    for body, media in (
        ({"comment": "Looks good."}, "application/json"),
        (b"\x00<x>", "text/plain"),
        (None, ""),
    ):
        answer = Caller(owner, "read").send("POST", path, body, key="", media=media)
        assert (answer.status_code, problem(answer)) == (403, "token-never-signs")
        newest = RunEvent.objects.filter(run=run).order_by("-seq")[0]
        assert newest.kind == "attempt.refused"
        assert ApiToken.objects.filter(user=owner).latest("pk").public_id in newest.text
