"""Groups: who belongs to them, in which order, and what the steps of a run become."""

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.domain.site import SHIPPED, Site, agents, pair, server
from upgrades.domain import run_events
from upgrades.domain.condition import holds, parse_condition, settled
from upgrades.domain.groups import choose, expand, runs_as
from upgrades.domain.refusal import BadInput
from upgrades.domain.run_events import from_body, to_body

LCA, LAYER = SHIPPED["lca"], SHIPPED["management-layer"]
FACTS = {"target": "8.5.101"}


def hosts_in_order(servers, **facts):
    members = choose(LCA, servers, {}, FACTS | facts).groups["hosts"]
    agents_of = {item.host: item for item in servers if item.type == "LCA"}
    slugs = {host.lower().replace(".", "-"): host for host in agents_of}
    return [slugs[member["key"]] for member in members]


# The order of the hosts.


@pytest.mark.requirement("LCA-2")
@pytest.mark.requirement("LCA-3a")
@pytest.mark.requirement("LCA-4a")
def test_hosts_without_scs_come_first_then_a_single_one_then_the_primary_then_the_backup():
    servers = [
        *agents("a-backup", "b-primary", "c-single", "d-plain", "e-plain"),
        *pair("scs_p", "scs_b", ("b-primary", "a-backup")),
        server("scs_single", "c-single"),
    ]
    assert hosts_in_order(servers) == ["d-plain", "e-plain", "c-single", "b-primary", "a-backup"]


@pytest.mark.requirement("LCA-3a")
def test_what_runs_as_primary_now_counts_and_not_how_the_pair_is_configured():
    servers = [*agents("one", "two"), *pair("scs_1", "scs_2", ("one", "two"), primary="scs_2")]
    assert hosts_in_order(servers) == ["two", "one"]


SITES = st.lists(st.sampled_from(["plain", "single", "pair"]), min_size=1, max_size=8).flatmap(
    lambda kinds: st.tuples(st.just(kinds), st.lists(st.booleans(), min_size=8, max_size=8), st.randoms())
)


def site_of(kinds, turned):
    """Servers of a site, with how the SCS of each host runs."""
    servers, runs = [], {}
    for number, kind in enumerate(kinds):
        if kind == "plain":
            servers += agents(f"h{number}")
            runs[f"h{number}"] = "none"
        elif kind == "single":
            servers += [*agents(f"h{number}"), server(f"scs{number}", f"h{number}")]
            runs[f"h{number}"] = "standalone"
        else:
            both = (f"h{number}a", f"h{number}b")
            names = (f"scs{number}a", f"scs{number}b")
            primary = names[1] if turned[number] else names[0]
            servers += [*agents(*both), *pair(*names, both, primary=primary)]
            runs |= dict(
                zip(both, ("backup", "primary") if turned[number] else ("primary", "backup"), strict=True)
            )
    return servers, runs


@pytest.mark.requirement("LCA-2")
@given(SITES)
def test_whatever_a_site_looks_like_every_host_has_its_turn_once_and_in_the_order_of_the_document(site):
    kinds, turned, shuffled = site
    servers, runs = site_of(kinds, turned)
    random.Random(shuffled.random()).shuffle(servers)
    found = hosts_in_order(servers)
    assert sorted(found) == sorted(runs)
    order = ["none", "standalone", "primary", "backup"]
    places = [order.index(runs[host]) for host in found]
    assert places == sorted(places)
    assert found == hosts_in_order(list(reversed(servers))), "the order does not depend on how it was asked"


def test_agents_at_the_target_are_left_out_and_those_nobody_knows_are_not():
    servers = [*agents("done", version="8.5.101"), *agents("old"), *agents("unknown", version="")]
    assert hosts_in_order(servers) == ["old", "unknown"]


def test_only_the_hosts_that_were_named_take_part():
    servers = agents("fra-1.example.com", "fra-2.example.com", "fra-3.example.com")
    assert hosts_in_order(servers, hosts="FRA-3.example.com, fra-1.example.com") == [
        "fra-1.example.com",
        "fra-3.example.com",
    ]


def test_a_host_that_is_not_there_is_a_mistake_of_the_answer():
    with pytest.raises(BadInput, match="no host fra-9") as refused:
        hosts_in_order(agents("fra-1"), hosts="fra-9")
    assert refused.value.field == "hosts"


def test_two_scs_on_one_host_leave_the_order_open():
    servers = [*agents("one"), server("scs_1", "one"), server("scs_2", "one")]
    with pytest.raises(BadInput, match="more than one SCS"):
        hosts_in_order(servers)


def test_more_hosts_than_a_page_can_show_are_refused():
    with pytest.raises(BadInput, match="at most 150"):
        hosts_in_order(agents(*(f"h{number:03}" for number in range(151))))


# Pairs.


