"""The checker: reads the database, the agents' ground truth and the clients' history, and names what breaks I1 to I12.

    python -m tests.torture.checker DATABASE [--history FILE] [--logs FOLDER]… [--rules FILE] [--checkpoints FILE] [--final]

It imports nothing of the application, only the standard library and psycopg, and works out anew what the application claims:
chains, Merkle roots, the fold of each run, outcomes from lines, lines from files. docs/reliability.md says what of each
invariant it can see. Exit code 0: nothing was found; 1: each violation on a line of its own, "I3 …".
"""

import argparse
import base64
import hashlib
import json
import os
import re
import sys
from collections import Counter, defaultdict
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import psycopg
from psycopg.rows import dict_row

GENESIS = "0" * 64
STARTED = "00-05060"
DISPLAY_LATE = (
    12.0  # seconds after which a page must say that an agent is silent: two polls and some patience
)
SEALED_LATE = 300.0  # seconds; no transaction is under way that long, so a checkpoint sees what is older
UNIQUE = {  # what must be impossible, whatever the code forgets
    "a_run_has_one_event_per_place",
    "a_line_is_stored_once",
    "a_log_file_is_known_once",
    "a_step_stands_once",
    "a_checkpoint_leaves_once",
    "a_book_has_one_entry_per_number",
    "a_server_is_claimed_once",
    "a_host_is_claimed_once",
    "upgrades_commandreceipt_pkey",
}
EXECUTION = {
    *("step.taken", "step.begun", "step.completed", "step.restarted"),
    *("gate.confirmed", "evidence.attached", "deviation.asked"),
}
ENDED = {"step.completed": "done", "step.skipped": "skipped", "step.left": "left"}
TIME = re.compile(r"\d{4}-\d\d-\d\dT", re.ASCII)
EVENT_LINE = re.compile(rb"^\S*\d\d:\d\d:\d\d\.\d{3}\s+(?:Std|Int|Trc|Dbg|Alr)\s+(\d{5})\s", re.ASCII)
FULL_LINE = re.compile(
    rb"^\S*\d\d:\d\d:\d\d\.\d{3}\s+(?:Standard|Interaction|Trace|Debug|Alarm)\s.*?\bGCTI-(\d\d)-(\d{5})\s",
    re.ASCII,
)


class Run:
    """The events of a run, parsed from their texts."""

    def __init__(self, row, rows):
        self.row, self.id = row, row["id"]
        self.rows = rows
        self.events = [json.loads(item["text"]) for item in rows]

    def of(self, *kinds, before=None):
        return [
            item for item in self.events if item["kind"] in kinds and (before is None or item["seq"] < before)
        ]

    @property
    def started(self):
        return self.events[0]["body"]


