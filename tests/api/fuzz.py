"""The long form of generated requests, `make fuzz-api`: what the document brings forth, good and bad, and spoiled copies of it.

It ends with REQUESTS requests or after LIMIT seconds, whichever comes first, and is green when there were as many as wanted, no
answer was a 5xx, and every refusal had its shape. SEED=n makes the same requests again.
"""

import json
import os
import time
from collections import Counter
from contextlib import suppress
from random import Random
from urllib.parse import urlsplit

import pytest
from django.core.cache import cache
from django.db import connection
from django.test import Client
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.core.failures import FailureGroup

from tests.api.caller import problem
from tests.api.test_generated import CHECKS, checks, ids, loaded, place, present_version  # noqa: F401 - a fixture
from tests.factories import start
from upgrades.models import Run
from upgrades.queries.run_lines import OVER

REQUESTS = int(os.environ.get("REQUESTS", "20000"))
LIMIT = float(os.environ.get("LIMIT", "540"))  # seconds
SEED = int(os.environ.get("SEED", "1"))
EXAMPLES = 6  # of each operation, each way, in a round
SPOILED = 9  # copies of each
HEAVY = "GET /api/v1/runs/{run_id}/record"  # packs a whole bundle: one copy of each is enough
TOLD = 20  # failures that are listed

# What a copy is spoiled with. `None` takes a header away.
HEADERS = {
    "Content-Type": [
        None,
        "text/plain",
        "application/json; charset=utf-16",
        "multipart/form-data",
        "a/b/c",
        "\xe9",
    ],
    "If-Match": [None, "*", "x", '"' + "0" * 64 + '"', 'W/"' + "0f" * 32 + '"', '"' + "f" * 5000, '"a", "b"'],
    "Idempotency-Key": [None, "", "k", "a" * 256, "k\xe9y", "with blank", "'; DROP TABLE x; --"],
    "Authorization": [None, "Bearer", "Bearer x", "Basic eDp5", "Bearer rbk_00000000_" + "A" * 43, "\x7f"],
    "Accept": ["text/html", "*/*;q=0", "\xff", "a" * 5000],
    "X-HTTP-Method-Override": ["DELETE"],
    "Content-Encoding": ["gzip", "br"],
    "Range": ["bytes=5-1", "bytes=0-99999999999"],
    "Cookie": ["sessionid=x; csrftoken=y", "\x00=\x00", "sessionid=" + "a" * 4000],
}
TEXTS = [
    "",
    "\x00",
    "a" * 5000,
    "\ud83d",
    "\u202e\u0661\u0662",
    "%s %(x)s {0} ${x}",
    "'; DROP TABLE x; --",
    "../../etc/passwd",
    "<script>1</script>",
    "a\r\nSet-Cookie: x=y",
    "e\u0301" * 50,
]
VALUES = [None, True, -1, 0, 1e308, -(10**30), 2**63, 1.5, [], {}, [[]], {"": ""}, *TEXTS]
QUERIES = [
    "x=1",
    "limit=-1",
    "limit=1e9",
    "limit=1&limit=2",
    "cursor=",
    "cursor=x:y:z",
    "cursor=%00",
    "environment=%FF",
    "status[]=open",
    "=",
    "&&&",
    "a" * 3000,
    "since=0001-01-01",
    "%",
    "shown=" + "0" * 64,
]
NUMBERS = [
    "0",
    "-1",
    "99999999999999999999",
    "9" * 400,
    "٣",
    "1e3",
    "0x1",
    "1%00",
    "..",
    "%2e%2e",
    "1/",
    "NaN",
    "%F0",
]
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "X"]


def spoiled(chance, method, path, query, headers, body):
    """The request with one to three things wrong with it."""
    for _ in range(chance.choice((1, 1, 2, 3))):
        what = chance.choice(
            ("body", "body", "value", "value", "header", "header", "query", "path", "method")
        )
        if what == "body":
            body = _spoiled_bytes(chance, body)
        elif what == "value":
            body = _spoiled_value(chance, body)
        elif what == "header":
            name = chance.choice(list(HEADERS))
            headers = {**headers, name: chance.choice(HEADERS[name])}
        elif what == "query":
            query = "&".join(part for part in (query, chance.choice(QUERIES)) if part)
        elif what == "path":
            path = _spoiled_path(chance, path)
        else:
            method = chance.choice(METHODS)
    return method, path, query, {name: value for name, value in headers.items() if value is not None}, body


def _spoiled_bytes(chance, body):
    at = chance.randrange(len(body) + 1)
    match chance.randrange(8):
        case 0:
            return body[:at]
        case 1:
            return body[:at] + chance.randbytes(3) + body[at:]
        case 2:
            return body[:at] + b"\x00" + body[at:]
        case 3:
            return body + body
        case 4:
            return body.decode("utf-8", "replace").encode("utf-16")
        case 5:
            return b"\xef\xbb\xbf" + body
        case 6:
            return b"[" * chance.choice((10, 21, 50_000)) + body
        case _:
            return chance.randbytes(chance.randrange(200))


