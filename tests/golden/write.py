"""`make golden`: the histories of the present release, written anew. Those of earlier releases are never touched."""

import os
import shutil
import sys

import django


def main():
    os.environ["DJANGO_SETTINGS_MODULE"] = "runbook.check_settings"
    django.setup()
    from django.conf import settings

    from tests.golden.courses import COURSES
    from tests.golden.replay import HERE, written

    folder = HERE / settings.RELEASE
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, course in COURSES.items():
        lines = written(course)
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
        sys.stdout.write(f"{name}: {len(lines)} events\n")


if __name__ == "__main__":
    main()