class Checker:
    """One look, in one snapshot of the database. `checkpoints` are the lines of the file that left the system."""

    def __init__(self, connection, history=(), logs=(), rules=None, checkpoints=(), final=False):
        self.db, self.history, self.logs = connection, list(history), list(logs)
        self.rules, self.checkpoints, self.final = rules or {}, checkpoints, final
        # The clock of Runbook: times of the record go back with it, and prove nothing.
        self.clock_was_set = any(item["kind"] == "clock" for item in self.history)
        self.found = []

    def rows(self, sql, *values):
        return self.db.execute(sql, values or None).fetchall()

    def say(self, invariant, text):
        self.found.append(f"{invariant} {text}")

    def check(self):
        """All violations, in words."""
        events = defaultdict(list)
        for row in self.rows(
            "SELECT run_id, seq, kind, text, previous, hash FROM upgrades_runevent ORDER BY run_id, seq, id"
        ):
            events[row["run_id"]].append(row)
        runs = self.rows("SELECT * FROM upgrades_run ORDER BY id")
        self.lines = self.rows(
            "SELECT line.*, file.identity, file.generation, file.cursor, file.application_id, app.name AS application,"
            " app.environment_id FROM upgrades_logline AS line JOIN upgrades_logfile AS file ON file.id = line.file_id"
            " JOIN upgrades_application AS app ON app.id = file.application_id ORDER BY line.file_id, line.offset, line.id"
        )
        self.events_of, self.events_at = defaultdict(list), {}
        for line in self.lines:
            line["place"] = _place(line)
            if line["kind"] == "event":
                whose = (line["environment_id"], line["application"])
                self.events_of[whose].append(line)
                self.events_at.setdefault((*whose, line["place"], line["offset"]), line)
        self._unique()
        self._lines()
        self._processes()
        for row in runs:
            if not events[row["id"]]:
                self.say("I7", f"run {row['id']} has a row and no event")
                continue
            run = Run(row, events.pop(row["id"]))
            if not self._chain(run):
                continue
            self._fold(run)
            self._order(run)
            self._once(run)
            self._gates(run)
            self._taken_in(run)
            self._signatures(run)
            self._receipts(run)
        for run_id in [key for key, rows in events.items() if rows]:
            self.say("I7", f"run {run_id} has events and no row")
        self._books()
        self._sealed()
        self._acknowledged()
        self._went_on()
        self._displayed()
        self._recorded()
        self._twins()
        return self.found

    # I2, I3: lines and files.

    def _unique(self):
        there = {
            row["conname"]
            for row in self.rows("SELECT conname FROM pg_constraint WHERE contype IN ('u', 'p')")
        }
        there |= {
            row["indexname"]
            for row in self.rows("SELECT indexname FROM pg_indexes WHERE indexdef LIKE 'CREATE UNIQUE%%'")
        }
        for name in sorted(UNIQUE - there):
            self.say("I3", f"the constraint {name} is gone")
        seen = Counter((line["file_id"], line["offset"], line["kind"]) for line in self.lines)
        for (file, offset, kind), times in seen.items():
            if times > 1:
                self.say("I3", f"the {kind} at {offset} of log file {file} is stored {times} times")
        spans = defaultdict(list)
        for line in self.lines:
            if line["kind"] != "gap":
                spans[line["file_id"]].append((line["offset"], line["offset"] + line["length"]))
        for file, parts in spans.items():
            for (start, end), (following, _) in pairwise(parts):
                if following < end and following != start:
                    self.say("I3", f"lines of log file {file} overlap at {following} ({start} to {end})")

    def _lines(self):
        """Every stored line is what stands in its file; every event line of the file below the cursor is stored."""
        truth = _ground_truth(self.logs)
        stored = defaultdict(dict)
        for line in self.lines:
            stored[line["file_id"]][line["offset"], line["kind"]] = line
        newest = {}
        files = self.rows(
            "SELECT file.*, app.name AS application, app.environment_id FROM upgrades_logfile AS file"
            " JOIN upgrades_application AS app ON app.id = file.application_id ORDER BY file.id"
        )
        for file in files:
            key = (file["application_id"], file["identity"])
            newest[key] = max(newest.get(key, 0), file["generation"])
        for file in files:
            mine = stored[file["id"]]
            if file["state"] == "shrunk" and not any(kind == "gap" for _, kind in mine):
                self.say("I2", f"log file {file['id']} shrank and no gap says so")
            if file["generation"] < newest[file["application_id"], file["identity"]]:
                continue  # its bytes were overwritten by the next generation
            if file["state"] != "open":
                continue
            content = _content(truth, file["identity"].rpartition("-")[0])
            if content is None:  # its world is being taken away: it has a second name then
                truth = _ground_truth(self.logs)
                content = _content(truth, file["identity"].rpartition("-")[0])
            if content is not None:
                self._compare(file, mine, content)

    def _compare(self, file, mine, content):
        if len(content) < file["cursor"]:
            return  # truncated since; the agent will say so
        offsets = [offset for (offset, kind) in mine if kind != "gap"]
        for (offset, kind), line in mine.items():
            if kind == "gap":
                continue
            raw = bytes(line["raw"])
            if content[offset : offset + len(raw)] != raw:
                self.say(
                    "I2",
                    f"line {line['id']} at {offset} of log file {file['id']} is not what the file has there",
                )
        begin = min([*offsets, self._mark_of(file)])
        at = 0
        for raw in content[: file["cursor"]].splitlines(keepends=True):
            number = EVENT_LINE.match(raw) or FULL_LINE.match(raw)
            if number and at >= begin and (at, "event") not in mine:
                self.say(
                    "I2",
                    f"{number.groups()[-1].decode()} at {at} of log file {file['id']} was read over and is not stored",
                )
            at += len(raw)

    def _mark_of(self, file):
        """From where on every event of the file must be stored: from its beginning, if it came while its server was watched."""
        watched = [at for at, name in self._watches if name == (file["environment_id"], file["application"])]
        came = watched and file["seen_at"] > min(watched) and not self.clock_was_set
        return self._marks.get(_place(file), 0 if came else file["cursor"])

    @property
    def _watches(self):
        """Since when the logs of which application are watched."""
        if not hasattr(self, "_watched"):
            rows = self.rows(
                "SELECT event.text, run.environment_id FROM upgrades_runevent AS event"
                " JOIN upgrades_run AS run ON run.id = event.run_id WHERE event.kind = 'step.begun'"
            )
            begun = [(json.loads(row["text"]), row["environment_id"]) for row in rows]
            self._watched = [
                (datetime.fromisoformat(event["at"]), (place, name))
                for event, place in begun
                for name in event["body"]["watermarks"]
            ]
        return self._watched

    @property
    def _marks(self):
        """The lowest watermark of each log file: from there on every event must be stored."""
        if not hasattr(self, "_lowest"):
            self._lowest = {}
            for row in self.rows("SELECT text FROM upgrades_runevent WHERE kind = 'step.begun'"):
                for marks in json.loads(row["text"])["body"]["watermarks"].values():
                    for place, offset in marks.items():
                        if place not in ("gaps", "changes"):
                            self._lowest[place] = min(offset, self._lowest.get(place, offset))
        return self._lowest

    def _processes(self):
        """Changes of a process follow on one another, and none says what the harness knows to be untrue."""
        last = {}
        for row in self.rows("SELECT * FROM upgrades_processchange ORDER BY application_id, id"):
            before = last.get(row["application_id"])
            if before is not None and before != row["before"]:
                self.say(
                    "I3",
                    f"process change {row['id']} leads from {row['before']}, but the process was {before}",
                )
            last[row["application_id"]] = row["state"]
            for truth in self.history:
                if truth["kind"] == "truth" and truth["application"] == row["application_id"]:
                    since = datetime.fromisoformat(truth["since"])
                    if row["seen_at"] >= since and row["state"] != truth["state"]:
                        self.say(
                            "I3",
                            f"process change {row['id']} says {row['state']}, and the process was {truth['state']} all the time",
                        )

    # I5, I7: chains and rows.

    def _chain(self, run):
        previous = GENESIS
        for place, row in enumerate(run.rows, 1):
            text = json.loads(row["text"])
            right = hashlib.sha256(f"{previous}\n{row['text']}".encode()).hexdigest()
            if row["seq"] != place:
                self.say("I5", f"run {run.id}: event {place} is missing or doubled")
                return False
            if (
                row["previous"] != previous
                or row["hash"] != right
                or (text["seq"], text["kind"], text["run"]) != (place, row["kind"], run.id)
            ):
                self.say("I5", f"run {run.id}: the chain breaks at event {place}")
                return False
            previous = row["hash"]
        return True

    def _fold(self, run):
        state = {"status": "running", "ending": "", "current_step": "", "ended_at": None}
        steps, burdens = {}, set()
        for item in run.events:
            body, at = item["body"], item["at"]
            match item["kind"]:
                case "step.entered":
                    steps[body["step"]] = [body["visit"], "current", at, None, None]
                    state["current_step"] = body["step"]
                case "step.begun":
                    steps[body["step"]][1], steps[body["step"]][3] = "begun", at
                case "step.skipped" if steps.get(body["step"], [0])[0] != body["visit"]:
                    steps[body["step"]] = [body["visit"], "skipped", at, None, at]
                case "step.completed" | "step.skipped" | "step.left":
                    steps[body["step"]][1], steps[body["step"]][4] = ENDED[item["kind"]], at
                case "exposure.opened":
                    burdens.add(f"exposure:{body['exposure']}")
                case "exposure.closed":
                    burdens.discard(f"exposure:{body['exposure']}")
                case "duty.owed":
                    burdens.add(f"duty:{body['duty']}")
                case "duty.done":
                    burdens.discard(f"duty:{body['duty']}")
                case "burden.inherited":
                    burdens.add(body["burden"])
                case "run.held":
                    state["status"] = "held"
                case "run.resumed":
                    state["status"] = "running" if state["current_step"] else "closing"
                case "run.gone-over":
                    state["current_step"] = ""
                case "run.closing":
                    state |= {"status": "closing", "ending": body["ending"], "current_step": ""}
                case "run.ended":
                    state |= {"status": "ended", "ending": body["ending"], "current_step": "", "ended_at": at}
                case "run.rolled-back":
                    state |= {"status": "ended", "ending": "rolled back", "current_step": "", "ended_at": at}
                    burdens.clear()
                case "run.aborted":
                    state |= {"status": "aborted", "ending": "aborted", "ended_at": at}
        row = run.row
        has = {
            **state,
            "seq": len(run.events),
            "head": run.rows[-1]["hash"],
            "starter_id": run.events[0]["by"]["id"],
        }
        for name, value in has.items():
            stored = row[name].isoformat() if name == "ended_at" and row[name] else row[name]
            if not _same(stored, value):
                self.say("I7", f"run {run.id}: its row says {name} = {stored}, its events say {value}")
        rows = {
            item["step"]: [
                item["visit"],
                item["status"],
                *(_iso(item[name]) for name in ("entered_at", "begun_at", "ended_at")),
            ]
            for item in self.rows("SELECT * FROM upgrades_runstep WHERE run_id = %s", run.id)
        }
        for step in sorted({*rows, *steps}):
            if (
                rows.get(step) is None
                or steps.get(step) is None
                or not all(map(_same, rows[step], steps[step]))
            ):
                self.say(
                    "I7",
                    f"run {run.id}: step {step} is {rows.get(step)} in its row and {steps.get(step)} by its events",
                )
        open_rows = {
            item["burden"]
            for item in self.rows(
                "SELECT burden FROM upgrades_runburden WHERE run_id = %s AND closed_at IS NULL", run.id
            )
        }
        if open_rows != burdens:
            self.say(
                "I7",
                f"run {run.id}: open are {sorted(open_rows)} in its rows and {sorted(burdens)} by its events",
            )
        self._claims(run, state)

    def _claims(self, run, state):
        """A run that is over holds no server, an open one does; that no server belongs to two, a constraint sees to."""
        held = self.rows("SELECT * FROM upgrades_claim WHERE run_id = %s AND released_at IS NULL", run.id)
        if state["ended_at"] is not None and held:
            self.say("I7", f"run {run.id} is over and still holds {len(held)} servers")
        if state["ended_at"] is None and run.started["bindings"] and not held:
            self.say("I7", f"run {run.id} is open and holds no server")

    # I3, I8: what happens once, and in order.

    def _once(self, run):
        for kind, names in (
            ("gate.outcome", ("step", "visit", "gate")),
            ("step.begun", ("step", "visit")),
            ("step.completed", ("step", "visit")),
            ("step.entered", ("step", "visit")),
            ("log.event", ("watch", "file", "offset")),
        ):
            seen = Counter(tuple(item["body"][name] for name in names) for item in run.of(kind))
            for what, times in seen.items():
                if times > 1:
                    self.say("I3", f"run {run.id}: {kind} of {what} is there {times} times")

    def _order(self, run):
        entered, current, over, held = {}, "", False, False
        text = self._text(run, before=1)
        for item in run.events:
            body, kind, place = item["body"], item["kind"], f"run {run.id}, event {item['seq']}"
            if over and kind not in (
                "attempt.refused",
                "note.added",
                "override.reviewed",
                "duty.done",
                "exposure.closed",
                "burden.taken-over",
            ):
                self.say("I8", f"{place}: {kind} after the end of the run")
            over = over or kind in ("run.ended", "run.aborted", "run.rolled-back")
            held = kind == "run.held" or (held and kind != "run.resumed")
            if held and kind in ("step.begun", "step.completed") and item["by"]["kind"] == "person":
                self.say("I8", f"{place}: {kind} of {body['step']} while the run was on hold")
            if kind == "step.entered":
                if current and entered.get(current) not in ("done", "skipped", "left", None):
                    self.say(
                        "I8", f"{place}: {body['step']} was entered while {current} was {entered[current]}"
                    )
                self._predecessors(text, entered, body["step"], place)
                current = body["step"]
                entered[current] = "current"
            elif kind == "step.begun":
                if entered.get(body["step"]) != "current" or body["step"] != current:
                    self.say("I8", f"{place}: {body['step']} began out of turn")
                entered[body["step"]] = "begun"
            elif kind == "step.completed":
                if entered.get(body["step"]) != "begun":
                    self.say("I8", f"{place}: {body['step']} was completed before it began")
                entered[body["step"]] = "done"
            elif kind in ENDED:
                signed = _signed(run, item["seq"], body, "skip")
                if kind == "step.skipped" and body["deviation"] and body["deviation"] not in signed:
                    self.say("I8", f"{place}: {body['step']} was skipped, and nobody had signed for that")
                entered[body["step"]] = ENDED[kind]
            elif kind == "step.restarted":
                entered[body["step"]] = "left"
            elif kind == "run.gone-over":
                current, text = "", None  # its predecessors were closed under another text

    def _predecessors(self, text, entered, step, place):
        """Each step that the text has before this one was entered or skipped by then, but for those beside the way."""
        order = [item["id"] for item in (text or {}).get("steps", [])]
        if _own(step) not in order or entered.get(step):
            return
        for before in (text or {})["steps"][: order.index(_own(step))]:
            left_out = before.get("aside") or before.get("for-each") or before.get("when")
            if not left_out and not entered.get(before["id"]):
                self.say("I8", f"{place}: {step} was entered before {before['id']} was closed or skipped")

    # I1: gates and their evidence.

    def _text(self, run, before=None):
        name, version = run.started["procedure"], run.started["procedure_version"]
        for item in run.of("run.gone-over", before=before):
            name, version = item["body"]["procedure"], item["body"]["procedure_version"]
        return self.rules.get(f"{name}/{version}")

    def _gates(self, run):
        for item in run.of("gate.outcome"):
            self._outcome(run, item)
        for item in run.of("step.completed"):
            self._completed(run, item)

    def _step_text(self, run, item):
        text = self._text(run, before=item["seq"]) or {}
        return next(
            (step for step in text.get("steps", []) if step["id"] == _own(item["body"]["step"])), None
        )

    def _outcome(self, run, item):
        body, place = (
            item["body"],
            f"run {run.id}, outcome {item['body']['outcome']} of {item['body']['step']} (event {item['seq']})",
        )
        watch = f"{body['step']}#{body['visit']}.{body['gate']}"
        begun = [
            e
            for e in run.of("step.begun", before=item["seq"])
            if (e["body"]["step"], e["body"]["visit"]) == (body["step"], body["visit"])
        ]
        if not begun:
            self.say("I1", f"{place}: its step had not begun")
            return
        cited = []
        for seq in body["lines"]:
            line = run.events[seq - 1] if 0 < seq < item["seq"] else None
            if line is None or line["kind"] != "log.event" or line["body"]["watch"] != watch:
                self.say("I1", f"{place}: event {seq}, which it cites, is no line of its watch")
                return
            cited.append(line)
            self._evidence(run, begun[-1], line, place)
        self._rule(run, item, watch, cited, place)

    def _evidence(self, run, begun, line, place):
        """The cited line is stored as it was cited, lies behind the watermark, and was read before it was used."""
        seen = line["body"]
        marks = begun["body"]["watermarks"].get(seen["application"], {})
        mark = _counts_from(marks, seen["file"])
        if seen["offset"] < mark:
            self.say(
                "I1",
                f"{place}: it rests on {seen['event']} at {seen['offset']}, before the watermark {mark}",
            )
        row = self.events_at.get(
            (run.row["environment_id"], seen["application"], seen["file"], seen["offset"])
        )
        if row is None:
            self.say("I1", f"{place}: the line at {seen['offset']} of {seen['file']} is not stored")
            return
        if (
            hashlib.sha256(bytes(row["raw"])).hexdigest() != seen["line_sha256"]
            or row["event"] != seen["event"]
        ):
            self.say("I1", f"{place}: the stored line {row['id']} is not the one that was cited")
        if seen["event"].rpartition("-")[2].encode() not in bytes(row["raw"]):
            self.say("I1", f"{place}: the stored line {row['id']} does not name {seen['event']}")
        if row["read_at"] > datetime.fromisoformat(line["at"]) and not self.clock_was_set:
            self.say("I1", f"{place}: line {row['id']} was stored after it was used")

    def _rule(self, run, item, watch, cited, place):
        """The recorded rule, followed anew over the lines that the run had taken in by then, gives this outcome."""
        step = self._step_text(run, item)
        gate = next((one for one in (step or {}).get("gates", []) if one["id"] == item["body"]["gate"]), None)
        if gate is None:
            return
        outcomes = {one["id"]: one for one in gate["outcomes"]}
        outcome = outcomes.get(item["body"]["outcome"])
        if outcome is None:
            self.say("I1", f"{place}: the text names no such outcome")
            return
        stations = [_numbers(one) for one in outcome["events"]]
        if len(stations) != len(cited) or any(
            line["body"]["event"] not in one for line, one in zip(cited, stations, strict=False)
        ):
            self.say(
                "I1",
                f"{place}: it cites {[line['body']['event'] for line in cited]}, the rule asks for {stations}",
            )
            return
        if outcome.get("when") and _holds(outcome["when"], _facts(run, item["seq"])) is False:
            self.say("I1", f"{place}: it is for runs in which {outcome['when']}")
        seen = [line for line in run.of("log.event", before=item["seq"]) if line["body"]["watch"] == watch]
        first, last = (cited[0]["seq"], cited[-1]["seq"]) if cited else (0, 0)
        for line in seen:
            number, seq = line["body"]["event"], line["seq"]
            if seq < last and number in _all(outcome.get("none-before", [])):
                self.say("I1", f"{place}: {number} was seen before it")
            if first < seq < last and number in _all(outcome.get("none-between", [])):
                self.say("I1", f"{place}: {number} was seen in between")
        aside = {one["doubt"] for one in _signed(run, item["seq"], item["body"], "doubt").values()}
        for doubt in run.of("log.doubtful", before=last):
            if doubt["body"]["watch"] == watch and doubt["seq"] not in aside:
                self.say(
                    "I1", f"{place}: the {doubt['body']['doubt']} of event {doubt['seq']} was not set aside"
                )

    def _completed(self, run, item):
        """What a person had to state, attach or sign for a completed step is in the record of this visit."""
        step = self._step_text(run, item)
        if step is None:
            return
        body, facts = item["body"], _facts(run, item["seq"])
        by_gate = defaultdict(list)
        for one in run.of(
            "gate.confirmed",
            "evidence.attached",
            "approval.signed",
            "gate.outcome",
            "probe.answered",
            before=item["seq"],
        ):
            if one["body"].get("step") == body["step"] and one["body"].get("visit") == body["visit"]:
                by_gate[one["body"]["gate"]].append(one)
        waived = {one["gate"] for one in _signed(run, item["seq"], body, "override", "emergency").values()}
        for gate in [*step.get("needs", []), *step.get("gates", [])]:
            applies = _holds(gate["when"], facts) if gate.get("when") else True
            if applies is not True or gate["id"] in waived:
                continue
            there = by_gate[gate["id"]]
            place = f"run {run.id}: {body['step']} was completed (event {item['seq']})"
            if gate["kind"] == "confirm" and not (there and there[-1]["body"]["answer"] == "pass"):
                self.say("I1", f"{place} and {gate['id']} was not confirmed")
            if gate["kind"] == "evidence" and not there:
                self.say("I1", f"{place} and nothing was attached to {gate['id']}")
            if gate["kind"] == "approval" and run.started["policies"].get(gate["policy"]) and not there:
                self.say("I1", f"{place} and nobody had signed {gate['id']}")
            if gate["kind"] == "events" and not there:
                self.say("I1", f"{place} and {gate['id']} had no outcome")
            answers = [one for one in there if one["kind"] == "probe.answered"]
            if gate["kind"] == "probe" and not any(one["body"]["value"] == "met" for one in answers):
                self.say("I1", f"{place} and no agent had answered {gate['id']}")

    def _taken_in(self, run):
        """I2: a stored line that a watch wants is not passed over: where a later line of its file counted, it did, too."""
        recorded = defaultdict(set)
        for item in run.of("log.event"):
            recorded[item["body"]["watch"]].add((item["body"]["file"], item["body"]["offset"]))
        for watch, places in recorded.items():
            step, _, rest = watch.partition("#")
            visit, _, gate_id = rest.partition(".")
            one = next(item for item in run.of("log.event") if item["body"]["watch"] == watch)
            begun = [
                e
                for e in run.of("step.begun")
                if (e["body"]["step"], e["body"]["visit"]) == (step, int(visit))
            ]
            text = self._step_text(run, {"seq": one["seq"], "body": {"step": step}})
            gate = next((item for item in (text or {}).get("gates", []) if item["id"] == gate_id), None)
            if gate is None or not begun:
                continue
            wanted = (
                _all([item["events"] for item in gate["outcomes"]]) | set(gate.get("normal", {})) | {STARTED}
            )
            marks = begun[0]["body"]["watermarks"].get(one["body"]["application"], {})
            for line in self.events_of[run.row["environment_id"], one["body"]["application"]]:
                if line["event"] not in wanted or line["offset"] < _counts_from(marks, line["place"]):
                    continue
                later = any(file == line["place"] and offset > line["offset"] for file, offset in places)
                if later and (line["place"], line["offset"]) not in places:
                    self.say(
                        "I2",
                        f"run {run.id}: {line['event']} at {line['offset']} is stored, before what counted, and was passed over",
                    )

    # I4: signatures.

    def _signatures(self, run):
        starter = run.events[0]["by"]["id"]
        authors = set(run.started["authors"])
        executors, valid = {starter}, defaultdict(dict)
        shown = {
            (one["step"], one["gate"], one["digest"])
            for one in self.history
            if one["kind"] == "shown" and one["run"] == run.id
        }
        knows_shown = any(one["kind"] == "shown" and one["run"] == run.id for one in self.history)
        for item in run.events:
            body, by, place = item["body"], item["by"], f"run {run.id}, event {item['seq']}"
            if item["kind"] in ("approval.signed", "deviation.signed"):
                if by["id"] == starter or by["id"] in executors:
                    self.say(
                        "I4", f"{place}: {by['name']} signed and had started or carried out what it covers"
                    )
                if by["id"] in authors or by["name"] in authors:
                    self.say("I4", f"{place}: {by['name']} signed and is an author of the procedure")
                if by["kind"] != "person":
                    self.say("I4", f"{place}: signed by {by['kind']}")
            if item["kind"] == "approval.signed":
                policy = run.started["policies"].get(self._policy_of(run, body), {})
                role = policy.get("role")
                if role and role not in {*by["roles"], *body["for_roles"]}:
                    self.say("I4", f"{place}: {by['name']} signed without the role {role}")
                key = (body["step"], body["visit"], body["gate"])
                if by["id"] in valid[key]:
                    self.say("I4", f"{place}: {by['name']} has signed this already")
                valid[key][by["id"]] = (
                    body["ahead"],
                    body["digest"],
                )  # ahead of its turn it covers the plan alone
                if len(set(valid[key].values())) > len({is_ahead for is_ahead, _ in valid[key].values()}):
                    self.say("I4", f"{place}: the signatures on {body['gate']} are over different contents")
                if knows_shown and (body["step"], body["gate"], body["digest"]) not in shown:
                    self.say("I4", f"{place}: what was signed was never shown")
            if item["kind"] == "approval.lapsed":
                valid[body["step"], body["visit"], body["gate"]].pop(body["signer"], None)
            if item["kind"] in ("approval.rejected", "approval.asked", "approval.expired"):
                valid[body["step"], body["visit"], body["gate"]].clear()
            if item["kind"] == "step.begun":
                self._approved(run, item, valid)
            if item["kind"] in EXECUTION and by["kind"] == "person":
                executors.add(by["id"])

    def _approved(self, run, item, valid):
        """A step that takes signatures has begun with so many that stand, of as many people, and by none of them."""
        step, body = self._step_text(run, item), item["body"]
        place = f"run {run.id}, event {item['seq']}: {body['step']}"
        for gate in (step or {}).get("needs", []):
            if gate["kind"] != "approval":
                continue
            people = {
                person
                for key, signatures in valid.items()
                for person, (is_ahead, _) in signatures.items()
                if (key[0], key[2]) == (body["step"], gate["id"]) and (key[1] == body["visit"] or is_ahead)
            }
            if item["by"]["id"] in people:
                self.say("I4", f"{place} was begun by {item['by']['name']}, who had signed it")
            needed = _needed(run.started["policies"], gate["policy"])
            if len(people) < needed and not self._is_waived(run, item, gate):
                self.say("I4", f"{place} began with {len(people)} of {needed} signatures")

    @staticmethod
    def _is_waived(run, item, gate):
        """Whether the gate does not apply to this run, or two people decided to go on without it."""
        if gate.get("when") and _holds(gate["when"], _facts(run, item["seq"])) is not True:
            return True
        decided = _signed(run, item["seq"], item["body"], "override", "emergency").values()
        return any(one["gate"] == gate["id"] for one in decided)

    def _policy_of(self, run, body):
        text = self._text(run) or {}
        for step in text.get("steps", []):
            for gate in step.get("needs", []):
                if step["id"] == _own(body["step"]) and gate["id"] == body["gate"]:
                    return gate["policy"]
        return ""

    # I5: books and checkpoints.

    def _books(self):
        previous, number, book = GENESIS, 0, None
        for row in self.rows("SELECT * FROM upgrades_registerentry ORDER BY book, number, id"):
            if row["book"] != book:
                previous, number, book = GENESIS, 0, row["book"]
            number += 1
            right = hashlib.sha256(f"{previous}\n{row['text']}".encode()).hexdigest()
            if (row["number"], row["previous"], row["hash"]) != (number, previous, right):
                self.say("I5", f"book {book}: the chain breaks at entry {number}")
            previous = row["hash"]
        registered = {
            row["run"]
            for row in self.rows("SELECT run FROM upgrades_registerentry WHERE kind = 'run.started'")
        }
        for row in self.rows("SELECT id FROM upgrades_run"):
            if row["id"] not in registered:
                self.say("I11", f"run {row['id']} is not in the register")

    def _sealed(self):
        heads = {
            ("run", str(r["run_id"]), r["seq"]): r["hash"]
            for r in self.rows("SELECT run_id, seq, hash FROM upgrades_runevent")
        }
        heads |= {
            ("book", r["book"], r["number"]): r["hash"]
            for r in self.rows("SELECT book, number, hash FROM upgrades_registerentry")
        }
        leaves = self.rows("SELECT * FROM upgrades_checkpointleaf ORDER BY position")
        for place, leaf in enumerate(leaves):
            kind, _, name = leaf["subject"].partition(" ")
            if leaf["position"] != place or heads.get((kind, name, leaf["seq"])) != leaf["hash"]:
                self.say("I5", f"leaf {place} ({leaf['subject']} {leaf['seq']}) is not in the record")
        texts = [f"{leaf['subject']} {leaf['seq']} {leaf['hash']}".encode() for leaf in leaves]
        notes = {}
        for place, row in enumerate(self.rows("SELECT * FROM upgrades_checkpoint ORDER BY number"), 1):
            lines = row["note"].split("\n")
            notes[row["number"]] = row["note"]
            if row["number"] != place or int(lines[1]) != row["size"] or row["size"] > len(leaves):
                self.say("I5", f"checkpoint {row['number']} does not fit its leaves")
            elif base64.b64decode(lines[2]) != _root(texts[: row["size"]]):
                self.say("I5", f"the root of checkpoint {row['number']} is not that of its leaves")
        self._covered(leaves)
        for text in self.checkpoints:
            try:
                line = json.loads(text)
            except ValueError:
                continue  # cut off by a crash; the whole one follows
            number = int(line["note"].split("number ")[1].split("\n")[0])
            if notes.get(number) != line["note"]:
                self.say("I5", f"checkpoint {number} left the system and is not in the database")

    def _covered(self, leaves):
        """The newest checkpoint covers what was old by then, whichever chain it belongs to."""
        newest = self.rows("SELECT number, size, at FROM upgrades_checkpoint ORDER BY number DESC LIMIT 1")
        if self.clock_was_set:
            return
        if not newest:
            self._never_sealed()
            return
        covered = {leaf["subject"]: leaf["seq"] for leaf in leaves[: newest[0]["size"]]}
        chains = self.rows(
            "SELECT 'run ' || run_id AS subject, seq, text::json ->> 'at' AS at FROM upgrades_runevent"
            " UNION ALL SELECT 'book ' || book, number, at::text FROM upgrades_registerentry ORDER BY 1, 2"
        )
        for item in chains:
            age = newest[0]["at"] - datetime.fromisoformat(item["at"])
            if age.total_seconds() > SEALED_LATE and item["seq"] > covered.get(item["subject"], 0):
                self.say(
                    "I5", f"checkpoint {newest[0]['number']} left out {item['subject']} from {item['seq']} on"
                )
                covered[item["subject"]] = sys.maxsize

    def _never_sealed(self):
        """Once the faults are over, a record does not grow old without any checkpoint: one is due every five minutes."""
        (old,) = self.rows(
            "SELECT count(*) AS n FROM upgrades_runevent"
            " WHERE (text::json ->> 'at')::timestamptz < now() - make_interval(secs => %s)",
            2 * SEALED_LATE,
        )
        if self.final and old["n"]:
            self.say(
                "I5", f"there is no checkpoint, and {old['n']} events are older than {2 * SEALED_LATE:.0f} s"
            )

    # I6: what was acknowledged.

    def _receipts(self, run):
        """A command acts once: a person has no more acts in a run than receipts."""
        acts = defaultdict(set)
        for item in run.events:
            if item["by"]["kind"] == "person" and item["kind"] != "attempt.refused":
                acts[item["by"]["id"]].add(item["at"])
        receipts = Counter(
            row["actor_id"]
            for row in self.rows("SELECT actor_id FROM upgrades_commandreceipt WHERE run_id = %s", run.id)
        )
        for person, times in acts.items():
            if len(times) > receipts[person]:
                self.say(
                    "I6",
                    f"run {run.id}: {person} acted {len(times)} times and has {receipts[person]} receipts",
                )

    def _acknowledged(self):
        stored = {
            str(row["command_id"]): row
            for row in self.rows("SELECT command_id, run_id, act, seq FROM upgrades_commandreceipt")
        }
        seqs = {
            row["run_id"]: row["last"]
            for row in self.rows("SELECT run_id, max(seq) AS last FROM upgrades_runevent GROUP BY run_id")
        }
        outcomes = defaultdict(set)
        for act in self.history:
            if act["kind"] == "act":
                outcomes[act["id"]].add(act["outcome"])
                if act["outcome"] == "ok" and act.get("expect") == "refused":
                    self.say("I4", f"act {act['id']} ({act['act']}) had to be refused and was not")
        for key, seen in outcomes.items():
            receipt = stored.get(key)
            if "ok" in seen and receipt is None:
                self.say("I6", f"act {key} was acknowledged and is not stored")
            if receipt is not None and receipt["seq"] > seqs.get(receipt["run_id"], 0):
                self.say(
                    "I6",
                    f"act {key} has a receipt for event {receipt['seq']} of run {receipt['run_id']}, which is not there",
                )
            if self.final and seen == {"refused"} and receipt is not None:
                self.say("I6", f"act {key} was refused and is stored")
        attached = set()
        for event in self.rows("SELECT run_id, text FROM upgrades_runevent WHERE kind = 'evidence.attached'"):
            body = json.loads(event["text"])["body"]
            attached.add((event["run_id"], body["evidence"], body["sha256"]))
        for row in self.rows("SELECT id, run_id, sha256 FROM upgrades_evidence"):
            if (row["run_id"], row["id"], row["sha256"]) not in attached:
                self.say("I6", f"evidence {row['id']} is stored and no event of its run says so")

    # I9 to I12: what the harness saw.

    def _went_on(self):
        if not self.final:
            return
        if not any(one["kind"] == "run" for one in self.history):
            self.say("I9", "no team started a run: there is nothing to judge, and that is no good sign")
        over = {one["run"]: one for one in self.history if one["kind"] == "run-over"}
        for one in self.history:
            if one["kind"] == "run" and one["run"] not in over:
                self.say("I9", f"run {one['run']} ({one['procedure']}, {one['scenario']}) was never finished")
            elif one["kind"] == "run" and over[one["run"]]["complaint"]:
                self.say("I9", f"run {one['run']}: {over[one['run']]['complaint']}")
            elif one["kind"] == "due":
                there = self.rows(
                    "SELECT 1 FROM upgrades_runevent WHERE run_id = %s AND kind = %s AND text LIKE %s",
                    *(one["run"], one["event"], f"%{one['holding']}%"),
                )
                if not there:
                    self.say(
                        "I9", f"run {one['run']}: {one['event']} ({one['holding']}) was due and never came"
                    )

    def _displayed(self):
        faults = [
            one for one in self.history if one["kind"] in ("fault-begins", "fault-ends") and one.get("silent")
        ]
        for one in self.history:
            if one["kind"] != "display":
                continue
            begun = [f for f in faults if f["silent"] == one["agent"] and f["t"] <= one["t"]]
            if (
                begun
                and begun[-1]["kind"] == "fault-begins"
                and one["t"] - begun[-1]["t"] > DISPLAY_LATE
                and not one["says_so"]
            ):
                late, page = one["t"] - begun[-1]["t"], one.get("page", "the page")
                self.say(
                    "I10", f"{late:.0f} s after agent {one['agent']} fell silent {page} still did not say so"
                )

    def _recorded(self):
        """Each act that was refused for want of a right stands in the record."""
        wanted = defaultdict(set)
        for act in self.history:
            if (
                act["kind"] == "act"
                and act["outcome"] == "refused"
                and act["status"] == 403
                and act.get("run")
            ):
                wanted[act["run"]].add(act["id"])
        for run, ids in wanted.items():
            there = self.rows(
                "SELECT count(*) AS n FROM upgrades_runevent WHERE run_id = %s AND kind = 'attempt.refused'",
                run,
            )[0]["n"]
            if there < len(ids):
                self.say(
                    "I11",
                    f"run {run}: {len(ids)} acts were refused for want of a right and {there} of them are recorded",
                )
        for row in self.rows("SELECT agent_id, environment_id, clock_skew FROM upgrades_agent"):
            for one in self.history:
                if (
                    one["kind"] == "skew"
                    and one["agent"] == row["agent_id"]
                    and one.get("environment") in (None, row["environment_id"])
                    and abs(row["clock_skew"] - one["seconds"]) > 60
                ):
                    self.say(
                        "I11",
                        f"the clock of agent {row['agent_id']} is {one['seconds']} s off, not {row['clock_skew']:.0f}",
                    )

    def _twins(self):
        for one in self.history:
            if one["kind"] != "twins":
                continue
            ways = [
                [
                    (body["step"], body["gate"], body["outcome"])
                    for body in (
                        json.loads(row["text"])["body"]
                        for row in self.rows(
                            "SELECT text FROM upgrades_runevent WHERE run_id = %s AND kind = 'gate.outcome' ORDER BY seq",
                            run,
                        )
                    )
                ]
                for run in one["runs"]
            ]
            if any(way != ways[0] for way in ways):
                self.say("I12", f"runs {one['runs']} differ only in clocks and went {ways}")


