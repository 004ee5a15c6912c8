"""What holds for every address that there is, page, fragment, download and error alike: headers, methods, tokens."""

import re
from uuid import uuid4

import pytest
from django.conf import settings as project
from django.test import Client

from tests.factories import make_environment, make_user, publish, show_who, start
from tests.web.test_access import OPEN, ROLES, addresses, filled
from upgrades.models import RegisterEntry, RunEvent

pytestmark = pytest.mark.django_db

# Programs show a token of their own there and no browser sends cookies along: docs/api.md.
FOR_PROGRAMS = ("api/", "metrics")


@pytest.fixture
def place():
    environment = make_environment()
    publish()
    people = {role: make_user(role, environment=environment) for role in ROLES}
    return environment, start(environment, people["operator"]), people


def routes(place):
    environment, run, _ = place
    for name, pattern in addresses():
        yield name, pattern, filled(pattern, environment, run)


def policy_of(answer):
    return {
        part.split()[0]: part.split()[1:]
        for part in answer.headers["Content-Security-Policy"].split(";")
        if part.strip()
    }


def check(answer, address):
    """The headers that every answer has."""
    headers = answer.headers
    assert headers["X-Content-Type-Options"] == "nosniff", address
    assert headers["X-Frame-Options"] == "DENY", address
    assert headers["Referrer-Policy"] == "same-origin", address
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin", address
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin", address
    assert "publickey-credentials-get=(self)" in headers["Permissions-Policy"], address
    assert "camera=()" in headers["Permissions-Policy"], address
    assert "Server" not in headers, address
    assert "Access-Control-Allow-Origin" not in headers, address
    policy = policy_of(answer)
    assert policy["default-src"] == ["'none'"], address
    assert "'unsafe-inline'" not in str(policy), address
    assert "'unsafe-eval'" not in str(policy), address
    assert "data:" not in str(policy), address
    if "sandbox" not in policy:
        assert policy["frame-ancestors"] == ["'none'"], address
        assert policy["base-uri"] == ["'none'"], address
        assert policy["form-action"] == ["'self'"], address


@pytest.mark.parametrize("who", [None, "operator", "auditor", "administrator"])
@pytest.mark.parametrize("fragment", [False, True], ids=["page", "as htmx"])
def test_every_answer_has_the_headers(client, place, who, fragment):
    _, _, people = place
    if who:
        client.force_login(people[who])
        show_who(client, people[who])
    headers = {"HX-Request": "true"} if fragment else {}
    for name, _, address in routes(place):
        answer = client.get(address, headers=headers)
        for (
            close
        ) in answer._resource_closers:  # of downloads; not close(), which ends the test's connection too
            close()
        check(answer, address)
        # What is seen with a session is kept by nobody, unless it is a file that says so itself.
        if (
            who
            and answer.status_code == 200
            and name not in OPEN
            and "Cookie" in answer.headers.get("Vary", "")
        ):
            assert "no-store" in answer.headers["Cache-Control"], address


@pytest.mark.parametrize(
    ("path", "status", "headers"),
    [
        ("/no-such-page/", 404, {}),
        ("/runs/999999/", 404, {}),
        ("/audit/", 404, {}),
        ("/sign-in/", 400, {"Host": "evil.example"}),
        ("/static/no-such.css", 404, {}),
    ],
)
def test_an_error_has_the_headers_too_and_tells_nothing_of_the_inside(client, place, path, status, headers):
    client.force_login(place[2]["operator"])
    answer = client.get(path, headers=headers)

    assert answer.status_code == status
    check(answer, path)
    body = answer.content.decode()
    for inside in ("Traceback", "django", "SECRET_KEY", "upgrades/", "/usr/", "psycopg"):
        assert inside not in body, inside


def test_a_failure_tells_nothing_of_the_inside(place, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("the secret of the inside")

    monkeypatch.setattr("upgrades.web.runs_list.render", fail)
    browser = Client(raise_request_exception=False)
    browser.force_login(place[2]["operator"])
    answer = browser.get("/runs/")

    assert answer.status_code == 500
    check(answer, "/runs/")
    assert "secret of the inside" not in answer.content.decode()
    assert "Traceback" not in answer.content.decode()


def test_each_page_has_a_nonce_of_its_own(client, place):
    client.force_login(place[2]["operator"])
    nonces = set()
    for _ in range(3):
        answer = client.get("/runs/")
        [nonce] = {word for word in policy_of(answer)["script-src"] if word.startswith("'nonce-")}
        assert set(re.findall(r'nonce="([^"]+)"', answer.content.decode())) >= {nonce[7:-1]}
        nonces.add(nonce)
    assert len(nonces) == 3


@pytest.mark.parametrize(
    "headers", [{}, {"Origin": "null"}, {"Origin": "https://evil.example"}, {"HX-Request": "true"}]
)
def test_no_address_takes_a_post_without_its_token(place, headers):
    """S6: whatever a signed-in browser is made to send from elsewhere changes nothing."""
    people = place[2]
    before = (RunEvent.objects.count(), RegisterEntry.objects.count())
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(people["administrator"])
    show_who(browser, people["administrator"])
    for name, pattern, address in routes(place):
        if pattern.startswith(FOR_PROGRAMS):
            continue
        answer = browser.post(address, {"command_id": str(uuid4())}, headers=headers)
        assert answer.status_code in (403, 405), (name, answer.status_code)
    assert (RunEvent.objects.count(), RegisterEntry.objects.count()) == before


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "TRACE", "PROPFIND", "CONNECT"])
def test_no_address_takes_an_unusual_method(client, place, method):
    client.force_login(place[2]["administrator"])
    for name, pattern, address in routes(place):
        if pattern.startswith("api/"):
            continue
        answer = client.generic(method, address)
        assert answer.status_code == 405, (name, method, answer.status_code)


def test_no_answer_allows_pages_of_others(client, place):
    """P22: no CORS at all, whatever the origin is called."""
    client.force_login(place[2]["operator"])
    for origin in ("null", "https://evil.example", "https://testserver.evil.example", "http://testserver:81"):
        for _, _, address in routes(place):
            answer = client.options(
                address, headers={"Origin": origin, "Access-Control-Request-Method": "POST"}
            )
            assert not [name for name in answer.headers if name.lower().startswith("access-control")], address
    static = client.get("/static/runbook/live.js", headers={"Origin": "https://evil.example"})
    for close in static._resource_closers:
        close()
    assert static.status_code == 200
    assert not [name for name in static.headers if name.lower().startswith("access-control")]


def test_cookies_are_for_this_host_and_for_no_script(client, place):
    user = make_user(password="correct horse battery staple")
    browser = Client()
    browser.get("/sign-in/")
    browser.post("/sign-in/", {"username": user.username, "password": "correct horse battery staple"})
    for name in (project.SESSION_COOKIE_NAME, project.CSRF_COOKIE_NAME):
        cookie = browser.cookies[name]
        assert cookie["httponly"], name
        assert cookie["path"] == "/", name
        assert cookie["domain"] == "", name
        assert cookie["samesite"] in ("Lax", "Strict"), name


def test_htmx_carries_nothing_out_that_came_as_text(client, place):
    client.force_login(place[2]["operator"])
    html = client.get("/runs/").content.decode()
    [told] = re.findall(r"<meta name=\"htmx-config\" content='([^']+)'", html)

    assert '"extensions": "hx-csp' in told
    assert '"mode": "same-origin"' in told
    assert '"includeIndicatorCSS": false' in told
    assert "safeEval" not in told
