"""What the status page shows: whom there is no news of, what waits, what is lost, in the environments of a person."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from django.contrib.auth.models import AbstractUser
from django.db.models import F, Q

from upgrades.domain.environment import LCA
from upgrades.models import Agent, CheckpointWatch, Host, LogFile, LogLine, Run, RunBinding
from upgrades.models.agent import A_LINE
from upgrades.queries import operation
from upgrades.queries.access import visible_environments
from upgrades.queries.operation import Life, Queue
from upgrades.queries.run_lines import OVER
from upgrades.queries.topology import AgentView, agent_view

LATELY = timedelta(days=1)
CLOCK_OFF = 2.0  # seconds by which a host's clock may differ before it is said
GAPS, FILES = 20, 20
QUEUE_NAMES = {
    "agents": "Agents to be asked",
    "rules": "Environments to be looked at",
    "requests": "Requests to run out",
    "checkpoints": "Checkpoints to leave",
    "notices": "Messages to send",
}


@dataclass(frozen=True, slots=True)
class FileLine:
    """A log file that is not read to its end."""

    application: str
    name: str
    behind: int  # bytes
    size: int


@dataclass(frozen=True, slots=True)
class GapLine:
    """A part of a log file that was lost before it was read."""

    application: str
    text: str
    at: datetime


@dataclass(frozen=True, slots=True)
class HostLine:
    name: str
    agent: AgentView
    needed: bool  # an open run rests on it
    files: tuple[FileLine, ...] = ()
    gaps: tuple[GapLine, ...] = ()

    @property
    def clock_is_off(self) -> bool:
        return abs(self.agent.skew) > CLOCK_OFF

    @property
    def order(self) -> tuple[int, int, str]:
        """What needs somebody comes first."""
        states = ("trouble", "silent", "new", "none", "up")
        return states.index(self.agent.state), not (self.clock_is_off or self.files or self.gaps), self.name


@dataclass(frozen=True, slots=True)
class ParkedLine:
    """A run that workers cannot go on with: one after the other died of it."""

    run: int
    title: str
    since: datetime


@dataclass(frozen=True, slots=True)
class EnvironmentStatus:
    id: int
    name: str
    rehearsal_of: str
    hosts: tuple[HostLine, ...]
    parked: tuple[ParkedLine, ...] = ()

    @property
    def ailing(self) -> int:
        return sum(1 for host in self.hosts if not host.agent.is_well)

    @property
    def no_news(self) -> tuple[HostLine, ...]:
        """Hosts whose agents were heard once and are not heard now."""
        return tuple(host for host in self.hosts if host.agent.is_stale)


@dataclass(frozen=True, slots=True)
class Background:
    """Workers, their clock, and what waits; `workers` are named only to those who operate something."""

    life: Life
    now: datetime
    queues: tuple[tuple[str, Queue, bool], ...]  # name, what waits, whether it waits too long
    checkpoint_trouble: str
    names_workers: bool

    @property
    def working(self) -> int:
        return len(self.life.working(self.now))

    @property
    def ticks(self) -> bool:
        return self.life.ticks(self.now)

    @property
    def last_worker(self) -> datetime | None:
        return max((seen for _, seen in self.life.workers), default=None)

    @property
    def is_well(self) -> bool:
        return bool(self.working) and self.ticks

    @property
    def workers(self) -> tuple[tuple[str, datetime, bool], ...]:
        """Name, last sign of life, whether it lives."""
        alive = set(self.life.working(self.now))
        return tuple((name, seen, name in alive) for name, seen in self.life.workers)


@dataclass(frozen=True, slots=True)
class StatusPage:
    background: Background
    environments: tuple[EnvironmentStatus, ...]


TOO_LONG = 30.0  # seconds for which a due row may wait


def status_page(user: AbstractUser, now: datetime, *, operates: bool) -> StatusPage:
    """The page for this person; nine queries, however many hosts there are."""
    return StatusPage(_background(now, operates=operates), _environments(user, now))


def _background(now: datetime, *, operates: bool) -> Background:
    watch = CheckpointWatch.objects.first()
    return Background(
        life=operation.life(),
        now=now,
        queues=tuple(
            (QUEUE_NAMES[queue.kind], queue, queue.age(now) > TOO_LONG) for queue in operation.queues(now)
        ),
        checkpoint_trouble=watch.trouble if watch is not None and operates else "",
        names_workers=operates,
    )


def _environments(user: AbstractUser, now: datetime) -> tuple[EnvironmentStatus, ...]:
    """Copies for rehearsals only while a run in them is open."""
    bound = RunBinding.objects.exclude(run__status__in=OVER).filter(
        run__environment__in=visible_environments(user)
    )
    busy, needed = set(), set()
    for environment_id, host_id in bound.values_list("run__environment", "application__host"):
        busy.add(environment_id)
        needed.add(host_id)
    found = list(
        visible_environments(user)
        .filter(Q(rehearsal_of=None) | Q(pk__in=busy))
        .select_related("rehearsal_of")
        .order_by("name", "pk")
    )
    ids = [environment.pk for environment in found]
    hosts: defaultdict[int, list[HostLine]] = defaultdict(list)
    files, gaps, parked = _files(ids), _gaps(ids, now), _parked(ids)
    for host in Host.objects.filter(environment__in=ids).select_related("agent").order_by("name"):
        line = _host(host, now, needed=host.pk in needed)
        hosts[host.environment_id].append(
            replace(line, files=tuple(files[host.pk][:FILES]), gaps=tuple(gaps[host.pk][:GAPS]))
        )
    return tuple(
        EnvironmentStatus(
            environment.pk,
            environment.name,
            environment.rehearsal_of.name if environment.rehearsal_of else "",
            tuple(sorted(hosts[environment.pk], key=lambda host: host.order)),
            tuple(parked[environment.pk]),
        )
        for environment in found
    )


def _host(host: Host, now: datetime, *, needed: bool) -> HostLine:
    try:
        agent: Agent | None = host.agent
    except Agent.DoesNotExist:
        agent = None
    return HostLine(host.name, agent_view(agent, now, watched=needed), needed)


def _parked(environments: list[int]) -> defaultdict[int, list[ParkedLine]]:
    """By environment, the longest first."""
    found: defaultdict[int, list[ParkedLine]] = defaultdict(list)
    rows: Any = Run.objects.filter(environment__in=environments, parked_since__isnull=False)
    rows = rows.exclude(status__in=OVER)
    for environment, run, title, since in rows.order_by("parked_since").values_list(
        "environment", "pk", "title", "parked_since"
    ):
        found[environment].append(ParkedLine(run, title, since))
    return found


def _files(environments: list[int]) -> defaultdict[int, list[FileLine]]:
    """By host, the files that are furthest behind first."""
    found: defaultdict[int, list[FileLine]] = defaultdict(list)
    rows: Any = (
        LogFile.objects.filter(application__environment__in=environments, state="open")
        .exclude(application__type=LCA)
        .annotate(behind=F("size") - F("cursor"))
        .filter(behind__gt=A_LINE)  # as LogFile.unread: less may be a line that is not whole
        .order_by("-behind")
    )
    for host, application, name, behind, size in rows.values_list(
        "application__host", "application__name", "name", "behind", "size"
    )[:1000]:
        found[host].append(FileLine(application, name, behind, size))
    return found


def _gaps(environments: list[int], now: datetime) -> defaultdict[int, list[GapLine]]:
    """By host, the newest first."""
    found: defaultdict[int, list[GapLine]] = defaultdict(list)
    rows = LogLine.objects.filter(
        kind=LogLine.Kind.GAP, read_at__gt=now - LATELY, file__application__environment__in=environments
    ).order_by("-read_at")
    for host, application, text, at in rows.values_list(
        "file__application__host", "file__application__name", "text", "read_at"
    )[:1000]:
        found[host].append(GapLine(application, text, at))
    return found
