"""`manage.py reset_account NAME`: for whoever has lost their second factor, or whose account may be in other hands."""

from __future__ import annotations

from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError, CommandParser

from upgrades.services.calendar_feed import revoke_feed
from upgrades.services.members import one_spelling
from upgrades.services.sign_in import forget_factors
from upgrades.services.tokens import revoke_all


class Command(BaseCommand):
    help = (
        "Takes a person's passkeys, authenticator app and recovery codes away, ends all of their sessions, and revokes "
        "their API tokens and the address of their calendar."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", help="The name that the person signs in with.")

    def handle(self, *, name: str, **_: Any) -> None:
        person = get_user_model().objects.filter(username__iexact=one_spelling(name)).first()
        if person is None:
            raise CommandError(f"Nobody signs in as “{name}”. Check the spelling.")
        factors, sessions = forget_factors(person)  # first: without a session nobody makes a token
        tokens = revoke_all(person)
        calendar = "the calendar address revoked" if revoke_feed(person) else "no calendar address"
        self.stdout.write(
            f"{person.get_username()}: {factors} factors taken away, {sessions} sessions ended, {tokens} API tokens "
            f"revoked, {calendar}. With a password they sign in again and set up a new factor; "
            "`manage.py changepassword` renews it."
        )
