"""Notices over the API: one's own choices, and the endpoints of an environment, whose secrets are told once or never."""

import base64
import hashlib
import hmac
from typing import get_args

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from tests.api.caller import Caller, problem
from tests.factories import give, make_environment, make_user
from tests.services.receiver import Receiver
from upgrades.adapters import register
from upgrades.api import notices
from upgrades.domain.notices import Kind
from upgrades.models import (
    CommandReceipt,
    NoticeChoice,
    NoticeDelivery,
    NoticeEndpoint,
    RegisterEntry,
    StoredAnswer,
)
from upgrades.queries.environment_export import changes_book
from upgrades.services import notice_endpoints

pytestmark = pytest.mark.django_db


@pytest.fixture
def environment():
    return make_environment()


@pytest.fixture
def api(environment):
    return Caller(make_user("administrator", environment=environment))


@pytest.fixture
def receiver():
    receiver = Receiver()
    yield receiver
    receiver.close()


def add(api, environment, url, key=None, **changes):
    sent = {"name": "Desk", "form": "webhook", "address": url, "kinds": ["countdown"], **changes}
    return api.post(f"environments/{environment.pk}/endpoints", sent, key=key)


def only_endpoint(api, environment):
    [found] = api.read(f"environments/{environment.pk}/endpoints")["items"]
    return found


def path_of(environment, endpoint):
    return f"environments/{environment.pk}/endpoints/{endpoint['id']}"


def entries(environment):
    rows = RegisterEntry.objects.filter(book=changes_book(environment.pk), kind__startswith="endpoint.")
    return [register.read(row) for row in rows.order_by("number")]


def test_the_kinds_and_forms_of_the_document_are_those_that_there_are():
    assert get_args(notices.KindWord) == tuple(str(kind) for kind in Kind)
    assert get_args(notices.FormWord) == tuple(NoticeEndpoint.Form.values)


# Endpoints.


def test_a_program_adds_tries_changes_and_removes_an_endpoint_and_all_of_it_is_on_record(
    api, environment, receiver
):
    made = add(api, environment, f"{receiver.url}hook?token=hush-hush")
    assert made.status_code == 201
    secret = made.json()["secret"]
    endpoint = only_endpoint(api, environment)
    assert endpoint == made.json()["endpoint"]
    assert endpoint["host"] == f"127.0.0.1:{receiver.port}"
    path = path_of(environment, endpoint)

    tried = api.post(f"{path}/test")
    assert (tried.status_code, tried.json()["state"], tried.json()["outcome"]) == (
        200,
        "sent",
        "Answered 204.",
    )
    [received] = receiver.received
    signed = f"{received.headers['webhook-id']}.{received.headers['webhook-timestamp']}.".encode()
    mac = hmac.digest(base64.b64decode(secret.removeprefix("whsec_")), signed + received.body, hashlib.sha256)
    assert received.headers["webhook-signature"] == f"v1,{base64.b64encode(mac).decode()}"

    changed = api.send("PATCH", path, {"kinds": ["gate-doubt"], "paused": True}, match=endpoint["tag"])
    assert changed.status_code == 200
    assert (changed.json()["kinds"], changed.json()["paused"]) == (["gate-doubt"], True)
    paused = api.post(f"{path}/test")
    assert (paused.status_code, problem(paused)) == (409, "out-of-turn")
    assert api.post(f"{path}/renew-secret").json()["secret"] != secret
    gone = api.send("DELETE", path, match=changed.headers["ETag"])
    assert (gone.status_code, gone.json()) == (200, {"name": "Desk"})
    assert not NoticeEndpoint.objects.exists()

    found = entries(environment)
    acts = ["added", "tried", "changed", "secret", "removed"]
    assert [entry.kind for entry in found] == [f"endpoint.{act}" for act in acts]
    assert {entry.by.token for entry in found} == {api.token.split("_")[1]}
    said = str([entry.body for entry in found])
    assert "hush-hush" not in said
    assert secret not in said


def test_a_secret_is_in_the_first_answer_alone_and_no_answer_is_kept_with_it(api, environment, receiver):
    first = add(api, environment, f"{receiver.url}hook?token=hush-hush", key="add-1")
    again = add(api, environment, f"{receiver.url}hook?token=hush-hush", key="add-1")
    secret = first.json()["secret"]
    assert secret.startswith("whsec_")
    assert (again.status_code, again.headers["Idempotency-Replayed"]) == (201, "true")
    assert again.json() == {**first.json(), "secret": ""}

    path = path_of(environment, first.json()["endpoint"])
    renewed, once_more = (api.post(f"{path}/renew-secret", key="renew-1") for _ in range(2))
    assert renewed.json()["secret"] not in ("", secret)
    assert once_more.json()["secret"] == ""

    kept = str(list(StoredAnswer.objects.values_list("body", "headers")))
    for hidden in ("whsec_", secret.removeprefix("whsec_"), "hush-hush"):
        assert hidden not in kept
        assert hidden not in api.get(f"environments/{environment.pk}/endpoints").text
        assert hidden not in api.get(f"environments/{environment.pk}/changes").text


