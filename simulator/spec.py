"""The JSON text that a world is made from, checked strictly: every mistake is named, unknown keys are
refused."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from simulator.logs import MESSAGE_FORMATS, TIME_FORMATS
from simulator.model import DATABASES
from simulator.scenarios import SCENARIOS

WORLD_KEYS = {"name", "hosts", "servers", "scenario", "seed", "speed", "clients", "target", "utc-offset"}
SERVER_KEYS = {
    "name",
    "type",
    "host",
    "version",
    "role",
    "peer",
    "port",
    "clients",
    "log-format",
    "time-format",
    "kept-version",
    "database",
    "kept-database",
    "down",
    "dormant",
}
HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,61}[A-Za-z0-9])?")
NAME = re.compile(r"[^\x00-\x1f\x7f\[\]/\\|]{1,64}")
TYPE = re.compile(r"[A-Za-z]{2,40}")
VERSION = re.compile(r"\d{1,4}(?:\.\d{1,4}){1,4}")
WORLD_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")


class BadSpec(ValueError):
    """A specification with mistakes; `mistakes` lists all of them."""

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("The world cannot be made: " + " ".join(mistakes))
        self.mistakes = mistakes


def frankfurt(scenario: str = "automatic") -> dict[str, Any]:
    """The world of the demo: a pair of Configuration Servers, one SCS, a Message Server, 84 clients."""
    return {
        "name": "frankfurt",
        "hosts": ["fra-cfg-01", "fra-cfg-02", "fra-scs-01"],
        "servers": [
            {
                "name": "confserv",
                "type": "ConfigurationServer",
                "host": "fra-cfg-01",
                "role": "primary",
                "peer": "confserv_b",
            },
            {
                "name": "confserv_b",
                "type": "ConfigurationServer",
                "host": "fra-cfg-02",
                "role": "backup",
                "peer": "confserv",
            },
            {"name": "scs", "type": "SCS", "host": "fra-scs-01", "version": "8.5.100"},
            {"name": "messageserver", "type": "MessageServer", "host": "fra-scs-01", "version": "8.5.100"},
        ],
        "scenario": scenario,
        "clients": 84,
    }


def hamburg(scenario: str = "automatic") -> dict[str, Any]:
    """Pairs of the Management Layer: two SCS and two Message Servers, each on a host of its own, and a single
    Message Server beside one of the SCS."""
    return {
        "name": "hamburg",
        "hosts": ["ham-app-01", "ham-app-02", "ham-scs-01", "ham-scs-02"],
        "servers": [
            {"name": "scs_a", "type": "SCS", "host": "ham-scs-01", "role": "primary", "peer": "scs_b"},
            {"name": "scs_b", "type": "SCS", "host": "ham-scs-02", "role": "backup", "peer": "scs_a"},
            {
                "name": "msg_a",
                "type": "MessageServer",
                "host": "ham-app-01",
                "role": "primary",
                "peer": "msg_b",
            },
            {
                "name": "msg_b",
                "type": "MessageServer",
                "host": "ham-app-02",
                "role": "backup",
                "peer": "msg_a",
            },
            {"name": "msg_local", "type": "MessageServer", "host": "ham-scs-02"},
        ],
        "scenario": scenario,
        "clients": 0,
    }


def _pair(
    first: str, second: str, hosts: tuple[str, str], kind: str = "ConfigurationServer", **more: Any
) -> list[dict[str, Any]]:
    """A primary and its backup."""
    common = {"type": kind, **more}
    return [
        {**common, "name": first, "host": hosts[0], "role": "primary", "peer": second},
        {**common, "name": second, "host": hosts[1], "role": "backup", "peer": first},
    ]


def _with_clients(clients: int, servers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that serve have so many clients each."""
    return [{**one, "clients": 0 if one.get("role") == "backup" else clients} for one in servers]


def essen(scenario: str = "automatic") -> dict[str, Any]:
    """A Configuration Server that stands alone, and one SCS."""
    return {
        "name": "essen",
        "hosts": ["ess-cfg-01", "ess-scs-01"],
        "servers": [
            {"name": "confserv", "type": "ConfigurationServer", "host": "ess-cfg-01"},
            {"name": "scs", "type": "SCS", "host": "ess-scs-01"},
        ],
        "scenario": scenario,
        "clients": 40,
    }


