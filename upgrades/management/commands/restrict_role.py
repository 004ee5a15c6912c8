"""`manage.py restrict_role NAME`: what the database role of web server and workers may do."""

import os
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from upgrades.adapters.database_role import restrict


class Command(BaseCommand):
    help = (
        "Gives a database role the rights of the application and no others: it may append to the record and read it, "
        "never change it. Run it as the owner of the tables after each migrate. A missing role is made; its password is "
        "taken from APP_DATABASE_PASSWORD, where that is set."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("role", help="name of the role, as runbook_app")

    def handle(self, *_args: Any, **options: Any) -> None:
        role = options["role"]
        made = restrict(role, os.environ.get("APP_DATABASE_PASSWORD") or None)
        self.stdout.write(
            f"The role {role} {'was made and ' if made else ''}may append to the record and read it, and change nothing in it."
        )
