"""The history: what the clients of a torture saw and what was done to them, one JSON object a line, with monotonic time.

An act is `ok` (its answer says that it was done), `refused` (its answer says that nothing was), or `unknown`: no answer, or
one that does not say. Unknown is a class of its own: what was done although nobody could tell is no failure.
"""

import json
import threading
import time


class History:
    """Appends to a file that several processes may write: each line goes in one write."""

    def __init__(self, path):
        self.path = path
        self._file = path.open("ab", buffering=0)
        self._lock = threading.Lock()

    def note(self, kind, **values):
        line = json.dumps({"t": round(time.monotonic(), 4), "kind": kind, **values}, default=str)
        with self._lock:
            self._file.write(line.encode() + b"\n")

    def close(self):
        self._file.close()


def read(path):
    """The whole lines of a history as dictionaries."""
    found = []
    for line in path.read_text(errors="replace").splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found
