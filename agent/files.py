"""The logs of one application: which files there are, what makes each one itself, and its lines from an offset on.

Nothing is remembered that matters: identity and content come from the files each time. Between looking at a file and
reading it, it may be rotated, truncated or exchanged; so identity and mark are read again from the very descriptor
that the data came from, before and after, and whatever changed meanwhile is looked at afresh (`Changed`).
"""

import fnmatch
import hashlib
import os
import re
import sys
from typing import Dict, List, NamedTuple, Optional, Tuple

from agent import lines
from agent.folders import Folder, Refused, read_at, refuse_unless_regular
from agent.messages import LINE_LIMIT, MARK_LENGTH, mark_of

SILENCE = 60.0  # seconds without a new byte after which an unfinished last line is taken as it is
# A newer file has begun: whoever wrote the older one is done with it, so its last line need not be waited for long.
SILENCE_OF_OLDER = 2.0
FIRST_LIMIT = 160  # bytes of the first line that a listing shows
FILES_LIMIT = 2000  # files of one application

_STAMP = re.compile(r"\d{8}_\d{6}(?:_\d{3})?", re.ASCII)
_ATTEMPTS = 50


class Changed(Exception):
    """The file under this name is no longer the one that was looked at."""


class LogFile(NamedTuple):
    """A file that has at least its first line. `modified` in nanoseconds since 1970."""

    name: str
    identity: str
    size: int
    modified: int
    first: bytes


class Listing(NamedTuple):
    """What the folder holds, oldest first. Only where `complete` is true does a file that is missing here not exist."""

    files: List[LogFile]
    trouble: List[str]
    complete: bool


class Part(NamedTuple):
    """A stretch of one file; state `shrunk` (with the reason) where the cursor no longer fits the file."""

    piece: lines.Piece
    start: int
    size: int
    mark: str
    state: str
    reason: str


