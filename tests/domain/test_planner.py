"""The planner: what holds for any environment, and each rule by its id."""

from dataclasses import replace

import pytest
from hypothesis import given

from tests.domain.landscape import (
    ALL_PROCEDURES,
    OLD,
    TARGETS,
    pair,
    picture,
    pictures,
    server,
    whole,
)
from upgrades.domain.environment import (
    DB_SERVER,
    MASTER,
    MESSAGE_SERVER,
    PROXY,
    SCS,
    OpenRun,
    is_release,
    reaches,
)
from upgrades.domain.plan import Expectation
from upgrades.domain.planner import plan


def made(shown, **more):
    return plan(shown, procedures=ALL_PROCEDURES, **more)


def item(shown, key_part):
    """The one item of the plan whose key or title has this in it."""
    [found] = [item for item in made(shown).items if key_part in item.key or key_part in item.title]
    return found


def needed(shown, item):
    """Everything that must be done before `item`, through all steps between."""
    by_key = {one.key: one for one in made(shown).items}
    found, left = set(), [item.key]
    while left:
        for need in by_key[left.pop()].needs:
            if need.key not in found:
                found.add(need.key)
                left.append(need.key)
    return found


def sources(item):
    return {*item.sources, *(source for need in item.needs for source in need.sources)}


# What holds for any environment.


@given(pictures())
def test_every_outdated_component_appears_exactly_once_and_nothing_at_its_target_does(shown):
    planned = [
        (part.kind, part.name)
        for item in made(shown).items
        for part in item.parts
        if part.kind in ("server", "host")
    ]
    outdated = [
        ("server", one.name)
        for one in shown.servers
        if reaches(one.version, shown.targets.get(one.type, "")) is False
    ] + [
        ("host", one.name)
        for one in shown.hosts
        if reaches(one.lca_version, shown.targets.get("LCA", "")) is False
    ]
    assert sorted(planned) == sorted(outdated)


@given(pictures())
def test_what_nobody_knows_is_named_and_never_planned(shown):
    result = made(shown)
    unknown = {(part.kind, part.name) for part in result.unknown if part.kind != "database"}
    assert unknown == {
        ("server", one.name) for one in shown.servers if one.type in shown.targets and not one.version
    } | {("host", one.name) for one in shown.hosts if "LCA" in shown.targets and not one.lca_version}


@given(pictures())
def test_the_order_has_no_cycles_and_keys_name_one_item_each(shown):
    before = set()
    for one in made(shown).items:
        assert one.key not in before
        assert {need.key for need in one.needs} <= before
        assert not one.inside or one.inside in before
        before.add(one.key)


@given(pictures())
def test_masters_go_before_proxies_except_where_prx_1_allows_it(shown):
    items = made(shown).items
    masters = {one.key for one in items if one.stage == "master" and one.parts[0].kind == "server"}
    active = [one for one in shown.servers if one.type == MASTER and not one.dormant]
    exception = (
        shown.single_language is True
        and shown.targets.get(PROXY, "").startswith("8.5")
        and bool(active)
        and all(is_release(one.version, "8.1.3") for one in active)
    )
    for proxy in (one for one in items if one.stage == "proxy"):
        assert masters <= needed(shown, proxy) or (exception and "PRX-1" in proxy.sources)


@given(pictures())
def test_scs_goes_before_lca_and_both_before_configuration_servers(shown):
    items = made(shown).items
    scs = {one.key for one in items if one.stage == "scs"}
    for one in items:
        if one.stage in ("lca", "master", "proxy", "dormant") and (
            one.parts[0].kind != "database" or one.inside
        ):
            assert scs <= needed(shown, one)
        if one.stage in ("master", "proxy", "dormant") and one.parts[0].kind == "server":
            lca = {
                other.key
                for other in items
                if other.stage == "lca" and {part.name for part in other.parts} & one.hosts
            }
            assert lca <= needed(shown, one)


@given(pictures())
def test_what_may_run_side_by_side_neither_needs_each_other_nor_shares_a_host(shown):
    for stage in made(shown).stages:
        for one in stage.items:
            for other in stage.items:
                if one is not other and one.group and one.group == other.group:
                    assert other.key not in needed(shown, one)
                    assert not one.hosts & other.hosts


@given(pictures())
def test_the_same_picture_gives_the_same_plan(shown):
    turned = replace(
        shown,
        servers=shown.servers[::-1],
        hosts=shown.hosts[::-1],
        targets=dict(reversed(shown.targets.items())),
    )
    assert made(shown) == made(shown)
    assert [one.key for one in made(turned).items] == [one.key for one in made(shown).items]