def _own(step):
    """The step as the text has it: each member of a group has one of its own, `step--member`."""
    return step.partition("--")[0]


def _signed(run, before, where, *what):
    """The deviations of the step that were decided by then, by number: one that was only asked for allows nothing."""
    decided = {
        one["body"]["number"] for one in run.of("deviation.signed", before=before) if one["body"]["decides"]
    }
    return {
        one["body"]["number"]: one["body"]
        for one in run.of("deviation.asked", before=before)
        if one["body"]["number"] in decided
        and one["body"]["step"] == where["step"]
        and one["body"]["what"] in what
    }


def _place(file):
    return f"{file['identity']}~{file['generation']}" if file["generation"] else file["identity"]


def _iso(value):
    return value.isoformat() if value is not None else None


def _same(one, other):
    if isinstance(one, str) and isinstance(other, str) and TIME.match(one) and TIME.match(other):
        return datetime.fromisoformat(one) == datetime.fromisoformat(other)
    return one == other


def _needed(policies, name):
    """How many signatures the policy of that name asks for; one where the environment says nothing of it."""
    policy = policies.get(name) or {}
    needs = policy.get("needs") or [{"signatures": policy.get("signatures", 1)}]
    return sum(need["signatures"] for need in needs)


def _numbers(station):
    return {station} if isinstance(station, str) else set(station["one-of"])


