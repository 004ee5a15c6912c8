"""Sign-in at a real OpenID Connect provider, started here: code flow over HTTP, its keys, its claims, and attacks on it."""

import gzip
import re
import subprocess
import sys
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qs, urlencode, urlsplit
from uuid import uuid4

import httpx
import jwt
import pytest
from allauth.account.authentication import AUTHENTICATION_METHODS_SESSION_KEY
from allauth.socialaccount.models import SocialAccount
from cryptography.hazmat.primitives.asymmetric import rsa
from django.contrib.auth import get_user_model
from django.test import Client
from requests import RequestException

from runbook.stores import free_port
from tests.factories import give, make_environment, make_user
from tests.services.night import Night
from upgrades.models import GroupRole, SignedIn
from upgrades.web import sign_in_provider

pytestmark = pytest.mark.django_db
CALLBACK = "http://testserver/sign-in/provider/provider/callback/"


@pytest.fixture(scope="module")
def running():
    """The provider, its address, and the client that is registered with it."""
    port = free_port()
    address = f"http://localhost:{port}"
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "oidc_provider_mock",
        "--host",
        "localhost",
        "--port",
        str(port),
    ]
    command += ["--require-registration", "true", "--require-nonce", "true"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, **quiet) as process:
        try:
            answers(f"{address}/.well-known/openid-configuration", process)
            yield address, register(address)
        finally:
            process.terminate()


def answers(address, process):
    for _ in range(200):
        assert process.poll() is None, "the provider did not start"
        with suppress(httpx.TransportError):
            httpx.get(address).raise_for_status()
            return
        time.sleep(0.1)
    pytest.fail("the provider does not answer")


def register(address):
    """The client's id and secret, as the provider gives them to an application that registers."""
    return httpx.post(
        f"{address}/oauth2/clients",
        json={"redirect_uris": [CALLBACK], "token_endpoint_auth_method": "client_secret_post"},
    ).json()


@pytest.fixture
def provider(running, settings):
    address, client = running
    app = {
        "provider_id": "provider",
        "name": "Example login",
        "client_id": client["client_id"],
        "secret": client["client_secret"],
        "settings": {
            "server_url": address,
            "oauth_pkce_enabled": True,
            "scope": ["openid", "profile"],
            "token_auth_method": "client_secret_post",
        },
    }
    settings.SOCIALACCOUNT_PROVIDERS = {"openid_connect": {"APPS": [app]}}
    return Provider(address)


class Provider:
    """What a person and an administrator do at the provider."""

    def __init__(self, address):
        self.address = address

    def knows(self, sub, **claims):
        httpx.put(f"{self.address}/users/{sub}", json=claims).raise_for_status()

    def agrees(self, address, sub):
        """The person signs in as `sub` on the provider's page; the address that the browser is sent back to."""
        answer = httpx.post(address, data={"sub": sub})
        assert answer.status_code == 302, answer.text
        return answer.headers["Location"]


def begin(client, **fields):
    """Press the button; the address at the provider that the page leads to."""
    answer = client.post("/sign-in/provider/", fields)
    assert answer.status_code == 200
    return answer.context["address"]


def back(client, location):
    return client.get(location.removeprefix("http://testserver"))


def sign_in(client, provider, sub, **fields):
    return back(client, provider.agrees(begin(client, **fields), sub))


def test_the_page_leads_on_with_state_nonce_and_proof_key(client, provider):
    assert "Sign in with Example login" in client.get("/sign-in/").text
    query = parse_qs(urlsplit(begin(client)).query)
    assert query["response_type"] == ["code"]
    assert query["code_challenge_method"] == ["S256"]
    assert query["redirect_uri"] == [CALLBACK]
    assert query["nonce"] == [sign_in_provider.nonce_of(query["state"][0])]
    page = client.post("/sign-in/provider/")
    assert re.search(r'<meta http-equiv="refresh" content="0;url=http://localhost', page.text)


def test_a_new_person_comes_in_without_any_role(client, provider):
    provider.knows("4711", preferred_username="nina.adler", name="Nina Adler", email="nina@example.org")
    answer = sign_in(client, provider, "4711", next="/runs/")
    assert answer.headers["Location"] == "/runs/"
    user = get_user_model().objects.get(username="nina.adler")
    assert (user.get_full_name(), user.email, user.memberships.count()) == ("Nina Adler", "", 0)
    assert not user.has_usable_password()
    assert SignedIn.objects.filter(user=user).exists()


def test_sub_is_the_key_and_nothing_that_people_choose(provider):
    """Neither the name nor the mail address of somebody here opens their account (CVE-2025-65431)."""
    nina = make_user(name="nina", email="nina@example.org")
    provider.knows("1", preferred_username="nina", email="nina@example.org", email_verified=True)
    provider.knows("2", preferred_username="NINA", email="nina@example.org", email_verified=True)
    for sub in ("1", "2"):
        sign_in(Client(), provider, sub)
    assert not SocialAccount.objects.filter(user=nina).exists()
    assert SocialAccount.objects.values_list("user_id", flat=True).distinct().count() == 2


