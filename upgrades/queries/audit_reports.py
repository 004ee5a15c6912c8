"""Reports that an auditor asks for over many runs: duties and overrides, access, reads and exports."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from django.conf import settings
from django.contrib.auth.models import AbstractUser
from django.db.models import Q, QuerySet

from upgrades.adapters import event_store, register
from upgrades.domain import run_events as e
from upgrades.domain.record import canonical
from upgrades.domain.report import Report, Table, moment
from upgrades.domain.run_events import Recorded
from upgrades.models import Environment, Membership, RegisterEntry, Run, RunBurden, RunEvent
from upgrades.queries.policies import changed
from upgrades.queries.run_page.sight import spoken

WHAT = {
    "skip": "step skipped",
    "override": "gate overridden",
    "doubt": "doubt set aside",
    "correct": "answer corrected",
    "emergency": "begun in an emergency without the approval",
}


@dataclass(frozen=True, slots=True)
class Period:
    """Whole days in UTC; an empty end is open."""

    since: date | None = None
    until: date | None = None

    @property
    def words(self) -> str:
        if not self.since and not self.until:
            return "all time"
        return f"{self.since or 'the beginning'} to {self.until or 'now'}"

    def holds(self, field: str) -> Q:
        """The condition that a time lies in the period."""
        found = Q()
        if self.since:
            found &= Q(**{f"{field}__gte": datetime.combine(self.since, time(), UTC)})
        if self.until:
            found &= Q(**{f"{field}__lte": datetime.combine(self.until, time.max, UTC)})
        return found

    def has(self, at: datetime) -> bool:
        day = at.astimezone(UTC).date()
        return not ((self.since and day < self.since) or (self.until and day > self.until))


def _facts(
    environments: Sequence[Environment], period: Period | None, user: AbstractUser, now: datetime
) -> tuple[tuple[str, str], ...]:
    made = f"{moment(now)} UTC by {user.get_full_name() or user.get_username()}"
    where = ", ".join(environment.name for environment in environments) or "none"
    return (("Made", made), ("Environments", where), *((("Period", period.words),) if period else ()))


def _runs_of(environments: Sequence[Environment]) -> QuerySet[Run]:
    ids = [environment.pk for environment in environments]
    return Run.objects.filter(Q(environment__in=ids) | Q(environment__rehearsal_of__in=ids))


# Duties and overrides.


def duties_report(
    environments: Sequence[Environment], period: Period, user: AbstractUser, now: datetime
) -> Report:
    """What is owed or open, and every deviation, override and refused attempt in the period."""
    runs = {run.pk: run for run in _runs_of(environments).select_related("environment")}
    return Report(
        kind="Report for an audit",
        title="Duties and overrides",
        facts=_facts(environments, period, user, now),
        tables=(
            _open_burdens(runs, now),
            _reviews(runs, now),
            _deviations(runs, period),
            _refused(runs, period),
            _past_burdens(runs, period),
        ),
        foot="Runbook: duties and overrides",
    )


def _name(runs: dict[int, Run], run_id: int) -> str:
    run = runs[run_id]
    return f"Run {run_id}{' (rehearsal)' if run.rehearsal else ''}"


def _open_burdens(runs: dict[int, Run], now: datetime) -> Table:
    rows = list(RunBurden.objects.filter(run__in=runs, closed_at=None).order_by("opened_at"))
    columns = ("Run", "Environment", "What", "Since (UTC)", "For", "Taken over by")
    cells = tuple(
        (
            _name(runs, row.run_id),
            runs[row.run_id].environment.name,
            f"{row.burden.partition(':')[0]}: {row.title}",
            moment(row.opened_at),
            spoken((now - row.opened_at).total_seconds()),
            row.owner_name or ("its run is open" if runs[row.run_id].ended_at is None else "nobody"),
        )
        for row in rows
    )
    return Table(
        "Open duties and exposures",
        columns,
        (12, 20, 28, 16, 9, 15),
        cells,
        "Nothing is open and nothing is owed.",
        runs=tuple(row.run_id for row in rows),
    )


def _reviews(runs: dict[int, Run], now: datetime) -> Table:
    """Emergencies that nobody has looked into yet. A review is due `REVIEW_DAYS` after the end of its run."""
    waiting = sorted(
        (run for run in runs.values() if run.reviews_open), key=lambda run: run.ended_at or now, reverse=False
    )
    within = timedelta(days=settings.REVIEW_DAYS)
    cells = tuple(
        (
            _name(runs, run.pk),
            run.environment.name,
            run.title,
            f"{run.reviews_open}",
            moment(run.ended_at + within) if run.ended_at else "its run is open",
            "overdue" if run.ended_at and run.ended_at + within < now else "",
        )
        for run in waiting
    )
    columns = ("Run", "Environment", "What", "Reviews", "Due (UTC)", "")
    return Table(
        "Emergencies without a review",
        columns,
        (12, 20, 32, 8, 18, 10),
        cells,
        "Every emergency has been looked into.",
        text=f"A review is due {settings.REVIEW_DAYS} days after the end of the run.",
        runs=tuple(run.pk for run in waiting),
    )


def _past_burdens(runs: dict[int, Run], period: Period) -> Table:
    rows = list(
        RunBurden.objects.filter(period.holds("closed_at"), run__in=runs, closed_at__isnull=False).order_by(
            "-closed_at"
        )
    )
    columns = ("Run", "Environment", "What", "From (UTC)", "To (UTC)", "Length")
    cells = tuple(
        (
            _name(runs, row.run_id),
            runs[row.run_id].environment.name,
            f"{row.burden.partition(':')[0]}: {row.title}",
            moment(row.opened_at),
            moment(row.closed_at),
            spoken((row.closed_at - row.opened_at).total_seconds()) if row.closed_at else "",
        )
        for row in rows
    )
    return Table(
        "Duties and exposures that are over",
        columns,
        (12, 20, 28, 16, 16, 8),
        cells,
        runs=tuple(row.run_id for row in rows),
    )


def _events(runs: Iterable[int], kinds: Sequence[str]) -> Iterator[tuple[int, Recorded]]:
    rows = (
        RunEvent.objects.filter(run__in=runs, kind__in=kinds)
        .order_by("run", "seq")
        .values_list("run", "text")
    )
    for run_id, text in rows:
        yield run_id, event_store.read(text)


def _deviations(runs: dict[int, Run], period: Period) -> Table:
    kinds = (e.DeviationAsked.kind, e.DeviationSigned.kind, e.DeviationRejected.kind)
    asked: dict[tuple[int, int], Recorded] = {}
    decided: dict[tuple[int, int], Recorded] = {}
    for run_id, item in _events(runs, kinds):
        match item.event:
            case e.DeviationAsked(number=number):
                asked[run_id, number] = item
            case e.DeviationSigned(number=number) | e.DeviationRejected(number=number):
                decided[run_id, number] = item
            case _:
                pass
    listed = [(key, item) for key, item in asked.items() if period.has(item.at)]
    listed.sort(key=lambda pair: pair[1].at, reverse=True)
    cells = tuple(
        _deviation(runs, run_id, item, decided.get((run_id, number))) for (run_id, number), item in listed
    )
    columns = ("Run", "Environment", "What", "Reason", "Asked (UTC)", "Decided (UTC)")
    return Table(
        "Deviations and overrides",
        columns,
        (12, 16, 18, 24, 15, 15),
        cells,
        runs=tuple(run_id for (run_id, _), _ in listed),
    )


def _deviation(
    runs: dict[int, Run], run_id: int, item: Recorded, decision: Recorded | None
) -> tuple[str, ...]:
    event = item.event
    assert isinstance(event, e.DeviationAsked)
    where = f"{event.step} / {event.gate}" if event.gate else event.step
    if event.fact:
        where = f"{where or 'between two steps'}, {event.fact} to “{event.value}”"
    verdict = "waits for a decision"
    if decision is not None:
        word = "signed" if isinstance(decision.event, e.DeviationSigned) else "rejected"
        verdict = f"{word} by {decision.by.name}\n{moment(decision.at)}"
    return (
        _name(runs, run_id),
        runs[run_id].environment.name,
        f"{WHAT.get(event.what, event.what)}: {where}",
        event.reason,
        f"{item.by.how}\n{moment(item.at)}",
        verdict,
    )


def _refused(runs: dict[int, Run], period: Period) -> Table:
    found = [
        (run_id, item) for run_id, item in _events(runs, (e.AttemptRefused.kind,)) if period.has(item.at)
    ]
    found.sort(key=lambda pair: pair[1].at, reverse=True)
    cells = tuple(
        (
            _name(runs, run_id),
            runs[run_id].environment.name,
            moment(item.at),
            f"{item.by.how}\n{', '.join(item.by.roles) or 'no role'}",
            item.event.act,
            item.event.reason,
        )
        for run_id, item in found
        if isinstance(item.event, e.AttemptRefused)
    )
    columns = ("Run", "Environment", "Time (UTC)", "Who, with the roles then", "Act", "Why it was refused")
    return Table(
        "Refused attempts",
        columns,
        (12, 16, 14, 18, 10, 30),
        cells,
        runs=tuple(run_id for run_id, _ in found),
    )


# Access.


def access_report(
    environments: Sequence[Environment], period: Period, user: AbstractUser, now: datetime
) -> Report:
    """Who has which role where and since when, what is odd about it, and every change of roles and approval rules."""
    names = {environment.pk: environment.name for environment in environments}
    members = list(
        Membership.objects.filter(environment__in=names)
        .select_related("user")
        .order_by("environment__name", "role", "user__username")
    )
    books = [register.access_book(environment_id) for environment_id in names]
    entries = [
        register.read(row) for row in RegisterEntry.objects.filter(book__in=books).order_by("at", "pk")
    ]
    return Report(
        kind="Report for an audit",
        title="Access review",
        facts=_facts(environments, period, user, now),
        tables=(
            _members(members, names, entries),
            _oddities(members, names),
            _changes(entries, names, period),
        ),
        foot="Runbook: access review",
    )


def _given(entries: Iterable[register.Entry]) -> dict[tuple[int, str, str], register.Entry]:
    """The newest entry that gave a role, by environment, person or group, and role."""
    found = {}
    for entry in entries:
        if entry.kind == "role.given":
            found[_environment(entry), entry.body["user"], entry.body["role"]] = entry
        elif entry.kind == "group.given":
            found[_environment(entry), f"group:{entry.body['group']}", entry.body["role"]] = entry
    return found


def _environment(entry: register.Entry) -> int:
    return int(entry.book.partition("/")[2])


def _members(
    members: Sequence[Membership], names: dict[int, str], entries: Sequence[register.Entry]
) -> Table:
    given = _given(entries)
    rows = []
    for member in members:
        entry = given.get((member.environment_id, f"user:{member.user_id}", member.role))
        rows.append(
            (
                names[member.environment_id],
                member.role,
                member.user.get_full_name() or "–",
                member.user.get_username(),
                moment(entry.at) if entry else "before the register began",
                _giver(member, entry, given),
                moment(member.user.last_login) or "never",
                "active" if member.user.is_active else "switched off",
            )
        )
    columns = (
        "Environment",
        "Role",
        "Name",
        "Account",
        "Since (UTC)",
        "Given by",
        "Last sign-in (UTC)",
        "State",
    )
    return Table("Roles now", columns, (18, 11, 14, 13, 14, 10, 13, 7), tuple(rows), "Nobody has a role.")


def _giver(
    member: Membership,
    own: register.Entry | None,
    given: Mapping[tuple[int, str, str], register.Entry],
) -> str:
    """Who gave the role; of one that follows a group of the sign-in provider, whoever gave it to the group."""
    if not member.group:
        return own.by.name if own else ""
    entry = given.get((member.environment_id, f"group:{member.group}", member.role))
    return f"{entry.by.name if entry else 'nobody knows who'}, to the group “{member.group}”"


def _oddities(members: Sequence[Membership], names: dict[int, str]) -> Table:
    held: dict[tuple[int, Any], set[str]] = defaultdict(set)
    for member in members:
        held[member.environment_id, member.user].add(member.role)
    rows = []
    for (environment_id, person), roles in held.items():
        who = person.get_full_name() or person.get_username()
        where, which = names[environment_id], ", ".join(sorted(roles))
        rows += [(where, who, which, text) for text in _odd(roles, active=person.is_active)]
    columns = ("Environment", "Who", "Roles", "What to look at")
    return Table("To look at", columns, (22, 18, 24, 36), tuple(rows), "Nothing is odd.")


def _odd(roles: set[str], *, active: bool) -> Iterator[str]:
    if "auditor" in roles and len(roles) > 1:
        yield "An auditor reads all and changes nothing; another role beside it makes that untrue."
    if {"operator", "approver"} <= roles:
        yield "Operates and approves. Never in one run: the application refuses that. Still, ask whether both are needed."
    if "administrator" in roles and roles & {"operator", "approver"}:
        yield "Administers what he operates or approves. Nobody gives a role to himself; still, ask whether both are needed."
    if not active:
        yield "The account is switched off and still has roles. Take them away."


def _changes(entries: Sequence[register.Entry], names: dict[int, str], period: Period) -> Table:
    people = _people(entries)
    rows = tuple(
        (
            moment(entry.at),
            names[_environment(entry)],
            *_change(entry, people),
            f"{entry.by.how}{' (in the database)' if entry.by.kind == 'database' else ''}",
        )
        for entry in reversed(entries)
        if period.has(entry.at)
    )
    columns = ("Time (UTC)", "Environment", "What", "Whom or what", "By")
    return Table(
        "Changes of roles, of API tokens, of approval rules and of what is kept",
        columns,
        (15, 19, 14, 34, 18),
        rows,
        "Nothing was changed.",
    )


def _people(entries: Iterable[register.Entry]) -> dict[str, dict[str, Any]]:
    """The accounts that the books name, by id; the newest entry of each tells its name."""
    return {entry.body["user"]: entry.body for entry in entries if entry.body.get("username")}


def _change(entry: register.Entry, people: Mapping[str, dict[str, Any]]) -> tuple[str, str]:
    """What was changed, and whom or what it touched.

    An entry stays for ever. One that nothing here can read is shown as it stands: it must not take away the others.
    """
    try:
        return _told(entry, people)
    except (AttributeError, KeyError, TypeError, ValueError):
        return entry.kind.replace(".", " "), canonical(entry.body)


def _told(entry: register.Entry, people: Mapping[str, dict[str, Any]]) -> tuple[str, str]:
    body = entry.body
    match entry.kind:
        case "role.given" | "role.taken" | "role.confirmed":
            return entry.kind.replace(".", " "), f"{body['role']}: {_who(body, people)}"
        case "group.given" | "group.taken":
            verb = entry.kind.partition(".")[2]
            return f"role of a group {verb}", f"{body['role']}: the provider's group {body['group']}"
        case "token.created" | "token.revoked":
            what = "API token made" if entry.kind == "token.created" else "API token revoked"
            told = f"{body['token']} of {_who(body, people)}, {body['purpose']}"
            return what, f"{told}\nfor: {', '.join(body['scopes'])}; until {body['expires'][:10]}"
        case "policies.changed":
            return "approval rules changed", _policies(body, people)
        case "policies.proposed" | "policies.confirmed" | "policies.rejected":
            verb = "withdrawn" if body["status"] == "withdrawn" else entry.kind.partition(".")[2]
            lines = [_policies(body, people), f"reason: {body['reason']}"]
            if body["comment"]:
                lines.append(f"comment: {body['comment']}")
            return f"change of approval rules {verb}", "\n".join(lines)
        case "retention.changed":
            return "retention changed", f"from {body['before']} to {body['after']} days"
        case "reports.pruned":
            gone = (
                f"{body['lines']} log lines, {body['process-changes']} process changes, {body['files']} files"
            )
            return "old reports removed", f"{gone} from before {body['before'][:10]} ({body['days']} days)"
        case kind:
            raise ValueError(kind)


def _who(body: Mapping[str, Any], people: Mapping[str, dict[str, Any]]) -> str:
    """A confirmation tells the id alone; the entry that gave the role has the name."""
    told = body if body.get("username") else people.get(body["user"])
    return f"{told['name'] or told['username']} ({told['username']})" if told else str(body["user"])


def _policies(body: Mapping[str, Any], people: Mapping[str, dict[str, Any]]) -> str:
    names = {person: told["username"] for person, told in people.items()}
    lines = [
        f"{line.label}: from {line.before or 'nothing said'} to {line.after or 'nothing said'}"
        for line in changed(body["before"], body["after"], names)
    ]
    return "\n".join(lines) or "the same rules, written in another form"


# Reads.

READS = {
    "evidence.opened": "evidence opened",
    "record.exported": "record exported",
    "list.exported": "list exported",
}


def reads_report(
    environments: Sequence[Environment], period: Period, user: AbstractUser, now: datetime
) -> Report:
    """Who opened evidence, and who took records and lists away."""
    names = {register.reads_book(environment.pk): environment.name for environment in environments}
    rows = RegisterEntry.objects.filter(period.holds("at"), book__in=names).order_by("-at", "-pk")
    entries = [register.read(row) for row in rows]
    cells = tuple(
        (
            f"Run {entry.run}" if entry.run is not None else "",
            names[entry.book],
            f"{entry.number}",
            moment(entry.at),
            f"{entry.by.how}\n{', '.join(entry.by.roles)}",
            READS.get(entry.kind, entry.kind),
            _object(entry),
        )
        for entry in entries
    )
    columns = ("Run", "Environment", "No.", "Time (UTC)", "Who, with the roles then", "What", "Which")
    return Report(
        kind="Report for an audit",
        title="Reads and exports",
        facts=_facts(environments, period, user, now),
        tables=(
            Table(
                "Reads and exports",
                columns,
                (8, 17, 5, 15, 18, 13, 24),
                cells,
                "Nobody has opened or taken anything.",
                runs=tuple(entry.run for entry in entries),
            ),
        ),
        foot="Runbook: reads and exports",
    )


def _object(entry: register.Entry) -> str:
    body = entry.body
    match entry.kind:
        case "evidence.opened":
            return f"{body['name']}\nSHA-256 {body['sha256']}"
        case "record.exported":
            return f"{body['events']} events\nmanifest {body['manifest']}"
        case "list.exported":
            return f"{body['list']} as {body['form']}, {body['rows']} rows"
        case _:
            return ""
