"""API tokens on the pages: made with a fresh proof, shown once, on the register, revoked by their owner or an administrator."""

import re
from datetime import timedelta
from uuid import uuid4

import pytest
from django.utils import timezone

from tests.factories import make_environment, make_user, show_who
from upgrades.adapters import register
from upgrades.models import ApiToken, RegisterEntry
from upgrades.services import tokens

pytestmark = pytest.mark.django_db
FORM = {"purpose": "night dashboard", "scopes": ["read", "operate"], "environment": "", "days": "30"}


@pytest.fixture
def environment():
    return make_environment()


@pytest.fixture
def operator(environment, client):
    user = make_user("operator", environment=environment, first_name="Olga")
    client.force_login(user)
    return user


def send(client, **changes):
    return client.post("/account/tokens/", {**FORM, "command_id": uuid4(), **changes})


def make(client, user, **changes):
    show_who(client, user)
    answer = send(client, **changes)
    assert answer.status_code == 200, answer.text
    return re.search(r"rbk_[0-9a-f]{8}_[\w-]{43}", answer.text)[0]


def entries(environment):
    rows = RegisterEntry.objects.filter(book=register.access_book(environment.pk), kind__startswith="token.")
    return [register.read(row) for row in rows.order_by("number")]


def test_a_token_is_shown_once_and_only_its_hash_is_stored(client, operator):
    text = make(client, operator)
    assert tokens.caller_of(text).user == operator
    row = ApiToken.objects.get()
    stored = " ".join(str(value) for value in vars(row).values())
    assert text.rpartition("_")[2] not in stored
    assert text not in client.get("/account/tokens/").text
    assert f"rbk_{row.public_id}_…" in client.get("/account/tokens/").text


def test_without_a_fresh_proof_none_is_made_and_its_person_is_asked_who_they_are(client, operator):
    answer = send(client)
    assert answer.status_code == 303
    assert "/account/confirm/" in answer.headers["Location"]
    assert not ApiToken.objects.exists()


def test_the_same_form_sent_twice_makes_one_and_shows_none_the_second_time(client, operator):
    command_id = uuid4()
    text = make(client, operator, command_id=command_id)
    again = send(client, command_id=command_id)
    assert (again.status_code, ApiToken.objects.count()) == (200, 1)
    assert text not in again.text
    assert "was sent before" in again.text


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"purpose": "  "}, "Say what it is for."),
        ({"scopes": []}, "at least one"),
        ({"scopes": ["approve"]}, "Select a valid choice"),
        ({"days": "366"}, "less than or equal to 365"),
        ({"days": "0"}, "greater than or equal to 1"),
        ({"environment": "999999"}, "Select a valid choice"),
    ],
)
def test_what_cannot_be_is_said_beside_its_field(client, operator, changes, told):
    show_who(client, operator)
    answer = send(client, **changes)
    assert answer.status_code == 400
    assert told in answer.text
    assert not ApiToken.objects.exists()


def test_nobody_without_a_role_has_tokens(client):
    user = make_user()
    client.force_login(user)
    show_who(client, user)
    answer = send(client)
    assert answer.status_code == 400
    assert "no role" in answer.text


def test_a_token_for_another_environment_than_ones_own_is_not_offered(client, operator):
    elsewhere = make_environment("Lab · Berlin")
    show_who(client, operator)
    assert send(client, environment=elsewhere.pk).status_code == 400


def test_making_and_revoking_stand_in_the_register(client, environment, operator):
    text = make(client, operator)
    row = ApiToken.objects.get()
    answer = client.post(f"/account/tokens/{row.pk}/revoke/")
    assert answer.status_code == 303
    made, revoked = entries(environment)
    assert (made.kind, revoked.kind) == ("token.created", "token.revoked")
    assert made.by.id == revoked.by.id == f"user:{operator.pk}"
    assert made.body["token"] == row.public_id
    assert made.body["scopes"] == ["read", "operate"]
    assert tokens.caller_of(text) is None


def test_the_access_review_tells_of_tokens(client, environment, operator):
    make(client, operator)
    auditor = make_user("auditor", environment=environment)
    client.force_login(auditor)
    page = client.get("/audit/access/").text
    assert "API token made" in page
    assert "night dashboard" in page


def test_an_administrator_sees_and_revokes_the_tokens_that_reach_the_environment(
    client, environment, operator
):
    text = make(client, operator)
    administrator = make_user("administrator", environment=environment, first_name="Ada")
    client.force_login(administrator)
    page = f"/environments/{environment.pk}/tokens/"
    assert "night dashboard" in client.get(page).text
    answer = client.post(page, {"token": ApiToken.objects.get().pk})
    assert answer.status_code == 303
    assert tokens.caller_of(text) is None
    assert entries(environment)[-1].by.name == "Ada"


def test_an_administrator_elsewhere_neither_sees_nor_revokes_them(client, environment, operator):
    text = make(client, operator)
    elsewhere = make_environment("Lab · Berlin")
    client.force_login(make_user("administrator", environment=elsewhere))
    page = f"/environments/{elsewhere.pk}/tokens/"
    assert "night dashboard" not in client.get(page).text
    assert client.post(page, {"token": ApiToken.objects.get().pk}).status_code == 404
    assert tokens.caller_of(text) is not None


def test_nobody_revokes_the_token_of_another_person_under_their_own_account(client, environment, operator):
    make(client, operator)
    client.force_login(make_user("operator", environment=environment))
    assert client.post(f"/account/tokens/{ApiToken.objects.get().pk}/revoke/").status_code == 404
    assert ApiToken.objects.get().revoked_at is None


def test_a_token_ends_with_its_time_and_with_its_owners_account(client, operator):
    text = make(client, operator)
    ApiToken.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert tokens.caller_of(text) is None
    ApiToken.objects.update(expires_at=timezone.now() + timedelta(days=1))
    assert tokens.caller_of(text) is not None
    type(operator).objects.filter(pk=operator.pk).update(is_active=False)
    assert tokens.caller_of(text) is None


def test_there_is_a_limit_to_how_many_a_person_has(client, operator, monkeypatch):
    monkeypatch.setattr(tokens, "MOST", 1)
    make(client, operator)
    show_who(client, operator)
    answer = send(client)
    assert answer.status_code == 409
    assert ApiToken.objects.count() == 1
