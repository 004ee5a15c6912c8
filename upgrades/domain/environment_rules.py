"""Rules that hold on an environment at all times, plan or no plan. Each finding has its id and what to do about it.

What is expected while a run is at a certain step is an incident at any other time: two primaries between CSH-6 and
CSH-7, different versions while a run is under way. So every rule gets the open runs, and the same facts can be both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from upgrades.domain.environment import (
    CONFIGURATION_COMPONENTS,
    MASTER,
    PROXY,
    SERVING,
    Host,
    OpenRun,
    Picture,
    Server,
    Unit,
    is_release,
    reaches,
)
from upgrades.domain.feature_freeze import freeze
from upgrades.domain.freshness import has_passed
from upgrades.domain.plan import counted, listed
from upgrades.domain.version import NotAVersion, Version

# During an ordinary switchover SCS may report no primary or two for about a second, and takes it back by itself.
SETTLING = timedelta(seconds=10)

# What SCS reports, and the event that takes it back (genesys.md 2.5). 10331 has none: it ends with the pair's state.
TAKEN_BACK_BY = {"20621": "20623", "20622": "20623", "10327": "10328", "10329": "10330", "10331": ""}
SCS_EVENTS = frozenset(TAKEN_BACK_BY) | {event for event in TAKEN_BACK_BY.values() if event}
WRITES = {"24200": "created", "24201": "changed", "24202": "deleted"}

TWO_PRIMARIES_EXPECTED = ("CSH-6", "CSH-7")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a rule found. Of one rule there is one finding per subject; `tone` is stop, wait or info."""

    rule: str
    subject: str
    tone: str
    title: str
    text: str
    what_to_do: str
    sources: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ScsReport:
    """Something that an SCS has reported and not taken back since: its event's number, and when we read it."""

    scs: str
    event: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Breach:
    """Changes of the configuration that were logged inside the read-only window of a run."""

    run: int
    title: str
    counts: tuple[tuple[str, str, int], ...]  # application, event number, how many


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """Everything that the rules look at. `plan` is the number of the plan of record that still has work, or None."""

    picture: Picture
    now: datetime
    open_runs: tuple[OpenRun, ...] = ()
    plan: int | None = None
    reports: tuple[ScsReport, ...] = ()
    breaches: tuple[Breach, ...] = ()

    def runs_on(self, *servers: str) -> tuple[OpenRun, ...]:
        return tuple(run for run in self.open_runs if run.servers & set(servers))


def findings(watched: Watched) -> tuple[Finding, ...]:
    """What stands now, the worst first; the same facts give the same findings."""
    found = [finding for rule in RULES for finding in rule(watched)]
    return tuple(
        sorted(found, key=lambda one: (("stop", "wait", "info").index(one.tone), one.rule, one.subject))
    )


# Versions.


def _mixed_versions(watched: Watched) -> Iterator[Finding]:
    servers = watched.picture.servers_of(*CONFIGURATION_COMPONENTS)
    versions = _versions(servers)
    if len(versions) < 2 or watched.runs_on(*(server.name for server in servers)):
        return
    planned = watched.plan is not None
    yield Finding(
        rule="INT-2",
        subject="Configuration Server components",
        tone="wait" if planned else "stop",
        title="Different versions, and no run is open",
        text="; ".join(f"{version}: {listed(names)}" for version, names in versions) + ".",
        what_to_do=(
            f"Go on with plan {watched.plan}: different versions are supported only while a migration is under way."
            if planned
            else "Plan the rest of the upgrade, or roll back: different versions are supported only during a migration."
        ),
        sources=("INT-2",),
    )


def _versions(servers: Sequence[Server]) -> list[tuple[str, list[str]]]:
    """Known versions with the servers that run them, the newest first."""
    versions: dict[Version, list[str]] = {}
    for server in sorted(servers, key=lambda server: server.name):
        if reaches(server.version, server.version):
            versions.setdefault(Version.parse(server.version), []).append(server.name)
    return [(str(version), versions[version]) for version in sorted(versions, reverse=True)]


def _unequal_pairs(watched: Watched) -> Iterator[Finding]:
    for unit in watched.picture.units_of(*CONFIGURATION_COMPONENTS):
        if len(_versions(unit.servers)) > 1 and not watched.runs_on(*unit.names):
            yield Finding(
                rule="CS-W2",
                subject=" + ".join(unit.names),
                tone="stop",
                title="The two servers of a pair run different versions",
                text=", ".join(f"{server.name} runs {server.version}" for server in unit.servers)
                + ". No run works on them.",
                what_to_do="Start the run that brings the other one to the same version, or roll the upgraded one back.",
                sources=("CS-W2",),
            )


