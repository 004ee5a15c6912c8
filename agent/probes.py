"""What can be seen of an application without its log: process, folders, names in its files, hash of a file.

What cannot be seen is told with its reason, never guessed: `unknown` opens no gate.
"""

import datetime
import hashlib
import os
import re
import sys
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from agent.configuration import Application
from agent.files import shown, text_of
from agent.folders import Folder, Refused, read_at

_TEXT_LIMIT = 1024 * 1024
_HASH_LIMIT = 2 * 1024 * 1024 * 1024
_ENTRIES_LIMIT = 100000
# A PID file is written by a process that runs already; one that started later than this many seconds after is another.
_PID_TOLERANCE = 2.0

_SECTION = re.compile(r"\s*\[([^\]\r\n]*)\]")
_START_NAME = re.compile(r"""(?:^|\s)-s(?:\s+|=)(?:"([^"]*)"|'([^']*)'|([^\s"']+))""")
_COMMENT = re.compile(r"\s*(?:#|::|rem\b)", re.IGNORECASE)


class Process(NamedTuple):
    """`state` up, down or unknown; `since` is the start in ISO 8601 where the system tells it; the reason says why."""

    state: str
    pid: Optional[int]
    since: Optional[str]
    reason: str


def process(application: Application) -> Process:
    """Whether the application's process runs."""
    if application.pid_file:
        return _by_pid_file(application.pid_file)
    if application.command:
        return _by_command(application.command)
    return _unknown("The agent's configuration does not say how to recognise the process.")


def folder(path: str) -> Dict[str, Any]:
    """Whether the folder is there, how many entries it has, and when the newest was changed (ISO 8601 or null)."""
    try:
        with Folder(path) as opened:
            names = opened.names()
            newest = max((_modified(opened, name) for name in names[:_ENTRIES_LIMIT]), default=None)
    except (FileNotFoundError, NotADirectoryError):
        return {"exists": False, "entries": 0, "newest": None, "reason": ""}
    except OSError as error:
        reason = "The folder is there but cannot be read: %s." % error.strerror
        return {"exists": True, "entries": 0, "newest": None, "reason": reason}
    return {
        "exists": True,
        "entries": len(names),
        "newest": None if newest is None else _iso(newest),
        "reason": "",
    }


def names(application: Application, path: str) -> Dict[str, Any]:
    """The three names that must agree: sections of the configuration file, value of -s, the Application's name."""
    reasons: List[str] = []
    configuration = _text_in(path, application.configuration, "configuration", reasons)
    start = _text_in(path, application.start_file, "start-file", reasons)
    start_names = _start_names(start)
    if start and len(start_names) != 1:
        text = "%s has no -s with a name." if not start_names else "%s has several different -s names."
        reasons.append(text % application.start_file)
    return {
        "sections": _sections(configuration),
        "start-name": start_names[0] if len(start_names) == 1 else None,
        "application": application.name,
        "reason": " ".join(reasons),
    }


def file_hash(path: str, name: str) -> Dict[str, Any]:
    """SHA-256 and size of a file in a folder; both null with the reason where there is none to read."""
    try:
        with Folder(path) as opened:
            descriptor = opened.open(name)
        try:
            size = os.fstat(descriptor).st_size
            if size > _HASH_LIMIT:
                raise Refused("it is larger than 2 GiB")
            return {"sha256": _sha256(descriptor), "size": size, "reason": ""}
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        reason = "there is no such file"
    except Refused as refusal:
        reason = str(refusal)
    except OSError as error:
        reason = error.strerror or "the system refuses"
    return {"sha256": None, "size": None, "reason": "%s cannot be read: %s." % (shown(name), reason)}


# -- processes ------------------------------------------------------------------------------------------------------


def _unknown(reason: str) -> Process:
    return Process("unknown", None, None, reason)


def _by_pid_file(path: str) -> Process:
    name = os.path.basename(path)
    try:
        with Folder(os.path.dirname(path)) as opened:
            descriptor = opened.open(name)
        try:
            written, words = os.fstat(descriptor).st_mtime, read_at(descriptor, 0, 64).split()
        finally:
            os.close(descriptor)
    except (FileNotFoundError, NotADirectoryError):
        if os.path.isdir(os.path.dirname(path)):
            return Process("down", None, None, "There is no PID file.")
        return _unknown("The folder of the PID file does not exist.")
    except Refused as refusal:
        return _unknown("The PID file is not read: %s." % refusal)
    except OSError as error:
        return _unknown("The PID file cannot be read: %s." % error.strerror)
    if not words or not words[0].isdigit() or not 0 < int(words[0]) < 2**31:
        return _unknown("The PID file holds no process number.")
    return _by_pid(int(words[0]), written)


