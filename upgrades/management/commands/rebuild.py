"""`manage.py rebuild`: the rows that pages query, written anew from the record."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from upgrades.models import Run
from upgrades.services.projections import rebuild


class Command(BaseCommand):
    help = "Writes the rows that lists and pages query anew from the events of the runs (default: of all)."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("run", nargs="*", type=int, help="number of a run")

    def handle(self, *_args: Any, **options: Any) -> None:
        runs = wanted(options["run"])
        for done, run_id in enumerate(runs, 1):
            rebuild(run_id)
            self.stdout.write(f"run {run_id} rebuilt ({done} of {len(runs)})")
        self.stdout.write("All done." if runs else "There are no runs yet.")


def wanted(chosen: list[int]) -> list[int]:
    """The numbers of the chosen runs, or of all; a CommandError names those that are not there."""
    if not chosen:
        return list(Run.objects.order_by("pk").values_list("pk", flat=True))
    there = set(Run.objects.filter(pk__in=chosen).values_list("pk", flat=True))
    missing = [str(run_id) for run_id in chosen if run_id not in there]
    if missing:
        raise CommandError(f"There is no run {', '.join(missing)}.")
    return chosen
