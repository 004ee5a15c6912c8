"""A second factor: set up, asked for at sign-in, taken once, and in the way of nobody who has none where it is optional."""

import re
import time

import pytest
from allauth.mfa.models import Authenticator
from allauth.mfa.recovery_codes.internal.auth import RecoveryCodes
from django.core.management import CommandError, call_command
from django.test import Client

from tests.api.caller import Caller, token_for
from tests.factories import give, make_environment, make_user, show_who
from tests.web.second_factor import codes_of, set_up_app
from upgrades.adapters import register
from upgrades.models import RegisterEntry
from upgrades.services import calendar_feed

pytestmark = pytest.mark.django_db
PASSWORD = "quiet-night-in-frankfurt"
ARABIC = str.maketrans("0123456789", "٠١٢٣٤٥٦٧٨٩")


@pytest.fixture
def nina():
    return make_user(name="nina", password=PASSWORD)


def sign_in(client, code=None, **more):
    answer = client.post("/sign-in/", {"username": "nina", "password": PASSWORD, **more})
    if code is None:
        return answer
    return client.post("/sign-in/second-factor/", {"code": code})


def a_code(user, what):
    secret = set_up_app(user)
    return codes_of(secret)[0] if what == "an app" else RecoveryCodes.activate(user).get_unused_codes()[0]


def is_in(client):
    return client.get("/").status_code == 200


def test_an_authenticator_app_is_set_up_with_its_first_code(client, nina):
    sign_in(client)
    asked = client.get("/account/authenticator/")
    assert asked.headers["Location"].startswith("/account/confirm/?next=")
    client.post("/account/confirm/", {"password": PASSWORD, "next": "/account/authenticator/"})

    page = client.get("/account/authenticator/")
    secret = page.context["secret"]
    assert f'<code class="key">{secret}</code>' in page.text
    assert re.search(r'<path class="dots" d="M\d+ \d+h1v1h-1z', page.text)
    assert "not right" in client.post("/account/authenticator/", {"code": "000000"}).text

    done = client.post("/account/authenticator/", {"code": codes_of(secret)[0]})
    assert done.headers["Location"] == "/account/recovery-codes/"
    assert secret not in str(Authenticator.objects.get(type="totp").data)
    shown = client.get("/account/recovery-codes/").text
    assert len(re.findall(r"<li><code>\d{8}</code>", shown)) == 10
    assert not re.search(r"<code>\d{8}</code>", client.get("/account/recovery-codes/").text)


@pytest.mark.django_db(transaction=True)
def test_a_new_factor_is_told_by_mail_and_the_mail_has_nothing_of_it(client, nina, mailoutbox):
    nina.email = "nina@ops.example"
    nina.save(update_fields=["email"])
    sign_in(client)
    client.post("/account/confirm/", {"password": PASSWORD, "next": "/account/authenticator/"})
    secret = client.get("/account/authenticator/").context["secret"]
    client.post("/account/authenticator/", {"code": codes_of(secret)[0]})
    assert {address for mail in mailoutbox for address in mail.to} == {"nina@ops.example"}
    assert "authenticator app" in mailoutbox[0].body.lower()
    assert not any(secret in mail.body for mail in mailoutbox)


@pytest.mark.parametrize(("ago", "status"), [(290, 200), (310, 302)], ids=["4:50", "5:10"])
def test_who_has_nothing_here_to_show_adds_a_factor_soon_after_signing_in(client, ago, status):
    """As whoever comes from a directory: the directory knows the password, Runbook has none to ask for."""
    person = make_user()
    client.force_login(person)
    show_who(client, person, at=time.time() - ago)
    answer = client.get("/account/authenticator/")
    assert answer.status_code == status
    if status == 302:
        assert "Sign out and in again" in client.get(answer.headers["Location"]).text


def test_the_password_alone_opens_nothing_then(client, nina):
    set_up_app(nina)
    assert sign_in(client).headers["Location"] == "/sign-in/second-factor/"
    assert not is_in(client)


def test_the_code_opens_and_the_page_that_was_asked_for_follows(client, nina):
    secret = set_up_app(nina)
    sign_in(client, next="/runs/")
    answer = client.post("/sign-in/second-factor/", {"code": codes_of(secret)[0]})
    assert answer.headers["Location"] == "/runs/"
    assert is_in(client)


@pytest.mark.bad_input("FM16")
def test_a_code_is_taken_once(nina):
    secret = set_up_app(nina)
    code = codes_of(secret)[0]
    first, second = Client(), Client()
    sign_in(first, code)
    sign_in(second, code)
    assert (is_in(first), is_in(second)) == (True, False)


@pytest.mark.parametrize(("which", "opens"), [(1, True), (2, False)], ids=["the one before", "two before"])
@pytest.mark.bad_input("FM16")
def test_a_clock_may_be_one_period_off(client, nina, which, opens):
    sign_in(client, codes_of(set_up_app(nina))[which])
    assert is_in(client) is opens


