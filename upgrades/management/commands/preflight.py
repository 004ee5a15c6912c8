"""`manage.py preflight`: may this installation go into service? Exit code 1 when it may not."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from upgrades.services.preflight import Verdict, examine


class Command(BaseCommand):
    help = (
        "Asks PostgreSQL, Redis, Celery and the settings whether this installation is safe, and refuses what is not, with a "
        "sentence that says what to do. What could not be seen does not pass. Run it with the environment, and under the "
        "account, of the web server."
    )
    requires_system_checks = ()  # it is to tell all that is wrong, not to stop at what Django finds first

    def handle(self, *_args: Any, **_options: Any) -> None:
        findings = examine()
        for finding in findings:
            self.stdout.write(f"{finding.verdict:<18} {finding.subject}: {finding.text}")
        held = [finding for finding in findings if not finding.passes]
        if held:
            refused = sum(finding.verdict is Verdict.REFUSED for finding in held)
            raise CommandError(
                f"Not fit for service: {refused} refused, {len(held) - refused} could not be seen. "
                "Nothing was changed; correct what is named above and run this again."
            )
        self.stdout.write("Fit for service.")
