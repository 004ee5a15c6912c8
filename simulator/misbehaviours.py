"""What can go wrong in a world on request. Some act at once, some stay until they are ended (`value` false).

The log faults (rotate-log, truncate-log, shrink-log, unknown-format) act at once, or with the value
"on-start" in the middle of the server's next start.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from simulator import reactions
from simulator.logs import event_line, free_line
from simulator.model import Refused, Server

if TYPE_CHECKING:
    from simulator.world import World

STANDING = {
    "no-25301": "The new server does not notice that its peer is older; 21-25301 is missing.",
    "wrong-database": "At its next start the server opens the other database.",
    "slow-lca": "The LCA of the host takes that many seconds (20) for a stop or a change of mode.",
    "crash-while-initializing": "The server ends while it initializes, that many times (1).",
    "slow-start": "The server needs that many times as long to initialize (10).",
    "silent": "The server works but logs nothing.",
    "wrong-section": "The next installation names the section of the configuration file wrongly.",
}
DEFAULTS: dict[str, Any] = {"slow-lca": 20, "crash-while-initializing": 1, "slow-start": 10}
LOG_FAULTS = {
    "rotate-log": "The server begins a new log segment.",
    "truncate-log": "The log is copied away and emptied; the server writes on.",
    "shrink-log": "The log loses its second half.",
    "unknown-format": "The server writes a line in an unknown format.",
}
OTHERS = {
    "split-brain": "The backup of the pair turns primary too; on-start: as soon as the server is backup.",
    "clock-skew": "The clock of the host is off by that many seconds (300).",
    "log-burst": "The server logs that many lines at once (100,000); one in a hundred is an event.",
    "agent-down": "The agent of the host does not run.",
}
MISBEHAVIOURS = {**STANDING, **LOG_FAULTS, **OTHERS}


def perform(world: World, wish: Any) -> str:
    """Begin or end what is wished: {"what", "server"? or "host"?, "value"?}. Without a server it concerns all
    of them."""
    if not isinstance(wish, dict) or wish.get("what") not in list(MISBEHAVIOURS):
        raise Refused(f"What shall go wrong? One of: {', '.join(MISBEHAVIOURS)}.")
    unknown = sorted(set(wish) - {"what", "server", "host", "value"})
    if unknown:
        raise Refused(f"Unknown parameter {', '.join(unknown)}. There are: what, server, host, value.")
    server = world.server(wish["server"]) if wish.get("server") is not None else None
    host = wish.get("host")
    if host is not None and host not in world.spec["hosts"]:
        raise Refused(f"There is no host {host!r} here. There are: {', '.join(world.spec['hosts'])}.")
    return set_misbehaviour(world, wish["what"], server, host, wish.get("value", True))


def set_misbehaviour(world: World, what: str, server: Server | None, host: str | None, value: Any) -> str:
    """The same with checked names. Raises Refused if the value does not fit."""
    if what in ("clock-skew", "agent-down"):
        hosts = [server.host] if server else [host] if host else world.spec["hosts"]
        return _on_hosts(world, what, hosts, value)
    targets = [server] if server else [one for one in world.servers.values() if host in (None, one.host)]
    if what == "slow-lca" and server is not None:
        targets = [one for one in world.servers.values() if one.host == server.host]
    if what == "slow-lca":
        targets = [one for one in targets if one.type == "LCA"]
    for target in targets:
        _on_server(world, what, target, value)
    names = ", ".join(target.name for target in targets) or "nothing here"
    return f"{what} {'is over' if value is False else 'is on'} for {names}."


def _on_hosts(world: World, what: str, hosts: list[str], value: Any) -> str:
    where = ", ".join(hosts)
    if what == "agent-down":
        others = [host for host in world.agents_down if host not in hosts]
        world.agents_down = others if value is False else sorted([*others, *hosts])
        return f"The agent on {where} {'runs again' if value is False else 'is stopped'}."
    seconds = 0.0 if value is False else 300.0 if value is True else _number(what, value, -86400)
    for host in hosts:
        world.skew[host] = seconds
    return f"The clock on {where} is off by {seconds:g} s."


def _on_server(world: World, what: str, server: Server, value: Any) -> None:
    if value is False:
        was = server.misbehaviours.pop(what, None)
        if what == "split-brain" and was == "in effect":
            _heal(world, server)
        return
    if what in LOG_FAULTS:
        if value == "on-start":
            server.misbehaviours[what] = value
        elif server.up and server.log_name:
            _LOG_FAULT[what](world, server)
        return
    if what == "split-brain":
        _split(world, server, value)
        return
    if what == "log-burst":
        count = 100_000 if value is True else int(_number(what, value, 1, 5_000_000))
        if server.up:
            _burst(world, server, count)
        return
    default = DEFAULTS.get(what, True)
    server.misbehaviours[what] = (
        default if value is True else _number(what, value, 0) if what in DEFAULTS else True
    )


def _number(what: str, value: Any, low: float, high: float = 86400) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise Refused(f"{what} takes a number from {low:g} to {high:.0f}, true or false.")
    return value


def _split(world: World, server: Server, value: Any) -> None:
    if value == "on-start":
        server.misbehaviours["split-brain"] = value
        return
    for member in world.members(server.pair):
        if member.mode == "backup":
            reactions.split_brain(world, member.name, member.life)


def _heal(world: World, server: Server) -> None:
    if server.mode == "primary" and any(
        other.serves for other in world.members(server.pair) if other is not server
    ):
        for scs in world.servers.values():
            if scs.type == "SCS" and scs.mode == "primary":
                world.event(scs, 10330)
        reactions.become(world, server, "backup")


def log_faults_on_start(world: World, server: Server) -> None:
    """Let the log faults happen that wait for a start, once."""
    for what, do in _LOG_FAULT.items():
        if server.misbehaviours.pop(what, None) is not None and server.log_name:
            do(world, server)


def _rotate(world: World, server: Server) -> None:
    world.open_log(server, server.log_segment + 1)


def _truncate(world: World, server: Server) -> None:
    world.log_file(server).truncate()
    reactions.check_point_of(world, server)


def _shrink(world: World, server: Server) -> None:
    world.log_file(server).shrink()


def _burst(world: World, server: Server, count: int) -> None:
    """Debug output as a busy server writes it, with no end of messages from clients in between."""
    at, layout = world.log_time(server), world.layout(server)
    said = free_line(layout, at, "[HISTORYDB]: Data record has been written")
    message = event_line(
        layout, at, "Trc", 4541, "Message MSGCFG_GETOBJECTINFO received from 16 (SCE 'default')"
    )
    hundred = [message, *[said] * 99]
    world.lines(server, (hundred * -(-count // 100))[:count])


def _unknown(world: World, server: Server) -> None:
    world.lines(server, ["<14>1 simulated;WARN;a line in a format that nobody described;#0815"])


_LOG_FAULT: dict[str, Callable[[World, Server], None]] = {
    "rotate-log": _rotate,
    "truncate-log": _truncate,
    "shrink-log": _shrink,
    "unknown-format": _unknown,
}
