"""A short workload for the checker's own proof: parts of upgrades on the real PostgreSQL, with a real agent and real files.

People act over the pages, as the crew of `make torture` does, and what they were answered goes into a history. Workers are
killed where it hurts: a statement of theirs is not carried out, and nothing after it. Each scene is a run or two of its own,
so that a fault can be looked for where it shows. Nothing here depends on how fast the machine is.
"""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from uuid import uuid4

import yaml
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.test import Client
from django.utils import timezone
from psycopg.conninfo import make_conninfo

from tests.agent.conftest import SECRET, new_client
from tests.factories import give, make_user, show_who
from tests.record.scene import Vault
from tests.services.fake_agent import FILE, FakeAgent, news, part
from tests.services.night import REASON, Night, at_once
from tests.torture import checker, crew
from tests.torture.history import History
from upgrades import tasks
from upgrades.domain import run as core
from upgrades.domain.gates import shown_digest
from upgrades.models import Agent, Evidence, ProcedureVersion
from upgrades.services import agents, polling

TWO = {"point-of-no-return": {"role": "approver", "signatures": 2}}
HEAD = "Local time:       {:%Y-%m-%dT%H:%M:%S}.000\n"
UPGRADE_MODE = "Std 25301 synthetic\n"
REFUSED = "Std 25302 synthetic\n"
READY = "Std 22170 synthetic\n"
DEBUG = "[HISTORYDB]: Data record 1 has been written\n"
MINUTE = timedelta(minutes=1)
A_DAY = timedelta(days=1)


def database():
    """Where the tests have their database, as a program of its own connects to it."""
    given = connection.get_connection_params()
    names = ("dbname", "user", "password", "host", "port")
    return make_conninfo(**{name: given[name] for name in names if given.get(name)})


class Killed(Exception):
    """The process died here: what it had not committed is gone, and nothing more of it is carried out."""


@contextlib.contextmanager
def killed_at(fragment):
    """In this block whoever is about to send a statement with this in it dies instead."""

    def die(execute, sql, params, many, context):
        if fragment in sql:
            raise Killed(fragment)
        return execute(sql, params, many, context)

    with connection.execute_wrapper(die), contextlib.suppress(Killed):
        yield


def logged(*texts, at=None):
    """The lines of a log, with times a second apart."""
    at = at or datetime(2026, 11, 24, 10)
    return "".join(f"{at + timedelta(seconds=place):%H:%M:%S}.000 {text}" for place, text in enumerate(texts))