@pytest.mark.requirement("ML-1")
@pytest.mark.parametrize("primary", ["msg_a", "msg_b"])
@pytest.mark.parametrize("named", ["msg_a", "msg_b"])
def test_the_running_backup_of_a_pair_goes_first_whichever_of_the_two_is_named(primary, named):
    servers = pair("msg_a", "msg_b", ("one", "two"), "MessageServer", primary=primary)
    chosen = choose(LAYER, servers, {"server": named}, FACTS)
    roles = {"server": named, **{role: item.name for role, item in chosen.roles.items()}}
    backup = "msg_b" if primary == "msg_a" else "msg_a"
    assert [roles[member["each"]] for member in chosen.groups["servers"]] == [backup, primary]
    assert [roles[member["peer"]] for member in chosen.groups["servers"]] == [primary, backup]


def test_a_server_has_one_role_however_many_groups_it_is_in():
    site = Site("lca", [*agents("one", "two"), *pair("scs_1", "scs_2", ("one", "two"))])
    played = [bound.application for bound in site.state.started.bindings.values()]
    assert sorted(played) == sorted({"lca_one", "lca_two", "scs_1", "scs_2"})


def test_a_member_of_a_pair_of_which_nobody_knows_how_it_runs_counts_as_configured():
    known = pair("scs_1", "scs_2", ("one", "two"))
    assert [runs_as(replace(item, mode="")) for item in known] == ["primary", "backup"]


# Expanding.


def test_every_member_has_steps_of_its_own_one_after_the_other():
    site = Site("lca", [*agents("one", "two"), server("scs", "three"), *agents("three", version="8.5.101")])
    assert [step.id for step in site.procedure.steps] == [
        "prerequisites",
        "set-option--scs",
        "stop-lca--one",
        "install-lca--one",
        "check-host--one",
        "stop-lca--two",
        "install-lca--two",
        "check-host--two",
        "remove-option--scs",
    ]


def test_texts_roles_facts_and_burdens_are_those_of_the_member():
    site = Site("lca", [*agents("one", "two"), *pair("scs_1", "scs_2", ("one", "two"))])
    step = site.procedure.step("stop-scs--one")
    assert step.copy_of == "stop-scs"
    assert dict(step.cast) == {"each": "app--lca-one", "beside": "app--scs-1", "peer": "app--scs-2"}
    assert step.gate("stopped").server == "app--scs-1"
    assert [effect.set for effect in step.effects] == ["app--scs-1.mode", "app--scs-2.mode"]
    assert step.opens == (), "of a pair, the other one keeps control"
    assert site.procedure.exposure("lca-down--two").copy_of == "lca-down"
    assert "app--lca-two.host" in site.procedure.exposure("lca-down--two").title


def test_a_group_without_members_leaves_no_steps():
    text = expand(LCA, {"managers": [], "hosts": []}, {})
    assert [step.id for step in text.steps] == ["prerequisites"]
    assert (text.exposures, text.duties) == ((), ())


def test_a_procedure_without_groups_stays_what_it_is():
    pair_of_servers = SHIPPED["config-server-ha"]
    assert expand(pair_of_servers, {}, {}) is pair_of_servers


def test_names_of_hosts_that_look_alike_get_keys_that_differ():
    long = "a" * 60
    site = Site(
        "lca", [*agents("x.1", "x-1", f"{long}.example", f"{long}.example2"), server("scs", "scs-host")]
    )
    ids = [step.id for step in site.procedure.steps]
    assert len(ids) == len(set(ids))
    assert all(len(step) <= 64 for step in ids)


def test_the_start_of_a_run_keeps_its_groups_and_older_starts_have_none():
    started = Site("lca", agents("one")).state.started
    body = to_body(started)
    assert from_body("run.started", body) == started
    del body["groups"]
    assert from_body("run.started", body).groups == {}


CONDITIONS = [
    "peer.there",
    "not peer.there",
    "peer.there and each.type = SCS",
    "not peer.there or log-schema",
    "(beside.there and log-schema) or not (peer.there or each.type = SCS)",
]


@given(
    st.sampled_from(CONDITIONS), st.booleans(), st.booleans(), st.sampled_from([True, False, None]),
    st.sampled_from(["SCS", "MessageServer", None]),
)  # fmt: skip
def test_settling_what_is_known_changes_no_answer(text, peer, beside, schema, kind):
    known = {"peer.there": peer, "beside.there": beside}
    facts = {**known, "log-schema": schema, "each.type": kind}
    condition = parse_condition(text)
    left = settled(condition, known)
    assert (left if isinstance(left, bool) else holds(left, facts)) == holds(condition, facts)


def test_a_countdown_is_an_event_that_loads_again():
    marked = run_events.ExposureMarked(exposure="lca-down--one", percent=80, limit=600, passed=481)
    assert from_body(marked.kind, to_body(marked)) == marked
