"""Carry a whole procedure through on simulated servers, headless, and say whether it ended as it must."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from celery import current_app
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import ProgrammingError
from django.utils import timezone

from upgrades.adapters import event_store, simulator_client
from upgrades.domain import run_events as e
from upgrades.domain.run_events import Recorded
from upgrades.models import Environment, Target
from upgrades.queries.procedures import newest, procedure_of
from upgrades.services import procedures, starting
from upgrades.services.plan_rehearsal import WORLDS, Course, PlanRehearsal, WentWrong, prepare
from upgrades.services.rehearsal_branches import NOT_PLAYED, branches, taken
from upgrades.services.rehearsal_crew import Rehearsal, crew
from upgrades.services.rehearsal_scenarios import SCENARIOS, Expected
from upgrades.services.simulated import environment_from_world

TURN = 0.1  # seconds between two looks at the run
BAR = 24


class Command(BaseCommand):
    help = "Rehearse a procedure on simulated servers through the same services, workers and agents as a live run."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "procedure", nargs="?", help=f"one of {', '.join(SCENARIOS)}; left out: config-server-ha"
        )
        parser.add_argument(
            "--scenario", action="append", help="may be repeated; left out: the first of the procedure"
        )
        parser.add_argument(
            "--all", action="store_true", help="every scenario of the procedure, or of all procedures"
        )
        parser.add_argument(
            "--plan", choices=WORLDS, help="plan this whole environment and carry the plan out, run by run"
        )
        parser.add_argument(
            "--speed", type=float, default=10.0, help="how much faster than life the servers are"
        )
        parser.add_argument(
            "--limit",
            type=float,
            default=120.0,
            help="seconds that one rehearsal may take; with --plan: that may pass without news of any run",
        )

    def handle(self, *_: Any, **options: Any) -> None:
        self.carried_out: list[int] = []
        if options["plan"]:
            self._handle_plan(options["plan"], options["speed"], options["limit"])
            return
        wanted = _wanted(options["procedure"], options["scenario"], everything=options["all"])
        _publish()
        wrong = []
        with simulator(), worker():
            for procedure, name in wanted:
                try:
                    complaint = self._rehearse(procedure, name, options["speed"], options["limit"])
                except simulator_client.SimulatorUnavailable as trouble:
                    raise CommandError(str(trouble)) from trouble
                self._say(f"{procedure}, {name}: {complaint or 'ended as it must'}")
                if complaint:
                    wrong.append(f"{procedure}, {name}")
        if wrong:
            raise CommandError(f"Not as expected: {'; '.join(wrong)}.")
        if options["all"]:
            self._compare_with_texts({procedure for procedure, _ in wanted})

    def _compare_with_texts(self, names: set[str]) -> None:
        """Say which branches of these procedures no run took; a text that nobody has rehearsed proves nothing."""
        wanted = {branch for name in names for branch in branches(procedure_of(newest(name)))}
        missed = sorted(wanted - {branch for run in self.carried_out for branch in taken(run)})
        for branch in missed:
            self._say(f"{', '.join(branch)}: {NOT_PLAYED.get(branch, 'no scenario came to it')}")
        self._say(f"{len(wanted) - len(missed)} of {len(wanted)} branches of {len(names)} procedures taken")
        unproved = [branch for branch in missed if branch not in NOT_PLAYED]
        if unproved:
            raise CommandError(f"{len(unproved)} branches have no scenario that comes to them.")

    def _handle_plan(self, name: str, speed: float, limit: float) -> None:
        _publish()
        with simulator(), worker():
            try:
                world = simulator_client.create_world({"world": name, "speed": speed})
            except simulator_client.SimulatorUnavailable as trouble:
                raise CommandError(str(trouble)) from trouble
            try:
                self._carry_out_plan(prepare(world), limit)
            finally:
                simulator_client.delete(world["world"])

    def _carry_out_plan(self, plan: PlanRehearsal, limit: float) -> None:
        begun = moved = time.monotonic()
        number = plan.save()
        total = plan.progress()[1]
        self._say(
            f"plan {number} of {plan.environment.name}: {len(plan.look().plan.items)} runs, {total} parts"
        )
        course, seen = Course(plan), dict[int, int]()
        while not course.is_over:
            before = [*course.open.values()]
            try:
                lines = course.turn()
            except WentWrong as wrong:
                raise CommandError(str(wrong)) from wrong
            news = self._news_of(before, seen)
            done = plan.progress()[0] if lines else 0
            for line in lines:
                self._say(f"{bar(done, total)} {timezone.now():%H:%M:%S} {line}")
            if news or lines:
                moved = time.monotonic()
            elif time.monotonic() - moved > limit:
                raise CommandError(
                    "\n".join([f"Nothing has happened for {limit:g} seconds.", *course.stuck()])
                )
            time.sleep(TURN)
        complaints = plan.complaints()
        if complaints:
            raise CommandError("\n".join(["The plan is not carried out.", *complaints, *course.stuck()]))
        minutes, seconds = divmod(round(time.monotonic() - begun), 60)
        self._say(
            f"{plan.environment.name}: {len(course.ended)} runs, all at their targets, in {minutes} min {seconds} s"
        )

    def _news_of(self, rehearsals: list[Rehearsal], seen: dict[int, int]) -> bool:
        """Print what has happened in these runs since `seen`, which follows; whether anything has."""
        before = dict(seen)
        for run in rehearsals:
            seen[run.run_id] = self._print_news(run, seen.get(run.run_id, 0), f"run {run.run_id} ")
        return seen != before

    def _say(self, line: str) -> None:
        self.stdout.write(line)
        self.stdout.flush()

    def _rehearse(self, procedure: str, scenario: str, speed: float, limit: float) -> str:
        """Empty when the rehearsal ended as the scenario says, else what was wrong."""
        played = SCENARIOS[procedure][scenario]
        world = simulator_client.create_world(
            {**played.world, "name": f"rehearse-{uuid.uuid4().hex[:8]}", "speed": speed}
        )
        try:
            rehearsal = begin(procedure, scenario, world)
            self.carried_out.append(rehearsal.run_id)
            return self._carry_out(rehearsal, played.expected, limit)
        finally:
            simulator_client.delete(world["world"])

    def _carry_out(self, rehearsal: Rehearsal, expected: Expected, limit: float) -> str:
        seen, until = 0, time.monotonic() + limit
        while time.monotonic() < until:
            rehearsal.turn()
            seen = self._print_news(rehearsal, seen)
            complaint = rehearsal.finished(expected)
            if complaint is not None:
                self._print_news(rehearsal, seen)
                return complaint
            if expected.waiting_at and self._has_waited(rehearsal, expected.waiting_at):
                return ""
            time.sleep(TURN)
        return f"After {limit:g} seconds the run still stands at {rehearsal.stands_at()}"

    def _has_waited(self, rehearsal: Rehearsal, step: str) -> bool:
        """Whether nothing has opened the step's gate for a while in which a server that logs would have."""
        _, state = rehearsal.look()
        begun = state.steps[step].begun_at if state.current == step else None
        return begun is not None and (timezone.now() - begun).total_seconds() > 6

    def _print_news(self, rehearsal: Rehearsal, seen: int, whose: str = "") -> int:
        procedure, state = rehearsal.look()
        done = [step.id for step in procedure.steps if step.numbered and not step.aside]
        settled = sum(1 for step in done if step in state.steps and state.steps[step].ended_at is not None)
        shown = bar(settled, len(done))
        for recorded in event_store.load(rehearsal.run_id, after=seen):
            line = told(recorded)
            if line:
                self._say(f"{shown} {recorded.at:%H:%M:%S} {whose}{line}")
            seen = recorded.seq
        return seen


