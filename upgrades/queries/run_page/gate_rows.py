"""A gate as the page shows it: its verdict, and what its kind has to say."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, assert_never

from upgrades.domain import run as core
from upgrades.domain import run_events as e
from upgrades.domain.event_rule import Kind, RuleResult, Track
from upgrades.domain.gates import (
    digest_to_sign,
    is_ahead,
    policy_of,
    rule_result,
    shown,
    shown_ahead,
    signers,
    valid_signatures,
    verdict,
    way_back_items,
)
from upgrades.domain.log_events import visible
from upgrades.domain.policy import Policy, Signer, adds, missing
from upgrades.domain.procedure import (
    ApprovalGate,
    CheckGate,
    ClientsGate,
    ConfirmGate,
    EndRun,
    EventGate,
    EventRule,
    EvidenceGate,
    Follow,
    Gate,
    GoOn,
    GoOver,
    GoTo,
    ProbeGate,
    PutOnHold,
    Step,
    WayBackGate,
)
from upgrades.domain.run_events import Recorded
from upgrades.domain.run_state import StepStatus, barred
from upgrades.domain.verdict import Value, Verdict
from upgrades.queries.run_page.shapes import (
    Answer,
    Approval,
    Doubt,
    File,
    GateRow,
    May,
    NameRow,
    Other,
    Shown,
    Signature,
    Station,
    Total,
    WayBackRow,
)
from upgrades.queries.run_page.sight import ENOUGH, Sight, spoken

KINDS: dict[type, str] = {
    ConfirmGate: "confirm",
    CheckGate: "check",
    ProbeGate: "probe",
    EvidenceGate: "evidence",
    EventGate: "events",
    ClientsGate: "clients",
    ApprovalGate: "approval",
    WayBackGate: "way-back",
}


def gate_row(sight: Sight, step: Step, gate: Gate) -> GateRow:
    """The gate in the latest visit of its step, with what this person may do about it."""
    found = verdict(sight.procedure, sight.state, step, gate)
    parts: dict[str, Any] = {
        "id": gate.id,
        "kind": KINDS[type(gate)],
        "title": sight.plain(gate.title),
        "verdict": mark(found),
        "reason": _reason(sight, gate, found),
        "sources": sight.sources(gate.source, step),
    }
    if not found.is_met and step.id == sight.state.current and not isinstance(gate, ApprovalGate):
        parts |= _override(sight, step, gate)
    return GateRow(**(parts | _details(sight, step, gate)))


def _reason(sight: Sight, gate: Gate, found: Verdict) -> str:
    """The verdict's reason, unless it only says the title again."""
    reason = visible(found.reason).replace("`", "")
    return "" if reason.rstrip(".") == sight.plain(gate.title).rstrip(".") else reason


def mark(found: Verdict) -> str:
    """met, waiting, failed, or unknown for what cannot be told."""
    if found.pending:
        return "waiting"
    return {Value.MET: "met", Value.FAILED: "failed", Value.CANNOT_TELL: "unknown"}[found.value]


def _details(sight: Sight, step: Step, gate: Gate) -> dict[str, Any]:
    match gate:
        case ConfirmGate():
            return _confirm(sight, step, gate)
        case CheckGate():
            return {}
        case ProbeGate():
            return _probe(sight, step, gate)
        case EvidenceGate():
            return _evidence(sight, step, gate)
        case EventGate():
            return _events(sight, step, gate)
        case ClientsGate():
            return _clients(sight, step, gate)
        case ApprovalGate():
            return {"approval": _approval(sight, step, gate)}
        case WayBackGate():
            return _way_back(sight, gate)
        case _:
            assert_never(gate)


def _visit(sight: Sight, step: Step) -> int:
    at = sight.state.steps.get(step.id)
    return at.visit if at else 0


def _override(sight: Sight, step: Step, gate: Gate) -> dict[str, Any]:
    ask = core.AskDeviation(
        step=step.id, visit=_visit(sight, step), what="override", gate=gate.id, reason=ENOUGH
    )
    return {"override": sight.may(ask), "override_asked": asked(sight, step, "override", gate.id)}


def asked(sight: Sight, step: Step, what: str, gate: str = "", doubt: int = 0) -> int:
    """The number of the open deviation that asks for just this; 0 when nobody has asked."""
    wanted = (what, step.id, _visit(sight, step), gate, doubt)
    for item in sight.state.deviations.values():
        if item.is_open and (item.what, item.step, item.visit, item.gate, item.doubt) == wanted:
            return item.number
    return 0


