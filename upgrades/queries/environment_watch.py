"""What the standing rules look at, and what they have found, read from the database."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from django.db.models import Count, F, Max, Q, QuerySet

from upgrades.domain.environment import MASTER, SCS
from upgrades.domain.environment_rules import SCS_EVENTS, TAKEN_BACK_BY, WRITES, Breach, ScsReport, Watched
from upgrades.models import Environment, Finding, LogFile, LogLine, RunBurden
from upgrades.queries.environment_facts import OVER, open_runs_of, picture_of
from upgrades.queries.plan import plan_with_work

READ_ONLY = "exposure:read-only"
STARTED = "00-05060"  # an application that has started remembers nothing that it reported before


def watched(environment: Environment, now: datetime) -> Watched:
    """Everything that the rules look at; nine queries, and one more per read-only window of an open run."""
    picture = picture_of(environment)
    return Watched(
        picture=picture,
        now=now,
        open_runs=open_runs_of(environment),
        plan=plan_with_work(environment, picture),
        reports=scs_reports(environment),
        breaches=breaches(environment),
    )


def _numbered(numbers: set[str] | frozenset[str], type_number: str) -> list[str]:
    """The numbers as lines may carry them: as events of the type, or as common ones."""
    return [f"{prefix}-{number}" for number in sorted(numbers) for prefix in (type_number, "00")]


def scs_reports(environment: Environment) -> tuple[ScsReport, ...]:
    """What each SCS has reported last and not taken back, by the order of its log.

    An SCS reports all pairs in its own words, and nobody knows those words: so which pair an event is about cannot
    be told, and the newest event of a kind stands for all of them.
    """
    newest = (
        LogLine.objects.filter(
            file__application__environment=environment,
            file__application__type=SCS,
            kind=LogLine.Kind.EVENT,
            event__in=[*_numbered(SCS_EVENTS, "43"), STARTED],
        )
        .order_by("file__application_id", "event", "-file_id", "-offset")
        .distinct("file__application_id", "event")
        .values_list("file__application__name", "event", "file_id", "offset", "read_at")
    )
    places: dict[str, dict[str, tuple[tuple[int, int], datetime]]] = {}
    for scs, event, file, offset, read_at in newest:
        number = event.split("-", 1)[1]
        known = places.setdefault(scs, {})
        if number not in known or known[number][0] < (file, offset):
            known[number] = ((file, offset), read_at)
    return tuple(
        ScsReport(scs, event, known[event][1])
        for scs, known in sorted(places.items())
        for event in TAKEN_BACK_BY
        if event in known and not _taken_back(event, known)
    )


def _taken_back(event: str, known: dict[str, tuple[tuple[int, int], datetime]]) -> bool:
    """Whether something behind the event in the log ends what it says: its opposite, its like, or a new start."""
    enders = {TAKEN_BACK_BY[event], "05060"} | (
        {"20621", "20622"} - {event} if event in ("20621", "20622") else set()
    )
    return any(other in known and known[other][0] > known[event][0] for other in enders)


def breaches(environment: Environment) -> tuple[Breach, ...]:
    """Changes of the configuration inside the read-only windows of runs that are open, or whose window is."""
    windows = (
        RunBurden.objects.filter(environment=environment, burden__startswith=READ_ONLY)
        .filter(Q(closed_at=None) | ~Q(run__status__in=OVER))
        .select_related("run")
        .order_by("opened_at")
    )
    found: dict[int, tuple[str, dict[tuple[str, str], int]]] = {}
    for window in windows:
        for application, event, count in _writes(window):
            _, counts = found.setdefault(window.run_id, (window.run.title, {}))
            key = (application, event.split("-", 1)[1])
            counts[key] = counts.get(key, 0) + count
    return tuple(
        Breach(run, title, tuple((*key, count) for key, count in sorted(counts.items())))
        for run, (title, counts) in sorted(found.items())
    )


def _writes(window: RunBurden) -> QuerySet[LogLine, tuple[str, str, int]]:
    """Per server and event how many changes were read while the window stood.

    Only from logs that were followed before it began: of a log that is read for the first time, older lines come late.
    """
    followed = LogFile.objects.filter(
        application__environment=window.environment_id,
        application__type=MASTER,
        seen_at__lte=window.opened_at,
    )
    lines = LogLine.objects.filter(
        file__application__in=followed.values("application"),
        kind=LogLine.Kind.EVENT,
        event__in=_numbered(frozenset(WRITES), "21"),
        read_at__gt=window.opened_at,
    )
    if window.closed_at is not None:
        lines = lines.filter(read_at__lte=window.closed_at)
    return (
        lines.values(name=F("file__application__name"))
        .annotate(count=Count("pk"), last=Max("read_at"))
        .order_by("name", "event")
        .values_list("name", "event", "count")
    )


# What pages show.


@dataclass(frozen=True, slots=True)
class FindingView:
    """A finding that stands. `rule` is its id; a requirement, an event or a word."""

    rule: str
    tone: str
    title: str
    text: str
    what_to_do: str
    sources: tuple[str, ...]
    since: datetime


_TONES = ("stop", "wait", "info")


def standing_findings(environment: Environment) -> tuple[FindingView, ...]:
    """What the rules have found and what stands still, the worst first; one query."""
    rows = Finding.objects.filter(environment=environment, ended_at=None)
    shown = [
        FindingView(row.rule, row.tone, row.title, row.text, row.what_to_do, tuple(row.sources), row.since)
        for row in rows
    ]
    return tuple(sorted(shown, key=lambda view: (_TONES.index(view.tone), view.since, view.rule)))
