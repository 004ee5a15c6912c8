"""Signatures, rejections, changes, time and emergencies in any order, by anybody: what must hold is checked anew.

The check knows nothing of slots and digests: it goes through the history by itself and counts people.
"""

from contextlib import suppress
from datetime import timedelta
from itertools import permutations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.domain.scene import ANNA, AUDITOR, AUTHOR, BOTH, HA, OLGA, OTTO, REASON, Scene
from upgrades.domain import run
from upgrades.domain import run_events as e
from upgrades.domain.gates import digest_to_sign
from upgrades.domain.refusal import Refused
from upgrades.domain.run_events import WORKER, Actor, Recorded
from upgrades.domain.run_state import evolve, fold

DORA = Actor("7", "Dora", roles=("approver", "group:database"))
NED = Actor("8", "Ned", roles=("group:network", "operator"))
TESS = Actor("9", "Tess", roles=("group:database", "group:network"))
DEV = Actor("10", "Dev", roles=("auditor",), stands_for=(TESS, AUTHOR))
people = st.sampled_from([OLGA, OTTO, ANNA, BOTH, AUTHOR, AUDITOR, DORA, NED, TESS, DEV])

NEEDS = [
    [{"role": "approver", "signatures": 1}],
    [{"role": "approver", "signatures": 2}],
    [{"group": "database", "signatures": 1}, {"group": "network", "signatures": 1}],
    [{"role": "approver", "signatures": 1}, {"group": "database", "signatures": 1}],
]
STEP, GATE = "stop-old", "approval"


class AnyDecision(RuleBasedStateMachine):
    """The run stands before its point of no return, or some steps before it."""

    @initialize(
        needs=st.sampled_from(NEEDS),
        result=st.sampled_from(["", "lapse", "reject", "hold"]),
        ahead=st.booleans(),
        override=st.booleans(),
        early=st.booleans(),
    )
    def start(self, needs, result, ahead, override, early):
        policy = {"needs": needs, "ahead": ahead, "override": override}
        if result:
            policy["expires"] = {"after": 900, "result": result}
        self.needs = needs
        self.scene = Scene(policies={"point-of-no-return": policy})
        self.scene.go_to("replace-folder" if early else STEP)
        self.began = len(self.scene.history)

    def attempt(self, command, by):
        before = len(self.scene.history)
        try:
            self.scene.act(command, by)
        except Refused:
            assert len(self.scene.history) == before

    @property
    def seen(self):
        return {"step": STEP, "visit": self.scene.state.visit(STEP), "gate": GATE}

    def digest(self):
        step = HA.step(STEP)
        return digest_to_sign(HA, self.scene.state, step, step.gate(GATE))

    @rule(by=people, stale=st.booleans())
    def sign(self, by, stale):
        old = self.digest()
        if stale:
            self.change("8.5.999")
        self.attempt(run.Sign(**self.seen, digest=old), by)

    @rule(by=people)
    def reject(self, by):
        self.attempt(run.Reject(**self.seen, digest=self.digest(), reason=REASON), by)

    @rule(by=people)
    def ask_again(self, by):
        self.attempt(run.AskAgain(**self.seen, reason=REASON), by)

    @rule(value=st.sampled_from(["8.5.101", "8.5.102", "8.5.103"]))
    def change(self, value):
        self.scene.report(e.FactSet(name="target", value=value))

    @rule(minutes=st.sampled_from([1, 10, 16]))
    def time_goes_by(self, minutes):
        at = self.scene.history[-1].at + timedelta(minutes=minutes)
        for event in run.run_out(HA, self.scene.state, at):
            recorded = Recorded(len(self.scene.history) + 1, at, WORKER, event)
            self.scene.state = evolve(self.scene.state, recorded)
            self.scene.history.append(recorded)
        self.scene.worker()

    @rule(by=people, second=people)
    def emergency(self, by, second):
        self.attempt(run.AskOverride(**self.seen, reason=REASON), by)
        number = len(self.scene.state.deviations)
        self.attempt(run.SignDeviation(number=number, comment=REASON), second)

    @rule(by=people, resume=st.booleans())
    def hold(self, by, resume):
        self.attempt(run.Resume(reason=REASON) if resume else run.Hold(reason=REASON), by)

    @rule(by=people)
    def take(self, by):
        if self.scene.state.current:
            self.attempt(run.TakeStep(**self.scene.here, reason=REASON), by)

    @precondition(lambda self: self.scene.state.current == STEP)
    @rule(by=people)
    def begin(self, by):
        with suppress(Refused):
            self.scene.begin(by=by)

    @precondition(lambda self: self.scene.state.current not in (STEP, None))
    @rule()
    def go_on(self):
        if self.scene.state.steps.get(STEP) is None:
            with suppress(Refused):
                self.scene.satisfy()

    @invariant()
    def nothing_began_without_enough_people_or_a_recorded_override(self):
        if not hasattr(self, "scene"):
            return
        for place, recorded in enumerate(self.scene.history):
            if (
                place >= self.began
                and isinstance(recorded.event, e.StepBegun)
                and recorded.event.step == STEP
            ):
                self.check_beginning(self.scene.history[:place], recorded)

    def check_beginning(self, before, begun):
        emergency = self.emergency_in(before)
        if emergency:
            asked, agreed = emergency
            assert asked.id != agreed.id
            assert agreed.id not in self.workers(before)
            return
        signers = self.counted(before)
        slots = [
            need.get("role") or f"group:{need['group']}"
            for need in self.needs
            for _ in range(need["signatures"])
        ]
        assert any(
            all(of in signers[who] for of, who in zip(slots, order, strict=True))
            for order in permutations(signers, len(slots))
        ), f"{STEP} began with {signers}"
        assert not set(signers) & self.workers(before)
        assert begun.by.id not in signers

    def counted(self, before):
        """Signer -> rights, of those signatures that nothing has taken back."""
        signers = {}
        for recorded in before:
            event = recorded.event
            if isinstance(event, e.ApprovalSigned):
                signers[recorded.by.id] = set(event.for_roles or recorded.by.roles)
            elif isinstance(event, e.ApprovalLapsed):
                signers.pop(event.signer, None)
            elif isinstance(event, e.ApprovalExpired | e.ApprovalAsked | e.ApprovalRejected):
                signers.clear()
        return signers

    def workers(self, before):
        acts = (
            e.StepTaken,
            e.StepBegun,
            e.StepCompleted,
            e.GateConfirmed,
            e.EvidenceAttached,
            e.DeviationAsked,
        )
        found = {recorded.by.id for recorded in before if isinstance(recorded.event, acts)}
        return found | {self.scene.state.starter.id, AUTHOR.id}

    def emergency_in(self, before):
        asked = {}
        for recorded in before:
            event = recorded.event
            if isinstance(event, e.DeviationAsked) and event.what == "emergency":
                asked[event.number] = recorded.by
            elif isinstance(event, e.DeviationSigned) and event.number in asked:
                return asked[event.number], recorded.by
        return None

    @invariant()
    def time_alone_never_signs(self):
        if hasattr(self, "scene"):
            signed = [item for item in self.scene.history if isinstance(item.event, e.ApprovalSigned)]
            assert all(item.by.kind == "person" for item in signed)

    def teardown(self):
        if hasattr(self, "scene"):
            assert fold(self.scene.history) == self.scene.state


AnyDecision.TestCase.settings = settings(
    max_examples=40, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
TestAnyDecision = AnyDecision.TestCase
