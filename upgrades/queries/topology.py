"""An environment as a picture: hosts with their servers, pairs joined, each with its version and its state.

The picture is plain numbers; the template draws them. Two are made, one for a wide page and one for a phone, because
text in a scaled picture cannot be read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from upgrades.domain.environment import LCA
from upgrades.domain.freshness import is_stale
from upgrades.domain.plan import listed
from upgrades.domain.version import NotAVersion, Version
from upgrades.models import Agent, Application, Environment, RunBinding
from upgrades.queries.run_lines import OVER

WIDE_COLUMNS = 4
HOST_WIDTH, SERVER_HEIGHT, HEAD, GAP, SPACE, EDGE, GUTTER = 296, 78, 64, 12, 56, 14, 22

TONES = {"primary": "go", "backup": "act", "upgrade-mode": "wait", "down": "stop"}
MODE_NAMES = {"": "mode not known", "upgrade-mode": "upgrade mode"}


@dataclass(frozen=True, slots=True)
class AgentView:
    """An agent's health. `state`: up, trouble, silent (no news within two polls), new (never heard) or none."""

    state: str
    text: str
    seen_at: datetime | None = None
    since: datetime | None = None
    trouble: str = ""
    version: str = ""
    skew: float = 0.0

    @property
    def is_well(self) -> bool:
        return self.state == "up"

    @property
    def is_stale(self) -> bool:
        """What it told is old: nothing of it may be shown as good."""
        return self.state in ("trouble", "silent")


@dataclass(frozen=True, slots=True)
class VersionView:
    """A version beside its target; `reached` is None when either is not known."""

    version: str
    target: str
    reached: bool | None

    @property
    def text(self) -> str:
        if self.reached is False:
            return f"{self.version} → {self.target}"
        return self.version or "version not known"


@dataclass(frozen=True, slots=True)
class ServerView:
    id: int
    name: str
    type: str
    host: str
    standing: str
    peer: str
    version: VersionView
    mode: str
    mode_text: str
    tone: str
    process: str
    process_reason: str
    clients: int | None

    @property
    def is_down(self) -> bool:
        return self.process == "down" or (self.process == "unknown" and self.mode == "down")


@dataclass(frozen=True, slots=True)
class HostView:
    name: str
    site: str
    host_type: str
    lca: VersionView
    agent: AgentView
    servers: tuple[ServerView, ...]


NAMED = 4  # hosts that a message names before it only counts them


@dataclass(frozen=True, slots=True)
class Trouble:
    """Hosts whose agents cannot be relied on, for one reason."""

    hosts: tuple[HostView, ...]

    @property
    def agent(self) -> AgentView:
        """The one that has been like this for longest."""
        agents = [host.agent for host in self.hosts]
        return min(agents, key=lambda agent: (agent.since is None, agent.since))

    @property
    def names(self) -> str:
        names = [host.name for host in self.hosts]
        rest = len(names) - NAMED
        return listed(names) if rest <= 1 else listed([*names[:NAMED], f"{rest} more hosts"])


@dataclass(frozen=True, slots=True)
class ServerBox:
    x: int
    y: int
    name: str
    server: ServerView


@dataclass(frozen=True, slots=True)
class HostBox:
    x: int
    y: int
    height: int
    name: str
    host: HostView
    servers: tuple[ServerBox, ...]


@dataclass(frozen=True, slots=True)
class Link:
    """The line between the two servers of a pair."""

    path: str
    text: str


@dataclass(frozen=True, slots=True)
class Picture:
    width: int
    height: int
    host_width: int
    server_width: int
    hosts: tuple[HostBox, ...]
    links: tuple[Link, ...]


@dataclass(frozen=True, slots=True)
class Topology:
    hosts: tuple[HostView, ...]
    wide: Picture
    narrow: Picture

    @property
    def servers(self) -> tuple[ServerView, ...]:
        return tuple(server for host in self.hosts for server in host.servers)

    @property
    def troubled(self) -> tuple[Trouble, ...]:
        """What ails agents; hosts that are in the same state for the same reason come together."""
        found: dict[tuple[str, str], list[HostView]] = {}
        for host in self.hosts:
            if not host.agent.is_well:
                found.setdefault((host.agent.state, host.agent.trouble), []).append(host)
        return tuple(Trouble(tuple(hosts)) for hosts in found.values())


def topology(environment: Environment, now: datetime) -> Topology:
    """Hosts, servers, pairs, versions and agents of an environment as they are known at `now`; five queries."""
    targets = {target.component: target.version for target in environment.targets.all()}
    # An agent that a run has entered is shown with its host, by its version.
    applications = list(environment.applications.exclude(type=LCA).select_related("host", "peer"))
    needed = set(
        RunBinding.objects.filter(run__environment=environment)
        .exclude(run__status__in=OVER)
        .values_list("application__host", flat=True)
    )
    agents = {
        agent.host_id: agent_view(agent, now, watched=agent.host_id in needed)
        for agent in environment.agents.all()
    }
    none = agent_view(None, now)
    hosts = _in_order(
        [
            HostView(
                name=host.name,
                site=host.site,
                host_type=host.host_type,
                lca=reach(host.lca_version, targets.get("LCA", "")),
                agent=agents.get(host.pk, none),
                servers=tuple(
                    _server(application, targets, is_stale=agents.get(host.pk, none).is_stale)
                    for application in applications
                    if application.host_id == host.pk
                ),
            )
            for host in environment.hosts.all()
        ]
    )
    columns = min(WIDE_COLUMNS, max(1, len(hosts)))
    return Topology(hosts, draw(hosts, columns), draw(hosts, 1))


