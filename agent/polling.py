"""Questions about logs, answered: which files there are, and what is new since the cursors that the asker holds."""

import base64
import threading
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

from agent import probes
from agent.configuration import Application, Configuration
from agent.files import Changed, Listing, LogFile, LogFolder, Part, shown, text_of
from agent.folders import Refused
from agent.messages import DATA_LIMIT, LINE_LIMIT, Cursor

GLANCE = 0.02  # seconds between two glances at the folders while a poll waits for news
SWEEP = 1.0  # seconds after which everything is looked at again, glance or not (silence, processes)
PROCESS_AGE = 0.5
ENTRY = 2048  # bytes of an answer's room that a file takes beside its data: a name can be long
_GLANCE_SHARE = 20  # a glance may cost a twentieth of the time: in large folders they are rarer
_ATTEMPTS = 20

_NO_LOG = "The agent's configuration names no log for this application."


class Question(NamedTuple):
    """What a poll asks: the applications, how far their files were read, the process states known, how long to wait."""

    applications: Tuple[str, ...]
    cursors: Tuple[Cursor, ...]
    processes: Dict[str, str]
    wait: float


class Watched:
    """One application's log and process as the agent sees them."""

    def __init__(self, application: Application) -> None:
        self.application = application
        log = application.log
        self.log = LogFolder(log.folder, log.pattern) if log else None
        self._process = (0.0, probes.Process("unknown", None, None, ""))

    def process(self) -> Dict[str, str]:
        """The process as it was within the last half second: a busy log must not make us look at it all the time."""
        seen, found = self._process
        if not found.reason or time.monotonic() - seen > PROCESS_AGE:
            seen, found = self._process = (time.monotonic(), probes.process(self.application))
        return {"state": found.state, "reason": found.reason}

    def listing(self) -> Listing:
        return self.log.list() if self.log else Listing([], [_NO_LOG], True)