def test_the_same_sub_is_the_same_person_under_any_name(client, provider):
    provider.knows("77", preferred_username="before")
    sign_in(client, provider, "77")
    client.post("/sign-out/")
    provider.knows("77", preferred_username="after")
    sign_in(client, provider, "77")
    assert SocialAccount.objects.get(uid="77").user.username == "before"


def test_groups_become_roles_through_the_table_and_go_with_the_next_sign_in(client, provider):
    environment = make_environment()
    GroupRole.objects.create(environment=environment, group="change-team", role="operator")
    provider.knows("9", preferred_username="oskar", groups=["change-team", "administrators"])
    sign_in(client, provider, "9")
    person = SocialAccount.objects.get(uid="9").user
    roles = person.memberships.values_list("role", flat=True)
    assert list(roles) == ["operator"]
    assert client.get(f"/environments/{environment.pk}/").status_code == 200

    client.post("/sign-out/")
    provider.knows("9", preferred_username="oskar", groups=[])
    sign_in(client, provider, "9")
    assert list(roles.all()) == []


def test_an_account_that_is_shut_stays_shut(client, provider):
    sign_in(client, provider, "5")
    client.post("/sign-out/")
    get_user_model().objects.filter(socialaccount__uid="5").update(is_active=False)
    answer = sign_in(client, provider, "5")
    assert answer.status_code == 403
    assert client.get("/").status_code == 302


def test_breaking_off_there_leads_to_a_page_that_says_so(client, provider):
    address = begin(client)
    location = httpx.post(address, data={"action": "deny"}).headers["Location"]
    state = parse_qs(urlsplit(address).query)["state"][0]
    answer = client.get(
        f"/sign-in/provider/provider/callback/?{urlencode({'error': 'access_denied', 'state': state})}"
    )
    assert location
    assert client.get(answer.headers["Location"]).status_code == 200
    assert client.get("/").status_code == 302


# Attacks.


def test_an_answer_in_another_browser_signs_nobody_in(provider):
    victim, attacker = Client(), Client()
    location = provider.agrees(begin(attacker), "attacker")
    answer = back(victim, location)
    assert answer.status_code in (401, 403)
    assert victim.get("/").status_code == 302


def test_an_answer_is_good_once(client, provider):
    location = provider.agrees(begin(client), "once")
    back(client, location)
    client.post("/sign-out/")
    assert back(client, location).status_code == 401
    assert client.get("/").status_code == 302


def test_the_code_of_one_sign_in_does_not_fit_the_state_of_another(client, provider):
    first = provider.agrees(begin(client), "mallory")
    second = begin(client)
    code = parse_qs(urlsplit(first).query)["code"][0]
    state = parse_qs(urlsplit(second).query)["state"][0]
    answer = client.get(f"/sign-in/provider/provider/callback/?{urlencode({'code': code, 'state': state})}")
    assert answer.status_code == 401
    assert client.get("/").status_code == 302


@pytest.fixture
def forged(running, provider, rf, monkeypatch):
    """Reads an id token as at the callback of a sign-in with the state `s`. The token is made here, with our own key."""
    _, registered = running
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key(), as_dict=True) | {
        "kid": "ours",
        "alg": "RS256",
    }
    request = rf.get("/sign-in/provider/provider/callback/", {"state": "s"})
    adapter = sign_in_provider.Adapter(request, "provider")
    monkeypatch.setattr(adapter, "_keys", lambda _: {"keys": [public]})

    def read(signing=key, algorithm="RS256", headers=None, **changes):
        claims = {
            "iss": adapter.openid_config["issuer"],
            "aud": registered["client_id"],
            "sub": "7",
            "iat": time.time(),
            "exp": time.time() + 300,
            "nonce": sign_in_provider.nonce_of("s"),
        } | changes
        token = jwt.encode(claims, signing, algorithm=algorithm, headers={"kid": "ours"} | (headers or {}))
        app = adapter.get_provider().app
        return adapter._decode_id_token(app, token)

    return read


def test_a_sound_id_token_is_read(forged):
    assert forged()["sub"] == "7"


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://evil.example"},
        {"aud": "another-application"},
        {"exp": 1000},
        {"nonce": "0" * 64},
        {"nonce": ""},
        {"azp": "another-application"},
        {"signing": rsa.generate_private_key(public_exponent=65537, key_size=2048)},
        {"signing": "a secret of thirty-two characters", "algorithm": "HS256"},
        {"signing": None, "algorithm": "none"},
        {"headers": {"kid": "another"}},
    ],
    ids=lambda changes: " ".join(f"{name}" for name in changes) + str(changes.get("algorithm", "")),
)
def test_an_id_token_that_is_not_for_this_sign_in_is_refused(forged, changes):
    with pytest.raises((jwt.PyJWTError, sign_in_provider.OAuth2Error)):
        forged(**changes)


