"""Polling agents: one event loop follows many agents at once, so that a slow or hostile one delays nobody else.

An agent is followed by whoever holds its lease, a row in the database. Agents of open runs are asked without pause,
by long poll; the others every 15 seconds, for their health, the processes of their hosts, and what an SCS there has
logged. A worker that dies loses its leases by time, and the next one goes on from the cursors in the database: nothing
is remembered here that matters.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

from django.db import DatabaseError, close_old_connections, transaction
from django.db.models import Case, Count, F, IntegerField, Q, Value, When
from django.utils import timezone

from upgrades.adapters import log_context
from upgrades.adapters.agent_client import AgentAddress, AgentClient, AgentTrouble, Cursor, Logs
from upgrades.adapters.crash_points import crash
from upgrades.domain.freshness import CLOCKS_DIFFER
from upgrades.models import Agent, Application, LogFile, Run, RunBinding
from upgrades.services import agents, runs, scs_logs
from upgrades.services.attempts import Parked, attempt
from upgrades.services.probes import ask, judge

logger = logging.getLogger(__name__)

# A worker that dies is missed after this long. One that lives renews its leases several times within it, also while an
# agent keeps it waiting, so that no second worker follows the same agent.
LEASE = timedelta(seconds=6)
RENEW_EVERY = 1.5
HEALTH_EVERY = timedelta(seconds=15)
SET_BACK = timedelta(days=1)  # nobody sets a clock back by more
RETRY = 1.0  # seconds until an agent in trouble is asked again
ASKED_AGAIN = 0.25  # seconds, at least, from one poll that brings no line to the next
WAIT = 5.0  # seconds that a poll waits for news; a run that starts in between is noticed after that
# Seconds beyond the wait; with it still less than the life of a loop, so that no one is late unseen.
ANSWER_WITHIN = 8.0
# Seconds that a loop which is over waits for answers; one late agent must not hold the others up.
CLOSING = 1.0
PROBE_EVERY = 0.5
READS_PER_LOOK = 8  # answers that a look takes of the logs of an SCS
CLAIM_EVERY = 0.1
OVERLAP = 2.0  # seconds before its end at which a loop calls the next one
NO_SHOW = 3.0  # seconds beyond its end that a loop waits for the next one to begin
LATE = 10.0  # seconds beyond its end that a loop may last while the next one takes its agents
# Due agents that a loop begins with in one turn, and as many of the loop before. Asking hundreds at once would keep the
# lines of all waiting, and use up the time of their answers with our own work: agents that are well would be said to be slow.
TAKEN_AT_ONCE = 10
AGENTS_PER_LOOP = 500
KILLS = (
    "Each worker that read its last answers died. They are read again at {again_at:%H:%M:%S} UTC; until then nothing of its"
    " logs is taken in. Look at the log of the workers, and tell whoever operates Runbook."
)
NOT_TAKEN_IN = "What it answered could not be stored. It is asked again; the log of the worker says why."

T = TypeVar("T")
Question = tuple[int, AgentAddress, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to ask of an agent now."""

    address: AgentAddress
    applications: tuple[str, ...]
    cursors: tuple[Cursor, ...]
    processes: dict[str, str]
    wait: float  # seconds that the agent may wait for news


# Leases.


def claim(token: uuid.UUID, *, limit: int = AGENTS_PER_LOOP) -> list[int]:
    """Take the lease of up to `limit` agents that are due and that nobody follows; gives their ids.

    Those that open runs need come first.
    """
    now = timezone.now()
    needed = RunBinding.objects.exclude(run__status__in=agents.OVER).values("application__host")
    with transaction.atomic():
        found = Agent.objects.select_for_update(skip_locked=True).filter(_waits(now))
        found = found.order_by(Case(When(host__in=needed, then=0), default=1), "due_at", "id")
        ids = list(found.values_list("pk", flat=True)[:limit])
        # A lease that ran out was not given back: whoever had it died, or hangs.
        expired = When(lease_until__lt=now, then=F("leases_expired") + 1)
        Agent.objects.filter(pk__in=ids).update(
            lease_token=token,
            lease_until=now + LEASE,
            leases_expired=Case(expired, default=F("leases_expired"), output_field=IntegerField()),
        )
        if ids:
            crash("lease.before-commit")
    if ids:
        crash("lease.taken")
    return ids


