"""`manage.py export_environment "Production" > production.yaml`: an environment as a file."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from upgrades.models import Environment
from upgrades.queries.environment_export import exported


class Command(BaseCommand):
    help = "Writes an environment as CSV or YAML; docs/environments.md describes both. Keys of agents are not in it."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("environment", help="its name or its number")
        parser.add_argument("--form", choices=("yaml", "csv"), default="yaml")
        parser.add_argument("--separator", choices=(",", ";"), default=",", help="of the CSV")

    def handle(self, *_args: Any, **options: Any) -> None:
        environment = find(options["environment"])
        text = exported(environment, options["form"], options["separator"])
        # The file has its own line ends.
        self.stdout.write(text, ending="")


def find(name: str) -> Environment:
    """The environment of this name or number, for these commands."""
    known = Environment.objects.filter(rehearsal_of=None)
    found = known.filter(name=name).first()
    if found is None and name.isascii() and name.isdigit() and len(name) < 18:
        found = known.filter(pk=int(name)).first()
    if found is None:
        names = ", ".join(f"“{one}”" for one in known.values_list("name", flat=True)[:20])
        raise CommandError(f"There is no environment “{name}”. There are: {names or 'none yet'}.")
    return found
