"""Signing in and out."""

import pytest

from tests.factories import make_user

pytestmark = pytest.mark.django_db
PASSWORD = "quiet-night-in-frankfurt"


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
    "elsewhere", ["https://evil.example/", "//evil.example/", "javascript:alert(1)", r"/\evil"]
)
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
