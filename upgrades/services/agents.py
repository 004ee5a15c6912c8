"""What agents say, taken in: log lines, processes, trouble. One transaction per answer, so half an answer is none.

A file's cursor moves in the transaction that stores its lines, and only from where it stood: an answer that comes
twice, late or out of order changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from agent.messages import first_line_of
from upgrades.adapters.agent_client import (
    AgentAddress,
    ApplicationNews,
    FilePart,
    Health,
    Logs,
    News,
    Process,
)
from upgrades.adapters.crash_points import crash
from upgrades.domain.application_type import type_number
from upgrades.domain.log_events import (
    ClientTotal,
    Cut,
    HeaderLine,
    LogEvent,
    ParserState,
    Record,
    Unrecognised,
    read,
)
from upgrades.models import Agent, Application, LogFile, LogLine, ProcessChange, RunBinding
from upgrades.models.agent import A_LINE

OVER = ("ended", "aborted")


def address_of(agent: Agent) -> AgentAddress:
    return AgentAddress(
        agent=agent.agent_id,
        url=agent.url,
        key_id=agent.key_id,
        secret=agent.secret,
        certificate=agent.certificate,
    )


@dataclass(frozen=True, slots=True)
class Taken:
    """What an answer changed: the runs that a worker should look at, how much more of the logs pages have to show, and the
    environment whose page shows something else now (None: none does).
    """

    runs: tuple[int, ...]
    lines: int  # stored ones, and one for each file whose reading fell behind or caught up
    environment: int | None = None


class LeaseLost(Exception):
    """Somebody else follows the agent by now; what this worker still holds is old and must change nothing."""


def followed(agent_id: int, lease: UUID | None) -> Agent:
    """The agent, locked until the caller's transaction ends. With `lease`, only while that holds, else `LeaseLost`."""
    agent = Agent.objects.select_for_update().get(pk=agent_id)
    if lease is not None and agent.lease_token != lease:
        raise LeaseLost(f"agent {agent} is followed by another worker")
    return agent


def hold_agents(host_ids: Iterable[int]) -> None:
    """Lock the agents of these hosts until the caller's transaction ends.

    Whoever changes them together with applications does so first, as whoever stores their news does: else each might
    wait for the other.
    """
    list(Agent.objects.select_for_update().filter(host__in=host_ids).order_by("pk").values_list("pk"))


@transaction.atomic
def take_news(agent_id: int, news: News, *, lease: UUID | None = None) -> Taken:
    """Store what a poll brought. With `lease`, only while that is the agent's lease still, else `LeaseLost`."""
    now = timezone.now()
    agent = followed(agent_id, lease)
    recovered = _answered(agent, news.origin.skew, now)
    changed: set[int] = set()
    stored, moved_any = 0, recovered
    applications = {
        application.name: application
        for application in Application.objects.filter(host=agent.host_id, name__in=news.applications)
    }
    for name, part in news.applications.items():
        application = applications.get(name)
        if application is None:
            continue
        lines = _take_files(application, part, now)
        moved = _take_process(application, part.process, now)
        if lines or moved or recovered:
            changed.add(application.pk)
        stored += lines
        moved_any = moved_any or moved
    return Taken(open_runs(changed), stored, agent.environment_id if moved_any else None)


@transaction.atomic
def take_look(agent_id: int, health: Health, logs: Logs, *, lease: UUID | None = None) -> Taken:
    """Store that an agent without open gates is well, and which of its host's processes run."""
    now = timezone.now()
    agent = followed(agent_id, lease)
    agent.version = health.version[:40]
    recovered = _answered(agent, health.origin.skew, now)
    there = Application.objects.filter(host=agent.host_id, name__in=logs.applications)
    moved = [_take_process(item, logs.applications[item.name].process, now) for item in there]
    changed = recovered or any(moved)
    return Taken(_runs_on(agent) if recovered else (), 0, agent.environment_id if changed else None)


@transaction.atomic
def record_trouble(agent_id: int, text: str, *, at: datetime, lease: UUID | None = None) -> Taken:
    """Store that an agent does not answer as it should; the runs that depend on it are told once it lasts."""
    agent = followed(agent_id, lease)
    is_new = not agent.trouble
    agent.trouble = text[:300]
    agent.trouble_since = agent.trouble_since or at
    agent.save(update_fields=["trouble", "trouble_since"])
    return Taken(_runs_on(agent), 0, agent.environment_id if is_new else None)