def _waits(now: datetime, late: timedelta = timedelta()) -> Q:
    """Agents that are due and that nobody follows, for so long at least.

    A time that lies further ahead than any that is written now was written before the clock was set back: without this,
    what a worker held that died then, and agents that nobody looks at all the time, would wait until the old time comes again.
    """
    until = now - late
    free = Q(lease_until=None) | Q(lease_until__lt=until) | _before_setting_back("lease_until", now + LEASE)
    due = Q(due_at=None) | Q(due_at__lte=until) | _before_setting_back("due_at", now + HEALTH_EVERY)
    return free & due


def _before_setting_back(field: str, furthest: datetime) -> Q:
    return Q(**{f"{field}__gt": furthest + CLOCKS_DIFFER, f"{field}__lt": furthest + SET_BACK})


def take_over(token: uuid.UUID, before: uuid.UUID, *, limit: int) -> list[int] | None:
    """Take up to `limit` agents from the loop of the token `before`, which has called this one; gives their ids.

    None when that loop has none left. It goes on following an agent until this moment, so none is ever without.
    """
    with transaction.atomic():
        theirs = Agent.objects.filter(lease_token=before)
        free = theirs.select_for_update(skip_locked=True).order_by("id")  # locked: an answer is being stored
        ids = list(free.values_list("pk", flat=True)[:limit])
        if not ids and not theirs.exists():
            return None
        Agent.objects.filter(pk__in=ids).update(lease_token=token, lease_until=timezone.now() + LEASE)
    if ids:
        crash("lease.taken-over")
    return ids


def release(agent_id: int, token: uuid.UUID, *, due_at: datetime, followed_since: datetime) -> None:
    """Give the lease back. A worker that had lost it meanwhile changes nothing.

    Where somebody was in a `hurry` since, the agent stays due then: a run has started while it was looked at.
    """
    crash("lease.before-release")
    # A hurry is of now. What lies further ahead was written before the clock was set back, and is no hurry: such an agent
    # would be looked at without any pause until the old time comes again.
    latest = timezone.now() + CLOCKS_DIFFER
    hurried = When(due_at__gt=followed_since, due_at__lte=latest, then=F("due_at"))
    Agent.objects.filter(pk=agent_id, lease_token=token).update(
        lease_token=None, lease_until=None, due_at=Case(hurried, default=Value(due_at))
    )


def hurry(host_ids: Iterable[int]) -> None:
    """Have the agents of these hosts looked at now: a run has started on them."""
    Agent.objects.filter(host__in=host_ids).update(due_at=timezone.now())


def renew(token: uuid.UUID, agent_ids: list[int]) -> int:
    """Make the leases of these agents longer, where they are ours still; how many are."""
    ours = Agent.objects.filter(pk__in=agent_ids, lease_token=token)
    return ours.update(lease_until=timezone.now() + LEASE)


def overdue() -> bool:
    """Whether agents wait for somebody to follow them: then another loop is needed."""
    return Agent.objects.filter(_waits(timezone.now(), timedelta(seconds=1))).exists()


def followed_by(token: uuid.UUID) -> frozenset[int]:
    """The agents whose lease that is still."""
    return frozenset(Agent.objects.filter(lease_token=token).values_list("pk", flat=True))


def another_has_room(token: uuid.UUID, agents_held: int) -> bool:
    """Whether another loop can take so many agents beside its own: then this one needs no successor.

    Of two such loops only one gives way, or nobody would be left.
    """
    others = Agent.objects.filter(lease_token__gt=token, lease_until__gt=timezone.now())
    counted = others.values("lease_token").annotate(agents=Count("pk"))
    return counted.filter(agents__lte=AGENTS_PER_LOOP - agents_held).exists()


def _held(agent_id: int, token: uuid.UUID) -> bool:
    """Whether the lease is ours still; it is made longer."""
    ours = Agent.objects.filter(pk=agent_id, lease_token=token)
    return bool(ours.update(lease_until=timezone.now() + LEASE))


def plan(agent_id: int, token: uuid.UUID) -> Plan | None:
    """What to ask next, and the lease made longer; None when the lease is lost or no open run needs the agent."""
    if not _held(agent_id, token):
        return None
    agent = Agent.objects.get(pk=agent_id)
    bound = RunBinding.objects.exclude(run__status__in=agents.OVER).values("application")
    applications = list(Application.objects.filter(host=agent.host_id, pk__in=bound))
    if not applications:
        return None
    return _asking(agent, [*applications, *scs_logs.unbound(agent.host_id, applications)])


def scs_plan(agent_id: int, token: uuid.UUID) -> Plan | None:
    """What to ask for the standing rules' sake, and the lease made longer; None when it is lost or no SCS is there."""
    if not _held(agent_id, token):
        return None
    agent = Agent.objects.get(pk=agent_id)
    applications = scs_logs.unbound(agent.host_id, ())
    return _asking(agent, applications) if applications else None


