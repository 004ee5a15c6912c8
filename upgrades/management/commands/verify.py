"""`manage.py verify`: is the record what was written? Exit code 1 when it is not."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from upgrades.adapters.checkpoint_store import KnownKey
from upgrades.domain.checkpoint import read_key
from upgrades.management.commands.rebuild import wanted
from upgrades.services.record import broken_record, broken_runs

KEEP = (
    "Keep the database and the files as they are, and compare with a backup, with exported bundles and with the checkpoints "
    "that were kept outside."
)


class Command(BaseCommand):
    help = (
        "Checks the whole record: the chain of every run, the register, the checkpoints and their signatures, and the files "
        "of evidence. Names the first broken record of each. With numbers of runs, only their chains are checked."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("run", nargs="*", type=int, help="number of a run")
        parser.add_argument(
            "--checkpoints", type=Path, metavar="FILE", help="checkpoints that were kept outside the database"
        )
        parser.add_argument(
            "--key",
            type=Path,
            metavar="FILE",
            help="public keys that were kept outside, oldest first; each later one behind the number of its first checkpoint",
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        runs = wanted(options["run"])
        if options["run"]:
            found = [
                f"run {run_id}: broken at event {link.seq}: {link.reason}"
                for run_id, link in broken_runs(runs)
                if link is not None
            ]
        else:
            try:
                found = [
                    str(broken) for broken in broken_record(options["checkpoints"], _keys(options["key"]))
                ]
            except OSError as trouble:
                raise CommandError(f"A file cannot be read: {trouble}.") from None
        for line in found:
            self.stderr.write(line)
        if found:
            raise CommandError(f"The record is not what was written ({len(found)} found). {KEEP}")
        self.stdout.write(f"{len(runs)} runs checked: every record is what was written.")


def _keys(path: Path | None) -> list[KnownKey]:
    """As `verify_record.py` reads them: the oldest key signed from the first checkpoint on, whatever is not said."""
    if path is None:
        return []
    try:
        lines = [line.partition(" ") for line in map(str.strip, path.read_text().splitlines()) if line]
        keys = [
            KnownKey(read_key(text or number), int(number) if text else 0 if place else 1)
            for place, (number, _, text) in enumerate(lines)
        ]
    except ValueError as mistake:
        raise CommandError(f"{path} holds no public key: {mistake}.") from None
    if not keys:
        raise CommandError(f"{path} holds no key.")
    begun = [item.first for item in keys if item.first]
    if begun != sorted(set(begun)):
        raise CommandError(
            f"The keys in {path} are not in the order of their first checkpoints, oldest first."
        )
    return keys
