"""Requests that must do no harm (rows AP): each is refused in these words, and then everything is as it was before."""

import base64
import hashlib
import hmac
import json
from contextlib import contextmanager
from datetime import timedelta
from uuid import uuid4

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from tests.api.caller import Caller, problem, token_for
from tests.factories import give, make_environment, make_user, start
from tests.web.test_access import addresses, filled
from upgrades.adapters import register
from upgrades.api.document import document
from upgrades.domain.run import BY_TOKEN
from upgrades.models import (
    ApiToken,
    Application,
    CommandReceipt,
    Environment,
    Host,
    Membership,
    NoticeEndpoint,
    PlanItem,
    PlannedTime,
    PlanOfRecord,
    RegisterEntry,
    Run,
    RunEvent,
    StoredAnswer,
)
from upgrades.services import notice_endpoints, tokens

pytestmark = pytest.mark.django_db
NOTE = {"text": "The phones are quiet."}


@pytest.fixture
def environment():
    return make_environment()


@pytest.fixture
def operator(environment):
    return make_user("operator", environment=environment, first_name="Olga")


@pytest.fixture
def run(environment, operator):
    return start(environment, operator)


@pytest.fixture
def api(operator):
    return Caller(operator)


def tag(run):
    return f'"{Run.objects.get(pk=run).head}"'


def plan(environment, *keys):
    """A plan in force with an item for each key."""
    record = PlanOfRecord.objects.create(
        environment=environment, number=1, saved_at=timezone.now(), digest="0" * 64
    )
    item = {"stage": "master", "procedure": "config-server-ha", "title": "Upgrade", "reason": ""}
    PlanItem.objects.bulk_create(
        PlanItem(plan=record, key=key, position=place, **item) for place, key in enumerate(keys, 1)
    )


def note(api, run, body=NOTE, **options):
    return api.post(f"runs/{run}/note", body, **{"match": tag(run), **options})


STORED = (
    ApiToken,
    Application,
    CommandReceipt,
    Environment,
    Host,
    Membership,
    NoticeEndpoint,
    PlannedTime,
    RegisterEntry,
    Run,
    RunEvent,
    StoredAnswer,
)


def stored():
    """Every row that a call can write, but what counts the calls themselves."""
    found = {model.__name__: list(model.objects.order_by("pk").values()) for model in STORED}
    for token in found["ApiToken"]:
        del token["level"], token["filled_at"], token["last_used_at"]
    return found


@contextmanager
def nothing_done():
    before = stored()
    yield
    assert stored() == before


def refused(answer, status, code, told):
    """It is exactly this refusal, told in these words."""
    assert (answer.status_code, problem(answer)) == (status, code), answer.content
    assert told in answer.json()["detail"], answer.json()["detail"]


# AP01: tokens.


NO_TOKEN = "There is no token in the header Authorization (“Bearer rbk_…”), or it does not count"


@pytest.mark.bad_input("AP01")
@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer ",
        "Bearer x",
        "Basic b2xnYTpvbGdh",
        "Token {token}",
        "Bearer {token} ",
        "Bearer {token},Bearer {token}",
        "Bearer {token}x",
        "Bearer rbk_00000000_" + "A" * 43,
        "Bearer " + "A" * 10_000,
    ],
)
def test_ap01_a_token_that_is_none_is_answered_401(api, run, header):
    headers = {} if header is None else {"Authorization": header.format(token=api.token)}
    note = {**headers, "Idempotency-Key": "k-1", "If-Match": tag(run)}
    with nothing_done():
        answers = [
            Client().get("/api/v1/runs", headers=headers),
            Client().post(f"/api/v1/runs/{run}/note", NOTE, "application/json", headers=note),
        ]
    for answer in answers:
        refused(answer, 401, "not-signed-in", NO_TOKEN)
        assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.bad_input("AP01")
@pytest.mark.parametrize(
    "end",
    [
        {"expires_at": timezone.now() - timedelta(seconds=1)},
        {"revoked_at": timezone.now()},
    ],
    ids=["expired", "revoked"],
)
def test_ap01_a_token_that_is_over_is_answered_401(api, run, end):
    ApiToken.objects.update(**end)
    with nothing_done():
        for answer in (api.get("runs"), note(api, run)):
            refused(answer, 401, "not-signed-in", NO_TOKEN)


@pytest.mark.bad_input("AP01")
def test_ap01_a_token_of_a_shut_account_is_answered_401(api, operator, run):
    operator.is_active = False
    operator.save()
    with nothing_done():
        for answer in (api.get("runs"), note(api, run)):
            refused(answer, 401, "not-signed-in", NO_TOKEN)