def munich(scenario: str = "automatic") -> dict[str, Any]:
    """Masters that are upgraded already, a pair of proxies and a proxy that stands alone."""
    proxy = "ConfigurationServerProxy"
    return {
        "name": "munich",
        "hosts": ["muc-cfg-01", "muc-cfg-02", "muc-prx-01", "muc-prx-02", "muc-prx-03"],
        "servers": [
            *_pair("confserv", "confserv_b", ("muc-cfg-01", "muc-cfg-02"), version="8.5.101", clients=0),
            *_with_clients(40, _pair("csproxy", "csproxy_b", ("muc-prx-01", "muc-prx-02"), proxy)),
            {"name": "csproxy_c", "type": proxy, "host": "muc-prx-03", "clients": 20},
            {"name": "scs", "type": "SCS", "host": "muc-cfg-02"},
        ],
        "scenario": scenario,
        "clients": 60,
    }


def dresden(scenario: str = "automatic") -> dict[str, Any]:
    """A pair that was upgraded from 8.5.100, with the folders of the old version kept; as `servers`, `_pair` makes the
    same with others."""
    pair = _pair("confserv", "confserv_b", ("dre-cfg-01", "dre-cfg-02"), version="8.5.101")
    return {
        "name": "dresden",
        "hosts": ["dre-cfg-01", "dre-cfg-02"],
        "servers": [
            *({**server, "kept-version": "8.5.100"} for server in pair),
            {"name": "scs", "type": "SCS", "host": "dre-cfg-02"},
        ],
        "scenario": scenario,
        "clients": 84,
    }


def erfurt(scenario: str = "automatic") -> dict[str, Any]:
    """An upgraded pair, and its dormant copies at another site."""
    active = _pair("confserv", "confserv_b", ("erf-cfg-01", "erf-cfg-02"), version="8.5.101")
    copies = _pair("confserv_dr", "confserv_dr_b", ("jen-cfg-01", "jen-cfg-02"), dormant=True, clients=0)
    return {
        "name": "erfurt",
        "hosts": ["erf-cfg-01", "erf-cfg-02", "jen-cfg-01", "jen-cfg-02"],
        "servers": [*active, *copies, {"name": "scs", "type": "SCS", "host": "erf-cfg-02"}],
        "scenario": scenario,
        "clients": 84,
    }


def two_sites(scenario: str = "automatic") -> dict[str, Any]:
    """All of 8.1.3 at two sites with 40 hosts: a pair of masters, two pairs of proxies and two proxies that stand alone,
    a pair of SCS, a pair of Message Servers, and hosts that have nothing but their LCA."""
    proxy, old = "ConfigurationServerProxy", {"version": "8.1.3"}
    return _all_old(
        "two-sites",
        [
            *_pair("confserv", "confserv_b", ("fra-cfg-01", "fra-cfg-02"), **old),
            *_pair("scs_a", "scs_b", ("fra-scs-01", "fra-scs-02"), "SCS", **old),
            *_pair("msg_a", "msg_b", ("fra-msg-01", "fra-msg-02"), "MessageServer", **old),
            *_with_clients(
                40,
                [
                    *_pair("csproxy_f1", "csproxy_f2", ("fra-prx-01", "fra-prx-02"), proxy, **old),
                    *_pair("csproxy_h1", "csproxy_h2", ("ham-prx-01", "ham-prx-02"), proxy, **old),
                    {"name": "csproxy_f3", "type": proxy, "host": "fra-prx-03", **old},
                    {"name": "csproxy_h3", "type": proxy, "host": "ham-prx-03", **old},
                ],
            ),
        ],
        [f"fra-app-{number:02}" for number in range(1, 12)]
        + [f"ham-app-{number:02}" for number in range(1, 18)],
        scenario,
    )


