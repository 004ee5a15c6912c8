"""A clock that the programs of Runbook go by and that can be set while they run: libfaketime (Debian's package `faketime`)."""

from pathlib import Path

LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))


class Clock:
    """`environment` has a program go by it; the others, agents and stores among them, go by the true one."""

    def __init__(self, file):
        self._file = file
        self.set(0)
        self.environment = {
            "LD_PRELOAD": str(LIBRARIES[0]),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, seconds):
        """So many seconds ahead of the true time from now on, or behind it; programs see it within a second."""
        fresh = self._file.with_suffix(".new")
        fresh.write_text(f"{seconds:+d}")
        fresh.replace(self._file)