def bar(done: int, total: int) -> str:
    filled = BAR * done // total if total else BAR
    return "█" * filled + "·" * (BAR - filled)


def told(recorded: Recorded) -> str:
    """An event in a line for the terminal; empty for what would only fill it."""
    event, who = recorded.event, recorded.by.name
    match event:
        case e.RunStarted():
            return f"run started: {event.title}"
        case e.StepBegun():
            return f"step  {event.step} begun ({who})"
        case e.StepCompleted():
            return f"step  {event.step} completed ({who})"
        case e.StepSkipped() | e.StepLeft():
            return f"step  {event.step} {event.kind.split('.')[1]}"
        case e.LogEventSeen():
            return f"log   {event.application} {event.event}"
        case e.LogDoubtful() | e.ServerEnded():
            return f"log   {event.application}: {event.text[:90]}"
        case e.OutcomeReached():
            return f"gate  {event.gate} of {event.step}: {event.outcome}"
        case e.ProbeAnswered():
            return f"gate  {event.gate} of {event.step}: {event.value}"
        case e.GateConfirmed() | e.EvidenceAttached() | e.ApprovalSigned():
            return f"gate  {event.gate} of {event.step}: {event.kind.split('.')[1]} by {who}"
        case e.RunHeld():
            return f"held: {event.reason}"
        case e.RunGoneOver():
            return f"gone over to {event.procedure}: {', '.join(event.through)}"
        case e.RunEnded():
            return f"run ended: {event.ending}"
        case e.ExposureMarked():
            return f"exposure {event.exposure}: {event.percent} % of {event.limit} s"
        case e.ExposureOpened() | e.ExposureClosed():
            return f"exposure {event.exposure} {event.kind.split('.')[1]}"
        case _:
            return ""


