"""A run of the shipped HA procedure on a table: people, a worker and servers that act through the real commands.

Every event is checked when it is recorded: nothing begins or completes whose gates are not met when evaluated anew,
nobody who is barred signs, no run ends with a burden that nobody owns.
"""

from copy import copy
from datetime import UTC, datetime, timedelta

from upgrades.domain import run, run_events
from upgrades.domain.gates import shown_digest, verdicts
from upgrades.domain.procedure import (
    ApprovalGate,
    ClientsGate,
    ConfirmGate,
    EvidenceGate,
    ProbeGate,
)
from upgrades.domain.run_events import Actor, Bound, Recorded, RunStarted
from upgrades.domain.run_state import RunStatus, begin, evolve
from upgrades.procedures.loader import builtin, load

HA = next(load(text, name=str(path)) for path, text in builtin() if path.parent.name == "config-server-ha")

OLGA = Actor("1", "Olga", roles=("operator",))  # starts the runs
OTTO = Actor("2", "Otto", roles=("operator",))
ANNA = Actor("3", "Anna", roles=("approver",))
BOTH = Actor("4", "Bo", roles=("operator", "approver"))
AUTHOR = Actor("runbook", "Ruth", roles=("approver", "operator"))
AUDITOR = Actor("6", "Vic", roles=("auditor",))
PEOPLE = (OLGA, OTTO, ANNA, BOTH, AUTHOR, AUDITOR)

REASON = "because the window closes in ten minutes"
START = datetime(2026, 3, 1, 22, 0, tzinfo=UTC)
SERVERS = {"new": "confserv_b", "old": "confserv"}


def started(
    *,
    database_upgraded=False,
    old_version="8.1.3",
    target="8.5.101",
    policies=None,
    category="normal",
    **facts,
):
    bindings = {
        "new": Bound("confserv_b", "ConfigurationServer", "fra-cfg-02", old_version),
        "old": Bound("confserv", "ConfigurationServer", "fra-cfg-01", old_version),
    }
    known = {
        "target": target,
        "database-upgraded": database_upgraded,
        "keep-database-until": "2026-06-01" if database_upgraded else None,
        "environment.lca-current": True,
        "environment.scs-current": True,
        "environment.disaster-recovery": False,
    }
    for role, bound in bindings.items():
        known |= {
            role: bound.application,
            f"{role}.name": bound.application,
            f"{role}.host": bound.host,
            f"{role}.version": bound.version,
            f"{role}.type": bound.application_type,
            f"{role}.mode": {"new": "backup", "old": "primary"}[role],
        }
    return RunStarted(
        procedure=HA.id,
        procedure_version=HA.version,
        procedure_hash=HA.text_hash,
        title=HA.title,
        environment=1,
        environment_name="Frankfurt",
        rehearsal=False,
        bindings=bindings,
        facts=known | facts,
        policies=policies or {"point-of-no-return": {"role": "approver", "signatures": 1}},
        authors=list(HA.authors),
        category=category,
    )


