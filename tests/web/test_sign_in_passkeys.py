"""Passkeys in a real browser, with the authenticator that Chromium can pretend to have, under the real policy."""

import pytest
from allauth.mfa.models import Authenticator

from tests.factories import make_user
from tests.web.run_scene import Stage, no_agents

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
PASSWORD = "quiet-night-in-frankfurt"


@pytest.fixture
def site(live_server):
    """Passkeys belong to a name, so the pages are opened under one."""
    return live_server.url.replace("127.0.0.1", "localhost")


@pytest.fixture
def page(chromium):
    context = chromium.new_context()
    page = context.new_page()
    page.complaints = []
    page.on(
        "console", lambda message: page.complaints.append(message.text) if message.type == "error" else None
    )
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    yield page
    assert page.complaints == []
    context.close()


@pytest.fixture
def device(page):
    """A device with a passkey store and somebody who puts the finger on it; `forbid()` takes the finger away."""
    cdp = page.context.new_cdp_session(page)
    cdp.send("WebAuthn.enable")
    options = {
        "protocol": "ctap2",
        "transport": "internal",
        "hasResidentKey": True,
        "hasUserVerification": True,
        "isUserVerified": True,
        "automaticPresenceSimulation": True,
    }
    made = cdp.send("WebAuthn.addVirtualAuthenticator", {"options": options})["authenticatorId"]

    def forbid():
        cdp.send("WebAuthn.setUserVerified", {"authenticatorId": made, "isUserVerified": False})

    return forbid


def sign_in(page, site):
    page.goto(f"{site}/sign-in/")
    page.fill("[name=username]", "nina")
    page.fill("[name=password]", PASSWORD)
    page.press("[name=password]", "Enter")
    page.wait_for_url(lambda address: "/sign-in/" not in address)


def make_passkey(page, site):
    page.goto(f"{site}/account/passkeys/new/")
    page.fill("[name=password]", PASSWORD)
    page.press("[name=password]", "Enter")
    page.wait_for_url("**/account/passkeys/new/")
    page.fill("[name=name]", "laptop")
    page.get_by_role("button", name="Make it").click()
    page.wait_for_url("**/account/recovery-codes/")
    page.goto(f"{site}/account/")


def test_a_passkey_is_made_signs_in_alone_and_stands_on_the_account(page, site, device):
    nina = make_user(name="nina", password=PASSWORD)
    sign_in(page, site)
    make_passkey(page, site)
    assert "laptop" in page.inner_text("#passkeys")
    assert Authenticator.objects.filter(user=nina, type="webauthn").count() == 1

    page.click("#user-menu summary")
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url("**/sign-in/")
    page.get_by_role("button", name="Sign in with a passkey").click()
    page.wait_for_url(f"{site}/")
    assert page.locator("#user-menu").count() == 1


def test_it_is_the_second_factor_beside_the_password(page, site, device):
    make_user(name="nina", password=PASSWORD)
    sign_in(page, site)
    make_passkey(page, site)
    page.context.clear_cookies()
    page.goto(f"{site}/sign-in/")
    page.fill("[name=username]", "nina")
    page.fill("[name=password]", PASSWORD)
    page.press("[name=password]", "Enter")
    page.wait_for_url("**/sign-in/second-factor/")
    page.get_by_role("button", name="Use your passkey").click()
    page.wait_for_url(f"{site}/")


def test_without_the_finger_nothing_opens_and_the_page_says_why(page, site, device):
    make_user(name="nina", password=PASSWORD)
    sign_in(page, site)
    make_passkey(page, site)
    page.context.clear_cookies()
    device()
    page.goto(f"{site}/sign-in/")
    page.get_by_role("button", name="Sign in with a passkey").click()
    page.get_by_text("Nothing happened: it was called off").wait_for()


def test_an_account_that_is_shut_is_not_opened_and_the_page_says_so(page, site, device):
    nina = make_user(name="nina", password=PASSWORD)
    sign_in(page, site)
    make_passkey(page, site)
    nina.is_active = False
    nina.save()
    page.goto(f"{site}/sign-in/")
    page.get_by_role("button", name="Sign in with a passkey").click()
    page.get_by_text("This account is shut").wait_for()
    assert page.url == f"{site}/sign-in/"
    assert page.locator("#user-menu").count() == 0


def test_a_signature_is_confirmed_by_passkey(page, site, device, monkeypatch):
    no_agents(monkeypatch)
    stage = Stage().reach("stop-old")
    stage.approver.username = "nina"
    stage.approver.set_password(PASSWORD)
    stage.approver.save()
    sign_in(page, site)
    make_passkey(page, site)
    monkeypatch.setattr("django.conf.settings.PROOF_SECONDS", 0)
    page.goto(f"{site}/runs/{stage.run_id}/")
    page.locator("form[id^=sign] button").first.click()
    page.wait_for_url("**/account/confirm/passkey/**")
    monkeypatch.setattr("django.conf.settings.PROOF_SECONDS", 300)
    assert "You are about to do this" in page.inner_text("main")
    page.get_by_role("button", name="Use your passkey").click()
    page.wait_for_url(f"{site}/runs/{stage.run_id}/")
    from upgrades.adapters import event_store

    signed = [one.event for one in event_store.load(stage.run_id) if one.event.kind == "approval.signed"]
    assert [event.proof for event in signed] == ["passkey"]
    # The question is a 401, and no stream is served here: the browser calls both errors.
    page.complaints[:] = [text for text in page.complaints if "Failed to load resource" not in text]
