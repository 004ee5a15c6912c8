"""INT-3 and CS-W1: who keeps new features out."""

from dataclasses import replace

from hypothesis import given

from tests.domain.landscape import OLD, pictures, whole
from upgrades.domain.environment import CONFIGURATION_COMPONENTS, MASTER, PROXY, OpenRun
from upgrades.domain.feature_freeze import freeze


def at(shown, version, *types, but=()):
    return replace(
        shown,
        servers=tuple(
            replace(one, version=version) if one.type in types and one.name not in but else one
            for one in shown.servers
        ),
    )


def test_nothing_is_frozen_before_a_migration_begins_nor_when_it_is_over():
    assert not freeze(whole()).is_on
    assert not freeze(at(whole(), "8.5.101", MASTER, PROXY)).is_on


def test_the_last_old_proxy_keeps_the_freeze_and_is_named():
    held = freeze(at(whole(), "8.5.101", MASTER, PROXY, but=("proxy4",)))
    assert [holder.name for holder in held.holders] == ["proxy4"]
    assert OLD in held.holders[0].why


def test_a_run_on_a_configuration_server_begins_the_freeze():
    run = OpenRun(id=1, title="", procedure="config-server-ha", servers=frozenset({"confserv"}))
    assert "confserv" in {holder.name for holder in freeze(whole(), [run]).holders}


def test_once_a_target_is_reached_an_unknown_version_keeps_the_freeze():
    upgraded = at(whole(), "8.5.101", MASTER, PROXY)
    assert [
        one.name
        for one in freeze(
            at(upgraded, "", PROXY, but=("proxy1", "proxy1_b", "proxy2", "proxy2_b", "proxy3"))
        ).holders
    ] == ["proxy4"]
    assert not freeze(at(whole(), "", PROXY)).is_on, "nobody has begun"


def test_dormant_copies_hold_it_too():
    held = freeze(at(whole(), "8.5.101", MASTER, PROXY, but=("dr_b",)))
    assert [holder.name for holder in held.holders] == ["dr_b"]


@given(pictures())
def test_only_configuration_servers_and_proxies_hold_it_and_never_the_newest(shown):
    held = {holder.name for holder in freeze(shown).holders}
    servers = [one for one in shown.servers if one.type in CONFIGURATION_COMPONENTS]
    assert held <= {one.name for one in servers}
    assert not servers or held < {one.name for one in servers}