# What is asked of the provider is asked of it alone.


@pytest.fixture
def place():
    """Starts a web server that gives one answer, whatever is asked; its address, and what it was asked."""
    servers = []

    def start(status=200, body=b"{}", **headers):
        asked = []

        class Answer(BaseHTTPRequestHandler):
            def do_GET(self):
                asked.append(self.path)
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                with suppress(ConnectionError):
                    self.wfile.write(body)

            def log_message(self, *_):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        servers.append(server)
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}).start()
        return f"http://127.0.0.1:{server.server_port}", asked

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def ask(address):
    with sign_in_provider.ProviderAdapter().get_requests_session() as session:
        return session.get(address)


def test_no_redirection_of_the_provider_is_followed(place):
    elsewhere, asked = place()
    address, _ = place(302, Location=f"{elsewhere}/internal")
    with pytest.raises(RequestException, match="redirection"):
        ask(address)
    assert asked == []


def test_no_proxy_of_the_environment_is_asked(place, monkeypatch):
    proxy, asked = place()
    address, _ = place()
    monkeypatch.setenv("http_proxy", proxy)
    monkeypatch.setenv("no_proxy", "")
    assert ask(address).json() == {}
    assert asked == []


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_an_answer_of_the_provider_has_a_bound(place, encoding):
    body = b" " * (sign_in_provider.MOST_BYTES + 1)
    if encoding == "gzip":
        body = gzip.compress(body)
    address, _ = place(body=body, **{"Content-Encoding": encoding})
    with pytest.raises(RequestException, match="bytes"):
        ask(address)


def test_an_authority_of_the_site_counts_for_the_provider(monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/etc/ssl/ours.pem")
    assert sign_in_provider.ProviderAdapter().get_requests_session().verify == "/etc/ssl/ours.pem"
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    assert sign_in_provider.ProviderAdapter().get_requests_session().verify is True


# Signatures of people who have nothing but the provider.


def test_to_sign_they_show_it_to_the_provider_anew(client, provider):
    sign_in(client, provider, "signer")
    assert "Show it to Example login" in client.get("/account/confirm/").text
    query = parse_qs(urlsplit(begin(client)).query)
    assert (query["prompt"], query["max_age"]) == (["login"], ["0"])


@pytest.mark.parametrize(("ago", "counts"), [(10, True), (3600, False)])
def test_the_time_at_which_the_provider_asked_is_what_counts(client, provider, monkeypatch, ago, counts):
    monkeypatch.setattr(sign_in_provider, "signed_in_at", lambda _: time.time() - ago)
    night = Night().go_to("stop-old")
    sign_in(client, provider, "signer")
    person = SocialAccount.objects.get(uid="signer").user
    give(person, night.environment, "approver")
    signature = night.sign()
    fields = {
        "step": "stop-old",
        "visit": 1,
        "gate": "approval",
        "digest": signature.digest,
        "command_id": uuid4(),
    }
    answer = client.post(f"/runs/{night.run}/sign/", fields)
    assert ("approval.signed" in night.kinds) is counts
    assert answer.status_code == 303


@pytest.mark.parametrize("address", ["/account/authenticator/", "/account/passkeys/new/"])
@pytest.mark.parametrize(
    ("told", "came"),
    [(3600, 0), (0, 3600)],
    ids=["asked an hour ago", "does not say, and it was an hour ago"],
)
def test_a_factor_is_added_by_who_has_just_been_at_the_provider(
    client, provider, monkeypatch, address, told, came
):
    """Else whoever finds a session of this morning makes a passkey in it, and signs with that."""
    monkeypatch.setattr(sign_in_provider, "signed_in_at", lambda _: time.time() - told if told else 0.0)
    sign_in(client, provider, "adder")
    session = client.session
    for record in session[AUTHENTICATION_METHODS_SESSION_KEY]:
        record["at"] -= came
    session.save()
    asked = client.get(address)
    assert asked.headers["Location"] == f"/account/confirm/?{urlencode({'next': address})}"
    assert client.post(address, {"code": "000000"}).status_code == 303
    page = client.get(asked.headers["Location"])
    assert f'name="next" value="{address}"' in page.text

    monkeypatch.setattr(sign_in_provider, "signed_in_at", lambda _: time.time() if told else 0.0)
    assert sign_in(client, provider, "adder", next=address).headers["Location"] == address
    assert client.get(address).status_code == 200


def test_only_a_provider_that_says_when_it_asked_gives_a_proof():
    class Account:
        extra_data = {"id_token": {"sub": "1"}, "userinfo": {"auth_time": 9_999_999_999}}  # noqa: RUF012

    assert sign_in_provider.signed_in_at(Account) == 0.0
