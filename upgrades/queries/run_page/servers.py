"""The servers of a run: pairs as they stand now, their agents, and the newest lines of their logs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from django.db.models import QuerySet

from upgrades.domain import run as core
from upgrades.domain.environment import LCA
from upgrades.domain.freshness import is_stale
from upgrades.domain.gates import rule_result
from upgrades.domain.groups import roles_of
from upgrades.domain.log_events import visible
from upgrades.domain.plan import listed
from upgrades.domain.procedure import PutOnHold, Role
from upgrades.domain.run_state import watch_key
from upgrades.models import Agent, Application, LogFile, LogLine
from upgrades.queries.run_page.gate_rows import log_clock
from upgrades.queries.run_page.shapes import AgentLine, NoNews, Pair, Server, Tail, TailLine
from upgrades.queries.run_page.sight import Sight

LINES = 50
FILES = 2  # the newest of each server: after a rotation the lines go on in the next one

DOUBTS = {
    LogLine.Kind.GAP: "not read: ",
    LogLine.Kind.UNREADABLE: "format not known: ",
    LogLine.Kind.FOREIGN: "in doubt: ",
}
MODES = {
    "primary": "go",
    "backup": "",
    "upgrade-mode": "wait",
    "primary-upgrade-mode": "wait",
    "down": "stop",
}


def bound_applications(run_id: int) -> list[Application]:
    return list(
        Application.objects.filter(bindings__run=run_id)
        .select_related("host__agent")
        .order_by("bindings__id")
    )


def in_view(sight: Sight, applications: list[Application]) -> list[Application]:
    """The servers that the page shows: of those that a group brought in, only the ones of the current step."""
    state = sight.state
    if not sight.procedure.groups or state.is_over:
        return applications
    names = (
        set(roles_of(sight.procedure.step(state.current), state.started.bindings).values())
        if state.current
        else set()
    )
    return [application for application in applications if application.name in names]


# Agents that are silent.


def agent_of(application: Application) -> Agent | None:
    """The agent on the server's host, without another query."""
    try:
        return application.host.agent
    except Agent.DoesNotExist:
        return None


def is_old(application: Application, now: datetime) -> bool:
    """Whether what is known of the server is older than two polls."""
    agent = agent_of(application)
    return agent is not None and is_stale(agent.seen_at, now, watched=True)


def no_news(sight: Sight, applications: Iterable[Application]) -> NoNews | None:
    """Whom the page has no news of, and since when at the longest; None while all agents are heard, or the run is over."""
    if sight.state.is_over:
        return None
    old = [application for application in applications if is_old(application, sight.now)]
    seen = [agent.seen_at for application in old if (agent := agent_of(application)) and agent.seen_at]
    if not seen:
        return None
    hosts = listed(sorted({application.host.name for application in old}))
    return NoNews(hosts, listed(sorted({application.name for application in old})), min(seen))


# Pairs.


def pairs(sight: Sight, applications: Sequence[Application]) -> tuple[Pair, ...]:
    """Each HA pair of the run with how its two stand to each other; what has no peer stands alone."""
    by_name = {application.name: application for application in applications}
    bound = sight.state.started.bindings
    playing = {
        role.name: by_name[bound[role.name].application]
        for role in sight.procedure.roles
        if role.name in bound and bound[role.name].application in by_name
    }
    seconds = {
        role.pair_of for role in sight.procedure.roles if role.pair_of in playing and role.name in playing
    }
    return tuple(
        _pair(sight, role, playing)
        for role in sight.procedure.roles
        if role.name in playing and role.name not in seconds
    )


def _pair(sight: Sight, role: Role, playing: dict[str, Application]) -> Pair:
    mine = playing[role.name]
    other = playing.get(role.pair_of or "")
    if other is None:
        return Pair(_words(mine.type), _server(sight, mine, sight.say(role.title)), None)
    titles = {item.name: sight.say(item.title) for item in sight.procedure.roles}
    plays = {mine.pk: titles[role.name], other.pk: titles[role.pair_of or ""]}
    left, right = (mine, other) if mine.standing == Application.Standing.PRIMARY else (other, mine)
    link, text, tone = _link(left, right)
    return Pair(
        f"{_words(mine.type)} pair",
        _server(sight, left, plays[left.pk]),
        _server(sight, right, plays[right.pk]),
        link,
        text,
        tone,
    )