def _early_proxies(watched: Watched) -> Iterator[Finding]:
    picture = watched.picture
    masters = [server for server in picture.servers_of(MASTER) if not server.dormant]
    excepted = picture.single_language is True and all(
        is_release(master.version, "8.1.3") for master in masters
    )
    for proxy in picture.servers_of(PROXY):
        older = [master.name for master in masters if reaches(master.version, proxy.version) is False]
        if older and not (excepted and _is_8_5(proxy.version)):
            yield Finding(
                rule="INT-1",
                subject=proxy.name,
                tone="stop",
                title="A proxy is newer than its master",
                text=f"{proxy.name} runs {proxy.version}; {listed(older)} {'is' if len(older) == 1 else 'are'} older.",
                what_to_do="Upgrade the master now, or roll this proxy back. Only a master of 8.1.3 in single-language mode "
                "serves proxies of 8.5.",
                sources=("INT-1", "PRX-1"),
            )


def _is_8_5(version: str) -> bool:
    try:
        return Version.parse(version).parts[:2] == (8, 5)
    except NotAVersion:
        return False


def _feature_freeze(watched: Watched) -> Iterator[Finding]:
    held = freeze(watched.picture, watched.open_runs)
    if held.is_on:
        yield Finding(
            rule="INT-3",
            subject="Configuration Server features",
            tone="wait",
            title="Feature freeze",
            text=f"Held by {held.text}.",
            what_to_do="Enable no new feature of Configuration Server. The freeze ends with the upgrade of the last of them.",
            sources=held.sources,
        )


def _license_reporting_manager(watched: Watched) -> Iterator[Finding]:
    if not watched.picture.uses_lrm:
        return
    new = [server.name for server in watched.picture.servers_of(MASTER) if reaches(server.version, "8.5")]
    if new:
        yield Finding(
            rule="INT-6",
            subject="License Reporting Manager",
            tone="stop",
            title="License Reporting Manager 8.5 is still installed",
            text=f"{listed(new)} of 8.5 or later {'is' if len(new) == 1 else 'are'} not integrated with it any more.",
            what_to_do="Uninstall License Reporting Manager 8.5, then state in the environment that it is gone.",
            sources=("INT-6",),
        )


# Hosts.


def _host_types(watched: Watched) -> Iterator[Finding]:
    for wanted in ("Windows", "Linux"):
        hosts = [
            host for host in watched.picture.hosts if _advised(host) == wanted and host.host_type != wanted
        ]
        if hosts:
            types = sorted({host.host_type for host in hosts})
            found = [
                (of or "without a type", listed(sorted(host.name for host in hosts if host.host_type == of)))
                for of in types
            ]
            yield Finding(
                rule="GEN-2",
                subject=f"Host type {wanted}",
                tone="info",
                title=f"Host objects that should be of type {wanted}",
                text="; ".join(f"{type_}: {names}" for type_, names in found) + ".",
                what_to_do=f"Advice: select {wanted} as the type of these Host objects. Nothing waits for it.",
                sources=("GEN-2",),
            )


def _advised(host: Host) -> str:
    """The type that the vendor advises for a host; empty where it advises none or the system is not known."""
    system = host.os_name.lower()
    if "windows" in system:
        year = host.os_version.split(".")[0].split()[0] if host.os_version.split() else ""
        return "Windows" if year.isascii() and year.isdigit() and int(year) >= 2016 else ""
    # “Linux” alone may be Red Hat's too.
    if "red hat" in system or system.startswith("rhel") or system.strip() == "linux":
        return ""
    return "Linux" if any(name in system for name in _LINUXES) else ""


_LINUXES = (
    "linux",
    "ubuntu",
    "debian",
    "centos",
    "suse",
    "sles",
    "fedora",
    "oracle",
    "rocky",
    "alma",
    "amazon",
)


# Modes.


def _two_primaries(watched: Watched) -> Iterator[Finding]:
    for unit in watched.picture.units:
        if (
            unit.is_pair
            and all(server.mode in SERVING for server in unit.servers)
            and not _expected(watched, unit)
        ):
            yield Finding(
                rule="two-primaries",
                subject=" + ".join(unit.names),
                tone="stop",
                title="Two primaries",
                text=f"Both {listed(unit.names)} serve as primary. That is normal only from CSH-6 to CSH-7; no run is there.",
                what_to_do="Find out which one the clients use, and stop the other one through Solution Control Server.",
                sources=TWO_PRIMARIES_EXPECTED,
            )


def _expected(watched: Watched, unit: Unit | None = None) -> bool:
    runs = watched.runs_on(*unit.names) if unit is not None else watched.open_runs
    return any(run.is_at(*TWO_PRIMARIES_EXPECTED) for run in runs)