@given(pictures())
def test_what_is_unknown_opens_nothing(shown):
    """CS-P3, CS-P2: with a version of SCS, or of the LCA on its hosts, unknown, no Configuration Server may begin."""
    hosts = {host.name: host for host in shown.hosts}
    scs_unknown = any(
        one.type == SCS and reaches(one.version, shown.targets.get(SCS, "")) is None for one in shown.servers
    )
    for one in made(shown).items:
        if one.stage in ("master", "proxy", "dormant") and one.parts[0].kind == "server":
            lca_unknown = any(
                reaches(hosts[name].lca_version, shown.targets.get("LCA", "")) is None
                for name in one.hosts
                if name in hosts
            )
            assert not one.is_ready or not (scs_unknown or lca_unknown)


@given(pictures())
def test_doing_the_plan_item_by_item_ends_with_nothing_to_do(shown):
    """Each time the first item that waits for no other; its key never comes back."""
    done = set()
    while items := made(shown).items:
        first = next(one for one in items if not one.needs)
        assert first.key not in done
        done.add(first.key)
        shown = after(shown, first)


def after(shown, item):
    """The picture once everything of the item is at its target."""
    targets = {(part.kind, part.name): part.target for part in item.parts}
    servers = tuple(
        replace(one, version=targets.get(("server", one.name), one.version)) for one in shown.servers
    )
    hosts = tuple(
        replace(one, lca_version=targets.get(("host", one.name), one.lca_version)) for one in shown.hosts
    )
    return replace(
        shown,
        servers=servers,
        hosts=hosts,
        uses_lrm=shown.uses_lrm and item.key != "lrm",
        schema_version=targets.get(("database", "Configuration Database"), shown.schema_version),
        log_schema_version=targets.get(("database", "Centralized Log Database"), shown.log_schema_version),
    )


# Each rule by its id.


def test_the_stages_come_in_the_order_of_the_source_document():
    shown = whole(uses_lrm=True, targets={**TARGETS, "StatServer": "8.5"})
    shown = replace(shown, servers=(*shown.servers, server("stat", "StatServer", "a-db")))
    assert [stage.id for stage in made(shown).stages] == [
        "scs",
        "message-server",
        "lca",
        "db-server",
        "lrm",
        "master",
        "proxy",
        "dormant",
        "other",
    ]


def test_lca_p2_scs_before_lca():
    assert "server:scs+scs_b" in {need.key for need in item(whole(), "lca:A").needs}
    assert "LCA-P2" in sources(item(whole(), "lca:A"))


def test_lca_2_hosts_without_scs_first_then_the_pair_with_the_primary_of_now_first():
    shown = whole()
    turned = tuple(
        replace(one, mode={"primary": "backup", "backup": "primary"}[one.mode]) if one.type == SCS else one
        for one in shown.servers
    )
    keys = [one.key for one in made(shown).items if one.stage == "lca"]
    assert keys == ["lca:A", "lca:B", "lca:pair:scs"]
    assert [part.name for part in item(shown, "lca:pair").parts] == ["a-scs", "b-scs"]
    assert [part.name for part in item(replace(shown, servers=turned), "lca:pair").parts] == [
        "b-scs",
        "a-scs",
    ]


def test_lca_2_one_host_after_the_other_through_all_of_the_plan():
    shown = whole()
    assert "lca:A" in needed(shown, item(shown, "lca:B"))
    assert "lca:B" in needed(shown, item(shown, "lca:pair"))


def test_lca_2a_the_host_of_a_single_scs_comes_last_of_its_site():
    shown = picture(server("scs", SCS, "a"), server("confserv", MASTER, "b"))
    found = item(shown, "lca:")
    assert [part.name for part in found.parts] == ["b", "a"]
    assert "LCA-2a" in found.sources


def test_cs_p2_a_master_waits_only_for_the_lca_of_its_own_hosts():
    """The hosts of the SCS pair come last by LCA-3, and a master on another host need not wait for them."""
    needs = {need.key for need in item(whole(), "server:confserv").needs}
    assert "lca:A" in needs
    assert not needs & {"lca:B", "lca:pair:scs"}


def test_lca_2b_no_configuration_server_is_touched_while_the_one_scs_may_be_down():
    shown = picture(
        server("scs", SCS, "b-scs"), server("confserv", MASTER, "a-cfg"), server("p", PROXY, "c-p")
    )
    shown = replace(shown, hosts=tuple(replace(host, site=host.name[0].upper()) for host in shown.hosts))
    for key in ("server:confserv", "server:p"):
        found = {need.key: need.sources for need in item(shown, key).needs}
        assert found["lca:B"] == ("LCA-2b",)
    assert "lca:C" not in {need.key for need in item(shown, "server:confserv").needs}


def test_cs_w3_db_server_before_the_master():
    found = item(whole(), "server:confserv")
    assert [need.sources for need in found.needs if need.key == "server:dbs"] == [("CS-W3",)]