def reach(version: str, target: str) -> VersionView:
    """The version beside the target."""
    try:
        reached = Version.parse(version) >= Version.parse(target)
    except NotAVersion:
        return VersionView(version, target, None)
    return VersionView(version, target, reached)


def agent_view(agent: Agent | None, now: datetime, *, watched: bool = False) -> AgentView:
    """What is known of the agent of a host; `watched` when an open run needs it, so that it is asked more often."""
    if agent is None:
        return AgentView("none", "no agent")
    heard = AgentView(
        "up", "answers", seen_at=agent.seen_at, version=agent.version, skew=round(agent.clock_skew, 1)
    )
    if agent.trouble:
        return replace(
            heard, state="trouble", text="no answer", since=agent.trouble_since, trouble=agent.trouble
        )
    if agent.seen_at is None:
        return replace(heard, state="new", text="not heard yet")
    if is_stale(agent.seen_at, now, watched=watched):
        return replace(heard, state="silent", text="no news", since=agent.seen_at)
    return heard


def _server(application: Application, targets: dict[str, str], *, is_stale: bool) -> ServerView:
    return ServerView(
        id=application.pk,
        name=application.name,
        type=application.type,
        host=application.host.name,
        standing=application.standing,
        peer=application.peer.name if application.peer else "",
        version=reach(application.version, targets.get(application.type, "")),
        mode=application.mode,
        mode_text=MODE_NAMES.get(application.mode, application.mode),
        tone="" if is_stale else TONES.get(application.mode, ""),
        process=application.process_state,
        process_reason=application.process_reason,
        clients=application.client_total,
    )


def _in_order(hosts: Sequence[HostView]) -> tuple[HostView, ...]:
    """Hosts by site and name, those with servers first, and hosts of one pair side by side."""
    waiting = sorted(hosts, key=lambda host: (host.site, not host.servers, host.name))
    ordered: list[HostView] = []
    while waiting:
        peers = {server.peer for server in ordered[-1].servers} if ordered else set()
        following = next((host for host in waiting if _has(host, peers)), waiting[0])
        waiting.remove(following)
        ordered.append(following)
    return tuple(ordered)


def _has(host: HostView, names: set[str]) -> bool:
    return any(server.name in names for server in host.servers)


def draw(hosts: Sequence[HostView], columns: int) -> Picture:
    """Hosts in rows of `columns`; each as high as its servers need, a row as high as its highest host."""
    left = GUTTER if columns == 1 else 0
    boxes: list[HostBox] = []
    y = 0
    for row in _rows(hosts, columns):
        boxes += [
            _host_box(host, left + place * (HOST_WIDTH + SPACE), y, row) for place, host in enumerate(row)
        ]
        y += _height(row) + (SPACE // 2)
    width = left + columns * HOST_WIDTH + (columns - 1) * SPACE
    return Picture(
        width=width,
        height=max(0, y - SPACE // 2) or 1,
        host_width=HOST_WIDTH,
        server_width=HOST_WIDTH - 2 * EDGE,
        hosts=tuple(boxes),
        links=tuple(_links([server for box in boxes for server in box.servers])),
    )


def _rows(hosts: Sequence[HostView], columns: int) -> list[list[HostView]]:
    """At most `columns` hosts each. A site begins a row of its own, and the two hosts of a pair share one."""
    rows: list[list[HostView]] = []
    for place, host in enumerate(hosts):
        peers = {server.peer for server in host.servers} - {""}
        splits = columns > 1 and place + 1 < len(hosts) and _has(hosts[place + 1], peers)
        last = rows[-1] if rows else []
        full = len(last) + splits >= columns
        if not last or full or (columns > 1 and last[-1].site != host.site):
            rows.append([host])
        else:
            last.append(host)
    return rows


def _height(row: Sequence[HostView]) -> int:
    most = max(len(host.servers) for host in row)
    return HEAD + most * (SERVER_HEIGHT + GAP) + EDGE - (GAP if most else 0)


def _host_box(host: HostView, x: int, y: int, row: Sequence[HostView]) -> HostBox:
    servers = tuple(
        ServerBox(x + EDGE, y + HEAD + place * (SERVER_HEIGHT + GAP), cut(server.name, 20), server)
        for place, server in enumerate(host.servers)
    )
    return HostBox(x, y, _height(row), cut(host.name, 19), host, servers)


def cut(text: str, most: int) -> str:
    """The text, or its beginning with a mark: a picture cannot wrap lines."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _links(boxes: Iterable[ServerBox]) -> list[Link]:
    by_name = {box.server.name: box for box in boxes}
    links = []
    for box in by_name.values():
        peer = by_name.get(box.server.peer)
        if peer is not None and box.server.standing != "backup":
            links.append(Link(_path(box, peer), f"{box.server.name} and {peer.server.name} are a pair"))
    return links


def _path(one: ServerBox, other: ServerBox) -> str:
    """A curve between boxes side by side, or a bracket at the left edge of boxes above each other."""
    width, middle = HOST_WIDTH - 2 * EDGE, SERVER_HEIGHT // 2
    first, last = sorted((one, other), key=lambda box: (box.x, box.y))
    y1, y2 = first.y + middle, last.y + middle
    if first.x == last.x:
        out = max(4, first.x - EDGE - 14)
        return (
            f"M{first.x} {y1}H{out + 8}Q{out} {y1} {out} {y1 + 8}V{y2 - 8}Q{out} {y2} {out + 8} {y2}H{last.x}"
        )
    x1, x2 = first.x + width, last.x
    half = (x2 - x1) // 2
    return f"M{x1} {y1}C{x1 + half} {y1} {x2 - half} {y2} {x2} {y2}"
