"""How the world reacts: what happens when a server starts, stops or ends, and what clients, SCS and LCA do
about it.

A Configuration Server's start is one of the sequences below, chosen by `model.manner_of_start`. Times are
simulated seconds after the start. In upgrade mode a server counts as primary before it is ready: SCS then
finds two primaries and orders the new one to become backup, which it refuses (CSH-6e).
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from simulator.logs import iso, local
from simulator.model import Refused, Server, manner_of_start

if TYPE_CHECKING:
    from simulator.world import World

CHECK_POINT_SECONDS = 3600.0  # the default of the log option `check-point`; real seconds, whatever the speed
FAULTS_AT = 1.1  # log faults that wait for a start: after 21-25301, before 21-22170
CRASH_AT = 2.2
PROMOTION_SECONDS = 1.0
ARRIVAL_SECONDS = 0.5
ARRIVALS = 12  # in so many groups clients come over
LEAVINGS = 4

Sequence = tuple[tuple[float, str, dict[str, Any]], ...]

_UPGRADE_MODE: Sequence = (
    (0.4, "log-event", {"number": 22911}),
    (1.4, "order-backup", {}),
    (3.4, "order-backup", {}),
    (4.0, "log-event", {"number": 22902}),
    (5.4, "order-backup", {}),
    (7.0, "ready", {"mode": "upgrade-mode"}),
)

SEQUENCES: dict[str, Sequence] = {
    "detected": ((0.9, "claim", {"number": 25301}), *_UPGRADE_MODE),
    "forced": ((0.9, "claim", {"number": 25300}), *_UPGRADE_MODE),
    "compatible": (
        (0.4, "log-event", {"number": 22911}),
        (2.0, "log-event", {"number": 22902}),
        (4.0, "ready", {"mode": "backup"}),
    ),
    "same-schema": (
        (0.4, "log-event", {"number": 22911}),
        (1.5, "log-event", {"number": 25303}),
        (4.0, "ready", {"mode": "backup"}),
    ),
    # CSH-6b, and a remaining server that was not pointed to the upgraded database (CSH-8b): both stay where
    # they are.
    "not-detected": ((0.4, "log-event", {"number": 22911}), (2.0, "log-event", {"number": 22902})),
    "database-differs": ((0.4, "log-event", {"number": 22911}), (2.0, "log-event", {"number": 22902})),
    "peer-newer": ((0.4, "log-event", {"number": 22911}), (1.5, "crash", {"why": "its peer is newer"})),
    "alone": ((3.0, "ready", {"mode": "primary"}),),
    "plain": ((2.0, "ready", {"mode": "primary"}),),
}


# Starting


def stand_from_the_start(world: World, server: Server, clients: int, *, serves: bool) -> None:
    """Let a server run already when the world begins, with its clients connected."""
    _come_up(world, server)
    server.mode = "primary" if serves else "backup"
    if server.configuration:
        _connect(world, server, list(range(clients)), reread=False)
        _sample_record(world, server)


def start(world: World, server: Server) -> None:
    """Start a server that is down; the rest happens as the world's time passes."""
    managers = _managers(world)
    for lca in _lca(world, server):
        requester = managers[0].name if managers else "manual start"
        world.say(
            lca, f"{requester}: [RequestStartApplication]", (f"  CREATE Application {_app(server, pid=0)},",)
        )
    if server.misbehaviours.get("wrong-database"):
        server.misbehaviours["wrong-database"] = "in effect"
    _come_up(world, server)
    _tell_management(world, server, before="down")
    if server.type == "SCS":
        for lca in _running(world, "LCA"):
            world.say(lca, f"CREATE SCSRequester {server.dbid}:{server.dbid + 6}, '{server.name}')")
    manner = "plain"
    if server.configuration:
        manner = manner_of_start(
            server,
            world.peer(server),
            world.scenario.behaviour,
            undetected=bool(server.misbehaviours.get("no-25301")),
        )
    slow = float(server.misbehaviours.get("slow-start", 1))
    _plan(world, server, SEQUENCES[manner], slow)


def _plan(world: World, server: Server, sequence: Sequence, slow: float) -> None:
    for delay, name, args in sorted(sequence, key=lambda row: row[0]):
        world.later(delay * slow + 0.05 * world.chance(), name, server=server.name, life=server.life, **args)
    world.later(FAULTS_AT * slow, "log-faults", server=server.name, life=server.life)
    crashes = int(server.misbehaviours.get("crash-while-initializing", 0))
    if crashes:
        world.later(
            CRASH_AT * slow, "crash", server=server.name, life=server.life, why="it was told to", counted=True
        )