def test_cs_w3_without_a_target_for_db_server_nothing_waits_for_it():
    targets = {name: version for name, version in TARGETS.items() if name != DB_SERVER}
    found = item(whole(targets=targets), "server:confserv")
    assert "CS-W3" not in sources(found)


def test_cs_p3_without_a_target_for_scs_nobody_can_tell():
    targets = {name: version for name, version in TARGETS.items() if name != SCS}
    blockers = item(whole(targets=targets), "server:confserv").blockers
    assert [blocker.sources for blocker in blockers] == [("CS-P3",)]


def test_int_1_proxies_wait_for_the_master():
    found = item(whole(), "proxy3")
    assert [need.sources for need in found.needs if need.key == "server:confserv+confserv_b"] == [
        ("INT-1", "PRX-1")
    ]


def test_int_1_a_proxy_does_not_overtake_a_master_that_the_plan_leaves_old():
    targets = {**TARGETS, MASTER: OLD}
    found = item(whole(targets=targets), "proxy3")
    assert {blocker.sources for blocker in found.blockers} == {("INT-1",)}
    assert not found.is_ready


def test_int_1_a_proxy_does_not_overtake_a_master_whose_own_target_is_lower():
    found = item(whole(targets={**TARGETS, PROXY: "8.5.102"}), "proxy3")
    assert {blocker.sources for blocker in found.blockers} == {("INT-1",)}


@pytest.mark.parametrize(
    ("single", "master", "proxy_target", "may"),
    [
        pytest.param(True, "8.1.300.20", "8.5.101", True, id="the exception"),
        pytest.param(True, "8.1.3", "8.5.100.1", True, id="the exception, written short"),
        pytest.param(False, "8.1.300.20", "8.5.101", False, id="multi-language"),
        pytest.param(None, "8.1.300.20", "8.5.101", False, id="nobody has stated the language mode"),
        pytest.param(True, "8.1.200.20", "8.5.101", False, id="older master"),
        pytest.param(True, "8.5.000", "8.5.101", False, id="later master"),
        pytest.param(True, "8.1.300.20", "8.1.300.40", False, id="older proxies"),
    ],
)
def test_prx_1_proxies_before_the_master(single, master, proxy_target, may):
    shown = picture(
        server("confserv", MASTER, "a", master),
        server("proxy", PROXY, "b", "8.0"),
        targets={MASTER: "8.5.101", PROXY: proxy_target, "LCA": OLD, SCS: OLD},
        single_language=single,
    )
    assert ("server:confserv" not in {need.key for need in item(shown, "server:proxy").needs}) is may


def test_prx_1_is_asked_for_when_nobody_has_stated_the_language_mode():
    assert any("Nobody has stated" in notice.text for notice in made(whole()).notices)
    assert not any(
        "Nobody has stated" in notice.text for notice in made(whole(single_language=False)).notices
    )


@pytest.mark.parametrize(
    ("version", "schema", "schema_target", "target", "procedure"),
    [
        pytest.param(
            "8.1.300.20", "8.1.1", "", "8.5.101", "config-server-ha-same-schema", id="as CSM-0 says"
        ),
        pytest.param(
            "8.1.300.20", "8.1.1", "8.1.1", "8.5.101.38", "config-server-ha-same-schema", id="stays as wanted"
        ),
        pytest.param("8.1.200.20", "8.1.1", "", "8.5.101", "config-server-ha", id="older version"),
        pytest.param("8.1.300.20", "8.0.0", "", "8.5.101", "config-server-ha", id="older schema"),
        pytest.param("8.1.300.20", "", "", "8.5.101", "config-server-ha", id="schema not known"),
        pytest.param(
            "8.1.300.20", "8.1.1", "8.5.0", "8.5.101", "config-server-ha", id="schema is upgraded too"
        ),
        pytest.param("8.1.300.20", "8.1.1", "", "8.5.100.20", "config-server-ha", id="another target"),
    ],
)
def test_csm_0_is_offered(version, schema, schema_target, target, procedure):
    targets = {MASTER: target, "LCA": OLD, SCS: OLD}
    if schema_target:
        targets["ConfigurationDatabase"] = schema_target
    shown = picture(*pair("confserv", MASTER, ("a", "b"), version), targets=targets, schema_version=schema)
    found = item(shown, "server:confserv")
    assert found.procedure == procedure
    assert ("CSM-0" in found.sources) is (procedure == "config-server-ha-same-schema")


def test_cs_w2_the_peer_of_an_upgraded_server_is_asked_for_at_once():
    first, second = pair("confserv", MASTER, ("a", "b"))
    found = item(picture(first, replace(second, version="8.5.101"), lca="9"), "server:confserv")
    assert [part.name for part in found.parts] == ["confserv"]
    assert "CS-W2" in found.sources
    assert found.pair == ("confserv", "confserv_b")