def _confirm(sight: Sight, step: Step, gate: ConfirmGate) -> dict[str, Any]:
    return {
        "ask": sight.sentence(gate.ask),
        "answers": _answers(sight.state.gate(step.id, gate.id).confirmations),
        "confirm": _may_confirm(sight, step, gate),
    }


def _may_confirm(sight: Sight, step: Step, gate: ConfirmGate | ClientsGate) -> May:
    if step.id != sight.state.current:
        return May(allowed=False, mine=False)
    return sight.may(
        core.Confirm(step=step.id, visit=_visit(sight, step), gate=gate.id, answer="pass", text=ENOUGH)
    )


def _answers(confirmations: tuple[Recorded, ...]) -> tuple[Answer, ...]:
    words = {"pass": "pass", "fail": "fail", "not-tested": "not tested"}
    return tuple(
        Answer(words.get(item.event.answer, item.event.answer), item.event.text, item.by.name, item.at)
        for item in confirmations
        if isinstance(item.event, e.GateConfirmed)
    )


def _probe(sight: Sight, step: Step, gate: ProbeGate) -> dict[str, Any]:
    recorded = sight.state.gate(step.id, gate.id).probe
    if recorded is None or not isinstance(recorded.event, e.ProbeAnswered):
        return {}
    answer = recorded.event.answer
    if "sections" not in answer:
        return {}
    application = str(answer.get("application", ""))
    sections = [str(section) for section in answer.get("sections") or []]
    section = application if application in sections else "/".join(sections[:3])
    start_name = str(answer.get("start-name") or "")
    rows = (("Section", section), ("Application", application), ("-s", start_name))
    return {"names": tuple(NameRow(label, value or "none", value == application) for label, value in rows)}


def files_of(sight: Sight, evidence: tuple[Recorded, ...]) -> tuple[File, ...]:
    """What was attached, oldest first."""
    return tuple(
        File(
            id=item.event.evidence,
            name=item.event.name,
            size=item.event.size,
            sha256=item.event.sha256,
            text=item.event.text,
            by=item.by.name,
            at=item.at,
            step=sight.label(item.event.step),
        )
        for item in evidence
        if isinstance(item.event, e.EvidenceAttached)
    )


def _evidence(sight: Sight, step: Step, gate: EvidenceGate) -> dict[str, Any]:
    text = "text" in gate.accepts
    attach = core.Attach(
        step=step.id,
        visit=_visit(sight, step),
        gate=gate.id,
        text=ENOUGH if text else "",
        sha256="" if text else "0",
    )
    current = step.id == sight.state.current
    return {
        "ask": sight.sentence(gate.ask),
        "accepts": gate.accepts,
        "files": files_of(sight, sight.state.gate(step.id, gate.id).evidence),
        "attach": sight.may(attach) if current else May(allowed=False, mine=False),
    }


# Events.


def _events(sight: Sight, step: Step, gate: EventGate) -> dict[str, Any]:
    result = rule_result(gate, sight.state, step.id)
    main = main_track(result)
    begun = sight.state.steps.get(step.id)
    watching = begun is not None and begun.status is StepStatus.BEGUN and result.outcome is None
    reached = sight.state.gate(step.id, gate.id).outcome is not None
    return {
        "stations": _stations(sight, gate.rule, main, next_is_due=watching) if main else (),
        "others": (*_counted(gate.rule, result), *_outcomes(sight, result, main, ruled_out=False)),
        "ruled_out": _outcomes(sight, result, main, ruled_out=True),
        "doubts": () if reached else _doubts(sight, step, result),
        **(_quiet(sight, gate.rule, result, begun.begun_at) if watching and begun and begun.begun_at else {}),
    }


def main_track(result: RuleResult) -> Track | None:
    """The track to draw: the outcome that was reached, else the possible one that has come farthest."""
    if result.outcome is not None:
        return next(track for track in result.tracks if track.outcome.id == result.outcome.id)

    def rank(track: Track) -> tuple[bool, bool, bool, int]:
        seen = sum(1 for station in track.stations if station.seen is not None)
        goes_on = isinstance(track.outcome.follow, GoOn)
        return bool(track.ruled_out), isinstance(track.outcome.follow, PutOnHold), not goes_on, -seen

    return min(result.tracks, key=rank, default=None)