def _all(stations):
    found = set()
    for one in stations:
        found |= _all(one) if isinstance(one, list) else _numbers(one)
    return found


def _facts(run, before):
    facts = dict(run.started["facts"])
    for item in run.of("fact.set", before=before):
        facts[item["body"]["name"]] = item["body"]["value"]
    return facts


def _holds(condition, facts):
    """The simple conditions of the texts: a fact, its opposite, a comparison, or several with "and". None: cannot tell."""
    parts = [_holds_one(part.strip(), facts) for part in condition.split(" and ")]
    return None if " or " in condition or None in parts else all(parts)


def _holds_one(part, facts):
    negated, name = part.startswith("not "), part.removeprefix("not ")
    comparison = re.fullmatch(r"([\w.-]+) (<=?|=) ([\w.-]+)", name)
    if comparison:
        left, sign, right = comparison.groups()
        one, other = facts.get(left), facts.get(right, right)
        if one is None:
            return None
        try:
            one, other = (tuple(map(int, str(value).split("."))) for value in (one, other))
        except ValueError:
            one, other = str(one), str(other)
        holds = one < other if sign == "<" else one <= other if sign == "<=" else one == other
    else:
        if not isinstance(facts.get(name), bool):
            return None
        holds = facts[name]
    return holds != negated