class LogFolder:
    """The files of one folder whose names fit the pattern; the folders below it are not looked at."""

    def __init__(self, path: str, pattern: str) -> None:
        self._path = path
        self._pattern = pattern
        self._known: Dict[Tuple[object, ...], Tuple[str, bytes]] = {}

    def glance(self) -> object:
        """Something cheap that differs as soon as a file came, went or grew."""
        try:
            with Folder(self._path) as folder:
                states = []
                for name in self._matching(folder):
                    found = folder.examine(name)
                    states.append((name, found.st_ino, found.st_size, found.st_mtime_ns))
                return states
        except OSError as error:
            return error.errno

    def list(self) -> Listing:
        """The files as they are now, looked at again while the folder changes under our eyes."""
        try:
            for _ in range(_ATTEMPTS):
                listing, settled = self._look()
                if settled:
                    return listing
        except OSError as error:
            return Listing([], ["The log folder cannot be read: %s." % _why(error)], False)
        return Listing([], ["The log folder changes faster than it can be read."], False)

    def read(self, file: LogFile, start: int, mark: str, room: int, now: float, older: bool) -> Part:
        """The lines of a file from `start` on; Changed, Refused or OSError if it cannot be read as what it was."""
        with Folder(self._path) as folder:
            descriptor = folder.open(file.name)
        try:
            found = os.fstat(descriptor)
            self._refuse_other(descriptor, found, file)
            reason = _misfit(descriptor, found.st_size, start, mark)
            if reason:
                return Part(lines.Piece(b"", (), start, False), start, found.st_size, "", "shrunk", reason)
            silent = now - found.st_mtime >= (SILENCE_OF_OLDER if older else SILENCE)
            piece = lines.take(
                lambda at, count: read_at(descriptor, at, count), start, found.st_size, room, silent
            )
            new_mark = _mark_at(descriptor, piece.end)
            after = os.fstat(descriptor)
            self._refuse_other(descriptor, after, file)
            if after.st_size < piece.end or _misfit(descriptor, after.st_size, start, mark):
                raise Changed
            return Part(piece, start, found.st_size, new_mark, "open", "")
        finally:
            os.close(descriptor)

    def end_of_last_line(self, file: LogFile) -> int:
        """The offset at which the last whole line ends; Changed, Refused or OSError as for `read`."""
        with Folder(self._path) as folder:
            descriptor = folder.open(file.name)
        try:
            self._refuse_other(descriptor, os.fstat(descriptor), file)
            return lines.end_of_last_line(lambda at, count: read_at(descriptor, at, count), file.size)
        finally:
            os.close(descriptor)

    def _matching(self, folder: Folder) -> List[str]:
        match = fnmatch.fnmatch if sys.platform == "win32" else fnmatch.fnmatchcase
        return sorted(name for name in folder.names() if match(name, self._pattern))

    def _look(self) -> Tuple[Listing, bool]:
        """One look at the folder, and whether the names and what they stand for stayed the same during it."""
        files: Dict[str, LogFile] = {}
        trouble: List[str] = []
        known: Dict[Tuple[object, ...], Tuple[str, bytes]] = {}
        vanished = unreadable = False
        with Folder(self._path) as folder:
            names = self._matching(folder)
            if len(names) > FILES_LIMIT:
                text = "More than %d files fit the pattern %s: narrow it, or move old files away."
                return Listing([], [text % (FILES_LIMIT, self._pattern)], False), True
            before = _places(folder, names)
            for name in names:
                try:
                    file = self._look_at(folder, name, known)
                except FileNotFoundError:
                    vanished = True
                except Refused as refusal:
                    trouble.append("%s is not read: %s." % (shown(name), refusal))
                except OSError as error:
                    trouble.append("%s cannot be read: %s." % (shown(name), _why(error)))
                    unreadable = True
                else:
                    if file and file.identity in files:
                        other = shown(files[file.identity].name)
                        trouble.append("%s is not read: it is the same file as %s." % (shown(name), other))
                    elif file:
                        files[file.identity] = file
            settled = not vanished and _places(folder, self._matching(folder)) == before
        self._known = known
        return Listing(_in_order(list(files.values())), trouble, not unreadable), settled

    def _look_at(
        self, folder: Folder, name: str, known: Dict[Tuple[object, ...], Tuple[str, bytes]]
    ) -> Optional[LogFile]:
        """The file under a name; None while its first line is unfinished."""
        found = folder.examine(name)
        refuse_unless_regular(found)
        key = (name, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        if (
            sys.platform == "win32" or key not in self._known
        ):  # lstat has no file index on older Windows Pythons
            descriptor = folder.open(name)
            try:
                found = os.fstat(descriptor)
                key = (name, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
                known[key] = identify(descriptor, found)
            finally:
                os.close(descriptor)
        else:
            known[key] = self._known[key]
        identity, first = known[key]
        return LogFile(name, identity, found.st_size, found.st_mtime_ns, first) if identity else None

    @staticmethod
    def _refuse_other(descriptor: int, found: os.stat_result, file: LogFile) -> None:
        if identify(descriptor, found)[0] != file.identity:
            raise Changed


def identify(descriptor: int, found: os.stat_result) -> Tuple[str, bytes]:
    """Identity and beginning of the first line; both empty while that line is unfinished and not too long."""
    head = read_at(descriptor, 0, 1024)
    if b"\n" not in head:
        head = read_at(descriptor, 0, LINE_LIMIT)
    end = head.find(b"\n") + 1
    if not end and len(head) < LINE_LIMIT:
        return "", b""
    first = head[:end] if end else head
    digest = hashlib.sha256(first).hexdigest()[:16]
    return "%x-%x-%s" % (found.st_dev, found.st_ino, digest), first[:FIRST_LIMIT]


def _misfit(descriptor: int, size: int, start: int, mark: str) -> str:
    """Why a cursor does not fit the file any more; empty if it does."""
    if start > size:
        return "The file has %d bytes, fewer than the %d that were read: it was truncated." % (size, start)
    if mark and _mark_at(descriptor, start) != mark:
        return "The bytes before offset %d are not those that were read: the file was written anew." % start
    return ""


def _mark_at(descriptor: int, offset: int) -> str:
    start = max(0, offset - MARK_LENGTH)
    return mark_of(read_at(descriptor, start, offset - start))


def _places(folder: Folder, names: List[str]) -> List[Tuple[str, int]]:
    places = []
    for name in names:
        try:
            places.append((name, folder.examine(name).st_ino))
        except OSError:
            places.append((name, -1))
    return places


def _in_order(files: List[LogFile]) -> List[LogFile]:
    """Oldest first: by the time of start in the names where all have one, else by the last change."""
    stamps = {file.name: _STAMP.search(file.name) for file in files}
    if all(stamps.values()):
        return sorted(files, key=lambda file: (_STAMP.findall(file.name)[-1], file.modified, file.name))
    return sorted(files, key=lambda file: (file.modified, file.name))


def shown(name: str) -> str:
    """A file's name as text that any store can hold."""
    return text_of(os.fsencode(name))


def text_of(raw: bytes) -> str:
    """Bytes as text that any store can hold: what is no UTF-8 becomes a replacement mark, NUL its picture."""
    return raw.decode("utf-8", "replace").replace("\x00", "\u2400")


def _why(error: OSError) -> str:
    return error.strerror or type(error).__name__