def _stations(sight: Sight, rule: EventRule, track: Track, *, next_is_due: bool) -> tuple[Station, ...]:
    titles = dict(rule.titles)
    rows = []
    due = next_is_due and not track.ruled_out
    seen_as = "against" if isinstance(track.outcome.follow, PutOnHold) else "seen"
    for station in track.stations:
        events = sorted(station.one_of)
        if station.seen is not None:
            found = sight.by_seq[station.seen.seq]
            stamp = found.event.logged_at if isinstance(found.event, e.LogEventSeen) else ""
            event = station.seen.event
            rows.append(Station(event, titles.get(event, ""), seen_as, note=log_clock(stamp) or "seen"))
            continue
        text = next((titles[event] for event in events if event in titles), "")
        note = f"asks you after {spoken(rule.quiet_after)}" if due and rule.quiet_after else ""
        rows.append(Station(" or ".join(events), text, "next" if due else "later", note=note))
        due = False
    return tuple(rows)


def log_clock(stamp: str) -> str:
    """“14:02:11.382”: the time of day as the server's log has it, which knows no zone."""
    return stamp.partition("T")[2][:12] or stamp[:12]


def _counted(rule: EventRule, result: RuleResult) -> list[Other]:
    texts = dict(rule.normal)
    return [
        Other("Also counted", event, f"{texts.get(event, '')}, normal", f"× {count}")
        for event, count in result.counts
    ]


def _outcomes(sight: Sight, result: RuleResult, main: Track | None, *, ruled_out: bool) -> tuple[Other, ...]:
    """The outcomes beside the one that is drawn: those that are still possible, or those that are not.

    After the verdict there are none: the first that was complete is the verdict and stays.
    """
    if result.outcome is not None:
        return ()
    return tuple(
        Other(
            "Other outcome",
            _route(track),
            f"{sight.plain(track.outcome.title)}: {_then(sight, track.outcome.follow)}",
            _standing(track),
        )
        for track in result.tracks
        if track is not main and bool(track.ruled_out) is ruled_out
    )


def _route(track: Track) -> str:
    return " → ".join(" or ".join(sorted(station.one_of)) for station in track.stations)


def _standing(track: Track) -> str:
    if track.ruled_out:
        return "not in this run" if track.ruled_out.startswith("not in this run") else track.ruled_out
    seen = sum(1 for station in track.stations if station.seen is not None)
    return f"{seen} of {len(track.stations)} seen" if seen else "still possible"


def _then(sight: Sight, follow: Follow) -> str:
    match follow:
        case GoOn():
            return "the procedure goes on"
        case GoTo(step):
            return f"{sight.label(step)} comes next"
        case PutOnHold():
            return "the run is put on hold"
        case EndRun(ending):
            return f"the run ends as “{ending}”"
        case GoOver(procedure=procedure):
            return f"the run goes over to the procedure {procedure} and keeps what is done"


_DOUBTS = {
    Kind.GAP: "Part of the log could not be read",
    Kind.FOREIGN: "A file that may not be this server's log",
}


def _doubts(sight: Sight, step: Step, result: RuleResult) -> tuple[Doubt, ...]:
    rows = []
    for item in result.doubts:
        ask = core.AskDeviation(
            step=step.id, visit=_visit(sight, step), what="doubt", doubt=item.seq, reason=ENOUGH
        )
        what = _DOUBTS.get(item.kind, "A line of unknown format")
        rows.append(
            Doubt(item.seq, what, item.text, sight.may(ask), asked(sight, step, "doubt", doubt=item.seq))
        )
    return tuple(rows)


def _quiet(sight: Sight, rule: EventRule, result: RuleResult, begun_at: Any) -> dict[str, Any]:
    """The clock that asks a person when nothing more comes; it decides nothing."""
    if rule.quiet_after is None:
        return {}
    last = sight.by_seq[result.last.seq].at if result.last is not None else begun_at
    since, server = max(last, begun_at), sight.state.application(rule.server)
    asks = (
        f"Nothing that counts has come from {server} for {spoken(rule.quiet_after)}. Look at the server and its log: "
        "does it run, does it write? If it hangs, begin this step again; the gate itself decides nothing by time."
    )
    is_quiet = since + timedelta(seconds=rule.quiet_after) <= sight.now
    return {
        "since": since,
        "limit": rule.quiet_after,
        "left": "quiet for",
        "quiet": asks,
        "is_quiet": is_quiet,
    }


# Clients.