def _counts_from(marks, place):
    """Where the lines of a file begin to count. One that is not named counts whole, but a copy only beyond its original."""
    if place in marks or any(known.partition("~")[0] == place.partition("~")[0] for known in marks):
        return marks.get(place, 0)
    first_line = place.partition("~")[0].rpartition("-")[2]
    alike = [known for known in marks if known.partition("~")[0].rpartition("-")[2] == first_line]
    return max((marks[known] for known in alike), default=0)


def _root(leaves):
    """RFC 6962, section 2.1."""
    if not leaves:
        return hashlib.sha256().digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    half = 1 << ((len(leaves) - 1).bit_length() - 1)
    return hashlib.sha256(b"\x01" + _root(leaves[:half]) + _root(leaves[half:])).digest()


def _ground_truth(folders):
    """The log files below the folders, by device and inode as agents name them."""
    found = {}
    for folder in folders:
        for base, _, names in os.walk(folder):
            for name in names:
                path = Path(base) / name
                try:
                    stat = path.stat()
                except OSError:
                    continue
                found[f"{stat.st_dev:x}-{stat.st_ino:x}"] = path
    return found


def _content(truth, identity):
    try:
        return truth[identity].read_bytes()
    except (KeyError, FileNotFoundError):
        return None


def read_history(path):
    if path is None or not Path(path).exists():
        return []
    found = []
    for line in Path(path).read_text(errors="replace").splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def check(database, *, history=None, logs=(), rules=None, checkpoints=None, final=False):
    """The violations found in one snapshot of the database. The history is read first: what it has must be stored."""
    seen = history if isinstance(history, list) else read_history(history)
    left = (
        checkpoints.read_text(errors="replace").splitlines() if checkpoints and checkpoints.exists() else []
    )
    with psycopg.connect(database, row_factory=dict_row) as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        return Checker(connection, seen, logs, rules, left, final).check()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("database")
    parser.add_argument("--history", type=Path)
    parser.add_argument("--logs", type=Path, action="append", default=[])
    parser.add_argument("--rules", type=Path)
    parser.add_argument("--checkpoints", type=Path)
    parser.add_argument(
        "--final", action="store_true", help="the faults are over and the teams have ended their runs"
    )
    chosen = parser.parse_args()
    rules = json.loads(chosen.rules.read_text()) if chosen.rules else {}
    found = check(
        chosen.database,
        history=chosen.history,
        logs=chosen.logs,
        rules=rules,
        checkpoints=chosen.checkpoints,
        final=chosen.final,
    )
    for violation in found:
        print(violation)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
