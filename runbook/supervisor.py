"""Starts programs, waits until each is healthy, and ends every one of them: by process number, never by name."""

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import httpx
import psutil

READY_SECONDS = 60.0
END_SECONDS = 25.0  # a worker may finish the task that it has


class ProgramEnded(Exception):
    """A program has ended, or is not healthy in time; the text names it and shows the end of its log."""


class AlreadyRunning(Exception):
    """Another launcher works in the same folder."""


@dataclass(frozen=True, slots=True)
class Program:
    """A program and how to see that it works: `healthy` gets what it has logged since it was started."""

    name: str
    command: list[str]
    healthy: Callable[[str], bool]


def answers(url: str) -> Callable[[str], bool]:
    """Healthy when `url` answers 200."""

    def healthy(_log: str) -> bool:
        try:
            return httpx.get(url, timeout=2, trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False

    return healthy


def logs(line: str) -> Callable[[str], bool]:
    """Healthy when its log has `line`."""
    return lambda log: line in log


class Supervisor:
    """Runs programs in `folder`: their logs in `folder/log`, their process numbers in `folder/processes.json`."""

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self._folder = folder
        self._written = folder / "processes.json"
        self._say = say
        self._running: dict[str, tuple[subprocess.Popen[bytes], Path, int]] = {}

    def start(self, programs: Iterable[Program], environment: Mapping[str, str], directory: Path) -> None:
        """Starts the programs at once and waits until each is healthy. ProgramEnded: one ended, or not in time."""
        waiting = list(programs)
        for program in waiting:
            self._launch(program, environment, directory)
        end = time.monotonic() + READY_SECONDS
        while waiting:
            self.check()
            for program in [p for p in waiting if p.healthy(self._logged(p.name))]:
                self._say(program.name)
                waiting.remove(program)
            if waiting and time.monotonic() > end:
                raise ProgramEnded(self._told(waiting[0].name, f"is not healthy after {READY_SECONDS:.0f} s"))
            time.sleep(0.1)

    def _launch(self, program: Program, environment: Mapping[str, str], directory: Path) -> None:
        log = self._folder / "log" / f"{program.name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            begin = output.tell()
            # A session of its own, so that Ctrl-C comes to the launcher alone, which ends them in order.
            process = subprocess.Popen(
                program.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                cwd=directory,
                start_new_session=True,
            )
        self._running[program.name] = (process, log, begin)
        self._write()

    def check(self) -> None:
        """ProgramEnded when one of the programs does not run any more."""
        for name, (process, _, _) in self._running.items():
            code = process.poll()
            if code is not None:
                why = (
                    f"was ended by {signal.Signals(-code).name}"
                    if code < 0
                    else f"has ended with code {code}"
                )
                raise ProgramEnded(self._told(name, why))

    def stop(self) -> None:
        """Asks all programs to end, waits, and ends by force those (and their children) that do not."""
        for process, _, _ in self._running.values():
            if process.poll() is None:
                process.terminate()
        end = time.monotonic() + END_SECONDS
        for name, (process, _, _) in self._running.items():
            try:
                process.wait(max(0.1, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                self._say(f"{name} does not end; ending it by force.")
            _kill_group(process.pid)
            process.wait()
        self._running.clear()
        self._written.unlink(missing_ok=True)

    def end_left_overs(self) -> None:
        """Ends what an earlier launcher started and, because it was killed itself, could not end."""
        for name, process in _left_overs(self._written):
            self._say(f"{name} still runs from an earlier start (process {process.pid}); ending it.")
            process.terminate()
            with contextlib.suppress(psutil.TimeoutExpired):
                process.wait(END_SECONDS)
            _kill_group(process.pid)
        self._written.unlink(missing_ok=True)

    def _write(self) -> None:
        # The time of birth tells our process from a later one with the same number.
        rows = [
            {"name": name, "pid": process.pid, "born": psutil.Process(process.pid).create_time()}
            for name, (process, _, _) in self._running.items()
            if process.poll() is None
        ]
        self._written.write_text(json.dumps(rows))

    def _logged(self, name: str) -> str:
        _, log, begin = self._running[name]
        with log.open("rb") as written:
            written.seek(begin)
            return written.read().decode(errors="replace")

    def _told(self, name: str, what: str) -> str:
        end = "\n".join(f"    {line}" for line in self._logged(name).splitlines()[-15:]) or "    (nothing)"
        return f"{name} {what}. The end of its log, {self._running[name][1]}:\n{end}"


def _kill_group(pid: int) -> None:
    """What is left of the session that the process led; nothing when it has no members any more."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _left_overs(file: Path) -> Iterator[tuple[str, psutil.Process]]:
    try:
        rows = json.loads(file.read_text())
    except (OSError, ValueError):
        return
    for row in rows:
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(row["pid"])
            if abs(process.create_time() - row["born"]) < 1 and process.status() != psutil.STATUS_ZOMBIE:
                yield row["name"], process


@contextlib.contextmanager
def only_one(file: Path) -> Iterator[None]:
    """Holds the lock of a folder. AlreadyRunning, with the other's process number, when somebody has it.

    The system lets go of the lock when its holder ends, however that happens: there are no stale locks.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a+") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            held.seek(0)
            raise AlreadyRunning(held.read().strip() or "?") from None
        held.truncate(0)
        held.write(str(os.getpid()))
        held.flush()
        yield


@contextlib.contextmanager
def signals_interrupt() -> Iterator[None]:
    """Inside, SIGTERM and SIGHUP (a closed terminal) end the work as Ctrl-C does."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Inside, a second Ctrl-C does not keep us from ending what was started."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
