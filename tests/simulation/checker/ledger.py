"""What a run's stored events add up to, folded anew: plain dictionaries, one event at a time."""

EXECUTING = {
    "step.taken",
    "step.begun",
    "step.completed",
    "step.restarted",
    "gate.confirmed",
    "evidence.attached",
    "deviation.asked",
}
SEEN = ("log.event", "log.doubtful", "server.ended")
BURDENS = ("exposure.opened", "exposure.closed", "duty.owed", "duty.done")


class Ledger:
    """The state of one run. `apply` takes the next event; nothing else changes it."""

    def __init__(self):
        self.seq = 0
        self.status, self.ending, self.current = "", "", None
        self.started, self.starter = {}, ""
        self.facts, self.steps, self.gates = {}, {}, {}
        self.burdens, self.deviations = {}, {}
        self.lost, self.silences, self.totals = {}, {}, {}
        self.executors, self.authors = set(), set()
        self.route, self.kept = [], set()
        self.text = ""
        self.set_aside, self.contradicted = set(), {}

    def gate(self, step, gate, visit=None):
        key = (step, self.visit(step) if visit is None else visit, gate)
        if key not in self.gates:
            self.gates[key] = {
                "confirmed": [], "evidence": [], "probe": None, "seen": [], "outcome": None,
                "signed": [], "rejected": None, "expired": None, "asked": None, "rounds": 1, "overridden": 0,
            }  # fmt: skip
        return self.gates[key]

    def visit(self, step):
        return self.steps[step]["visit"] if step in self.steps else 1

    @property
    def is_over(self):
        return self.status in ("ended", "aborted")

    @property
    def unowned(self):
        return sorted(name for name, burden in self.burdens.items() if burden["owner"] is None)

    def bound(self, role):
        return self.started["bindings"][role]

    def barred(self, person):
        """Whether this person may not approve anything in this run as it stands."""
        at = self.steps.get(self.current or "")
        return (
            person == self.starter
            or person in self.authors
            or person in self.executors
            or (at is not None and at["holder"] == person)
        )

    def summary(self):
        """What the application says of the same run in its own portrait."""
        return {
            "seq": self.seq,
            "status": self.status,
            "ending": self.ending,
            "current": self.current,
            "facts": dict(self.facts),
            "steps": {name: [step["visit"], step["status"]] for name, step in self.steps.items()},
            "burdens": {name: burden["owner"] for name, burden in self.burdens.items()},
            "deviations": {str(number): asked["decided"] for number, asked in self.deviations.items()},
            "executors": sorted(self.executors),
        }

    # One event.

    def apply(self, event):
        kind, body, by = event["kind"], event["body"], event["by"]
        self.seq = event["seq"]
        method = _METHODS.get(kind)
        if method is not None:
            method(self, event, body)
        if kind in EXECUTING and by["kind"] == "person":
            self.executors.add(by["id"])

    def run_started(self, event, body):
        self.started, self.starter = body, event["by"]["id"]
        self.status = "running"
        self.facts = dict(body["facts"])
        self.executors = {event["by"]["id"]}
        self.authors = set(body["authors"])
        self.text = f"{body['procedure']}/{body['procedure_version']}"

    def step_entered(self, event, body):
        self.current = body["step"]
        self.steps[body["step"]] = {
            "visit": body["visit"], "status": "current", "entered": event["at"], "begun": 0,
            "marks": {}, "totals": {}, "facts": {}, "holder": None,
        }  # fmt: skip
        if self.route[:1] == [body["step"]]:
            self.route = self.route[1:]

    def step_begun(self, event, body):
        at = self.steps[body["step"]]
        at |= {"status": "begun", "begun": event["seq"], "facts": dict(self.facts)}
        at |= {"marks": body["watermarks"], "totals": body["totals"]}
        if event["by"]["kind"] == "person":
            at["holder"] = event["by"]["id"]

    def step_skipped(self, event, body):
        at = self.steps.get(body["step"])
        if at is None or at["visit"] != body["visit"]:
            at = self.steps[body["step"]] = {
                "visit": body["visit"], "entered": event["at"], "begun": 0,
                "marks": {}, "totals": {}, "facts": {}, "holder": None,
            }  # fmt: skip
        at["status"] = "skipped"

    def step_completed(self, _event, body):
        self.steps[body["step"]]["status"] = "done"

    def step_left(self, _event, body):
        self.steps[body["step"]]["status"] = "left"

    def held_by(self, event, body):
        self.steps[body["step"]]["holder"] = body.get("to_id") or event["by"]["id"]

    def seen(self, event, body):
        step, _, rest = body["watch"].partition("#")
        visit, _, gate = rest.partition(".")
        kind = {"log.event": "event", "server.ended": "ended"}.get(event["kind"]) or body["doubt"]
        place = ("process", body["change"]) if kind == "ended" else (body["file"], body["offset"])
        self.gate(step, gate, int(visit))["seen"].append(
            {"kind": kind, "place": place, "event": body.get("event", ""), "seq": event["seq"]}
        )

    def confirmed(self, event, body):
        self.gate(body["step"], body["gate"], body["visit"])["confirmed"].append({**body, "by": event["by"]})

    def attached(self, event, body):
        self.gate(body["step"], body["gate"], body["visit"])["evidence"].append({**body, "seq": event["seq"]})

    def probed(self, event, body):
        self.gate(body["step"], body["gate"], body["visit"])["probe"] = {**body, "seq": event["seq"]}

    def outcome(self, event, body):
        self.gate(body["step"], body["gate"], body["visit"])["outcome"] = {**body, "seq": event["seq"]}

    def contradicts(self, _event, body):
        key = (body["step"], body["visit"], body["gate"])
        self.contradicted.setdefault(key, set()).add(body["line"])

    def signed(self, event, body):
        gate = self.gate(body["step"], body["gate"], body["visit"])
        gate["signed"] = [one for one in gate["signed"] if one["by"]["id"] != event["by"]["id"]]
        gate["signed"].append({**body, "by": event["by"], "seq": event["seq"], "at": event["at"]})

    def rejected(self, event, body):
        self.gate(body["step"], body["gate"], body["visit"])["rejected"] = event["seq"]

    def lapsed(self, _event, body):
        gate = self.gate(body["step"], body["gate"], body["visit"])
        gate["signed"] = [one for one in gate["signed"] if one["by"]["id"] != body["signer"]]

    def expired(self, event, body):
        gate = self.gate(body["step"], body["gate"], body["visit"])
        gate["signed"] = []
        if body["result"] == "lapse":
            gate |= {"asked": event["at"], "rounds": gate["rounds"] + 1}
        else:
            gate["expired"] = event["seq"]

    def asked_again(self, event, body):
        gate = self.gate(body["step"], body["gate"], body["visit"])
        gate |= {"signed": [], "rejected": None, "expired": None, "asked": event["at"]}
        gate["rounds"] += 1

    def fact(self, _event, body):
        self.facts[body["name"]] = body["value"]

    def agent_lost(self, event, body):
        self.lost[body["host"]] = body["reason"]
        self.silences[body["host"]] = event["seq"]

    def agent_back(self, event, body):
        self.lost.pop(body["host"], None)

    def total(self, event, body):
        self.totals.setdefault(body["application"], []).append({**body, "seq": event["seq"]})

    def exposure_opened(self, _event, body):
        self.burdens[f"exposure:{body['exposure']}"] = {"owner": None}

    def exposure_closed(self, _event, body):
        self.burdens.pop(f"exposure:{body['exposure']}", None)

    def duty_owed(self, _event, body):
        self.burdens[f"duty:{body['duty']}"] = {"owner": None}

    def duty_done(self, _event, body):
        self.burdens.pop(f"duty:{body['duty']}", None)

    def inherited(self, _event, body):
        self.burdens[body["burden"]] = {"owner": body["owner_id"] or None}

    def taken_over(self, event, body):
        self.burdens[body["burden"]]["owner"] = event["by"]["id"]

    def deviation_asked(self, event, body):
        self.deviations[body["number"]] = {**body, "asked_by": event["by"]["id"], "decided": "", "signed": []}

    def deviation_signed(self, event, body):
        asked = self.deviations[body["number"]]
        asked["signed"].append({**body, "by": event["by"], "seq": event["seq"]})
        if not body["decides"]:
            return
        asked["decided"] = "signed"
        if asked["what"] == "doubt":
            self.set_aside.add(asked["doubt"])
        if asked["what"] in ("override", "emergency"):
            self.gate(asked["step"], asked["gate"], asked["visit"])["overridden"] = body["number"]

    def deviation_rejected(self, _event, body):
        self.deviations[body["number"]]["decided"] = "rejected"

    def held(self, _event, _body):
        self.status = "held"

    def resumed(self, _event, _body):
        self.status = "closing" if self.current is None else "running"

    def gone_over(self, _event, body):
        self.kept = {name for name, step in self.steps.items() if step["status"] == "done"}
        self.current, self.route = None, list(body["through"])
        self.authors |= set(body["authors"])
        self.text = f"{body['procedure']}/{body['procedure_version']}"

    def closing(self, _event, body):
        self.status, self.ending, self.current = "closing", body["ending"], None

    def ended(self, _event, body):
        self.status, self.ending, self.current = "ended", body["ending"], None

    def rolled_back(self, _event, _body):
        self.status, self.ending, self.current = "ended", "rolled back", None
        self.burdens = {}

    def aborted(self, _event, _body):
        self.status, self.ending = "aborted", "aborted"


