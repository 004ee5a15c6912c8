"""Runs for tests of the services; after each test all of them are compared with their events."""

import pytest

from tests.agent.conftest import start_agent  # noqa: F401 - a fixture


def a_night(**changes):
    # Not before the stores run and Django is set up, which is after this file is read.
    from tests.services.night import Night, check_every_run

    yield Night(**changes)
    check_every_run()


@pytest.fixture
def night(db):
    """A run that has just started."""
    yield from a_night()


@pytest.fixture
def real_night(transactional_db):
    """The same with real transactions, for what depends on locks, threads or commits."""
    yield from a_night()


@pytest.fixture
def fake_agent():
    """An agent that answers what the test tells it to."""
    from tests.services.fake_agent import FakeAgent

    agent = FakeAgent()
    yield agent
    agent.close()


@pytest.fixture
def short_connections():
    """Threads of a polling loop close their connections with each piece of work: none is left for the tear-down."""
    from django.db import connection

    before = connection.settings_dict["CONN_MAX_AGE"]
    connection.settings_dict["CONN_MAX_AGE"] = 0
    yield
    connection.settings_dict["CONN_MAX_AGE"] = before