class Logs:
    """All applications of the configuration. Safe to ask from several threads.

    `now` is seconds since 1970; `room` the bytes of data in one answer, never less than one line needs.
    """

    def __init__(
        self, configuration: Configuration, now: Callable[[], float] = time.time, room: int = DATA_LIMIT
    ) -> None:
        self.watched = {item.name: Watched(item) for item in configuration.applications}
        self._now = now
        self._room = room
        self._turn = 0
        self._lock = threading.Lock()

    def list(self, applications: Tuple[str, ...]) -> Dict[str, Any]:
        """Per application its process and files, oldest first, with sizes: a watermark is taken from this."""
        return {name: self._list_one(self.watched[name]) for name in applications}

    def _list_one(self, watched: Watched) -> Dict[str, Any]:
        for _ in range(_ATTEMPTS):
            listing = watched.listing()
            try:
                files = [_listed(watched, file) for file in listing.files]
            except (Changed, OSError, Refused):
                continue
            break
        else:
            listing, files = Listing([], ["The log files change faster than they can be read."], False), []
        return {
            "process": watched.process(),
            "files": files,
            "complete": listing.complete,
            "trouble": listing.trouble,
        }

    def poll(
        self, question: Question, alive: Callable[[], bool], ending: Callable[[], bool] = lambda: False
    ) -> Optional[Dict[str, Any]]:
        """What is new, as soon as something is, at the latest after the wait; None if the asker went away.

        Once `ending` is true, nothing is waited for any more.
        """
        end = time.monotonic() + question.wait
        while True:
            glance = self._glance(question)
            found, news = self._look(question)
            if news or time.monotonic() >= end or ending():
                return found
            if not self._wait(question, glance, min(end, time.monotonic() + SWEEP), alive, ending):
                return None

    def _wait(
        self,
        question: Question,
        before: object,
        until: float,
        alive: Callable[[], bool],
        ending: Callable[[], bool],
    ) -> bool:
        """Waits until a glance differs or the time has come; false if the asker went away."""
        while time.monotonic() < until and not ending():
            if not alive():
                return False
            began = time.monotonic()
            if self._glance(question) != before:
                return True
            pause = max(GLANCE, _GLANCE_SHARE * (time.monotonic() - began))
            time.sleep(max(0.0, min(pause, until - time.monotonic())))
        return alive()

    def _glance(self, question: Question) -> List[object]:
        logs = [self.watched[name].log for name in question.applications]
        return [log.glance() if log else None for log in logs]

    def _look(self, question: Question) -> Tuple[Dict[str, Any], bool]:
        """The answer as of now, and whether it has any news."""
        cursors = {(cursor.application, cursor.file): cursor for cursor in question.cursors}
        found, news, room = {}, False, self._room
        left = len(question.applications)
        for name in self._in_turn(question.applications):
            # A fair share each, so that one large backlog does not keep the others waiting.
            share = max(room // left, min(room, LINE_LIMIT + 1))
            left -= 1
            watched = self.watched[name]
            own = {file: cursor for (application, file), cursor in cursors.items() if application == name}
            files, listing, used = _news_of(watched, own, share, self._now)
            room -= used
            process = watched.process()
            known = question.processes.get(name)
            news = news or bool(files) or known not in (None, process["state"])
            found[name] = {
                "process": process,
                "files": files,
                "complete": listing.complete,
                "trouble": listing.trouble,
            }
        return found, news

    def _in_turn(self, names: Tuple[str, ...]) -> Tuple[str, ...]:
        """The names, each time beginning with another one: where room is short, it is not always the same's."""
        with self._lock:
            self._turn += 1
            first = self._turn % len(names) if names else 0
        return names[first:] + names[:first]


def _listed(watched: Watched, file: LogFile) -> Dict[str, Any]:
    assert watched.log is not None  # noqa: S101 - only a bug can list files of an application without a log
    return {
        "file": file.identity,
        "name": shown(file.name),
        "size": file.size,
        "whole": watched.log.end_of_last_line(file),
        "first": text_of(file.first.rstrip(b"\r\n")),
    }


def _news_of(
    watched: Watched, cursors: Dict[str, Cursor], room: int, now: Callable[[], float]
) -> Tuple[List[Dict[str, Any]], Listing, int]:
    """What is new in the files of one application, how the folder looked, and the bytes of data used."""
    for _ in range(_ATTEMPTS):
        listing = watched.listing()
        there = {file.identity for file in listing.files}
        gone = [_gone(cursors[file]) for file in cursors if file not in there and listing.complete]
        used = len(gone) * ENTRY
        if used > room:
            # Old files are removed by the thousand. No log is told before the rest of them is, with the next answers.
            gone, used = gone[: max(0, room) // ENTRY], max(0, room)
        try:
            parts = _parts(watched.log, listing.files, cursors, room - used, now) if watched.log else []
        except (Changed, FileNotFoundError):
            continue
        except (Refused, OSError) as error:
            reason = "A log file cannot be read: %s." % (getattr(error, "strerror", None) or error)
            return [], Listing([], listing.trouble + [reason], False), 0
        used += sum(len(part.piece.data) + ENTRY for _, part in parts)
        return gone + [_as_json(file, part) for file, part in parts], listing, used
    return [], Listing([], ["The log files change faster than they can be read."], False), 0


def _parts(
    log: LogFolder, files: List[LogFile], cursors: Dict[str, Cursor], room: int, now: Callable[[], float]
) -> List[Tuple[LogFile, Part]]:
    """The files' new stretches, oldest file first; a newer file waits until the older ones are read to their ends."""
    parts = []
    for index, file in enumerate(files):
        cursor = cursors.get(file.identity)
        start, mark = (cursor.offset, cursor.mark) if cursor else (0, "")
        if start == file.size and not mark:
            continue
        if room <= 0:
            break
        part = log.read(file, start, mark, room, now(), index < len(files) - 1)
        if part.state != "open" or part.piece.end > start:
            parts.append((file, part))
            room -= len(part.piece.data) + ENTRY
        if part.state == "open" and part.piece.end < part.size:
            break
    return parts


def _as_json(file: LogFile, part: Part) -> Dict[str, Any]:
    return {
        "file": file.identity,
        "name": shown(file.name),
        "size": part.size,
        "from": part.start,
        "to": part.piece.end,
        "data": base64.b64encode(part.piece.data).decode("ascii"),
        "partial": part.piece.partial,
        "cuts": [
            {"offset": cut.offset, "length": cut.length, "sha256": cut.sha256} for cut in part.piece.cuts
        ],
        "mark": part.mark,
        "state": part.state,
        "reason": part.reason,
    }


def _gone(cursor: Cursor) -> Dict[str, Any]:
    reason = "No file with this identity is in the folder: it was removed, emptied or written anew from its beginning."
    return {
        "file": cursor.file,
        "name": "",
        "size": 0,
        "from": cursor.offset,
        "to": cursor.offset,
        "data": "",
        "partial": False,
        "cuts": [],
        "mark": "",
        "state": "gone",
        "reason": reason,
    }