def _asking(agent: Agent, applications: list[Application]) -> Plan:
    files = LogFile.objects.filter(application__in=applications, state="open").select_related("application")
    return Plan(
        address=agents.address_of(agent),
        applications=tuple(application.name for application in applications),
        cursors=tuple(Cursor(file.application.name, file.identity, file.cursor, file.mark) for file in files),
        processes={application.name: application.process_state for application in applications},
        # Of one that was in trouble nothing is wanted first but an answer: that it is well again is news itself.
        wait=0.0 if agent.trouble else WAIT,
    )


# One agent.


async def _thread(work: Callable[..., T], *arguments: Any, **named: Any) -> T:
    """Database work beside the event loop."""

    def clean() -> T:
        close_old_connections()
        try:
            return work(*arguments, **named)
        finally:
            close_old_connections()

    return await asyncio.to_thread(clean)


def _take(agent_id: int, token: uuid.UUID, news: Any) -> bool:
    """Store an answer, and advance the runs that it concerns. What fails there is found by the reconciler.

    False when answers of this agent are parked: nothing was stored, and it need not be asked again at once.
    """
    crash("news.answered")
    try:
        with attempt(f"agent {agent_id}"):
            taken = agents.take_news(agent_id, news, lease=token)
    except Parked as parked:
        logger.error("%s. The other agents are followed on.", parked)
        _trouble(agent_id, token, KILLS.format(again_at=parked.again_at))
        return False
    crash("news.committed")
    for run_id in taken.runs:
        if not _advance(run_id) and taken.lines:
            runs.touch([run_id])
    crash("news.runs-advanced")
    _announce(taken)
    return True


def _trouble(agent_id: int, token: uuid.UUID, text: str) -> None:
    taken = agents.record_trouble(agent_id, text, at=timezone.now(), lease=token)
    crash("trouble.committed")
    _follow_up(taken)


def _look(agent_id: int, token: uuid.UUID, health: Any, logs: Any) -> None:
    taken = agents.take_look(agent_id, health, logs, lease=token)
    crash("look.committed")
    _follow_up(taken)


def _follow_up(taken: agents.Taken) -> None:
    for run_id in taken.runs:
        _advance(run_id)
    _announce(taken)


def _announce(taken: agents.Taken) -> None:
    if taken.environment is not None:
        with transaction.atomic():
            runs.announce_environment(taken.environment)


def _advance(run_id: int) -> bool:
    try:
        return runs.advance_run(run_id)
    except Exception:
        # It is the run that is in trouble, not the agent that was asked for it.
        logger.exception("run %s could not be advanced", run_id)
        return False


