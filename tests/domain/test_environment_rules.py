"""The rules on an environment, each by its id: when they find something, and when the same is expected."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given

from tests.domain.landscape import OLD, pair, picture, pictures, server, whole
from upgrades.domain.environment import MASTER, PROXY, SCS, Host, OpenRun
from upgrades.domain.environment_rules import Breach, ScsReport, Watched, findings

NOW = datetime(2026, 3, 1, 2, 0, tzinfo=UTC)
LONG_AGO = NOW - timedelta(minutes=5)


def found(shown, rule, **more):
    return [one for one in findings(Watched(picture=shown, now=NOW, **more)) if one.rule == rule]


def run(*servers, at=()):
    return OpenRun(
        id=7, title="Upgrade", procedure="config-server-ha", servers=frozenset(servers), sources=frozenset(at)
    )


def changed(shown, name, **changes):
    return replace(
        shown, servers=tuple(replace(one, **changes) if one.name == name else one for one in shown.servers)
    )


def test_an_environment_that_has_not_begun_has_no_findings():
    assert findings(Watched(picture=whole(), now=NOW)) == ()


@pytest.mark.requirement("INT-2")
def test_int_2_different_versions_without_an_open_run():
    shown = changed(whole(), "proxy3", version="8.5.101")
    [finding] = found(shown, "INT-2")
    assert finding.tone == "stop"
    assert finding.text.startswith("8.5.101: proxy3; 8.1.300.20: confserv, confserv_b")
    assert not found(shown, "INT-2", open_runs=(run("confserv"),))


def test_int_2_between_two_runs_of_a_plan_it_says_to_go_on():
    [finding] = found(changed(whole(), "proxy3", version="8.5.101"), "INT-2", plan=3)
    assert (finding.tone, "plan 3" in finding.what_to_do) == ("wait", True)


def test_int_2_a_run_on_other_servers_is_no_migration():
    assert found(changed(whole(), "proxy3", version="8.5.101"), "INT-2", open_runs=(run("scs"),))


def test_cs_w2_a_pair_of_two_versions():
    shown = changed(whole(), "confserv_b", version="8.5.101")
    [finding] = found(shown, "CS-W2")
    assert finding.subject == "confserv + confserv_b"
    assert not found(shown, "CS-W2", open_runs=(run("confserv_b"),))


def test_cs_w2_versions_are_compared_as_numbers():
    shown = picture(*pair("confserv", MASTER, ("a", "b"), "8.5"))
    assert not found(changed(shown, "confserv_b", version="8.5.0"), "CS-W2")


def test_int_3_the_freeze_names_what_holds_it():
    shown = whole()
    for name in (
        "confserv",
        "confserv_b",
        "dr",
        "dr_b",
        "proxy1",
        "proxy1_b",
        "proxy2",
        "proxy2_b",
        "proxy3",
    ):
        shown = changed(shown, name, version="8.5.101")
    [finding] = found(shown, "INT-3")
    assert finding.text == f"Held by proxy4 ({OLD}, not 8.5.101 yet)."
    assert not found(changed(shown, "proxy4", version="8.5.101"), "INT-3")


@pytest.mark.parametrize(("single", "count"), [(True, 0), (False, 1), (None, 1)])
def test_int_1_a_proxy_newer_than_its_master(single, count):
    shown = changed(whole(single_language=single), "proxy3", version="8.5.101")
    assert len(found(shown, "INT-1")) == count


def test_int_6_license_reporting_manager_beside_a_new_master():
    assert not found(whole(uses_lrm=True), "INT-6")
    assert found(changed(whole(uses_lrm=True), "confserv", version="8.5.101"), "INT-6")


@pytest.mark.requirement("GEN-2")
@pytest.mark.parametrize(
    ("system", "version", "type_", "advised"),
    [
        pytest.param(
            "Windows Server", "2019", "Windows Server 2008", "Windows", id="Windows 2019 of an old type"
        ),
        pytest.param("Windows Server", "2016", "Windows", "", id="as advised"),
        pytest.param("Windows Server", "2012 R2", "Windows Server 2012", "", id="older Windows"),
        pytest.param("Windows Server", "", "Windows Server 2008", "", id="Windows of unknown version"),
        pytest.param("Ubuntu", "22.04", "Red Hat Enterprise Linux", "Linux", id="Ubuntu"),
        pytest.param("Oracle Linux", "9", "", "Linux", id="Oracle Linux without a type"),
        pytest.param("Red Hat Enterprise Linux", "9.4", "Red Hat Enterprise Linux", "", id="Red Hat"),
        pytest.param("Linux", "", "Red Hat Enterprise Linux", "", id="some Linux, perhaps Red Hat's"),
        pytest.param("Solaris", "11", "Solaris", "", id="something else"),
        pytest.param("", "", "", "", id="nothing known"),
    ],
)
def test_gen_2_host_types(system, version, type_, advised):
    shown = replace(picture(), hosts=(Host(name="a", host_type=type_, os_name=system, os_version=version),))
    assert [one.subject for one in found(shown, "GEN-2")] == ([f"Host type {advised}"] if advised else [])


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        pytest.param((), False, id="no run"),
        pytest.param((run("confserv", "confserv_b", at=["CSH-5"]),), False, id="one step earlier"),
        pytest.param((run("confserv", "confserv_b", at=["CSH-6", "CSH-6d"]),), True, id="CSH-6"),
        pytest.param((run("confserv", "confserv_b", at=["CSH-6b"]),), True, id="a part of CSH-6"),
        pytest.param((run("confserv", "confserv_b", at=["CSH-7"]),), True, id="CSH-7"),
        pytest.param((run("confserv", "confserv_b", at=["CSH-8"]),), False, id="one step later"),
        pytest.param((run("proxy1", at=["CSH-6"]),), False, id="a run on other servers"),
    ],
)
@pytest.mark.parametrize("mode", ["primary", "upgrade-mode"])
def test_two_primaries_are_normal_only_from_csh_6_to_csh_7(runs, expected, mode):
    shown = changed(whole(), "confserv_b", mode=mode)
    assert bool(found(shown, "two-primaries", open_runs=runs)) is not expected


@pytest.mark.parametrize("event", ["20621", "20622"])
def test_a_report_of_scs_that_lasts_counts_and_a_short_one_does_not(event):
    assert found(whole(), f"43-{event}", reports=(ScsReport("scs", event, LONG_AGO),))
    assert not found(whole(), f"43-{event}", reports=(ScsReport("scs", event, NOW - timedelta(seconds=2)),))


def test_two_primaries_reported_by_scs_are_normal_in_the_same_window():
    report = (ScsReport("scs", "20622", LONG_AGO),)
    at_six = (run("confserv", "confserv_b", at=["CSH-6"]),)
    at_five = (run("confserv", "confserv_b", at=["CSH-5"]),)
    assert not found(whole(), "43-20622", reports=report, open_runs=at_six)
    assert found(whole(), "43-20622", reports=report, open_runs=at_five)


@pytest.mark.parametrize("event", ["10327", "10329"])
def test_flapping_and_split_brain_count_at_once(event):
    [finding] = found(whole(), f"43-{event}", reports=(ScsReport("scs", event, NOW),))
    assert finding.sources == (f"43-{event}",)


def test_in_split_brain_what_scs_says_of_pairs_is_marked_as_unreliable():
    reports = (ScsReport("scs", "20622", LONG_AGO), ScsReport("scs", "10329", LONG_AGO))
    [finding] = found(whole(), "43-20622", reports=reports)
    assert "not reliable" in finding.text


@pytest.mark.parametrize(
    ("peer_process", "runs", "count"),
    [("down", (), 1), ("up", (), 0), ("unknown", (), 1), ("down", (run("scs_b"),), 0)],
)
def test_scs_without_a_backup(peer_process, runs, count):
    shown = changed(whole(), "scs_b", process=peer_process)
    assert len(found(shown, "43-10331", reports=(ScsReport("scs", "10331", NOW),), open_runs=runs)) == count


def test_scs_alone_has_no_backup():
    assert found(picture(server("scs", SCS, "a")), "43-10331", reports=(ScsReport("scs", "10331", NOW),))


@pytest.mark.parametrize(
    ("dormant", "active", "count"),
    [("up", "up", 1), ("down", "up", 0), ("up", "down", 0), ("unknown", "up", 0)],
)
def test_int_5_a_dormant_server_beside_an_active_one(dormant, active, count):
    shown = changed(whole(), "dr", process=dormant, mode="")
    shown = changed(changed(shown, "dr_b", process="down"), "confserv_b", process="down")
    assert len(found(changed(shown, "confserv", process=active), "INT-5")) == count


def test_int_5_the_dormant_server_that_a_run_works_on_may_be_started():
    shown = changed(changed(whole(), "dr", process="up"), "confserv", process="up")
    assert not [one for one in found(shown, "INT-5", open_runs=(run("dr"),)) if one.subject == "dr"]


def test_csh_3x_a_write_in_the_read_only_window_names_the_events():
    breach = Breach(7, "Upgrade", (("confserv", "24200", 1), ("confserv", "24201", 3)))
    [finding] = found(whole(), "CSH-3x", breaches=(breach,))
    assert finding.text.endswith("confserv: 1 object created; confserv: 3 objects changed.")
    assert finding.sources == ("CSH-3x", "21-24200", "21-24201")


def test_the_worst_comes_first():
    shown = changed(whole(uses_lrm=True), "confserv_b", version="8.5.101")
    shown = replace(shown, hosts=(*shown.hosts, Host(name="z", os_name="Ubuntu", host_type="x")))
    tones = [one.tone for one in findings(Watched(picture=shown, now=NOW))]
    assert tones == sorted(tones, key=["stop", "wait", "info"].index)


@given(pictures())
def test_of_one_rule_there_is_one_finding_per_subject(shown):
    keys = [(one.rule, one.subject) for one in findings(Watched(picture=shown, now=NOW))]
    assert len(keys) == len(set(keys))


@given(pictures())
def test_the_order_of_servers_does_not_change_what_is_found(shown):
    turned = replace(shown, servers=shown.servers[::-1], hosts=shown.hosts[::-1])
    assert findings(Watched(picture=shown, now=NOW)) == findings(Watched(picture=turned, now=NOW))


def test_proxies_of_the_same_version_as_their_master_are_in_order():
    shown = picture(server("confserv", MASTER, "a", "8.5.101"), server("p", PROXY, "b", "8.5.101"))
    assert findings(Watched(picture=shown, now=NOW)) == ()


@pytest.mark.parametrize("event", ["20621", "20622"])
def test_a_report_from_before_the_clock_was_set_back_still_stands(event):
    reports = (ScsReport("scs", event, NOW + timedelta(hours=1)),)
    assert found(whole(), f"43-{event}", reports=reports)
