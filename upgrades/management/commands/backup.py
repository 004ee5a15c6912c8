"""`manage.py backup DIR`: everything of one moment, in a folder of its own."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from upgrades.domain.refusal import Refused
from upgrades.services.backups import back_up


class Command(BaseCommand):
    help = (
        "Writes the database, the evidence files and the checkpoints of one moment into a new folder, with a manifest of "
        "hashes. People may go on working meanwhile. Needs read access to EVIDENCE_FOLDER. The key that signs checkpoints "
        "and SECRET_KEY are not in it: keep copies of those elsewhere."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("folder", type=Path, help="a folder that is new or empty")

    def handle(self, *_args: Any, **options: Any) -> None:
        folder = options["folder"].absolute()
        try:
            done = back_up(folder)
        except Refused as refusal:
            raise CommandError(refusal.message) from None
        except OSError as trouble:
            raise CommandError(
                f"The backup was not finished: {trouble}. Remove {folder} before you try again."
            ) from None
        told = done.manifest
        self.stdout.write(
            f"{folder}: {told.runs} runs with {told.events} events, {len(told.files)} files, checkpoint {told.checkpoint}."
        )
        self.stdout.write(f"SHA-256 of its manifest, to keep elsewhere: {done.hash}")
        if told.broken:
            lines = "\n".join(f"  {line}" for line in told.broken[:20])
            raise CommandError(
                f"The backup is whole, but the record is not what was written:\n{lines}\n"
                "Keep it, and compare with earlier backups before you remove any of them."
            )