def two_small_sites(scenario: str = "automatic") -> dict[str, Any]:
    """The like of `two_sites` with 8 hosts, and a DB Server."""
    proxy, old = "ConfigurationServerProxy", {"version": "8.1.3"}
    return _all_old(
        "two-small-sites",
        [
            *_pair("confserv", "confserv_b", ("fra-cfg-01", "fra-cfg-02"), **old),
            *_pair("scs_a", "scs_b", ("fra-scs-01", "fra-scs-02"), "SCS", **old),
            {"name": "msg", "type": "MessageServer", "host": "fra-cfg-01", **old},
            {"name": "dbserver", "type": "RealDBServer", "host": "fra-scs-02", **old},
            *_with_clients(20, _pair("csproxy", "csproxy_b", ("ham-prx-01", "ham-prx-02"), proxy, **old)),
            {"name": "csproxy_c", "type": proxy, "host": "ham-prx-03", "clients": 20, **old},
        ],
        ["ham-app-01"],
        scenario,
    )


def _all_old(name: str, servers: list[dict[str, Any]], others: list[str], scenario: str) -> dict[str, Any]:
    """A world of these servers and `others`, hosts without any; each host has an LCA of 8.1.3."""
    hosts = [*dict.fromkeys(server["host"] for server in servers), *others]
    agents = [{"name": f"lca_{host}", "type": "LCA", "host": host, "version": "8.1.3"} for host in hosts]
    return {"name": name, "hosts": hosts, "servers": [*servers, *agents], "scenario": scenario, "clients": 84}


WORLDS = {
    "frankfurt": frankfurt,
    "hamburg": hamburg,
    "essen": essen,
    "munich": munich,
    "dresden": dresden,
    "erfurt": erfurt,
    "two-sites": two_sites,
    "two-small-sites": two_small_sites,
}


