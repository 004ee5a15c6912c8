"""Signing in and out."""

import re
import time
from datetime import timedelta

import pytest
from django.conf import settings
from django.contrib.sessions.models import Session
from django.db import IntegrityError, transaction
from django.test import Client
from django.utils import timezone

from tests.factories import give, make_environment, make_user
from upgrades.models import SignedIn
from upgrades.services.sign_in import forget_sessions
from upgrades.tasks import tick
from upgrades.web.sign_in import BY_THE_PAGE

pytestmark = pytest.mark.django_db
PASSWORD = "quiet-night-in-frankfurt"
MINUTE, HOUR = 60, 3600


@pytest.fixture
def nina():
    return make_user(name="nina", password=PASSWORD)


def sign_in(client, name="nina", password=PASSWORD, **more):
    return client.post("/sign-in/", {"username": name, "password": password, **more})


def test_signing_in_leads_to_the_page_that_was_asked_for(client, nina):
    asked = client.get("/runs/?status=held")
    assert asked.headers["Location"] == "/sign-in/?next=/runs/%3Fstatus%3Dheld"

    assert sign_in(client, next="/runs/?status=held").headers["Location"] == "/runs/?status=held"


@pytest.mark.parametrize(
    "elsewhere",
    [
        "https://evil.example/",
        "//evil.example/",
        "javascript:alert(1)",
        r"/\evil",
        "https://localhost/",
        "http://127.0.0.1/",
        "http://testserver:8080/",
    ],
)
@pytest.mark.bad_input("W11")
def test_signing_in_never_leads_to_another_site(client, nina, elsewhere):
    assert sign_in(client, next=elsewhere).headers["Location"] == "/"


@pytest.mark.parametrize(
    ("name", "password"),
    [
        pytest.param("nina", "wrong", id="wrong password"),
        pytest.param("nobody", PASSWORD, id="no such name"),
        pytest.param("gone", PASSWORD, id="no longer active"),
    ],
)
def test_a_refusal_tells_nobody_which_names_there_are(client, nina, name, password):
    make_user(name="gone", password=PASSWORD, is_active=False)

    answer = sign_in(client, name, password)

    assert "Name and password do not fit together." in answer.text
    assert "_auth_user_id" not in client.session


@pytest.mark.parametrize(
    ("name", "password"), [("nina", "x" * 129), ("n" * 151, PASSWORD), ("nina\0", PASSWORD), ("", "")]
)
@pytest.mark.bad_input("FM14")
def test_what_cannot_be_right_is_refused_before_any_hashing(client, nina, name, password, monkeypatch):
    monkeypatch.setattr("django.contrib.auth.hashers.check_password", pytest.fail)

    assert sign_in(client, name, password).status_code == 200


def test_signing_out_takes_a_form_and_ends_the_session(client, nina):
    client.force_login(nina)

    assert client.post("/sign-out/").headers["Location"] == "/sign-in/"
    assert client.get("/").status_code == 302


def test_who_is_signed_in_needs_no_second_sign_in(client, nina):
    client.force_login(nina)

    assert client.get("/sign-in/").headers["Location"] == "/"


@pytest.mark.bad_input("FM14")
def test_a_name_is_found_in_any_spelling(client, nina):
    assert sign_in(client, " ＮＩＮＡ ").status_code == 302


def test_two_names_never_differ_by_case_alone(nina):
    with pytest.raises(IntegrityError, match="any_case"), transaction.atomic():
        make_user(name="NINA")


# Sessions.


def test_a_session_gets_a_new_id_at_sign_in(client, nina):
    client.get("/sign-in/")
    client.session["before"] = True
    before = client.session.session_key
    sign_in(client)
    assert client.session.session_key != before