@pytest.mark.bad_input("AP01")
def test_ap01_a_session_is_no_token(operator, run):
    client = Client()
    client.force_login(operator)
    with nothing_done():
        refused(client.get("/api/v1/runs"), 401, "not-signed-in", NO_TOKEN)
        answer = client.post(f"/api/v1/runs/{run}/note", NOTE, "application/json")
        refused(answer, 401, "not-signed-in", NO_TOKEN)


@pytest.mark.bad_input("AP01")
@pytest.mark.parametrize(
    "address", ["runs?token={token}", "runs?x={quoted}", "{token}", "runs/1/{token}", "%0A{token}"]
)
def test_ap01_a_token_in_an_address_is_revoked_and_that_is_on_the_register(api, environment, address):
    quoted = api.token.replace("_", "%5F")
    answer = Client().get(f"/api/v1/{address.format(token=api.token, quoted=quoted)}")
    refused(answer, 401, "not-signed-in", "A token stood in the address.")
    refused(api.get("runs"), 401, "not-signed-in", NO_TOKEN)
    book = register.access_book(environment.pk)
    entry = register.read(RegisterEntry.objects.filter(book=book, kind="token.revoked").get())
    assert entry.by.kind == "system"
    assert entry.body["token"] == api.token.split("_")[1]


@pytest.mark.bad_input("AP01")
def test_ap01_a_thousand_tokens_in_an_address_cost_no_more_than_one(api, django_assert_max_num_queries):
    invented = "/".join(f"rbk_{number:08x}_{'A' * 43}" for number in range(1000))
    with django_assert_max_num_queries(50):  # most of them for the one that counts
        answer = Client().get(f"/api/v1/{invented}/{api.token}")
    refused(answer, 401, "not-signed-in", "A token stood in the address.")
    refused(api.get("runs"), 401, "not-signed-in", NO_TOKEN)


# AP02: bodies.

NO_NOTE = "body.sent: Input should be a valid dictionary or instance of AddNote."


@pytest.mark.bad_input("AP02")
@pytest.mark.parametrize("media", ["text/plain", "application/xml", "application/x-www-form-urlencoded", ""])
def test_ap02_another_type_of_body_is_answered_415(api, run, media):
    with nothing_done():
        answer = note(api, run, media=media)
    refused(answer, 415, "unsupported-media-type", "This takes application/json, in UTF-8")


@pytest.mark.bad_input("AP02")
def test_ap02_json_in_another_character_set_is_answered_415(api, run):
    with nothing_done():
        answer = note(api, run, media="application/json; charset=latin-1")
    refused(answer, 415, "unsupported-media-type", "This takes application/json, in UTF-8")