def path_name(name: str) -> str:
    """A file name made of an application's name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).lstrip(".") or "_"


def complete(given: Any) -> dict[str, Any]:
    """The specification with every default filled in, an LCA added on each host. Raises BadSpec."""
    if not isinstance(given, dict):
        raise BadSpec(["A specification is a JSON object."])
    mistakes = _world_mistakes(given)
    if mistakes:
        raise BadSpec(mistakes)
    scenario = SCENARIOS[given.get("scenario", "automatic")]
    spec = {
        "name": given["name"],
        "hosts": list(given["hosts"]),
        "scenario": scenario.name,
        "target": given.get("target", scenario.target),
        "seed": given.get("seed", 1),
        "speed": float(given.get("speed", 1.0)),
        "clients": given.get("clients", 84),
        "utc-offset": given.get("utc-offset", 0),
    }
    servers = [_with_defaults(server, scenario.old_version) for server in given["servers"]]
    served = {server["host"] for server in servers if server["type"] == "LCA"}
    servers += [
        _with_defaults({"name": f"lca_{host}", "type": "LCA", "host": host}, "8.5.100")
        for host in spec["hosts"]
        if host not in served
    ]
    _give_clients(servers, spec["clients"])
    mistakes = _server_mistakes(servers, spec["hosts"])
    if mistakes:
        raise BadSpec(mistakes)
    return {**spec, "servers": servers}


def _with_defaults(server: dict[str, Any], old_version: str) -> dict[str, Any]:
    configuration = server["type"].startswith("ConfigurationServer")
    manager = server["type"] in {"SCS", "LCA"}
    return {
        "version": old_version if configuration else "8.5.100",
        "role": "primary",
        "peer": None,
        "port": 0,
        "clients": None,
        "log-format": "full" if manager else "short",
        "time-format": "iso8601" if manager else "time",
        "kept-version": None,
        "database": "old",
        "kept-database": "old",
        "dormant": False,
        "down": bool(server.get("dormant")),
        **server,
    }


def _give_clients(servers: list[dict[str, Any]], total: int) -> None:
    """The world's clients are those of the first primary Configuration Server, unless a server names its
    own."""
    rest = total
    for server in servers:
        if server["clients"] is None:
            first = server["type"] == "ConfigurationServer" and server["role"] == "primary"
            server["clients"], rest = (rest, 0) if first else (0, rest)


def _matches(pattern: re.Pattern[str], value: Any) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _is_number(value: Any, low: float, high: float, *, whole: bool = True) -> bool:
    kinds = (int,) if whole else (int, float)
    return isinstance(value, kinds) and not isinstance(value, bool) and low <= value <= high


def _world_mistakes(given: dict[str, Any]) -> list[str]:
    mistakes = [f"Unknown key {key!r}." for key in sorted(set(given) - WORLD_KEYS)]
    if not _matches(WORLD_NAME, given.get("name")):
        mistakes.append("name: small letters, digits and hyphens, at most 40.")
    hosts = given.get("hosts")
    if not isinstance(hosts, list) or not hosts or not all(_matches(HOST, host) for host in hosts):
        mistakes.append("hosts: a list of host names, at least one.")
    elif len(set(hosts)) < len(hosts):
        mistakes.append("hosts: a host stands there twice.")
    if str(given.get("scenario", "automatic")) not in SCENARIOS:
        mistakes.append(f"scenario: one of {', '.join(SCENARIOS)}.")
    if not _matches(VERSION, given.get("target", "8.5")):
        mistakes.append("target: a version such as 8.5.101.")
    for key, low, high, whole in (
        ("seed", 0, 2**31, True),
        ("speed", 0.01, 10000, False),
        ("clients", 0, 100000, True),
        ("utc-offset", -50400, 50400, True),
    ):
        if key in given and not _is_number(given[key], low, high, whole=whole):
            mistakes.append(f"{key}: a number from {low} to {high}.")
    servers = given.get("servers")
    if not isinstance(servers, list) or not servers:
        return [*mistakes, "servers: a list of servers, at least one."]
    for number, server in enumerate(servers, 1):
        mistakes += _shape_mistakes(number, server)
    return mistakes


def _shape_mistakes(number: int, server: Any) -> list[str]:
    if not isinstance(server, dict):
        return [f"Server {number} is not an object."]
    mistakes = [f"Server {number}: unknown key {key!r}." for key in sorted(set(server) - SERVER_KEYS)]
    checks = {
        "name": _matches(NAME, server.get("name")),
        "type": _matches(TYPE, server.get("type")),
        "host": isinstance(server.get("host"), str),
        "version": _matches(VERSION, server.get("version", "8.5")),
        "role": server.get("role", "primary") in ("primary", "backup"),
        "peer": isinstance(server.get("peer"), str | None),
        "port": _is_number(server.get("port", 0), 0, 65535),
        "clients": server.get("clients") is None or _is_number(server["clients"], 0, 100000),
        "log-format": server.get("log-format", "short") in MESSAGE_FORMATS,
        "time-format": server.get("time-format", "time") in TIME_FORMATS,
        "kept-version": server.get("kept-version") is None or _matches(VERSION, server["kept-version"]),
        "database": server.get("database", "old") in DATABASES,
        "kept-database": server.get("kept-database", "old") in DATABASES,
        "down": isinstance(server.get("down", False), bool),
        "dormant": isinstance(server.get("dormant", False), bool),
    }
    return mistakes + [
        f"Server {number}: {key} is missing or not valid." for key, good in checks.items() if not good
    ]


def _server_mistakes(servers: list[dict[str, Any]], hosts: list[str]) -> list[str]:
    by_name = {server["name"]: server for server in servers}
    counted = Counter(path_name(server["name"]) for server in servers)
    mistakes = [f"Two servers would share the name {name!r}." for name, times in counted.items() if times > 1]
    for server in servers:
        name, peer = server["name"], by_name.get(server["peer"] or "")
        if server["host"] not in hosts:
            mistakes.append(f"{name}: host {server['host']!r} is not in hosts.")
        if not server["peer"]:
            continue
        if peer is None:
            mistakes.append(f"{name}: its peer {server['peer']!r} is not there.")
        elif peer["peer"] != name or peer["type"] != server["type"] or peer["role"] == server["role"]:
            mistakes.append(
                f"{name} and {peer['name']}: a pair names each other, has one type and one primary."
            )
    return mistakes
