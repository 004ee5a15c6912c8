"""The bad inputs of trust.md 14.8: for each row AP01 to AP12 what must happen."""

import json
from datetime import timedelta
from uuid import uuid4

import pytest
from django.test import Client
from django.utils import timezone

from tests.api.caller import Caller, problem, token_for
from tests.factories import make_environment, make_user, start
from upgrades.adapters import register
from upgrades.domain.run import BY_TOKEN
from upgrades.models import ApiToken, RegisterEntry, Run, RunEvent, StoredAnswer
from upgrades.services import tokens

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


def note(api, run, body=NOTE, **options):
    return api.post(f"runs/{run}/note", body, **{"match": tag(run), **options})


# AP01: tokens.


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
def test_ap01_a_token_that_is_none_is_answered_401(api, header):
    headers = {} if header is None else {"Authorization": header.format(token=api.token)}
    answer = Client().get("/api/v1/runs", headers=headers)
    assert (answer.status_code, problem(answer)) == (401, "not-signed-in")
    assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "end",
    [
        {"expires_at": timezone.now() - timedelta(seconds=1)},
        {"revoked_at": timezone.now()},
    ],
    ids=["expired", "revoked"],
)
def test_ap01_a_token_that_is_over_is_answered_401(api, end):
    ApiToken.objects.update(**end)
    assert api.get("runs").status_code == 401


def test_ap01_a_token_of_a_shut_account_is_answered_401(api, operator):
    operator.is_active = False
    operator.save()
    assert api.get("runs").status_code == 401


def test_ap01_a_session_is_no_token(operator, run):
    client = Client()
    client.force_login(operator)
    assert client.get("/api/v1/runs").status_code == 401
    assert client.post(f"/api/v1/runs/{run}/note", NOTE, "application/json").status_code == 401


@pytest.mark.parametrize(
    "address", ["runs?token={token}", "runs?x={quoted}", "{token}", "runs/1/{token}", "%0A{token}"]
)
def test_ap01_a_token_in_an_address_is_revoked_and_that_is_on_the_register(api, environment, address):
    quoted = api.token.replace("_", "%5F")
    answer = Client().get(f"/api/v1/{address.format(token=api.token, quoted=quoted)}")
    assert (answer.status_code, problem(answer)) == (401, "not-signed-in")
    assert api.get("runs").status_code == 401
    book = register.access_book(environment.pk)
    entry = register.read(RegisterEntry.objects.filter(book=book, kind="token.revoked").get())
    assert entry.by.kind == "system"
    assert entry.body["token"] == api.token.split("_")[1]


# AP02: bodies.


@pytest.mark.parametrize("media", ["text/plain", "application/xml", "application/x-www-form-urlencoded", ""])
def test_ap02_another_type_of_body_is_answered_415(api, run, media):
    answer = note(api, run, media=media)
    assert (answer.status_code, problem(answer)) == (415, "unsupported-media-type")


def test_ap02_json_in_another_character_set_is_answered_415(api, run):
    assert note(api, run, media="application/json; charset=latin-1").status_code == 415


@pytest.mark.parametrize(
    "body",
    [
        b" ",
        b"[]",
        b"null",
        b'"text"',
        b"{",
        b'{"text": "a", "text": "b"}',
        b'{"text": NaN}',
        b'{"text": Infinity}',
        b'{"text": 1}',
        b'{"text": "a", "is_staff": true}',
        b'{"text": ' + b"[" * 21 + b"]" * 21 + b"}",
        b'{"text": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"text": "half \\ud83d"}',
        b'{"text": "nul \\u0000"}',
        b'{"text": "\xff"}',
        b'\xef\xbb\xbf{"text": "with a mark"}',
        b'{"text": ' + b"1" * 5000 + b"}",
        json.dumps({"text": "a" * 2001}).encode(),
    ],
)
def test_ap02_a_body_that_could_be_read_in_two_ways_or_none_is_answered_400(api, run, body):
    before = RunEvent.objects.filter(run=run).count()
    answer = note(api, run, body)
    assert answer.status_code == 400
    problem(answer)
    assert RunEvent.objects.filter(run=run).count() == before


def test_ap02_a_body_of_20_megabytes_is_answered_413_before_it_is_read(api, run):
    answer = note(api, run, b'{"text": "' + b"a" * 20_000_000 + b'"}')
    assert (answer.status_code, problem(answer)) == (413, "too-large")