def _come_up(world: World, server: Server) -> None:
    server.mode, server.stopping, server.claims_primary = "initializing", False, False
    server.life += 1
    server.read_only_logged = False
    wrong = bool(server.misbehaviours.get("wrong-database"))
    server.database_read = _other(server.current.database) if wrong else server.current.database
    world.disk.set_pid(server, os.getpid())
    world.open_log(server)
    world.event(server, 5060)


def _other(database: str) -> str:
    return "old" if database == "upgraded" else "upgraded"


# Effects: each is called with what was due. `life` is the start it belongs to; after a stop it is void.


def _alive(world: World, name: str, life: int) -> Server | None:
    server = world.servers[name]
    return server if server.up and server.life == life else None


def log_event(world: World, server: str, life: int, number: int) -> None:
    if alive := _alive(world, server, life):
        world.event(alive, number)


def claim(world: World, server: str, life: int, number: int) -> None:
    """The server enters upgrade mode and acts as primary from here (CSH-6d)."""
    if alive := _alive(world, server, life):
        world.event(alive, number)
        alive.claims_primary = True
        watch_pair(world, alive)


def order_backup(world: World, server: str, life: int, again: float = 0) -> None:
    """SCS finds two primaries and orders the new one to become backup; the server refuses (CSH-6e)."""
    alive = _alive(world, server, life)
    if alive is None or not alive.claims_primary:
        return
    peer = world.peer(alive)
    if peer is None or not peer.counts_as_primary:
        return
    if world.managed():
        for scs in _managers(world):
            order = f"<{alive.dbid},{alive.name}> from 'primary' to 'backup'"
            world.say(scs, f"##### Request change RUNMODE for Application {order}")
        for lca in _lca(world, alive):
            world.say(lca, "scs: [RequestChangeAppRunMode]", (f"  to Backup for App{_app(alive)}",))
        world.event(alive, 25302)
    if again:
        # SCS keeps asking, but a world that nobody looks at must not fill a disk.
        following = min(again * 2, 3600)
        world.later(again, "order-backup", server=server, life=life, again=following)


def ready(world: World, server: str, life: int, mode: str) -> None:
    """The server has initialized and takes its mode."""
    alive = _alive(world, server, life)
    if alive is None:
        return
    peer = world.peer(alive)
    if mode == "primary" and peer is not None and peer.serves:
        mode = "backup"
    if alive.configuration and mode == "upgrade-mode":
        upgraded = alive.database_read == "upgraded"
        if peer is not None and peer.serves:
            upgraded = alive.database_read != peer.database_read
        world.event(alive, 22171 if upgraded else 22170)  # CSH-6f
        world.later(10, "order-backup", server=server, life=life, again=20)
    if alive.configuration and mode == "backup":
        world.event(alive, 22172)
    become(world, alive, mode)
    if mode == "backup" and alive.misbehaviours.get("split-brain") == "on-start":
        world.later(3, "split-brain", server=server, life=life)


def become(world: World, server: Server, mode: str) -> None:
    """Change the mode of a running server and let management and clients notice."""
    before, server.mode = server.mode, mode
    if server.type == "SCS":
        world.say(server, f"SelfServer: Internal Change RUNMODE from '{before}' to '{mode}'")
    else:
        world.say(server, f"(simulated text) run mode changed from '{before}' to '{mode}'")
    _tell_management(world, server, before)
    watch_pair(world, server)
    invite(world, server.pair)
    if server.type == "SCS" and mode == "primary":
        _look_for_pairs_without_primary(world)


def crash(world: World, server: str, life: int, why: str, counted: bool = False) -> None:
    alive = _alive(world, server, life)
    if alive is None:
        return
    if counted:
        left = int(alive.misbehaviours.get("crash-while-initializing", 0)) - 1
        alive.misbehaviours["crash-while-initializing"] = left
        if left <= 0:
            del alive.misbehaviours["crash-while-initializing"]
    world.note(f"{server} ended unexpectedly: {why}.")
    fall(world, alive)


def fall(world: World, server: Server) -> None:
    """End a server at once, without a word in its log. Its clients are without a server."""
    gone = [index for index, _ in server.clients]
    server.clients = []
    world.waiting.setdefault(server.pair, []).extend(gone)
    _raise_alarm(world, server)
    ended(world, server.name, server.life)


