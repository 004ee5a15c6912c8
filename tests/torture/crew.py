"""The workload: complete runs on simulated servers, by several teams at once, over the pages of Runbook as browsers send them.

    python -m tests.torture.crew HISTORY STOP SEED CLIENTS URL…

Teams start runs and carry them through until the file STOP is there, then end the ones that they have. What to do next they
read from the database past every proxy; what they do goes as a form with the id of its command to one of the URLs, and again
with the same id until there is an answer. Everything that they see goes into HISTORY.
"""

import contextlib
import logging
import os
import random
import sys
import threading
import time
import uuid
from datetime import timedelta
from pathlib import Path

import django
import httpx

django.setup()

from django.contrib.auth.models import User  # noqa: E402 - Django first
from django.db import Error, close_old_connections, connection  # noqa: E402
from django.utils import timezone  # noqa: E402

from tests.torture.history import History  # noqa: E402
from upgrades.adapters import simulator_client  # noqa: E402
from upgrades.domain import run as core  # noqa: E402
from upgrades.models import Agent, Application, Membership, Target  # noqa: E402
from upgrades.queries.procedures import newest, procedure_of  # noqa: E402
from upgrades.queries.start_dialog import start_dialog  # noqa: E402
from upgrades.services.rehearsal_crew import Rehearsal, next_acts  # noqa: E402
from upgrades.services.rehearsal_scenarios import SCENARIOS  # noqa: E402
from upgrades.services.simulated import environment_from_world  # noqa: E402

PASSWORD = "quiet-night-in-frankfurt"
POLICIES = {name: {"role": "approver", "signatures": 1} for name in ("point-of-no-return", "deviation")}
PLAYED = [
    ("config-server-ha", "automatic"),
    ("config-server-ha", "forced"),
    ("config-server-ha", "rotation"),
    ("config-server-ha", "crash"),
    ("config-server-ha-same-schema", None),
    ("lca", "single-scs"),
    ("management-layer", "scs-ha"),
]
RUN_LIMIT = 240.0  # seconds: generous, for faults hold runs up
ANSWER_LIMIT = 150.0  # seconds until an act must have an answer, sent again and again


class NoAnswer(Exception):
    """An act was never answered."""


class Person:
    """Somebody with a browser: signs in, sends forms, and sends them again as long as nobody says what came of them."""

    def __init__(self, name, urls, history, chance):
        self.name, self.urls, self.history, self.chance = name, urls, history, chance
        self.http = httpx.Client(timeout=15, trust_env=False, follow_redirects=False)
        self.signed_in_at = None

    def close(self):
        self.http.close()

    def _sign_in(self, url):
        page = f"{url}/sign-in/"
        self.http.cookies.clear()
        self.http.get(page)
        answer = self._post(page, {"username": self.name, "password": PASSWORD})
        if answer.status_code not in (302, 303):
            raise httpx.RequestError(f"signing in: {answer.status_code}")
        self.signed_in_at = time.monotonic()

    def _post(self, address, data, files=None):
        token = self.http.cookies.get("csrf") or ""
        return self.http.post(address, data={**data, "csrfmiddlewaretoken": token}, files=files)

    def _once(self, path, data, files, note):
        """Send the form once; the outcome as the history calls it, and the answer."""
        url, status, answer = self.chance.choice(self.urls), None, None
        try:
            if self.signed_in_at is None or time.monotonic() - self.signed_in_at > 600:
                self._sign_in(url)
            answer = self._post(f"{url}{path}", data, files)
            status = answer.status_code
            outcome = "unknown"
            if status == 303 and answer.headers["Location"].startswith("/runs/"):
                outcome = "ok"
            elif status in (302, 303):
                outcome, self.signed_in_at = "refused", None
            elif 400 <= status < 500:
                outcome = "refused"
        except (httpx.HTTPError, OSError) as trouble:
            outcome, status = "unknown", type(trouble).__name__
        self.history.note("act", who=self.name, outcome=outcome, status=status, **note)
        return outcome, answer

    def send(self, path, data, *, act, files=None, run=None, twice=False, expect="ok"):
        """Send until it is answered; the answer that settled it. `twice` clicks two times at once."""
        data = {"command_id": str(uuid.uuid4()), **data}
        note = {"id": data["command_id"], "run": run, "act": act, "expect": expect}
        if twice and self.signed_in_at is None:
            twice = False  # without a session yet the second click would be another one
        if twice:
            other = threading.Thread(target=self._other_click, args=(path, data, files, note))
            other.start()
        try:
            until = time.monotonic() + ANSWER_LIMIT
            while time.monotonic() < until:
                outcome, answer = self._once(path, data, files, note)
                redirected_to_sign_in = outcome == "refused" and answer.status_code in (302, 303)
                if outcome != "unknown" and not redirected_to_sign_in:
                    return outcome, answer
                time.sleep(0.25)
            raise NoAnswer(f"{act} of run {run} was not answered within {ANSWER_LIMIT:g} s")
        finally:
            if twice:
                other.join()

    def _other_click(self, path, data, files, note):
        with httpx.Client(timeout=15, trust_env=False, cookies=self.http.cookies) as http:
            data = {**data, "csrfmiddlewaretoken": http.cookies.get("csrf") or ""}
            try:
                answer = http.post(f"{self.urls[0]}{path}", data=data, files=files)
                fine = answer.status_code == 303 and answer.headers["Location"].startswith("/runs/")
                outcome = "ok" if fine else "refused" if answer.status_code < 500 else "unknown"
                self.history.note("act", who=self.name, outcome=outcome, status=answer.status_code, **note)
            except (httpx.HTTPError, OSError) as trouble:
                self.history.note(
                    "act", who=self.name, outcome="unknown", status=type(trouble).__name__, **note
                )


