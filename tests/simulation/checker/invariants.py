"""The invariants of a walk, each checked against what the walk wrote down.

I1  no gate opens without its evidence          I7  the state is the fold of the stored events, chained by hash
I2  no event of a watched log is lost           I8  no step begins out of its order
I3  nothing is applied twice                    I9  when the faults stop, the run reaches an ending
I4  enough other, entitled people sign          I11 nothing is refused, dropped or held without a cause
I6  what was acknowledged is kept, once         I12 the clocks of servers decide nothing (`differences`)
"""

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime, timedelta

from tests.simulation.checker import gates
from tests.simulation.checker.ledger import BURDENS, Ledger
from tests.simulation.checker.texts import Text, begun_by_person, numbers_of

CODES = {
    "refused",
    "out-of-turn",
    "content-changed",
    "gate-closed",
    "not-allowed",
    "bad-input",
    "unavailable",
}
GENESIS = "0" * 64
REPORTED = {
    "log.event", "log.doubtful", "server.ended", "agent.lost", "agent.back", "clients.total", "probe.answered",
    "fact.set", "exposure.mark",
}  # fmt: skip


@dataclass(frozen=True)
class Violation:
    invariant: str
    run: int
    seq: int
    what: str

    def __str__(self):
        return f"{self.invariant}: run {self.run}, event {self.seq}: {self.what}"


def check(tale):
    """Everything in the tale of a walk that must not be; an empty list when all is well."""
    found = []
    events = {run["number"]: _events(run, found) for run in tale["runs"]}
    _check_acts(tale, events, found)
    for run in tale["runs"]:
        if events[run["number"]]:
            _Run(tale, run, events[run["number"]], found).check()
    _check_inheritance(tale, events, found)
    return found


