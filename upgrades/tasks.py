"""What workers do. Each task finds its work in the database, so that a lost, late or doubled message costs nothing."""

from __future__ import annotations

import logging
from uuid import UUID

from celery import shared_task
from django.utils import timezone

from upgrades.adapters.crash_points import crash
from upgrades.models import Heartbeat, Run
from upgrades.services import (
    agents,
    claims,
    environment_rules,
    notice_sending,
    notices,
    operation,
    polling,
    retention,
    runs,
    sign_in,
    tokens,
)

logger = logging.getLogger(__name__)

POLL_SECONDS = 15.0  # below every time limit, and short enough that a stop does not wait for it


@shared_task(name="upgrades.tasks.advance_run")
def advance_run(run_id: int) -> None:
    """Look at one run now: its bell was rung."""
    crash("task.advance.taken")
    runs.advance_run(run_id)
    crash("task.advance.before-ack")


@shared_task(name="upgrades.tasks.poll_agents")
def poll_agents(before: str | None = None) -> None:
    """Follow agents for a while; another loop takes over without a gap. `before`: the token of the loop that called."""
    crash("task.poll.taken")
    polling.follow_agents(POLL_SECONDS, _call_next_loop, UUID(before) if before else None)
    crash("task.poll.before-ack")


def _call_next_loop(token: UUID) -> None:
    poll_agents.delay(str(token))


@shared_task(name="upgrades.tasks.look_after_agents")
def look_after_agents() -> None:
    """Have agents followed that nobody follows: their worker died, or a run has just started."""
    if polling.overdue():
        crash("task.look.before-publish")
        poll_agents.delay()
        crash("task.look.published")


@shared_task(name="upgrades.tasks.tick")
def tick() -> None:
    """The reconciler: whatever a lost message would have done is done now (trust.md 5.2)."""
    look_after_agents()
    crash("task.tick.agents-seen")
    for run_id in Run.objects.exclude(status__in=agents.OVER).order_by("pk").values_list("pk", flat=True):
        try:
            runs.advance_run(run_id)
        except Exception:
            # One run in trouble must not keep the others waiting.
            logger.exception("run %s could not be advanced at %s", run_id, timezone.now())
    crash("task.tick.runs-advanced")
    claims.sweep()
    environment_rules.check_due()
    operation.forget_old(timezone.now())
    tokens.forget_answers()
    sign_in.forget_sessions(timezone.now())
    if notice_sending.is_due(timezone.now()):
        send_notices.delay()
    notices.look_at_clock(timezone.now())
    if retention.is_due(timezone.now()):
        prune.delay()
    operation.alive(Heartbeat.Kind.TICK)
    crash("task.tick.before-ack")


@shared_task(name="upgrades.tasks.prune")
def prune() -> None:
    """Remove what environments need not keep; once a day for each, in parts that the next tick goes on with."""
    retention.prune_due(timezone.now())


@shared_task(name="upgrades.tasks.send_notices")
def send_notices() -> None:
    """Send the messages that are due; what is left over is found by the next tick."""
    notice_sending.send_due()


def _ring(run_id: int) -> None:
    advance_run.delay(run_id)


def _ring_for_messages() -> None:
    send_notices.delay()


runs.on_wake(_ring)
notices.on_due(_ring_for_messages)