def _words(application_type: str) -> str:
    """“Configuration Server” of ConfigurationServer."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", application_type)


def _is_down(application: Application) -> bool:
    """By what its agent saw; by the procedure where no agent has told."""
    unknown = application.process_state == "unknown"
    return application.process_state == "down" or (unknown and application.mode == "down")


def _server(sight: Sight, application: Application, plays: str) -> Server:
    down = _is_down(application)
    mode, tone = application.mode, MODES.get(application.mode, "")
    if down:
        mode, tone = "stopped", "stop"
    elif mode == "down":  # its process is up again, and no step has told yet as what
        mode, tone = "started", "wait"
    elif application.type == LCA:  # it has no mode
        mode, tone = ("running", "go") if application.process_state == "up" else ("not seen yet", "")
    mode = mode.replace("primary-", "primary, ").replace("-", " ") or "mode not known"
    if not sight.state.is_over and is_old(application, sight.now):
        mode, tone = f"last known: {mode}", ""
    version = application.version or "version not known"
    return Server(application.name, f"{application.host.name} · {version}", mode, tone, down, plays)


def _link(left: Application, right: Application) -> tuple[str, str, str]:
    down = [server.name for server in (left, right) if _is_down(server)]
    if down:
        return "↮", f"no redundancy: {' and '.join(down)} {'is' if len(down) == 1 else 'are'} stopped", "wait"
    modes = sorted((left.mode, right.mode))
    if modes == ["primary", "upgrade-mode"]:
        return "⇄", "two primaries, expected while one is in upgrade mode", "wait"
    if "primary-upgrade-mode" in modes:
        return "⇄", "one primary, still in upgrade mode", "wait"
    if modes == ["primary", "primary"]:
        return "⚠", "two primaries outside the steps that expect them: look at both servers now", "stop"
    if modes == ["backup", "primary"]:
        return "⇄", "primary and backup", ""
    return "·", "how the two stand to each other is not known", ""


# Agents.


def files_of(applications: Iterable[Application]) -> list[LogFile]:
    """The log files of the servers, newest first."""
    return list(
        LogFile.objects.filter(application__in=applications).select_related("application").order_by("-id")
    )


def agent_lines(
    sight: Sight, applications: Iterable[Application], files: Sequence[LogFile]
) -> tuple[AgentLine, ...]:
    """For each server that the current step watches: whether its agent answers, and how far the log is read."""
    state = sight.state
    if state.current is None or state.is_over:
        return ()
    step = sight.procedure.step(state.current)
    watched = {state.application(gate.rule.server): state.host(gate.rule.server) for gate in step.event_gates}
    if not watched:
        return ()
    agents = {application.host.name: agent_of(application) for application in applications}
    marks = state.steps[step.id].watermarks
    return tuple(
        _agent(sight.now, name, host, agents.get(host), files, marks.get(name))
        for name, host in watched.items()
    )


def _agent(
    now: datetime,
    name: str,
    host: str,
    agent: Agent | None,
    files: Sequence[LogFile],
    marks: Mapping[str, int] | None,
) -> AgentLine:
    if agent is None:
        return AgentLine(
            host, name, "failed", "No agent is registered for this host. Register one on its environment."
        )
    own = [file for file in files if file.application.name == name]
    newest = own[0] if own else None
    trouble = visible(agent.trouble)
    old = is_stale(agent.seen_at, now, watched=True)
    verdict = "unknown" if trouble or old else "met" if agent.seen_at else "waiting"
    counted = core.counts_from(marks, newest.place) if newest is not None and marks is not None else None
    return AgentLine(
        host,
        name,
        verdict,
        trouble,
        agent.seen_at,
        newest.cursor if newest is not None else None,
        counted,
        sum(file.unread for file in own),
        is_old=old and not trouble,
    )


# The log.


def tail(sight: Sight, applications: Sequence[Application], files: Sequence[LogFile]) -> Tail:
    """The newest lines of all bound servers together; those that count for a gate are marked."""
    names = [application.name for application in applications]
    newest: list[LogFile] = []
    for name in names:
        newest += [file for file in files if file.application.name == name][:FILES]
    lines = sorted(_lines(newest), key=lambda line: line.pk)[-LINES:]
    places = {file.pk: file for file in newest}
    kinds = _kinds(sight)
    rows = tuple(_tail_line(line, places[line.file_id], kinds) for line in lines)
    seen = {row.server for row in rows} or set(names)
    return Tail("log-tail", ", ".join(name for name in names if name in seen), rows)


def _lines(files: Sequence[LogFile]) -> list[LogLine]:
    if not files:
        return []
    # One short walk along the index of each file; the table as a whole is never looked at.
    parts: list[QuerySet[LogLine]] = [
        LogLine.objects.filter(file=file).defer("raw").order_by("-offset", "-id")[:LINES] for file in files
    ]
    return list(parts[0].union(*parts[1:], all=True))


Kinds = dict[tuple[str, int], str]


def _kinds(sight: Sight) -> Kinds:
    """What each line means for the gates of this run, by its place."""
    kinds: Kinds = {}
    for watch in core.active_watches(sight.procedure, sight.state):
        step, visit, gate_id = watch_key(watch.id)
        gate = next(gate for gate in sight.procedure.step(step).event_gates if gate.id == gate_id)
        result = rule_result(gate, sight.state, step, visit)
        for seen in sight.state.gate(step, gate_id, visit).observations:
            kinds[seen.place] = "normal"
        for track in result.tracks:
            bad = isinstance(track.outcome.follow, PutOnHold)
            beside = result.outcome is not None and track.outcome is not result.outcome
            if track.ruled_out or beside or (bad and not track.complete):
                continue
            for station in track.stations:
                if station.seen is not None:
                    kinds[station.seen.place] = "bad" if bad else "hit"
        for _reason, seen in result.contradictions:
            kinds[seen.place] = "bad"
    return kinds


def _tail_line(line: LogLine, file: LogFile, kinds: Kinds) -> TailLine:
    server = file.application.name
    doubt = DOUBTS.get(LogLine.Kind(line.kind))
    if doubt is not None:
        return TailLine("", "", doubt + line.text, "gap", server)
    number = line.event.partition("-")[2] or ("clients" if line.kind == LogLine.Kind.TOTAL else line.event)
    kind = kinds.get((file.place, line.offset), "")
    return TailLine(log_clock(line.logged_at)[:8], number, line.text, kind, server)