def test_a_mistake_names_the_field_and_never_repeats_what_was_sent(api, run):
    answer = note(api, run, {"text": {"password": "of somebody"}})
    assert answer.json()["errors"][0]["field"].endswith("text")
    assert "of somebody" not in answer.text


# AP03: ids.


def test_ap03_an_id_in_the_body_beside_the_one_in_the_address_is_answered_400(api, run):
    assert note(api, run, {**NOTE, "run": run + 1}).status_code == 400


def test_ap03_a_server_of_another_environment_is_not_bound(api, environment, run):
    other = make_environment("Lab · Berlin").applications.first().pk
    answer = api.post(
        f"environments/{environment.pk}/runs",
        {
            "procedure": "config-server-ha",
            "bindings": {"new": other, "old": other},
            "kind": "live",
            "reason": "x",
        },
    )
    assert answer.status_code == 400
    assert {error["field"] for error in answer.json()["errors"]} >= {"role-new", "role-old"}
    assert Run.objects.count() == 1


# AP04: see test_access.py; here that the core itself says no.


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


def test_ap05_the_same_key_with_the_same_body_is_answered_the_same_and_acts_once(api, run):
    match = tag(run)
    first, again = (note(api, run, key="k-1", match=match) for _ in range(2))
    assert (first.status_code, again.status_code) == (200, 200)
    assert first.json() == again.json()
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.headers["ETag"] == first.headers["ETag"]
    assert RunEvent.objects.filter(run=run, kind="note.added").count() == 1


def test_ap05_the_same_key_with_another_body_is_answered_422(api, run):
    note(api, run, key="k-1")
    answer = note(api, run, {"text": "Something else."}, key="k-1")
    assert (answer.status_code, problem(answer)) == (422, "key-used")
    assert note(api, run, key="k-2").status_code == 200


@pytest.mark.parametrize("key", ["", "with blank", "a" * 256, "a" * 1_000_000, "käy", "\x7f"])
def test_ap05_a_key_that_is_none_is_answered_400(api, run, key):
    answer = api.send("POST", f"runs/{run}/note", NOTE, key=key or "", match=tag(run))
    assert answer.status_code == 400


def test_ap05_a_key_of_another_token_is_another_key(api, environment, operator, run):
    note(api, run, key="k-1")
    answer = note(Caller(operator), run, {"text": "Something else."}, key="k-1")
    assert answer.status_code == 200


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


def test_ap06_a_change_of_a_run_needs_the_version_that_was_seen(api, run):
    old = tag(run)
    assert note(api, run).status_code == 200
    for match, status in ((None, 428), ("*", 428), (old, 412), (f"W/{tag(run)}", 412), ("x", 412)):
        answer = api.post(f"runs/{run}/note", NOTE, match=match)
        assert answer.status_code == status
        problem(answer)
    assert RunEvent.objects.filter(run=run, kind="note.added").count() == 1


def test_ap06_a_record_is_changed_only_as_it_was_seen(environment):
    api = Caller(make_user("administrator", environment=environment))
    records = api.read(f"environments/{environment.pk}/records")["items"]
    host = next(record for record in records if record["kind"] == "host" and record["name"] == "fra-scs-01")
    path = f"environments/{environment.pk}/records/host/{host['id']}"
    sent = {"fields": {"site": "Offenbach"}}
    assert api.send("PATCH", path, sent).status_code == 428
    assert api.send("PATCH", path, sent, match=host["tag"]).status_code == 200
    answer = api.send("PATCH", path, sent, match=host["tag"])
    assert (answer.status_code, problem(answer)) == (412, "record-changed")
    assert environment.hosts.get(pk=host["id"]).site == "Offenbach"
    assert api.read(f"environments/{environment.pk}/changes")["items"][0]["lines"][0]["name"] == "fra-scs-01"


# AP07: filters.


@pytest.mark.parametrize(
    "query",
    [
        "owner__password__startswith=a",
        "fields=secret",
        "order_by=token",
        "include=tokens",
        "page_size=1000000",
        "limit=1000000",
        "limit=0",
        "limit=-1",
        "limit=NaN",
        "status=secret",
        "status=open&status=held",
        "environment=1%3B2",
        "environment=%00",
        "kind[]=live",
    ],
)
def test_ap07_only_known_filters_with_possible_values_are_taken(api, query):
    answer = api.get(f"runs?{query}")
    assert answer.status_code == 400
    problem(answer)


# AP08: how often.


