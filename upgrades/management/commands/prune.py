"""`manage.py prune`: remove what agents reported and nobody need keep; or say how long an environment keeps it."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from upgrades.domain.refusal import Refused
from upgrades.models import Environment
from upgrades.services import retention


class Command(BaseCommand):
    help = (
        "Removes log lines, process changes and rows of log files that are older than each environment keeps them and that no "
        "run refers to. Workers do the same once a day. Chains, register, checkpoints and evidence files are never touched."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--keep",
            metavar="ENVIRONMENT=DAYS",
            help="only set how long an environment keeps them: not shorter than RUNBOOK_KEEP_DAYS",
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        if options["keep"] is not None:
            self._keep(options["keep"])
            return
        for environment in Environment.objects.order_by("name", "pk"):
            found = retention.prune(environment.pk, timezone.now())
            while found.any:
                self.stdout.write(
                    f"{environment.name}: {found.lines} lines, {found.changes} process changes and {found.files} files "
                    f"older than {retention.days_kept(environment)} days were removed."
                )
                if not found.more:
                    break
                found = retention.prune(environment.pk, timezone.now())

    def _keep(self, wanted: str) -> None:
        name, _, days = wanted.rpartition("=")
        environment = Environment.objects.filter(name=name, rehearsal_of=None).first()
        if environment is None or not days.isascii() or not days.isdigit():
            raise CommandError(f"{wanted!r} does not name an environment and a number of days, as Lab=800.")
        try:
            kept = retention.keep(environment.pk, int(days))
        except Refused as refusal:
            raise CommandError(refusal.message) from refusal
        self.stdout.write(f"{name} keeps what agents reported for {kept} days.")
