"""The record of a run in words: one sentence per event, with what strangers wrote kept apart as a quotation."""

from __future__ import annotations

from collections.abc import Iterable
from typing import assert_never

from upgrades.domain import run_events as e
from upgrades.domain.run_events import Recorded
from upgrades.queries.run_page.gate_rows import fact_text
from upgrades.queries.run_page.shapes import Entry
from upgrades.queries.run_page.sight import Sight, spoken

Words = tuple[str, str, str]  # sentence, quotation, tone

WHAT = {
    "skip": "to skip",
    "override": "to override a gate of",
    "doubt": "to set a doubt aside in",
    "correct": "to correct a fact at",
    "emergency": "to go without its approval into",
}


def entries(sight: Sight, recorded: Iterable[Recorded]) -> tuple[Entry, ...]:
    """The events in words, in the order given."""
    return tuple(_entry(sight, item) for item in recorded)


def _entry(sight: Sight, item: Recorded) -> Entry:
    text, quote, tone = _words(sight, item)
    is_line = isinstance(item.event, e.LogEventSeen | e.LogDoubtful)
    return Entry(item.seq, item.at, item.by.how, item.by.kind, text, quote, tone, is_line)


def _words(sight: Sight, item: Recorded) -> Words:
    event = item.event
    match event:
        case e.RunStarted():
            return _started(event)
        case e.StepEntered() | e.StepBegun() | e.StepSkipped() | e.StepCompleted() | e.StepLeft():
            return _step(sight, event)
        case e.StepRestarted(step=step, reason=reason):
            return f"Begins {sight.label(step)} again; what was seen so far stops counting", reason, "wait"
        case e.LogEventSeen() | e.LogDoubtful() | e.ServerEnded() | e.ClientTotalSeen():
            return _server(event)
        case e.AgentLost(host=host, reason=reason):
            return f"No news from the agent on {host}", reason, "wait"
        case e.AgentBack(host=host):
            return f"The agent on {host} answers again", "", ""
        case e.ProbeAnswered() | e.OutcomeReached() | e.VerdictContradicted() | e.GateConfirmed():
            return _gate(sight, event)
        case e.EvidenceAttached():
            return _attached(sight, event)
        case e.ApprovalSigned() | e.ApprovalRejected() | e.ApprovalLapsed():
            return _approval(sight, event)
        case e.ApprovalExpired() | e.ApprovalAsked():
            return _request(sight, event)
        case e.StepTaken(step=step, reason=reason):
            return f"Takes {sight.named(step)}", reason, "act"
        case e.StepHandedOver(step=step, to_name=name, reason=reason):
            return f"Hands {sight.named(step)} over to {name}", reason, "act"
        case e.AttemptRefused(act=act, reason=reason):
            return f"Refused: {act}", reason, "stop"
        case e.FactSet(name=name, value=value):
            return f"Fact: {name} is {fact_text(value)}", "", ""
        case e.ExposureOpened() | e.ExposureClosed() | e.DutyOwed() | e.DutyDone() | e.TakenOver():
            return _burden(sight, event)
        case e.BurdenInherited(title=title, from_run=number):
            return f"Carried over from run {number}: {title}", "", "wait"
        case e.ExposureMarked(exposure=exposure, percent=percent, limit=limit):
            name = burden_title(sight, f"exposure:{exposure}")
            tone = "stop" if percent >= 100 else "wait"
            return f"{name} has lasted {percent} % of the {spoken(limit)} that it may", "", tone
        case e.DeviationAsked() | e.DeviationSigned() | e.DeviationRejected():
            return _deviation(sight, event)
        case e.OverrideReviewed(number=number, text=text):
            what = f"emergency override {number}" if number else "this emergency change"
            return f"Closes the review of {what}", text, "go"
        case e.NoteAdded(step=step, text=text):
            return f"Note{f' at {sight.label(step)}' if step else ''}", text, ""
        case e.RunHeld() | e.RunResumed() | e.RunGoneOver() | e.RunClosing():
            return _run(event)
        case e.RunEnded() | e.RunRolledBack() | e.RunAborted():
            return _run(event)
        case _:
            assert_never(event)


