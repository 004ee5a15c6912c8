"""Which way back fits: rollback is chosen from facts, and for every combination of them exactly one answer stands
(design.md section 6, RB-*).

`choose` answers with a procedure and its parameters, or with the reason why there is no way back from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from upgrades.domain import run_events as e
from upgrades.domain.procedure import Probe, ProbeGate, Procedure
from upgrades.domain.refusal import BadInput, OutOfTurn
from upgrades.domain.run_state import RunState
from upgrades.domain.version import NotAVersion, Version

OPERATIONAL = "rollback-operational"
BOTH_DOWN = "rollback-both-down"
IMMEDIATE = "rollback-immediate"
FOLDERS = "rollback-folders"
STANDALONE = "rollback-standalone"
PROCEDURES = (OPERATIONAL, BOTH_DOWN, IMMEDIATE, FOLDERS, STANDALONE)
TYPES = frozenset({"ConfigurationServer", "ConfigurationServerProxy"})
SERVING = frozenset({"primary", "upgrade-mode", "primary-upgrade-mode"})


class Untouched(StrEnum):
    """Whether one server of the pair still has its old version in place, and whether that one runs."""

    NONE = "none"
    RUNNING = "running"
    DOWN = "down"


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """The facts that decide."""

    pair: bool
    operational: bool  # the master serves its clients fully
    untouched: Untouched  # without a pair: none
    older: bool  # the version to go back to is older than 8.5
    old_folder: bool  # the old instance of every server that was replaced is there (RB-0)
    database_upgraded: bool
    former_database: bool  # the database from before the upgrade is there, untouched
    copy: bool  # a backup of it is there


@dataclass(frozen=True, slots=True)
class Choice:
    """The procedure that fits, or none (empty) when there is no way back; why, and which requirements say so."""

    procedure: str
    reason: str
    source: tuple[str, ...]
    parameters: Mapping[str, str] = field(default_factory=dict)


def choose(now: Situation) -> Choice:
    """The one rollback that fits `now`."""
    if not now.old_folder:
        return Choice(
            "",
            "The old version is not known to be installed and out of use on every host, and without it nothing can be started. "
            "Find its folder, or install the old version into a folder of its own; then look again.",
            ("RB-0",),
        )
    former = now.database_upgraded and now.former_database
    restore = now.database_upgraded and not now.former_database
    if restore and not now.copy:
        return Choice(
            "",
            "The database was upgraded, and neither the former one nor a copy of it is there: an old server has nothing to read. "
            "Find a backup of the database; then look again.",
            ("RB-N2", "RB-N3"),
        )
    known = {"former-database": _text(former), "database-restore": _text(restore)}
    known |= {
        "master-operational": _text(now.operational),
        "second-replaced": _text(now.untouched is Untouched.NONE),
    }
    procedure, reason, source = _fitting(now, former=former, restore=restore)
    return Choice(procedure, reason, source, known)


def _fitting(now: Situation, *, former: bool, restore: bool) -> tuple[str, str, tuple[str, ...]]:
    if not now.pair:
        how = (
            "; only a copy of its database is left, so that is restored first"
            if restore
            else "; it starts against the former database"
            if former
            else ""
        )
        more = ("RB-N3",) if restore else ("RB-N2",) if former else ()
        return (
            STANDALONE,
            f"The server stands alone: its clients wait until the old version runs{how}.",
            ("RB-1", "RB-3", *more),
        )
    if restore:
        return (
            FOLDERS,
            "The database was upgraded and only a copy of the old one is left: it is restored before an old server starts.",
            ("RB-N3",),
        )
    if now.untouched is Untouched.DOWN:
        reason = "One server still has its old version in place and is down: the new one is stopped and that one started again"
        if former:
            return IMMEDIATE, f"{reason}, against the former database.", ("RB-N1", "RB-N2")
        return IMMEDIATE, f"{reason}.", ("RB-N1",)
    if now.older:
        return (
            BOTH_DOWN,
            "The old version is older than 8.5: both servers of the pair are shut down before one of it starts.",
            ("CS-R2",),
        )
    if former and not (now.operational and now.untouched is Untouched.RUNNING):
        return (
            BOTH_DOWN,
            "The old servers go back to the former database, so they cannot join a server that reads the upgraded one.",
            ("RB-N2",),
        )
    if now.operational:
        return (
            OPERATIONAL,
            "The master works: one server after the other goes back, the backup first.",
            ("RB-B1", "RB-1"),
        )
    return (
        FOLDERS,
        "The master does not work and the database stays: the folders of the old version are put back.",
        ("RB-B1", "RB-N4"),
    )


def _text(value: bool) -> str:
    return "true" if value else "false"


def proxies_first(*, operational: bool) -> bool:
    """RB-B1: proxies are rolled back before a master that works, and after one that does not."""
    return operational


# What a run knows.


@dataclass(frozen=True, slots=True)
class Known:
    """What the record of a run says: `first` and `second` are its roles in the order in which they go back (`second`
    is empty without a pair), `back_to` the version from before; the rest as far as it is on record."""

    first: str
    second: str
    back_to: str
    untouched: Untouched
    old_folder: bool
    database_upgraded: bool
    operational: bool
    former_database: bool
    copy: bool

    def choice(self, *, operational: bool, former_database: bool, copy: bool) -> Choice:
        """What fits with what a person states of the present."""
        return choose(
            Situation(
                pair=bool(self.second),
                operational=operational,
                untouched=self.untouched,
                older=Version.parse(self.back_to) < Version.parse("8.5"),
                old_folder=self.old_folder,
                database_upgraded=self.database_upgraded,
                former_database=former_database,
                copy=copy,
            )
        )

    def roles(self, procedure: str) -> dict[str, str]:
        """Which role of the run plays which role of the rollback."""
        if procedure == STANDALONE:
            return {"server": self.first}
        if procedure == IMMEDIATE:  # the one that is still in place starts, the replaced one goes
            return {"first": self.second, "second": self.first}
        return {"first": self.first, "second": self.second}


def known(procedure: Procedure, state: RunState) -> Known:
    """What the record says of the way back from here. `OutOfTurn` when there is nothing to take back or nobody knows
    how, `BadInput` when the version from before is not known."""
    roles = [role.name for role in procedure.roles]
    if procedure.id in PROCEDURES:
        raise OutOfTurn("This run is a rollback already. Carry it on, or take its steps one by one.")
    if (
        procedure.groups
        or not roles
        or any(not TYPES & set(role.application_types) for role in procedure.roles)
    ):
        raise OutOfTurn("A rollback is known for Configuration Servers and their proxies only.")
    replaced = {name: _kept_folder(procedure, state, name) for name in roles}
    touched = [name for name in roles if replaced[name] is not None]
    if not touched:
        raise OutOfTurn(
            "No server has been replaced in this run yet, so there is nothing to take back. Abort the run."
        )
    # Whoever runs as primary goes back last, so that clients have a server as long as may be.
    touched.sort(key=lambda name: state.facts.get(f"{name}.mode") in SERVING)
    others = [name for name in roles if name not in touched]
    first, second = [*touched, *others, ""][:2]
    return Known(
        first=first,
        second=second,
        back_to=_version(state, first),
        untouched=_untouched(state, others),
        old_folder=all(replaced[name] for name in touched),
        database_upgraded=state.facts.get("database-upgraded") is True,
        operational=any(state.facts.get(f"{name}.mode") in SERVING for name in roles),
        former_database=_is_recorded(state, "legacy-database-kept"),
        copy=_is_recorded(state, "database-copy"),
    )


def _untouched(state: RunState, others: list[str]) -> Untouched:
    if not others:
        return Untouched.NONE
    return Untouched.DOWN if state.facts.get(f"{others[0]}.mode") == "down" else Untouched.RUNNING


def _kept_folder(procedure: Procedure, state: RunState, role: str) -> bool | None:
    """None: the server was not replaced in this run. Else whether an agent saw the folder of its old version."""
    seen: bool | None = None
    for step in procedure.steps:
        at = state.steps.get(step.id)
        for gate in step.gates if at is not None and at.begun_at is not None else ():
            if (
                isinstance(gate, ProbeGate)
                and gate.server == role
                and gate.folder == "kept"
                and gate.probe is Probe.FOLDER_EXISTS
            ):
                answer = state.gate(step.id, gate.id).probe
                found = (
                    answer is not None
                    and isinstance(answer.event, e.ProbeAnswered)
                    and answer.event.value == "met"
                )
                seen = bool(seen) or found
    return seen


def _version(state: RunState, role: str) -> str:
    version = state.started.bindings[role].version
    try:
        return Version.parse(version).text
    except NotAVersion:
        raise BadInput(
            f"Nobody recorded which version {state.application(role)} had when the run started, so no way back can be chosen. "
            "Start the rollback from the environment's page, where you state the version.",
            "back-to",
        ) from None


def _is_recorded(state: RunState, gate_id: str) -> bool:
    """Whether a gate of this name was confirmed, or has evidence, in its latest visit."""
    for (step, visit, gate), recorded in state.gates.items():
        if gate != gate_id or state.steps[step].visit != visit:
            continue
        answers = [item.event for item in recorded.confirmations if isinstance(item.event, e.GateConfirmed)]
        if recorded.evidence or (answers and answers[-1].answer == "pass"):
            return True
    return False
