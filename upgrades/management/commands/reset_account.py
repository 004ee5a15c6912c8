"""`manage.py reset_account NAME`: for whoever has lost their second factor, or whose account may be in other hands."""

from __future__ import annotations

from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError, CommandParser

from upgrades.services.members import one_spelling
from upgrades.services.sign_in import forget_factors


class Command(BaseCommand):
    help = (
        "Takes a person's passkeys, authenticator app and recovery codes away and ends all of their sessions."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", help="The name that the person signs in with.")

    def handle(self, *, name: str, **_: Any) -> None:
        person = get_user_model().objects.filter(username__iexact=one_spelling(name)).first()
        if person is None:
            raise CommandError(f"Nobody signs in as “{name}”. Check the spelling.")
        factors, sessions = forget_factors(person)
        self.stdout.write(
            f"{person.get_username()}: {factors} factors taken away, {sessions} sessions ended. "
            "With a password they sign in again and set up a new factor; `manage.py changepassword` renews it."
        )
