"""The polling loop with real agents and hostile ones: nobody waits for another, nobody is followed twice."""

import asyncio
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from functools import partial
from itertools import pairwise
from unittest.mock import AsyncMock, patch
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import pytest
from django.db import connections, transaction
from django.utils import timezone

from tests.agent.conftest import SECRET, new_client
from tests.services.fake_agent import FakeAgent, news, signed
from tests.services.night import at_once
from tests.waiting import wait_for
from upgrades.adapters.agent_client import AgentTrouble, Origin, ProcessProbe
from upgrades.domain import run as core
from upgrades.models import Agent, Attempt, LogFile, LogLine
from upgrades.services import agents, attempts, observations, polling, runs
from upgrades.services.agents import take_news

pytestmark = pytest.mark.usefixtures("short_connections")
READY = "10:00:02.000 Std 22170 synthetic\n"


@contextmanager
def following(before=None, **client):
    """A polling loop in a thread of its own, for as long as the block lasts."""
    loops, began = [], threading.Event()

    async def follow():
        async with new_client(**{"deadline": polling.ANSWER_WITHIN} | client) as asking:
            loops.append(polling.Loop(asking, time.monotonic() + 600, before=before))
            began.set()
            await loops[0].run()

    def work():
        asyncio.run(follow())
        connections.close_all()

    thread = threading.Thread(target=work)
    thread.start()
    began.wait()
    try:
        yield loops[0]
    finally:
        loops[0].until = 0.0
        thread.join()


def is_at(row, running):
    """The registered agent `row` is the real one that runs."""
    url = running.address.url
    Agent.objects.filter(pk=row.pk).update(url=url, key_id="k1", secret=SECRET, due_at=None)


@pytest.fixture
def good(real_night, start_agent):
    """The real agent of the new server's host."""
    running = start_agent("confserv_b", agent="fra-cfg-02")
    is_at(real_night.agent("new"), running)
    return running


# What the agent of the other host does instead of answering. Each gets the handler and an event that ends it.


def drips(handler, over):
    handler.send_response(200)
    handler.end_headers()
    while not over.wait(0.05):
        handler.wfile.write(b"x")
        handler.wfile.flush()


def is_late(handler, over):
    over.wait(600)


def sends_200_megabytes(handler, over):
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(200 << 20))
    handler.send_header("Runbook-Signature", "0" * 64)
    handler.end_headers()
    for _ in range(200):
        handler.wfile.write(b"[" * (1 << 20))


def talks_nonsense(handler, over):
    handler.wfile.write(b"<html>It works!</html>\r\n\r\n")
    handler.close_connection = True


def does_not_know(handler, over):
    handler.send_error(404)


def signs_nonsense(handler, over):
    signed(handler, {"applications": {"confserv": {"files": "../../etc/passwd"}}})


@pytest.fixture
def bad(real_night):
    """The agent of the old server's host; the test says what it does. `over` ends whatever hangs."""
    agent = FakeAgent()
    agent.stands_for(real_night.agent("old"))
    yield agent
    agent.close()


def misbehave(bad, how):
    def answer(handler):
        with suppress(OSError):  # the loop has had enough
            how(handler, bad.over)

    bad.answer = answer


@pytest.mark.parametrize("how", [drips, is_late])
def test_a_line_of_the_good_agent_arrives_while_the_bad_one_keeps_the_loop_waiting(
    real_night, good, bad, how
):
    misbehave(bad, how)
    with following(deadline=600.0):
        wait_for(lambda: bad.asked)
        good.write("confserv_b", READY)
        wait_for(lambda: LogLine.objects.filter(event="21-22170").exists())
        good.write("confserv_b", READY)
        wait_for(lambda: LogLine.objects.filter(event="21-22170").count() == 2)
        assert len(bad.asked) == 1  # its first question is still open: the limit of this loop is ten minutes


