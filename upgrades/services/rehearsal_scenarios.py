"""Scenarios: in which simulated world each procedure is rehearsed, and what the rehearsal must lead to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SCS_AND_LCA = {"SCS": "8.5.100", "LCA": "8.5.100"}


@dataclass(frozen=True, slots=True)
class Expected:
    """How a scenario must end: the run's ending, or the step at which the crew must find it held or waiting.

    `visited` are steps (as the text names them) that must have been entered besides, `recorded` kinds of events that
    must have happened.
    """

    ending: str = ""
    held_at: str = ""
    waiting_at: str = ""
    visited: tuple[str, ...] = ()
    recorded: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """`world` is what the simulator takes, `bindings` names the server of each role; empty, the world itself says who
    plays what. `delays` are steps for which the crew takes its time, in seconds."""

    expected: Expected
    world: Mapping[str, Any]
    targets: Mapping[str, str]
    parameters: Mapping[str, str] = field(default_factory=dict)
    bindings: Mapping[str, str] = field(default_factory=dict)
    delays: Mapping[str, float] = field(default_factory=dict)


COMPLETED = Expected(ending="completed")


def _pair(name: str, expected: Expected, **parameters: str) -> Scenario:
    """A course of the pair of Configuration Servers in Frankfurt, which the simulator knows by name."""
    return Scenario(
        expected=expected,
        world={"world": "frankfurt", "scenario": name},
        targets={"ConfigurationServer": "8.5.101", **SCS_AND_LCA},
        parameters={"database-upgraded": "false", **parameters},
    )


_HA = {
    "automatic": COMPLETED,
    "forced": Expected(ending="completed", visited=("force-upgrade-mode",)),
    "compatible": Expected(ending="compatible", visited=("close-compatible",)),
    "wrong-database": Expected(held_at="launch-new"),
    "same-schema": Expected(held_at="launch-new"),
    "crash": COMPLETED,
    "silent": Expected(waiting_at="launch-new"),
    "rotation": COMPLETED,
    "clock-skew": COMPLETED,
    "unknown-format": COMPLETED,
}
_UPGRADED = _pair(
    "database-upgraded",
    Expected(ending="completed", visited=("point-to-new-database",)),
    **{"database-upgraded": "true", "keep-database-until": "2030-12-31"},
)

_LCA_TARGETS = {"SCS": "8.5.100", "LCA": "8.5.101"}
_LCA = {
    "single-scs": Scenario(
        expected=Expected(ending="completed", visited=("stop-scs", "start-scs")),
        world={"world": "frankfurt"},
        targets=_LCA_TARGETS,
    ),
    "scs-pair": Scenario(
        expected=Expected(ending="completed", visited=("stop-scs", "start-scs")),
        world={"world": "hamburg"},
        targets=_LCA_TARGETS,
    ),
    # The agent is installed later than the option allows: the countdown says so, and SCS switches over wrongly.
    "slow": Scenario(
        expected=Expected(ending="completed", recorded=("exposure.mark",)),
        world={"world": "hamburg"},
        targets=_LCA_TARGETS,
        parameters={"disconnect-switchover-timeout": "3", "hosts": "ham-app-01"},
        delays={"install-lca": 5.0},
    ),
}


def _management(world: str, server: str, expected: Expected = COMPLETED, **parameters: str) -> Scenario:
    return Scenario(
        expected=expected,
        world={"world": world},
        targets={"SCS": "8.5.101", "MessageServer": "8.5.101"},
        parameters=parameters,
        bindings={"server": server},
    )


_MANAGEMENT_LAYER = {
    "scs-ha": _management("hamburg", "scs_a"),
    "scs-single": _management("frankfurt", "scs"),
    "message-server-ha": _management(
        "hamburg", "msg_b", Expected(ending="completed", visited=("log-schema",)), **{"log-schema": "true"}
    ),
    "message-server-single": _management("frankfurt", "messageserver"),
}

SCENARIOS: dict[str, dict[str, Scenario]] = {
    "config-server-ha": {
        **{name: _pair(name, expected) for name, expected in _HA.items()},
        "database-upgraded": _UPGRADED,
    },
    "lca": _LCA,
    "management-layer": _MANAGEMENT_LAYER,
}