def form_of(command):
    """Verb and fields with which the page sends a command."""
    seen = {"step": getattr(command, "step", ""), "visit": getattr(command, "visit", 0)}
    match command:
        case core.Begin():
            return "begin", seen
        case core.Complete():
            return "complete", seen
        case core.Confirm():
            return "confirm", {**seen, "gate": command.gate, "answer": command.answer, "text": command.text}
        case core.Attach():
            return "attach", {**seen, "gate": command.gate, "text": command.text}
        case core.Sign():
            return "sign", {**seen, "gate": command.gate, "digest": command.digest}
        case core.Restart():
            return "restart", {**seen, "reason": command.reason}
        case core.AskDeviation():
            return "ask-deviation", {**seen, "doubt": command.doubt, "reason": command.reason}
        case core.SignDeviation():
            return "sign-deviation", {"number": command.number, "comment": command.comment}
        case core.TakeOver():
            return "take-over", {"burden": command.burden, "reason": command.reason}
    raise TypeError(command)


class Team(Rehearsal):
    """A rehearsal whose crew acts over the pages, now and then twice, and now and then beyond its rights."""

    chance: random.Random
    people: dict
    __slots__ = ("acted_at", "chance", "people", "sent")

    def turn(self):
        procedure, state = self.look()
        self._in_the_world(procedure, state)
        for who, command in next_acts(procedure, state):
            self._act(who, command)
        if self.chance.random() < 0.02:
            self.people["operator"].send(
                f"/runs/{self.run_id}/note/", {"text": "All quiet."}, act="NoteAdded", run=self.run_id
            )

    def _act(self, who, command):
        verb, fields = form_of(command)
        path, act = f"/runs/{self.run_id}/{verb}/", type(command).__name__
        if verb == "sign":
            seen = {name: fields[name] for name in ("step", "gate", "digest")}
            self.people[who].history.note("shown", run=self.run_id, **seen)
            if self.chance.random() < 0.4:  # over something that nobody was shown
                forged = {**fields, "digest": f"{self.chance.getrandbits(256):064x}"}
                self.people[who].send(path, forged, act=act, run=self.run_id, expect="refused")
        if verb == "sign" and self.chance.random() < 0.5:
            # Four eyes: the operator tries to sign what only another may; the record must say so.
            self.people["operator"].send(path, fields, act=act, run=self.run_id, expect="refused")
        files = None
        if verb == "attach" and self.chance.random() < 0.7:
            files = {"file": ("configuration.dmp", self.chance.randbytes(self.chance.randint(100, 40_000)))}
        twice = self.chance.random() < 0.15
        self.people[who].send(path, fields, act=act, run=self.run_id, files=files, twice=twice)


def make_people(number):
    """An operator and an approver with a password; the names."""
    names = {}
    for role in ("operator", "approver"):
        user, made = User.objects.get_or_create(username=f"torture-{role}-{number}")
        if made:
            user.set_password(PASSWORD)
            user.save()
        names[role] = user
    return names


def prepare(number, procedure, scenario, speed):
    """A world that plays the scenario, its environment and people; as the rehearsal command makes them."""
    played = SCENARIOS[procedure][scenario]
    world = simulator_client.create_world(
        {**played.world, "name": f"torture-{uuid.uuid4().hex[:8]}", "speed": speed}
    )
    environment = environment_from_world(world, name=f"Torture {number} · {scenario} · {world['world']}")
    Target.objects.bulk_create(
        Target(environment=environment, component=component, version=version)
        for component, version in played.targets.items()
    )
    environment.policies = POLICIES
    for name, value in played.environment.items():
        setattr(environment, name, value)
    environment.save()
    people = make_people(number)
    for role, user in people.items():
        Membership.objects.create(
            environment=environment, user=user, role=role, given_at=timezone.now() - timedelta(days=30)
        )
    return played, world, environment, people


def start_fields(played, world, environment, procedure, user):
    """The start dialog filled in: what it proposes, what the scenario says, and "no" to what is left open."""
    names = dict(Application.objects.filter(environment=environment).values_list("name", "pk"))
    text = procedure_of(newest(procedure))
    bound = {
        f"role-{role.name}": names[(played.bindings or world["roles"])[role.name]] for role in text.roles
    }
    asked = start_dialog(environment, text, user).parameters
    proposed = {
        f"parameter-{item.name}": item.answer or ("false" if item.type == "boolean" else "") for item in asked
    }
    given = {f"parameter-{name}": value for name, value in played.parameters.items()}
    return {"kind": "live", "change": "", "category": "normal", **bound, **proposed, **given}