# Stopping


def stop(world: World, server: Server) -> None:
    """Stop a server: its clients leave in groups, then it ends. Without clients it ends at once."""
    for lca in _lca(world, server):
        world.say(lca, f"scs: [RequestStopApplication] App{_app(server)}")
    wait = _lca_delay(world, server)
    server.stopping = True
    if not server.clients and not wait:
        ended(world, server.name, server.life)
        return
    groups = LEAVINGS if server.clients else 0
    for number in range(groups):
        world.later(
            wait + 0.3 * number, "leave", server=server.name, life=server.life, groups=groups - number
        )
    world.later(wait + 0.3 * (groups + 1), "ended", server=server.name, life=server.life)


def leave(world: World, server: str, life: int, groups: int) -> None:
    """One group of clients loses its connection and looks for another server."""
    alive = _alive(world, server, life)
    if alive is None:
        return
    count = math.ceil(len(alive.clients) / groups)
    leaving, alive.clients = alive.clients[:count], alive.clients[count:]
    for index, number in leaving:
        name, kind = client(index)
        detail = f"application [{name}], type [{kind}], protocol [CFGLIB]"
        world.event(alive, 24301, f"Extended info : Client [{number}] disconnected, {detail}", "Trc")
    total(world, alive)
    world.waiting.setdefault(alive.pair, []).extend(index for index, _ in leaving)
    invite(world, alive.pair)


def ended(world: World, server: str, life: int) -> None:
    """The process is gone: SCS promotes the backup if there is one, waiting actions go on."""
    alive = _alive(world, server, life)
    if alive is None:
        return
    before, alive.mode = alive.mode, "down"
    alive.stopping, alive.claims_primary = False, False
    world.disk.clear_pid(alive)
    if alive.type == "SCS":
        for lca in _running(world, "LCA"):
            world.say(lca, f"SCSRequester '{alive.name}' disconnected, fd={alive.dbid + 6}")
    _tell_management(world, alive, before)
    if alive.type == "LCA":
        world.later(_disconnect_timeout(world), "lca-lost", server=server, life=life)
    watch_pair(world, alive)
    invite(world, alive.pair)
    _promote_later(world, alive)
    _do_what_waited(world, alive)


def _do_what_waited(world: World, server: Server) -> None:
    from simulator import actions  # actions need this module

    waiting, server.then = server.then, []
    for action in waiting:
        try:
            world.note(actions.perform(world, action))
        except Refused as refusal:
            world.note(str(refusal))


# Management: SCS and LCA


def _promote_later(world: World, gone: Server) -> None:
    peer = world.peer(gone)
    if peer is None or peer.mode != "backup":
        return
    world.later(PROMOTION_SECONDS + _lca_delay(world, peer), "promote", server=peer.name, life=peer.life)


def promote(world: World, server: str, life: int) -> None:
    """SCS makes a backup primary, if it is still needed and an SCS is there to do it (an SCS does it by
    itself)."""
    alive = _alive(world, server, life)
    if alive is None or alive.mode != "backup" or any(member.serves for member in world.members(alive.pair)):
        return
    if alive.type != "SCS" and not world.managed():
        world.note(f"{server} stays backup: no Solution Control Server runs that could promote it.")
        return
    for scs in _managers(world):
        order = f"<{alive.dbid},{alive.name}> from 'backup' to 'primary'"
        world.say(scs, f"##### Request change RUNMODE for Application {order}")
    become(world, alive, "primary")


def _look_for_pairs_without_primary(world: World) -> None:
    for server in world.servers.values():
        if server.mode == "backup" and not any(member.serves for member in world.members(server.pair)):
            world.later(PROMOTION_SECONDS, "promote", server=server.name, life=server.life)


def split_brain(world: World, server: str, life: int) -> None:
    """A backup turns primary beside a running primary, for no reason of the procedure."""
    alive = _alive(world, server, life)
    if alive is None or alive.mode != "backup":
        return
    alive.misbehaviours["split-brain"] = "in effect"
    for scs in _managers(world):
        world.event(scs, 10329)
    become(world, alive, "primary")
    world.note(f"{server} turned primary beside its peer.")


