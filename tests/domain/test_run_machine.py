"""Anything in any order: random people, servers and agents at the shipped HA procedure.

What must hold is checked by the scene itself at every single event; here stands only what may happen.
"""

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.domain.scene import HA, PEOPLE, REASON, Scene
from upgrades.domain import run, run_events
from upgrades.domain.gates import shown_digest, verdicts
from upgrades.domain.procedure import ApprovalGate
from upgrades.domain.refusal import Refused
from upgrades.domain.run_state import RunStatus, fold

STEPS = [step.id for step in HA.steps]
GATES = sorted({gate.id for step in HA.steps for gate in step.all_gates})
EVENTS = sorted(
    {event for step in HA.steps for gate in step.event_gates for event in gate.rule.numbers} | {"00-05060"}
)
VALUES = st.sampled_from(["met", "met", "failed", "cannot-tell"])
AHEAD = [
    *("prerequisites", "replace-folder", "launch-new", "stop-old", "start-remaining", "start-former"),
    *("compatible", "behind"),
]
people = st.sampled_from(PEOPLE)


class AnyRun(RuleBasedStateMachine):
    """One run; each rule is an attempt, and a refusal is a good answer."""

    refused_without_change = True

    def __init__(self):
        super().__init__()
        self.refusals = []

    @initialize(
        upgraded=st.booleans(),
        version=st.sampled_from(["8.1.3", "8.5.100"]),
        signatures=st.sampled_from([0, 1, 1, 2]),
        recovery=st.booleans(),
        ahead=st.sampled_from(AHEAD),
    )
    def start(self, upgraded, version, signatures, recovery, ahead):
        self.scene = Scene(
            database_upgraded=upgraded,
            old_version=version,
            policies={"point-of-no-return": {"role": "approver", "signatures": signatures}},
            **{"environment.disaster-recovery": recovery},
        )
        if ahead == "behind":
            self.scene.do_all_steps()
        elif ahead == "compatible":
            self.scene.go_to("launch-new")
            self.scene.see("new", "21-22911", "21-22902", "21-22172")
        else:
            self.scene.go_to(ahead)

    def attempt(self, act, *args, **kwargs):
        before = len(self.scene.history)
        try:
            act(*args, **kwargs)
        except Refused as refusal:
            self.refusals.append(refusal)
            self.refused_without_change = len(self.scene.history) == before

    def going(self):
        return self.scene.state.current is not None and not self.scene.state.is_over

    # People.

    @precondition(going)
    @rule(by=people)
    def begin(self, by):
        self.attempt(self.scene.begin, by=by)

    @precondition(going)
    @rule(by=people)
    def complete(self, by):
        self.attempt(self.scene.complete, by=by)

    @rule(by=people, step=st.sampled_from(STEPS), visit=st.integers(1, 3))
    def act_on_any_step(self, by, step, visit):
        self.attempt(self.scene.act, run.Begin(step=step, visit=visit), by)
        self.attempt(self.scene.act, run.Complete(step=step, visit=visit), by)

    @precondition(going)
    @rule(
        by=people,
        gate=st.sampled_from(GATES),
        answer=st.sampled_from(["pass", "pass", "fail", "not-tested", "?"]),
    )
    def confirm(self, by, gate, answer):
        self.attempt(self.scene.confirm, gate, answer, by=by)

    @precondition(going)
    @rule(by=people, gate=st.sampled_from([*GATES, ""]))
    def attach(self, by, gate):
        self.attempt(self.scene.attach, gate, by=by)

    @precondition(going)
    @rule(by=people, stale=st.booleans(), reject=st.booleans())
    def sign(self, by, stale, reject):
        for gate in self.scene.step.needs:
            if isinstance(gate, ApprovalGate):
                digest = "0" * 64 if stale else shown_digest(HA, self.scene.state, self.scene.step, gate)
                given = {**self.scene.here, "gate": gate.id, "digest": digest}
                command = run.Reject(**given, reason=REASON) if reject else run.Sign(**given)
                self.attempt(self.scene.act, command, by)

    @precondition(going)
    @rule(
        by=people,
        second=people,
        what=st.sampled_from(["skip", "override", "doubt", "?"]),
        gate=st.sampled_from(GATES),
        sign=st.booleans(),
        data=st.data(),
    )
    def deviate(self, by, second, what, gate, sign, data):
        doubts = [r.seq for r in self.scene.history if isinstance(r.event, run_events.LogDoubtful)]
        doubt = data.draw(st.sampled_from([0, *doubts]))
        own = [one.id for one in self.scene.step.all_gates] or [gate]
        gate = data.draw(st.sampled_from([gate, *own]))
        command = run.AskDeviation(**self.scene.here, what=what, reason=REASON, gate=gate, doubt=doubt)
        self.attempt(self.scene.act, command, by)
        number = len(self.scene.state.deviations)
        answer = (
            run.SignDeviation(number=number) if sign else run.RejectDeviation(number=number, reason=REASON)
        )
        self.attempt(self.scene.act, answer, second)

    @rule(by=people, number=st.integers(1, 3), sign=st.booleans())
    def decide_a_deviation_late(self, by, number, sign):
        command = (
            run.SignDeviation(number=number) if sign else run.RejectDeviation(number=number, reason=REASON)
        )
        self.attempt(self.scene.act, command, by)

    @precondition(going)
    @rule(by=people)
    def restart(self, by):
        self.attempt(self.scene.restart, by=by)

    @rule(by=people, resume=st.booleans())
    def hold_or_resume(self, by, resume):
        command = run.Resume(reason=REASON) if resume else run.Hold(reason=REASON)
        self.attempt(self.scene.act, command, by)

    @rule(by=people, data=st.data(), close=st.booleans())
    def carry_a_burden(self, by, data, close):
        burden = data.draw(st.sampled_from([*sorted(self.scene.state.burdens), "exposure:none"]))
        command = (
            run.CloseBurden(burden=burden, text="done now")
            if close
            else run.TakeOver(burden=burden, reason=REASON)
        )
        self.attempt(self.scene.act, command, by)

    @rule(by=people, really=st.integers(0, 9))
    def abort(self, by, really):
        if really == 0:  # seldom: an aborted run has nothing more to show
            self.attempt(self.scene.act, run.Abort(reason=REASON), by)

    # Servers and agents.

    @rule(
        role=st.sampled_from(["new", "old"]),
        events=st.lists(st.sampled_from([*EVENTS, "gap", "unreadable"]), min_size=1, max_size=5),
    )
    def log(self, role, events):
        lines = self.scene.lines(role, *events)
        self.scene.report(*lines)
        before = len(self.scene.history)
        self.scene.report(*lines)
        assert len(self.scene.history) == before, "what was reported is no news"

    @rule(role=st.sampled_from(["new", "old"]))
    def end_of_server(self, role):
        self.scene.end_of(role)

    @precondition(going)
    @rule(gate=st.sampled_from(GATES), value=VALUES)
    def probe(self, gate, value):
        self.scene.probe(gate, value)

    @rule(role=st.sampled_from(["new", "old"]), total=st.sampled_from([0, 40, 84]))
    def total(self, role, total):
        self.scene.total(role, total)

    @rule(host=st.sampled_from(["fra-cfg-01", "fra-cfg-02"]), back=st.booleans())
    def agent(self, host, back):
        event = run_events.AgentBack(host=host) if back else run_events.AgentLost(host=host, reason="silence")
        self.scene.report(event)

    @rule(
        name=st.sampled_from(["environment.lca-current", "environment.scs-current"]),
        value=st.sampled_from([True, True, False, None]),
    )
    def fact(self, name, value):
        self.scene.report(run_events.FactSet(name=name, value=value))

    # The ordinary course, so that runs come far.

    @precondition(going)
    @rule()
    def do_the_step(self):
        self.attempt_all(self.scene.satisfy)

    def attempt_all(self, act):
        try:
            act()
        except Refused as refusal:
            self.refusals.append(refusal)

    @precondition(lambda self: self.going() and bool(self.scene.step.event_gates))
    @rule(upgraded=st.booleans())
    def initialize_well(self, upgraded):
        role = self.scene.step.event_gates[0].rule.server
        if self.scene.state.current == "launch-new":
            self.scene.see(role, "21-22911", "21-25301", "21-22171" if upgraded else "21-22170")
        else:
            self.scene.see(role, "21-22172")

    # What must hold.

    @invariant()
    def a_refusal_explains_itself_and_changes_nothing(self):
        assert self.refused_without_change
        assert all(refusal.message for refusal in self.refusals)
        self.refusals.clear()

    @invariant()
    def nothing_more_follows_by_itself(self):
        if hasattr(self, "scene"):
            assert run.advance(HA, self.scene.state) == []

    @invariant()
    def verdicts_can_be_asked_at_any_time(self):
        if hasattr(self, "scene"):
            for step in HA.steps:
                for _, found in verdicts(HA, self.scene.state, step, step.all_gates):
                    assert found.reason

    @invariant()
    def an_ended_run_has_passed_through_an_end(self):
        if hasattr(self, "scene") and self.scene.state.status is RunStatus.ENDED:
            assert self.scene.state.ending in {"completed", "compatible"}
            assert self.scene.events(run_events.RunClosing)

    def teardown(self):
        if hasattr(self, "scene"):
            assert fold(self.scene.history) == self.scene.state


AnyRun.TestCase.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestAnyRun = AnyRun.TestCase