def open_runs(applications: Iterable[int]) -> tuple[int, ...]:
    """The runs under way that bind any of these applications."""
    bound = RunBinding.objects.filter(application__in=applications).exclude(run__status__in=OVER)
    return tuple(bound.order_by("run_id").values_list("run_id", flat=True).distinct())


def _runs_on(agent: Agent) -> tuple[int, ...]:
    return open_runs(Application.objects.filter(host=agent.host_id).values_list("pk", flat=True))


def _answered(agent: Agent, skew: float, now: datetime) -> bool:
    """Note that the agent answered; True when it had been in trouble."""
    recovered = bool(agent.trouble)
    agent.seen_at, agent.clock_skew = now, skew
    agent.trouble, agent.trouble_since = "", None
    agent.save(update_fields=["seen_at", "clock_skew", "trouble", "trouble_since", "version"])
    return recovered


def _take_process(application: Application, process: Process, now: datetime) -> bool:
    before = application.process_state
    if before == process.state:
        return False
    ProcessChange.objects.create(
        application=application, state=process.state, before=before, reason=process.reason[:300], seen_at=now
    )
    application.process_state, application.process_reason = process.state, process.reason[:300]
    application.save(update_fields=["process_state", "process_reason"])
    crash("news.process-stored")
    return True


def _take_files(application: Application, news: ApplicationNews, now: datetime) -> int:
    gaps = _take_trouble(application, news, now)
    return gaps + sum(_take_part(application, part, now) for part in news.files)


def _take_trouble(application: Application, news: ApplicationNews, now: datetime) -> int:
    """Store what the agent cannot read of a log as a gap, once for as long as it says the same, before anything that it can read.

    Without any file there is no place for the gap, and nothing either that a gate could rest on: then the next answer
    tells it.
    """
    trouble = "" if news.complete else " ".join(news.trouble) or "The agent cannot read the whole log."
    if trouble == application.log_trouble:
        return 0
    gaps = 0
    if trouble:
        known = LogFile.objects.filter(application=application).order_by("-pk")
        file = known.filter(state="open").first() or known.first()
        if file is None:
            begun = next((part for part in news.files if part.state == "open"), None)
            if begun is None:
                return 0
            file = _new_file(application, begun)
        gaps = _gap(file, trouble, now)
    application.log_trouble = trouble
    application.save(update_fields=["log_trouble"])
    return gaps


def _take_part(application: Application, part: FilePart, now: datetime) -> int:
    file = (
        LogFile.objects.select_for_update()
        .filter(application=application, identity=part.file)
        .order_by("-generation")
        .first()
    )
    if part.state != "open":
        return _lose(file, part, now) if file is not None and file.state == "open" else 0
    doubts = 0
    if file is None:
        doubts = _tell_unended(application, part, now)
        file = _new_file(application, part)
        doubts += _doubt_if_alike(file, now)
    elif file.state == "shrunk":
        file = _new_file(application, part, file)
    if file.state == "gone":
        # It is back, under whatever name. Nobody asked for it from its cursor; the next poll does.
        file.state = "open"
        file.save(update_fields=["state"])
    if part.start != file.cursor:
        return 0  # an answer to an older question: what it holds is stored already, or comes again
    return doubts + _read(application, file, part, now)


def _new_file(application: Application, part: FilePart, before: LogFile | None = None) -> LogFile:
    state = ParserState.initial(
        application_type=type_number(application.type), file_name=part.name, offset=part.start
    )
    file = before.next_generation() if before else LogFile(application=application, identity=part.file)
    file.name, file.cursor, file.parser_state = part.name[:300], part.start, state.to_json()
    file.save()
    return file


