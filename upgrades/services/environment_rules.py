"""The standing rules on environments: a worker looks again and again, and the findings are rows with their since-when.

A finding is no event of a run: it comes from what is so now, goes when it is so no more, and its row stays with both
times. Nothing here changes an environment.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Exists, F, OuterRef, Q
from django.utils import timezone

from upgrades.domain.environment_rules import Finding as Found
from upgrades.domain.environment_rules import ScsReport, Watched, findings
from upgrades.models import Environment, Finding, Run
from upgrades.queries.environment_facts import OVER
from upgrades.queries.environment_watch import watched
from upgrades.services.runs import announce_environment

logger = logging.getLogger(__name__)

LOOK_EVERY = timedelta(seconds=10)
AT_ONCE = 50  # environments of one turn; the others are due still
_SHOWN = ("tone", "title", "text", "what_to_do", "sources")


def check_due(*, now: datetime | None = None) -> int:
    """Look at every environment that is due; how many there were. Copies for rehearsals count while their run is open."""
    now = now or timezone.now()
    set_back = Q(rules_due_at__gt=now + 2 * LOOK_EVERY)  # written before the clock was set back
    due = Environment.objects.filter(Q(rules_due_at=None) | Q(rules_due_at__lte=now) | set_back)
    is_open = Exists(Run.objects.filter(environment=OuterRef("pk")).exclude(status__in=OVER))
    found = due.filter(Q(rehearsal_of=None) | is_open).order_by(
        F("rules_due_at").asc(nulls_first=True), "pk"
    )[:AT_ONCE]
    for environment in found:
        # Before the look: what changes while we look makes it due again.
        Environment.objects.filter(pk=environment.pk).update(rules_due_at=now + LOOK_EVERY)
        try:
            check(environment.pk, now=now)
        except Exception:
            # One environment in trouble must not keep the others waiting.
            logger.exception("the rules of environment %s could not be looked at", environment.pk)
    return len(found)


def check(environment_id: int, *, now: datetime | None = None) -> bool:
    """Bring the findings of an environment up to what is so now; True when that changed anything."""
    now = now or timezone.now()
    environment = Environment.objects.get(pk=environment_id)
    seen = watched(environment, now)
    wanted = {(found.rule, found.subject[:300]): found for found in findings(seen)}
    standing = {(row.rule, row.subject): row for row in environment.findings.filter(ended_at=None)}
    ended = [row.pk for key, row in standing.items() if key not in wanted]
    fresh = [_row(environment, seen, found, now) for key, found in wanted.items() if key not in standing]
    changed = [row for key, row in standing.items() if key in wanted and _differs(row, wanted[key])]
    if not (ended or fresh or changed):
        return False
    with transaction.atomic():
        Finding.objects.filter(pk__in=ended, ended_at=None).update(ended_at=now)
        # Another worker may have been first: then its row stands, and ours is not wanted.
        Finding.objects.bulk_create(fresh, ignore_conflicts=True)
        Finding.objects.bulk_update(changed, _SHOWN)
        announce_environment(environment.pk)
        Environment.objects.filter(pk=environment.pk).update(rules_due_at=now + LOOK_EVERY)
    return True


def _row(environment: Environment, seen: Watched, found: Found, now: datetime) -> Finding:
    return Finding(
        environment=environment,
        rule=found.rule,
        subject=found.subject[:300],
        tone=found.tone,
        title=found.title,
        text=found.text,
        what_to_do=found.what_to_do,
        sources=list(found.sources),
        since=_since(seen.reports, found) or now,
    )


def _since(reports: tuple[ScsReport, ...], found: Found) -> datetime | None:
    """For what an SCS has reported, when that was read."""
    for report in reports:
        if (f"43-{report.event}", report.scs) == (found.rule, found.subject):
            return report.at
    return None


def _differs(row: Finding, found: Found) -> bool:
    """True when the row shows something else; it is then made to show what was found."""
    shown = [getattr(row, name) for name in _SHOWN]
    row.tone, row.title, row.text = found.tone, found.title, found.text
    row.what_to_do, row.sources = found.what_to_do, list(found.sources)
    return shown != [getattr(row, name) for name in _SHOWN]
