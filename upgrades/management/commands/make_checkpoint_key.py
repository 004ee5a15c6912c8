"""`manage.py make_checkpoint_key`: a new key that signs checkpoints."""

from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from upgrades.adapters.signing_key import make_key


class Command(BaseCommand):
    help = (
        "Makes a key in CHECKPOINT_KEY_FILE that the account of this process alone may read, and prints its public part for "
        "the auditors. To replace a key, move the old file away first: the old key signs nothing more from then on."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--if-missing", action="store_true", help="leave a key that is there as it is")

    def handle(self, *_args: Any, **options: Any) -> None:
        path = settings.CHECKPOINT_KEY_FILE
        try:
            key = make_key(path, settings.CHECKPOINT_ORIGIN)
        except FileExistsError:
            if options["if_missing"]:
                self.stdout.write(f"There is a key in {path}; it stays.")
                return
            raise CommandError(
                f"There is a key in {path} already, and checkpoints were signed with it. To replace it, move the file away."
            ) from None
        except OSError as trouble:
            raise CommandError(f"The key cannot be written to {path}: {trouble.strerror}.") from None
        self.stdout.write(key.public.text)
