"""The simulated servers, their logs and their agents. What they truly logged is kept apart, for the checker."""

from dataclasses import dataclass, field

from upgrades.domain.run_events import GAPS


@dataclass
class Log:
    """The log of one server: what was written, and how much of it the agent has handed over."""

    server: str
    host: str
    file: int = 1
    offset: int = 0
    pending: list = field(default_factory=list)  # written, not handed over yet
    rows: list = field(default_factory=list)  # handed over: lines, and the gaps where something was lost

    @property
    def file_name(self):
        return f"{self.server}.log-{self.file}"


class World:
    """Servers by name. `clocks` gives how far the clock of each host is off, in seconds."""

    def __init__(self, clocks):
        self.logs = {}
        self.clocks = clocks
        self.silent = {}  # host -> why its agent does not answer
        self.lines, self.gaps, self.answers, self.facts = [], [], [], []
        self.late = []  # places of lines that were handed over behind what stands after them
        self.changes = 0
        self.gap_number = 0

    def add(self, server, host):
        self.logs.setdefault(server, Log(server, host))

    # What happens on the servers.

    def write(self, server, event="", kind="event", total=None):
        log = self.logs[server]
        line = {
            "server": server, "file": log.file_name, "offset": log.offset, "kind": kind, "event": event,
            "total": total,
        }  # fmt: skip
        log.offset += 80
        log.pending.append(line)
        self.lines.append(line)
        return line

    def rotate(self, server):
        log = self.logs[server]
        log.file, log.offset = log.file + 1, 0

    # What their agents hand over.

    def hand_over(self, server, most=None):
        """The agent reads on, unless it is silent."""
        log = self.logs[server]
        if log.host in self.silent:
            return
        count = len(log.pending) if most is None else min(most, len(log.pending))
        log.rows += log.pending[:count]
        del log.pending[:count]

    def lose(self, server):
        """A line is gone before the agent has read it: in its place stands a gap."""
        log = self.logs[server]
        if not log.pending or log.host in self.silent:
            return
        line = log.pending.pop(0)
        self.gap_number += 1
        gap = {
            "server": server, "file": line["file"], "offset": line["offset"], "until": line["offset"] + 80,
            "kind": "gap", "number": self.gap_number,
        }  # fmt: skip
        log.rows.append(gap)
        self.gaps.append(gap)

    def marks(self, servers):
        """The ends of the log files of each server whose agent answers now."""
        found = {}
        for name in servers:
            log = self.logs[name]
            if log.host not in self.silent:
                ends = {line["file"]: line["offset"] + 80 for line in (*log.rows, *log.pending)}
                found[name] = {**ends, log.file_name: log.offset, GAPS: self.gap_number}
        return found

    def last_total(self, server):
        """The last client total that was handed over; None when none was."""
        totals = [row["total"] for row in self.logs[server].rows if row["kind"] == "total"]
        return totals[-1] if totals else None

    def answer(self, run, step, visit, gate, value):
        self.answers.append([run, step, visit, gate, value])

    def truth(self):
        return {
            "lines": self.lines,
            "gaps": self.gaps,
            "late": self.late,
            "answers": self.answers,
            "facts": self.facts,
        }