class Loop:
    """Follows agents until `until` (monotonic seconds), then gives all leases back.

    `hand_over` calls the next loop a little before, with this one's token: `before` of that one. The next loop takes the
    agents over, a few at a time, and each is followed by this one until it has; so no line waits for a change of loops,
    however long the message takes.
    """

    def __init__(
        self,
        client: AgentClient,
        until: float,
        hand_over: Callable[[uuid.UUID], object] | None = None,
        before: uuid.UUID | None = None,
    ) -> None:
        self.client = client
        self.until = until
        self.hand_over = hand_over
        self.before = before
        self.token = uuid.uuid4()
        self.tasks: dict[int, asyncio.Task[None]] = {}
        self.watched: set[int] = set()  # agents that open runs need
        # By agent, its last answer to each probe. What it said before a silence counts no more, and is told again.
        self.told: defaultdict[int, dict[tuple[Any, ...], tuple[str, str]]] = defaultdict(dict)
        self.called = False  # the next loop was: it may take our agents

    @property
    def over(self) -> bool:
        return time.monotonic() >= self.until

    @property
    def ending(self) -> bool:
        """Whether it is time to call the next loop."""
        return self.hand_over is not None and time.monotonic() >= self.until - OVERLAP

    async def run(self) -> int:
        """How many agents were followed."""
        beside = [asyncio.create_task(self._probe()), asyncio.create_task(self._renew())]
        try:
            return await self._follow_all()
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)

    async def _renew(self) -> None:
        """Make the leases of all agents that are followed longer, until it is cancelled."""
        while True:
            await asyncio.sleep(RENEW_EVERY)
            followed = [agent for agent, task in self.tasks.items() if not task.done()]
            try:
                await _thread(renew, self.token, followed)
            except DatabaseError as trouble:
                logger.warning("leases could not be renewed: %s", trouble)

    async def _follow_all(self) -> int:
        followed = 0
        while not (self.over or self.ending):
            self._forget_ended()
            for agent_id in await self._claimed():
                followed += 1
                self.tasks[agent_id] = asyncio.create_task(self._follow(agent_id))
            if not followed and self.before is None:
                return 0
            await asyncio.sleep(CLAIM_EVERY)
        self._forget_ended()
        if self.hand_over is not None and followed and await self._call_next():
            await self._give_over()
        await self._end()
        return followed

    def _forget_ended(self) -> None:
        self.tasks = {agent: task for agent, task in self.tasks.items() if not task.done()}

    async def _claimed(self) -> list[int]:
        """The agents that this loop follows from now on: due ones, and some of the loop before."""
        room = AGENTS_PER_LOOP - len(self.tasks)
        found = await _thread(claim, self.token, limit=min(TAKEN_AT_ONCE, room))
        if self.before is not None:
            # Many due agents must not keep those of the loop before waiting: each has a share of the turn of its own.
            share = min(TAKEN_AT_ONCE, room - len(found))
            taken = await _thread(take_over, self.token, self.before, limit=share)
            if taken is None:
                self.before = None
            else:
                found += taken
        return found

    async def _call_next(self) -> bool:
        """Whether the next loop is called; none is where another one has room for our agents."""
        return not await _thread(another_has_room, self.token, len(self.tasks)) and await _thread(self._call)

    def _call(self) -> bool:
        assert self.hand_over is not None
        try:
            self.hand_over(self.token)
        except Exception as trouble:  # whatever the broker's client raises; the reconciler calls a loop then
            logger.warning("the next loop could not be called: %s", trouble)
            return False
        crash("loop.handed-over")
        return True

    async def _give_over(self) -> None:
        """Follow each agent until the next loop has taken it; what it has not taken in time is given back."""
        self.called = True
        end = self.until
        self.until, last = end + NO_SHOW, end + LATE
        while self.tasks and not self.over:
            held = await _thread(followed_by, self.token)
            for agent, task in self.tasks.items():
                if agent not in held and not task.cancelling():
                    self.until = last  # the next loop has begun
                    task.cancel()  # what it waits for comes to that one
            await asyncio.sleep(CLAIM_EVERY)
            self._forget_ended()

    async def _end(self) -> None:
        """Wait for the answers that come in time; whoever is late is asked again by the next loop."""
        late = set(self.tasks.values())
        if late:
            _, late = await asyncio.wait(late, timeout=max(0.0, self.until - time.monotonic()) + CLOSING)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    async def _follow(self, agent_id: int) -> None:
        log_context.begin(**{**log_context.fields(), "agent": agent_id})  # of this coroutine alone
        since = due_at = timezone.now()
        try:
            if await _thread(plan, agent_id, self.token) is None:
                await self.look(agent_id)
                due_at = timezone.now() + HEALTH_EVERY
            else:
                await self._watch(agent_id)
                due_at = timezone.now()
        except agents.LeaseLost as lost:
            level = logging.DEBUG if self.called else logging.WARNING
            logger.log(level, "%s; what came late was thrown away", lost)
        except Exception:
            # One agent's fault must not end the others; it is asked again soon.
            logger.exception("following agent %s failed", agent_id)
            due_at = timezone.now() + timedelta(seconds=RETRY)
            with contextlib.suppress(DatabaseError, agents.LeaseLost):
                await _thread(_trouble, agent_id, self.token, NOT_TAKEN_IN)
        finally:
            await _thread(release, agent_id, self.token, due_at=due_at, followed_since=since)

    async def look(self, agent_id: int) -> None:
        """One look at an agent that no open run needs."""
        agent = await _thread(Agent.objects.get, pk=agent_id)
        try:
            address = agents.address_of(agent)
            health = await self.client.health(address)
            logs = await self.client.logs(address, health.applications)
        except AgentTrouble as trouble:
            await _thread(_trouble, agent_id, self.token, str(trouble))
        else:
            await _thread(_look, agent_id, self.token, health, logs)
            await self._listen(agent_id, logs)

    async def _listen(self, agent_id: int, logs: Logs) -> None:
        """Read on in the logs of the SCS on this host, a little at each look: the standing rules need its reports."""
        await _thread(scs_logs.begin, agent_id, logs)
        for _ in range(READS_PER_LOOK):
            asked = await _thread(scs_plan, agent_id, self.token)
            if asked is None or self.over or not await self.poll(agent_id, replace(asked, wait=0.0)):
                return

    async def _watch(self, agent_id: int) -> None:
        self.watched.add(agent_id)
        try:
            while not self.over:
                asked = await _thread(plan, agent_id, self.token)
                if asked is None:
                    return
                began = time.monotonic()
                if not await self.poll(agent_id, asked):
                    # No pause where it waited as it should: what it has to tell comes at once.
                    await asyncio.sleep(began + ASKED_AGAIN - time.monotonic())
        finally:
            self.watched.discard(agent_id)

    async def poll(self, agent_id: int, asked: Plan) -> bool:
        """Ask once and store the answer; True when it brought something of a log."""
        wait = max(0.0, min(asked.wait, self.until - time.monotonic()))
        try:
            news = await self.client.poll(
                asked.address,
                applications=asked.applications,
                cursors=asked.cursors,
                processes=asked.processes,
                wait=wait,
            )
        except AgentTrouble as trouble:
            self.told.pop(agent_id, None)
            await _thread(_trouble, agent_id, self.token, str(trouble))
            await asyncio.sleep(RETRY)
            return False
        if not await _thread(_take, agent_id, self.token, news):
            await asyncio.sleep(RETRY)
            return False
        return any(application.files for application in news.applications.values())

    async def _probe(self) -> None:
        """Ask what open gates want to know, each agent beside the others, until it is cancelled."""
        asking: dict[int, asyncio.Task[None]] = {}
        try:
            while True:
                for agent_id, questions in (await self._questions()).items():
                    if agent_id not in asking or asking[agent_id].done():
                        asking[agent_id] = asyncio.create_task(self._ask(agent_id, questions))
                await asyncio.sleep(PROBE_EVERY)
        finally:
            for task in asking.values():
                task.cancel()
            await asyncio.gather(*asking.values(), return_exceptions=True)

    async def _questions(self) -> dict[int, list[Question]]:
        try:
            return await _thread(_questions, tuple(self.watched)) if self.watched else {}
        except DatabaseError as trouble:
            logger.warning("what open gates want to know could not be read: %s", trouble)
            return {}

    async def _ask(self, agent_id: int, questions: list[Question]) -> None:
        """Put the questions to the agent; only an answer that differs from the last one is reported."""
        told = self.told[agent_id]
        for run_id, address, question in questions:
            key = (run_id, question["step"], question["visit"], question["gate"])
            try:
                answer = judge(question, await ask(self.client, address, question))
                crash("probe.answered")
                if told.get(key) != (answer.value, answer.text):
                    await _thread(runs.report, run_id, [answer], followed=(agent_id, self.token))
                    told[key] = (answer.value, answer.text)
            except agents.LeaseLost as lost:
                logger.info("an answer of agent %s is left out: %s", agent_id, lost)
                return
            except AgentTrouble as trouble:
                # The poll beside this one reports the agent; the gate itself is then in doubt.
                logger.info("probe of agent %s: %s", agent_id, trouble)
            except Exception:
                logger.exception("an answer of agent %s could not be reported to run %s", agent_id, run_id)


