"""A program that calls the API with somebody's token."""

import json
from uuid import uuid4

from django.test import Client

from tests.factories import proof_of
from upgrades.services.tokens import make_token

ALL = ("read", "operate", "edit", "notices", "audit")


def token_for(user, *scopes, environment=None, days=30):
    """The text of a new token of this person."""
    made = make_token(
        by=user,
        purpose="a test",
        scopes=scopes or ALL,
        environment_id=environment.pk if environment else None,
        days=days,
        proof=proof_of(user),
        command_id=uuid4(),
    )
    return made.text


class Caller:
    """Sends requests as a program would: with the token, a key of its own for each POST, and the version that it saw."""

    def __init__(self, user, *scopes, environment=None, token=None):
        self.user = user
        self.token = token or token_for(user, *scopes, environment=environment)
        self.client = Client()

    def send(self, method, path, body=None, *, key=None, match=None, media="application/json", **headers):
        if method == "POST" and key is None:
            key = str(uuid4())
        sent = {"Authorization": f"Bearer {self.token}"}
        if key:
            sent["Idempotency-Key"] = key
        if match:
            sent["If-Match"] = match
        content = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else b""
        more = {"content_type": media} if content else {}
        return self.client.generic(method, f"/api/v1/{path}", content, headers={**sent, **headers}, **more)

    def get(self, path, **headers):
        return self.send("GET", path, **headers)

    def post(self, path, body=None, **options):
        return self.send("POST", path, body, **options)

    def read(self, path):
        """The body of a GET that must work."""
        answer = self.get(path)
        assert answer.status_code == 200, answer.content
        return answer.json()

    def act(self, run, verb, **fields):
        """An act in a run as it stands now; the fields of a step are filled in."""
        answer = self.get(f"runs/{run}")
        step = answer.json()["step"]
        if fields.pop("on_step", True) and step:
            fields = {"step": step["id"], "visit": step["visit"], **fields}
        return self.post(f"runs/{run}/{verb}", fields, match=answer.headers["ETag"])


def problem(answer):
    """The end of the type of a problem, which its shape must have."""
    assert answer.headers["Content-Type"] == "application/problem+json", answer.content
    body = answer.json()
    assert {"type", "title", "status", "detail", "instance"} <= set(body), body
    assert body["status"] == answer.status_code
    assert all(body[name] for name in ("title", "detail", "instance"))
    return body["type"].removeprefix("urn:runbook:problem:")
