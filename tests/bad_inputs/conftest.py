"""The runs, agents and stages of the other tests."""

import pytest

from tests.agent.conftest import start_agent  # noqa: F401 - a fixture
from tests.services.conftest import fake_agent, night  # noqa: F401 - fixtures


@pytest.fixture
def launching(night, fake_agent):  # noqa: F811 - the fixtures above
    """A run whose step `launch-new` has begun, its watermark behind what stood in the log before."""
    from tests.services.test_taking_news import BEFORE, FILE

    fake_agent.listed = {FILE: len(BEFORE)}
    fake_agent.stands_for(night.agent("new"))
    night.go_to("launch-new")
    return night