def _by_pid(pid: int, written: float) -> Process:
    alive = _runs_on_windows(pid) if sys.platform == "win32" else _runs(pid)
    if not alive:
        return Process("down", None, None, "Process %d of the PID file does not run." % pid)
    started = _started(pid)
    if started is not None and started > written + _PID_TOLERANCE:
        return _unknown(
            "Process %d of the PID file began after that file was written: it may be another one." % pid
        )
    return Process(
        "up", pid, None if started is None else _iso(started), "Process %d of the PID file runs." % pid
    )


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    status = _proc(pid)
    return not status or status[0] not in ("Z", "X")  # ended, but its parent has not noticed yet


def _runs_on_windows(pid: int) -> bool:
    import ctypes

    query_limited, still_active = 0x1000, 259
    kernel = getattr(ctypes, "WinDLL")("kernel32")  # noqa: B009 - unknown elsewhere
    kernel.OpenProcess.restype = ctypes.c_void_p
    kernel.GetExitCodeProcess.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    kernel.CloseHandle.argtypes = [ctypes.c_void_p]
    handle = kernel.OpenProcess(query_limited, False, pid)
    if not handle:
        return bool(getattr(ctypes, "GetLastError")() == 5)  # noqa: B009 - access denied: it is there
    code = ctypes.c_uint32()
    kernel.GetExitCodeProcess(handle, ctypes.byref(code))
    kernel.CloseHandle(handle)
    return code.value == still_active


def _proc(pid: int) -> List[str]:
    """The fields of /proc/PID/stat after the command's name; empty where there are none."""
    try:
        with open("/proc/%d/stat" % pid, "rb") as stream:
            return stream.read().rpartition(b")")[2].decode("ascii", "replace").split()
    except OSError:
        return []


def _started(pid: int) -> Optional[float]:
    """Seconds since 1970 at which a process began; None where the system does not tell."""
    fields = _proc(pid)
    if len(fields) < 20 or not fields[19].isdigit():
        return None
    try:
        with open("/proc/stat", "rb") as stream:
            booted = re.search(rb"^btime (\d+)", stream.read(), re.MULTILINE)
    except OSError:
        return None
    ticks = os.sysconf("SC_CLK_TCK")
    return int(booted.group(1)) + int(fields[19]) / ticks if booted else None


def _by_command(words: Tuple[str, ...]) -> Process:
    if not os.path.exists("/proc/self/cmdline"):
        return _unknown("Command lines cannot be read on this system: configure a pid-file.")
    if not os.path.exists("/proc/1/cmdline"):
        return _unknown("This user sees only its own processes (hidepid): configure a pid-file.")
    found = [pid for pid in _pids() if _has_words(pid, words) and _runs(pid)]
    if not found:
        return Process(
            "down", None, None, "No process has these words on its command line: %s." % " ".join(words)
        )
    pid = min(found, key=lambda number: (_started(number) or 0.0, number))
    started = _started(pid)
    reason = "Process %d has these words on its command line." % pid
    if len(found) > 1:
        reason = "%d processes have these words on their command lines; the oldest is %d." % (len(found), pid)
    return Process("up", pid, None if started is None else _iso(started), reason)


def _pids() -> List[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()]


def _has_words(pid: int, words: Tuple[str, ...]) -> bool:
    """Whether all words stand on the command line in this order; a program may be given there with its path."""
    try:
        with open("/proc/%d/cmdline" % pid, "rb") as stream:
            arguments = iter(os.fsdecode(stream.read(65536)).split("\x00"))
    except OSError:
        return False
    return all(
        any(word in (argument, os.path.basename(argument)) for argument in arguments) for word in words
    )


# -- files ----------------------------------------------------------------------------------------------------------


def _text_in(path: str, name: str, key: str, reasons: List[str]) -> str:
    if not name:
        reasons.append("The agent's configuration names no %s." % key)
        return ""
    try:
        with Folder(path) as opened:
            descriptor = opened.open(name)
        try:
            return text_of(read_at(descriptor, 0, _TEXT_LIMIT))
        finally:
            os.close(descriptor)
    except Refused as refusal:
        reasons.append("%s is not read: %s." % (name, refusal))
    except OSError as error:
        reasons.append("%s cannot be read: %s." % (name, error.strerror))
    return ""


def _sections(text: str) -> List[str]:
    """The names in square brackets at the start of a line; a comment (# or ;) does not start so."""
    return [match.group(1).strip() for match in map(_SECTION.match, text.split("\n")) if match]


def _start_names(text: str) -> List[str]:
    """The different values of -s on command lines, in the order met."""
    found: List[str] = []
    for line in text.split("\n"):
        if not _COMMENT.match(line):
            for match in _START_NAME.finditer(line):
                name = next(group for group in match.groups() if group is not None)
                if name not in found:
                    found.append(name)
    return found


def _sha256(descriptor: int) -> str:
    digest = hashlib.sha256()
    os.lseek(descriptor, 0, os.SEEK_SET)
    for block in iter(lambda: os.read(descriptor, 1024 * 1024), b""):
        digest.update(block)
    return digest.hexdigest()


def _modified(opened: Folder, name: str) -> float:
    try:
        return opened.examine(name).st_mtime
    except OSError:
        return 0.0


def _iso(seconds: float) -> str:
    moment = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
