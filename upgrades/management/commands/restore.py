"""`manage.py restore DIR`: a backup into an empty place."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from upgrades.domain.refusal import Refused
from upgrades.services.backups import restore


class Command(BaseCommand):
    help = (
        "Puts a backup into the empty database of DATABASE_URL and the empty EVIDENCE_FOLDER, checks every chain, signature and "
        "file, and enters the restore in the register. Run it as the role that is to own the tables. Nothing that is there "
        "is ever replaced."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("folder", type=Path, help="what `manage.py backup` has written")
        parser.add_argument(
            "--checkpoints",
            type=Path,
            metavar="FILE",
            help="checkpoints that were kept outside: what they know and the backup does not is told as lost",
        )
        parser.add_argument(
            "--sha256", default="", metavar="HASH", help="of the manifest, as `backup` printed it"
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        folder = options["folder"].absolute()
        try:
            done = restore(folder, outside=options["checkpoints"], expected=options["sha256"])
        except Refused as refusal:
            raise CommandError(refusal.message) from None
        except OSError as trouble:
            raise CommandError(
                f"The restore was not finished: {trouble}. Empty database and EVIDENCE_FOLDER before you try again."
            ) from None
        told = done.manifest
        self.stdout.write(
            f"{told.runs} runs with {told.events} events of {told.made_at} are back, and every record is what was written."
        )
        if done.lost:
            self.stdout.write(
                f"LOST: checkpoints from {done.lost[0]} to {done.lost[-1]} left the system after this backup was made. What "
                "people did between them is not here; the register says so. Move that file of checkpoints to the auditors before "
                "`manage.py sign_checkpoints` starts with a new one."
            )
        for line in told.broken:
            self.stdout.write(f"Broken already when the backup was made: {line}")
        roles = "".join(f", `manage.py restrict_role {name}`" for name in told.roles)
        self.stdout.write(f"Now run: `manage.py migrate`{roles}, `manage.py preflight`.")
