"""One seeded walk: a run of a shipped procedure among people, servers, agents and faults, on virtual time.

The same seed gives the same walk. When its faults are over, a crew brings the run to an end.
"""

import hashlib
import json
import random
from datetime import UTC, datetime, timedelta

from tests.simulation import casts, people
from tests.simulation.desk import Desk
from tests.simulation.world import World
from upgrades.domain import run as core
from upgrades.domain import run_events as e
from upgrades.domain.condition import holds
from upgrades.domain.event_rule import APPLICATION_STARTED
from upgrades.domain.exposure import marks_due
from upgrades.domain.gates import digest_to_sign, policy_of, verdict, verdicts
from upgrades.domain.policy import only_holder_acts
from upgrades.domain.procedure import (
    ApprovalGate,
    CheckGate,
    ClientsGate,
    ConfirmGate,
    EventGate,
    EvidenceGate,
    GoOn,
    ProbeGate,
    WayBackGate,
)
from upgrades.domain.run_events import GAPS, WORKER
from upgrades.domain.run_state import RunStatus, StepStatus

START = datetime(2026, 3, 1, 22, 0, tzinfo=UTC)
REASON = "because the window closes in ten minutes"
DAY = 86_400
MOST = 400  # acts of the crew; a run that is not over then never ends
CLIENTS = 84


def history_hash(tale):
    """One value for the whole history of a walk."""
    return hashlib.sha256(json.dumps(tale, sort_keys=True).encode()).hexdigest()


