"""Cutting a log into whole lines: a pure reader, bytes in, a piece of the file out."""

import hashlib
from typing import Callable, List, NamedTuple, Tuple

from agent.messages import LINE_LIMIT

# An unfinished line waits for its end, but not for ever: beyond this it is handed over as it is.
LONGEST_WAIT = 1024 * 1024
# Bytes that are looked at for one answer, so that a line of gigabytes cannot hold an answer back.
SCAN_LIMIT = 256 * 1024 * 1024
_BLOCK = 256 * 1024

Read = Callable[[int, int], bytes]  # offset and count to bytes; fewer bytes only where the file ends


class Cut(NamedTuple):
    """A stretch of a long line that does not travel: where, how many bytes, their SHA-256."""

    offset: int
    length: int
    sha256: str


class Piece(NamedTuple):
    """The bytes from the offset asked for up to `end`, without those in `cuts`; `partial`: the last line has no end."""

    data: bytes
    cuts: Tuple[Cut, ...]
    end: int
    partial: bool


def take(read: Read, start: int, size: int, room: int, silent: bool) -> Piece:
    """The next lines from `start`: whole ones only, at most `room` bytes, nothing beyond `size`.

    A last line without an end stays where it is unless the file has been `silent` long enough. From a line longer than
    LINE_LIMIT the first LINE_LIMIT bytes are taken; the rest, up to its line end, becomes a cut.
    """
    data: List[bytes] = []
    cuts: List[Cut] = []
    at, partial = start, False
    while at < size and not partial and at - start <= SCAN_LIMIT:
        window = read(at, min(LINE_LIMIT + 1, size - at))
        end = window.rfind(b"\n", 0, room) + 1
        if end:
            taken = window[:end]
        elif b"\n" in window or len(window) > room:
            break  # the next line does not fit any more: it comes with the next answer
        elif len(window) <= LINE_LIMIT:
            if not silent or len(window) < min(LINE_LIMIT + 1, size - at):
                break
            taken, partial = window, True
        else:
            cut, ended = _rest_of_line(read, at + LINE_LIMIT, min(size, at + SCAN_LIMIT))
            if not ended and not silent and cut.length < LONGEST_WAIT:
                break
            taken, partial = window[:LINE_LIMIT] + (b"\n" if ended else b""), not ended
            cuts.append(cut)
            at += cut.length
        data.append(taken)
        room -= len(taken)
        at += len(taken)
    return Piece(b"".join(data), tuple(cuts), at, partial)


def _rest_of_line(read: Read, start: int, size: int) -> Tuple[Cut, bool]:
    """The cut from `start` up to the end of the line, and whether that end was found before `size`."""
    digest, at = hashlib.sha256(), start
    while at < size:
        block = read(at, min(_BLOCK, size - at))
        if not block:
            break
        end = block.find(b"\n")
        if end >= 0:
            digest.update(block[:end])
            return Cut(start, at + end - start, digest.hexdigest()), True
        digest.update(block)
        at += len(block)
    return Cut(start, at - start, digest.hexdigest()), False


def end_of_last_line(read: Read, size: int) -> int:
    """The offset at which the last whole line ends; 0 if there is none."""
    at = size
    while at > 0:
        start = max(0, at - _BLOCK)
        found = read(start, at - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        at = start
    return 0