@pytest.mark.parametrize(
    "how", [drips, is_late, sends_200_megabytes, talks_nonsense, does_not_know, signs_nonsense]
)
def test_the_trouble_with_a_bad_agent_is_recorded_and_the_good_one_goes_on(real_night, good, bad, how):
    misbehave(bad, how)
    with following(deadline=1.0):
        good.write("confserv_b", READY)
        wait_for(lambda: real_night.agent("old").trouble)
        good.write("confserv_b", READY)
        wait_for(lambda: LogLine.objects.filter(event="21-22170").count() == 2)
    assert real_night.agent("new").trouble == ""
    assert not LogLine.objects.filter(file__application__name="confserv").exists()


def test_a_server_that_kept_a_thousand_segments_is_followed_as_any_other(real_night, good):
    """Their names do not fit into a line of HTTP: its gates stayed shut for good."""
    for number in range(1000):
        good.write("confserv_b", f"old segment {number}\n", f"confserv_b.{number:04}.log")
    with following():
        wait_for(lambda: LogFile.objects.filter(application__name="confserv_b").count() == 1000)
        good.write("confserv_b", READY)
        wait_for(lambda: LogLine.objects.filter(event="21-22170").exists())
    assert real_night.agent("new").trouble == ""


def waits(agent):
    """The seconds for which each poll let the agent wait, in order."""
    polls = [urlsplit(path) for path in agent.asked if path.startswith("/v1/poll")]
    return [float(parse_qs(poll.query)["wait"][0]) for poll in polls]


def test_an_agent_in_trouble_is_asked_for_an_answer_before_it_is_asked_for_news(real_night, good, bad):
    """That it is well again shows after a second, not only after the five that a poll waits for news."""
    misbehave(bad, does_not_know)
    with following():
        wait_for(lambda: len(bad.asked) >= 3)
        bad.answer = None
        wait_for(lambda: waits(bad)[-1] == polling.WAIT)
    asked = waits(bad)[: waits(bad).index(polling.WAIT, 1) + 1]
    assert asked[0] == asked[-1] == polling.WAIT
    assert set(asked[1:-1]) == {0.0}


def test_an_agent_that_answers_at_once_with_nothing_is_not_asked_without_pause(real_night, good, bad):
    asked = []
    with following() as loop:
        poll = loop.client.poll

        async def noted(address, **question):
            if address.url == bad.url:
                asked.append(time.monotonic())
            return await poll(address, **question)

        loop.client.poll = noted
        wait_for(lambda: len(asked) >= 10)
    pauses = [later - sooner for sooner, later in pairwise(asked)]
    assert min(pauses) > 0.8 * polling.ASKED_AGAIN  # the rest is room for the moment at which each was noted


def test_an_agent_that_answers_again_is_told_as_back(real_night, good, bad):
    misbehave(bad, does_not_know)
    with following():
        wait_for(lambda: "agent.lost" in real_night.kinds)
        bad.answer = None
        wait_for(lambda: "agent.back" in real_night.kinds)
    assert real_night.agent("old").trouble == ""
    assert real_night.state.lost_agents == {}


def test_an_agent_is_lost_only_after_some_patience(night):
    agent, now = night.agent("new"), timezone.now()
    agents.record_trouble(agent.pk, "no connection", at=now)
    night.advance()
    assert night.state.lost_agents == {}
    Agent.objects.filter(pk=agent.pk).update(trouble_since=now - observations.PATIENCE - timedelta(seconds=1))
    agents.record_trouble(agent.pk, "still no connection", at=now)
    night.advance()
    assert night.state.lost_agents == {"fra-cfg-02": "still no connection"}
    take_news(agent.pk, news())
    night.advance()
    assert night.state.lost_agents == {}


def test_an_agent_that_fell_silent_before_the_clock_was_set_back_is_lost_at_once(night):
    """F36: how long it has been silent cannot be told then, and patience would last as long as the step back."""
    agent = night.agent("new")
    agents.record_trouble(agent.pk, "no connection", at=timezone.now() + timedelta(minutes=5))
    night.advance()
    assert night.state.lost_agents == {"fra-cfg-02": "no connection"}


def test_what_cannot_be_stored_is_trouble_that_the_page_shows(real_night, good):
    good.write("confserv_b", READY)
    with following():
        wait_for(lambda: LogLine.objects.exists())
        LogFile.objects.update(parser_state={"version": 2})
        good.write("confserv_b", READY)
        wait_for(lambda: real_night.agent("new").trouble == polling.NOT_TAKEN_IN)
    assert LogLine.objects.count() == 1