def _questions(agent_ids: tuple[int, ...]) -> dict[int, list[Question]]:
    """The probes that open runs want of these agents: run, address, question (`Run.probes`)."""
    wanting = Run.objects.exclude(status__in=agents.OVER).exclude(probes=[])
    asked = list(wanting.values_list("pk", "environment_id", "probes"))
    found: dict[int, list[Question]] = {}
    if not asked:
        return found
    known = {
        (agent.environment_id, agent.host.name): agent
        for agent in Agent.objects.filter(pk__in=agent_ids).select_related("host")
    }
    for run_id, environment_id, probes in asked:
        for question in probes:
            agent = known.get((environment_id, question["host"]))
            if agent is not None:
                found.setdefault(agent.pk, []).append((run_id, agents.address_of(agent), question))
    return found


async def _follow_agents(
    seconds: float, hand_over: Callable[[uuid.UUID], object] | None, before: uuid.UUID | None
) -> int:
    async with AgentClient(deadline=ANSWER_WITHIN) as client:
        return await Loop(client, time.monotonic() + seconds, hand_over, before).run()


def follow_agents(
    seconds: float,
    hand_over: Callable[[uuid.UUID], object] | None = None,
    before: uuid.UUID | None = None,
) -> int:
    """Follow agents that are due for so many seconds; gives how many, at once 0 when there was none to follow.

    `hand_over` is called shortly before the end, and only if there were any, with the token by which the next loop
    takes them over: its `before`.
    """
    return asyncio.run(_follow_agents(seconds, hand_over, before))