def test_ap08_too_many_calls_are_answered_429_with_the_time_to_wait(api, settings):
    settings.API_RATE = 10
    ApiToken.objects.update(level=10, filled_at=timezone.now())
    statuses = [api.get("runs").status_code for _ in range(14)]
    assert statuses[:10] == [200] * 10
    assert 429 in statuses[10:]
    ApiToken.objects.update(level=0, filled_at=timezone.now())
    answer = api.get("runs")
    assert (answer.status_code, problem(answer)) == (429, "too-many-requests")
    assert 1 <= int(answer.headers["Retry-After"]) <= 6


def test_ap08_the_bucket_fills_again_and_each_token_has_its_own(api, operator, settings):
    settings.API_RATE = 10
    other = Caller(operator)
    ApiToken.objects.filter(public_id=api.token.split("_")[1]).update(level=0, filled_at=timezone.now())
    assert (api.get("runs").status_code, other.get("runs").status_code) == (429, 200)
    ApiToken.objects.update(filled_at=timezone.now() - timedelta(minutes=1))
    assert api.get("runs").status_code == 200


# AP09: cursors.


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


def test_ap09_the_list_of_runs_has_each_run_once_whatever_comes_meanwhile(api, operator):
    places = [make_environment(f"Lab {number}") for number in range(5)]
    from tests.factories import give

    for place in places[:4]:
        give(operator, place, "operator")
    first = [start(place, operator) for place in places[:3]]
    page = api.read("runs?limit=2")
    start(places[3], operator)
    rest = api.read(f"runs?limit=2&cursor={page['next']}")
    assert [item["id"] for item in (*page["items"], *rest["items"])] == first[::-1]
    assert rest["next"] is None


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
        answer = caller.get(path)
        assert answer.status_code == 400
        problem(answer)


def test_ap09_a_cursor_is_bound_to_its_filters(api, operator):
    from tests.factories import give

    places = [make_environment(f"Lab {number}") for number in range(2)]
    for place in places:
        give(operator, place, "operator")
        start(place, operator)
    cursor = api.read("runs?limit=1&status=open")["next"]
    assert api.get(f"runs?limit=1&status=open&cursor={cursor}").status_code == 200
    answer = api.get(f"runs?limit=1&cursor={cursor}")
    assert (answer.status_code, problem(answer)) == (400, "bad-cursor")


# AP11: other origins.


@pytest.mark.parametrize("origin", ["null", "https://app.example.evil", "http://testserver.evil"])
def test_ap11_no_answer_lets_another_origin_in(api, origin):
    asked = api.send("OPTIONS", "runs", **{"Origin": origin, "Access-Control-Request-Method": "GET"})
    for answer in (asked, api.get("runs", Origin=origin)):
        assert not [name for name in answer.headers if name.lower().startswith("access-control")]
    assert (asked.status_code, asked.headers["Allow"]) == (405, "GET")


@pytest.mark.parametrize("method", ["HEAD", "PUT", "TRACE", "DELETE", "PATCH"])
def test_only_listed_methods_are_taken(api, run, method):
    answer = api.send(method, f"runs/{run}/note")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")
    answer = api.send("POST", f"runs/{run}", NOTE, **{"X-HTTP-Method-Override": "GET"})
    assert (answer.status_code, problem(answer)) == (405, "method-not-allowed")


# AP12: times.


@pytest.mark.parametrize(
    "time",
    [
        "2026-11-24T14:02:11",
        "2026-11-24",
        "2026-11-24 14:02:11Z",
        "10000-01-01T00:00:00Z",
        "1999-12-31T23:59:59Z",
        "2100-01-01T00:00:00Z",
        "2026-12-31T23:59:60Z",
        "2026-02-30T00:00:00Z",
        "2026-11-24T14:02:11+25:00",
        "٢٠٢٦-11-24T14:02:11Z",
        "1764000000",
        "",
    ],
)
def test_ap12_a_time_has_its_zone_and_lies_between_2000_and_2100(api, time):
    answer = api.client.get(
        "/api/v1/runs", {"started_since": time}, headers={"Authorization": f"Bearer {api.token}"}
    )
    assert answer.status_code == 400
    problem(answer)


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


def test_a_token_made_for_reading_does_not_act(operator, run):
    reader = Caller(operator, token=token_for(operator, "read"))
    assert note(reader, run).status_code == 403
    assert reader.get(f"runs/{run}").status_code == 200