@pytest.mark.parametrize(
    ("times", "status"),
    [
        pytest.param({"signed_in_at": 9 * HOUR, "used_at": 59 * MINUTE}, 200, id="nearly over"),
        pytest.param({"signed_in_at": 10 * HOUR + 1, "used_at": 1}, 302, id="too old"),
        pytest.param({"signed_in_at": 2 * HOUR, "used_at": HOUR + 1}, 302, id="not used"),
    ],
)
@pytest.mark.bad_input("FM12")
def test_a_session_ends_when_it_is_old_or_was_not_used(client, nina, times, status):
    client.force_login(nina)
    session = client.session
    for name, ago in times.items():
        session[name] = time.time() - ago
    session.save()
    assert client.get("/").status_code == status
    assert (client.get("/").status_code == 302) is (status == 302)


def test_a_session_of_a_stranger_is_kept_for_an_hour_and_one_that_is_over_no_longer(client, nina):
    for _ in range(3):
        Client().get("/sign-in/passkey/", headers={"Accept": "application/json"})
    client.get("/sign-in/passkey/", headers={"Accept": "application/json"})
    sign_in(client)
    assert Session.objects.count() == 4
    forget_sessions(timezone.now() + timedelta(minutes=61))
    assert [session.get_decoded()["_auth_user_id"] for session in Session.objects.all()] == [str(nina.pk)]
    forget_sessions(timezone.now() + timedelta(hours=9))
    assert client.get("/").status_code == 200

    Session.objects.update(expire_date=timezone.now() - timedelta(seconds=1))
    tick()
    assert not Session.objects.exists()


@pytest.mark.parametrize(
    "address", ["/environments/{place}/board/", "/status/board/", "/approvals/board/", "/approvals/count/"]
)
def test_what_a_page_fetches_by_itself_keeps_no_session_alive(client, nina, address):
    environment = make_environment()
    give(nina, environment, "operator")
    client.force_login(nina)
    session = client.session
    session["used_at"] = used = time.time() - 10 * MINUTE
    session.save()
    client.get(address.format(place=environment.pk), headers={"HX-Request": "true"})
    assert client.session["used_at"] == used
    client.get(f"/environments/{environment.pk}/")
    assert client.session["used_at"] > used


LIVE_AREA = r'data-live-url="({%.*?%}|{{.*?}})'
BY_TIME = r'hx-get="({%.*?%}|{{.*?}})[^"]*" hx-trigger="[^"]*\b(?:load|every)\b'


def test_all_that_pages_fetch_by_themselves_is_known_as_such():
    fetched = set()
    for file in settings.TEMPLATES[0]["DIRS"][0].rglob("*.html"):
        text = file.read_text()
        kept = {name: tag for tag, name in re.findall(r'({% url "[^%]*) as (\w+) %}', text)}
        found = re.findall(LIVE_AREA, text) + re.findall(BY_TIME, text)
        assert len(found) == len(re.findall(r'data-live-url=|hx-trigger="[^"]*\b(?:load|every)\b', text)), (
            file
        )
        fetched |= {kept.get(address.strip("{} "), address).split('"')[1] for address in found}
    assert fetched == BY_THE_PAGE


def test_signing_out_clears_what_the_browser_keeps(client, nina):
    client.force_login(nina)
    assert client.post("/sign-out/").headers["Clear-Site-Data"] == '"cache", "cookies", "storage"'


def test_people_see_where_they_are_signed_in_and_end_it_from_elsewhere(nina):
    here, there, third = Client(), Client(headers={"user-agent": "Firefox on a laptop"}), Client()
    for browser in (here, there, third):
        sign_in(browser)
    page = here.get("/account/").text
    assert "Firefox on a laptop" in page
    assert page.count("Sign out there") == 2

    row = SignedIn.objects.get(browser="Firefox on a laptop")
    here.post("/account/sessions/end/", {"session": row.pk})
    assert [one.get("/").status_code for one in (here, there, third)] == [200, 302, 200]

    here.post("/account/sessions/end/")
    assert [one.get("/").status_code for one in (here, third)] == [200, 302]


def test_nobody_ends_the_session_of_another(client, nina):
    other = Client()
    other.force_login(make_user())
    client.force_login(nina)
    client.post("/account/sessions/end/", {"session": SignedIn.objects.exclude(user=nina).get().pk})
    assert other.get("/").status_code == 200