def _spoiled_value(chance, body):
    """One value of the JSON in it is another one, one name is new, or one is gone."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return _spoiled_bytes(chance, body)
    holders = [found] if isinstance(found, dict | list) and found else []
    for holder in holders:
        below = holder.values() if isinstance(holder, dict) else holder
        holders += [one for one in below if isinstance(one, dict | list) and one]
    if not holders:
        return json.dumps(chance.choice(VALUES)).encode()
    holder = chance.choice(holders)
    key = chance.choice(list(holder)) if isinstance(holder, dict) else chance.randrange(len(holder))
    match chance.randrange(4):
        case 0 if isinstance(holder, dict):
            holder[chance.choice(("is_staff", "id", "", "__proto__", "a" * 300))] = chance.choice(VALUES)
        case 1:
            del holder[key]
        case _:
            holder[key] = chance.choice(VALUES)
    return json.dumps(found).encode()


def _spoiled_path(chance, path):
    parts = path.split("/")
    at = chance.randrange(3, len(parts))
    parts[at] = chance.choice((*NUMBERS, "runs", "a" * 2000, "config-server-ha", ""))
    return "/".join(parts)


class Fuzz:
    """Sends, counts what came of it, and keeps what must not be."""

    def __init__(self, environment, run, api):
        self.environment, self.run, self.api = environment, run, api
        self.chance = Random(SEED)
        self.client = Client(raise_request_exception=False)
        self.answers = Counter()
        self.failures = []
        self.until = time.monotonic() + LIMIT

    @property
    def sent(self):
        return self.answers.total()

    @property
    def is_over(self):
        return self.sent >= REQUESTS or time.monotonic() > self.until

    def a_round(self, number):
        for found in loaded(self.api).get_all_operations():
            for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
                if self.is_over:
                    return
                self._keep_a_run_open()
                self._ask(found.ok(), mode, SEED * 1000 + number)

    def _keep_a_run_open(self):
        """An act of before may have ended it."""
        if Run.objects.get(pk=self.run).status in OVER:
            self.run = start(self.environment, self.api.user)

    def _ask(self, operation, mode, number):
        named = {parameter.name for parameter in operation.path_parameters}
        fixed = {name: value for name, value in ids(self.environment, self.run).items() if name in named}

        @seed(number)
        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode, path_parameters=fixed))
        def ask(case):
            if not self.is_over:
                self._send(case, mode)

        with suppress(Unsatisfiable):  # nothing about it can be wrong
            ask()

    def _send(self, case, mode):
        headers = {"Authorization": f"Bearer {self.api.token}", "Accept-Encoding": "identity"}
        if mode is GenerationMode.POSITIVE and "If-Match" in (case.headers or {}):
            headers["If-Match"] = present_version(case.operation.label, self.environment, self.run)
        answer = case.call(headers=headers)
        self.answers[answer.status_code] += 1
        right = [checks.negative_data_rejection] if mode is GenerationMode.NEGATIVE else []
        try:
            case.validate_response(answer, checks=[*CHECKS, *right])
        except FailureGroup as failed:
            self.failures.append(f"{case.operation.label}: {failed.exceptions}")
        asked = answer.request
        parts = urlsplit(asked.url)
        body = asked.body.encode() if isinstance(asked.body, str) else asked.body or b""
        # Copies come as far as they can: the token is there again, unless that is what is spoiled.
        told = {**asked.headers, "Authorization": headers["Authorization"]}
        for _ in range(1 if case.operation.label == HEAVY else SPOILED):
            self._send_spoiled(asked.method, parts.path, parts.query, told, body)

    def _send_spoiled(self, *request):
        method, path, query, headers, body = spoiled(self.chance, *request)
        media = headers.pop("Content-Type", "")
        headers.pop("Content-Length", None)
        answer = self.client.generic(
            method,
            path,
            body,
            media,
            headers=headers,
            QUERY_STRING=query.encode("utf-8", "replace").decode("latin-1"),
        )
        self.answers[answer.status_code] += 1
        try:
            assert answer.status_code < 500
            if answer.status_code >= 400 and method != "HEAD":
                problem(answer)
        except (AssertionError, ValueError, KeyError) as failed:
            self.failures.append(
                f"{answer.status_code} {method} {path}?{query} {headers} {body[:300]!r}: {failed!r:.300}"
            )
        # Not answer.close(): that ends the connection of the test, too.
        for close in answer._resource_closers:  # type: ignore[attr-defined]
            close()


@pytest.fixture
def unhurried_disk(transactional_db):
    """Commits do not wait for the disk: whether they survive a power cut is not the question here."""
    with connection.cursor() as cursor:
        name = connection.ops.quote_name(connection.settings_dict["NAME"])
        cursor.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")
    connection.close()  # it counts from the next connection on


# The generating client drops answers without closing them; a server closes the files in them.
@pytest.mark.filterwarnings(
    r"ignore:Exception ignored in. <function SpooledTemporaryFile:pytest.PytestUnraisableExceptionWarning"
)
def test_no_request_of_many_breaks_anything(unhurried_disk, place, capsys):  # noqa: F811 - the fixture above
    cache.clear()
    fuzz, rounds, began = Fuzz(*place), 0, time.monotonic()
    while not fuzz.is_over:
        fuzz.a_round(rounds)
        rounds += 1
    with capsys.disabled():
        told = ", ".join(f"{count:,} × {status}" for status, count in sorted(fuzz.answers.items()))
        spent = time.monotonic() - began
        os.write(
            1, f"\n{fuzz.sent:,} requests in {spent:.0f} s, {rounds} rounds, seed {SEED}: {told}\n".encode()
        )
    assert fuzz.failures[:TOLD] == []
    assert not [status for status in fuzz.answers if status >= 500]
    assert fuzz.sent >= REQUESTS, f"only {fuzz.sent} requests in {LIMIT:.0f} s: this machine was too busy"