def test_an_agent_that_restarts_is_read_on_from_where_the_server_stands(real_night, good, start_agent):
    """F26: nothing is remembered by the agent; nothing comes twice."""
    with following():
        good.write("confserv_b", READY)
        wait_for(lambda: LogLine.objects.count() == 1)
        good.end()
        again = start_agent("confserv_b", agent="fra-cfg-02")
        Agent.objects.filter(pk=real_night.agent("new").pk).update(url=again.address.url)
        again.write("confserv_b", READY)
        wait_for(lambda: LogLine.objects.count() == 2)
    assert list(LogLine.objects.order_by("offset").values_list("offset", flat=True)) == [0, len(READY)]


def test_a_step_begins_and_completes_by_itself_while_the_loop_runs(real_night, good):
    """From the line in the file to the outcome on the record, with nobody's help."""
    real_night.go_to("replace-folder")
    good.write("confserv_b", "10:00:01.000 Std 25301 of an earlier launch\n" + READY)
    with following():
        wait_for(lambda: LogLine.objects.filter(event="21-22170").exists())
        real_night.go_to("launch-new")
        wait_for(lambda: real_night.state.steps["launch-new"].status == "begun")
        good.write("confserv_b", "10:00:01.000 Std 25301 synthetic\n")
        good.write("confserv_b", READY)
        wait_for(lambda: real_night.state.current == "stop-old")
    assert real_night.kinds.count("gate.outcome") == 1


# Leases.


def claims(limit=500):
    token = uuid4()
    return token, polling.claim(token, limit=limit)


@pytest.mark.parametrize("step", [timedelta(minutes=5), timedelta(hours=1), timedelta(hours=23)])
def test_a_clock_that_is_set_back_keeps_no_agent_waiting(real_night, monkeypatch, step):
    """F36: neither what a worker held that died then, nor an agent whose next look is far ahead now."""
    before = timezone.now
    monkeypatch.setattr(timezone, "now", lambda: before() + step)
    token, held = claims(limit=1)
    looked_at = Agent.objects.exclude(pk__in=held)
    looked_at.update(due_at=timezone.now() + polling.HEALTH_EVERY)
    assert len(held) == 1
    assert looked_at.exists()
    assert claims()[1] == []
    monkeypatch.undo()
    assert polling.overdue()
    other, found = claims()
    assert len(found) == Agent.objects.count()
    assert polling.plan(held[0], token) is None  # should the other one live after all, it knows
    assert polling.plan(held[0], other) is not None
    assert claims()[1] == []
    assert not polling.overdue()


def test_a_clock_that_is_set_ahead_takes_the_lease_only_from_a_worker_that_does_not_renew_it(
    real_night, monkeypatch
):
    token, held = claims()
    before = timezone.now
    monkeypatch.setattr(timezone, "now", lambda: before() + timedelta(hours=1))
    assert polling.renew(token, held[:1]) == 1
    assert sorted(claims()[1]) == sorted(held[1:])


def test_many_loops_that_claim_at_once_never_get_the_same_agent(real_night):
    for round_ in range(10):
        Agent.objects.update(lease_token=None, lease_until=None, due_at=None)
        taken = [
            agent for _, found in at_once(*[partial(claims, limit=1 + round_ % 3)] * 6) for agent in found
        ]
        assert len(taken) == len(set(taken)) == Agent.objects.count()


def test_two_loops_never_ask_the_same_agent_at_once(real_night, bad):
    asking, most, guard = [0], [0], threading.Lock()

    def answer(handler):
        with guard:
            asking[0] += 1
            most[0] = max(most[0], asking[0])
        found = bad.found(handler.path)
        with guard:
            asking[0] -= 1
        signed(handler, found)

    bad.answer = answer
    with following() as one, following() as other:
        wait_for(lambda: len(bad.asked) >= 30)
        assert one.token != other.token
    assert most[0] == 1


