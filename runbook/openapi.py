"""`python -m runbook.openapi FILE`: writes what the API offers to a file, as OpenAPI 3.1 tells it. Needs no store."""

import os
import sys
from pathlib import Path

import django


def write(file: Path) -> None:
    """The document anew."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "runbook.check_settings"
    django.setup()
    from upgrades.api.document import text  # not before Django is set up

    file.write_text(text())


if __name__ == "__main__":
    write(Path(sys.argv[1]))
