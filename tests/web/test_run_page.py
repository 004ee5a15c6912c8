"""The page of a run in every state that a run can be in."""

import pytest

from tests.web.run_scene import Stage, no_agents

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _no_agents(monkeypatch):
    no_agents(monkeypatch)


@pytest.fixture
def page(client):
    """The page of a run's stage as one of its people sees it, as text."""

    def show(stage, who=None, query=""):
        client.force_login(who or stage.operator)
        answer = client.get(f"/runs/{stage.run_id}/{query}")
        assert answer.status_code == 200
        return answer.content.decode()

    return show


def test_a_run_that_has_just_started_asks_for_the_first_confirmations(page):
    text = page(Stage())
    assert "Make sure that everything is ready" in text
    assert "Record the answer" in text