@pytest.mark.bad_input("FM16")
def test_digits_of_another_script_are_no_code(client, nina):
    answer = sign_in(client, codes_of(set_up_app(nina))[0].translate(ARABIC))
    assert "not right" in answer.text
    assert not is_in(client)


@pytest.mark.bad_input("FM16")
def test_a_code_cannot_be_guessed(nina):
    secret = set_up_app(nina)
    client = Client()
    sign_in(client)
    for number in range(12):
        answer = client.post("/sign-in/second-factor/", {"code": f"{number:06}"})
    assert "too many wrong attempts" in answer.text
    client.post("/sign-in/second-factor/", {"code": codes_of(secret)[0]})
    assert not is_in(client)


def test_a_recovery_code_stands_in_once(nina):
    set_up_app(nina)
    code = RecoveryCodes.activate(nina).get_unused_codes()[0]
    first, second = Client(), Client()
    sign_in(first, code)
    sign_in(second, code)
    assert (is_in(first), is_in(second)) == (True, False)


@pytest.mark.parametrize("what", ["an app", "a recovery code"])
def test_a_changed_secret_key_locks_nobody_out_while_the_one_before_is_set(client, nina, settings, what):
    code = a_code(nina, what)
    settings.SECRET_KEY_FALLBACKS, settings.SECRET_KEY = [settings.SECRET_KEY], "another" * 10
    sign_in(client, code)
    assert is_in(client)


@pytest.mark.parametrize("what", ["an app", "a recovery code"])
def test_a_factor_that_no_secret_key_opens_takes_no_code_and_breaks_no_page(client, nina, settings, what):
    code = a_code(nina, what)
    settings.SECRET_KEY = "another" * 10
    assert "not right" in sign_in(client, code).text
    empty = codes_of("")[0]  # of a secret that is no secret
    assert "not right" in client.post("/sign-in/second-factor/", {"code": empty}).text
    assert not is_in(client)


def test_recovery_codes_made_under_the_new_secret_key_work_beside_a_lost_app(client, nina, settings):
    set_up_app(nina)
    settings.SECRET_KEY = "another" * 10
    sign_in(client, RecoveryCodes.activate(nina).get_unused_codes()[0])
    assert is_in(client)
    assert client.get("/account/").status_code == 200


def test_where_a_second_factor_is_required_nothing_opens_without_one(client, nina, settings):
    settings.SECOND_FACTOR = "required"
    sign_in(client)
    assert client.get("/runs/").headers["Location"] == "/account/"
    assert client.get("/runs/", headers={"HX-Request": "true"}).headers["HX-Redirect"] == "/account/"
    assert "A second factor is needed here." in client.get("/account/").text
    assert client.post("/sign-out/").headers["Location"] == "/sign-in/"

    secret = set_up_app(nina)
    sign_in(client, codes_of(secret)[0])
    assert is_in(client)


def test_the_last_required_factor_cannot_be_taken_away(client, nina, settings):
    settings.SECOND_FACTOR = "required"
    secret = set_up_app(nina)
    sign_in(client, codes_of(secret)[0])
    client.post(
        "/account/confirm/code/", {"code": codes_of(secret)[1], "next": "/account/authenticator/remove/"}
    )
    answer = client.post("/account/authenticator/remove/")
    assert "A second factor is required here." in answer.text
    assert Authenticator.objects.filter(user=nina, type="totp").exists()


def test_whoever_lost_the_factor_gets_it_taken_away_and_is_out_everywhere(client, nina, capsys):
    secret = set_up_app(nina)
    sign_in(client, codes_of(secret)[0])
    call_command("reset_account", "NINA")
    assert "1 factors taken away, 1 sessions ended" in capsys.readouterr().out
    assert not is_in(client)
    sign_in(client)
    assert is_in(client)
    with pytest.raises(CommandError, match="Nobody signs in as"):
        call_command("reset_account", "nobody")


def test_an_account_that_is_taken_back_leaves_no_way_in_to_who_had_it(client, nina, capsys):
    place, lab = make_environment(), make_environment("Lab · Berlin")
    give(nina, place, "operator")
    give(nina, lab, "operator")
    everywhere, there, feed = token_for(nina), token_for(nina, environment=lab), calendar_feed.make_feed(nina)
    assert client.get(f"/calendar/{feed}.ics").status_code == 200

    call_command("reset_account", "nina")

    assert "2 API tokens revoked, the calendar address revoked" in capsys.readouterr().out
    assert [Caller(nina, token=token).get("environments").status_code for token in (everywhere, there)] == [
        401
    ] * 2
    assert client.get(f"/calendar/{feed}.ics").status_code == 404
    assert set(nina.api_tokens.values_list("revoked_by", flat=True)) == {"Runbook: the account was reset"}
    for environment, revoked in ((place, 1), (lab, 2)):
        rows = RegisterEntry.objects.filter(book=register.access_book(environment.pk), kind="token.revoked")
        assert [register.read(row).by.id for row in rows] == ["system"] * revoked
    call_command("reset_account", "nina")
    assert "0 API tokens revoked, no calendar address" in capsys.readouterr().out
