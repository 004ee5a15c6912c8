"""What agents reported is kept for as long as the environment wants, and then removed: never what the record rests on.

Lines and process changes are removed once they are older than the environment keeps them, unless a run refers to them:
all that was read while a run was open that bound the server stays, and so does every line that a run's record cites.
Events of runs, the register, checkpoints and evidence files are not looked at here at all (docs/adr/0022-retention.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.contrib.auth.models import AbstractUser
from django.db import transaction
from django.db.models import Exists, F, OuterRef, Q, QuerySet
from django.db.models.functions import Coalesce
from django.utils import timezone

from upgrades.adapters import event_store, register
from upgrades.domain import run_events as e
from upgrades.domain.refusal import BadInput
from upgrades.domain.run_events import Actor
from upgrades.models import Environment, LogFile, LogLine, ProcessChange, RunBinding, RunEvent
from upgrades.services.people import actor_for
from upgrades.services.runs import NoSuchRun

PRUNED, KEPT_LONGER = "reports.pruned", "retention.changed"
EVERY = timedelta(days=1)
AT_ONCE = 10_000  # rows of a kind that one transaction removes; what is left comes with the next tick
LONGEST = 36_500
CITING = (e.LogEventSeen.kind, e.LogDoubtful.kind, e.ClientTotalSeen.kind)


@dataclass(frozen=True, slots=True)
class Pruned:
    """How many rows were removed from one environment, and whether more is to be removed."""

    lines: int = 0
    changes: int = 0
    files: int = 0
    more: bool = False

    @property
    def any(self) -> bool:
        return bool(self.lines or self.changes or self.files)


def days_kept(environment: Environment) -> int:
    """Never fewer than the installation's policy says, whatever the environment asks for."""
    return max(environment.keep_days or 0, settings.KEEP_DAYS)


def is_due(now: datetime) -> bool:
    return _due(now).exists()


def prune_due(now: datetime) -> int:
    """Remove from each environment that is due what it need not keep; how many environments there were."""
    due = list(
        _due(now).order_by(F("pruned_at").asc(nulls_first=True), "pk").values_list("pk", flat=True)[:20]
    )
    for environment_id in due:
        prune(environment_id, now)
    return len(due)


def _due(now: datetime) -> QuerySet[Environment]:
    return Environment.objects.filter(Q(pruned_at=None) | Q(pruned_at__lt=now - EVERY))


@transaction.atomic
def prune(environment_id: int, now: datetime) -> Pruned:
    """Remove what is old from one environment, and say so in its register; a second worker passes by."""
    environment = Environment.objects.select_for_update(skip_locked=True).filter(pk=environment_id).first()
    if environment is None:
        return Pruned()
    before = now - timedelta(days=days_kept(environment))
    pruned = _prune(environment, before)
    if not pruned.more:
        Environment.objects.filter(pk=environment_id).update(pruned_at=now)
    if pruned.any:
        body = {
            "environment": environment.name,
            "days": days_kept(environment),
            "before": before.isoformat(),
            "lines": pruned.lines,
            "process-changes": pruned.changes,
            "files": pruned.files,
        }
        _enter(environment, PRUNED, register.SYSTEM, body)
    return pruned


def _prune(environment: Environment, before: datetime) -> Pruned:
    lines = list(
        LogLine.objects.filter(file__application__environment=environment, read_at__lt=before)
        .exclude(Exists(_open_at(OuterRef("file__application"), OuterRef("read_at"))))
        .order_by("pk")
        .values_list("pk", "file__application__name", "file__identity", "file__generation", "offset")[
            :AT_ONCE
        ]
    )
    cited = _cited(environment) if lines else set()
    loose = [
        pk
        for pk, application, identity, generation, offset in lines
        if _place(application, identity, generation, offset) not in cited
    ]
    LogLine.objects.filter(pk__in=loose).delete()
    changes = list(
        ProcessChange.objects.filter(application__environment=environment, seen_at__lt=before)
        .exclude(Exists(_open_at(OuterRef("application"), OuterRef("seen_at"))))
        .values_list("pk", flat=True)[:AT_ONCE]
    )
    ProcessChange.objects.filter(pk__in=changes).delete()
    # A file that is still read keeps its row: its cursor is what keeps lines from coming twice.
    files = list(
        LogFile.objects.filter(
            ~Exists(LogLine.objects.filter(file=OuterRef("pk"))),
            application__environment=environment,
            seen_at__lt=before,
            state="gone",
        ).values_list("pk", flat=True)[:AT_ONCE]
    )
    LogFile.objects.filter(pk__in=files).delete()
    # Only if something goes: lines that stay for good would otherwise make it due again at every tick.
    more = (bool(loose) and len(lines) == AT_ONCE) or len(changes) == AT_ONCE or len(files) == AT_ONCE
    return Pruned(len(loose), len(changes), len(files), more)


def _open_at(application: OuterRef, at: OuterRef) -> QuerySet[RunBinding]:
    """The runs that bound the server and were under way then."""
    return RunBinding.objects.annotate(until=Coalesce("run__ended_at", timezone.now())).filter(
        application=application, run__started_at__lte=at, until__gte=at
    )


def _place(application: str, identity: str, generation: int, offset: int) -> tuple[str, str, int]:
    return application, f"{identity}~{generation}" if generation else identity, offset


def _cited(environment: Environment) -> set[tuple[str, str, int]]:
    """The places of all lines that the records of this environment's runs name."""
    texts = RunEvent.objects.filter(run__environment=environment, kind__in=CITING).order_by()
    events = (event_store.read(text).event for text in texts.values_list("text", flat=True).iterator(2000))
    return {
        (event.application, event.file, event.offset)
        for event in events
        if isinstance(event, e.LogEventSeen | e.LogDoubtful | e.ClientTotalSeen)
    }


@transaction.atomic
def keep(environment_id: int, days: int, *, by: AbstractUser | None = None) -> int:
    """Have an environment keep what agents reported for so many days; never fewer than the policy. Gives what holds."""
    environment = Environment.objects.select_for_update().filter(pk=environment_id).first()
    if environment is None:
        raise NoSuchRun("There is no such environment.")
    if not settings.KEEP_DAYS <= days <= LONGEST:
        raise BadInput(
            f"Reports are kept for {settings.KEEP_DAYS} days at least (RUNBOOK_KEEP_DAYS) and {LONGEST:,} at most, not "
            f"for {days}. Nothing was changed.",
            "days",
        )
    body = {"environment": environment.name, "before": days_kept(environment), "after": days}
    Environment.objects.filter(pk=environment_id).update(keep_days=days)
    _enter(environment, KEPT_LONGER, actor_for(by, environment) if by else register.SYSTEM, body)
    return days


def _enter(environment: Environment, kind: str, by: Actor, body: dict[str, object]) -> None:
    book = register.access_book(environment.rehearsal_of_id or environment.pk)
    register.enter(book, kind, by=by, body=body)