def _started(event: e.RunStarted) -> Words:
    kind = "Starts the rehearsal" if event.rehearsal else "Starts the run"
    if event.takes_back:
        kind = f"Takes back run {event.takes_back}. {kind}"
    change = f", change {event.change}" if event.change else ""
    if event.category == e.EMERGENCY:
        kind = f"Emergency change. {kind}"
    text = f"{kind} of {event.procedure} version {event.procedure_version}{change}"
    return text, event.reason, "act"


def _step(
    sight: Sight, event: e.StepEntered | e.StepBegun | e.StepSkipped | e.StepCompleted | e.StepLeft
) -> Words:
    step = sight.named(event.step)
    match event:
        case e.StepEntered(visit=visit):
            again = f", time {visit}" if visit > 1 else ""
            return f"The run comes to {step}{again}", "", ""
        case e.StepBegun(watermarks=watermarks):
            marks = sorted(
                {
                    f"{name} at {end}"
                    for name, ends in watermarks.items()
                    for file, end in ends.items()
                    if file not in (e.GAPS, e.CHANGES)
                }
            )
            marked = f"; log positions marked: {', '.join(marks)}" if marks else ""
            return f"Begins {step}{marked}", "", "act"
        case e.StepSkipped(reason=reason, deviation=deviation):
            by = f" by deviation {deviation}" if deviation else ""
            return f"Skipped{by}: {step}", reason, "wait" if deviation else ""
        case e.StepCompleted():
            return f"Completes {step}", "", "go"
        case e.StepLeft(outcome=outcome):
            return f"The outcome “{outcome}” leads away from {step}", "", "wait"


def _server(event: e.LogEventSeen | e.LogDoubtful | e.ServerEnded | e.ClientTotalSeen) -> Words:
    match event:
        case e.LogEventSeen():
            return f"{event.application} logs {event.event}", event.text, ""
        case e.LogDoubtful(doubt=doubt):
            what = {"gap": "A gap", "foreign": "A doubtful file"}.get(doubt, "An unreadable line")
            return f"{what} in the log of {event.application}", event.text, "wait"
        case e.ServerEnded():
            return f"The process of {event.application} went away", event.text, "stop"
        case e.ClientTotalSeen():
            return f"{event.application} counts {event.total} clients", "", ""


def _gate_name(sight: Sight, step: str, gate: str) -> str:
    found = sight.procedure.step(step).gate(gate) if sight.procedure.has_step(step) else None
    return f"“{sight.plain(found.title)}”" if found is not None else gate


def _gate(
    sight: Sight, event: e.ProbeAnswered | e.OutcomeReached | e.VerdictContradicted | e.GateConfirmed
) -> Words:
    name = _gate_name(sight, event.step, event.gate)
    match event:
        case e.ProbeAnswered(value=value, text=text):
            tone = {"met": "go", "failed": "stop"}.get(value, "wait")
            return f"The agent looked for {name}: {value.replace('-', ' ')}", text, tone
        case e.OutcomeReached(outcome=outcome, lines=lines):
            rests = f", resting on {_events(lines)}" if lines else ""
            return f"{name} ends in “{outcome}”{rests}", "", "go"
        case e.VerdictContradicted(reason=reason):
            return f"{name} is contradicted", reason, "stop"
        case e.GateConfirmed(answer=answer, text=text):
            tone = {"pass": "go", "fail": "stop"}.get(answer, "wait")
            return f"Answers {name}: {answer.replace('-', ' ')}", text, tone


def _events(lines: list[int]) -> str:
    return f"event{'s' if len(lines) > 1 else ''} {', '.join(str(line) for line in lines)}"


def _attached(sight: Sight, event: e.EvidenceAttached) -> Words:
    where = _gate_name(sight, event.step, event.gate) if event.gate else sight.label(event.step)
    if not event.sha256:
        return f"Writes down evidence for {where}", event.text, ""
    quote = f"{event.name}\n{event.text}" if event.text else event.name
    return f"Attaches a file of {event.size} bytes to {where}, SHA-256 {event.sha256}", quote, ""


