"""`manage.py import_environment "Production" production.yaml --as sofia`: look at a file, and with --apply use it."""

import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any
from uuid import uuid4

from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandError

from upgrades.domain.environment_records import Change
from upgrades.domain.environment_text import MAX_BYTES
from upgrades.domain.refusal import Refused
from upgrades.management.commands.export_environment import find
from upgrades.models import Environment
from upgrades.services.environment_editing import create_environment
from upgrades.services.environment_import import File, Look, import_file, look


class Command(BaseCommand):
    help = "Shows what a CSV or YAML file would change in an environment, or every mistake of it; --apply applies it."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("environment", help="its name or its number")
        parser.add_argument("file", help="the file, or - for standard input")
        parser.add_argument(
            "--as", dest="user", required=True, help="user name of an administrator: goes on record"
        )
        parser.add_argument("--apply", action="store_true", help="apply it; without this nothing is changed")
        parser.add_argument(
            "--create", action="store_true", help="make the environment first, if it is not there"
        )
        parser.add_argument("--remove-unlisted", action="store_true", help="remove what is not in the file")

    def handle(self, *_args: Any, **options: Any) -> None:
        user = User.objects.filter(username=options["user"], is_active=True).first()
        if user is None:
            raise CommandError(f"There is no user “{options['user']}”.")
        file = _read(options["file"], remove_unlisted=options["remove_unlisted"])
        try:
            self._work(options, user, file)
        except Refused as refusal:
            raise CommandError(refusal.message) from refusal

    def _work(self, options: dict[str, Any], user: User, file: File) -> None:
        environment = _environment(options, user)
        if not options["apply"]:
            self._tell(look(environment, file))
            self.stdout.write("Nothing was changed. With --apply it is.")
            return
        found, done = import_file(environment_id=environment.pk, file=file, by=user)
        self._tell(found)
        self.stdout.write("Applied." if done is not None and done.number else "There was nothing to change.")

    def _tell(self, found: Look) -> None:
        """Remarks and changes; with mistakes these and the end."""
        for remark in found.remarks:
            self.stderr.write(f"worth knowing: {remark}")
        for mistake in found.mistakes:
            self.stderr.write(str(mistake))
        if found.mistakes:
            count = len(found.mistakes) + found.left_out
            raise CommandError(f"{count} mistakes. Nothing was changed.")
        for change in found.changes:
            self.stdout.write(_told(change))


def _read(name: str, *, remove_unlisted: bool) -> File:
    """The file, cut one byte beyond what is allowed: that is enough to know."""
    if name == "-":
        return File(name, sys.stdin.buffer.read(MAX_BYTES + 1), remove_unlisted)
    try:
        with Path(name).open("rb") as stream:
            return File(name, stream.read(MAX_BYTES + 1), remove_unlisted)
    except OSError as error:
        raise CommandError(f"{name} cannot be read: {error.strerror}.") from error


def _environment(options: dict[str, Any], user: User) -> Environment:
    name = options["environment"]
    if options["create"] and not Environment.objects.filter(name=name, rehearsal_of=None).exists():
        create_environment(name=name, by=user, command_id=uuid4())
    return find(name)


def _told(change: Change) -> str:
    lines = [f"{change.act} {change.kind} {change.name}"]
    lines += [
        f"    {one.title}: {one.before or 'not known'} -> {one.after or 'not known'}" for one in change.fields
    ]
    return "\n".join(lines)