class Team(Night):
    """A run whose people sit at browsers. What they send, and what they are answered, goes into the record of the history."""

    def __init__(self, record, place, policies=None):
        super().__init__(policies, place)
        self.record, self.browsers = record, {}
        self.second = make_user("operator", environment=self.environment, first_name="Oskar")
        self.other = make_user("approver", environment=self.environment, first_name="Arne")
        self.auditor = make_user("auditor", environment=self.environment, first_name="Ruth")
        record.note("run", run=self.run, procedure="config-server-ha", scenario=place)

    def over(self):
        self.record.note("run-over", run=self.run, expected="", complaint="")

    # What people send.

    def browser(self, by):
        """Signed in as this person; who acts at once with others has one for each click."""
        alone = threading.current_thread() is threading.main_thread()
        if alone and by in self.browsers:
            return self.browsers[by]
        client = self.browsers[by] = Client(raise_request_exception=False)
        client.force_login(by)
        show_who(client, by)
        return client

    def send(self, verb, fields, *, act, by=None, command_id=None, expect="ok", file=None):
        """Send a form; "ok", "refused" or "unknown", as the sender understands the answer."""
        by = by or self.operator
        data = {"command_id": str(command_id or uuid4()), **fields}
        if file is not None:
            data["file"] = SimpleUploadedFile("configuration.dmp", file)
        answer = self.browser(by).post(f"/runs/{self.run}/{verb}/", data)
        status = answer.status_code
        outcome = "ok" if status == 303 else "refused" if 400 <= status < 500 else "unknown"
        note = {"id": data["command_id"], "run": self.run, "act": act, "expect": expect}
        self.record.note("act", who=by.username, outcome=outcome, status=status, **note)
        return outcome

    def act(self, command, by=None, command_id=None, expect="ok"):
        verb, fields = _form_of(command)
        if isinstance(command, core.Sign) and expect == "ok":
            shown = {name: fields[name] for name in ("step", "gate", "digest")}
            self.record.note("shown", run=self.run, **shown)
        return self.send(
            verb, fields, act=type(command).__name__, by=by, command_id=command_id, expect=expect
        )

    def twice(self, command, *people):
        """The same form two times at once; by two people it is two forms."""
        one = uuid4()
        ids = [one, one] if len(people) < 2 else [uuid4(), uuid4()]
        by = people if len(people) == 2 else [people[0] if people else self.operator] * 2
        acts = zip(by, ids, strict=True)
        return at_once(*(partial(self.act, command, who, command_id) for who, command_id in acts))

    @property
    def seen(self):
        step = self.state.current
        return {"step": step, "visit": self.visit(step)}

    # What agents send.

    def take(self, agent, said, token=None):
        """An answer of the agent, taken in as a loop does it."""
        token = token or self.lease(agent)
        polling._take(agent.pk, token, said)

    @staticmethod
    def lease(agent):
        """The lease of whoever follows the agent from now on."""
        token = uuid4()
        until = timezone.now() + polling.LEASE
        Agent.objects.filter(pk=agent.pk).update(lease_token=token, lease_until=until)
        return token

    def read_on(self):
        """Poll until the agent has nothing new to say of the logs."""
        for _ in range(20):
            if not self.poll():
                return
        raise AssertionError("the agent's news never end")

    def poll(self, role="new"):
        """Ask the agent as a loop does, and take in its answer; whether it has something of a log."""
        agent = self.agent(role)
        token = self.lease(agent)
        asked = polling.plan(agent.pk, token)

        async def ask():
            async with new_client(deadline=10.0) as client:
                return await client.poll(
                    asked.address,
                    applications=asked.applications,
                    cursors=asked.cursors,
                    processes=asked.processes,
                    wait=0.0,
                )

        try:
            said = asyncio.run(ask())
        except polling.AgentTrouble as trouble:
            polling._trouble(agent.pk, token, str(trouble))
            return False
        self.take(agent, said, token)
        self.take(agent, said, token)  # it comes again: whoever had it before died before it was done
        return any(found.files for found in said.applications.values())


class FakeLaunch:
    """`launch-new` of a team's run, its agent a program of ours, and the log of its server written by hand."""

    def __init__(self, team):
        self.team, self.content, self.agent = team, b"", FakeAgent()

    def __enter__(self):
        self.agent.listed = {FILE: 0}
        self.agent.stands_for(self.team.agent("new"))
        self.team.go_to("launch-new")
        return self

    def __exit__(self, *_):
        self.agent.close()

    def log(self, *texts, off=timedelta()):
        """The server logs these texts now, by a clock that is `off`."""
        start, now = len(self.content), timezone.now()
        head = "" if self.content else HEAD.format(now + off)
        self.content += (head + logged(*texts, at=now + off)).encode()
        said = news(part(self.content, start), host="fra-cfg-02")
        said = replace(said, origin=replace(said.origin, skew=off.total_seconds()))
        self.team.take(self.team.agent("new"), said)


def _form_of(command):
    match command:
        case core.Hold() | core.Resume() | core.Abort():
            return type(command).__name__.lower(), {"reason": command.reason}
        case core.AddNote():
            return "note", {"text": command.text}
        case core.AskDeviation(what="skip"):
            seen = {"step": command.step, "visit": command.visit}
            return "ask-deviation", {**seen, "about": "skip", "reason": command.reason}
    return crew.form_of(command)


