"""A run on a stage: brought to any state by the real services; only the agents' answers are written by hand."""

from datetime import datetime, timedelta
from uuid import uuid4

from django.utils import timezone

from tests import factories
from upgrades.adapters import event_store
from upgrades.domain import run as core
from upgrades.domain import run_events as e
from upgrades.domain.gates import applies, shown_digest, verdict
from upgrades.domain.procedure import (
    ApprovalGate,
    ClientsGate,
    ConfirmGate,
    EventGate,
    EvidenceGate,
    ProbeGate,
)
from upgrades.domain.run_state import StepStatus, fold
from upgrades.models import Application, LogFile, LogLine, Run
from upgrades.queries.procedures import procedure_of
from upgrades.services import runs
from upgrades.services.simulated import environment_from_world

REASON = "The team looked at it together and agreed."
READY = {
    "launch-new": ("00-05060", "21-22911", "21-25301", "21-22170"),
    "start-remaining": ("00-05060", "21-22172"),
    "start-former": ("00-05060", "21-22172"),
}


class Stage:
    """An environment, its people, and one run that `reach` drives forward."""

    def __init__(self, **changes):
        self.environment = factories.make_environment(f"Production · Frankfurt {uuid4().hex[:4]}")
        self.operator = self.person("operator", "Nina", "Adler")
        self.second = self.person("operator", "Oskar", "Brandt")
        self.approver = self.person("approver", "Tomas", "Lindqvist")
        self.auditor = self.person("auditor", "Ruth", "Okafor")
        self.run_id = factories.start(self.environment, self.operator, **changes)

    @classmethod
    def beside(cls, run_id, environment):
        """The stage of a run that somebody else has started."""
        stage = cls.__new__(cls)
        stage.run_id, stage.environment = run_id, environment
        return stage

    def log_what_is_due(self):
        """What the server logs that the current step has started, once the step has begun."""
        state = self.state
        if state.current in READY and state.steps[state.current].status is StepStatus.BEGUN:
            gate = next(gate for gate in self.step.gates if isinstance(gate, EventGate))
            self.log(state.application(gate.rule.server), *READY[state.current])

    def person(self, role, first, last):
        name = f"{first.lower()}-{uuid4().hex[:6]}"
        return factories.make_user(
            role, environment=self.environment, name=name, first_name=first, last_name=last
        )

    @property
    def run(self):
        return Run.objects.select_related("procedure").get(pk=self.run_id)

    @property
    def procedure(self):
        return procedure_of(self.run.procedure)

    @property
    def state(self):
        return fold(event_store.load(self.run_id))

    @property
    def step(self):
        return self.procedure.step(self.state.current)

    @property
    def seen(self):
        """What a form on the page says about the current step."""
        state = self.state
        return {"step": state.current, "visit": state.steps[state.current].visit}

    def act(self, command, by=None):
        by = by or self.operator
        return runs.act(
            run_id=self.run_id, command=command, by=by, command_id=uuid4(), proof=factories.proof_of(by)
        )

    def advance(self):
        runs.advance_run(self.run_id)

    # What the agents saw.

    def log(self, application, *events, text="SYNTHETIC {}"):
        """The server logs `events`; the workers take them in."""
        owner = Application.objects.get(environment=self.environment, name=application)
        file, _ = LogFile.objects.get_or_create(
            application=owner, identity=f"dev1:{owner.pk}", name=f"{application}.log"
        )
        for event in events:
            place = LogLine.objects.filter(file=file).count()
            at = datetime(2026, 11, 24, 14, 2, 10) + timedelta(milliseconds=1370 * place)
            line = text.format(event)
            LogLine.objects.create(
                file=file,
                offset=file.cursor,
                length=80,
                kind=LogLine.Kind.EVENT,
                event=event,
                level="Standard",
                logged_at=at.isoformat(timespec="milliseconds"),
                text=line,
                raw=line.encode(),
                read_at=timezone.now(),
            )
            file.cursor += 80
            file.save(update_fields=["cursor"])
        self.advance()

    def gap(self, application, text="the file shrank"):
        owner = Application.objects.get(environment=self.environment, name=application)
        file = LogFile.objects.get(application=owner)
        LogLine.objects.create(
            file=file,
            offset=file.cursor,
            length=0,
            kind=LogLine.Kind.GAP,
            text=text,
            raw=b"",
            read_at=timezone.now(),
        )
        self.advance()

    def probe(self, gate, value="met"):
        step = self.step
        names = {
            "sections": ["confserv_b"],
            "start-name": "confserv_b",
            "application": "confserv_b",
            "reason": "",
        }
        if value == "failed":
            names["start-name"] = "confserv"
        answer = names if "names" in str(gate.probe) else {"state": "down"}
        text = "The agent looked and it is so." if value == "met" else "The three names differ. Correct -s."
        event = e.ProbeAnswered(
            step=step.id, visit=self.seen["visit"], gate=gate.id, value=value, text=text, answer=answer
        )
        runs.report(self.run_id, [event])

    # Driving.

    def reach(self, step_id, begun=False):
        """Carry the run out until it stands at `step_id`, or has begun it."""
        for _ in range(60):
            self.advance()
            state = self.state
            if state.current == step_id:
                if begun:
                    self.begin()
                return self
            self.carry_out()
        raise AssertionError(f"The run does not come to {step_id}; it stands at {self.state.current}.")

    def begin(self):
        state = self.state
        if state.current is None or state.steps[state.current].status is StepStatus.BEGUN:
            return
        self.fulfil(self.step.needs)
        state = self.state
        if state.steps[state.current].status is not StepStatus.BEGUN:
            self.act(core.Begin(**self.seen))

    def carry_out(self):
        """The current step from its beginning to its end."""
        self.begin()
        before = self.seen
        self.fulfil(self.step.gates)
        self.advance()
        if self.state.current == before["step"]:
            self.act(core.Complete(**before))

    def fulfil(self, gates):
        step = self.step
        for gate in gates:
            state = self.state
            if (
                state.current != step.id
                or not applies(gate, state)
                or verdict(self.procedure, state, step, gate).is_met
            ):
                continue
            match gate:
                case ConfirmGate() | ClientsGate():
                    self.act(
                        core.Confirm(**self.seen, gate=gate.id, answer="pass", text="Seen by two of us.")
                    )
                case EvidenceGate():
                    self.act(
                        core.Attach(
                            **self.seen, gate=gate.id, text="/backup/cfg_8130.dmp, 812 MB, sha256 9f2c"
                        )
                    )
                case ProbeGate():
                    self.probe(gate)
                case EventGate():
                    self.log(self.state.application(gate.rule.server), *READY[step.id])
                case ApprovalGate():
                    self.sign(gate)

    def digest(self, gate):
        return shown_digest(self.procedure, self.state, self.step, gate)

    def sign(self, gate, by=None):
        self.act(core.Sign(**self.seen, gate=gate.id, digest=self.digest(gate)), by or self.approver)

    def finish(self):
        """To the very end, with every exposure over."""
        self.reach("start-former").carry_out()
        self.advance()
        return self


def no_agents(monkeypatch):
    """Log positions come from what `Stage.log` has written, as no agent runs."""

    def marks(environment_id, names):
        files = LogFile.objects.filter(application__environment=environment_id, application__name__in=names)
        found = {name: {} for name in names}
        for file in files.select_related("application"):
            found[file.application.name][file.place] = file.cursor
        return found

    monkeypatch.setattr("upgrades.services.runs.take_watermarks", marks)


def rehearsed(monkeypatch):
    """A stage whose run is a rehearsal: on a copy of the environment, made without a simulator."""

    def copy(environment, **_):
        world = factories.frankfurt(world="w-rehearsal")
        return environment_from_world(world, name=environment.name, original=environment)

    monkeypatch.setattr("upgrades.services.starting.rehearsals.simulated_copy", copy)
    stage = Stage(rehearsal=True)
    stage.environment = stage.run.environment
    return stage


def closing():
    """A stage whose steps are all behind, with a duty that nobody has taken over."""
    stage = Stage().reach("launch-new")
    stage.advance()
    stage.log("confserv_b", "00-05060", "21-22902", "21-22172")
    assert stage.state.current == "close-compatible"
    stage.carry_out()
    return stage