def _events(run, found):
    """The stored events of a run; I7 also says that they are chained, numbered and written in one way."""
    previous, events = GENESIS, []
    for number, stored in enumerate(run["events"], 1):
        text = stored["text"]
        event = json.loads(text)
        expected = hashlib.sha256(f"{previous}\n{text}".encode()).hexdigest()
        written = json.dumps(event, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        if (
            expected != stored["hash"]
            or event["seq"] != number
            or event["run"] != run["number"]
            or written != text
        ):
            found.append(Violation("I7", run["number"], number, "the chain of stored events is broken here"))
        previous = stored["hash"]
        events.append(event)
    return events


# What people and workers did, and what they were told.


def _check_acts(tale, events, found):
    stored_by = {}
    ends = {}
    for number, act in enumerate(tale["acts"]):
        run, before, after = act["run"], act["before"], act["after"]
        grown = after - before

        def wrong(invariant, what, seq=after, run=run):
            found.append(Violation(invariant, run, seq, what))

        if ends.get(run, 0) != before:
            wrong("I6", f"act {number} begins at {before}, the run stood at {ends.get(run, 0)}")
        ends[run] = after
        if act["outcome"] == "refused":
            _check_refusal(tale, number, act, events, wrong)
        if grown and act["id"]:
            if act["id"] in stored_by:
                wrong("I6", f"the command {act['id']} was carried out twice")
            stored_by[act["id"]] = number
    for run, rows in events.items():
        if ends.get(run, 0) != len(rows):
            found.append(Violation("I6", run, len(rows), f"acts account for {ends.get(run, 0)} events"))


def _check_refusal(tale, number, act, events, wrong):
    if act["after"] != act["before"]:
        wrong("I6", f"a refused {act['act']} left something behind")
    if act["code"] not in CODES or len(act["message"]) < 10:
        wrong("I11", f"{act['act']} was refused without a cause: {act['message']!r}")
    if act["code"] == "not-allowed":
        told = tale["acts"][number + 1] if number + 1 < len(tale["acts"]) else None
        rows = events[act["run"]][told["before"] : told["after"]] if told is not None else []
        who = act["who"]["id"]
        if not any(
            row["kind"] == "attempt.refused" and row["by"]["id"] == who and row["body"]["act"] == act["act"]
            for row in rows
        ):
            wrong(
                "I11", f"{act['act']} by {act['who']['name']} was refused, and nothing on the record says so"
            )


def _check_inheritance(tale, events, found):
    """What a run had open when another one took it back goes on there."""
    for number, rows in events.items():
        ledger = Ledger()
        for row in rows:
            if row["kind"] == "run.rolled-back":
                other = events.get(row["body"]["by_run"], [])
                carried = {one["body"]["burden"] for one in other if one["kind"] == "burden.inherited"}
                if set(ledger.burdens) - carried:
                    lost = sorted(set(ledger.burdens) - carried)
                    found.append(Violation("I2", number, row["seq"], f"{lost} did not go on in the next run"))
            ledger.apply(row)


class _Run:
    """One run, event by event: before each is folded, whether it could happen; after each act, what is owed."""

    def __init__(self, tale, run, events, found):
        self.tale, self.number, self.events, self.found = tale, run["number"], events, found
        self.portraits = {portrait["seq"]: portrait for portrait in run["portraits"]}
        self.started = events[0]["body"]
        self.ledger = Ledger()
        self.acts = [act for act in tale["acts"] if act["run"] == run["number"]]
        self.act_of = {seq: act for act in self.acts for seq in range(act["before"] + 1, act["after"] + 1)}
        self.truth = {(line["server"], line["file"], line["offset"]): line for line in tale["truth"]["lines"]}
        # What the agents handed over late: nobody could know of it before, and it is told as a contradiction.
        self.late = {(file, offset) for _server, file, offset in tale["truth"]["late"]}
        self.gaps = {(gap["server"], gap["file"], gap["offset"]): gap for gap in tale["truth"]["gaps"]}
        self.texts = {}
        self.expected = []  # what has to follow the last event, in this order
        self.once = set()

    @property
    def text(self):
        name = self.ledger.text or f"{self.started['procedure']}/{self.started['procedure_version']}"
        if name not in self.texts:
            stored = self.tale["texts"][name]
            self.texts[name] = Text(stored["json"], stored["hash"], self.started)
        return self.texts[name]

    def wrong(self, invariant, event, what):
        self.found.append(Violation(invariant, self.number, event["seq"], what))

    def check(self):
        ends = {act["after"]: act for act in self.acts if act["after"] > act["before"]}
        for event in self.events:
            self.before(event)
            self.ledger.apply(event)
            if event["kind"] == "approval.signed":
                self.cover(event)
            if event["seq"] in self.portraits:
                self.compare(event, self.portraits[event["seq"]])
            if event["seq"] in ends:
                self.after_act(event, ends[event["seq"]])
        if not self.ledger.is_over:
            self.wrong("I9", self.events[-1], f"it never ends; it stands at {self.ledger.current}")

    # Before an event is folded: could it happen?

    def before(self, event):
        kind, body = event["kind"], event["body"]
        self.follows(event)
        check = _CHECKS.get(kind)
        if self.ledger.is_over and kind not in ("attempt.refused", "burden.taken-over", "override.reviewed",
                                                *BURDENS):  # fmt: skip
            self.wrong("I7", event, f"{kind} in a run that is over")
        if check is not None:
            check(self, event, body)
        if len(self.reasons(event)) < 1 and kind in _WITH_REASON:
            self.wrong("I11", event, f"{kind} without a reason")
        act = self.act_of.get(event["seq"])
        if act is not None and event["by"]["kind"] == "person":
            who = act["who"]
            if event["by"]["id"] != who["id"] or sorted(event["by"]["roles"]) != sorted(who["roles"]):
                self.wrong("I4", event, f"{event['by']} is on the record, {who['name']} acted")
        if event["by"]["kind"] == "worker" and kind in _PERSONS:
            self.wrong("I1", event, f"a worker caused {kind}")

    @staticmethod
    def reasons(event):
        body = event["body"]
        return (body.get("reason") or body.get("text") or "").strip()

    def follows(self, event):
        """What an event brings with it comes right behind it: effects, exposures, duties, and what is next."""
        if not self.expected:
            if event["kind"] in ("step.entered", "run.closing", "step.skipped", "run.gone-over") and not (
                self.is_first(event) or self.is_arrival(event) or event["body"].get("deviation")
            ):
                self.wrong(
                    "I8", event, f"{event['kind']} {event['body'].get('step', '')} follows from nothing"
                )
            if event["kind"] in ("exposure.opened", "duty.owed"):
                self.wrong("I8", event, f"{event['kind']} follows from nothing")
            return
        wanted = self.expected.pop(0)
        if not _is(event, wanted):
            self.wrong("I8", event, f"{wanted} had to follow, {event['kind']} {event['body']} did")
            self.expected = []

    def is_first(self, event):
        first = self.text.steps[0]
        return event["seq"] == 2 and event["kind"] == "step.entered" and event["body"]["step"] == first["id"]

    def is_arrival(self, event):
        """The first step that is entered under a text that the run has gone over to."""
        if self.ledger.current is not None or not self.ledger.route:
            return False
        self.expected = self.entering(self.text.by_id[self.ledger.route[0]], self.ledger.facts, named=True)
        wanted = self.expected.pop(0)
        return _is(event, wanted)

    # Steps.

    def step_begun(self, event, body):
        step, at = self.text.by_id[body["step"]], self.ledger.steps.get(body["step"])
        if self.ledger.current != body["step"] or at is None or at["visit"] != body["visit"]:
            self.wrong("I8", event, f"{body['step']} begins, the run stands at {self.ledger.current}")
            return
        self.only_once(event, "begun", body["step"], body["visit"])
        if at["status"] != "current" or self.ledger.status != "running":
            self.wrong(
                "I8", event, f"{body['step']} begins while it is {at['status']}, the run {self.ledger.status}"
            )
        self.all_met(event, step, step["needs"])
        if begun_by_person(step):
            if event["by"]["kind"] != "person":
                self.wrong("I1", event, f"{body['step']} takes a person to begin it")
            self.two_people(event, step)
        for gate in step["gates"]:
            if (
                gate["kind"] == "events"
                and self.ledger.bound(gate["server"])["application"] not in body["watermarks"]
            ):
                self.wrong("I1", event, f"no mark in the log of {gate['server']}")
        self.expected = self.burdens_at(step, "begin")

    def two_people(self, event, step):
        """Approving and carrying out are two people's acts, also where a deputy signed."""
        for gate in step["needs"]:
            if gate["kind"] == "approval":
                for one in self.ledger.gate(step["id"], gate["id"])["signed"]:
                    if event["by"]["id"] in (one["by"]["id"], one["for_id"]):
                        self.wrong(
                            "I4", event, f"{event['by']['name']} approved this step and carries it out"
                        )

    def step_completed(self, event, body):
        step, at = self.text.by_id[body["step"]], self.ledger.steps.get(body["step"])
        if self.ledger.current != body["step"] or at is None or at["visit"] != body["visit"]:
            self.wrong("I8", event, f"{body['step']} is completed, the run stands at {self.ledger.current}")
            return
        self.only_once(event, "completed", body["step"], body["visit"])
        if at["status"] != "begun" or self.ledger.status != "running":
            self.wrong(
                "I8", event, f"{body['step']} is completed while it is {at['status']}, {self.ledger.status}"
            )
        self.all_met(event, step, step["gates"])
        if event["by"]["kind"] == "person":
            self.two_people(event, step)
        elif not step["by-itself"]:
            self.wrong("I1", event, f"{body['step']} takes a person to complete it")
        facts = dict(self.ledger.facts)
        expected = []
        for effect in step["effects"]:
            if effect["when"] is None or self.text.holds(effect["when"], self.ledger.facts):
                value = {"true": True, "false": False}.get(
                    effect["to"], self.ledger.facts.get(effect["to"], effect["to"])
                )
                facts[effect["set"]] = value
                expected.append(("fact.set", {"name": effect["set"], "value": value, "step": step["id"]}))
        self.expected = [
            *expected,
            *self.burdens_at(step, "complete"),
            *self.what_follows(step, step["then"], facts),
        ]

    def step_left(self, event, body):
        step = self.text.by_id[body["step"]]
        for gate in step["gates"]:
            if gate["kind"] != "events":
                continue
            reached = self.ledger.gate(step["id"], gate["id"])["outcome"]
            if reached is not None and reached["outcome"] == body["outcome"]:
                self.same_outcome(event, step, gate, reached)
                then = gates.outcome_of(gate, reached["outcome"])["then"]
                self.expected = self.what_follows(step, then, self.ledger.facts)
                if self.ledger.status != "running":
                    self.wrong("I8", event, "it leaves the step while the run is on hold")
                return
        self.wrong("I1", event, f"{body['step']} was left on {body['outcome']}, which no gate has reached")

    def step_skipped(self, event, body):
        if not body["deviation"]:
            return  # as its `when` says: `follows` has seen to it
        asked = self.ledger.deviations.get(body["deviation"])
        if (
            asked is None
            or asked["decided"] != "signed"
            or asked["what"] != "skip"
            or asked["step"] != body["step"]
        ):
            self.wrong("I8", event, f"{body['step']} was skipped without a signed deviation")
        if (
            self.ledger.current != body["step"]
            or asked is None
            or asked["visit"] != self.ledger.visit(body["step"])
        ):
            self.wrong("I8", event, f"{body['step']} was skipped, the run stands at {self.ledger.current}")
        step = self.text.by_id[body["step"]]
        self.expected = self.what_follows(step, step["then"], self.ledger.facts)

    def step_restarted(self, event, body):
        self.expected = [("step.entered", {"step": body["step"], "visit": body["visit"] + 1})]

    def what_follows(self, step, then, facts):
        if then == "continue":
            if self.ledger.route:
                return self.entering(self.text.by_id[self.ledger.route[0]], facts, named=True)
            return self.entering(self.text.after(step["id"]), facts)
        if "go-to" in then:
            return self.entering(self.text.by_id[then["go-to"]], facts, named=True)
        if "end" in then:
            return [("run.closing", {"ending": then["end"]})]
        if "go-over" in then:
            body = {"procedure": then["go-over"], "procedure_version": int(then["version"])}
            return [("run.gone-over", {**body, "through": then["through"]})]
        return [("run.held", {})]

    def entering(self, step, facts, *, named=False):
        expected = []
        while step is not None:
            if step["id"] in self.ledger.kept and not named:
                step = self.text.after(step["id"])
                continue
            named = False
            known = self.ledger.steps.get(step["id"])
            body = {"step": step["id"], "visit": (known["visit"] if known else 0) + 1}
            if self.text.holds(step["when"], facts) is not False:
                return [*expected, ("step.entered", body)]
            expected.append(("step.skipped", {**body, "deviation": 0}))
            step = self.text.after(step["id"])
        return [*expected, ("run.closing", {"ending": "completed"})]

    def burdens_at(self, step, moment):
        def due(part):
            return part["at"] == moment

        facts, open_ = self.ledger.facts, set(self.ledger.burdens)
        expected = []
        for key, kind in (("closes", "exposure.closed"), ("opens", "exposure.opened")):
            for change in step[key]:
                is_open = f"exposure:{change['exposure']}" in open_
                holds = self.text.holds(change["when"], facts) is not False
                if due(change) and holds and is_open == (key == "closes"):
                    expected.append((kind, {"exposure": change["exposure"], "step": step["id"]}))
        for key, kind in (("owes", "duty.owed"), ("fulfils", "duty.done")):
            for owed in step[key]:
                is_open = f"duty:{owed['duty']}" in open_
                if (
                    due(owed)
                    and self.text.holds(owed["when"], facts) is True
                    and is_open == (key == "fulfils")
                ):
                    expected.append((kind, {"duty": owed["duty"], "step": step["id"]}))
        return expected

    def all_met(self, event, step, wanted):
        for gate in wanted:
            if self.text.holds(gate["when"], self.ledger.facts) is False:
                continue
            why = gates.why_shut(self.ledger, self.text, step, gate)
            if why:
                self.wrong(
                    "I1", event, f"{event['kind']} of {step['id']}, though {gate['id']} is shut: {why}"
                )

    def only_once(self, event, *key):
        if key in self.once:
            self.wrong("I3", event, f"a second time: {' '.join(map(str, key))}")
        self.once.add(key)

    # Logs.

    def log_event(self, event, body):
        step, visit, gate = self.watched(event, body)
        if gate is None:
            return
        line = self.truth.get((body["application"], body["file"], body["offset"]))
        if line is None or line["event"] != body["event"]:
            self.wrong("I1", event, f"{body['application']} never logged {body['event']} there")
        marks = self.ledger.steps[step]["marks"].get(body["application"])
        if marks is None or body["offset"] < marks.get(body["file"], 0):
            self.wrong("I1", event, f"{body['event']} stands before the mark of {step}, visit {visit}")
        if body["event"] not in numbers_of(gate):
            self.wrong("I1", event, f"{body['event']} is none of the events of this rule")

    def log_doubtful(self, event, body):
        _step, _visit, gate = self.watched(event, body)
        place = (body["application"], body["file"], body["offset"])
        known = self.gaps.get(place) if body["doubt"] == "gap" else self.truth.get(place)
        if gate is not None and known is None:
            self.wrong("I1", event, f"{body['application']} has no {body['doubt']} there")

    def server_ended(self, event, body):
        self.watched(event, body)

    def watched(self, event, body):
        step, _, rest = body["watch"].partition("#")
        visit, _, name = rest.partition(".")
        gate = self.text.gate(step, name)
        if gate is None or not gates.is_watching(self.ledger, self.text.by_id[step], gate):
            self.wrong("I1", event, f"nothing is read for {body['watch']} now")
            return step, visit, None
        if int(visit) != self.ledger.visit(step):
            self.wrong("I1", event, f"{body['watch']} is of an earlier visit")
            return step, visit, None
        server = self.ledger.bound(gate["server"])["application"]
        if body["application"] != server:
            self.wrong("I1", event, f"a line of {body['application']} where {server} is watched")
        place = (body["file"], body["offset"]) if "file" in body else ("process", body["change"])
        self.only_once(event, "seen", body["watch"], place)
        return step, visit, gate

    def outcome(self, event, body):
        self.only_once(event, "outcome", body["step"], body["visit"], body["gate"])
        step, gate = self.text.by_id[body["step"]], self.text.gate(body["step"], body["gate"])
        at = self.ledger.steps.get(body["step"])
        if at is None or at["status"] != "begun" or at["visit"] != body["visit"]:
            self.wrong("I1", event, f"an outcome of {body['step']}, which has not begun")
            return
        self.same_outcome(event, step, gate, body)
        self.nothing_missed(event, step, gate, body)
        then = gates.outcome_of(gate, body["outcome"])["then"]
        if isinstance(then, dict) and "hold" in then and self.ledger.status != "held":
            self.expected = [("run.held", {})]

    def same_outcome(self, event, step, gate, reached):
        result = gates.rule_of(self.ledger, self.text, step["id"], gate)
        if result["doubts"]:
            self.wrong("I1", event, f"an outcome in spite of the doubts {result['doubts']}")
        if result["outcome"] != reached["outcome"] or result["lines"] != reached["lines"]:
            self.wrong(
                "I1",
                event,
                f"{reached['outcome']} {reached['lines']} is recorded; in the order of the file the lines say "
                f"{result['outcome']} {result['lines']}",
            )

    def nothing_missed(self, event, step, gate, reached):
        """Whatever the server logged before the last line of the evidence is on the record, or in a recorded gap."""
        application = self.ledger.bound(gate["server"])["application"]
        marks = self.ledger.steps[step["id"]]["marks"].get(application) or {}
        recorded = self.ledger.gate(step["id"], gate["id"])["seen"]
        places = {one["place"] for one in recorded}
        rows = {row["seq"]: row["body"] for row in self.events[: event["seq"]]}
        last = rows.get(reached["lines"][-1]) if reached["lines"] else None
        if last is None or "file" not in last:
            return
        gaps = [self.gaps[(application, *one["place"])] for one in recorded if one["kind"] == "gap"
                and (application, *one["place"]) in self.gaps]  # fmt: skip
        wanted = numbers_of(gate)
        for (server, file, offset), line in self.truth.items():
            if (
                server != application
                or file != last["file"]
                or not marks.get(file, 0) <= offset <= last["offset"]
            ):
                continue
            counts = line["kind"] == "unreadable" or (line["kind"] == "event" and line["event"] in wanted)
            in_gap = any(gap["file"] == file and gap["offset"] <= offset < gap["until"] for gap in gaps)
            if counts and (file, offset) not in places | self.late and not in_gap:
                self.wrong(
                    "I2", event, f"{line['event'] or 'a line'} at {file}:{offset} is nowhere on the record"
                )

    def total(self, event, body):
        line = self.truth.get((body["application"], body["file"], body["offset"]))
        if line is None or line["total"] != body["total"]:
            self.wrong("I1", event, f"{body['application']} never counted {body['total']} there")

    def probed(self, event, body):
        answers = self.tale["truth"]["answers"]
        key = [self.number, body["step"], body["visit"], body["gate"], body["value"]]
        if key not in answers:
            self.wrong("I1", event, f"no agent ever answered {key}")

    def fact(self, event, body):
        act = self.act_of.get(event["seq"])
        if body["step"] or (act is not None and act["act"] != "Report"):
            return  # an effect, or a correction that two people signed: `follows` and `deviation_signed` see to it
        if [body["name"], body["value"]] not in self.tale["truth"]["facts"]:
            self.wrong("I1", event, f"{body['name']} never was {body['value']}")

    # People.

    def confirmed(self, event, body):
        if "operator" not in event["by"]["roles"]:
            self.wrong("I4", event, f"{event['by']['name']} may not confirm")

    def approval_signed(self, event, body):
        step, gate = self.text.by_id.get(body["step"]), self.text.gate(body["step"], body["gate"])
        if gate is None or gate["kind"] != "approval" or self.ledger.visit(body["step"]) != body["visit"]:
            self.wrong("I4", event, "a signature for nothing")
            return
        policy = gates.policy_of(self.ledger, gate["policy"])
        self.entitled(event, body, policy)
        at = self.ledger.steps.get(body["step"])
        ahead = at is None and not step["aside"]
        if body["ahead"] != ahead or (ahead and not policy["ahead"]):
            self.wrong("I4", event, "a signature ahead of its turn, or one that says it were")
        if not ahead and (self.ledger.current != body["step"] or at["status"] != "current"):
            self.wrong("I4", event, f"a signature for {body['step']}, which has begun already")
        recorded = self.ledger.gate(body["step"], body["gate"])
        if recorded["rejected"] or recorded["expired"]:
            self.wrong("I4", event, "a signature for a request that is decided already")
        if policy["expires"] and not ahead and policy["expires"]["result"] != "lapse":
            since = datetime.fromisoformat(recorded["asked"] or at["entered"])
            until = since + timedelta(seconds=policy["expires"]["after"])
            met = gates.why_shut(self.ledger, self.text, step, gate) is None
            if datetime.fromisoformat(event["at"]) >= until and not met:
                self.wrong("I4", event, f"a signature for a request that ran out at {until}")

    def entitled(self, event, body, policy):
        by = event["by"]
        if by["kind"] != "person" or self.ledger.barred(by["id"]):
            self.wrong("I4", event, f"{by['name']} may not sign here")
        rights = set(by["roles"])
        if body["for_id"]:
            who = self.act_of[event["seq"]]["who"]
            absent = next((one for one in who["stands_for"] if one["id"] == body["for_id"]), None)
            rights = set(body["for_roles"])
            if absent is None or rights != set(absent["roles"]) or self.ledger.barred(body["for_id"]):
                self.wrong(
                    "I4", event, f"{by['name']} is no deputy of {body['for_name']}, or he has a hand in it"
                )
        if not rights & set(policy["slots"]):
            self.wrong("I4", event, f"{by['name']} has none of the rights {policy['slots']}")

    def cover(self, event):
        """Remember what this signature covers; the gate opens only while that stays as it is."""
        body = event["body"]
        step = self.text.by_id.get(body["step"])
        signed = self.ledger.gate(body["step"], body["gate"])["signed"][-1]
        signed["covers"] = (
            gates.plan_of(self.ledger, self.text)
            if body["ahead"]
            else gates.snapshot(self.ledger, self.text, step)
        )

    def rejected(self, event, body):
        gate = self.text.gate(body["step"], body["gate"])
        if self.ledger.barred(event["by"]["id"]) or gate is None:
            self.wrong("I4", event, f"{event['by']['name']} may not reject here")

    def deviation_asked(self, event, body):
        if body["what"] in ("skip", "override") and self.never_waived(body):
            self.wrong("I4", event, f"{body['what']} of {body['step']} {body['gate']} is never waived")
        if "operator" not in event["by"]["roles"] or len(body["reason"].strip()) < 20:
            self.wrong("I4", event, "a deviation without an operator, or without a reason")

    def never_waived(self, asked):
        never = gates.policy_of(self.ledger, "deviation")["never"]
        step = self.text.by_id[asked["step"]]
        names = [asked["gate"]]
        if asked["what"] == "skip":
            names = [gate["id"] for gate in (*step["needs"], *step["gates"])]
        return any(never & {name, f"{asked['step']}.{name}"} for name in names)

    def deviation_signed(self, event, body):
        asked = self.ledger.deviations.get(body["number"])
        if asked is None or asked["decided"]:
            self.wrong("I4", event, "a signature for a deviation that is not open")
            return
        self.only_once(event, "deviation signed", body["number"], event["by"]["id"])
        if asked["what"] == "emergency":
            self.emergency(event, asked)
        else:
            policy = gates.policy_of(self.ledger, "deviation")
            self.entitled(event, body, policy)
            if body["decides"]:
                signed = [*asked["signed"], {**body, "by": event["by"]}]
                standing = [one for one in signed if not gates._is_barred(self.ledger, one)]
                if not gates.fills(policy["slots"], standing):
                    names = [one["by"]["name"] for one in signed]
                    self.wrong(
                        "I4", event, f"{names} do not fill {policy['slots']}, or have a hand in the run"
                    )
        if body["decides"] and asked["what"] in ("skip", "override"):
            gate = self.text.gate(asked["step"], asked["gate"])
            if self.never_waived(asked) or (asked["what"] == "override" and gate["kind"] == "approval"):
                self.wrong("I4", event, f"{asked['step']} {asked['gate']} is never waived")
            if self.ledger.current != asked["step"] or self.ledger.visit(asked["step"]) != asked["visit"]:
                self.wrong(
                    "I8", event, f"a deviation at {asked['step']}, the run stands at {self.ledger.current}"
                )
        if body["decides"] and asked["what"] == "skip":
            self.expected = [("step.skipped", {"step": asked["step"], "deviation": body["number"]})]
        if body["decides"] and asked["what"] == "correct":
            self.expected = [("fact.set", {"name": asked["fact"]})]

    def emergency(self, event, asked):
        gate = self.text.gate(asked["step"], asked["gate"])
        by = event["by"]
        if (
            gate is None
            or gate["kind"] != "approval"
            or not gates.policy_of(self.ledger, gate["policy"])["override"]
        ):
            self.wrong("I4", event, "an emergency override that no policy allows")
            return
        if (
            self.ledger.barred(by["id"])
            or by["id"] == asked["asked_by"]
            or not set(by["roles"]) & gates.SECONDS
        ):
            self.wrong("I4", event, f"{by['name']} cannot be the second person of an emergency")
        if self.ledger.gate(asked["step"], asked["gate"])["rejected"]:
            self.wrong("I4", event, "an emergency override goes over a decision")

    def taken_over(self, event, body):
        who = event["by"]["id"]
        if body["burden"] not in self.ledger.burdens:
            self.wrong("I7", event, f"{body['burden']} is not open")
        if who == self.ledger.starter or who in self.ledger.executors:
            self.wrong(
                "I4", event, f"{event['by']['name']} worked on the run and takes {body['burden']} over"
            )

    # Burdens and endings.

    def burden_changes(self, event, body):
        name = f"exposure:{body['exposure']}" if "exposure" in body else f"duty:{body['duty']}"
        opens = event["kind"] in ("exposure.opened", "duty.owed")
        if opens == (name in self.ledger.burdens):
            self.wrong("I3", event, f"{event['kind']} of {name} a second time, or of none")
        if not opens and not body["step"]:
            owner = (self.ledger.burdens.get(name) or {}).get("owner")
            if owner != event["by"]["id"]:
                self.wrong("I4", event, f"{name} is closed by somebody who does not own it")

    def over(self, event, body):
        if self.ledger.unowned:
            self.wrong("I1", event, f"it ends, and nobody owns {self.ledger.unowned}")
        if event["kind"] == "run.ended" and self.ledger.status != "closing":
            self.wrong("I8", event, f"it ends while it is {self.ledger.status}")

    # After an event, and after an act.

    def compare(self, event, portrait):
        """I7: the application's state, live and read anew, and ours are one."""
        if portrait["live"] != portrait["replayed"]:
            self.wrong("I7", event, "the state read anew from its events is another one")
        mine = json.loads(json.dumps(self.ledger.summary()))
        if portrait["summary"] != mine:
            differing = [key for key in mine if portrait["summary"].get(key) != mine[key]]
            shown = {key: (portrait["summary"].get(key), mine[key]) for key in differing}
            self.wrong("I7", event, f"application and checker differ in {shown}")

    def after_act(self, event, act):
        if self.expected:
            self.wrong("I8", event, f"{self.expected[0]} did not follow")
            self.expected = []
        if act["act"] == "Report":
            self.nothing_dropped(event, act)
        if self.ledger.is_over:
            return
        for step, gate in self.text.gates_of_kind("events"):
            recorded = self.ledger.gate(step["id"], gate["id"])
            reached = recorded["outcome"]
            if reached is None or not gates.is_watching(self.ledger, step, gate):
                continue
            outcome = gates.outcome_of(gate, reached["outcome"])
            if outcome is None or outcome["then"] != "continue":
                continue
            against = set(gates.rule_of(self.ledger, self.text, step["id"], gate)["against"])
            key = (step["id"], self.ledger.visit(step["id"]), gate["id"])
            if against - self.ledger.contradicted.get(key, set()):
                self.wrong(
                    "I11", event, f"{against} speaks against {step['id']}.{gate['id']}, and nobody is told"
                )

    def nothing_dropped(self, event, act):
        """I2, I11: each thing that a worker handed over is on the record, or there is a reason to leave it out."""
        rows = [row for row in self.events[: act["after"]] if row["kind"] in REPORTED]
        for item in act["items"]:
            body = item["body"]
            if any(row["kind"] == item["kind"] and row["body"] == body for row in rows):
                continue
            if not self.cause_to_drop(item["kind"], body, rows):
                self.wrong("I2", event, f"{item['kind']} {body} was handed over and is nowhere on the record")

    def cause_to_drop(self, kind, body, rows):
        match kind:
            case "log.event" | "log.doubtful" | "server.ended":
                step, _, rest = body["watch"].partition("#")
                visit, _, name = rest.partition(".")
                gate = self.text.gate(step, name)
                at = self.ledger.steps.get(step)
                if gate is None or at is None or int(visit) != at["visit"]:
                    return True
                if body["application"] != self.ledger.bound(gate["server"])["application"]:
                    return True
                if kind == "server.ended":
                    key = ("change", body["change"])
                else:
                    key = ("offset", body["offset"])
                    marks = at["marks"].get(body["application"])
                    if kind == "log.event" and (marks is None or body["offset"] < marks.get(body["file"], 0)):
                        return True
                    if kind == "log.event" and body["event"] not in numbers_of(gate):
                        return True
                if any(row["body"].get("watch") == body["watch"] and row["body"].get(key[0]) == key[1]
                       and row["body"].get("file") == body.get("file") for row in rows):  # fmt: skip
                    return True
                return not gates.is_watching(self.ledger, self.text.by_id[step], gate) or self.ledger.is_over
            case "clients.total":
                return True  # the newest one counts; which one that is, the gate is asked
            case "probe.answered":
                return self.ledger.visit(body["step"]) != body["visit"] or self.ledger.current != body["step"] or (
                    (self.ledger.gate(body["step"], body["gate"])["probe"] or {}).get("value") == body["value"]
                )  # fmt: skip
            case "agent.lost":
                return body["host"] in self.ledger.lost
            case "agent.back":
                return body["host"] not in self.ledger.lost
            case "fact.set":
                return self.ledger.facts.get(body["name"]) == body["value"]
        return True


def _is(event, wanted):
    kind, body = wanted
    return event["kind"] == kind and all(event["body"].get(key) == value for key, value in body.items())


_WITH_REASON = {
    "run.held", "run.resumed", "run.aborted", "step.skipped", "step.restarted", "agent.lost", "attempt.refused",
    "gate.contradicted", "approval.lapsed", "approval.rejected", "approval.asked", "deviation.asked",
    "deviation.rejected", "burden.taken-over", "run.rolled-back",
}  # fmt: skip
_PERSONS = {
    "gate.confirmed", "evidence.attached", "approval.signed", "approval.rejected", "approval.asked",
    "deviation.asked", "deviation.signed", "burden.taken-over", "run.aborted", "step.taken", "step.restarted",
    "run.resumed",
}  # fmt: skip
_CHECKS = {
    "step.begun": _Run.step_begun,
    "step.completed": _Run.step_completed,
    "step.left": _Run.step_left,
    "step.skipped": _Run.step_skipped,
    "step.restarted": _Run.step_restarted,
    "log.event": _Run.log_event,
    "log.doubtful": _Run.log_doubtful,
    "server.ended": _Run.server_ended,
    "gate.outcome": _Run.outcome,
    "gate.confirmed": _Run.confirmed,
    "clients.total": _Run.total,
    "probe.answered": _Run.probed,
    "fact.set": _Run.fact,
    "approval.signed": _Run.approval_signed,
    "approval.rejected": _Run.rejected,
    "deviation.asked": _Run.deviation_asked,
    "deviation.signed": _Run.deviation_signed,
    "burden.taken-over": _Run.taken_over,
    "exposure.opened": _Run.burden_changes,
    "exposure.closed": _Run.burden_changes,
    "duty.owed": _Run.burden_changes,
    "duty.done": _Run.burden_changes,
    "run.ended": _Run.over,
    "run.aborted": _Run.over,
}


def differences(one, other):
    """I12: where two tales of the same seed part whose servers' clocks differ; empty when their runs are alike."""
    found = []
    for left, right in zip(one["runs"], other["runs"], strict=False):
        rows = [[_timeless(json.loads(stored["text"])) for stored in run["events"]] for run in (left, right)]
        for mine, theirs in zip(*rows, strict=False):
            if mine != theirs:
                found.append(Violation("I12", left["number"], mine["seq"], f"{mine} here, {theirs} there"))
                break
        if not found and len(rows[0]) != len(rows[1]):
            found.append(Violation("I12", left["number"], len(rows[0]), "one of the two goes on"))
    if len(one["runs"]) != len(other["runs"]):
        found.append(Violation("I12", 0, 0, "one of the two has another run"))
    return found


def _timeless(event):
    body = {key: value for key, value in event["body"].items() if key != "logged_at"}
    return {**event, "body": body}