def _doubt_if_alike(file: LogFile, now: datetime) -> int:
    """Say of a new file that begins with the line of one that is known: it may hold nothing but old lines.

    The head of each segment has its own time, so a rotation alone gives no two files that begin alike.
    """
    begins_alike = LogFile.objects.filter(
        application=file.application_id, identity__endswith=f"-{first_line_of(file.identity)}"
    )
    known = begins_alike.exclude(identity=file.identity).order_by("pk").first()
    if known is None:
        return 0
    text = (
        f"{file.name} begins with the same line as {known.name}: it is a copy, or that log on another device. "
        "What stood there when the step began does not count"
    )
    _mark(file, LogLine.Kind.FOREIGN, 0, text, now).save()
    return 1


def _doubt_if_headless(file: LogFile, now: datetime) -> list[LogLine]:
    """Say of a new file that begins without a head, beside others: an extract of a log holds nothing but old lines.

    Servers write one at the top of each file and segment. Of the first file of all nothing is said: a step that begins
    later has its watermark there.
    """
    others = LogFile.objects.filter(application=file.application_id).exclude(identity=file.identity)
    if not others.exists():
        return []
    text = (
        f"{file.name} begins without the head that a server writes at the top of each of its files: "
        "it may be an extract of another one, made by hand. Once this is set aside, its lines count"
    )
    return [_mark(file, LogLine.Kind.FOREIGN, 0, text, now)]


def _lose(file: LogFile, part: FilePart, now: datetime) -> int:
    """A file that shrank, or went away before all of it was read, leaves a gap that everybody can see.

    One that went away when all that was known of it had been read may be back, and until another one begins, nothing
    that follows rests on it (`_tell_unended`).
    """
    unread = part.state == "shrunk" or file.size > file.cursor
    file.state = part.state
    file.save(update_fields=["state"])
    return _gap(file, f"{file.name}, from byte {file.cursor} on: {part.reason}", now) if unread else 0


def _gap(file: LogFile, text: str, now: datetime) -> int:
    """A gap behind what was read of the file. Where there was one before, it is a new one to every step that began since."""
    there = LogLine.objects.filter(file=file, offset=file.cursor, kind=LogLine.Kind.GAP)
    renewed, _ = there.delete()
    _mark(file, LogLine.Kind.GAP, file.cursor, text, now).save()
    return 0 if renewed else 1


def _mark(file: LogFile, kind: str, offset: int, text: str, now: datetime) -> LogLine:
    """What Runbook itself says of a place in a file, unsaved: a line without bytes, so it covers none of the file's."""
    return LogLine(file=file, offset=offset, length=0, kind=kind, text=text[:4000], raw=b"", read_at=now)


def _tell_unended(application: Application, follower: FilePart, now: datetime) -> int:
    """Store the gaps of files that went away when no later one was known, now that another one begins.

    Nobody saw their ends: while the agent was away, the server may have gone on in them, begun the new one, and taken them
    away. A copy is no later one; when it comes, it is in doubt itself (`_doubt_if_alike`).
    """
    known = list(LogFile.objects.filter(application=application).defer("parser_state").order_by("pk"))
    first: dict[str, str] = {}
    last = 0
    for file in known:
        if first.setdefault(first_line_of(file.identity), file.identity) == file.identity:
            last = file.pk
    gaps = 0
    for file in known:
        is_unended = file.pk >= last and file.state == "gone"
        if is_unended and first_line_of(file.identity) != first_line_of(follower.file):
            text = (
                f"{file.name}, from byte {file.cursor} on: it went away before {follower.name} was there, "
                "so nobody saw its end"
            )
            gaps += _gap(file, text, now)
    return gaps


def _read(application: Application, file: LogFile, part: FilePart, now: datetime) -> int:
    data, cuts = _as_sent(part)
    before = ParserState.from_json(file.parser_state)
    state, records = read(before, data, part.start, cuts=cuts, final=part.partial)
    was_behind = file.unread > 0
    file.cursor, file.mark, file.size = part.end, part.mark, part.size
    file.state, file.parser_state = "open", state.to_json()
    file.save()
    crash("news.cursor-moved")
    number = type_number(application.type)
    where = _Bytes(data, part.start, cuts)
    rows = [row for record in records if (row := _row(file, record, number, where, now)) is not None]
    rows += _contradictions(application, file, records, where, now)
    if before.head_lines >= 0 and state.is_headless:
        rows += _doubt_if_headless(file, now)
    LogLine.objects.bulk_create(rows, ignore_conflicts=True)
    crash("news.lines-stored")
    totals = [record for record in records if isinstance(record, ClientTotal)]
    if totals and not file.lines.filter(kind=LogLine.Kind.FOREIGN).exists():
        application.client_total, application.client_total_at = totals[-1].total, now
        application.save(update_fields=["client_total", "client_total_at"])
    return len(rows) + (was_behind != (file.unread > 0))