def _clients(sight: Sight, step: Step, gate: ClientsGate) -> dict[str, Any]:
    state = sight.state
    leaving, joining = state.application(gate.leaving), state.application(gate.joining)
    begun = state.steps.get(gate.baseline)
    before = begun.totals.get(leaving) if begun is not None else None
    answers = _answers(state.gate(step.id, gate.id).confirmations)
    proof = ""
    if answers and answers[-1].answer == "pass":
        proof = "reconnection"
    elif verdict(sight.procedure, state, step, gate).is_met:
        proof = "totals"
    wanted = f"{before} or more" if before is not None else "all of them"
    return {
        "totals": (
            Total(leaving, before, state.totals.get(leaving, (None, 0))[0], "0"),
            Total(joining, None, state.totals.get(joining, (None, 0))[0], wanted),
        ),
        "proof": proof,
        "answers": answers,
        "confirm": _may_confirm(sight, step, gate),
        "ask": sight.sentence(
            f"By reconnection: each client application has logged that it is connected to {joining} again. "
            "Write down how you saw it for all of them."
        ),
    }


# Approval and way back.


def _approval(sight: Sight, step: Step, gate: ApprovalGate) -> Approval:
    state, procedure = sight.state, sight.procedure
    policy, recorded = policy_of(state, gate.policy), state.gate(step.id, gate.id)
    visit, digest = state.visit(step.id), digest_to_sign(procedure, state, step, gate)
    valid = valid_signatures(procedure, state, step, gate)
    lacking = missing(policy, signers(valid))
    ahead = is_ahead(state, step)
    nobody = May(allowed=False, mine=False)
    asked = (step.id == state.current or (ahead and policy.ahead)) and policy.needed > 0
    closed = recorded.rejection is not None or recorded.expired is not None

    def may(command: core.Command) -> May:
        return sight.may(command) if asked else nobody

    seen: dict[str, Any] = {"step": step.id, "visit": visit, "gate": gate.id}
    return Approval(
        whom=policy.whom,
        needed=policy.needed,
        signed=policy.needed - sum(need.signatures for need in lacking),
        missing=tuple(Shown(need.whom, str(need.signatures)) for need in lacking),
        signatures=gate_signatures(sight, step, gate, visit),
        barred=_barred(sight),
        could=() if closed else could_sign(sight, policy, valid),
        covers=covers(sight, step, gate),
        facts=tuple(Shown(name, fact_text(value)) for name, value in sorted(state.facts.items())),
        digest=digest,
        ahead=ahead,
        closed=closed,
        due_at=core.due_at(procedure, state, step, gate) if asked else None,
        due_result=str(policy.expiry.result) if policy.expiry else "",
        nobody_left=nobody_left(sight, policy, valid) if asked and lacking and not closed else "",
        sign=may(core.Sign(**seen, digest=digest)),
        reject=may(core.Reject(**seen, digest=digest, reason=ENOUGH)),
        ask_again=may(core.AskAgain(**seen, reason=ENOUGH)) if closed else nobody,
        override=may(core.AskOverride(**seen, reason=ENOUGH)),
        signed_by_me=any(item.by.id == sight.me.id for item in valid),
    )


def _able(sight: Sight) -> list[tuple[Signer, str]]:
    """Those among the members who have no hand in the run, each with the rights that sign in it and with name."""
    able = [person for person in sight.members if not barred(sight.state, person.id)]
    return [
        (Signer(person.id, frozenset(person.signing(sight.state.started_at).roles), person.id), person.name)
        for person in able
    ]


def could_sign(sight: Sight, policy: Policy, valid: tuple[Recorded, ...]) -> tuple[str, ...]:
    """The names of those whose signature would help now."""
    there = signers(valid)
    return tuple(name for one, name in _able(sight) if adds(policy, there, one))


def nobody_left(sight: Sight, policy: Policy, valid: tuple[Recorded, ...]) -> str:
    """Who is missing even if everybody signs who still may; empty while there are enough people (D09)."""
    lack = missing(policy, [*signers(valid), *(one for one, _ in _able(sight))])
    return " and ".join(f"{need.signatures} of {need.whom}" for need in lack)


def gate_signatures(sight: Sight, step: Step, gate: ApprovalGate, visit: int) -> tuple[Signature, ...]:
    """Everybody who signed or rejected in a visit, with whether it still counts."""
    recorded = sight.state.gate(step.id, gate.id, visit)
    at = sight.state.steps.get(step.id)
    begun = at is not None and (at.begun_at is not None or visit < at.visit)
    valid = {item.seq for item in valid_signatures(sight.procedure, sight.state, step, gate)}
    newest = {item.by.id: item.seq for item in recorded.signatures}
    rows = []
    for item in recorded.signatures:
        if isinstance(item.event, e.ApprovalSigned):
            counts = item.by.id not in recorded.lapsed and newest[item.by.id] == item.seq
            rows.append(
                _signature(
                    sight,
                    item,
                    step,
                    item.event.comment,
                    item.event.digest,
                    counts if begun else item.seq in valid,
                )
            )
    rejection = recorded.rejection
    if rejection is not None and isinstance(rejection.event, e.ApprovalRejected):
        rows.append(
            _signature(
                sight,
                rejection,
                step,
                rejection.event.reason,
                rejection.event.digest,
                valid=True,
                rejected=True,
            )
        )
    return tuple(rows)


