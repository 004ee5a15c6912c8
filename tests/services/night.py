"""A night of upgrades: the HA run in the demo's environment, driven through the services by a whole team."""

import json
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event
from uuid import uuid4

from django.db import connection, connections, transaction
from django.forms.models import model_to_dict

from tests.factories import POLICIES, make_environment, make_user, proof_of, start
from tests.waiting import LIMIT, wait_for
from upgrades.adapters import event_store
from upgrades.domain import run as core
from upgrades.domain import run_events as e
from upgrades.domain.gates import shown_digest, verdict
from upgrades.domain.procedure import ApprovalGate
from upgrades.domain.run_state import fold
from upgrades.domain.verdict import Value
from upgrades.models import Agent, Application, Run
from upgrades.queries.procedures import procedure_of
from upgrades.services import projections, runs
from upgrades.services.rehearsal_crew import next_acts

REASON = "The window closes in ten minutes."
NOBODY = "http://127.0.0.1:9"  # the discard port: no agent answers there


class Night:
    """An environment, its people, and one run. No worker runs beside it: `advance` is the worker."""

    def __init__(self, policies=None, place="Production · Frankfurt", **changes):
        self.environment = make_environment(place, policies=POLICIES | (policies or {}))
        Agent.objects.filter(environment=self.environment).update(url=NOBODY)
        self.operator = make_user("operator", environment=self.environment, first_name="Olga")
        self.approver = make_user("approver", environment=self.environment, first_name="Anna")
        self.run = start(self.environment, self.operator, **changes)

    @classmethod
    def beside(cls, run, environment):
        """The team of a run that somebody else has started."""
        night = cls.__new__(cls)
        night.run, night.environment = run, environment
        return night

    # Looking.

    @property
    def row(self):
        return Run.objects.select_related("procedure", "environment").get(pk=self.run)

    @property
    def procedure(self):
        return procedure_of(self.row.procedure, self.state.started)

    @property
    def history(self):
        return event_store.load(self.run)

    @property
    def state(self):
        return fold(self.history)

    @property
    def kinds(self):
        return [recorded.event.kind for recorded in self.history]

    def verdict(self, step, gate):
        chosen = self.procedure.step(step)
        return verdict(self.procedure, self.state, chosen, chosen.gate(gate))

    def server(self, role):
        return Application.objects.get(environment=self.environment, name=self.state.application(role))

    def agent(self, role):
        return Agent.objects.get(host=self.server(role).host)

    # Acting.

    def act(self, command, by=None, command_id=None):
        by = by or self.operator
        return runs.act(
            run_id=self.run,
            command=command,
            by=by,
            command_id=command_id or uuid4(),
            proof=proof_of(by),
        )

    def advance(self):
        return runs.advance_run(self.run)

    def waits_for_signature(self):
        """Whether only a signature keeps the current step from beginning."""
        state, procedure = self.state, self.procedure
        step = procedure.step(state.current)
        shut = [gate for gate in step.needs if verdict(procedure, state, step, gate).value != Value.MET]
        return bool(shut) and all(isinstance(gate, ApprovalGate) for gate in shut)

    def visit(self, step):
        return self.state.steps[step].visit

    def confirm(self, gate, **changes):
        step = self.state.current
        return core.Confirm(
            **{"step": step, "visit": self.visit(step), "gate": gate, "answer": "pass"} | changes
        )

    def sign(self, **changes):
        """The signature of the current step's approval, as its page would send it now."""
        state, procedure = self.state, self.procedure
        step = procedure.step(state.current)
        digest = shown_digest(procedure, state, step, step.gate("approval"))
        values = {"step": step.id, "visit": self.visit(step.id), "gate": "approval", "digest": digest}
        return core.Sign(**values | changes)

    def answer_probes(self):
        """What the agents would say: everything that is asked is so."""
        for question in self.row.probes:
            step, visit, gate = question["step"], question["visit"], question["gate"]
            seen = e.ProbeAnswered(step=step, visit=visit, gate=gate, value="met", text="It is so.")
            runs.report(self.run, [seen])

    def go_to(self, step):
        """Carry the run on until it stands at `step`; a step that waits for a log is skipped by a deviation."""
        for _ in range(100):
            self.advance()
            state = self.state
            if state.current == step:
                return self
            self._turn(state)
        raise AssertionError(f"the run stands at {self.state.current}, not at {step}")

    def finish(self):
        """Carry the run on to its end; the approver takes over what stands open behind it."""
        for _ in range(100):
            self.advance()
            state = self.state
            if state.current is None:
                break
            self._turn(state)
        for burden in self.state.unowned:
            self.act(core.TakeOver(burden=burden.id, reason=REASON), self.approver)
        self.advance()
        assert self.state.is_over, self.state.status
        return self

    def _turn(self, state):
        self.answer_probes()
        acted = False
        for who, command in next_acts(self.procedure, self.state):
            self.act(command, self.operator if who == "operator" else self.approver)
            acted = True
        if not acted and self.state.current == state.current:
            self._pass_by(state.current)

    def _pass_by(self, step):
        asked = core.AskDeviation(step=step, visit=self.visit(step), what="skip", reason=REASON)
        self.act(asked)
        self.act(core.SignDeviation(number=len(self.state.deviations)), self.approver)


def rows(run_id):
    """Everything that the projections say of a run, as one text."""
    run = Run.objects.get(pk=run_id)
    found = {"run": model_to_dict(run, exclude=["version"])}
    for name in ("steps", "burdens", "requests"):
        there = [model_to_dict(row, exclude=["id"]) for row in getattr(run, name).all()]
        found[name] = sorted(there, key=lambda row: json.dumps(row, default=str))
    return json.dumps(found, default=str, sort_keys=True)


def check_every_run():
    """What must hold of each run at any time: its chain is sound, and its rows say what its events say."""
    for run_id in Run.objects.values_list("pk", flat=True):
        assert list(event_store.broken_links(run_id)) == []
        before = rows(run_id)
        projections.rebuild(run_id)
        assert rows(run_id) == before


def at_once(*acts):
    """Do all of `acts` in the same moment, each in a thread of its own; gives answers and exceptions in order."""
    barrier = Barrier(len(acts))

    def one(act):
        try:
            connections["default"].ensure_connection()
            barrier.wait()
            return act()
        except Exception as failure:
            return failure
        finally:
            connections.close_all()

    with ThreadPoolExecutor(len(acts)) as pool:
        return list(pool.map(one, acts))


def crossed(hold, act, ask):
    """What `act` and `ask` give where each may wait for the other: one transaction holds what `hold` takes, and asks for
    more once `act`, in another thread, waits for it."""
    held = Event()

    def one():
        with transaction.atomic():
            hold()
            held.set()
            wait_for(_somebody_waits_for_me)
            return ask()

    def other():
        held.wait(LIMIT)
        return act()

    return at_once(other, one)


def _somebody_waits_for_me():
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY (pg_blocking_pids(pid)))"
        )
        [found] = cursor.fetchone()
    return found