@pytest.mark.bad_input("AP02")
@pytest.mark.parametrize(
    ("body", "code", "told"),
    [
        (b" ", "bad-json", "The body is no JSON: Expecting value"),
        (b"[]", "bad-input", NO_NOTE),
        (b"null", "bad-input", NO_NOTE),
        (b'"text"', "bad-input", NO_NOTE),
        (b"{", "bad-json", "The body is no JSON: Expecting property name"),
        (b'{"text": "a", "text": "b"}', "bad-json", "an object has the same key twice"),
        (b'{"text": NaN}', "bad-json", "NaN is no number"),
        (b'{"text": Infinity}', "bad-json", "Infinity is no number"),
        (b'{"text": 1}', "bad-input", "text: Input should be a valid string"),
        (b'{"text": "a", "is_staff": true}', "bad-input", "is_staff: Extra inputs are not permitted"),
        (b'{"text": ' + b"[" * 21 + b"]" * 21 + b"}", "bad-json", "nested deeper than 20 levels"),
        (b'{"text": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "bad-json", "nested deeper than 20 levels"),
        (b'{"text": "half \\ud83d"}', "bad-text", "half of a surrogate pair"),
        (b'{"text": "nul \\u0000"}', "bad-text", "A text has NUL"),
        (b'{"text": "\xff"}', "bad-json", "The body is not UTF-8."),
        (b'\xef\xbb\xbf{"text": "with a mark"}', "bad-json", "The body is no JSON: Unexpected UTF-8 BOM"),
        (b'{"text": ' + b"1" * 5000 + b"}", "bad-json", "The body is no JSON: Exceeds the limit"),
        (json.dumps({"text": "a" * 2001}).encode(), "bad-input", "text: String should have at most 2000"),
    ],
)
def test_ap02_a_body_that_could_be_read_in_two_ways_or_none_is_answered_400(api, run, body, code, told):
    with nothing_done():
        answer = note(api, run, body)
    refused(answer, 400, code, told)


@pytest.mark.bad_input("AP02")
def test_ap02_a_body_of_20_megabytes_is_answered_413_before_it_is_read(api, run):
    with nothing_done():
        answer = note(api, run, b'{"text": "' + b"a" * 20_000_000 + b'"}')
    refused(answer, 413, "too-large", "The body is larger than is taken here: 1,048,576 bytes")


def test_a_mistake_names_the_field_and_never_repeats_what_was_sent(api, run):
    answer = note(api, run, {"text": {"password": "of somebody"}})
    assert answer.json()["errors"][0]["field"].endswith("text")
    assert "of somebody" not in answer.text


# AP03: ids.


@pytest.mark.bad_input("AP03")
def test_ap03_an_id_in_the_body_beside_the_one_in_the_address_is_answered_400(api, run):
    with nothing_done():
        answer = note(api, run, {**NOTE, "run": run + 1})
    refused(answer, 400, "bad-input", "run: Extra inputs are not permitted")


@pytest.mark.bad_input("AP03")
def test_ap03_a_server_of_another_environment_is_not_bound(api, environment, run):
    other = make_environment("Lab · Berlin").applications.first().pk
    start = {"procedure": "config-server-ha", "bindings": {"new": other, "old": other}, "kind": "live"}
    with nothing_done():
        answer = api.post(f"environments/{environment.pk}/runs", {**start, "reason": "x"})
    refused(
        answer,
        400,
        "bad-input",
        "The run was not started. Choose the application that is “Backup, replaced first”.",
    )
    assert {error["field"] for error in answer.json()["errors"]} >= {"role-new", "role-old"}


@pytest.mark.bad_input("AP03")
def test_ap03_of_many_times_with_one_of_another_environment_none_is_set(api, environment):
    elsewhere = make_environment("Lab · Berlin")
    plan(environment, "server:1", "server:2")
    plan(elsewhere, "theirs:1")
    path = f"environments/{environment.pk}/planned-times"
    span = {"begins_at": "2026-12-05T22:00:00Z", "ends_at": "2026-12-06T01:00:00Z"}
    match = api.get(path).headers["ETag"]
    sent = {"times": dict.fromkeys(("server:1", "server:2", "theirs:1"), span)}
    with nothing_done():
        answer = api.send("PATCH", path, sent, match=match)
    refused(answer, 400, "bad-input", "The plan in force has no item “theirs:1”. Nothing was changed.")


@pytest.mark.bad_input("AP03")
def test_ap03_ten_thousand_items_and_one_are_more_than_is_taken_at_once(api, environment):
    place = f"environments/{environment.pk}"
    many = [f"item-{number}" for number in range(10_001)]
    start = {"procedure": "config-server-ha", "bindings": dict.fromkeys(many, 1), "kind": "live"}
    match = api.get(f"{place}/planned-times").headers["ETag"]
    with nothing_done():
        refused(api.post(f"{place}/runs", start), 400, "bad-input", "at most 100 items")
        times = {"times": dict.fromkeys(many)}
        answer = api.send("PATCH", f"{place}/planned-times", times, match=match)
        refused(answer, 400, "bad-input", "at most 500 items")


@pytest.mark.bad_input("AP03")
def test_ap03_a_file_of_ten_thousand_rows_and_one_is_not_imported_in_part(environment):
    api = Caller(make_user("administrator", environment=environment))
    rows = "".join(f"host,fra-cfg-{number}\n" for number in range(10_001))
    answer = api.post(
        f"environments/{environment.pk}/import?dry_run=no",
        f"kind,host\n{rows}".encode(),
        media="text/csv",
    )
    told = answer.json()
    assert (answer.status_code, told["usable"], told["applied"], told["changes"]) == (200, False, False, [])
    assert "The file has more than 10000 rows. Split it." in [one["message"] for one in told["mistakes"]]
    assert not environment.hosts.filter(name__startswith="fra-cfg-1").exists()


# AP04: see test_access.py; here that the core itself says no.


@pytest.mark.bad_input("AP04")
def test_ap04_a_token_for_reading_writes_nothing(operator, run):
    reader = Caller(operator, token=token_for(operator, "read"))
    with nothing_done():
        answer = note(reader, run)
    refused(answer, 403, "scope-missing", "This takes a token with the scope “operate”; this one has read.")
    assert reader.get(f"runs/{run}").status_code == 200


@pytest.mark.bad_input("AP04")
def test_ap04_a_token_of_one_environment_reaches_nothing_of_another(environment, run):
    elsewhere = make_environment("Lab · Berlin")
    strange = Caller(make_user("operator", "administrator", environment=elsewhere))
    with nothing_done():
        for answer in (strange.get(f"runs/{run}"), note(strange, run)):
            refused(answer, 404, "not-found", "There is no such run, or you have no role in its environment.")
        for answer in (
            strange.get(f"environments/{environment.pk}"),
            strange.post(f"environments/{environment.pk}/endpoints/send-again"),
        ):
            refused(answer, 404, "not-found", "There is no such environment, or you have no role in it.")


@pytest.mark.bad_input("AP04")
@pytest.mark.parametrize("verb", ["sign", "reject", "sign-deviation", "ask-override"])
def test_ap04_no_token_approves_and_the_attempt_is_all_that_is_left(environment, run, verb):
    approver = Caller(make_user("approver", environment=environment))
    before = stored()
    answer = approver.post(f"runs/{run}/{verb}", {"comment": "Looks good."})
    refused(answer, 403, "token-never-signs", BY_TOKEN)
    after = stored()
    assert after["RunEvent"][:-1] == before["RunEvent"]
    assert after["RunEvent"][-1]["kind"] == "attempt.refused"
    for name in ("CommandReceipt", "RegisterEntry", "StoredAnswer"):
        assert after[name] == before[name], name


@pytest.mark.bad_input("AP04")
def test_ap04_a_token_signs_neither_through_the_api_nor_through_a_service(environment, run):
    from tests.factories import proof_of
    from upgrades.domain import run as core
    from upgrades.domain.refusal import NotAllowed
    from upgrades.queries.people import through
    from upgrades.services import runs

    approver = make_user("approver", environment=environment)
    through(approver, "0a0b0c0d")
    with pytest.raises(NotAllowed, match="A token can never sign"):
        runs.act(
            run_id=run,
            command=core.SignDeviation(number=1),
            by=approver,
            command_id=uuid4(),
            proof=proof_of(approver),
        )
    assert BY_TOKEN[:20] in RunEvent.objects.filter(run=run).order_by("-seq")[0].text


# AP05: keys (two at once: test_keys.py).


@pytest.mark.bad_input("AP05")
def test_ap05_the_same_key_with_the_same_body_is_answered_the_same_and_acts_once(api, run):
    match = tag(run)
    first, again = (note(api, run, key="k-1", match=match) for _ in range(2))
    assert (first.status_code, again.status_code) == (200, 200)
    assert first.json() == again.json()
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.headers["ETag"] == first.headers["ETag"]
    assert RunEvent.objects.filter(run=run, kind="note.added").count() == 1


@pytest.mark.bad_input("AP05")
def test_ap05_the_same_key_with_another_body_is_answered_422(api, run):
    note(api, run, key="k-1")
    with nothing_done():
        answer = note(api, run, {"text": "Something else."}, key="k-1")
    refused(
        answer, 422, "key-used", "This Idempotency-Key came with another request before. Nothing was done."
    )
    assert note(api, run, key="k-2").status_code == 200


@pytest.mark.bad_input("AP05")
@pytest.mark.parametrize("key", ["", "with blank", "a" * 256, "a" * 1_000_000, "käy", "\x7f"])
def test_ap05_a_key_that_is_none_is_answered_400(api, run, key):
    with nothing_done():
        answer = api.send("POST", f"runs/{run}/note", NOTE, key=key, match=tag(run))
    code = "bad-key" if key else "key-missing"
    told = "1 to 255 visible ASCII characters" if key else "A POST takes the header Idempotency-Key"
    refused(answer, 400, code, told)


@pytest.mark.bad_input("AP05")
def test_ap05_a_key_of_another_token_is_another_key(api, environment, operator, run):
    note(api, run, key="k-1")
    answer = note(Caller(operator), run, {"text": "Something else."}, key="k-1")
    assert answer.status_code == 200
    assert "Idempotency-Replayed" not in answer.headers
    assert RunEvent.objects.filter(run=run, kind="note.added").count() == 2


@pytest.mark.bad_input("AP05")
def test_ap05_a_lost_answer_does_not_make_the_act_happen_twice(api, run):
    """The process died between the act and keeping its answer."""
    match = tag(run)
    first = note(api, run, key="k-1", match=match)
    StoredAnswer.objects.all().delete()
    again = note(api, run, key="k-1", match=match)
    assert (again.status_code, again.json()["seq"]) == (200, first.json()["seq"])
    assert RunEvent.objects.filter(run=run, kind="note.added").count() == 1


def test_answers_are_kept_for_two_days_and_then_forgotten(api, run):
    note(api, run, key="k-1")
    tokens.forget_answers(timezone.now() + timedelta(hours=47))
    assert StoredAnswer.objects.count() == 1
    tokens.forget_answers(timezone.now() + timedelta(hours=49))
    assert StoredAnswer.objects.count() == 0


# AP06: versions.


@pytest.mark.bad_input("AP06")
def test_ap06_a_change_of_a_run_needs_the_version_that_was_seen(api, run):
    old = tag(run)
    assert note(api, run).status_code == 200
    none = (412, "head-moved", "If-Match names no version that was ever here")
    missing = (428, "version-needed", "A change takes If-Match with the ETag of what you read before")
    moved = (412, "head-moved", f"Run {run} has gone on since you looked: its newest event is another one.")
    cases = ((None, missing), ("*", missing), (old, moved), (f"W/{tag(run)}", none), ("x", none))
    with nothing_done():
        for match, refusal in cases:
            refused(api.post(f"runs/{run}/note", NOTE, match=match), *refusal)


@pytest.mark.bad_input("AP06")
def test_ap06_a_record_is_changed_only_as_it_was_seen(environment):
    api = Caller(make_user("administrator", environment=environment))
    records = api.read(f"environments/{environment.pk}/records")["items"]
    host = next(record for record in records if record["kind"] == "host" and record["name"] == "fra-scs-01")
    path = f"environments/{environment.pk}/records/host/{host['id']}"
    sent = {"fields": {"site": "Offenbach"}}
    for match in (None, "*"):
        with nothing_done():
            answer = api.send("PATCH", path, sent, match=match)
        refused(answer, 428, "version-needed", "A change takes If-Match with the ETag")
    assert api.send("PATCH", path, sent, match=host["tag"]).status_code == 200
    with nothing_done():
        answer = api.send("PATCH", path, {"fields": {"site": "Mainz"}}, match=host["tag"])
    refused(answer, 412, "record-changed", "Somebody has changed fra-scs-01 since you looked.")
    assert environment.hosts.get(pk=host["id"]).site == "Offenbach"
    assert api.read(f"environments/{environment.pk}/changes")["items"][0]["lines"][0]["name"] == "fra-scs-01"


# AP07: filters.


@pytest.mark.bad_input("AP07")
@pytest.mark.parametrize(
    ("query", "code", "told"),
    [
        (
            "owner__password__startswith=a",
            "unknown-parameter",
            "“owner__password__startswith” is no parameter",
        ),
        (
            "fields=secret",
            "unknown-parameter",
            "“fields” is no parameter here. Known are: cursor, environment",
        ),
        ("order_by=token", "unknown-parameter", "“order_by” is no parameter here."),
        ("include=tokens", "unknown-parameter", "“include” is no parameter here."),
        ("page_size=1000000", "unknown-parameter", "“page_size” is no parameter here."),
        ("kind[]=live", "unknown-parameter", "“kind[]” is no parameter here."),
        ("limit=1000000", "bad-input", "limit: Input should be less than or equal to 200"),
        ("limit=0", "bad-input", "limit: Input should be greater than or equal to 1"),
        ("limit=-1", "bad-input", "limit: Input should be greater than or equal to 1"),
        ("limit=NaN", "bad-input", "limit: Input should be a valid integer"),
        ("status=secret", "bad-input", "status: Input should be 'open'"),
        ("status=open&status=held", "bad-input", "“status” came more than once"),
        ("environment=1%3B2", "bad-input", "environment: Input should be a valid integer"),
        ("environment=%00", "bad-text", "A text has NUL"),
    ],
)
def test_ap07_only_known_filters_with_possible_values_are_taken(api, run, query, code, told):
    with nothing_done():
        answer = api.get(f"runs?{query}")
    refused(answer, 400, code, told)
    assert answer.json().keys() <= {"type", "title", "status", "detail", "instance", "errors"}


@pytest.mark.bad_input("AP07")
def test_ap07_no_list_takes_a_filter_that_the_document_does_not_have(environment):
    """Whatever the list is: a misspelt or cunning filter never widens its answer."""
    api = Caller(make_user("operator", "administrator", environment=environment))
    lists = [
        path.removeprefix("/api/v1/").format(environment_id=environment.pk, book="access")
        for path, methods in document()["paths"].items()
        if methods.get("get", {}).get("operationId", "").startswith("list_") and "{run_id}" not in path
    ]
    assert len(lists) >= 12
    for path in lists:
        answer = api.get(f"{path}?user__password__startswith=p")
        refused(answer, 400, "unknown-parameter", "“user__password__startswith” is no parameter here.")


# AP08: how often.


@pytest.mark.bad_input("AP08")
def test_ap08_too_many_calls_are_answered_429_with_the_time_to_wait(api, settings):
    settings.API_RATE = 10
    ApiToken.objects.update(level=10, filled_at=timezone.now())
    statuses = [api.get("runs").status_code for _ in range(14)]
    assert statuses[:10] == [200] * 10
    assert 429 in statuses[10:]
    ApiToken.objects.update(level=0, filled_at=timezone.now())
    answer = api.get("runs")
    refused(answer, 429, "too-many-requests", "This token makes 10 calls a minute at most. Nothing was done.")
    assert 1 <= int(answer.headers["Retry-After"]) <= 6


@pytest.mark.bad_input("AP08")
def test_ap08_a_call_too_many_does_nothing_and_works_with_the_same_key_later(api, run, settings):
    settings.API_RATE = 10
    ApiToken.objects.update(level=0, filled_at=timezone.now())
    with nothing_done():
        answer = note(api, run, key="k-1")
    refused(answer, 429, "too-many-requests", "Ask again in")
    ApiToken.objects.update(level=10, filled_at=timezone.now())
    assert note(api, run, key="k-1").status_code == 200


@pytest.mark.bad_input("AP08")
def test_ap08_of_a_thousand_calls_only_as_many_come_through_as_the_bucket_holds(api, settings):
    """And what is turned away asks the database nothing but that."""
    settings.API_RATE = 1  # the bucket holds one call, and gets another one in a minute
    ApiToken.objects.update(level=1, filled_at=timezone.now())
    with CaptureQueriesContext(connection) as queries:
        answers = [api.get("runs") for _ in range(1000)]
    turned_away = [answer for answer in answers if answer.status_code == 429]
    assert answers[0].status_code == 200
    assert len(turned_away) >= 990
    assert {"Retry-After" in answer.headers for answer in turned_away} == {True}
    assert len(queries) < 4000


@pytest.mark.bad_input("AP08")
def test_ap08_the_bucket_fills_again_and_each_token_has_its_own(api, operator, settings):
    settings.API_RATE = 10
    other = Caller(operator)
    ApiToken.objects.filter(public_id=api.token.split("_")[1]).update(level=0, filled_at=timezone.now())
    assert (api.get("runs").status_code, other.get("runs").status_code) == (429, 200)
    ApiToken.objects.update(filled_at=timezone.now() - timedelta(minutes=1))
    assert api.get("runs").status_code == 200


# AP09: cursors.


@pytest.mark.bad_input("AP09")
def test_ap09_a_cursor_goes_on_where_the_piece_before_ended(api, run, environment):
    events = api.read(f"runs/{run}/events?limit=2")
    assert ([event["seq"] for event in events["items"]], events["more"]) == ([1, 2], True)
    more = api.read(f"runs/{run}/events?cursor={events['next']}")
    assert (more["items"][0]["seq"], more["more"]) == (3, False)
    end = api.read(f"runs/{run}/events?cursor={more['next']}")
    assert (end["items"], end["more"]) == ([], False)
    note(api, run)
    assert [event["kind"] for event in api.read(f"runs/{run}/events?cursor={end['next']}")["items"]] == [
        "note.added"
    ]


@pytest.mark.bad_input("AP09")
def test_ap09_the_list_of_runs_has_each_run_once_whatever_comes_meanwhile(api, operator):
    places = [make_environment(f"Lab {number}") for number in range(5)]
    for place in places[:4]:
        give(operator, place, "operator")
    first = [start(place, operator) for place in places[:3]]
    page = api.read("runs?limit=2")
    start(places[3], operator)
    rest = api.read(f"runs?limit=2&cursor={page['next']}")
    assert [item["id"] for item in (*page["items"], *rest["items"])] == first[::-1]
    assert rest["next"] is None


@pytest.mark.bad_input("AP09")
def test_ap09_a_cursor_that_is_changed_or_of_another_list_is_answered_400(api, run, environment, operator):
    cursor = api.read(f"runs/{run}/events?limit=3")["next"]
    strange = make_user("auditor", environment=environment)
    tries = [
        (api, f"runs/{run}/events?cursor={cursor[:-2]}"),
        (api, f"runs/{run}/events?cursor=x"),
        (api, f"runs/{run}/events?cursor="),
        (api, f"runs?cursor={cursor}"),
        (Caller(strange), f"runs/{run}/events?cursor={cursor}"),
    ]
    for caller, path in tries:
        refused(caller.get(path), 400, "bad-cursor", "This cursor was not made for this list, these filters")


@pytest.mark.bad_input("AP09")
def test_ap09_a_cursor_behind_what_is_gone_from_the_list_is_answered_400(api, operator):
    places = [make_environment(f"Lab {number}") for number in range(3)]
    for place in places:
        give(operator, place, "operator")
    runs = [start(place, operator) for place in places]
    cursor = api.read("runs?limit=1&status=open")["next"]
    assert api.get(f"runs?limit=1&status=open&cursor={cursor}").status_code == 200
    aborted = api.act(runs[-1], "abort", on_step=False, reason="It is not needed any more.")
    assert aborted.status_code == 200
    answer = api.get(f"runs?limit=1&status=open&cursor={cursor}")
    refused(answer, 400, "bad-cursor", "or what it points behind is gone. Ask without it")


@pytest.mark.bad_input("AP09")
def test_ap09_a_cursor_is_bound_to_its_filters(api, operator):
    places = [make_environment(f"Lab {number}") for number in range(2)]
    for place in places:
        give(operator, place, "operator")
        start(place, operator)
    cursor = api.read("runs?limit=1&status=open")["next"]
    assert api.get(f"runs?limit=1&status=open&cursor={cursor}").status_code == 200
    answer = api.get(f"runs?limit=1&cursor={cursor}")
    refused(answer, 400, "bad-cursor", "This cursor was not made for this list, these filters")


# AP10: calls that say that something happened.


@pytest.mark.bad_input("AP10")
def test_ap10_no_address_takes_a_webhook_signed_or_not_old_or_new(api, environment, run):
    """Nothing is told to Runbook from outside: only a token opens the API, whoever signs, and however often it comes."""
    secret = notice_endpoints.add_endpoint(
        environment_id=environment.pk,
        name="Desk",
        form="webhook",
        address="https://hooks.example.net/",
        kinds=["countdown"],
        by=make_user("administrator", environment=environment),
    ).secret
    body = json.dumps({"type": "runbook.gate-open", "data": {"run": run}}).encode()
    ids = {"environment_id": environment.pk, "run_id": run, "record_id": 1, "endpoint_id": 1, "version": 1}
    ids |= {"procedure": "config-server-ha", "kind": "host", "evidence_id": 1}
    ids |= {"book": "access", "report": "duties", "form": "csv"}
    addresses = [path.format(**ids) for path in document()["paths"]]
    addresses += ["/api/v1/webhook", "/api/v1/hooks/runbook", "/api/webhooks"]
    with nothing_done():
        for address in addresses:
            for headers in signed_by(secret, body):
                answer = Client().post(address, body, "application/json", headers=headers)
                refused(answer, 401, "not-signed-in", NO_TOKEN)


def signed_by(secret, body):
    """As the sender of our own webhooks signs: now, the same again, long ago, with another secret, and not at all."""
    key, now = base64.b64decode(secret.removeprefix("whsec_")), int(timezone.now().timestamp())
    for at, with_key in ((now, key), (now, key), (now - 3600, key), (now, b"another secret")):
        mac = hmac.digest(with_key, f"msg_1.{at}.".encode() + body, hashlib.sha256)
        signature = f"v1,{base64.b64encode(mac).decode()}"
        yield {"webhook-id": "msg_1", "webhook-timestamp": str(at), "webhook-signature": signature}
    yield {}


@pytest.mark.bad_input("AP10")
def test_ap10_no_page_takes_a_webhook_either(environment, run):
    body = json.dumps({"type": "runbook.gate-open", "data": {"run": run}}).encode()
    [headers, *_] = signed_by("whsec_" + base64.b64encode(b"secret").decode(), body)
    found = {}
    with nothing_done():
        for name, pattern in addresses():
            sent = Client().post(filled(pattern, environment, run), body, "application/json", headers=headers)
            found[name] = sent.status_code
    # Sent to the sign-in, refused there, no method of the address, or no such thing: nobody is let in by a signature.
    assert set(found.values()) <= {302, 400, 403, 404, 405}, found


# AP11: other origins.


@pytest.mark.bad_input("AP11")
@pytest.mark.parametrize("origin", ["null", "https://app.example.evil", "http://testserver.evil"])
def test_ap11_no_answer_lets_another_origin_in(api, run, origin):
    ask = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    with nothing_done():
        asked = api.send("OPTIONS", f"runs/{run}/note", **ask)
        unknown = Client().options(f"/api/v1/runs/{run}/note", headers=ask)
    for answer in (asked, unknown, api.get("runs", Origin=origin)):
        assert not [name for name in answer.headers if name.lower().startswith("access-control")]
    refused(asked, 405, "method-not-allowed", "OPTIONS is nothing that this address does. It takes POST.")
    assert asked.headers["Allow"] == "POST"
    refused(unknown, 401, "not-signed-in", NO_TOKEN)


@pytest.mark.parametrize("method", ["HEAD", "PUT", "TRACE", "DELETE", "PATCH"])
def test_only_listed_methods_are_taken(api, run, method):
    answer = api.send(method, f"runs/{run}/note")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")
    answer = api.send("POST", f"runs/{run}", NOTE, **{"X-HTTP-Method-Override": "GET"})
    assert (answer.status_code, problem(answer)) == (405, "method-not-allowed")


# AP12: times.


WRITTEN = "a time is written as 2026-11-24T14:02:11Z, with its zone"


@pytest.mark.bad_input("AP12")
@pytest.mark.parametrize(
    ("time", "told"),
    [
        ("2026-11-24T14:02:11", WRITTEN),
        ("2026-03-29T02:30:00", WRITTEN),  # no such time in Frankfurt: without a zone no time is taken at all
        ("2026-10-25T02:30:00", WRITTEN),  # and this one is there twice
        ("2026-11-24", WRITTEN),
        ("2026-11-24 14:02:11Z", WRITTEN),
        ("10000-01-01T00:00:00Z", WRITTEN),
        ("٢٠٢٦-11-24T14:02:11Z", WRITTEN),
        ("1764000000", WRITTEN),
        ("", WRITTEN),
        ("1999-12-31T23:59:59Z", "a time lies between 2000 and 2100"),
        ("2100-01-01T00:00:00Z", "a time lies between 2000 and 2100"),
        ("9999-12-31T23:59:59Z", "a time lies between 2000 and 2100"),
        ("2026-12-31T23:59:60Z", "there is no such time"),
        ("2026-02-30T00:00:00Z", "there is no such time"),
        ("2026-11-24T14:02:11+25:00", "there is no such time"),
    ],
)
def test_ap12_a_time_has_its_zone_and_lies_between_2000_and_2100(api, environment, time, told):
    plan(environment, "server:1")
    path = f"environments/{environment.pk}/planned-times"
    match = api.get(path).headers["ETag"]
    sent = {"times": {"server:1": {"begins_at": time, "ends_at": "2026-12-06T01:00:00Z"}}}
    with nothing_done():
        asked = api.client.get(
            "/api/v1/runs", {"started_since": time}, headers={"Authorization": f"Bearer {api.token}"}
        )
        refused(asked, 400, "bad-input", f"started_since: Value error, {told}")
        refused(
            api.send("PATCH", path, sent, match=match), 400, "bad-input", f"begins_at: Value error, {told}"
        )


@pytest.mark.bad_input("AP12")
def test_ap12_times_of_any_zone_mean_the_same_moment(api, run):
    def found(**query):
        return api.client.get("/api/v1/runs", query, headers={"Authorization": f"Bearer {api.token}"}).json()

    before, after = (
        (timezone.now() + timedelta(hours=hours)).astimezone(timezone.get_fixed_timezone(zone)).isoformat()
        for hours, zone in ((-1, 330), (1, -480))
    )
    assert len(found(started_since=before, started_before=after)["items"]) == 1
    assert found(started_since=after)["items"] == []
    assert found(started_since=before)["items"][0]["started_at"].endswith("Z")


# And what no row names.


@pytest.mark.parametrize(
    "path", ["", "nothing", "runs/1/", "runs/x", "runs/-1", "RUNS", "runs/1;x", "runs//1", "x%0Ay"]
)
def test_what_is_no_address_is_a_problem_for_a_token_too(api, path):
    answer = api.get(path)
    assert (answer.status_code, problem(answer)) == (404, "not-found")


def test_an_answer_is_stored_nowhere_on_its_way(api, run):
    assert api.get(f"runs/{run}").headers["Cache-Control"] == "no-store"
    assert api.get("runs/999999999").headers["Cache-Control"] == "no-store"


def test_a_failure_of_our_own_is_a_problem_without_particulars(api, monkeypatch):
    monkeypatch.setattr("upgrades.api.runs.matching_runs", lambda *_: 1 / 0)
    answer = api.get("runs")
    assert (answer.status_code, problem(answer)) == (500, "internal")
    assert "division" not in answer.text
