"""A saved plan beside what is so now."""

from dataclasses import replace

from hypothesis import given

from tests.domain.landscape import TARGETS, pictures, server, whole
from tests.domain.test_planner import after, made
from upgrades.domain.environment import MASTER, PROXY
from upgrades.domain.plan_of_record import Recorded, differences, is_done, parts_done


def recorded(shown):
    return [
        Recorded(
            key=item.key,
            procedure=item.procedure,
            title=item.title,
            parts=item.parts,
            after=frozenset(need.key for need in item.needs),
        )
        for item in made(shown).items
    ]


@given(pictures())
def test_a_plan_that_was_just_saved_differs_in_nothing(shown):
    assert differences(recorded(shown), made(shown), shown) == ()


def test_what_is_done_is_progress_and_no_difference():
    shown = whole()
    saved = recorded(shown)
    now = after(shown, made(shown).items[0])
    assert [is_done(item, now) for item in saved[:2]] == [True, False]
    assert differences(saved, made(now), now) == ()


def test_half_a_pair_counts_as_half_and_changes_nothing():
    shown = whole()
    [item] = [item for item in recorded(shown) if item.key == "server:scs+scs_b"]
    half = replace(
        shown,
        servers=tuple(replace(one, version="9") if one.name == "scs_b" else one for one in shown.servers),
    )
    assert (parts_done(item, half), is_done(item, half)) == (1, False)
    assert differences(recorded(shown), made(half), half) == ()


def test_a_new_server_is_told_as_added():
    shown = whole()
    more = replace(shown, servers=(*shown.servers, server("proxy9", PROXY, "a-p3")))
    [change] = differences(recorded(shown), made(more), more)
    assert (change.kind, change.title) == ("added", "proxy9")


def test_a_removed_server_is_told_as_dropped():
    shown = whole()
    fewer = replace(shown, servers=tuple(one for one in shown.servers if one.name != "proxy3"))
    assert ("dropped", "proxy3") in {
        (change.kind, change.title) for change in differences(recorded(shown), made(fewer), fewer)
    }


def test_another_target_is_told_with_both_versions():
    shown = whole()
    later = replace(shown, targets={**TARGETS, MASTER: "8.5.102"})
    texts = [
        change.text
        for change in differences(recorded(shown), made(later), later)
        if change.title.startswith("confserv")
    ]
    assert "8.5.102, not 8.5.101" in texts[0]


def test_another_way_of_going_about_it_is_told():
    shown = whole()
    stated = replace(shown, schema_version="8.1.1")
    [change] = differences(recorded(shown), made(stated), stated)
    assert "config-server-ha-same-schema" in change.text


def test_what_no_longer_waits_is_told():
    shown = whole()
    stated = replace(shown, single_language=True)
    texts = [change.text for change in differences(recorded(shown), made(stated), stated)]
    assert any("no longer waits for confserv" in text for text in texts)
