"""Runs that go from host to host, as their pages show them: the order before, the countdown, a value corrected."""

import time
from uuid import uuid4

import pytest

from tests.factories import TARGETS, bind, make_environment, make_user, publish
from tests.services.night import REASON, Night
from upgrades.domain import run as core

pytestmark = pytest.mark.django_db

OPTION = "disconnect-switchover-timeout"
LCA_TARGETS = {**TARGETS, "LCA": "8.5.101"}


def lca_night(**parameters):
    return Night(procedure="lca", bindings={}, parameters={"target": "8.5.101", OPTION: "600", **parameters})


def page_of(client, night, person=None):
    client.force_login(person or night.operator)
    return client.get(f"/runs/{night.run}/")


def tiles(response):
    return {tile.label: tile for tile in response.context["page"].tiles}


# Before the start.


@pytest.fixture
def dialog(client):
    publish()
    environment = make_environment(targets=LCA_TARGETS)
    client.force_login(make_user("operator", environment=environment))

    def ask(procedure, **answers):
        address = f"/environments/{environment.pk}/start/{procedure}/"
        return client.get(address) if not answers else client.post(address, {"look": "1", **answers})

    ask.environment = environment  # type: ignore[attr-defined]
    return ask


@pytest.mark.requirement("LCA-2")
def test_the_dialog_shows_the_hosts_in_their_order_before_anything_begins(dialog):
    response = dialog("lca")
    groups = {group.title: group.members for group in response.context["dialog"].groups}
    assert [host for _, host in groups["Local Control Agent"]] == ["fra-cfg-01", "fra-cfg-02", "fra-scs-01"]
    assert groups["Solution Control Server"] == (("scs", "fra-scs-01"),)
    assert "lca_fra-cfg-01" in response.content.decode()


def test_the_dialog_shows_each_kind_of_exposure_once_with_the_answer_as_its_limit(dialog):
    exposures = {item.title: item for item in dialog("lca").context["dialog"].exposures}
    assert exposures["No LCA on …"].maximum == 600
    assert len(exposures) == 2


def test_the_dialog_says_why_the_hosts_cannot_be_told(dialog):
    response = dialog("lca", **{"parameter-target": "8.5.101", "parameter-hosts": "fra-cfg-77"})
    assert "no host fra-cfg-77" in response.content.decode()


def test_the_dialog_for_a_server_names_it_as_the_only_one(dialog):
    bound = bind(dialog.environment, server="messageserver")
    response = dialog("management-layer", **{"role-server": bound["server"], "parameter-target": "8.5.101"})
    (group,) = response.context["dialog"].groups
    assert group.members == (("messageserver", "fra-scs-01"),)


@pytest.mark.requirement("LCA-2")
def test_a_run_starts_from_the_dialog(client, dialog):
    answers = {
        "command_id": uuid4(),
        "kind": "live",
        "category": "normal",
        "parameter-target": "8.5.101",
        f"parameter-{OPTION}": "300",
    }
    address = f"/environments/{dialog.environment.pk}/start/lca/"
    response = client.post(address, {**answers, "parameter-hosts": "", "change": ""})
    assert response.status_code == 303, response.context["form"].errors
    assert client.get(response["Location"]).status_code == 200


# On the page of the run.


@pytest.mark.requirement("LCA-W")
def test_the_page_counts_down_to_the_end_of_the_option_value(client):
    night = lca_night().go_to("install-lca--fra-cfg-01")
    response = page_of(client, night)
    tile = tiles(response)["No LCA on fra-cfg-01"]
    since = night.state.burdens["exposure:lca-down--fra-cfg-01"].since
    assert (tile.until - since).total_seconds() == 600
    assert f'data-until="{tile.until.isoformat()}"' in response.content.decode()


@pytest.mark.requirement("LCA-W")
def test_the_tile_warns_when_less_than_a_fifth_is_left(client):
    night = lca_night(**{OPTION: "1"}).go_to("install-lca--fra-cfg-01")
    until = time.monotonic() + 30
    while night.kinds.count("exposure.mark") < 2 and time.monotonic() < until:
        night.advance()
    response = page_of(client, night)
    tile = tiles(response)["No LCA on fra-cfg-01"]
    assert (tile.state, "the time is over" in tile.note) == ("over", True)
    assert "100 %" in response.content.decode()


def test_hosts_that_are_behind_share_one_tile(client):
    night = lca_night().go_to("stop-lca--fra-cfg-02")
    shown = tiles(page_of(client, night))
    assert "over for 1 of 3" in shown["No LCA on …"].note
    assert not [label for label in shown if label.startswith("No LCA on fra")]


def test_the_page_lists_the_steps_by_host_and_shows_only_the_servers_of_this_one(client):
    night = lca_night().go_to("stop-lca--fra-cfg-01")
    page = page_of(client, night).context["page"]
    assert [phase.title for phase in page.phases if phase.title.startswith("Host")] == [
        "Host fra-cfg-01",
        "Host fra-cfg-02",
        "Host fra-scs-01",
    ]
    assert [pair.left.name for pair in page.pairs] == ["lca_fra-cfg-01"]


@pytest.mark.requirement("LCA-W")
def test_an_operator_asks_for_another_value_and_the_page_says_so(client):
    night = lca_night().go_to("install-lca--fra-cfg-01")
    client.force_login(night.operator)
    sent = {"command_id": uuid4(), "name": OPTION, "value": "1200", "reason": REASON}
    assert client.post(f"/runs/{night.run}/correct/", sent).status_code == 303
    page = page_of(client, night).context["page"]
    (deviation,) = page.open_deviations
    assert "1200" in deviation.what
    night.act(core.SignDeviation(number=1), by=night.approver)
    assert night.state.facts[OPTION] == "1200"


def test_a_value_that_cannot_be_used_keeps_what_was_typed(client):
    night = lca_night().go_to("install-lca--fra-cfg-01")
    client.force_login(night.operator)
    sent = {"command_id": uuid4(), "name": OPTION, "value": "ten minutes", "reason": REASON}
    response = client.post(f"/runs/{night.run}/correct/", sent)
    assert response.status_code == 400
    assert "ten minutes" in response.content.decode()


@pytest.mark.requirement("LCA-5")
def test_the_page_says_why_the_run_cannot_be_aborted_and_lists_the_duty(client):
    night = lca_night().go_to("stop-lca--fra-cfg-01")
    page = page_of(client, night).context["page"]
    assert (
        "remove-option" in page.may["abort"].why or "disconnect-switchover-timeout" in page.may["abort"].why
    )
    assert [row.title for row in page.burdens if row.kind == "duty"] == [
        "Delete disconnect-switchover-timeout from section [general] of scs"
    ]


@pytest.mark.requirement("LCA-5")
def test_the_environment_shows_what_an_aborted_run_left_behind(client):
    night = lca_night().go_to("stop-lca--fra-cfg-01")
    night.act(core.TakeOver(burden="duty:remove-option--scs", reason=REASON), by=night.approver)
    night.act(core.Abort(reason=REASON))
    client.force_login(night.operator)
    shown = client.get(f"/environments/{night.environment.pk}/").content.decode()
    assert "Delete disconnect-switchover-timeout" in shown
    assert "Anna" in shown
