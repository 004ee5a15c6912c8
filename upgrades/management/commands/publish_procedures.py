"""`manage.py publish_procedures`: the procedure texts of this release become versions that never change."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from upgrades.domain.refusal import Refused
from upgrades.procedures.mistakes import ProcedureMistakes
from upgrades.services.procedures import FOLDER, publish_all


class Command(BaseCommand):
    help = "Publishes upgrades/procedures/*/<version>.yaml. A published text never changes."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--folder", type=Path, default=FOLDER, help="where <procedure>/<version>.yaml lie"
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        try:
            published = publish_all(options["folder"])
        except (Refused, ProcedureMistakes) as refusal:
            raise CommandError(str(refusal)) from refusal
        for one in published:
            self.stdout.write(
                f"{one.procedure} {one.version}: {'published' if one.is_new else 'is published'}"
            )
