"""`manage.py verify`: is the record of the runs what was written? Exit code 1 when it is not."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from upgrades.management.commands.rebuild import wanted
from upgrades.services.record import broken_runs


class Command(BaseCommand):
    help = "Checks the hash chain of the runs (default: of all) and names the first broken event of each."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("run", nargs="*", type=int, help="number of a run")

    def handle(self, *_args: Any, **options: Any) -> None:
        runs = wanted(options["run"])
        broken = 0
        for run_id, link in broken_runs(runs):
            if link is not None:
                broken += 1
                self.stderr.write(f"run {run_id}: broken at event {link.seq}: {link.reason}")
        if broken:
            raise CommandError(
                f"The record of {broken} of {len(runs)} runs is not what was written. Keep the database as it is "
                "and compare with a backup or an exported bundle."
            )
        self.stdout.write(f"{len(runs)} runs checked: every record is what was written.")
