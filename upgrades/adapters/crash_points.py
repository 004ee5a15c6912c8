"""Crash points: places at which the fault harness (tests/torture) kills the process, to see that nothing is lost.

`crash("name")` does nothing where RUNBOOK_CRASH_AT is not set, and the settings refuse that variable where Runbook serves
over HTTPS. It names a folder: a file `name@3` there kills, without any goodbye, the process that passes the point for the
third time from then on, whichever of them that is, and is called `name.hit` afterwards.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

VARIABLE = "RUNBOOK_CRASH_AT"


def _pass_by(_name: str) -> None:
    """What a crash point is in production."""


def crash_in(folder: Path) -> Callable[[str], None]:
    """What a crash point is where the harness has armed some in `folder`."""

    def crash_if_armed(name: str) -> None:
        for armed in folder.glob(f"{name}@*"):
            left = int(armed.name.rpartition("@")[2])
            try:  # renaming is one step: of several that pass at once, one counts down
                armed.rename(folder / (f"{name}@{left - 1}" if left > 1 else f"{name}.hit"))
            except FileNotFoundError:
                continue
            if left <= 1:
                os.kill(os.getpid(), signal.SIGKILL)

    return crash_if_armed


_folder = os.environ.get(VARIABLE, "")
crash: Callable[[str], None] = crash_in(Path(_folder)) if _folder else _pass_by
