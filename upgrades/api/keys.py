"""`Idempotency-Key`: the same request sent twice acts once and is answered the same.

Two layers. The key becomes the id of the command, so the service itself acts once, whatever happens to the answer. And the
answer is kept for two days. Refusals are not kept: nothing was done, and asking again is right. A second request with the
key waits for the first one.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from upgrades.adapters.session_lock import Taken, alone
from upgrades.api.problems import AGAIN, Problem, bad_request
from upgrades.models import ApiToken, StoredAnswer

HEADER = "Idempotency-Key"
LONGEST = 255
REPLAYED = "Idempotency-Replayed"
KEPT_HEADERS = ("ETag", "Location")


def once() -> str:
    """A key for a request that came without one and needs none."""
    return secrets.token_hex(16)


def key_in(request: HttpRequest) -> str:
    """The key of the request; 400 without one, or with one that is none."""
    key = request.headers.get(HEADER, "")
    if not key:
        raise bad_request(
            f"A POST takes the header {HEADER}: an id that you make, such as a UUID, the same when you send it again. "
            "Nothing was done.",
            code="key-missing",
        )
    if not re.fullmatch(rf"[!-~]{{1,{LONGEST}}}", key):
        raise bad_request(
            f"{HEADER} is 1 to {LONGEST} visible ASCII characters without blanks. Nothing was done.",
            code="bad-key",
        )
    return key


def answer_once(
    request: HttpRequest, token: ApiToken, key: str, act: Callable[[], HttpResponseBase], *, hides: str = ""
) -> HttpResponseBase:
    """What `act` answers, or what it answered when this key was sent before; 422 when it was sent for something else.

    The field `hides` of the answer is not kept: it is empty when the answer is given again.
    """
    digest = _digest(request)
    with _one_at_a_time(token, key):
        before = StoredAnswer.objects.filter(token=token, key=key).first()
        if before is not None:
            return _again(before, digest)
        response = act()
        if isinstance(response, HttpResponse) and response.status_code < 300:
            _keep(token, key, digest, response, hides)
        return response


def _again(before: StoredAnswer, digest: str) -> HttpResponse:
    if before.request != digest:
        raise Problem(
            422,
            "key-used",
            "The key was used for something else",
            f"This {HEADER} came with another request before. Nothing was done. Make a new key for each thing that you "
            "want done.",
        )
    headers = {**before.headers, REPLAYED: "true"}
    return HttpResponse(
        before.body, status=before.status, headers=headers, content_type="application/json; charset=utf-8"
    )


def _keep(token: ApiToken, key: str, digest: str, response: HttpResponse, hides: str) -> None:
    body = response.content.decode()
    StoredAnswer.objects.create(
        token=token,
        key=key,
        request=digest,
        status=response.status_code,
        headers={name: response.headers[name] for name in KEPT_HEADERS if name in response.headers},
        body=json.dumps({**json.loads(body), hides: ""}) if hides else body,
    )


def _digest(request: HttpRequest) -> str:
    """Of method, address and body. A form with a file counts by its fields: its boundary is another one each time."""
    found = hashlib.sha256(f"{request.method} {request.get_full_path()}\n".encode())
    if request.content_type != "multipart/form-data":
        found.update(request.body)
        return found.hexdigest()
    for name, values in sorted(request.POST.lists()):
        for value in values:
            found.update(f"{name}={len(str(value))}:{value}\n".encode())
    for name, uploads in sorted(request.FILES.lists()):
        for upload in uploads:
            found.update(f"{name}={upload.name}\n".encode())
            for chunk in upload.chunks():
                found.update(hashlib.sha256(chunk).digest())
            upload.seek(0)
    return found.hexdigest()


@contextmanager
def _one_at_a_time(token: ApiToken, key: str) -> Iterator[None]:
    """No second request with this key of the token until the end of the block; 409 when the first takes too long."""
    with ExitStack() as held:
        try:
            held.enter_context(alone(f"api key {token.pk} {key}"))
        except Taken as taken:
            raise Problem(
                409,
                "in-progress",
                "It is being done",
                "The first request with this key is still at work. Ask again shortly, with the same key, and get its answer.",
                {"Retry-After": str(AGAIN)},
            ) from taken
        yield