def test_a_lost_answer_makes_neither_a_second_endpoint_nor_a_second_message(api, environment, receiver):
    """The process died between the act and keeping its answer."""
    first = add(api, environment, receiver.url, key="add-1")
    path = path_of(environment, first.json()["endpoint"])
    tried = api.post(f"{path}/test", key="test-1")
    renewed = api.post(f"{path}/renew-secret", key="renew-1")
    stored = NoticeEndpoint.objects.get().secret
    StoredAnswer.objects.all().delete()

    assert (
        add(api, environment, receiver.url, key="add-1").json()["endpoint"]["id"]
        == (first.json()["endpoint"]["id"])
    )
    assert api.post(f"{path}/test", key="test-1").json() == tried.json()
    assert api.post(f"{path}/renew-secret", key="renew-1").json() == {**renewed.json(), "secret": ""}

    assert NoticeEndpoint.objects.get().secret == stored
    assert len(receiver.received) == 1
    assert [entry.kind for entry in entries(environment)] == [
        "endpoint.added",
        "endpoint.tried",
        "endpoint.secret",
    ]
    assert CommandReceipt.objects.filter(act__in=("AddEndpoint", "TryEndpoint", "RenewSecret")).count() == 3


def test_an_endpoint_is_changed_only_as_it_was_seen(api, environment, receiver):
    add(api, environment, receiver.url)
    endpoint = only_endpoint(api, environment)
    path, old = path_of(environment, endpoint), endpoint["tag"]
    assert api.send("PATCH", path, {"paused": True}, match=old).status_code == 200
    for method, body in (("PATCH", {"paused": False}), ("DELETE", None)):
        assert api.send(method, path, body).status_code == 428
        answer = api.send(method, path, body, match=old)
        assert (answer.status_code, problem(answer)) == (412, "record-changed")
        assert "Somebody has changed Desk since you looked. Nothing was done." in answer.json()["detail"]
    assert only_endpoint(api, environment)["paused"] is True
    assert len(entries(environment)) == 2


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"address": "ftp://hooks.example.net/hush-hush"}, "address"),
        ({"address": "https://user:hush-hush@hooks.example.net/"}, "address"),
        ({"address": "http://127.0.0.1:22/hush-hush"}, "address"),
        ({"kinds": []}, "kinds"),
        ({"kinds": ["no-such"]}, "kinds"),
        ({"form": "pigeon"}, "form"),
        ({"name": "a\nb"}, "name"),
        ({"secret": "hush-hush"}, "secret"),
    ],
)
def test_what_is_no_endpoint_is_answered_400_at_its_field_and_the_address_is_not_repeated(
    api, environment, receiver, changes, field
):
    answer = add(api, environment, receiver.url, **changes)
    assert (answer.status_code, problem(answer)) == (400, "bad-input")
    assert any(field in error["field"] for error in answer.json()["errors"])
    assert "hush-hush" not in answer.text
    assert not NoticeEndpoint.objects.exists()
    assert entries(environment) == []


def test_a_change_that_changes_nothing_is_refused_and_one_that_is_so_already_is_not_on_record(
    api, environment, receiver
):
    add(api, environment, receiver.url)
    endpoint = only_endpoint(api, environment)
    empty = api.send("PATCH", path_of(environment, endpoint), {}, match=endpoint["tag"])
    assert empty.status_code == 400
    assert "name “kinds” or “paused”, or both" in empty.json()["detail"]
    same = api.send("PATCH", path_of(environment, endpoint), {"paused": False}, match=endpoint["tag"])
    assert (same.status_code, same.headers["ETag"]) == (200, endpoint["tag"])
    assert [entry.kind for entry in entries(environment)] == ["endpoint.added"]


def test_an_endpoint_of_another_environment_is_not_there(api, environment, receiver):
    elsewhere = make_environment("Lab · Berlin")
    theirs = Caller(make_user("administrator", environment=elsewhere))
    endpoint = add(theirs, elsewhere, receiver.url).json()["endpoint"]
    path = path_of(environment, endpoint)
    answers = [
        api.post(f"{path}/test"),
        api.post(f"{path}/renew-secret"),
        api.send("PATCH", path, {"paused": True}, match=endpoint["tag"]),
        api.send("DELETE", path, match=endpoint["tag"]),
    ]
    assert {(answer.status_code, problem(answer)) for answer in answers} == {(404, "not-found")}
    assert receiver.received == []
    assert NoticeEndpoint.objects.filter(pk=endpoint["id"], paused=False).exists()