def test_a_lease_that_ran_out_is_taken_over_and_the_late_worker_changes_nothing(real_night):
    late, mine = claims()
    Agent.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    other, theirs = claims()
    assert sorted(mine) == sorted(theirs)
    agent, now = real_night.agent("new").pk, timezone.now()
    assert polling.plan(agent, late) is None
    polling.release(agent, late, due_at=now + timedelta(days=1), followed_since=now)
    row = Agent.objects.get(pk=agent)
    assert row.lease_token == other
    assert row.due_at is None or row.due_at < now + timedelta(hours=1)
    assert row.lease_until > now
    assert polling.plan(agent, other) is not None


def test_a_held_lease_is_left_alone_and_grows_with_each_plan(real_night):
    token, _ = claims()
    before = real_night.agent("new").lease_until
    assert claims()[1] == []
    assert polling.plan(real_night.agent("new").pk, token) is not None
    assert real_night.agent("new").lease_until > before


def test_a_lease_is_renewed_while_its_agent_keeps_the_loop_waiting(real_night, bad, monkeypatch):
    """A lease is short, so that a dead worker is missed soon; an agent that is slow to answer costs nobody the lease."""
    monkeypatch.setattr(polling, "LEASE", timedelta(seconds=2))
    monkeypatch.setattr(polling, "RENEW_EVERY", 0.2)
    misbehave(bad, is_late)
    with following(deadline=600.0):
        wait_for(lambda: bad.asked)
        first = real_night.agent("old")
        wait_for(lambda: real_night.agent("old").lease_until > first.lease_until + polling.LEASE)
        assert real_night.agent("old").lease_token == first.lease_token


def test_an_agent_that_is_followed_no_more_is_not_kept_from_others(real_night):
    token, mine = claims()
    assert polling.renew(token, mine[:1]) == 1
    Agent.objects.filter(pk__in=mine).update(lease_token=uuid4())
    assert polling.renew(token, mine) == 0


def test_a_run_that_starts_while_its_agent_is_looked_at_does_not_wait_for_the_next_look(real_night):
    agent = real_night.agent("new")
    token, since = uuid4(), timezone.now()
    polling.claim(token)
    polling.hurry([agent.host_id])  # a run starts
    polling.release(agent.pk, token, due_at=since + polling.HEALTH_EVERY, followed_since=since)
    assert Agent.objects.get(pk=agent.pk).due_at < since + timedelta(seconds=5)
    assert agent.pk in claims()[1]


def test_an_agent_is_looked_at_once_an_interval_after_the_clock_was_set_back(real_night):
    """F36: what was due then lies ahead, and is neither waited for nor taken for a hurry at each look."""
    agent, ahead = real_night.agent("new"), timezone.now() + timedelta(hours=1)
    Agent.objects.filter(pk=agent.pk).update(due_at=ahead)
    token, mine = claims()
    assert agent.pk in mine
    since = timezone.now()
    polling.release(agent.pk, token, due_at=since + polling.HEALTH_EVERY, followed_since=since)
    assert Agent.objects.get(pk=agent.pk).due_at == since + polling.HEALTH_EVERY
    assert agent.pk not in claims()[1]


def test_an_agent_without_an_open_run_is_only_looked_at(real_night, good):
    from upgrades.domain.run import Abort

    real_night.act(Abort(reason="Nothing is to be done tonight."))
    good.write("confserv_b", READY)
    with following():
        wait_for(lambda: real_night.agent("new").version)
        wait_for(lambda: real_night.agent("new").lease_token is None)
    assert real_night.agent("new").due_at > timezone.now()
    assert not LogLine.objects.exists()


def test_the_next_loop_is_called_while_the_agents_are_held_still(real_night, good):
    """No line waits for a change of loops: the next one stands ready before the first agent is let go."""
    held = []

    def next_loop(token):
        held.append(set(Agent.objects.exclude(lease_token=None).values_list("host__name", flat=True)))

    assert polling.follow_agents(polling.OVERLAP + 1.0, next_loop) > 0
    assert len(held) == 1
    assert "fra-cfg-02" in held[0]
    assert not Agent.objects.exclude(lease_token=None).exists()


