"""`manage.py sign_checkpoints`: the process that signs checkpoints, and nothing else."""

import logging
import signal
import threading
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand
from django.db import DatabaseError, connection
from django.utils import timezone

from upgrades.adapters.alive import tell_alive
from upgrades.services.checkpoints import Checkpointer, Places

READY = "checkpoints: looking"
logger = logging.getLogger(__name__)


class Command(BaseCommand):
    help = (
        "Signs a checkpoint of the record at least every five minutes while it grows, and at once after gates, approvals and "
        "ends of runs. Run one of it, under an account that alone can read CHECKPOINT_KEY_FILE."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--once", action="store_true", help="look once and end")
        parser.add_argument("--every", type=float, default=2.0, help="seconds between two looks (default: 2)")

    def handle(self, *_args: Any, **options: Any) -> None:
        checkpointer = Checkpointer(
            Places(
                key=settings.CHECKPOINT_KEY_FILE,
                origin=settings.CHECKPOINT_ORIGIN,
                file=settings.CHECKPOINT_FILE,
                mail_to=settings.CHECKPOINT_MAIL_TO,
            )
        )
        if options["once"]:
            number = checkpointer.tick(timezone.now())
            self.stdout.write(f"Checkpoint {number} is signed." if number else "No checkpoint is due.")
            return
        ended = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: ended.set())
        self.stdout.write(READY)
        while not ended.is_set():
            try:
                checkpointer.tick(timezone.now())
                tell_alive()
            except (DatabaseError, OSError):
                logger.exception("this look failed; the next one follows")
                connection.close()
            ended.wait(options["every"])