def _signature(
    sight: Sight,
    item: Recorded,
    step: Step,
    comment: str,
    digest: str,
    valid: bool,
    *,
    rejected: bool = False,
) -> Signature:
    return Signature(
        by=item.by.name,
        roles=item.by.roles,
        at=item.at,
        comment=comment,
        digest=digest[:12],
        valid=valid,
        step=sight.label(step.id),
        title=sight.title(step.id),
        rejected=rejected,
        deputy_of=getattr(item.event, "for_name", ""),
        ahead=getattr(item.event, "ahead", False),
    )


def _barred(sight: Sight) -> tuple[Shown, ...]:
    """Who may not approve, and why."""
    people = {sight.state.starter.id: sight.state.starter.name}
    people |= {who: sight.names.get(who, who) for who in sorted(sight.state.executors)}
    at = sight.state.steps.get(sight.state.current or "")
    if at is not None and at.holder is not None:
        people.setdefault(at.holder.id, at.holder.name)
    authors = [name for name in sight.procedure.authors if name not in people]
    rows = [Shown(name, barred(sight.state, who)) for who, name in people.items()]
    rows += [Shown(sight.names.get(name, name), "an author of this procedure version") for name in authors]
    return tuple(rows)


def covers(sight: Sight, step: Step, gate: ApprovalGate) -> tuple[Shown, ...]:
    """What a signature covers beside the facts, in the words of the page; the digest is taken over the same content."""
    if is_ahead(sight.state, step):
        return _covers_ahead(sight, step, gate)
    content = shown(sight.procedure, sight.state, step, gate)
    procedure = f"{sight.procedure.title}, version {sight.procedure.version}, {content['procedure'][:12]}…"
    rows = [
        Shown("Procedure", sight.say(procedure)),
        Shown("Step", f"{sight.named(step.id)}, time {content['visit']}"),
    ]
    rows.append(
        Shown(
            "Open exposures and duties",
            ", ".join(_burden_title(sight, name) for name in content["exposures"]) or "none",
        )
    )
    needs = {other.id: other for other in step.needs}
    rows += [
        Shown(sight.plain(needs[name].title), f"{value}: {visible(reason)}")
        for name, value, reason in content["needs"]
    ]
    rows += [
        Shown(_gate_title(sight, where, name), f"SHA-256 {sha[:12]}… {text}".strip() if sha else text)
        for where, name, sha, text in content["evidence"]
    ]
    return tuple(rows)


def _covers_ahead(sight: Sight, step: Step, gate: ApprovalGate) -> tuple[Shown, ...]:
    """The plan alone: what is still to be seen when the step begins is not signed now."""
    content = shown_ahead(sight.procedure, sight.state, step, gate)
    procedure = f"{sight.procedure.title}, version {sight.procedure.version}, {content['procedure'][:12]}…"
    return (
        Shown("Procedure", sight.say(procedure)),
        Shown("Step", sight.named(step.id)),
        *(Shown(f"Server “{role}”", " on ".join(names)) for role, names in content["servers"].items()),
        *(Shown(f"Answer {name}", fact_text(value)) for name, value in content["answers"].items()),
    )


def _gate_title(sight: Sight, step: str, gate: str) -> str:
    found = sight.procedure.step(step).gate(gate)
    return (
        f"Evidence: {sight.plain(found.title)}" if found is not None else f"Evidence of {sight.label(step)}"
    )


def fact_text(value: bool | str | None) -> str:
    """A fact as people read it."""
    if value is None or value == "":
        return "not known"
    return visible(value) if isinstance(value, str) else "yes" if value else "no"


def _burden_title(sight: Sight, burden: str) -> str:
    kind, _, name = burden.partition(":")
    if kind == "exposure":
        return sight.say(sight.procedure.exposure(name).title)
    return sight.say(sight.procedure.duty(name).title)


def way_back_rows(sight: Sight, gate: WayBackGate) -> tuple[WayBackRow, ...]:
    """What the way back needs, each with whether it is there."""
    return tuple(
        WayBackRow(sight.plain(item.title), found.is_met, visible(found.reason))
        for item, found in way_back_items(sight.procedure, sight.state, gate)
    )


def _way_back(sight: Sight, gate: WayBackGate) -> dict[str, Any]:
    return {"way_back": way_back_rows(sight, gate)}