class Workload:
    """`play` scenes, then ask the checker, which is a process of its own."""

    def __init__(self, folder, start_agent):
        self.folder, self.start_agent = folder, start_agent
        self.record = History(folder / "history.jsonl")
        self.vault = Vault(folder)

    def close(self):
        self.record.close()

    def play(self, *scenes):
        for scene in scenes:
            getattr(self, scene)()

    # Scenes.

    def acts(self):
        """What people do in the first steps: twice, at once, without the right, and with an answer that is lost."""
        team = Team(self.record, "acts")
        team.advance()
        team.twice(core.AddNote(text="All is quiet."))
        self._lost_answer(team, core.AddNote(text="The dump is on tape 7."))
        team.act(team.confirm("packages-delivered"), team.auditor, expect="refused")
        team.act(core.Complete(**team.seen), expect="refused")
        for gate in ("packages-delivered", "related-components"):
            team.act(team.confirm(gate))
        team.act(core.Hold(reason="The phones ring."))
        team.act(core.Complete(**team.seen), expect="refused")
        team.act(core.Resume(reason="It was a drill."))
        team.twice(core.Complete(**team.seen), team.operator, team.second)
        self.vault.sign()
        team.go_to("backup-database")
        evidence = {**team.seen, "gate": "database-copy", "text": "cfg.dmp"}
        team.send("attach", {**evidence, "visit": 7}, act="Attach", file=b"dump" * 300, expect="refused")
        team.send("attach", evidence, act="Attach", file=b"dump" * 300)
        for row in Evidence.objects.filter(run=team.run):  # the register says who read it
            team.browser(team.auditor).get(f"/runs/{team.run}/evidence/{row.pk}/").close()
        team.go_to("replace-folder")
        self._end(team)

    @staticmethod
    def _lost_answer(team, command):
        """The database goes away in the middle of an act; its sender sends it again."""
        command_id = uuid4()
        with killed_at('INSERT INTO "upgrades_commandreceipt"'):
            answer = team.act(command, command_id=command_id)
        if answer == "unknown":
            for _ in range(2):
                team.act(command, command_id=command_id)

    def _end(self, team):
        """What is open is taken over, the run is ended before its time, and the head of its chain is sealed."""
        for burden in list(team.state.burdens):
            team.act(core.TakeOver(burden=burden, reason=REASON), team.approver)
        team.act(core.Abort(reason="The window was withdrawn."))
        team.act(core.Hold(reason="Too late."), expect="refused")
        team.over()
        self.vault.sign(timezone.now() + 10 * MINUTE)

    def logs(self):
        """A server starts: its log has old lines, is read by workers that die, shrinks, and is rotated."""
        team = Team(self.record, "logs")
        agent = self.start_agent("confserv_b", agent="fra-cfg-02")
        url = agent.address.url
        Agent.objects.filter(pk=team.agent("new").pk).update(url=url, key_id="k1", secret=SECRET)
        began = timezone.now()
        agent.write("confserv_b", HEAD.format(began) + logged(UPGRADE_MODE, READY))  # of an earlier life
        team.read_on()
        team.go_to("launch-new")
        path = agent.write("confserv_b", logged(DEBUG, UPGRADE_MODE))
        team.read_on()
        path.write_bytes(b"")
        team.read_on()
        agent.write("confserv_b", HEAD.format(began) + logged(DEBUG, READY))
        team.read_on()
        agent.write("confserv_b", logged(REFUSED, DEBUG, REFUSED), "confserv_b.rotated.log")
        with killed_at('INSERT INTO "upgrades_logline"'):
            team.poll()
        team.read_on()
        team.advance()
        self._set_aside(team)
        # The worker that should have been told of it was killed; whoever looks after all runs finds what is due.
        due = '"outcome":"upgrade-mode"'
        self.record.note("due", run=team.run, event="gate.outcome", holding=due)
        tasks.tick()
        team.over()
        self.vault.sign(timezone.now() + 10 * MINUTE)

    @staticmethod
    def _set_aside(team):
        """Two people look at what is missing of a log, and decide that it changes nothing."""
        for doubt in [item for item in team.history if item.event.kind == "log.doubtful"]:
            asked = core.AskDeviation(
                **team.seen, what="doubt", gate="initialized", doubt=doubt.seq, reason=REASON
            )
            team.act(asked)
            decided = core.SignDeviation(number=len(team.state.deviations), comment="I looked.")
            team.act(decided, team.operator, expect="refused")
            team.act(decided, team.approver)

    def signatures(self):
        """The point of no return takes two signatures, of people who have no hand in the run."""
        team = Team(self.record, "signatures", TWO)
        give(team.operator, team.environment, "approver")
        with FakeLaunch(team) as launch:
            launch.log(UPGRADE_MODE, READY)
            team.go_to("stop-old")
            state, procedure = team.state, team.procedure
            step = procedure.step("stop-old")
            digest = shown_digest(procedure, state, step, step.gate("approval"))
            sign = core.Sign(**team.seen, gate="approval", digest=digest)
            forged = core.Sign(**team.seen, gate="approval", digest="0" * 64)
            for nobody in (team.operator, team.auditor):
                team.act(sign, nobody, expect="refused")
            team.act(forged, team.approver, expect="refused")
            team.act(sign, team.approver)
            team.act(core.Begin(**team.seen), expect="refused")
            team.act(sign, team.other)
            team.act(core.Begin(**team.seen))
            team.act(core.Complete(**team.seen), expect="refused")
            team.answer_probes()
            team.act(core.Complete(**team.seen))
        self._end(team)

    def leases(self):
        """A worker is stopped with an answer in its hands, and goes on when another one has its agents."""
        team = Team(self.record, "leases")
        agent, server = team.agent("old"), team.server("old")
        old = news(application=server.name, process="up", host=agent.host.name)
        stopped = team.lease(agent)
        team.take(agent, news(application=server.name, process="down", host=agent.host.name))
        self.record.note("truth", application=server.pk, state="down", since=timezone.now().isoformat())
        with contextlib.suppress(agents.LeaseLost):
            team.take(agent, old, stopped)
        team.over()

    def silence(self):
        """An agent falls silent, and the pages are opened."""
        team, fake = Team(self.record, "silence"), FakeAgent()
        agent = team.agent("new")
        fake.stands_for(agent)
        team.poll()
        self._look(
            team, agent, ago=40
        )  # for this scene twenty seconds have passed since, and twenty more will
        fake.close()
        since = timezone.now() - timedelta(seconds=20)
        Agent.objects.filter(pk=agent.pk).update(seen_at=since)
        ago = {"t": time.monotonic() - 20, "silent": agent.agent_id}
        self.record.note("fault-begins", fault="agent ended", **ago)
        self._look(team, agent)
        team.poll()
        self._look(team, agent)
        team.over()

    def _look(self, team, agent, ago=0):
        browser = team.browser(team.operator)
        for page in (f"/runs/{team.run}/", f"/environments/{team.environment.pk}/"):
            html = browser.get(page).content.decode()
            said = any(words in html for words in ("No news from", "no news from", "no answer since"))
            when = {"t": time.monotonic() - ago}
            self.record.note("display", agent=agent.agent_id, page=page, says_so=said, **when)

    def clocks(self):
        """Two runs that differ only in the clocks of their agents: a day behind, a day ahead."""
        runs = []
        for off in (-A_DAY, A_DAY):
            team = Team(self.record, f"clocks {off}")
            with FakeLaunch(team) as launch:
                launch.log(UPGRADE_MODE, DEBUG, READY, off=off)
            place = {"agent": team.agent("new").agent_id, "environment": team.environment.pk}
            self.record.note("skew", seconds=off.total_seconds(), **place)
            runs.append(team.run)
            team.over()
        self.record.note("twins", runs=runs)

    # The checker.

    def violations(self):
        """What the checker says of all that was played."""
        texts = ProcedureVersion.objects.filter(procedure="config-server-ha")
        texts = texts.values_list("procedure", "version", "text")
        rules = self.folder / "rules.json"
        known = {f"{name}/{version}": yaml.safe_load(text) for name, version, text in texts}
        rules.write_text(json.dumps(known, default=str))
        command = [sys.executable, checker.__file__, database(), "--final"]
        command += ["--history", self.record.path, "--rules", rules, "--logs", self.folder]
        command += ["--checkpoints", self.vault.file]
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=self.folder, env={"PATH": os.defpath}, check=False
        )
        assert done.stderr == "", done.stderr[-3000:]
        return done.stdout.splitlines()