def begin(procedure: str, scenario: str, world: dict[str, Any]) -> Rehearsal:
    """Start a rehearsal of `procedure` in a world that plays `scenario`."""
    played = SCENARIOS[procedure][scenario]
    environment = environment_from_world(world, name=f"Rehearsal · {scenario} · {world['world']}")
    Target.objects.bulk_create(
        Target(environment=environment, component=component, version=version)
        for component, version in played.targets.items()
    )
    for name, value in played.environment.items():
        setattr(environment, name, value)
    environment.save()
    operator, approver = crew(environment)
    done = starting.start_run(
        environment_id=environment.pk,
        procedure=procedure,
        bindings=_bindings(environment, procedure, played.bindings or world["roles"]),
        parameters=played.parameters,
        confirmations={},
        rehearsal=False,  # the environment itself is a simulated one
        change="",
        by=operator,
        command_id=uuid.uuid4(),
    )
    return Rehearsal(done.run, operator, approver, world["world"], played.delays, played.slips)


def _bindings(environment: Environment, procedure: str, played: Mapping[str, str]) -> dict[str, int]:
    names = dict(environment.applications.values_list("name", "pk"))
    return {role.name: names[played[role.name]] for role in procedure_of(newest(procedure)).roles}


def _publish() -> None:
    try:
        procedures.publish_all()
    except ProgrammingError as trouble:
        raise CommandError(
            f"This database does not have the tables of this release ({str(trouble).partition(chr(10))[0]}). "
            "Make them with `manage.py migrate`, then rehearse again."
        ) from trouble


def _wanted(procedure: str | None, chosen: list[str] | None, *, everything: bool) -> list[tuple[str, str]]:
    """Procedures with their scenarios, in the order of the rehearsal."""
    if everything and procedure is None:
        return [(name, course) for name, courses in SCENARIOS.items() for course in courses]
    procedure = procedure or "config-server-ha"
    courses = SCENARIOS.get(procedure)
    if courses is None:
        raise CommandError(f"There is no rehearsal of “{procedure}”. Choose one of {', '.join(SCENARIOS)}.")
    if everything:
        return [(procedure, course) for course in courses]
    chosen = chosen or [next(iter(courses))]
    for name in chosen:
        if name not in courses:
            raise CommandError(f"There is no scenario “{name}”. Choose one of {', '.join(courses)}.")
    return [(procedure, name) for name in chosen]


@contextlib.contextmanager
def simulator() -> Iterator[None]:
    """The simulator of this installation, or one of our own for the time being."""
    if simulator_client.is_set_up():
        yield
        return
    with (
        tempfile.TemporaryDirectory(prefix="rehearse-") as folder,
        subprocess.Popen(
            [sys.executable, "-m", "simulator", "serve", "--listen", "127.0.0.1:0", "--root", folder],
            cwd=settings.BASE_DIR,
            stdout=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            if "listening on " not in said:
                raise CommandError("The simulator did not start. Run `python -m simulator serve` to see why.")
            settings.SIMULATOR_URL = said.split("listening on ")[1].strip()
            yield
        finally:
            settings.SIMULATOR_URL = ""
            process.terminate()
            process.wait(timeout=30)


@contextlib.contextmanager
def worker() -> Iterator[None]:
    """The workers that run already, or one of our own with its clock for the time being."""
    if current_app.control.ping(timeout=1.0):
        yield
        return
    with tempfile.TemporaryDirectory(prefix="rehearse-") as folder:
        log = Path(folder) / "worker.log"
        command = [sys.executable, "-m", "celery", "-A", "runbook", "worker", "--concurrency", "3"]
        clock = ["--beat", "--schedule", str(Path(folder) / "beat")]
        with (
            log.open("w") as out,
            subprocess.Popen([*command, *clock], cwd=settings.BASE_DIR, stdout=out, stderr=out) as process,
        ):
            try:
                _wait_for(process, log)
                yield
            finally:
                process.terminate()
                process.wait(timeout=60)


def _wait_for(process: subprocess.Popen[bytes], log: Path) -> None:
    """Until the worker takes tasks: a limit on a rehearsal is not to run out while it still starts."""
    until = time.monotonic() + 60
    while not current_app.control.ping(timeout=0.5):
        if process.poll() is not None or time.monotonic() > until:
            words = log.read_text(errors="replace").strip()[-1000:]
            raise CommandError(f"The worker of the rehearsal did not start. Its last words: {words}")
