"""Measure the figures of design.md section 12 on this machine, as a table (docs/bench.md says how to read it)."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser

from upgrades.bench import capacity, gates, parts, people, place
from upgrades.bench.figures import Figure, table
from upgrades.bench.scene import Team
from upgrades.services.procedures import publish_all

INSIDE = "RUNBOOK_BENCH_INSIDE"  # set for the second start, whose settings name the benchmark's own database


class Command(BaseCommand):
    help = (
        "Measures how fast gates open and what the parts cost, in a database of its own, and prints a table."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--gates", type=int, default=20, help="gates that wait at the same time")
        parser.add_argument(
            "--agents", type=int, default=0, help="agents in all; left out: two for each gate"
        )
        parser.add_argument("--repeats", type=int, default=40, help="lines that are written, one at a time")
        parser.add_argument("--workers", type=int, default=2, help="processes of the worker")
        parser.add_argument(
            "--no-browser", action="store_true", help="a client of the stream instead of Chromium"
        )
        parser.add_argument(
            "--only", choices=("gates", "parts", "people", "capacity"), help="one part of the figures"
        )

    def handle(self, *_: Any, **options: Any) -> None:
        if options["gates"] < 1 or options["repeats"] < 1:
            raise CommandError("--gates and --repeats are numbers from 1 on.")
        if INSIDE not in os.environ:
            self._start_again()
            return
        call_command("migrate", verbosity=0)
        publish_all()
        try:
            figures = self._measure(options)
        except place.CannotMeasure as reason:
            raise CommandError(str(reason)) from reason
        self.stdout.write(f"{machine()}\n\n{table(figures)}")

    def _start_again(self) -> None:
        try:
            with place.own_stores() as environment:
                done = subprocess.run(
                    [sys.executable, "manage.py", *sys.argv[1:]],
                    cwd=settings.BASE_DIR,
                    env={**environment, INSIDE: "1"},
                    check=False,
                )
        except place.CannotMeasure as reason:
            raise CommandError(str(reason)) from reason
        if done.returncode:
            raise CommandError("Nothing was measured; the lines above say why.")

    def _measure(self, options: dict[str, Any]) -> list[Figure]:
        team = Team()
        figures: list[Figure] = []
        only = options["only"]
        if only in (None, "gates"):
            size = gates.Size(
                options["gates"],
                max(options["agents"], 2 * options["gates"]),
                options["repeats"],
                options["workers"],
            )
            figures += gates.measure(size, team, self._say, browser=not options["no_browser"])
        if only in (None, "parts"):
            figures += parts.measure(team, self._say)
        if only in (None, "people"):
            figures += people.measure(team, self._say)
        if only in (None, "capacity"):
            figures += capacity.measure(team, self._say)
        return figures

    def _say(self, line: str) -> None:
        self.stderr.write(line)


def machine() -> str:
    """What it was measured on, as far as it can be told without names."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    load = f", load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    python = platform.python_version()
    return f"{cores} cores ({platform.machine()}), {platform.system()}, Python {python}{load}"