def _approval(sight: Sight, event: e.ApprovalSigned | e.ApprovalRejected | e.ApprovalLapsed) -> Words:
    step = sight.named(event.step)
    match event:
        case e.ApprovalSigned(comment=comment, digest=digest):
            how = f" as deputy of {event.for_name}" if event.for_name else ""
            ahead = " ahead of its turn" if event.ahead else ""
            return f"Signs {step}{ahead}{how}; digest {digest[:12]}…", comment, "go"
        case e.ApprovalRejected(reason=reason, digest=digest):
            return f"Rejects {step}; digest {digest[:12]}…", reason, "stop"
        case e.ApprovalLapsed(signer=signer, reason=reason):
            return f"The signature of {sight.names.get(signer, signer)} lapses", reason, "wait"


def _request(sight: Sight, event: e.ApprovalExpired | e.ApprovalAsked) -> Words:
    step = sight.named(event.step)
    match event:
        case e.ApprovalExpired(after=after, result=result):
            then = {
                "lapse": "what was signed lapses",
                "reject": "it is rejected",
                "hold": "the run is put on hold",
            }[result]
            return f"The approval of {step} was not decided within {spoken(after)}: {then}", "", "stop"
        case e.ApprovalAsked(reason=reason):
            return f"Asks again for the approval of {step}", reason, "wait"


def _burden(
    sight: Sight, event: e.ExposureOpened | e.ExposureClosed | e.DutyOwed | e.DutyDone | e.TakenOver
) -> Words:
    match event:
        case e.ExposureOpened(exposure=name):
            return f"Exposure begins: {burden_title(sight, f'exposure:{name}')}", "", "wait"
        case e.ExposureClosed(exposure=name, text=text):
            return f"Exposure ends: {burden_title(sight, f'exposure:{name}')}", text, "go"
        case e.DutyOwed(title=title):
            return f"Owed from now on: {title}", "", "wait"
        case e.DutyDone(duty=name, text=text):
            return f"Done: {burden_title(sight, f'duty:{name}')}", text, "go"
        case e.TakenOver(burden=burden, reason=reason):
            return f"Takes over by name: {burden_title(sight, burden)}", reason, "wait"


def burden_title(sight: Sight, burden: str) -> str:
    """What an exposure or duty is called."""
    kind, _, name = burden.partition(":")
    known = sight.procedure.exposures if kind == "exposure" else sight.procedure.duties
    return next((sight.plain(item.title) for item in known if item.id == name), name)


def _deviation(sight: Sight, event: e.DeviationAsked | e.DeviationSigned | e.DeviationRejected) -> Words:
    match event:
        case e.DeviationAsked(number=number, what=what, step=step, reason=reason):
            tone = "stop" if what == "emergency" else "wait"
            return f"Asks for deviation {number}, {WHAT[what]} {sight.label(step)}", reason, tone
        case e.DeviationSigned(number=number, comment=comment):
            how = f" as deputy of {event.for_name}" if event.for_name else ""
            more = "" if event.decides else "; more signatures are needed"
            asked = sight.state.deviations.get(number)
            tone = "stop" if asked is not None and asked.is_emergency else "wait"
            return f"Signs deviation {number}{how}{more}", comment, tone
        case e.DeviationRejected(number=number, reason=reason):
            return f"Rejects deviation {number}", reason, "stop"


def _run(
    event: e.RunHeld
    | e.RunResumed
    | e.RunGoneOver
    | e.RunClosing
    | e.RunEnded
    | e.RunRolledBack
    | e.RunAborted,
) -> Words:
    match event:
        case e.RunHeld(reason=reason):
            return "Puts the run on hold", reason, "stop"
        case e.RunResumed(reason=reason):
            return "Resumes the run", reason, "act"
        case e.RunClosing(ending=ending):
            return f"All steps are behind; the run will end as “{ending}”", "", ""
        case e.RunGoneOver(procedure=procedure, procedure_version=version):
            return f"The run goes over to {procedure} version {version}, and keeps what is done", "", "wait"
        case e.RunEnded(ending=ending):
            return f"The run ends as “{ending}”", "", "go"
        case e.RunRolledBack(by_run=number, procedure=procedure, reason=reason):
            return f"Rolls the run back: run {number} ({procedure}) takes over what is open", reason, "stop"
        case e.RunAborted(reason=reason):
            return "Aborts the run", reason, "stop"