class Crew:
    def __init__(self, history, stop, seed, urls, speed, ground, played=PLAYED):
        self.history, self.stop, self.seed, self.urls, self.speed = history, stop, seed, urls, speed
        self.ground, self.played = ground, played
        self.wrong = []

    def leave_some_alone(self):
        """An environment without a run: its agents are only looked at, and one of them never answers."""
        _, _, environment, _ = patiently(lambda: prepare("idle", "config-server-ha", "automatic", self.speed))
        first = Agent.objects.filter(environment=environment).order_by("pk")[0]
        Agent.objects.filter(pk=first.pk).update(url="http://127.0.0.1:9")

    def work(self, number):
        """What one team does: run after run, until it shall stop."""
        chance = random.Random(f"{self.seed}/{number}")
        while not self.stop.exists():
            procedure, scenario = chance.choice(self.played)
            scenario = scenario or next(iter(SCENARIOS[procedure]))
            try:
                self.carry_out(number, procedure, scenario, chance)
            except Exception as trouble:
                logging.exception("team %s", number)
                self.wrong.append(repr(trouble))
                self.history.note("trouble", team=number, text=repr(trouble))
                time.sleep(1)
            finally:
                with contextlib.suppress(Error):
                    close_old_connections()

    def carry_out(self, number, procedure, scenario, chance):
        played, world, environment, users = patiently(
            lambda: prepare(number, procedure, scenario, self.speed)
        )
        people = {
            role: Person(user.username, self.urls, self.history, chance) for role, user in users.items()
        }
        try:
            fields = patiently(lambda: start_fields(played, world, environment, procedure, users["operator"]))
            path = f"/environments/{environment.pk}/start/{procedure}/"
            outcome, answer = people["operator"].send(path, fields, act="Start", twice=chance.random() < 0.2)
            if outcome != "ok":
                raise AssertionError(
                    f"{procedure} was not started: {answer.status_code} {answer.text[:3000]}"
                )
            run = int(answer.headers["Location"].strip("/").split("/")[1])
            self.history.note(
                "run",
                run=run,
                procedure=procedure,
                scenario=scenario,
                world=world["world"],
                environment=environment.pk,
            )
            team = Team(run, users["operator"], users["approver"], world["world"], played.delays)
            team.chance, team.people = chance, people
            complaint = self._until_it_ends(team, played.expected)
            self.history.note(
                "run-over", run=run, expected=played.expected.ending or "held", complaint=complaint
            )
            if complaint:
                self.wrong.append(f"run {run}: {complaint}")
        finally:
            for person in people.values():
                person.close()
            self._keep_logs(world["world"])

    def _until_it_ends(self, team, expected):
        until = time.monotonic() + RUN_LIMIT
        while time.monotonic() < until:
            try:
                team.turn()
                complaint = team.finished(expected)
            except (Error, simulator_client.SimulatorUnavailable):
                # The servers of a step get their order once: a simulator that answers too late has it, too.
                patience()
                continue
            if complaint is not None:
                return complaint
            time.sleep(0.1)
        _, state = team.look()
        return f"after {RUN_LIMIT:g} s it still stands at {state.current} ({state.status})"

    def _keep_logs(self, world):
        """The agents' ground truth outlives the world: the very files, under a second name."""
        there = Path(os.environ["TORTURE_WORLDS"])
        # Its own folder alone: those of other worlds go away while one looks.
        for path in (there / "worlds" / world).rglob("*"):
            if path.is_file() and "log" in path.parts:
                kept = self.ground / path.relative_to(there)
                kept.parent.mkdir(parents=True, exist_ok=True)
                with contextlib.suppress(FileExistsError, FileNotFoundError):
                    os.link(path, kept)
        with contextlib.suppress(Exception):
            simulator_client.delete(world)
        with contextlib.suppress(Error):  # nobody is there any more who could answer
            Agent.objects.filter(environment__world=world).update(due_at="2100-01-01T00:00Z")


def patience():
    with contextlib.suppress(Exception):
        connection.close()
    time.sleep(0.3)


def patiently(work, seconds=120):
    """What `work` gives, tried again while the database is away: setting the stage is no part of the play."""
    until = time.monotonic() + seconds
    while True:
        try:
            return work()
        except Error:
            if time.monotonic() > until:
                raise
            patience()


def main(history, stop, seed, clients, *urls):
    logging.getLogger("httpx").setLevel(logging.WARNING)
    folder = Path(history).parent
    ground = folder / "ground-truth"
    crew = Crew(
        History(Path(history)), Path(stop), seed, urls, float(os.environ.get("TORTURE_SPEED", "40")), ground
    )
    only = os.environ.get("TORTURE_PLAYED")
    if only:
        crew.played = [tuple(item.split(":")) for item in only.split(",")]
    crew.leave_some_alone()
    teams = [threading.Thread(target=crew.work, args=(number,)) for number in range(int(clients))]
    for team in teams:
        team.start()
    for team in teams:
        team.join()
    for line in crew.wrong:
        print(line, file=sys.stderr)
    return 1 if crew.wrong else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
