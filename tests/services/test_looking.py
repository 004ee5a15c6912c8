"""Agents that no open run needs: a look every 15 seconds keeps the environment's page true."""

from datetime import UTC, datetime

import pytest
from django.utils import timezone

from tests.factories import make_environment
from upgrades.adapters.agent_client import ApplicationLogs, Health, Logs, Origin, Process
from upgrades.models import Agent, ProcessChange
from upgrades.services import agents

pytestmark = pytest.mark.django_db
ORIGIN = Origin("fra-cfg-01", "b" * 32, datetime(2026, 11, 24, tzinfo=UTC), 0.0)


@pytest.fixture
def agent():
    return Agent.objects.get(environment=make_environment(), host__name="fra-cfg-01")


def look(agent, state):
    logs = Logs(ORIGIN, {"confserv": ApplicationLogs(Process(state, "seen"), (), True, ())})
    return agents.take_look(agent.pk, Health(ORIGIN, "1.0", ("confserv",)), logs)


def test_a_process_that_went_away_shows_and_is_told_once(agent):
    look(agent, "up")
    assert look(agent, "up").environment is None
    assert look(agent, "down").environment == agent.environment_id
    assert look(agent, "down").environment is None
    confserv = agent.host.applications.get(name="confserv")
    assert confserv.process_state == "down"
    assert [change.state for change in ProcessChange.objects.filter(application=confserv)] == ["up", "down"]


def test_trouble_is_told_when_it_begins_and_when_it_ends(agent):
    look(agent, "up")
    assert agents.record_trouble(agent.pk, "no answer", at=timezone.now()).environment == agent.environment_id
    assert agents.record_trouble(agent.pk, "no answer", at=timezone.now()).environment is None
    assert look(agent, "up").environment == agent.environment_id