def test_an_account_that_is_shut_is_out_at_the_next_click(client, nina):
    client.force_login(nina)
    nina.is_active = False
    nina.save()
    assert client.get("/").status_code == 302


# The password.


def change(client, new, old=PASSWORD):
    return client.post("/account/password/", {"oldpassword": old, "password1": new, "password2": new})


def test_a_new_password_signs_out_everywhere_else_and_nowhere_here(nina):
    here, there = Client(), Client()
    sign_in(here)
    sign_in(there)
    before = here.session.session_key

    assert change(here, "four plain words together").headers["Location"] == "/account/"

    assert (here.get("/").status_code, there.get("/").status_code) == (200, 302)
    assert here.session.session_key != before
    assert here.get("/account/").text.count("This one") == 1
    assert sign_in(Client(), password="four plain words together").status_code == 302


@pytest.mark.parametrize(
    "easy",
    [
        "too short",
        "passwordpassword1",
        "aaaaaaaaaaaaaaaaaaaa",
        "123456789012345678",
        "abcdefghijklmnopqr",
        "runbook-genesys-upgrade",
        "nina nina nina nina",
        "x" * 129,
    ],
)
def test_an_easy_password_is_not_taken(client, nina, easy):
    client.force_login(nina)
    assert change(client, easy).status_code == 200
    nina.refresh_from_db()
    assert nina.check_password(PASSWORD)


def test_a_password_counts_from_its_first_character_to_its_last(client, nina):
    """ASVS 6.2.8, 6.2.9: nothing is cut off, trimmed or made small."""
    long = " Quiet night in Frankfurt " + "éß一" * 34
    assert len(long) == 128
    client.force_login(nina)
    assert change(client, long).headers["Location"] == "/account/"
    for other in (long[:72], long[:-1], long.strip(), long.lower(), long + " "):
        assert sign_in(Client(), password=other).status_code == 200
    assert sign_in(Client(), password=long).status_code == 302


@pytest.mark.parametrize("page", ["/sign-in/", "/account/password/"])
def test_a_password_is_not_shown_while_it_is_typed(client, nina, page):
    if page != "/sign-in/":
        client.force_login(nina)
    fields = re.findall(r"<input[^>]*password[^>]*>", client.get(page).text)
    assert fields
    assert all('type="password"' in field for field in fields)


def test_a_new_password_is_told_by_mail_to_whoever_has_an_address(client, nina, mailoutbox):
    client.force_login(nina)
    change(client, "four plain words together")
    assert mailoutbox == []
    nina.email = "nina@ops.example"
    nina.save(update_fields=["email"])
    change(client, "five plain words all together", old="four plain words together")
    [mail] = mailoutbox
    assert mail.to == ["nina@ops.example"]
    assert "password" in mail.body
    assert "five plain words" not in mail.body


def test_a_mail_server_that_is_away_keeps_nobody_from_a_new_password(client, nina, settings):
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", 9
    nina.email = "nina@ops.example"
    nina.save(update_fields=["email"])
    client.force_login(nina)
    assert change(client, "four plain words together").headers["Location"] == "/account/"
    nina.refresh_from_db()
    assert nina.check_password("four plain words together")


def test_a_password_is_stored_under_argon2id_only(client, nina):
    assert [name.rpartition(".")[2] for name in settings.PASSWORD_HASHERS] == ["Argon2PasswordHasher"]
    client.force_login(nina)
    change(client, "four plain words together")
    nina.refresh_from_db()
    assert nina.check_password("four plain words together")
    assert nina.password.startswith("argon2$argon2id$v=19$")


def test_the_present_password_is_asked_for_and_not_to_be_guessed(client, nina):
    client.force_login(nina)
    answers = [change(client, "four plain words together", old=f"guess number {n}") for n in range(7)]
    assert answers[0].status_code == 200
    assert answers[-1].status_code == 429


@pytest.mark.bad_input("FM15")
def test_nobody_makes_an_account_or_resets_a_password_by_themselves(client):
    for address in ("/signup/", "/account/signup/", "/account/password/reset/", "/account/email/"):
        assert client.get(address).status_code == 404