_METHODS = {
    "run.started": Ledger.run_started,
    "step.entered": Ledger.step_entered,
    "step.begun": Ledger.step_begun,
    "step.skipped": Ledger.step_skipped,
    "step.completed": Ledger.step_completed,
    "step.left": Ledger.step_left,
    "step.taken": Ledger.held_by,
    "step.handed-over": Ledger.held_by,
    "log.event": Ledger.seen,
    "log.doubtful": Ledger.seen,
    "server.ended": Ledger.seen,
    "gate.confirmed": Ledger.confirmed,
    "evidence.attached": Ledger.attached,
    "probe.answered": Ledger.probed,
    "gate.outcome": Ledger.outcome,
    "gate.contradicted": Ledger.contradicts,
    "approval.signed": Ledger.signed,
    "approval.rejected": Ledger.rejected,
    "approval.lapsed": Ledger.lapsed,
    "approval.expired": Ledger.expired,
    "approval.asked": Ledger.asked_again,
    "fact.set": Ledger.fact,
    "agent.lost": Ledger.agent_lost,
    "agent.back": Ledger.agent_back,
    "clients.total": Ledger.total,
    "exposure.opened": Ledger.exposure_opened,
    "exposure.closed": Ledger.exposure_closed,
    "duty.owed": Ledger.duty_owed,
    "duty.done": Ledger.duty_done,
    "burden.inherited": Ledger.inherited,
    "burden.taken-over": Ledger.taken_over,
    "deviation.asked": Ledger.deviation_asked,
    "deviation.signed": Ledger.deviation_signed,
    "deviation.rejected": Ledger.deviation_rejected,
    "run.held": Ledger.held,
    "run.resumed": Ledger.resumed,
    "run.gone-over": Ledger.gone_over,
    "run.closing": Ledger.closing,
    "run.ended": Ledger.ended,
    "run.rolled-back": Ledger.rolled_back,
    "run.aborted": Ledger.aborted,
}