class Walk:
    """`skewed`: the clocks of the hosts are off by up to a day either way; nothing else differs."""

    def __init__(self, seed, *, name=None, skewed=False):
        self.seed = seed
        self.rng = random.Random(f"walk {seed}")
        self.name = name or casts.NAMES[seed % len(casts.NAMES)]
        clocks = random.Random(f"clocks {seed}")
        skews = (-DAY, -3600, -2, 0, 2, 3600, DAY)
        self.world = World(lambda _host: clocks.choice(skews) if skewed else 0)
        self.skews = {}
        self.at = START
        self.desk = Desk(lambda: self.at)
        self.trouble = self.rng.choice((0.15, 0.3, 0.45, 0.7))
        self.crashes = self.rng.choice((0, 0.02, 0.08))
        self.turns = self.rng.choice((20, 40, 60, 90))
        self.faults = True
        self.worker_away = 0
        self.count = 0
        self.unanswered = []
        self.taken = {}  # watch -> rows that a worker has handed over
        self.scripts = {}  # event gate -> what its server is going to log
        self.late = {}  # watch -> what is handed over behind what stands after it
        self.ended = []  # (server, number, when)
        self.looks = {}
        self.tried = {}

    # The whole walk.

    def play(self):
        """The tale of the walk, as the checker reads it."""
        cast = casts.cast_for(self.name, self.rng)
        started = casts.started_with(self.name, cast, self.rng)
        self.open(started, self.rng.choice(people.OPERATORS))
        for _ in range(self.turns):
            if self.run.state.is_over:
                break
            self.tick()
            self.turn()
        self.calm_down()
        for _ in range(MOST):
            if self.run.state.is_over:
                break
            self.tick()
            self.crew()
        for run in self.desk.runs:
            self.desk.crash(run)
        return {
            "seed": self.seed,
            "procedure": self.name,
            **self.desk.told(),
            "truth": self.world.truth(),
        }

    def open(self, started, by, first=()):
        for bound in started.bindings.values():
            self.world.add(bound.application, bound.host)
        self.environment = {
            name: value for name, value in started.facts.items() if name.startswith("environment.")
        }
        self.run = self.desk.open(started, by, first)
        self.worker()

    def tick(self):
        seconds = self.rng.choice((1, 5, 20, 60, 300)) if self.rng.random() < 0.97 else 4 * 3600
        self.at += timedelta(seconds=seconds)

    def turn(self):
        if self.rng.random() < self.trouble:
            self.rng.choice(_MISCHIEF)(self)
        else:
            self.go_on(people.OPERATORS, (people.ANNA, people.BO, people.DORA, people.TESS, people.DEV))
        if self.worker_away:
            self.worker_away -= 1
        else:
            self.worker()

    def calm_down(self):
        """The faults stop: agents answer, nobody is away, what was not answered is asked again."""
        self.faults, self.worker_away, self.crashes = False, 0, 0
        self.world.silent.clear()
        for name, value in self.environment.items():
            if name.endswith("-current") and value is not True:
                self.environment[name] = True
                self.world.facts.append([name, True])
        for command, by, number in self.unanswered:
            self.desk.send(self.run, command, by, number)
        self.worker()

    # Where it stands.

    @property
    def state(self):
        return self.run.state

    @property
    def step(self):
        current = self.state.current
        return self.run.procedure.step(current) if current is not None else None

    @property
    def here(self):
        return {"step": self.state.current, "visit": self.state.visit(self.state.current)}

    def open_gates(self):
        """The gates to see to now: before the step begins what it needs, afterwards what completes it."""
        step = self.step
        begun = self.state.steps[step.id].status is StepStatus.BEGUN
        found = verdicts(self.run.procedure, self.state, step, step.gates if begun else step.needs)
        return [gate for gate, verdict_ in found if not verdict_.is_met]

    # Acting.

    def send(self, command, by):
        self.count += 1
        number = f"{self.run.number}-{self.count}"
        crash = ""
        if self.faults and self.rng.random() < self.crashes:
            crash = self.rng.choice(("before", "after"))
        done = self.desk.send(self.run, command, by, number, crash=crash)
        if done is None:
            self.taken.clear()
            if self.rng.random() < 0.6:  # the browser sends the form again
                return self.desk.send(self.run, command, by, number)
            self.unanswered.append((command, by, number))
        return done

    # Workers.

    def worker(self):
        """What a worker does in a look: take in what agents say, and begin what needs only a mark in a log."""
        for _ in range(20):
            before = self.state.seq
            crash = ""
            if self.faults and self.rng.random() < self.crashes:
                crash = self.rng.choice(("before", "after"))
            items = self.seen()
            self.desk.report(self.run, items, crash=crash)
            if crash:
                self.taken.clear()
                continue
            if self.state.is_over:
                return
            step = core.begins_with_watermark(self.run.procedure, self.state)
            if step is not None:
                self.begin_watched(step)
            if self.state.seq == before:
                return

    def begin_watched(self, step):
        command = self.begin_command(step)
        events = self.state.seq
        self.desk.send(self.run, command, WORKER)
        return self.state.seq != events

    def begin_command(self, step):
        watched = core.watched_at(self.state, step)
        counted = core.baselines_at(self.run.procedure, self.state, step)
        for server in counted:  # what the servers count at debug level
            if server not in {line["server"] for line in self.world.lines if line["kind"] == "total"}:
                self.world.write(server, kind="total", total=CLIENTS if server == counted[0] else 0)
                self.world.hand_over(server)
        totals = {name: self.world.last_total(name) for name in counted}
        return core.Begin(
            **self.here,
            watermarks=self.world.marks([*watched, *counted]),
            totals={name: total for name, total in totals.items() if total is not None},
        )

    def seen(self):
        """What the worker finds, as the services look it up, and what goes wrong on the way."""
        items = []
        for server in self.world.logs:
            self.world.hand_over(server, self.rng.choice((None, None, 1, 2)) if self.faults else None)
        for watch in core.active_watches(self.run.procedure, self.state):
            items += self.lines_for(watch)
            items += [
                e.ServerEnded(watch=watch.id, application=server, change=number, text="its process is gone")
                for server, number, when in self.ended
                if server == watch.application and self.begun_before(watch, when)
            ]
        items += self.totals()
        for host in sorted({bound.host for bound in self.state.started.bindings.values()}):
            why = self.world.silent.get(host)
            items.append(e.AgentLost(host=host, reason=why) if why else e.AgentBack(host=host))
        items += [
            e.FactSet(name=name, value=value)
            for name, value in self.environment.items()
            if name in self.state.facts and self.state.facts[name] != value
        ]
        if not self.state.is_over:
            items += marks_due(self.run.procedure, self.state, self.at)
            items += self.probes()
        return items

    def begun_before(self, watch, when):
        step = watch.id.partition("#")[0]
        begun = self.state.steps[step].begun_at
        return begun is not None and begun < when

    def lines_for(self, watch):
        log = self.world.logs[watch.application]
        key = (self.run.number, watch.id)
        first = self.taken.get(key, 0)
        if self.faults and self.rng.random() < 0.1:
            first = 0  # read again from the start
        items = []
        for row in log.rows[first:]:
            if row["kind"] == "gap":
                if row["number"] > watch.watermark.get(GAPS, 0) and not watch.settled:
                    items.append(self.doubt(watch, row, "gap", row["offset"]))
            elif row["offset"] >= watch.watermark.get(row["file"], 0):
                if row["kind"] == "unreadable" and not watch.settled:
                    items.append(self.doubt(watch, row, "unreadable", row["offset"]))
                elif row["kind"] == "event" and row["event"] in watch.events:
                    items.append(self.line(watch, row))
        self.taken[key] = len(log.rows)
        return self.disturbed(watch, items) if self.faults else items

    def disturbed(self, watch, items):
        """Duplicates, another order within a file, lines from before the mark, lines of another server."""
        late = self.late.pop(watch.id, [])
        chance = self.rng.random()
        if len(items) > 1 and chance < 0.3:  # one of them comes behind the others, or a look later
            held_back = items.pop(self.rng.randrange(len(items) - 1))
            if chance < 0.15:
                items.append(held_back)
            else:
                self.late[watch.id] = [held_back]
                self.world.late.append([held_back.application, held_back.file, held_back.offset])
            return [*items, *late]
        items = [*items, *late]
        if chance < 0.08:
            items = [*items, *items]
        elif chance < 0.16:
            files = list(dict.fromkeys(item.file for item in items))
            parts = [[item for item in items if item.file == file] for file in files]
            items = [item for part in parts for item in self.rng.sample(part, len(part))]
        elif chance < 0.24:
            stale = [
                line
                for line in self.world.lines
                if line["server"] == watch.application
                and line["kind"] == "event"
                and line["event"] in watch.events
                and line["offset"] < watch.watermark.get(line["file"], 0)
            ]
            items = [*(self.line(watch, line) for line in stale[-4:]), *items]
        elif chance < 0.32:
            others = [
                line
                for line in self.world.lines
                if line["server"] != watch.application and line["event"] in watch.events
            ]
            items = [*items, *(self.line(watch, line) for line in others[-4:])]
        return items

    def line(self, watch, row):
        host = self.world.logs[row["server"]].host
        if host not in self.skews:
            self.skews[host] = timedelta(seconds=self.world.clocks(host))
        return e.LogEventSeen(
            watch=watch.id,
            application=row["server"],
            file=row["file"],
            offset=row["offset"],
            event=row["event"],
            level="Std",
            logged_at=(self.at + self.skews[host]).replace(tzinfo=None).isoformat(),
            text=f"(synthetic text of {row['event']})",
            line_sha256="0" * 64,
        )

    def doubt(self, watch, row, kind, offset):
        return e.LogDoubtful(
            watch=watch.id,
            application=row["server"],
            doubt=kind,
            file=row["file"],
            offset=offset,
            text=f"{kind} at {offset}",
        )

    def totals(self):
        items = []
        for name in core.watched_totals(self.run.procedure, self.state):
            rows = [row for row in self.world.logs[name].rows if row["kind"] == "total"]
            seen = [
                e.ClientTotalSeen(
                    application=name, total=row["total"], file=row["file"], offset=row["offset"]
                )
                for row in rows
            ]
            seen = [
                one for one in seen if core.is_behind_baseline(self.run.procedure, self.state, one)
            ]  # fmt: skip
            items += seen[-1:]
            if self.faults and len(seen) > 1 and self.rng.random() < 0.2:
                items.append(seen[-2])  # late
        return items

    def probes(self):
        """What agents answer for the step at hand; wrong at first now and then."""
        step = self.step
        if step is None or self.state.status not in (RunStatus.RUNNING, RunStatus.HELD):
            return []
        items = []
        begun = self.state.steps[step.id].status is StepStatus.BEGUN
        for gate in step.gates if begun else step.needs:
            if not isinstance(gate, ProbeGate) or self.state.host(gate.server) in self.world.silent:
                continue
            key = (self.run.number, step.id, self.here["visit"], gate.id)
            if key not in self.looks:
                self.looks[key] = self.rng.choice((0, 1, 1, 2, 3))
            self.looks[key] -= 1
            value = "met"
            if self.looks[key] >= 0 or (self.faults and self.rng.random() < 0.1):
                value = self.rng.choice(("failed", "failed", "cannot-tell"))
            self.world.answer(*key, value)
            items.append(e.ProbeAnswered(**self.here, gate=gate.id, value=value, text=f"It is {value}."))
        return items

    # The ordinary course.

    def operator(self, able):
        """Somebody who may carry the step out: no signer of it, and its holder where only that one acts."""
        at = self.state.steps[self.state.current]
        signers = {
            signed.by.id
            for gate in self.step.needs
            for signed in self.state.gate(self.step.id, gate.id).signatures
        }
        fit = [one for one in able if one.id not in signers] or list(able)
        if self.faults and self.rng.random() < 0.2:
            return self.rng.choice(able)
        if at.holder is not None and at.holder.id not in signers:
            holder = next((one for one in (*people.PEOPLE, people.ZITA) if one.id == at.holder.id), None)
            if holder in able or (holder is not None and only_holder_acts(self.state.started.policies)):
                return holder
        return self.rng.choice(fit)

    def go_on(self, operators, signers):
        """One act of the ordinary course."""
        if self.state.current is None:
            if self.state.status is RunStatus.HELD:
                self.send(core.Resume(reason="looked into it"), self.rng.choice(operators))
            burdens = [burden.id for burden in self.state.unowned]
            if burdens:
                self.send(core.TakeOver(burden=burdens[0], reason=REASON), self.rng.choice(signers))
            return
        by = self.operator(operators)
        if self.state.status is RunStatus.HELD and not (self.faults and self.rng.random() < 0.4):
            self.send(core.Resume(reason="looked into it"), by)
            return
        gates = self.open_gates()
        at = self.state.steps[self.state.current]
        if not gates:
            if at.status is StepStatus.CURRENT:
                self.send(self.begin_command(self.step), by)
            else:
                self.send(core.Complete(**self.here), by)
            return
        self.see_to(self.rng.choice(gates) if self.faults else gates[0], by, signers)

    def see_to(self, gate, by, signers):
        match gate:
            case ConfirmGate():
                self.send(core.Confirm(**self.here, gate=gate.id, answer="pass", text="seen by me"), by)
            case EvidenceGate():
                self.send(self.attaching(gate), by)
            case ApprovalGate():
                self.sign(gate, by, signers)
            case EventGate():
                self.serve(gate, by)
            case ClientsGate():
                self.move_clients(gate, by)
            case CheckGate() | WayBackGate() | ProbeGate():
                if not self.faults:
                    self.unblock(gate, by, signers)

    def attaching(self, gate):
        if "file" in gate.accepts and self.rng.random() < 0.4:
            return core.Attach(
                **self.here, gate=gate.id, name="copy.dmp", sha256="a1" * 32, size=4096, evidence=1
            )
        return core.Attach(**self.here, gate=gate.id, text="/backup/cfg_8130.dmp, 4 GB")

    def sign(self, gate, by, signers):
        recorded = self.state.gate(self.state.current, gate.id)
        if recorded.rejection is not None or recorded.expired is not None:
            self.send(core.AskAgain(**self.here, gate=gate.id, reason=REASON), by)
            return
        digest = digest_to_sign(self.run.procedure, self.state, self.step, gate)
        signed = {one.by.id for one in recorded.signatures} - recorded.lapsed
        left = [one for one in signers if one.id not in signed] or list(signers)
        self.send(core.Sign(**self.here, gate=gate.id, digest=digest), self.rng.choice(left))

    def move_clients(self, gate, by):
        leaving, joining = self.state.application(gate.leaving), self.state.application(gate.joining)
        if self.rng.random() < 0.2:
            text = "each of them shows its reconnection"
            self.send(core.Confirm(**self.here, gate=gate.id, answer="pass", text=text), by)
            return
        share = self.rng.choice((0, 40, CLIENTS)) if self.faults else 0
        self.world.write(leaving, kind="total", total=share)
        self.world.write(joining, kind="total", total=CLIENTS + 5 - share)
        if not self.faults and not self.marked(gate):
            text = "each of them shows its reconnection"
            self.send(core.Confirm(**self.here, gate=gate.id, answer="pass", text=text), by)

    def marked(self, gate):
        base = self.state.steps.get(gate.baseline)
        leaving, joining = self.state.application(gate.leaving), self.state.application(gate.joining)
        return base is not None and leaving in base.totals and {leaving, joining} <= set(base.watermarks)

    def serve(self, gate, by):
        """The server logs on, along one of the outcomes that its rule knows; when it has nothing more, it starts anew."""
        key = (self.run.number, self.state.current, self.here["visit"], gate.id)
        if key not in self.scripts:
            self.scripts[key] = self.script(gate)
        script = self.scripts[key]
        server = self.state.application(gate.rule.server)
        if not script:
            if not self.state.gate(self.state.current, gate.id).observations and self.faults:
                return
            self.send(core.Restart(**self.here, reason=REASON), by)
            return
        for _ in range(self.rng.randint(1, 3) if self.faults else len(script)):
            if script:
                self.world.write(server, script.pop(0))

    def script(self, gate):
        """Events that lead to one of the outcomes, most of the time one that goes on, with others among them."""
        facts = self.state.steps[self.state.current].facts or self.state.facts
        able = [one for one in gate.rule.outcomes if one.when is None or holds(one.when, facts) is True]
        onward = [one for one in able if isinstance(one.follow, GoOn)]
        outcome = self.rng.choice(onward if self.rng.random() < (0.6 if self.faults else 0.9) else able)
        events = [APPLICATION_STARTED] if self.rng.random() < 0.8 else []
        numbers = sorted(gate.rule.numbers)
        normal = sorted(dict(gate.rule.normal))
        for station in outcome.events:
            if normal and self.rng.random() < 0.4:
                events += [self.rng.choice(normal)] * self.rng.randint(1, 3)
            if self.faults and self.rng.random() < 0.08:
                events.append(self.rng.choice(numbers))
            events.append(self.rng.choice(sorted(station)))
        return events

    # The crew: brings every run to an end once the faults have stopped.

    def crew(self):
        """One act of people who see to it that the run goes on, or comes to an orderly end."""
        state, by = self.state, people.ZITA
        if state.current is None:
            self.go_on((by,), people.SIGNERS)
            self.worker()
            return
        key = (self.run.number, state.current)
        self.tried[key] = self.tried.get(key, 0) + 1
        if self.tried[key] > 60:
            self.give_up(by)
        elif state.status is not RunStatus.HELD and self.hold_is_due(by):
            pass
        else:
            self.take(by)
            self.go_on((by,), people.SIGNERS)
        self.worker()

    def hold_is_due(self, by):
        """After an outcome that holds, or a verdict that was contradicted, the step begins again."""
        at = self.state.steps[self.state.current]
        if at.status is not StepStatus.BEGUN:
            return False
        for gate in self.step.event_gates:
            recorded = self.state.gate(self.state.current, gate.id)
            found = verdict(self.run.procedure, self.state, self.step, gate)
            if found.is_met or found.pending:
                continue
            if recorded.outcome is not None or found.value != "met":
                self.send(core.Restart(**self.here, reason=REASON), by)
                return True
        return False

    def take(self, by):
        at = self.state.steps.get(self.state.current)
        only = only_holder_acts(self.state.started.policies) and not self.state.started.rehearsal
        if only and at is not None and at.holder is not None and at.holder.id != by.id:
            self.send(core.TakeStep(**self.here, reason=REASON), by)

    def unblock(self, gate, by, signers):
        """A gate that nobody can meet any more: set aside by two people, or the run is given up."""
        key = ("unblock", self.run.number, self.state.current, self.here["visit"], gate.id)
        self.looks[key] = self.looks.get(key, 0) + 1
        if isinstance(gate, ProbeGate) and self.looks[key] < 4:
            return
        number = len(self.state.deviations)
        mine = self.state.deviations.get(number)
        if mine is None or not mine.is_open or mine.gate != gate.id:
            if not self.send(
                core.AskDeviation(**self.here, what="override", reason=REASON, gate=gate.id), by
            ):
                self.give_up(by)
            return
        self.send(core.SignDeviation(number=number), self.rng.choice(signers))

    def give_up(self, by):
        if self.state.unowned:
            self.send(
                core.TakeOver(burden=self.state.unowned[0].id, reason=REASON), self.rng.choice(people.SIGNERS)
            )
        else:
            self.send(core.Abort(reason=REASON), by)

    # Mischief: anybody tries anything, and everything breaks.

    def anybody(self):
        return self.rng.choice(people.PEOPLE)

    def some_step(self):
        """Mostly the present step, now and then another one, or another visit."""
        if self.state.current is None or self.rng.random() < 0.2:
            step = self.rng.choice(self.run.procedure.steps)
            return step, {"step": step.id, "visit": self.rng.randint(1, 2)}
        return self.step, self.here

    def some_gate(self, step, kinds):
        fit = [gate for gate in step.all_gates if isinstance(gate, kinds)]
        return self.rng.choice(fit or list(step.all_gates) or [None])

    def tries_to_begin(self):
        step, seen = self.some_step()
        command = core.Begin(**seen)
        if step.id == self.state.current and self.rng.random() < 0.7:
            command = self.begin_command(step)
        self.send(command, self.anybody())

    def tries_to_complete(self):
        self.send(core.Complete(**self.some_step()[1]), self.anybody())

    def confirms(self):
        step, seen = self.some_step()
        gate = self.some_gate(step, (ConfirmGate, ClientsGate))
        answer = self.rng.choice(("pass", "pass", "fail", "not-tested", "perhaps"))
        text = self.rng.choice(("", "seen by me"))
        self.send(
            core.Confirm(**seen, gate=gate.id if gate else "none", answer=answer, text=text), self.anybody()
        )

    def attaches(self):
        step, seen = self.some_step()
        gate = self.some_gate(step, (EvidenceGate,))
        text = self.rng.choice(("", "x", "/backup/cfg.dmp"))
        name = gate.id if gate and self.rng.random() < 0.8 else ""
        self.send(core.Attach(**seen, gate=name, text=text), self.anybody())

    def approvals(self):
        """The approvals that can be signed now, or ahead of their turn."""
        return [
            (step, gate)
            for step in self.run.procedure.steps
            for gate in step.needs
            if isinstance(gate, ApprovalGate)
        ]

    def signs(self):
        for step, gate in self.approvals():
            if step.id != self.state.current and self.rng.random() < 0.5:
                continue
            seen = {"step": step.id, "visit": self.state.visit(step.id), "gate": gate.id}
            digest = digest_to_sign(self.run.procedure, self.state, step, gate)
            if self.rng.random() < 0.2:
                digest = "0" * 64
            if self.rng.random() < 0.15:
                self.send(core.Reject(**seen, digest=digest, reason=REASON), self.anybody())
                return
            by = self.anybody()
            self.send(core.Sign(**seen, digest=digest), by)
            if self.rng.random() < 0.3:
                self.send(core.Sign(**seen, digest=digest), by)  # twice
            return

    def asks_again(self):
        for step, gate in self.approvals():
            seen = {"step": step.id, "visit": self.state.visit(step.id), "gate": gate.id}
            if self.rng.random() < 0.5:
                self.send(core.AskAgain(**seen, reason=REASON), self.anybody())
            elif policy_of(self.state, gate.policy).override:
                self.send(core.AskOverride(**seen, reason=REASON), self.anybody())
            return

    def deviates(self):
        step, seen = self.some_step()
        what = self.rng.choice(("skip", "override", "override", "doubt", "doubt", "nonsense"))
        gate = self.rng.choice([one.id for one in step.all_gates] or ["none"])
        doubts = [
            seen.seq
            for recorded in self.state.gates.values()
            for seen in recorded.observations
            if seen.kind in ("gap", "unreadable")
        ]
        doubt = self.rng.choice([0, *doubts])
        reason = self.rng.choice((REASON, REASON, REASON, "x"))
        self.send(core.AskDeviation(**seen, what=what, reason=reason, gate=gate, doubt=doubt), self.anybody())

    def decides_deviations(self):
        number = self.rng.randint(1, max(1, len(self.state.deviations)))
        for _ in range(self.rng.randint(1, 3)):
            by = self.anybody()
            if self.rng.random() < 0.2:
                self.send(core.RejectDeviation(number=number, reason=REASON), by)
            else:
                self.send(core.SignDeviation(number=number, comment=REASON), by)

    def corrects(self):
        if self.run.procedure.parameters:
            parameter = self.rng.choice(self.run.procedure.parameters)
            value = self.rng.choice(("8.5.101", "8.5.102", "true", "false", "120", "2026-07-01", "nonsense"))
            self.send(core.CorrectFact(name=parameter.name, value=value, reason=REASON), self.anybody())

    def takes_steps(self):
        _step, seen = self.some_step()
        if self.rng.random() < 0.6:
            self.send(core.TakeStep(**seen, reason=REASON), self.anybody())
        else:
            at = self.state.steps.get(seen["step"])
            by = self.anybody()
            if at is not None and at.holder is not None and self.rng.random() < 0.7:
                by = next((one for one in people.PEOPLE if one.id == at.holder.id), by)
            self.send(core.HandOver(**seen, to=self.anybody()), by)

    def restarts(self):
        _step, seen = self.some_step()
        self.send(core.Restart(**seen, reason=REASON), self.anybody())

    def holds_or_resumes(self):
        command = core.Resume(reason=REASON) if self.rng.random() < 0.6 else core.Hold(reason=REASON)
        self.send(command, self.anybody())

    def notes(self):
        self.send(core.AddNote(text="something to remember"), self.anybody())

    def carries_burdens(self):
        burden = self.rng.choice([*sorted(self.state.burdens), "exposure:none"])
        if self.rng.random() < 0.7:
            self.send(core.TakeOver(burden=burden, reason=REASON), self.anybody())
        else:
            self.send(core.CloseBurden(burden=burden, text="done now"), self.anybody())

    def reviews(self):
        self.send(core.ReviewOverride(number=self.rng.randint(0, 3), text=REASON), self.anybody())

    def aborts(self):
        if self.rng.random() < 0.2:
            self.send(core.Abort(reason=REASON), self.anybody())

    def goes_back(self):
        """The way back: another run takes this one's work back, and carries on what it has open."""
        roles = {role.name for role in self.run.procedure.roles}
        kind = "pair" if roles == {"new", "old"} else "single" if roles == {"server"} else ""
        if self.run.number > 1 or self.rng.random() > 0.15 or not kind:
            return
        if self.run.state.started.procedure.startswith(("rollback", "management")):
            return
        name = self.rng.choice(casts.WAYS_BACK[kind])
        by = self.rng.choice(people.OPERATORS)
        left = core.inheritance(self.run.procedure, self.state, self.run.number)
        command = core.RollBack(by_run=self.run.number + 1, procedure=name, reason=REASON)
        if self.desk.send(self.run, command, by):
            self.unanswered.clear()
            started = casts.taken_back(name, self.state.started, self.rng)
            self.open(started, by, left)

    # Servers, agents, time.

    def some_server(self):
        return self.rng.choice(sorted(self.world.logs)) if self.world.logs else None

    def noise(self):
        server = self.some_server()
        numbers = sorted(
            {
                number
                for step in self.run.procedure.steps
                for gate in step.event_gates
                for number in gate.rule.numbers
            }
            | {APPLICATION_STARTED}
        )
        if server:
            for _ in range(self.rng.randint(1, 4)):
                self.world.write(server, self.rng.choice(numbers))

    def unreadable(self):
        if server := self.some_server():
            self.world.write(server, kind="unreadable")

    def loses_lines(self):
        if server := self.some_server():
            self.noise()
            self.world.lose(server)

    def rotates(self):
        if server := self.some_server():
            self.world.rotate(server)

    def ends(self):
        if server := self.some_server():
            self.world.changes += 1
            self.ended.append((server, self.world.changes, self.at))

    def counts(self):
        if server := self.some_server():
            self.world.write(server, kind="total", total=self.rng.choice((0, 40, CLIENTS)))

    def falls_silent(self):
        hosts = sorted({log.host for log in self.world.logs.values()})
        if hosts:
            host = self.rng.choice(hosts)
            if host in self.world.silent:
                del self.world.silent[host]
            else:
                self.world.silent[host] = "no answer since two polls"

    def wakes(self):
        self.world.silent.clear()

    def facts_change(self):
        name = self.rng.choice(sorted(self.environment))
        value = self.environment[name]
        if isinstance(value, bool) or value is None:
            value = self.rng.choice((True, True, False, None))
            self.environment[name] = value
            self.world.facts.append([name, value])

    def time_passes(self):
        self.at += timedelta(seconds=self.rng.choice((600, 1000, 4000)))

    def workers_go(self):
        self.worker_away = self.rng.randint(1, 6)

    def someone_repeats(self):
        if self.unanswered:
            command, by, number = self.unanswered.pop(0)
            self.desk.send(self.run, command, by, number)


_MISCHIEF = (
    *(Walk.tries_to_begin, Walk.tries_to_complete, Walk.confirms, Walk.confirms, Walk.attaches),
    *(Walk.signs, Walk.signs, Walk.asks_again, Walk.deviates, Walk.decides_deviations, Walk.corrects),
    *(Walk.takes_steps, Walk.restarts, Walk.holds_or_resumes, Walk.notes, Walk.carries_burdens),
    *(Walk.reviews, Walk.aborts, Walk.goes_back),
    *(Walk.noise, Walk.noise, Walk.unreadable, Walk.loses_lines, Walk.rotates, Walk.ends, Walk.counts),
    *(Walk.falls_silent, Walk.wakes, Walk.facts_change, Walk.time_passes, Walk.workers_go),
    Walk.someone_repeats,
)
