"""The upgrade of SCS and Message Server as a run: one text for both, alone or in a pair."""

import pytest

from tests.domain.site import SHIPPED, Site, pair, server
from upgrades.domain.condition import holds
from upgrades.domain.refusal import GateClosed
from upgrades.domain.run_state import RunStatus

NO_SCHEMA = {"log-schema": False}
KINDS = ("SCS", "MessageServer")
STEPS = ("shut-down", "export-options", "template", "install-version", "start-up")


def of_pair(kind="MessageServer", **facts):
    return Site(
        "management-layer", pair("a", "b", ("one", "two"), kind), {"server": "a"}, **NO_SCHEMA | facts
    )


def alone(kind="MessageServer", **facts):
    return Site(
        "management-layer", [server("a", "one", kind, mode="primary")], {"server": "a"}, **NO_SCHEMA | facts
    )


def gates(site):
    return {gate.id for gate, _ in site.open_gates()}


def notices(site):
    return {
        source
        for notice in site.step.notices
        if notice.when is None or holds(notice.when, site.state.facts)
        for source in notice.source
    }


@pytest.mark.requirement("ML-P1")
def test_nothing_is_shut_down_before_the_packages_are_there():
    site = alone()
    with pytest.raises(GateClosed, match="packages"):
        site.complete()


@pytest.mark.requirement("ML-1")
@pytest.mark.requirement("ML-7")
@pytest.mark.parametrize("kind", KINDS)
def test_of_a_pair_the_backup_goes_through_all_steps_and_then_the_primary(kind):
    site = of_pair(kind).finish()
    assert site.done()[1:] == [f"{step}--{name}" for name in ("b", "a") for step in STEPS]
    assert (site.state.facts["server.version"], site.state.facts["app--b.version"]) == ("8.5.101", "8.5.101")
    assert (site.state.facts["server.mode"], site.state.facts["app--b.mode"]) == ("backup", "primary")


@pytest.mark.requirement("ML-1")
@pytest.mark.parametrize("kind", KINDS)
def test_a_server_alone_has_the_same_steps_once(kind):
    site = alone(kind).finish()
    assert site.done()[1:] == [f"{step}--a" for step in STEPS]
    assert (site.state.status, site.state.facts["server.mode"]) == (RunStatus.ENDED, "primary")


@pytest.mark.requirement("ML-1")
def test_a_server_counts_as_shut_down_when_its_process_is_gone():
    site = alone().go_to("shut-down--a")
    site.probe("stopped", "failed")
    with pytest.raises(GateClosed):
        site.complete()


@pytest.mark.requirement("ML-7")
@pytest.mark.parametrize("missing", ["peer-runs", "peer-primary"])
def test_the_upgraded_one_is_primary_before_the_other_is_replaced(missing):
    site = of_pair().go_to("shut-down--a")
    site.probe("stopped")
    if missing != "peer-runs":
        site.probe("peer-runs")
    if missing != "peer-primary":
        site.confirm("peer-primary")
    with pytest.raises(GateClosed, match="b "):
        site.complete()


@pytest.mark.requirement("ML-2")
def test_without_the_exported_options_nothing_is_installed():
    site = of_pair().go_to("export-options--b")
    with pytest.raises(GateClosed):
        site.complete()
    site.deviate("skip")
    site.go_to("install-version--b")
    with pytest.raises(GateClosed, match="No way back"):
        site.begin()


@pytest.mark.requirement("ML-3")
@pytest.mark.parametrize("missing", ["associated", "options-taken"])
def test_the_template_is_associated_and_its_new_options_are_taken_over(missing):
    site = alone().go_to("template--a")
    for gate in ("associated", "options-taken"):
        if gate != missing:
            site.confirm(gate)
    with pytest.raises(GateClosed):
        site.complete()


@pytest.mark.requirement("ML-4")
def test_the_new_version_has_the_name_of_the_object_that_is_there():
    site = alone().go_to("install-version--a")
    assert "`{server.name}`" in site.step.do[0]
    site.begin()
    with pytest.raises(GateClosed, match="installed"):
        site.complete()


@pytest.mark.requirement("ML-N1")
def test_a_server_that_was_started_again_meanwhile_keeps_the_step_shut():
    site = alone().go_to("shut-down--a")
    assert "ML-N1" in notices(site)
    site.go_to("install-version--a")
    site.begin()
    site.confirm("installed")
    site.probe("still-stopped", "failed")
    with pytest.raises(GateClosed, match="still down"):
        site.complete()


@pytest.mark.requirement("ML-5")
@pytest.mark.parametrize(
    ("kind", "asked", "there"),
    [
        ("MessageServer", True, True),
        ("MessageServer", False, False),
        ("SCS", True, False),
        ("SCS", False, False),
    ],
)
def test_the_log_database_is_only_for_a_message_server_whose_version_asks_for_it(kind, asked, there):
    site = alone(kind, **{"log-schema": asked}).finish()
    assert ("log-schema--a" in site.done()) is there


@pytest.mark.requirement("ML-5")
def test_the_log_database_of_a_pair_is_brought_to_the_new_schema_once():
    site = of_pair(**{"log-schema": True}).finish()
    assert [step for step in site.done() if step.startswith("log-schema")] == ["log-schema--b"]
    assert [event.step for event in site.events_of("step.skipped")] == ["log-schema--a"]


@pytest.mark.requirement("ML-6")
@pytest.mark.parametrize("name", ["a", "b"])
def test_an_upgraded_server_of_a_pair_comes_up_as_backup(name):
    site = of_pair().go_to(f"start-up--{name}")
    assert gates(site) == {"running", "backup"}
    site.probe("running")
    with pytest.raises(GateClosed, match="is backup of"):
        site.complete()


@pytest.mark.requirement("ML-N2")
@pytest.mark.requirement("ML-N3")
@pytest.mark.parametrize(
    ("site", "how", "gate"),
    [
        (lambda: alone("SCS"), "ML-N3", "console-connected"),
        (lambda: alone("MessageServer"), "ML-N2", "serves"),
        (lambda: of_pair("SCS"), "ML-N2", "backup"),
        (lambda: of_pair("MessageServer"), "ML-N2", "backup"),
    ],
)
def test_only_a_single_scs_is_started_by_hand_and_seen_by_the_console(site, how, gate):
    site = site()
    site.go_to(next(step.id for step in site.procedure.steps if step.copy_of == "start-up"))
    assert notices(site) == {how}
    assert gates(site) == {"running", gate}
    site.probe("running")
    with pytest.raises(GateClosed):
        site.complete()


@pytest.mark.requirement("ML-L")
def test_each_server_is_of_limited_use_from_its_end_to_its_start():
    site = of_pair().finish()
    told = [
        (item.event.kind, item.event.exposure, item.event.step)
        for item in site.history
        if item.event.kind.startswith("exposure.")
    ]
    assert told == [
        (f"exposure.{what}", f"limited--{name}", f"{step}--{name}")
        for name in ("b", "a")
        for what, step in (("opened", "shut-down"), ("closed", "start-up"))
    ]
    assert SHIPPED["management-layer"].exposure("limited").maximum == 3600


def test_a_server_beyond_the_target_is_not_upgraded():
    site = alone(target="8.5.99")
    site.confirm("packages-delivered")
    with pytest.raises(GateClosed, match="target"):
        site.complete()
