"""Scenarios: in which simulated world each procedure is rehearsed, and what the rehearsal must lead to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
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


@dataclass(frozen=True, slots=True)
class Slip:
    """On the server of `role`: what goes wrong there, and what the crew does, in order; `instead` of what the step says,
    or before it."""

    role: str
    goes_wrong: str = ""
    actions: tuple[Mapping[str, Any], ...] = ()
    instead: bool = False


OTHER_DATABASE = Slip("new", goes_wrong="wrong-database")
OPTION_LEFT = ({"action": "set-upgrade-mode", "on": True}, {"action": "start"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """`world` is what the simulator takes, `bindings` names the server of each role; empty, the world itself says who
    plays what. `delays` are steps for which the crew takes its time, in seconds; `slips` what it does wrongly on the
    servers, or what goes wrong there, just before it does what the step says."""

    expected: Expected
    world: Mapping[str, Any]
    targets: Mapping[str, str]
    parameters: Mapping[str, str] = field(default_factory=dict)
    bindings: Mapping[str, str] = field(default_factory=dict)
    delays: Mapping[str, float] = field(default_factory=dict)
    slips: Mapping[str, Slip] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(
        default_factory=dict
    )  # what is recorded of the environment besides


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


def _again_in_upgrade_mode(of: Scenario) -> dict[str, Scenario]:
    """The same course where the option of upgrade mode still stands in the file of a server that is started again."""
    return {
        f"{step}-in-upgrade-mode": replace(
            of,
            expected=Expected(held_at=step),
            slips={step: Slip(role, actions=OPTION_LEFT, instead=True)},
        )
        for step, role in (("start-remaining", "old"), ("start-former", "new"))
    }


_HELD_AT_LAUNCH = Expected(held_at="launch-new")
_UPGRADED_AND_WRONG = {
    # The file still names the former database: the server finds an older primary on it, or none that differs.
    "database-left-behind": replace(
        _UPGRADED, expected=_HELD_AT_LAUNCH, slips={"launch-new": OTHER_DATABASE}
    ),
    "backup-on-upgraded-database": replace(
        _UPGRADED,
        expected=_HELD_AT_LAUNCH,
        world={"world": "frankfurt", "scenario": "compatible"},
        slips={"launch-new": OTHER_DATABASE},
    ),
}

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

_MASTERS = {"ConfigurationServer": "8.5.101", **SCS_AND_LCA}
_SCHEMA_STAYS = {"schema_version": "8.1.1"}
_KEPT = {"database-upgraded": "true", "keep-database-until": "2030-12-31"}
_STANDALONE = {
    "same-database": Scenario(
        expected=COMPLETED,
        world={"world": "essen"},
        targets=_MASTERS,
        parameters={"database-upgraded": "false"},
        bindings={"server": "confserv"},
    ),
    "database-upgraded": Scenario(
        expected=Expected(ending="completed", visited=("migrate-database",)),
        world={"world": "essen"},
        targets=_MASTERS,
        parameters=_KEPT,
        bindings={"server": "confserv"},
        environment={"disaster_recovery": True},
    ),
}


def _same_schema(name: str, expected: Expected) -> Scenario:
    return Scenario(
        expected=expected,
        world={"world": "frankfurt", "scenario": name},
        targets=_MASTERS,
        environment=_SCHEMA_STAYS,
    )


_GONE_OVER = Expected(
    ending="completed", visited=("read-only", "force-upgrade-mode"), recorded=("run.gone-over",)
)
_SAME_SCHEMA = {
    "same-schema": _same_schema("same-schema", COMPLETED),
    "not-announced": _same_schema("forced", _GONE_OVER),
    "upgrade-mode": _same_schema("automatic", _GONE_OVER),
    **_again_in_upgrade_mode(_same_schema("same-schema", COMPLETED)),
}


def _proxies(expected: Expected = COMPLETED, scenario: str = "automatic", **bindings: str) -> Scenario:
    return Scenario(
        expected=expected,
        world={"world": "munich", "scenario": scenario},
        targets={**_MASTERS, "ConfigurationServerProxy": "8.5.101"},
        bindings=bindings,
    )


_PROXY_PAIR = {"new": "csproxy_b", "old": "csproxy"}


def _upgraded(
    old: str, *, database: str = "old", replaced: tuple[str, ...] = ("confserv", "confserv_b")
) -> Mapping[str, Any]:
    """A pair of which `replaced` were upgraded from `old`, with the old folders kept. An old primary that was not
    replaced is down."""
    servers = [
        {"name": "confserv", "host": "dre-cfg-01", "role": "primary", "peer": "confserv_b"},
        {"name": "confserv_b", "host": "dre-cfg-02", "role": "backup", "peer": "confserv"},
    ]
    new = {"version": "8.5.101", "kept-version": old, "database": database}
    left = {"version": old, "down": True}
    common = {"type": "ConfigurationServer"}
    alone = {"clients": 84} if len(replaced) == 1 else {}
    return {
        "name": "dresden",
        "hosts": ["dre-cfg-01", "dre-cfg-02"],
        "servers": [
            *(
                {**common, **server, **({**new, **alone} if server["name"] in replaced else left)}
                for server in servers
            ),
            {"name": "scs", "type": "SCS", "host": "dre-cfg-02"},
        ],
    }


_ALONE: Mapping[str, Any] = {
    "name": "essen",
    "hosts": ["ess-cfg-01"],
    "servers": [
        {
            "name": "confserv",
            "type": "ConfigurationServer",
            "host": "ess-cfg-01",
            "version": "8.5.101",
            "kept-version": "8.1.3",
            "database": "upgraded",
        },
        {"name": "scs", "type": "SCS", "host": "ess-cfg-01"},
    ],
}


def _back(
    world: Mapping[str, Any],
    to: str,
    *visited: str,
    first: str = "confserv_b",
    second: str = "confserv",
    **answers: str,
) -> Scenario:
    """`answers` are those of the rollback, with underscores for hyphens."""
    return Scenario(
        expected=Expected(ending="completed", visited=visited),
        world=world,
        targets=_MASTERS,
        parameters={"back-to": to, **{name.replace("_", "-"): text for name, text in answers.items()}},
        bindings={"first": first, "second": second, "server": "confserv"},
    )


_TOOK_SECOND = ("stop-second", "reset-second", "start-second")
_UNTOUCHED = {"first": "confserv", "second": "confserv_b"}
_ROLLBACKS = {
    "rollback-operational": {
        "both-upgraded": _back({"world": "dresden"}, "8.5.100", *_TOOK_SECOND, second_replaced="true"),
        "one-upgraded": _back({"world": "dresden"}, "8.5.100", "start-first", second_replaced="false"),
    },
    "rollback-both-down": {
        "older": _back(
            _upgraded("8.1.3"),
            "8.1.3",
            *_TOOK_SECOND,
            master_operational="true",
            second_replaced="true",
            former_database="false",
        ),
        "former-database": _back(
            _upgraded("8.5.100", database="upgraded"),
            "8.5.100",
            *_TOOK_SECOND,
            master_operational="false",
            second_replaced="true",
            former_database="true",
        ),
        "one-replaced": _back(
            _upgraded("8.1.3", replaced=("confserv_b",)),
            "8.1.3",
            "start-first",
            master_operational="true",
            second_replaced="false",
            former_database="false",
        ),
    },
    "rollback-immediate": {
        "same-database": _back(
            _upgraded("8.1.3", replaced=("confserv_b",)),
            "8.1.3",
            "start-first",
            former_database="false",
            **_UNTOUCHED,
        ),
        "former-database": _back(
            _upgraded("8.1.3", database="upgraded", replaced=("confserv_b",)),
            "8.1.3",
            "start-first",
            former_database="true",
            **_UNTOUCHED,
        ),
    },
    "rollback-folders": {
        "database-stays": _back(
            {"world": "dresden"},
            "8.5.100",
            "reset-all",
            "start-second",
            database_restore="false",
            second_replaced="true",
        ),
        "database-restored": _back(
            _upgraded("8.1.3"),
            "8.1.3",
            *("restore-database", "stop-both", "databases-online"),
            database_restore="true",
            second_replaced="true",
        ),
        "one-replaced": _back(
            _upgraded("8.1.3", replaced=("confserv_b",)),
            "8.1.3",
            "reset-all",
            database_restore="false",
            second_replaced="false",
        ),
    },
    "rollback-standalone": {
        "same-database": _back(
            {**_ALONE, "servers": [{**one, "database": "old"} for one in _ALONE["servers"]]},
            "8.1.3",
            "start-server",
            master_operational="true",
            former_database="false",
            database_restore="false",
        ),
        "former-database": _back(
            _ALONE,
            "8.1.3",
            "start-server",
            master_operational="true",
            former_database="true",
            database_restore="false",
        ),
        "database-restored": _back(
            _ALONE,
            "8.1.3",
            *("restore-database", "databases-online"),
            master_operational="false",
            former_database="false",
            database_restore="true",
        ),
    },
}


def _list(**parameters: str) -> Scenario:
    """A list of things to do without servers of its own; underscores stand for hyphens."""
    return Scenario(
        expected=COMPLETED,
        world={"world": "essen"},
        targets=_MASTERS,
        parameters={name.replace("_", "-"): text for name, text in parameters.items()},
        environment={"disaster_recovery": True},
    )


_DATABASE = {"target_schema": "8.5.1", "keep_database_until": "2030-12-31"}
_DORMANT = Scenario(
    expected=Expected(ending="completed", visited=("replicate", "install-copy", "replace-copy")),
    world={"world": "erfurt"},
    targets=_MASTERS,
    parameters={"database-upgraded": "true"},
    bindings={"copy": "confserv_dr"},
    environment={"disaster_recovery": True},
)
_DORMANT_SAME = replace(
    _DORMANT,
    expected=Expected(ending="completed", visited=("install-copy", "replace-copy")),
    parameters={"database-upgraded": "false"},
)


SCENARIOS: dict[str, dict[str, Scenario]] = {
    "config-server-ha": {
        **{name: _pair(name, expected) for name, expected in _HA.items()},
        "database-upgraded": _UPGRADED,
        **_UPGRADED_AND_WRONG,
        **_again_in_upgrade_mode(_pair("automatic", COMPLETED)),
        # Nobody logs client totals, so the crew proves by reconnection that all clients have moved.
        "by-reconnection": replace(_pair("automatic", COMPLETED), world={"world": "frankfurt", "clients": 0}),
    },
    "lca": _LCA,
    "management-layer": _MANAGEMENT_LAYER,
    "config-server-standalone": _STANDALONE,
    "config-server-ha-same-schema": _SAME_SCHEMA,
    "config-server-proxy": {"single": _proxies(server="csproxy_c")},
    "config-server-proxy-ha": {
        "automatic": _proxies(COMPLETED, "automatic", **_PROXY_PAIR),
        "forced": _proxies(
            Expected(ending="completed", visited=("force-upgrade-mode",)), "forced", **_PROXY_PAIR
        ),
        "compatible": _proxies(Expected(ending="compatible"), "compatible", **_PROXY_PAIR),
        "same-schema": _proxies(_HELD_AT_LAUNCH, "same-schema", **_PROXY_PAIR),
        "other-master": replace(
            _proxies(_HELD_AT_LAUNCH, "automatic", **_PROXY_PAIR), slips={"launch-new": OTHER_DATABASE}
        ),
        **_again_in_upgrade_mode(_proxies(COMPLETED, "automatic", **_PROXY_PAIR)),
    },
    "disaster-recovery": {"database-upgraded": _DORMANT, "same-database": _DORMANT_SAME},
    "database-migration": {
        "schema": _list(**_DATABASE, convert_languages="false"),
        "languages": _list(**_DATABASE, convert_languages="true"),
        "one-site": replace(_list(**_DATABASE, convert_languages="false"), environment={}),
    },
    "log-database-schema": {"schema": _list(target_schema="8.5.1")},
    "lrm-removal": {"uninstall": _list()},
    **_ROLLBACKS,
}