def test_the_next_loop_takes_each_agent_while_it_is_followed_still(real_night, good, bad, monkeypatch):
    """Between one loop and the next no agent is without: a lease only ever goes from hand to hand."""
    given_back, release = set(), polling.release
    needed = Agent.objects.filter(pk__in=[real_night.agent(role).pk for role in ("new", "old")])

    def noted(agent_id, token, **named):
        given_back.update((agent.pk, token, agent.lease_token) for agent in needed.filter(pk=agent_id))
        release(agent_id, token, **named)

    monkeypatch.setattr(polling, "release", noted)
    with ExitStack() as next_loop:
        heirs, tokens = [], []

        def call(token):
            tokens.append(token)
            heirs.append(next_loop.enter_context(following(before=token)))

        assert polling.follow_agents(polling.OVERLAP + 1.0, call) >= 2
        [token], [heir] = tokens, heirs
        assert set(needed.values_list("lease_token", flat=True)) == {heir.token}
        assert given_back == {(agent.pk, token, heir.token) for agent in needed}
        good.write("confserv_b", READY)
        wait_for(lambda: LogLine.objects.filter(event="21-22170").exists())


def test_a_loop_is_taken_over_a_few_agents_at_a_time_and_nobody_else_is(real_night):
    before, mine = claims()
    assert len(mine) == Agent.objects.count() > 1
    assert polling.take_over(uuid4(), uuid4(), limit=10) is None
    heir = uuid4()
    assert polling.take_over(heir, before, limit=1) == mine[:1]
    assert polling.followed_by(before) == set(mine[1:])
    assert polling.take_over(heir, before, limit=10) == mine[1:]
    assert polling.take_over(heir, before, limit=10) is None
    assert polling.followed_by(heir) == set(mine)


def test_many_due_agents_do_not_keep_those_of_the_loop_before_waiting(real_night, monkeypatch):
    """Each turn takes some of both, however many are due."""
    monkeypatch.setattr(polling, "TAKEN_AT_ONCE", 1)
    before = uuid4()
    [theirs] = polling.claim(before, limit=1)
    heir = polling.Loop(new_client(), time.monotonic() + 600, before=before)
    due, taken_over = asyncio.run(heir._claimed())
    assert taken_over == theirs != due
    assert polling.followed_by(before) == set()


def test_an_agent_whose_answer_is_being_stored_is_taken_afterwards(real_night):
    before, mine = claims()
    heir = uuid4()

    def take():
        return polling.take_over(heir, before, limit=10)

    with transaction.atomic():
        Agent.objects.select_for_update().get(pk=mine[0])
        assert at_once(take) == [mine[1:]]
        assert at_once(take) == [[]]  # there is one left: the loop before is not forgotten
    assert take() == mine[:1]


def test_of_two_loops_with_room_one_gives_way(real_night):
    """A loop that was called although there was one goes again: it must not keep a worker's process for ever."""
    low, high = sorted((uuid4(), uuid4()))
    for token in (high, low):
        assert polling.claim(token, limit=1)
    assert polling.another_has_room(low, 1)
    assert not polling.another_has_room(high, 1)
    assert not polling.another_has_room(low, polling.AGENTS_PER_LOOP)
    Agent.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    assert not polling.another_has_room(low, 1)


def test_a_loop_that_cannot_call_the_next_one_ends_as_any_other(real_night, good):
    def broker_is_away(token):
        raise ConnectionError("no broker")

    assert polling.follow_agents(polling.OVERLAP + 0.5, broker_is_away) > 0
    assert not Agent.objects.exclude(lease_token=None).exists()


def test_without_an_agent_to_follow_no_other_loop_is_called(real_night):
    Agent.objects.update(due_at=timezone.now() + polling.HEALTH_EVERY + timedelta(seconds=30))
    assert polling.follow_agents(60.0, pytest.fail) == 0


def test_a_late_loop_gives_its_leases_back_although_an_agent_hangs(real_night, bad):
    misbehave(bad, is_late)
    with following(deadline=600.0):
        wait_for(lambda: bad.asked)
        assert real_night.agent("old").lease_token is not None
    assert real_night.agent("old").lease_token is None
    assert runs.advance_run(real_night.run) in (True, False)


# Answers to probes.


