"""The upgrade of Local Control Agents as a run: gates per host, the countdown, and the option that must not stay."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.domain.scene import ANNA, BOTH, OLGA, OTTO, REASON
from tests.domain.site import SHIPPED, Site, agents, pair, server
from upgrades.domain import run, run_events
from upgrades.domain.exposure import limit_of, marks_due
from upgrades.domain.refusal import BadInput, GateClosed, NotAllowed, OutOfTurn
from upgrades.domain.run_state import RunStatus, fold

OPTION = "disconnect-switchover-timeout"
TIMEOUT = {OPTION: "600"}


def plain(*hosts, **facts):
    """Hosts without SCS; the one that controls them stands on a host that is upgraded already."""
    servers = [*agents(*(hosts or ("one",))), server("scs", "control"), *agents("control", version="8.5.101")]
    return Site("lca", servers, **{**TIMEOUT, **facts})


def with_pair():
    servers = [*agents("one", "two"), *pair("scs_1", "scs_2", ("one", "two"))]
    return Site("lca", servers, **TIMEOUT)


def single():
    return Site("lca", [*agents("one"), server("scs", "one")], **TIMEOUT)


def open_exposures(site):
    return sorted(name for name in site.state.burdens if name.startswith("exposure:"))


def after(site, seconds):
    """What is due to be told so many seconds after the only open exposure began."""
    (burden,) = [item for item in site.state.burdens.values() if item.id.startswith("exposure:")]
    due = list(marks_due(site.procedure, site.state, burden.since + timedelta(seconds=seconds)))
    site.report(*due)
    return [(mark.percent, mark.limit) for mark in due]


# What must be so before.


@pytest.mark.requirement("LCA-P1")
@pytest.mark.requirement("LCA-P3")
@pytest.mark.parametrize("missing", ["running", "no-alarm"])
def test_no_agent_is_stopped_before_it_was_seen_to_run_and_its_host_to_be_quiet(missing):
    site = plain().go_to("stop-lca--one")
    if missing != "running":
        site.probe("running")
    if missing != "no-alarm":
        site.confirm("no-alarm")
    with pytest.raises(GateClosed):
        site.begin()


@pytest.mark.requirement("LCA-P1")
def test_an_agent_that_does_not_run_keeps_its_step_shut():
    site = plain().go_to("stop-lca--one")
    site.confirm("no-alarm")
    site.probe("running", "failed")
    with pytest.raises(GateClosed, match="is failed"):
        site.begin()


@pytest.mark.requirement("LCA-P2")
@pytest.mark.requirement("LCA-P4")
@pytest.mark.parametrize("missing", ["scs-connected", "packages-delivered", "former-packages"])
def test_nothing_begins_without_packages_and_a_connected_scs(missing):
    site = plain()
    for gate in ("scs-connected", "packages-delivered"):
        if gate != missing:
            site.confirm(gate)
    if missing != "former-packages":
        site.attach("former-packages")
    with pytest.raises(GateClosed):
        site.complete()


@pytest.mark.requirement("LCA-P2")
@pytest.mark.parametrize("current", [False, None])
def test_an_older_scs_or_one_of_which_nobody_knows_the_version_keeps_the_run_shut(current):
    site = plain(**{"environment.scs-current": current})
    site.confirm("scs-connected")
    site.confirm("packages-delivered")
    site.attach("former-packages")
    with pytest.raises(GateClosed, match="Solution Control Server"):
        site.complete()


# The option.


@pytest.mark.requirement("LCA-1")
def test_the_option_is_set_in_every_scs_with_the_value_of_the_run():
    site = with_pair().go_to("set-option--scs-1")
    assert "{disconnect-switchover-timeout}" in site.step.do[0]
    site.satisfy()
    assert site.state.current == "set-option--scs-2"


@pytest.mark.requirement("LCA-5")
def test_the_option_is_owed_from_the_moment_one_begins_to_set_it():
    site = with_pair().go_to("set-option--scs-1")
    assert "duty:remove-option--scs-1" in site.state.burdens
    assert "scs_1" in site.state.burdens["duty:remove-option--scs-1"].title


@pytest.mark.requirement("LCA-5")
def test_only_the_step_that_deletes_the_option_ends_the_duty():
    site = with_pair().go_to("remove-option--scs-1")
    assert {"duty:remove-option--scs-1", "duty:remove-option--scs-2"} <= set(site.state.burdens)
    site.satisfy()
    assert [event.duty for event in site.events_of("duty.done")] == ["remove-option--scs-1"]
    site.satisfy()
    assert site.state.burdens == {}
    assert (site.state.status, site.state.ending) == (RunStatus.ENDED, "completed")


@pytest.mark.requirement("LCA-5")
def test_a_run_that_skips_the_deletion_does_not_end_before_somebody_answers_for_it():
    site = plain().go_to("remove-option--scs")
    site.deviate("skip")
    assert site.state.status is RunStatus.CLOSING
    site.act(run.TakeOver(burden="duty:remove-option--scs", reason=REASON), ANNA)
    assert site.state.status is RunStatus.ENDED
    assert site.state.burdens["duty:remove-option--scs"].owner == ANNA


@pytest.mark.requirement("LCA-5")
def test_a_run_cannot_be_aborted_while_the_option_stands_and_nobody_took_it_over():
    site = plain().go_to("stop-lca--one")
    with pytest.raises(GateClosed, match="remove-option"):
        site.act(run.Abort(reason=REASON))
    with pytest.raises(NotAllowed):
        site.act(run.TakeOver(burden="duty:remove-option--scs", reason=REASON), OLGA)
    site.act(run.TakeOver(burden="duty:remove-option--scs", reason=REASON), ANNA)
    site.act(run.Abort(reason=REASON))
    assert site.state.status is RunStatus.ABORTED
    assert "duty:remove-option--scs" in site.state.burdens
    with pytest.raises(NotAllowed):
        site.act(run.CloseBurden(burden="duty:remove-option--scs", text="deleted"), OTTO)
    site.act(run.CloseBurden(burden="duty:remove-option--scs", text="deleted in the console"), ANNA)
    assert site.state.burdens == {}


# Host by host.


@pytest.mark.requirement("LCA-2")
def test_the_agent_of_one_host_is_back_before_the_next_is_stopped():
    site = plain("one", "two", "three").finish()
    told = [
        (event.kind.split(".")[1], event.exposure)
        for event in (item.event for item in site.history)
        if event.kind.startswith("exposure.")
    ]
    assert told == [
        (what, f"lca-down--{host}") for host in ("one", "three", "two") for what in ("opened", "closed")
    ]


@pytest.mark.requirement("LCA-2a")
def test_a_single_scs_is_down_before_the_agent_beside_it_is_touched():
    site = single().go_to("stop-scs--one")
    site.probe("stopped", "failed")
    with pytest.raises(GateClosed):
        site.complete()
    site.probe("stopped")
    site.complete()
    assert site.state.current == "stop-lca--one"


@pytest.mark.requirement("LCA-2b")
def test_while_a_single_scs_is_down_there_is_no_management_and_one_starts_it_on_its_host():
    site = single().go_to("stop-lca--one")
    assert open_exposures(site) == ["exposure:no-management--one"]
    site.go_to("start-scs--one")
    site.probe("running")
    with pytest.raises(GateClosed, match="back in control"):
        site.complete()
    assert "exposure:no-management--one" in site.state.burdens
    site.confirm("control-back")
    site.complete()
    assert open_exposures(site) == []


@pytest.mark.requirement("LCA-3a")
@pytest.mark.requirement("LCA-4a")
@pytest.mark.parametrize("host", ["one", "two"])
@pytest.mark.parametrize("missing", ["stopped", "peer-runs", "peer-primary"])
def test_of_a_pair_the_other_scs_is_primary_before_the_agent_is_touched(host, missing):
    site = with_pair().go_to(f"stop-scs--{host}")
    for gate in ("stopped", "peer-runs"):
        if gate != missing:
            site.probe(gate)
    if missing != "peer-primary":
        site.confirm("peer-primary")
    with pytest.raises(GateClosed):
        site.complete()


@pytest.mark.requirement("LCA-3b")
@pytest.mark.requirement("LCA-4b")
def test_the_hosts_of_the_pair_have_the_same_steps_primary_first():
    site = with_pair().finish()
    assert site.done()[3:-2] == [
        f"{step}--{host}"
        for host in ("one", "two")
        for step in ("stop-scs", "stop-lca", "install-lca", "start-scs", "check-host")
    ]
    assert site.state.facts["app--lca-one.version"] == "8.5.101"
    assert site.state.facts["app--lca-two.version"] == "8.5.101"


@pytest.mark.requirement("LCA-3c")
@pytest.mark.requirement("LCA-4c")
@pytest.mark.parametrize("host", ["one", "two"])
def test_an_scs_of_the_pair_comes_back_as_backup(host):
    site = with_pair().go_to(f"start-scs--{host}")
    site.probe("running")
    with pytest.raises(GateClosed, match="is backup"):
        site.complete()
    site.confirm("backup")
    site.complete()
    scs = {"one": "scs-1", "two": "scs-2"}[host]
    assert site.state.facts[f"app--{scs}.mode"] == "backup"


@pytest.mark.requirement("LCA-4a")
def test_after_both_hosts_the_former_primary_is_primary_again():
    facts = with_pair().finish().state.facts
    assert (facts["app--scs-1.mode"], facts["app--scs-2.mode"]) == ("primary", "backup")


# The countdown.


@pytest.mark.requirement("LCA-L")
def test_the_countdown_begins_when_the_agent_was_seen_to_be_down_and_ends_with_the_new_one():
    site = plain().go_to("stop-lca--one")
    site.satisfy()
    assert site.state.current == "install-lca--one"
    assert open_exposures(site) == ["exposure:lca-down--one"]
    site.probe("running")
    assert open_exposures(site) == ["exposure:lca-down--one"], "whatever runs there is not yet the new one"
    site.confirm("version")
    assert open_exposures(site) == []


@pytest.mark.requirement("LCA-W")
def test_the_limit_of_a_host_is_the_value_of_the_option():
    site = plain(**{OPTION: "300"})
    assert limit_of(site.procedure.exposure("lca-down--one"), site.state.facts) == 300


@pytest.mark.requirement("LCA-W")
def test_a_warning_comes_at_eighty_per_cent_and_a_mark_at_the_end_each_once():
    site = plain().go_to("install-lca--one")
    assert after(site, 479) == []
    assert after(site, 480) == [(80, 600)]
    assert after(site, 599) == []
    assert after(site, 3000) == [(100, 600)]
    assert after(site, 9000) == []
    assert [event.passed for event in site.events_of("exposure.mark")] == [480, 3000]


@pytest.mark.requirement("LCA-W")
def test_each_host_has_a_countdown_of_its_own():
    site = plain("one", "two").go_to("install-lca--one")
    assert after(site, 700) == [(80, 600), (100, 600)]
    site.go_to("install-lca--two")
    assert after(site, 100) == []
    assert after(site, 500) == [(80, 600)]


@pytest.mark.requirement("LCA-W")
def test_after_a_host_somebody_looks_whether_anything_was_switched_over_wrongly():
    site = plain().go_to("check-host--one")
    site.confirm("connected")
    with pytest.raises(GateClosed, match="switched over wrongly"):
        site.complete()


@pytest.mark.requirement("LCA-W")
@given(st.integers(1, 86_400), st.lists(st.integers(0, 200_000), max_size=12))
def test_however_often_a_worker_looks_each_mark_is_told_once_and_never_early(limit, looks):
    site = plain(**{OPTION: str(limit)}).go_to("install-lca--one")
    looks = sorted(looks)
    for seconds in looks:
        after(site, seconds)
    told = {event.percent: event.passed for event in site.events_of("exposure.mark")}
    assert len(told) == len(site.events_of("exposure.mark"))
    assert set(told) == {percent for percent in (80, 100) if looks and looks[-1] * 100 >= limit * percent}
    assert all(passed * 100 >= limit * percent for percent, passed in told.items())


# A value corrected.


@pytest.mark.requirement("LCA-W")
def test_the_countdown_follows_when_a_second_person_signs_another_value():
    site = plain().go_to("install-lca--one")
    assert after(site, 490) == [(80, 600)]
    site.act(run.CorrectFact(name=OPTION, value="1200", reason=REASON))
    assert limit_of(site.procedure.exposure("lca-down--one"), site.state.facts) == 600, "not signed yet"
    site.act(run.SignDeviation(number=1), ANNA)
    assert after(site, 700) == []
    assert after(site, 960) == [(80, 1200)]
    site.act(run.CorrectFact(name=OPTION, value="300", reason=REASON))
    site.act(run.SignDeviation(number=2), ANNA)
    assert after(site, 961) == [(80, 300), (100, 300)]


def test_whoever_worked_on_the_run_does_not_sign_the_correction():
    site = plain().go_to("install-lca--one")
    site.act(run.CorrectFact(name=OPTION, value="1200", reason=REASON), BOTH)
    for person in (OLGA, BOTH):
        with pytest.raises(NotAllowed):
            site.act(run.SignDeviation(number=1), person)
    assert site.state.facts[OPTION] == "600"


def test_a_correction_may_be_signed_when_the_run_has_gone_on():
    site = plain().go_to("install-lca--one")
    site.act(run.CorrectFact(name=OPTION, value="1200", reason=REASON))
    site.go_to("check-host--one")
    site.act(run.SignDeviation(number=1), ANNA)
    assert site.state.facts[OPTION] == "1200"


def test_a_correction_that_is_rejected_changes_nothing():
    site = plain().go_to("install-lca--one")
    site.act(run.CorrectFact(name=OPTION, value="1200", reason=REASON))
    site.act(run.RejectDeviation(number=1, reason="six hundred are enough"), ANNA)
    assert site.state.facts[OPTION] == "600"
    with pytest.raises(OutOfTurn):
        site.act(run.SignDeviation(number=1), ANNA)


@pytest.mark.parametrize("value", ["0", "-5", "ten", "86401", "1e3", "６００", "", "99999999999999999999"])
def test_a_value_that_is_no_length_is_refused(value):
    with pytest.raises(BadInput):
        plain().act(run.CorrectFact(name=OPTION, value=value, reason=REASON))


@pytest.mark.parametrize(("name", "value"), [("app--lca-one.version", "9"), (OPTION, "600"), ("x", "1")])
def test_only_an_answer_of_the_dialog_can_be_corrected_and_only_to_another_one(name, value):
    with pytest.raises(BadInput):
        plain().act(run.CorrectFact(name=name, value=value, reason=REASON))


# The record.


def test_the_whole_run_loads_again_from_its_events():
    site = with_pair().go_to("install-lca--one")
    after(site, 1000)
    site.finish()
    stored = [(item.event.kind, run_events.to_body(item.event)) for item in site.history]
    loaded = [
        run_events.Recorded(item.seq, item.at, item.by, run_events.from_body(kind, body))
        for item, (kind, body) in zip(site.history, stored, strict=True)
    ]
    assert fold(loaded) == site.state


@pytest.mark.requirement("LCA-L")
def test_the_page_of_the_procedure_tells_what_is_weaker_and_how_long():
    kind = SHIPPED["lca"].exposure("lca-down")
    assert (kind.maximum, kind.maximum_from) == (None, OPTION)
    assert {"LCA-L", "LCA-W"} <= set(kind.source)