def _contradictions(
    application: Application, file: LogFile, records: Iterable[Record], where: _Bytes, now: datetime
) -> list[LogLine]:
    """Heads that name another application or host: the file may be of another instance, and a person has to look.

    Until two people set that aside, nothing that follows in the file opens a gate, however old the head itself is.
    """
    rows = []
    for record in records:
        if not isinstance(record, HeaderLine):
            continue
        ours = {"application name": application.name, "host name": application.host.name}.get(record.key, "")
        if not ours or not record.value or _names_agree(record.key, record.value, ours):
            continue
        text = f"the head of {file.name} says “{record.key}: {record.value}”, but this is {ours}"
        rows.append(
            LogLine(
                file=file,
                offset=record.offset,
                length=record.length,
                kind=LogLine.Kind.FOREIGN,
                text=text[:4000],
                raw=where.of(record),
                read_at=now,
            )
        )
    return rows


def _names_agree(key: str, said: str, ours: str) -> bool:
    """A host may be written short or in full; where it is registered by its address, nothing can be compared."""
    if key == "host name":
        if ours.replace(".", "").isdigit() or ":" in ours:
            return True
        said, ours = said.partition(".")[0], ours.partition(".")[0]
    return said.strip().casefold() == ours.casefold()


def _as_sent(part: FilePart) -> tuple[bytes, list[Cut]]:
    """The part as the reader of lines wants it: a shortened line without its end, and its whole length with it."""
    data, cuts, removed = part.data, [], 0
    for cut in part.cuts:
        line = cut.offset - A_LINE
        end = cut.offset - part.start - removed
        ended = data[end : end + 1] == b"\n"
        if ended:
            data = data[:end] + data[end + 1 :]
        length = A_LINE + cut.length + (1 if ended else 0)
        cuts.append(Cut(offset=line, kept=A_LINE, length=length, sha256=cut.sha256))
        removed += length - A_LINE
    return data, cuts


class _Bytes:
    """The bytes of a record by its place in the file."""

    def __init__(self, data: bytes, start: int, cuts: Sequence[Cut]) -> None:
        self.data, self.start, self.cuts = data, start, cuts

    def of(self, record: Record) -> bytes:
        before = sum(cut.length - cut.kept for cut in self.cuts if cut.offset < record.offset)
        own = next((cut.kept for cut in self.cuts if cut.offset == record.offset), record.length)
        at = record.offset - self.start - before
        return self.data[at : at + own]


def _row(file: LogFile, record: Record, number: str, where: _Bytes, now: datetime) -> LogLine | None:
    """The row of a record that anybody will look for: events, totals, unknown lines. Debug text has none."""
    match record:
        case LogEvent():
            return LogLine(
                file=file,
                offset=record.offset,
                length=record.length,
                kind=LogLine.Kind.EVENT,
                event=record.id_for(number),
                level=record.level[:20],
                logged_at=record.at.isoformat(timespec="milliseconds") if record.at else "",
                text=record.text[:4000],
                raw=where.of(record),
                read_at=now,
            )
        case ClientTotal():
            return LogLine(
                file=file,
                offset=record.offset,
                length=record.length,
                kind=LogLine.Kind.TOTAL,
                logged_at=record.at.isoformat(timespec="milliseconds") if record.at else "",
                total=min(record.total, 2_000_000_000),
                text=f"Total number of clients: {record.total}",
                raw=where.of(record),
                read_at=now,
            )
        case Unrecognised():
            return LogLine(
                file=file,
                offset=record.offset,
                length=record.length,
                kind=LogLine.Kind.UNREADABLE,
                text=f"line {record.line_number} of {file.name}: {record.text} ({record.reason})"[:4000],
                raw=where.of(record),
                read_at=now,
            )
        case _:
            return None