class Scene:
    """A run and its history. Each act is followed by what the worker does next."""

    def __init__(self, procedure=HA, **start):
        self.procedure = procedure
        self.history = []
        self.state = None
        self.offsets = {}
        self.changes = 0
        self.record(run.start(procedure, started(**start)), OLGA)
        self.worker()

    def copy(self):
        """Another run that has come as far as this one."""
        other = copy(self)
        other.history, other.offsets = list(self.history), dict(self.offsets)
        return other

    # What happens.

    def record(self, events, by):
        for event in events:
            at = START + timedelta(seconds=len(self.history))
            recorded = Recorded(len(self.history) + 1, at, by, event)
            if self.state is None:
                self.state = begin(recorded)
            else:
                self.check(recorded)
                self.state = evolve(self.state, recorded)
            self.history.append(recorded)

    def worker(self):
        """Advance, and begin what needs only a mark in a log, until nothing follows any more."""
        while True:
            news = run.settle(self.procedure, self.state, START)
            self.record(news, run_events.WORKER)
            step = run.begins_with_watermark(self.procedure, self.state)
            if step is None:
                return
            self.record(self._begun(step), run_events.WORKER)

    def _marks(self, step):
        """Log positions and client totals as they are now: all 84 clients are on the old server."""
        counted = run.baselines_at(self.procedure, self.state, step)
        names = [*run.watched_at(self.state, step), *counted]
        marks = {name: {"log-1": self.offsets.get(name, 0)} for name in names}
        return marks, {name: 84 if name == SERVERS["old"] else 0 for name in counted}

    def _begun(self, step):
        marks, totals = self._marks(step)
        command = run.Begin(step=step.id, visit=self.visit, watermarks=marks, totals=totals)
        return run.decide(self.procedure, self.state, command, run_events.WORKER)

    def act(self, command, by=OLGA):
        events = run.decide(self.procedure, self.state, command, by)
        self.record(events, by)
        self.worker()
        return events

    def report(self, *events):
        self.record(
            run.decide(self.procedure, self.state, run.Report(events=events), run_events.WORKER),
            run_events.WORKER,
        )
        self.worker()

    # Where it stands.

    @property
    def step(self):
        return self.procedure.step(self.state.current) if self.state.current else None

    @property
    def visit(self):
        return self.state.steps[self.state.current].visit

    @property
    def here(self):
        return {"step": self.state.current, "visit": self.visit}

    def verdict(self, gate_id):
        return {gate.id: found for gate, found in self.open_gates()}[gate_id]

    def open_gates(self):
        return verdicts(self.procedure, self.state, self.step, self.step.all_gates)

    def kinds(self):
        return [recorded.event.kind for recorded in self.history]

    def events(self, kind):
        return [recorded.event for recorded in self.history if isinstance(recorded.event, kind)]

    def done(self):
        return [event.step for event in self.events(run_events.StepCompleted)]

    # People.

    def begin(self, by=OLGA):
        step = self.step
        marks, totals = self._marks(step)
        return self.act(run.Begin(**self.here, watermarks=marks, totals=totals), by)

    def complete(self, by=OLGA):
        return self.act(run.Complete(**self.here), by)

    def confirm(self, gate, answer="pass", by=OLGA):
        return self.act(run.Confirm(**self.here, gate=gate, answer=answer, text="seen by me"), by)

    def attach(self, gate, by=OLGA):
        return self.act(run.Attach(**self.here, gate=gate, text="/backup/cfg_8130.dmp, 4 GB"), by)

    def sign(self, gate="approval", by=ANNA):
        step = self.step
        digest = shown_digest(self.procedure, self.state, step, step.gate(gate))
        return self.act(run.Sign(**self.here, gate=gate, digest=digest), by)

    def restart(self, by=OLGA):
        return self.act(run.Restart(**self.here, reason=REASON), by)

    def resume(self, by=OLGA):
        return self.act(run.Resume(reason="looked into it"), by)

    def deviate(self, what, by=OLGA, second=ANNA, **fields):
        self.act(run.AskDeviation(**self.here, what=what, reason=REASON, **fields), by)
        return self.act(run.SignDeviation(number=len(self.state.deviations)), second)

    # Servers and agents.

    def probe(self, gate, value="met"):
        self.report(run_events.ProbeAnswered(**self.here, gate=gate, value=value, text=f"It is {value}."))

    def lines(self, role, *events):
        """What a worker would report of these log events, for every watch that reads this server now."""
        name = SERVERS[role]
        found = []
        for event in events:
            self.offsets[name] = offset = self.offsets.get(name, 0) + 80
            found += [
                self._line(watch, offset, event)
                for watch in run.active_watches(self.procedure, self.state)
                if watch.application == name and offset > watch.watermark["log-1"]
            ]
        return found

    def _line(self, watch, offset, event):
        place = {"watch": watch.id, "application": watch.application, "file": "log-1", "offset": offset}
        if event in ("gap", "unreadable"):
            return run_events.LogDoubtful(**place, doubt=event, text=f"{event} at {offset}")
        return run_events.LogEventSeen(
            **place,
            event=event,
            level="Std",
            logged_at="2026-03-01T22:00:00",
            text=f"(synthetic text of {event})",
            line_sha256="0" * 64,
        )

    def see(self, role, *events):
        self.report(*self.lines(role, *events))

    def end_of(self, role):
        self.changes += 1
        self.report(
            *(
                run_events.ServerEnded(
                    watch=watch.id, application=watch.application, change=self.changes, text="process gone"
                )
                for watch in run.active_watches(self.procedure, self.state)
                if watch.application == SERVERS[role]
            )
        )

    def total(self, role, total):
        name = SERVERS[role]
        self.offsets[name] = self.offsets.get(name, 0) + 80
        self.report(
            run_events.ClientTotalSeen(application=name, total=total, file="log-1", offset=self.offsets[name])
        )

    # The ordinary course.

    def satisfy(self):
        """Do for the current step what people and agents do when all is well; events of servers are left out."""
        where = (self.state.current, self.visit)
        for gate, found in self.open_gates():
            if (self.state.current, self.visit) != where or self.state.is_over:
                return
            if found.is_met:
                continue
            if gate in self.step.gates and self.state.steps[self.state.current].begun_at is None:
                self.begin()
            match gate:
                case ConfirmGate():
                    self.confirm(gate.id)
                case EvidenceGate():
                    self.attach(gate.id)
                case ProbeGate():
                    self.probe(gate.id)
                case ApprovalGate():
                    for person in (ANNA, BOTH):
                        if not self.verdict(gate.id).is_met:
                            self.sign(gate.id, by=person)
                case ClientsGate():
                    self.total(gate.leaving, 0)
                    self.total(gate.joining, 84)
        if (self.state.current, self.visit) == where and not self.step.event_gates:
            self.complete()

    def go_to(self, step, visit=1):
        """Carry the run on until it stands at `step`; the servers do what they do in the ordinary course."""
        while (self.state.current, self.visit) != (step, visit):
            self.satisfy()
            if self.state.current in ORDINARY and (self.state.current, self.visit) != (step, visit):
                upgraded = self.state.facts["database-upgraded"]
                self.see(*ORDINARY[self.state.current](upgraded))
                if self.state.current == "start-former":
                    self.satisfy()
        return self

    def finish(self):
        """Carry the run to its end; what is owed then is taken over by Anna."""
        self.do_all_steps()
        for burden in self.state.unowned:
            self.act(run.TakeOver(burden=burden.id, reason=REASON), ANNA)
        return self

    def do_all_steps(self):
        """Carry the run behind its last step."""
        while self.state.current is not None:
            if self.state.current in ORDINARY:
                self.see(*ORDINARY[self.state.current](self.state.facts["database-upgraded"]))
                if self.state.current == "start-former":
                    self.confirm("read-only-off")
                    self.complete()
            else:
                self.satisfy()

    # What must be so, whatever happens.

    def check(self, recorded):
        event, state = recorded.event, self.state
        match event:
            case run_events.StepBegun(step=step_id):
                self._all_met(self.procedure.step(step_id), "needs")
            case run_events.StepCompleted(step=step_id):
                self._all_met(self.procedure.step(step_id), "gates")
            case run_events.ApprovalSigned() | run_events.DeviationSigned():
                assert run.barred(state, recorded.by.id) == "", f"{recorded.by.name} signs"
                assert recorded.by.kind == "person"
                asked = state.deviations.get(getattr(event, "number", 0))
                if asked is None or not asked.is_emergency:
                    groups = {role for role in recorded.by.roles if role.startswith("group:")}
                    assert "approver" in recorded.by.roles or groups or event.for_id
            case run_events.RunEnded() | run_events.RunAborted():
                assert state.unowned == ()
        if recorded.by.kind == "person" and isinstance(
            event, run_events.StepBegun | run_events.StepCompleted
        ):
            signers = {
                signed.by.id
                for gate in self.procedure.step(event.step).needs
                for signed in state.gate(event.step, gate.id).signatures
                if signed.by.id not in state.gate(event.step, gate.id).lapsed
            }
            assert recorded.by.id not in signers

    def _all_met(self, step, which):
        closed = [
            (gate.id, found)
            for gate, found in verdicts(self.procedure, self.state, step, getattr(step, which))
            if not found.is_met
        ]
        assert closed == [], f"{step.id} went on with closed gates"
        assert self.state.status is RunStatus.RUNNING


ORDINARY = {
    "launch-new": lambda upgraded: (
        "new",
        "00-05060",
        "21-22911",
        "21-25301",
        "21-25302",
        "21-22902",
        "21-22171" if upgraded else "21-22170",
    ),
    "start-remaining": lambda _: ("old", "00-05060", "21-22911", "21-22902", "21-22172"),
    "start-former": lambda _: ("new", "00-05060", "21-22911", "21-22902", "21-22172"),
}
