"""`manage.py seed_demo`: the people and the simulated environment of the demo."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from upgrades.domain.refusal import Refused
from upgrades.services import demo


class Command(BaseCommand):
    help = "Makes the demo's people and its simulated environment; run again, it changes nothing."

    def handle(self, *_args: Any, **_options: Any) -> None:
        try:
            environment = demo.seed()
        except Refused as refusal:
            raise CommandError(f"The demo's environment cannot be made. {refusal.message}") from refusal
        names = [role.value for role in demo.PEOPLE]
        self.stdout.write(
            f"Sign in as {', '.join(names[:-1])} or {names[-1]}; the password of each is {demo.PASSWORD}"
        )
        self.stdout.write(f"The environment to begin with: {environment.name}")
