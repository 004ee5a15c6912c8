"""The report of a run: what an auditor asks of one change, readable without the application."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from upgrades.domain import run_events as e
from upgrades.domain.report import Report, Table, moment
from upgrades.domain.run_events import Recorded
from upgrades.queries.run_page import RunPage
from upgrades.queries.run_page.sight import clock, spoken

REHEARSAL = "Rehearsal on simulated servers. Nothing in this report happened in the real environment."


@dataclass(slots=True)
class Person:
    """Somebody who acted in the run, with the name and the roles that the record has for each act."""

    id: str
    name: str
    kind: str
    first: datetime
    last: datetime
    roles: list[str] = field(default_factory=list)
    acts: int = 0


def people(history: Iterable[Recorded]) -> list[Person]:
    """Everybody who acted, in the order of their first act, with the rights as they were then."""
    found: dict[str, Person] = {}
    for item in history:
        by = item.by
        person = found.setdefault(by.id, Person(by.id, by.name, by.kind, item.at, item.at))
        person.last, person.acts = item.at, person.acts + 1
        held = ", ".join(by.roles) or "none"
        if held not in person.roles:
            person.roles.append(held)
    return list(found.values())


@dataclass(frozen=True, slots=True)
class Decision:
    """A signature or a refusal to sign: how long it took, and whether evidence was opened before."""

    at: datetime
    by: str
    what: str
    roles: str
    waited: str
    opened: int
    words: str
    digest: str


def decisions(history: Sequence[Recorded], opened: Mapping[str, Sequence[datetime]]) -> list[Decision]:
    """Every approval and every decision on a deviation. `opened`: when each person opened evidence of this run."""
    asked: dict[tuple[str, object], datetime] = {}
    found = []
    for item in history:
        match item.event:
            case e.StepEntered(step=step, visit=visit):
                asked[step, visit] = item.at
            case e.DeviationAsked(number=number):
                asked["deviation", number] = item.at
            case e.ApprovalSigned(step=step, visit=visit, comment=words, digest=digest):
                found.append(
                    _decision(item, f"approves {step}", asked.get((step, visit)), opened, words, digest)
                )
            case e.ApprovalRejected(step=step, visit=visit, reason=words, digest=digest):
                found.append(
                    _decision(item, f"rejects {step}", asked.get((step, visit)), opened, words, digest)
                )
            case e.DeviationSigned(number=number, comment=words):
                since = asked.get(("deviation", number))
                found.append(_decision(item, f"signs deviation {number}", since, opened, words))
            case e.ApprovalAsked(step=step, visit=visit):
                asked[step, visit] = item.at
            case e.OverrideReviewed(number=number, text=words):
                since = asked.get(("deviation", number))
                found.append(_decision(item, f"reviews emergency {number}", since, opened, words))
            case e.DeviationRejected(number=number, reason=words):
                since = asked.get(("deviation", number))
                found.append(_decision(item, f"rejects deviation {number}", since, opened, words))
            case _:
                pass
    return found


def _decision(
    item: Recorded,
    what: str,
    since: datetime | None,
    opened: Mapping[str, Sequence[datetime]],
    words: str,
    digest: str = "",
) -> Decision:
    before = [at for at in opened.get(item.by.id, ()) if at <= item.at]
    waited = spoken((item.at - since).total_seconds()) if since else ""
    return Decision(item.at, item.by.name, what, ", ".join(item.by.roles), waited, len(before), words, digest)


def run_report(
    page: RunPage,
    history: Sequence[Recorded],
    opened: Mapping[str, Sequence[datetime]],
    *,
    number: int | None,
    rehearsed: str,
) -> Report:
    """The report. `number` is the run's in the gap-free list of its environment, `rehearsed` what `rehearsed_before`
    tells."""
    return Report(
        kind="Report of a rehearsal" if page.rehearsal else "Report of a run",
        title=page.title,
        warning=REHEARSAL if page.rehearsal else "",
        facts=_facts(page, number, rehearsed, _authors(history)),
        tables=(
            _burdens(page),
            _steps(page),
            _decisions(history, opened),
            _deviations(page),
            _lapsed(history),
            _notes(page),
            _evidence(history),
            _people(history),
            _record(page),
        ),
        foot=f"Run {page.id} · newest event {page.head}",
    )


def _facts(page: RunPage, number: int | None, rehearsed: str, authors: str) -> tuple[tuple[str, str], ...]:
    servers = ", ".join(
        server.name for pair in page.pairs for server in (pair.left, pair.right) if server is not None
    )
    rows = [
        ("Run", f"{page.id}, number {number} in the list of its environment" if number else f"{page.id}"),
        ("Environment", f"{page.environment} (simulated)" if page.simulated else page.environment),
        ("State", f"{page.status_text}. {page.ending}" if page.status == "aborted" else page.status_text),
        ("Change", f"{page.change or 'none was named'} ({page.category})"),
        ("Reason and impact", page.reason or "none was stated"),
        ("Rehearsed before", rehearsed),
        ("Procedure", f"{page.procedure}, version {page.procedure_version} of {page.procedure_id}"),
        ("Text of the procedure", f"SHA-256 {page.procedure_hash}"),
        ("Written by", authors or "nobody is named"),
        ("Servers", servers),
        ("Clocks of the hosts", _clocks(page)),
        ("Started", f"{moment(page.started_at)} UTC by {page.starter}"),
        ("Ended", f"{moment(page.ended_at)} UTC, after {page.took}" if page.ended_at else "still open"),
        ("Steps", page.position),
        ("Newest event", page.head),
    ]
    return tuple(rows)


def _authors(history: Sequence[Recorded]) -> str:
    """Who wrote the texts that the run followed: none of them approves it."""
    named = [
        author
        for item in history
        if isinstance(item.event, e.RunStarted)
        for author in item.event.authors
        if not author.startswith("user:")  # the id of one whose name stands there too
    ]
    return ", ".join(dict.fromkeys(named))


def _clocks(page: RunPage) -> str:
    told = ", ".join(f"{host} {ahead / 1000:+.1f} s" for host, ahead in sorted(page.clocks.items()))
    return f"{told} against the application's when the run started" if told else "were not known at the start"


def _burdens(page: RunPage) -> Table:
    closed = [
        (
            row.title,
            moment(row.since),
            moment(row.closed_at),
            row.took,
            f"{row.closed_by}. {row.text}".strip(" ."),
        )
        for row in page.closed
    ]
    still = [
        (
            row.title,
            moment(row.since),
            "open",
            "",
            f"taken over by {row.owner}" if row.owner else "nobody has taken it over",
        )
        for row in page.burdens
    ]
    columns = ("What", "From (UTC)", "To (UTC)", "Length", "By")
    return Table("Exposures and duties", columns, (32, 17, 17, 10, 24), (*closed, *still))


def _steps(page: RunPage) -> Table:
    rows = tuple(
        (
            account.number.strip("–"),
            account.title,
            account.state if account.visit == 1 else f"{account.state}, time {account.visit}",
            moment(account.begun_at) + (f"\n{account.begun_by}" if account.begun_by else ""),
            moment(account.ended_at) + (f"\n{account.ended_by}" if account.ended_by else ""),
            "\n".join(
                part
                for part in (account.reason, *(f"{row.label}: {row.value}" for row in account.proof))
                if part
            ),
        )
        for account in page.accounts
    )
    columns = ("", "Step", "Result", "Begun (UTC)", "Ended (UTC)", "Proof")
    return Table("Steps", columns, (4, 20, 10, 17, 17, 32), rows, "No step has ended.")


def _decisions(history: Sequence[Recorded], opened: Mapping[str, Sequence[datetime]]) -> Table:
    rows = tuple(
        (
            moment(item.at),
            f"{item.by}\n{item.roles}",
            item.what,
            item.waited,
            f"{item.opened}",
            "\n".join(part for part in (item.words, f"digest {item.digest}" if item.digest else "") if part),
        )
        for item in decisions(history, opened)
    )
    columns = ("Time (UTC)", "Who, with the roles then", "Decision", "After", "Opened", "Words")
    text = (
        "After: since the step or the request stood there. "
        "Opened: how often the person had opened evidence of this run before."
    )
    return Table(
        "Approvals and decisions",
        columns,
        (15, 19, 18, 10, 8, 30),
        rows,
        "None was asked for, or none was given.",
        text,
    )


def _deviations(page: RunPage) -> Table:
    rows = tuple(
        (
            f"{row.number}",
            row.what,
            row.reason,
            f"{row.asked_by}\n{moment(row.asked_at)}",
            f"{row.status}\n{row.decided_by}",
        )
        for row in page.deviations
    )
    columns = ("", "What", "Reason", "Asked (UTC)", "Decision")
    return Table("Deviations", columns, (5, 25, 36, 19, 15), rows)


def _lapsed(history: Sequence[Recorded]) -> Table:
    names = {item.by.id: item.by.name for item in history}
    rows = tuple(
        (moment(item.at), names.get(item.event.signer, item.event.signer), item.event.step, item.event.reason)
        for item in history
        if isinstance(item.event, e.ApprovalLapsed)
    )
    return Table(
        "Signatures that lapsed", ("Lapsed (UTC)", "Signed by", "Step", "Why"), (17, 20, 20, 43), rows
    )


def _notes(page: RunPage) -> Table:
    rows = tuple((moment(note.at), note.by, note.step, note.text) for note in reversed(page.notes))
    return Table("Notes", ("Time (UTC)", "By", "At", "Text"), (17, 16, 12, 55), rows)


def _evidence(history: Sequence[Recorded]) -> Table:
    rows = tuple(
        (
            item.event.name or "text",
            f"{item.event.size}" if item.event.sha256 else "",
            "\n".join(part for part in (item.event.sha256, item.event.text) if part),
            f"{item.by.name}\n{moment(item.at)}",
            item.event.step,
        )
        for item in history
        if isinstance(item.event, e.EvidenceAttached)
    )
    columns = ("File", "Bytes", "SHA-256, or the text", "By (UTC)", "Step")
    return Table("Evidence", columns, (20, 8, 42, 16, 14), rows)


def _people(history: Sequence[Recorded]) -> Table:
    rows = tuple(
        (
            person.name,
            person.id,
            "\nthen ".join(person.roles),
            f"{person.acts}",
            moment(person.first),
            moment(person.last),
        )
        for person in people(history)
    )
    columns = ("Name then", "Id", "Roles then", "Events", "First (UTC)", "Last (UTC)")
    return Table("Who acted, with the rights as they were then", columns, (20, 14, 22, 8, 18, 18), rows)


def _record(page: RunPage) -> Table:
    rows = tuple(
        (
            f"{entry.seq}",
            moment(entry.at),
            entry.by,
            f"{entry.text}\n{entry.quote}" if entry.quote else entry.text,
        )
        for entry in reversed(page.record)
    )
    text = f"{len(rows)} events, each chained to the one before by SHA-256; events.jsonl has them as they were hashed."
    return Table("Record", ("", "Time (UTC)", "Who", "What"), (5, 17, 18, 60), rows, text=text)


def duration(since: datetime, until: datetime) -> str:
    """“1:04:09” between two times."""
    return clock(until - since)
