"""Worlds on an injected clock: no test waits for time to pass."""

import re

import pytest

from simulator.scenarios import SCENARIOS
from simulator.script import Person
from simulator.spec import frankfurt
from simulator.world import World

NOON = 1_764_072_000.0  # 2025-11-25T12:00:00Z

EVENT = re.compile(
    r"^(?:\d{4}-\d\d-\d\dT)?\d\d:\d\d:\d\d\.\d{3} (?:Std|Trc|Standard|Trace)\s+(?:.*GCTI-\d\d-)?(\d{5}) "
)
UPGRADE = {22170, 22171, 22172, 22902, 22911, 25300, 25301, 25302, 25303}


class Clock:
    def __init__(self, now=NOON):
        self.now = now

    def __call__(self):
        return self.now


class Stage:
    """A world with its clock and a person who plays steps in it."""

    def __init__(self, root, spec):
        self.clock = Clock()
        self.world = World.create(spec, root, self.clock)
        self.roles = {"new": "confserv_b", "old": "confserv"}
        scenario = self.world.scenario
        parameters = {"target": self.world.spec["target"], "database-upgraded": scenario.database_upgraded}
        self.person = Person(self.world.act, self.roles, parameters)

    def wait(self, seconds=60.0):
        """Let so much time pass, effect by effect."""
        until = self.clock.now + seconds
        while (due := self.world.next_due()) is not None and due <= until:
            self.clock.now = max(self.clock.now, due)
            self.world.advance()
        self.clock.now = until

    def play(self, *steps):
        for step in steps:
            self.person.play(step)
            self.wait()

    def play_until(self, last):
        """Play the scenario's steps up to and with `last`."""
        steps = self.world.scenario.steps
        self.play(*steps[: steps.index(last) + 1])

    def server(self, name):
        return self.world.servers[name]

    def files(self, name):
        return sorted(self.world.disk.logs(self.server(name)).glob("*.log"))

    def log(self, name):
        return "".join(path.read_text() for path in self.files(name))

    def numbers(self, name, only=UPGRADE):
        """The event numbers in the server's log, in file order, those of `only`."""
        found = [int(match[1]) for line in self.log(name).splitlines() if (match := EVENT.match(line))]
        return [number for number in found if number in only]

    def launch(self, name="confserv_b"):
        """The upgrade events of the log without the repeated 25302."""
        return [number for number in self.numbers(name) if number != 25302]


@pytest.fixture
def stage(tmp_path):
    """Make a stage: `stage("forced")`, `stage("automatic", speed=10)`."""

    def make(scenario="automatic", **changes):
        assert scenario in SCENARIOS
        return Stage(tmp_path / "world", {**frankfurt(scenario), **changes})

    return make
