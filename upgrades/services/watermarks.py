"""Watermarks: where the logs of a server end now. Only what lies behind them can be evidence (design.md section 5)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from django.utils import timezone

from upgrades.adapters.agent_client import AgentAddress, AgentClient, AgentTrouble, ApplicationLogs
from upgrades.models import Agent, Application, LogFile
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
        known = list(LogFile.objects.filter(application=application))
        try:
            logs = asyncio.run(_ask(address_of(agent), name))
        except AgentTrouble as trouble:
            record_trouble(agent.pk, str(trouble), at=timezone.now())
            continue
        if logs.complete:
            marks[name] = _mark(known, logs)
    return marks


async def _ask(address: AgentAddress, name: str) -> ApplicationLogs:
    async with AgentClient(deadline=DEADLINE) as client:
        answer = await client.logs(address, [name])
    return answer.applications[name]


def _mark(known: Sequence[LogFile], logs: ApplicationLogs) -> dict[str, int]:
    """The ends of the files that are there, and of those read earlier that are gone: their lines are old ones."""
    newest = {file.identity: file for file in sorted(known, key=lambda file: file.generation)}
    marks = {file.place: file.cursor for file in known}
    for listed in logs.files:
        file = newest.get(listed.file)
        marks[file.place if file is not None and file.state != "shrunk" else listed.file] = listed.size
    return marks