def test_css_a_single_master_follows_the_standalone_procedure():
    assert (
        item(picture(server("confserv", MASTER, "a")), "server:confserv").procedure
        == "config-server-standalone"
    )


def test_int_4_and_int_5_dormant_copies_after_the_masters_and_the_database():
    shown = whole(schema_version="8.1.1", targets={**TARGETS, "ConfigurationDatabase": "8.5.0"})
    by_key = {need.key: need.sources for need in item(shown, "server:dr").needs}
    assert by_key["server:confserv+confserv_b"] == ("INT-4",)
    assert by_key["database:ConfigurationDatabase"] == ("INT-5",)


def test_int_4_dormant_copies_that_nobody_entered_are_asked_for():
    shown = picture(server("confserv", MASTER, "a"), disaster_recovery=True)
    assert any(notice.sources == ("INT-4",) for notice in made(shown).notices)


def test_int_6_lrm_goes_before_the_master_moves_to_8_5():
    shown = whole(uses_lrm=True)
    assert "lrm" in {need.key for need in item(shown, "server:confserv").needs}
    assert "INT-6" in sources(item(shown, "server:confserv"))


def test_gen_1_the_schema_is_upgraded_inside_the_masters_run():
    shown = whole(schema_version="8.1.1", targets={**TARGETS, "ConfigurationDatabase": "8.5.0"})
    assert item(shown, "database:").inside == "server:confserv+confserv_b"


def test_gen_1_the_schema_can_be_upgraded_by_itself():
    shown = picture(
        server("confserv", MASTER, "a", "8.5.101"),
        targets={MASTER: "8.5.101", "ConfigurationDatabase": "8.5.0"},
        schema_version="8.1.1",
    )
    found = item(shown, "database:")
    assert (found.inside, found.sources) == ("", ("GEN-1",))


def test_ml_5_the_log_database_belongs_into_the_run_of_the_message_server():
    shown = whole(log_schema_version="7.6", targets={**TARGETS, "LogDatabase": "8.5"})
    found = item(shown, "database:LogDatabase")
    assert (found.inside, found.sources, found.procedure) == (
        "server:ms+ms_b",
        ("ML-5",),
        "log-database-schema",
    )


def test_proxies_on_separate_hosts_may_run_side_by_side():
    groups = {one.key: one.group for one in made(whole()).items if one.stage == "proxy"}
    assert set(groups.values()) == {1}
    crowded = picture(server("p1", PROXY, "a"), server("p2", PROXY, "a"), server("p3", PROXY, "b"))
    assert [one.group for one in made(crowded).items if one.stage == "proxy"] == [1, 0, 1]


def test_an_open_run_shows_at_its_item_and_blocks_what_shares_its_servers():
    run = OpenRun(
        id=7,
        title="Upgrade the pair",
        procedure="config-server-ha",
        servers=frozenset({"confserv", "confserv_b"}),
    )
    items = made(whole(), open_runs=[run]).items
    [master] = [one for one in items if one.key == "server:confserv+confserv_b"]
    [lca] = [one for one in items if one.key == "lca:A"]
    assert master.run == run
    assert "run 7" in lca.blockers[-1].text


def test_durations_come_from_what_is_known_of_the_procedure():
    history = {"config-server-standalone": Expectation(1800, (("Client downtime", 240),), runs=3)}
    shown = picture(server("confserv", MASTER, "a"), targets={MASTER: "8.5.101", "LCA": OLD, SCS: OLD})
    result = made(shown, history=history)
    assert result.items[0].expected == history["config-server-standalone"]
    assert result.seconds == 1800
    assert made(shown).seconds is None


def test_side_by_side_counts_once_in_the_duration():
    shown = picture(
        *(server(f"p{n}", PROXY, f"h{n}") for n in range(5)),
        targets={PROXY: "8.5.101", "LCA": OLD, SCS: OLD},
    )
    assert made(shown, history={"config-server-proxy": Expectation(600)}).seconds == 600


def test_a_plan_names_the_procedure_and_whether_it_is_published():
    result = plan(picture(server("confserv", MASTER, "a")), procedures=["lca"])
    assert {one.procedure: one.published for one in result.items} == {
        "lca": True,
        "config-server-standalone": False,
    }


def test_targets_can_be_given_beside_the_picture():
    assert plan(whole(), {MESSAGE_SERVER: "8.5"}).items[0].key == "server:ms+ms_b"


def test_without_targets_the_plan_says_what_to_do():
    result = plan(whole(targets={}))
    assert not result.items
    assert "Set the versions" in result.notices[0].text
