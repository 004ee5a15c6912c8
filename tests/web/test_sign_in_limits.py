"""How often one may guess: counted for all processes together, however many try at once, and however a name is written."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

import pytest
from django.contrib.auth import hashers
from django.core.cache import cache
from django.db import connections
from django.test import Client

from tests.factories import make_user

PASSWORD = "quiet-night-in-frankfurt"
ALLOWED = 10


@pytest.fixture
def counted(monkeypatch):
    """How often each password was handed to the hasher. The hashing itself is left out: 200 of them take a minute."""
    count, lock = Counter(), Lock()

    def check(password, *_, **__):
        with lock:
            count[password] += 1
        return False, False

    monkeypatch.setattr(hashers, "verify_password", check)
    monkeypatch.setattr("django.contrib.auth.base_user.AbstractBaseUser.set_password", lambda *_: None)
    return count


def attempt(name="nina", password="wrong", address="192.0.2.1"):
    try:
        return Client(REMOTE_ADDR=address).post("/sign-in/", {"username": name, "password": password})
    finally:
        connections.close_all()


@pytest.mark.django_db(transaction=True)
@pytest.mark.bad_input("FM14")
def test_of_two_hundred_tries_at_once_no_more_than_ten_reach_the_hasher(counted):
    make_user(name="nina", password=PASSWORD)
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: attempt(), range(200)))
    assert {answer.status_code for answer in answers} == {200}
    assert 1 <= counted["wrong"] <= ALLOWED
    assert sum("too many wrong attempts" in answer.text for answer in answers) == 200 - counted["wrong"]


@pytest.mark.django_db
def test_every_spelling_of_a_name_counts_for_the_same_person(client, counted):
    make_user(name="nina", password=PASSWORD)
    for spelling in ("nina", "NINA", " Nina ", "Ｎｉｎａ", "nINA") * 4:
        client.post("/sign-in/", {"username": spelling, "password": "wrong"})
    assert counted["wrong"] == ALLOWED


@pytest.mark.django_db
def test_no_port_of_the_host_that_is_asked_gives_new_tries(client, counted):
    make_user(name="nina", password=PASSWORD)
    for port in range(1, 21):
        headers = {"Host": f"testserver:{port}"}
        client.post("/sign-in/", {"username": "nina", "password": "wrong"}, headers=headers)
    assert counted["wrong"] == ALLOWED


@pytest.mark.django_db
def test_names_that_do_not_exist_run_out_of_tries_like_those_that_do(client, counted):
    make_user(name="nina", password=PASSWORD)
    told = {}
    for name in ("nina", "nobody"):
        answers = [client.post("/sign-in/", {"username": name, "password": "wrong"}) for _ in range(12)]
        told[name] = ["too many" in answer.text for answer in answers]
    assert told["nina"] == told["nobody"] == [False] * 10 + [True] * 2


@pytest.mark.django_db
def test_no_guessing_at_one_name_shuts_out_another(client, counted):
    make_user(name="nina", password=PASSWORD)
    make_user(name="tomas", password=PASSWORD)
    for _ in range(15):
        client.post("/sign-in/", {"username": "nina", "password": "wrong"})
    answer = client.post("/sign-in/", {"username": "tomas", "password": "wrong"})
    assert "do not fit together" in answer.text


@pytest.mark.django_db
def test_the_address_is_the_one_that_our_own_proxy_saw(client, counted, settings):
    settings.ALLAUTH_TRUSTED_PROXY_COUNT = 1
    settings.ACCOUNT_RATE_LIMITS = {"login": "", "login_failed": "3/15m/ip"}
    for number in range(6):
        spoofed = f"203.0.113.{number}, 198.51.100.7"  # the last one is what the proxy added
        client.post(
            "/sign-in/",
            {"username": f"name-{number}", "password": f"wrong-{number}"},
            headers={"X-Forwarded-For": spoofed},
        )
    other = client.post(
        "/sign-in/",
        {"username": "name-9", "password": "wrong"},
        headers={"X-Forwarded-For": "198.51.100.7, 198.51.100.8"},
    )
    assert "do not fit together" in other.text
    answer = client.post(
        "/sign-in/", {"username": "x", "password": "wrong"}, headers={"X-Forwarded-For": "198.51.100.7"}
    )
    assert "too many wrong attempts" in answer.text


@pytest.mark.django_db
def test_the_right_password_does_not_count(client):
    make_user(name="nina", password=PASSWORD)
    for _ in range(ALLOWED + 2):
        assert client.post("/sign-in/", {"username": "nina", "password": PASSWORD}).status_code == 302
        client.post("/sign-out/")


# The table behind it.


@pytest.mark.django_db
def test_a_value_is_kept_until_its_time_is_over():
    cache.set("counter", [1.5, 2.5], 60)
    cache.set("gone", True, 0)
    assert cache.get("counter") == [1.5, 2.5]
    assert cache.get("gone", "nothing") == "nothing"
    assert cache.delete("counter")
    assert not cache.delete("counter")


@pytest.mark.django_db(transaction=True)
def test_of_any_number_who_add_at_once_one_is_first():
    def add(_):
        try:
            return cache.add("lock", True, 10)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(12) as pool:
        assert sum(pool.map(add, range(48))) == 1
    cache.clear()
    assert cache.add("lock", True, 0)
    assert cache.add("lock", True, 10)