def test_what_was_given_up_is_told_and_sent_again(api, environment, receiver):
    endpoint = add(api, environment, receiver.url).json()["endpoint"]
    receiver.answers = [410]
    tried = api.post(f"{path_of(environment, endpoint)}/test")
    assert (tried.status_code, tried.json()["state"]) == (200, "parked")
    shown = api.read(f"environments/{environment.pk}/endpoints")
    assert (shown["given_up"], shown["parked"][0]["to"]) == (1, "Desk")
    assert api.post(f"environments/{environment.pk}/endpoints/send-again").json() == {"messages": 1}
    assert NoticeDelivery.objects.get().state == "waiting"


def test_more_than_ten_tests_a_minute_are_answered_429(api, environment, receiver, monkeypatch):
    monkeypatch.setattr(notice_endpoints, "TRIES_A_MINUTE", 2)
    path = path_of(environment, add(api, environment, receiver.url).json()["endpoint"])
    answers = [api.post(f"{path}/test") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert (problem(answers[2]), answers[2].headers["Retry-After"]) == ("too-many-requests", "60")
    assert len(receiver.received) == 2


def test_the_endpoints_are_listed_with_as_many_queries_however_many_there_are(
    api, environment, receiver, settings
):
    settings.API_RATE = 10_000

    def count():
        with CaptureQueriesContext(connection) as queries:
            api.read(f"environments/{environment.pk}/endpoints")
            api.read("notices")
        return len(queries)

    def more(name):
        endpoint = add(api, environment, receiver.url, name=name, form="slack").json()["endpoint"]
        api.post(f"{path_of(environment, endpoint)}/test")
        give(api.user, make_environment(name), "operator", "approver")

    more("one")
    before = count()
    for name in ("two", "three", "four"):
        more(name)
    assert count() == before


# One's own choices.


def chosen(api, environment):
    [here] = [one for one in api.read("notices")["items"] if one["environment"] == environment.pk]
    return {choice["kind"]: choice["wanted"] for choice in here["choices"]}


def test_a_person_chooses_by_a_program_what_is_mailed_to_them_and_nobody_else_is_concerned(environment):
    operator, other = (make_user("operator", environment=environment) for _ in range(2))
    api = Caller(operator)
    before = chosen(api, environment)
    assert (before["gate-open"], before["countdown"], before["duty-overdue"]) == (False, True, True)

    wishes = {"wanted": {"gate-open": True, "countdown": False}}
    answer = api.send("PATCH", f"environments/{environment.pk}/notices", wishes)
    assert answer.status_code == 200
    assert chosen(api, environment) == {**before, "gate-open": True, "countdown": False}
    assert chosen(Caller(other), environment) == before

    back = {"wanted": {"gate-open": False, "countdown": True}}
    assert api.send("PATCH", f"environments/{environment.pk}/notices", back).status_code == 200
    assert chosen(api, environment) == before
    assert not NoticeChoice.objects.exists()  # what the role brings is no choice


@pytest.mark.parametrize(
    "wanted", [{}, {"no-such": True}, {"countdown": 1}, {"countdown": "yes"}, {"countdown": None}, []]
)
def test_a_wish_that_is_none_is_answered_400_and_changes_nothing(environment, wanted):
    api = Caller(make_user("operator", environment=environment))
    answer = api.send("PATCH", f"environments/{environment.pk}/notices", {"wanted": wanted})
    assert (answer.status_code, problem(answer)) == (400, "bad-input")
    assert not NoticeChoice.objects.exists()


def test_a_token_for_one_environment_chooses_for_that_one_alone(environment):
    operator = make_user("operator", environment=environment)
    elsewhere = make_environment("Lab · Berlin")
    give(operator, elsewhere, "operator")
    NoticeChoice.objects.create(
        user=operator, environment=elsewhere, kind="gate-open", channel="mail", wanted=True
    )
    api = Caller(operator, environment=environment)
    assert [one["environment"] for one in api.read("notices")["items"]] == [environment.pk]
    wishes = {"wanted": {"countdown": False}}
    assert api.send("PATCH", f"environments/{elsewhere.pk}/notices", wishes).status_code == 404
    assert api.send("PATCH", f"environments/{environment.pk}/notices", wishes).status_code == 200
    found = NoticeChoice.objects.order_by("pk").values_list("environment", "kind", "wanted")
    assert list(found) == [(elsewhere.pk, "gate-open", True), (environment.pk, "countdown", False)]


def test_a_copy_of_an_environment_has_neither_choices_nor_endpoints(api, environment):
    copy = make_environment("copy")
    copy.rehearsal_of = environment
    copy.save()
    sent = {"wanted": {"countdown": False}}
    assert api.send("PATCH", f"environments/{copy.pk}/notices", sent).status_code == 404
    assert api.get(f"environments/{copy.pk}/endpoints").status_code == 404
    assert [one["environment"] for one in api.read("notices")["items"]] == [environment.pk]
