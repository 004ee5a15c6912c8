"""Probes: what an agent is asked for a gate, and what its answer means."""

from __future__ import annotations

from typing import Any

from upgrades.adapters.agent_client import (
    AgentAddress,
    AgentClient,
    FolderProbe,
    NamesProbe,
    ProcessProbe,
)
from upgrades.domain.procedure import Probe
from upgrades.domain.run_events import ProbeAnswered
from upgrades.domain.verdict import Value

Answer = ProcessProbe | FolderProbe | NamesProbe


async def ask(client: AgentClient, address: AgentAddress, question: dict[str, Any]) -> Answer:
    """The agent's answer to a question of `Run.probes`; AgentTrouble when there is none."""
    application, folder = question["application"], question["folder"]
    match Probe(question["probe"]):
        case Probe.PROCESS_UP | Probe.PROCESS_DOWN:
            return await client.probe_process(address, application)
        case Probe.FOLDER_EXISTS:
            return await client.probe_folder(address, application, folder)
        case Probe.NAMES_EQUAL:
            return await client.probe_names(address, application, folder or "current")


def judge(question: dict[str, Any], answer: Answer) -> ProbeAnswered:
    """What the answer means for the gate, with a sentence and the raw values for the record."""
    match answer:
        case ProcessProbe():
            value, text, raw = _process(question, answer)
        case FolderProbe():
            value, text, raw = _folder(question, answer)
        case NamesProbe():
            value, text, raw = _names(question, answer)
    return ProbeAnswered(
        step=question["step"],
        visit=question["visit"],
        gate=question["gate"],
        value=value,
        text=text,
        answer=raw,
    )


Judged = tuple[Value, str, dict[str, Any]]


def _process(question: dict[str, Any], answer: ProcessProbe) -> Judged:
    name, host = question["application"], question["host"]
    raw: dict[str, Any] = {"state": answer.state, "pid": answer.pid, "reason": answer.reason}
    if answer.state == "unknown":
        return Value.CANNOT_TELL, f"The agent on {host} cannot tell whether {name} runs: {answer.reason}", raw
    wanted = "up" if question["probe"] == Probe.PROCESS_UP else "down"
    is_now = f"{name} is {'running' if answer.state == 'up' else 'not running'} on {host}."
    if answer.state == wanted:
        return Value.MET, is_now, raw
    act = (
        "Start it." if wanted == "up" else "Shut it down through the Management Layer, so that it stays down."
    )
    return Value.FAILED, f"{is_now} {act}", raw


def _folder(question: dict[str, Any], answer: FolderProbe) -> Judged:
    folder, host = question["folder"], question["host"]
    raw = {
        "exists": answer.exists,
        "entries": answer.entries,
        "newest": answer.newest.isoformat() if answer.newest else None,
        "reason": answer.reason,
    }
    if answer.exists and answer.entries:
        return Value.MET, f"The folder “{folder}” is on {host} with {answer.entries} entries.", raw
    if answer.exists:
        return Value.FAILED, f"The folder “{folder}” on {host} is empty. Put the files there.", raw
    why = f" ({answer.reason})" if answer.reason else ""
    return (
        Value.FAILED,
        f"The folder “{folder}” is not on {host}{why}. Make it, or correct the agent's settings.",
        raw,
    )


def _names(question: dict[str, Any], answer: NamesProbe) -> Judged:
    """Section name = Application name = value of -s: three values side by side, not one box ticked (CSS-2b)."""
    application = question["application"]
    raw: dict[str, Any] = {
        "sections": list(answer.sections),
        "start-name": answer.start_name,
        "application": application,
        "reason": answer.reason,
    }
    if not answer.sections and answer.start_name is None:
        why = answer.reason or "neither configuration file nor start file was found"
        return Value.FAILED, f"Nothing to compare yet: {why}. Install the new instance first.", raw
    section = application if application in answer.sections else None
    shown = (
        f"section {section or '/'.join(answer.sections[:3]) or '(none)'}, Application {application}, "
        f"-s {answer.start_name or '(none)'}"
    )
    if section and answer.start_name == application:
        return Value.MET, f"All three agree: {shown}.", raw
    return (
        Value.FAILED,
        f"The three names differ: {shown}. Correct the configuration file or the start command.",
        raw,
    )