def _dormant_running(watched: Watched) -> Iterator[Finding]:
    masters = watched.picture.servers_of(MASTER)
    active = [server.name for server in masters if not server.dormant and _runs(server)]
    for server in masters:
        if active and server.dormant and _runs(server) and not watched.runs_on(server.name):
            yield Finding(
                rule="INT-5",
                subject=server.name,
                tone="stop",
                title="A dormant Configuration Server is running",
                text=f"{server.name} is a dormant copy, and it runs while {listed(active)} "
                f"{'is' if len(active) == 1 else 'are'} active.",
                what_to_do="Stop it, unless that site takes over. With an upgraded database, replicate it before it starts.",
                sources=("INT-4", "INT-5"),
            )


def _runs(server: Server) -> bool:
    if server.process == "unknown":
        return server.mode in SERVING or server.mode == "backup"
    return server.process == "up"


# What SCS reports.


@dataclass(frozen=True, slots=True)
class _Meaning:
    tone: str
    title: str
    text: str
    what_to_do: str


_SPLIT = " While that SCS may itself be in split brain, this report is not reliable."
_MEANINGS = {
    "20621": _Meaning(
        "stop",
        "A pair has no primary",
        "reports a pair of applications without a primary.",
        "See in its log which pair it is, and bring one of the two servers into primary mode.",
    ),
    "20622": _Meaning(
        "stop",
        "A pair has two primaries",
        "reports a pair of applications with two primaries.",
        "See in its log which pair it is. Stop the one that the clients do not use. During CSH-6 and CSH-7 it is normal.",
    ),
    "10327": _Meaning(
        "wait",
        "An application changes its mode too often",
        "reports an application that goes back and forth between primary and backup.",
        "Look at the network between SCS and the LCA of that application's host before you go on.",
    ),
    "10329": _Meaning(
        "stop",
        "SCS may be in split brain",
        "reports that it may be in split brain itself. What it says of other applications is not reliable now.",
        "Restore the connection between the two Solution Control Servers. Begin no step that relies on a switchover.",
    ),
    "10331": _Meaning(
        "info",
        "SCS runs without a backup",
        "reports that it has no backup.",
        "Start its backup, or have one ready, before work begins that stops this SCS.",
    ),
}


def _scs_reports(watched: Watched) -> Iterator[Finding]:
    split = {report.scs for report in watched.reports if report.event == "10329"}
    for report in watched.reports:
        meaning = _MEANINGS.get(report.event)
        if meaning is None or not _counts(watched, report):
            continue
        doubt = _SPLIT if report.scs in split and report.event in ("20621", "20622") else ""
        yield Finding(
            rule=f"43-{report.event}",
            subject=report.scs,
            tone=meaning.tone,
            title=meaning.title,
            text=f"{report.scs} {meaning.text}{doubt}",
            what_to_do=meaning.what_to_do,
            sources=(f"43-{report.event}",),
        )


def _counts(watched: Watched, report: ScsReport) -> bool:
    match report.event:
        case "20622":
            return has_passed(SETTLING, report.at, watched.now) and not _expected(watched)
        case "20621":
            return has_passed(SETTLING, report.at, watched.now)
        case "10331":
            # No event takes it back. A run on the pair stops one of them on purpose, and a backup that runs ends it.
            server = watched.picture.by_name.get(report.scs)
            peer = watched.picture.by_name.get(server.peer) if server is not None else None
            there = peer is not None and peer.process == "up"
            return not there and not watched.runs_on(report.scs, *([peer.name] if peer is not None else []))
    return True


# The read-only window.


def _breaches(watched: Watched) -> Iterator[Finding]:
    for breach in watched.breaches:
        told = [
            f"{application}: {counted(count, 'object')} {WRITES[event]}"
            for application, event, count in breach.counts
        ]
        yield Finding(
            rule="CSH-3x",
            subject=f"run {breach.run}",
            tone="stop",
            title="The configuration was changed in a read-only window",
            text=f"Since run {breach.run} (“{breach.title}”) made it read-only: {'; '.join(told)}.",
            what_to_do="Find out in the log who wrote. What was changed may be missing after the upgrade: check it, repeat it.",
            sources=("CSH-3x", *dict.fromkeys(f"21-{event}" for _, event, _ in breach.counts)),
        )


RULES = (
    _mixed_versions,
    _unequal_pairs,
    _early_proxies,
    _feature_freeze,
    _license_reporting_manager,
    _host_types,
    _two_primaries,
    _dormant_running,
    _scs_reports,
    _breaches,
)