def lca_lost(world: World, server: str, life: int) -> None:
    """SCS has waited long enough for an LCA: it switches the pairs over that have their primary on that
    host."""
    lca = world.servers[server]
    if lca.up or lca.life != life or not world.managed():
        return
    for stranded in list(world.servers.values()):
        peer = world.peer(stranded)
        if stranded.host != lca.host or not stranded.serves or peer is None or peer.mode != "backup":
            continue
        world.note(f"SCS takes {lca.host} as lost and switches {stranded.name} over to {peer.name}.")
        world.waiting.setdefault(stranded.pair, []).extend(index for index, _ in stranded.clients)
        stranded.clients = []
        become(world, stranded, "backup")
        become(world, peer, "primary")


def watch_pair(world: World, server: Server) -> None:
    """What SCS says about the number of primaries of a pair, and what servers say about read-only mode."""
    _announce_read_only(world)
    if not server.peer:
        return
    primaries = [member for member in world.members(server.pair) if member.counts_as_primary]
    trouble = {0: "none", 1: "normal"}.get(len(primaries), "two")
    if trouble == world.trouble.get(server.pair, "normal"):
        return
    world.trouble[server.pair] = trouble
    number = {"none": 20621, "two": 20622, "normal": 20623}[trouble]
    for scs in _managers(world):
        world.event(scs, number)


def read_only_reasons(world: World, server: Server) -> list[str]:
    """Why a running Configuration Server refuses changes: "person", "upgrade mode", both or nothing."""
    if not server.configuration or not server.up:
        return []
    peer = world.peer(server)
    # CSH-6x: two primaries on one database, one of them in upgrade mode.
    shared = (
        peer is not None
        and server.counts_as_primary
        and peer.counts_as_primary
        and server.database_read == peer.database_read
        and (server.claims_primary or peer.claims_primary)
    )
    return ["person"] * world.read_only + ["upgrade mode"] * bool(shared)


def _announce_read_only(world: World) -> None:
    for server in world.servers.values():
        now = bool(read_only_reasons(world, server))
        if server.up and now != server.read_only_logged:
            server.read_only_logged = now
            world.say(server, f"(simulated text) read-only mode is {'on' if now else 'off'}")


def set_read_only(world: World, on: bool) -> None:
    world.read_only = on
    _announce_read_only(world)


def _tell_management(world: World, server: Server, before: str) -> None:
    status = (
        "Stopped" if server.mode == "down" else "Initializing" if server.mode == "initializing" else "Started"
    )
    mode = "primary" if server.serves else "backup"
    for lca in _lca(world, server):
        world.say(lca, f"Notify STATUS: App{_app(server, status=status, mode=mode)}")
        world.say(lca, f"Notify RUNMODE: App{_app(server, status=status, mode=mode)}")
    for scs in _managers(world):
        if scs is server:
            continue
        pid = 0 if server.mode == "down" else os.getpid()
        who = f"pid={pid} {{{server.dbid}, {server.name}}}"
        world.say(scs, f"'{server.host}': NotifyApp: status= {status} mode={mode} {who}")
        who = f"<DBID={server.dbid}, {server.name}, PID={pid}>"
        world.say(scs, f"AppRunModeChanged newMode='{mode}', App {who}, [prevMode={before}], {status}")


def _raise_alarm(world: World, server: Server) -> None:
    for scs in _managers(world):
        if scs is server:
            continue
        world.event(scs, 10612)
        app = f"<{server.dbid}, {server.name}>"
        world.say(
            scs, f"CREATE ActiveAlarm  <{server.dbid}, Application Failure> for  App={app}...under control=1"
        )


def _app(server: Server, *, pid: int | None = None, status: str = "Started", mode: str = "") -> str:
    number = os.getpid() if pid is None else pid
    shown = mode or ("primary" if server.serves else "backup")
    return f"<{server.dbid}, {server.name}, pid={number}, {status}, {shown}>"


def _managers(world: World) -> list[Server]:
    return [server for server in world.servers.values() if server.type == "SCS" and server.mode == "primary"]


def _running(world: World, kind: str) -> list[Server]:
    return [server for server in world.servers.values() if server.type == kind and server.up]


def _lca(world: World, server: Server) -> list[Server]:
    return [lca for lca in _running(world, "LCA") if lca.host == server.host and lca is not server]


def _lca_delay(world: World, server: Server) -> float:
    return sum(float(lca.misbehaviours.get("slow-lca", 0)) for lca in _lca(world, server))


def _disconnect_timeout(world: World) -> float:
    """Seconds that SCS waits for an LCA: its option, or ten (the real default is not known)."""
    for scs in _managers(world):
        value = scs.current.options.get("general/disconnect-switchover-timeout", "")
        if value.isdigit():
            return float(value)
    return 10.0


