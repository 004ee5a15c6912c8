"""Watermarks: where the logs of a server end now. Only what lies behind them can be evidence (design.md section 5)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

from django.db.models import QuerySet
from django.utils import timezone

from upgrades.adapters.agent_client import AgentAddress, AgentClient, AgentTrouble, ApplicationLogs
from upgrades.adapters.agent_client import LogFile as Listed
from upgrades.domain.run_events import CHANGES, GAPS
from upgrades.models import Agent, Application, LogFile, LogLine, ProcessChange
from upgrades.services.agents import address_of, record_trouble

DEADLINE = 4.0  # seconds; a person may be waiting for the answer


def take_watermarks(environment_id: int, names: Sequence[str]) -> dict[str, dict[str, int]]:
    """Per application the end of each of its log files, asked of its agent now.

    An application whose agent does not answer, or cannot list its files completely, is left out: then no step that
    watches it can begin.
    """
    marks = {}
    for name in names:
        application = Application.objects.filter(environment_id=environment_id, name=name).first()
        agent = Agent.objects.filter(host=application.host_id).first() if application is not None else None
        if application is None or agent is None:
            continue
        # Before the agent is asked: what is lost, or ends, from now on counts.
        known_by_now = {
            GAPS: _newest(LogLine.objects.filter(file__application=application, kind=LogLine.Kind.GAP)),
            CHANGES: _newest(ProcessChange.objects.filter(application=application)),
        }
        try:
            logs = asyncio.run(_ask(address_of(agent), name))
        except AgentTrouble as trouble:
            record_trouble(agent.pk, str(trouble), at=timezone.now())
            continue
        if logs.complete:
            known = LogFile.objects.filter(application=application).order_by("generation")
            marks[name] = {**_mark(known, logs), **known_by_now}
            # It is over; if it comes again, this step is told of it.
            Application.objects.filter(pk=application.pk).exclude(log_trouble="").update(log_trouble="")
    return marks


def _newest(rows: QuerySet[Any]) -> int:
    """The number of the last of these rows; 0 where there is none."""
    return rows.order_by("-pk").values_list("pk", flat=True).first() or 0


async def _ask(address: AgentAddress, name: str) -> ApplicationLogs:
    async with AgentClient(deadline=DEADLINE) as client:
        answer = await client.logs(address, [name])
    return answer.applications[name]


def _mark(known: Iterable[LogFile], logs: ApplicationLogs) -> dict[str, int]:
    """The ends of the files that are there, and of those read earlier that are gone: their lines are old ones."""
    newest: dict[str, LogFile] = {}
    marks: dict[str, int] = {}
    for file in known:
        newest[file.identity] = file
        marks[file.place] = max(file.cursor, file.size)
    for listed in logs.files:
        marks[_place(newest.get(listed.file), listed)] = listed.size
    return marks


def _place(file: LogFile | None, listed: Listed) -> str:
    """Under which place the lines of a listed file will be stored from now on (`services.agents`)."""
    if file is None:
        return listed.file
    shrunk = file.state == "shrunk" or listed.size < file.cursor  # a poll may have seen that, or will
    return (file.next_generation() if shrunk else file).place
