"""Secrets that are planted wherever there can be one appear nowhere that somebody reads."""

import io
import json
import logging
import zipfile
from uuid import uuid4

import pytest
import redis
from django.conf import settings as project
from django.core import mail
from django.db import connection
from django.test import Client

from tests.factories import give, show_who
from tests.web.run_scene import Stage, no_agents
from tests.web.test_access import addresses, filled
from upgrades.models import Agent, RegisterEntry, RunEvent
from upgrades.services import agent_registration

pytestmark = pytest.mark.django_db

PASSWORD = "planted-password-of-a-person-41"
KEY = "5ec4e7" * 10 + "abcd"


@pytest.fixture(autouse=True)
def _no_agents(monkeypatch):
    no_agents(monkeypatch)


@pytest.fixture
def planted(settings):
    """What must not be seen, by what it is."""
    settings.EMAIL_HOST_PASSWORD = "planted-password-of-mail-42"
    settings.SOCIALACCOUNT_PROVIDERS = {
        "openid_connect": {
            "APPS": [
                {"provider_id": "provider", "name": "x", "client_id": "c", "secret": "planted-of-oidc-43"}
            ]
        }
    }
    return {
        "agent's key": KEY,
        "password": PASSWORD,
        "mail": settings.EMAIL_HOST_PASSWORD,
        "OpenID Connect": "planted-of-oidc-43",
        "SECRET_KEY": project.SECRET_KEY,
    }


def text_of(answer):
    body = b"".join(answer.streaming_content) if answer.streaming else answer.content
    for close in answer._resource_closers:
        close()
    if body[:2] == b"PK":
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            body = b"\n".join(archive.read(name) for name in archive.namelist() if not name.endswith(".pyz"))
    return body.decode("utf-8", "replace") + str(answer.headers)


def test_no_planted_secret_is_seen_anywhere(client, planted, caplog):
    caplog.set_level(logging.DEBUG)
    stage = Stage().reach("launch-new", begun=True)
    environment = stage.environment
    Agent.objects.filter(environment=environment).update(secret=KEY)
    everybody = stage.person("administrator", "Ada", "Admin")
    everybody.set_password(PASSWORD)
    everybody.save()
    give(everybody, environment, "operator", "approver")
    seen = {}
    for user in (everybody, stage.auditor):
        client.force_login(user)
        show_who(client, user)
        for name, pattern in addresses():
            if not pattern.startswith("metrics"):
                address = filled(pattern, environment, stage.run_id)
                seen[f"{user} {name}"] = text_of(client.get(address))
    anybody = Client()
    seen["a wrong password"] = text_of(anybody.post("/sign-in/", {"username": "x", "password": PASSWORD}))
    host = environment.hosts.first()
    tried = agent_registration.try_agent(environment_id=environment.pk, host_id=host.pk, by=everybody)
    seen["trying an agent"] = tried.text
    seen["log"] = caplog.text
    seen["record"] = "\n".join(RunEvent.objects.values_list("text", flat=True))
    seen["register"] = "\n".join(RegisterEntry.objects.values_list("text", flat=True))
    seen["mail"] = "\n".join(message.body for message in mail.outbox)
    with connection.cursor() as cursor:
        cursor.execute("SELECT coalesce(json_agg(a)::text, '') FROM upgrades_agent a")
        seen["the table of agents"] = cursor.fetchone()[0]
    with redis.Redis.from_url(project.REDIS_URL) as store:
        seen["Redis"] = json.dumps([repr(store.dump(key)) for key in store.keys("*")])

    found = [
        (what, where) for what, secret in planted.items() for where, text in seen.items() if secret in text
    ]
    assert found == []
    assert len(seen) > 60


def test_a_failing_page_shows_none_either(stage_client, planted, monkeypatch):
    browser, stage = stage_client

    def fail(*_, **__):
        raise RuntimeError(f"with {KEY} and {PASSWORD}")

    monkeypatch.setattr("upgrades.web.runs.render", fail)
    answer = browser.get(f"/runs/{stage.run_id}/")

    assert answer.status_code == 500
    assert not [secret for secret in planted.values() if secret in answer.content.decode()]


@pytest.fixture
def stage_client():
    stage = Stage()
    browser = Client(raise_request_exception=False)
    browser.force_login(stage.operator)
    return browser, stage


def test_a_wrong_value_of_a_secret_field_does_not_come_back(client):
    """P11: an error of a form repeats what was typed, but not what was typed as a secret."""
    stage = Stage()
    admin = stage.person("administrator", "Ada", "Admin")
    client.force_login(admin)
    host = stage.environment.hosts.first()
    at = f"/environments/{stage.environment.pk}/edit/host/{host.pk}/agent/"
    key = "-----BEGIN PRIVATE KEY-----\nplanted-private-key\n-----END PRIVATE KEY-----"
    sent = {
        "do": "save",
        "command_id": uuid4(),
        "agent_id": "a",
        "url": "https://10.1.2.3:7101",
        "certificate": key,
    }
    answer = client.post(at, sent)

    assert answer.status_code == 400
    assert "planted-private-key" not in answer.content.decode()
    assert "This holds a private key" in answer.content.decode()