class Probing:
    """An agent that says these states of the process that it is asked for, one after the other."""

    def __init__(self, *states):
        self.states = list(states)

    async def probe_process(self, address, application):
        origin = Origin("x", "0" * 16, timezone.now(), 0.0)
        return ProcessProbe(origin, self.states.pop(0), None, None, "looked")


def replacing(night):
    """The step that waits until the new server is seen stopped; gives its agent and the question."""
    night.go_to("replace-folder")
    night.act(core.Begin(step="replace-folder", visit=1))
    agent = night.agent("new").pk
    [question] = [asked for asked in polling._questions((agent,))[agent] if asked[2]["gate"] == "stopped"]
    return agent, question


def test_an_answer_that_a_worker_reports_after_it_lost_the_lease_opens_nothing(real_night, monkeypatch):
    agent, question = replacing(real_night)
    one, other = (polling.Loop(Probing(state), time.monotonic() + 600) for state in ("down", "up"))
    assert agent in polling.claim(one.token)
    ask = polling.ask

    async def play():
        answered, goes_on = asyncio.Event(), asyncio.Event()

        async def slow(client, *asked):
            found = await ask(client, *asked)
            if client is one.client:
                answered.set()
                await goes_on.wait()
            return found

        monkeypatch.setattr(polling, "ask", slow)
        late = asyncio.create_task(one._ask(agent, [question]))
        await answered.wait()
        ended = timezone.now() - timedelta(seconds=1)
        await polling._thread(Agent.objects.filter(pk=agent).update, lease_until=ended)
        assert agent in await polling._thread(polling.claim, other.token)
        await other._ask(agent, [question])  # the server was started again meanwhile
        goes_on.set()
        await late

    asyncio.run(play())
    assert real_night.verdict("replace-folder", "stopped").value == "failed"


def test_after_a_silence_the_same_answer_is_told_again(real_night):
    agent, question = replacing(real_night)
    loop = polling.Loop(Probing("down", "down"), time.monotonic() + 600)
    assert agent in polling.claim(loop.token)
    asyncio.run(loop._ask(agent, [question]))
    assert real_night.verdict("replace-folder", "stopped").is_met
    asked = polling.plan(agent, loop.token)
    with patch.object(loop, "client") as client, patch.object(polling, "RETRY", 0.0):
        client.poll = AsyncMock(
            side_effect=AgentTrouble("unreachable", "fra-cfg-02", "It cannot be reached.", "")
        )
        asyncio.run(loop.poll(agent, asked))
    Agent.objects.filter(pk=agent).update(trouble_since=timezone.now() - timedelta(seconds=10))
    real_night.advance()
    take_news(agent, news())
    real_night.advance()
    assert not real_night.verdict("replace-folder", "stopped").is_met
    asyncio.run(loop._ask(agent, [question]))
    assert real_night.verdict("replace-folder", "stopped").is_met


def test_an_agent_whose_answers_are_parked_is_asked_after_a_pause(real_night, monkeypatch):
    agent = real_night.agent("new").pk
    Attempt.objects.bulk_create(
        Attempt(subject=f"agent {agent}", begun_at=timezone.now()) for _ in range(attempts.DEATHS)
    )
    loop = polling.Loop(Probing(), time.monotonic() + 600)
    assert agent in polling.claim(loop.token)
    asked, pauses = polling.plan(agent, loop.token), []

    async def pause(seconds):
        pauses.append(seconds)

    with patch.object(loop, "client") as client, patch.object(polling.asyncio, "sleep", pause):
        client.poll = AsyncMock(return_value=news())
        asyncio.run(loop.poll(agent, asked))
    assert pauses == [polling.RETRY]


def test_what_was_seen_an_hour_ago_completes_no_step(real_night):
    agent, _ = replacing(real_night)
    take_news(agent, news())
    real_night.answer_probes()
    Agent.objects.filter(pk=agent).update(seen_at=timezone.now() - timedelta(hours=1))  # no worker since
    with pytest.raises(core.GateClosed, match=r"last heard at .* is a worker running\?"):
        real_night.act(core.Complete(step="replace-folder", visit=1))
    real_night.advance()  # nor does a worker go on with it that comes back
    assert real_night.state.current == "replace-folder"
    assert not real_night.verdict("replace-folder", "stopped").is_met