# Clients

_KINDS = (
    ("Agent_Desktop", "InteractionWorkspace "),
    ("UR_Server", "RouterServer"),
    ("Stat_Server", "StatServer"),
    ("Supervisor", "SCE"),
)


def client(index: int) -> tuple[str, str]:
    """Name and type of a client; nine in ten are desktops."""
    base, kind = _KINDS[0] if index % 10 else _KINDS[1 + index // 10 % 3]
    return f"{base}_{index + 1:03d}", kind


def total(world: World, server: Server) -> None:
    world.say(server, f"Total number of clients: {len(server.clients)}")


def invite(world: World, pair: str) -> None:
    """Let waiting clients come if a server takes them and none are on their way yet."""
    if world.waiting.get(pair) and pair not in world.arriving and _host_of_clients(world, pair):
        world.arriving.append(pair)
        world.later(ARRIVAL_SECONDS, "arrive", pair=pair, size=math.ceil(_everybody(world, pair) / ARRIVALS))


def arrive(world: World, pair: str, size: int) -> None:
    """One group of clients connects to whoever takes clients now."""
    world.arriving = [other for other in world.arriving if other != pair]
    server = _host_of_clients(world, pair)
    if server is None:
        return
    waiting = world.waiting.get(pair, [])
    coming, world.waiting[pair] = waiting[:size], waiting[size:]
    _connect(world, server, coming, reread=server.mode == "upgrade-mode")
    invite(world, pair)


def _connect(world: World, server: Server, clients: list[int], *, reread: bool) -> None:
    for index in clients:
        number, server.next_client = server.next_client, server.next_client + 1
        name, kind = client(index)
        server.clients.append([index, number])
        world.event(
            server, 24300, f"Extended info : New client [{number}] connected, protocol [cfglib]", "Trc"
        )
        world.event(server, 4522, f"Client {number} authorized, name '{name}', type '{kind}'", "Trc")
        if reread:  # CSH-7n: no sessions are restored in upgrade mode
            objects = f"There are [{40 + index % 60}] objects of type [CfgPerson]"
            receiver = f"sent to the client [{number}] (application [{name}], type [{kind}])"
            world.event(server, 24215, f"{objects} {receiver}", "Trc")
    if clients:
        total(world, server)


def _sample_record(world: World, server: Server) -> None:
    """A record of several lines, as a desktop's first request leaves it."""
    body = (
        "",
        "  MSGCFG_GETOBJECTINFO",
        "  attr: IATRCFG_REQUESTID           value:   90",
        "  attr: IATRCFG_OBJECTTYPE          value:   9 [CfgApplication]",
        "",
        "  Filter :",
        "   key: name                        type:    [String], value : default",
        "  Query  : CfgApplication[ (@name = 'default')]",
    )
    world.event(server, 4541, "Message MSGCFG_GETOBJECTINFO received from 16 (SCE 'default')", "Trc", body)


def _everybody(world: World, pair: str) -> int:
    return len(world.waiting.get(pair, [])) + sum(len(member.clients) for member in world.members(pair))


def _host_of_clients(world: World, pair: str) -> Server | None:
    takers = [server for server in world.members(pair) if server.serves and not server.stopping]
    return min(takers, key=lambda server: server.mode != "primary", default=None)


# Time itself


def check_point(world: World) -> None:
    """The hourly line with the full date."""
    for server in world.servers.values():
        if server.up and server.type != "LCA":
            check_point_of(world, server)
    world.later(CHECK_POINT_SECONDS * world.speed, "check-point")


def check_point_of(world: World, server: Server) -> None:
    moment = iso(local(world.log_time(server), world.spec["utc-offset"])).partition(".")[0]
    world.event(server, 4120, f"Check point {moment}", "Trc")


def log_faults(world: World, server: str, life: int) -> None:
    from simulator import misbehaviours  # it needs this module

    if alive := _alive(world, server, life):
        misbehaviours.log_faults_on_start(world, alive)


EFFECTS: dict[str, Callable[..., None]] = {
    "log-event": log_event,
    "claim": claim,
    "order-backup": order_backup,
    "ready": ready,
    "crash": crash,
    "leave": leave,
    "ended": ended,
    "promote": promote,
    "split-brain": split_brain,
    "lca-lost": lca_lost,
    "arrive": arrive,
    "check-point": check_point,
    "log-faults": log_faults,
}
