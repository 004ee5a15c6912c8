"""Which rollback fits: every combination of the facts has exactly one answer, and the table says which."""

from itertools import product

import pytest

from tests.domain.scene import REASON, Scene
from upgrades.domain import rollback as way
from upgrades.domain import run
from upgrades.domain.refusal import OutOfTurn
from upgrades.domain.rollback import Situation, Untouched, choose

FACTS = {
    "pair": [True, False],
    "operational": [True, False],
    "untouched": list(Untouched),
    "older": [True, False],
    "old_folder": [True, False],
    "database_upgraded": [True, False],
    "former_database": [True, False],
    "copy": [True, False],
}
ALL = [Situation(**dict(zip(FACTS, values, strict=True))) for values in product(*FACTS.values())]

NONE, RUNNING, DOWN = Untouched.NONE, Untouched.RUNNING, Untouched.DOWN
FORMER = {"database_upgraded": True, "former_database": True}
RESTORE = {"database_upgraded": True, "former_database": False, "copy": True}
STAYS = {"database_upgraded": False}
HERE = {"old_folder": True}
PAIR = {**HERE, "pair": True}
# Each row: facts that must be so (a set: one of), the procedure, and what says so. Rows do not overlap.
TABLE = [
    ({"old_folder": False}, "", "RB-0"),
    ({**HERE, "database_upgraded": True, "former_database": False, "copy": False}, "", "RB-N2"),
    ({**HERE, "pair": False, **STAYS}, way.STANDALONE, "RB-3"),
    ({**HERE, "pair": False, **FORMER}, way.STANDALONE, "RB-N2"),
    ({**HERE, "pair": False, **RESTORE}, way.STANDALONE, "RB-N3"),
    ({**PAIR, **RESTORE}, way.FOLDERS, "RB-N3"),
    ({**PAIR, **STAYS, "untouched": DOWN}, way.IMMEDIATE, "RB-N1"),
    ({**PAIR, **FORMER, "untouched": DOWN}, way.IMMEDIATE, "RB-N2"),
    ({**PAIR, **STAYS, "untouched": {NONE, RUNNING}, "older": True}, way.BOTH_DOWN, "CS-R2"),
    ({**PAIR, **FORMER, "untouched": {NONE, RUNNING}, "older": True}, way.BOTH_DOWN, "CS-R2"),
    (
        {**PAIR, **STAYS, "untouched": {NONE, RUNNING}, "older": False, "operational": True},
        way.OPERATIONAL,
        "RB-1",
    ),
    (
        {**PAIR, **STAYS, "untouched": {NONE, RUNNING}, "older": False, "operational": False},
        way.FOLDERS,
        "RB-N4",
    ),
    ({**PAIR, **FORMER, "untouched": RUNNING, "older": False, "operational": True}, way.OPERATIONAL, "RB-1"),
    ({**PAIR, **FORMER, "untouched": RUNNING, "older": False, "operational": False}, way.BOTH_DOWN, "RB-N2"),
    ({**PAIR, **FORMER, "untouched": NONE, "older": False}, way.BOTH_DOWN, "RB-N2"),
]


def matches(row, now):
    return all(
        getattr(now, name) in (wanted if isinstance(wanted, set) else {wanted})
        for name, wanted in row.items()
    )


@pytest.mark.requirement("RB-B1")
@pytest.mark.requirement("RB-N2")
@pytest.mark.requirement("RB-N3")
@pytest.mark.requirement("RB-N4")
def test_every_combination_of_the_facts_has_exactly_one_rollback_and_its_reason():
    for now in ALL:
        rows = [row for row in TABLE if matches(row[0], now)]
        assert len(rows) == 1, now
        _, procedure, source = rows[0]
        choice = choose(now)
        assert choice.procedure == procedure, now
        assert source in choice.source, now
        assert len(choice.reason) > 30


@pytest.mark.requirement("RB-0")
def test_without_an_old_instance_nothing_is_offered():
    assert {choose(now).procedure for now in ALL if not now.old_folder} == {""}


@pytest.mark.requirement("CS-R2")
def test_a_server_older_than_8_5_never_starts_beside_one_that_runs():
    """The one exception to shutting down is what is down already, or the way that does so itself."""
    chosen = {choose(now).procedure for now in ALL if now.older and now.pair}
    assert way.OPERATIONAL not in chosen


def test_the_answers_go_along_with_the_choice():
    now = Situation(
        pair=True,
        operational=False,
        untouched=NONE,
        older=False,
        old_folder=True,
        database_upgraded=True,
        former_database=False,
        copy=True,
    )
    assert choose(now).parameters == {
        "former-database": "false",
        "database-restore": "true",
        "master-operational": "false",
        "second-replaced": "true",
    }


@pytest.mark.requirement("RB-B1")
def test_proxies_go_before_a_master_that_works_and_after_one_that_does_not():
    assert way.proxies_first(operational=True)
    assert not way.proxies_first(operational=False)


# What a run knows of it.


def known(scene):
    return way.known(scene.procedure, scene.state)


def test_before_anything_is_replaced_there_is_nothing_to_take_back():
    with pytest.raises(OutOfTurn, match="nothing to take back"):
        known(Scene().go_to("replace-folder"))


def test_a_run_knows_which_server_was_replaced_and_where_its_old_folder_is():
    scene = Scene().go_to("replace-folder")
    scene.begin()
    scene.probe("stopped")
    assert not known(scene).old_folder
    scene.probe("folder-kept")
    found = known(scene)
    assert (found.first, found.second, found.back_to) == ("new", "old", "8.1.3")
    assert found.old_folder
    assert found.untouched is RUNNING


def test_once_the_old_primary_is_down_it_is_the_one_that_starts_again():
    found = known(Scene().go_to("install-remaining"))
    assert found.untouched is DOWN
    assert found.roles(way.IMMEDIATE) == {"first": "old", "second": "new"}


def test_once_both_are_replaced_the_backup_goes_back_first():
    found = known(Scene().go_to("stop-upgrade-mode"))
    assert found.untouched is NONE
    assert found.roles(way.OPERATIONAL) == {"first": "old", "second": "new"}  # new is primary in upgrade mode


def test_what_stands_in_the_record_of_the_database_is_offered_as_the_answer():
    found = known(Scene(database_upgraded=True).go_to("stop-old"))
    assert found.database_upgraded
    assert found.former_database
    assert found.copy


def test_what_is_open_is_handed_over_as_it_is():
    scene = Scene().go_to("stop-old")
    items = {item.burden: item for item in run.inheritance(scene.procedure, scene.state, 7)}
    for name, burden in scene.state.burdens.items():
        assert items[name].since == burden.since.isoformat()
        assert items[name].from_run == 7
        assert items[name].title
    scene.act(run.RollBack(by_run=8, procedure=way.BOTH_DOWN, reason=REASON))
    assert (scene.state.status, scene.state.ending, scene.state.burdens) == ("ended", "rolled back", {})
    assert {closed.text for closed in scene.state.closed if closed.burden.id in items} == {
        "It goes on in run 8."
    }
