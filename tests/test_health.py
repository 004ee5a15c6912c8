"""What a watcher sees: alive, ready, and what is missing."""

import pytest


def test_healthz_answers_without_any_store(client):
    answer = client.get("/healthz")
    assert (answer.status_code, answer.content) == (200, b"ok\n")


@pytest.mark.django_db
def test_readyz_tells_that_both_stores_answer_and_are_set_up_safely(client):
    answer = client.get("/readyz")
    assert answer.status_code == 200
    assert answer.json() == {
        "ready": True,
        "postgresql": {"ok": True, "warnings": []},
        "redis": {"ok": True, "warnings": []},
        "celery": {"ok": True, "warnings": []},
    }


@pytest.mark.django_db
def test_readyz_is_503_and_names_the_store_that_is_away(client, settings):
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["postgresql"]["ok"] is True
    assert answer.json()["redis"] == {
        "ok": False,
        "reason": "Redis does not answer (ConnectionError). Start it, or correct REDIS_URL.",
    }
