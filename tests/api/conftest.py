"""Runs and agents as the tests of the services have them."""

from tests.services.conftest import fake_agent, night, real_night  # noqa: F401 - fixtures
