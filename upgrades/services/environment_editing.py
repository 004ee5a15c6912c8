"""Changing an environment: every way in ends in `apply`, which checks, writes all or nothing, and records it.

The role administrator of the environment changes it; a rehearsal's copy is changed by nobody. What an open run works
on stays as it is until the run is over (E14), and what a past run is evidence of is not removed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from django.contrib.auth.models import AbstractUser
from django.db import IntegrityError, OperationalError, transaction
from django.utils import timezone
from psycopg.errors import LockNotAvailable

from upgrades.adapters import register
from upgrades.domain.environment_records import (
    FIELDS,
    KEYS,
    Change,
    Content,
    Ident,
    Kind,
    NotUsable,
    Record,
    blank,
    difference,
    folded,
    ident,
    problems,
)
from upgrades.domain.refusal import BadInput, NotAllowed, OutOfTurn, Unavailable
from upgrades.domain.run_events import Actor
from upgrades.models import (
    Agent,
    Application,
    Claim,
    CommandReceipt,
    Environment,
    Host,
    Membership,
    RunBinding,
    Target,
)
from upgrades.queries.environment_editing import held_by_runs
from upgrades.queries.environment_export import changes_book, content_of
from upgrades.queries.people import token_of
from upgrades.services.agents import hold_agents
from upgrades.services.people import actor_for, actor_id
from upgrades.services.runs import NoSuchRun, announce_environment

ROLE = Membership.Role.ADMINISTRATOR.value
TOLD = 10  # obstacles that a refusal lists


class BadFields(BadInput):
    """Everything that is wrong with a form at once: `mistakes` by field, “” for the form as a whole."""

    def __init__(self, mistakes: dict[str, str]) -> None:
        super().__init__("Nothing was changed. " + " ".join(mistakes.values()))
        self.mistakes = mistakes


@dataclass(frozen=True, slots=True)
class Changed:
    """What a command did: its number in the book of changes (0: nothing had to be changed)."""

    environment: int
    number: int
    repeated: bool = False


# Who may.


def may_create(user: AbstractUser) -> bool:
    """A new environment is made by whoever runs the installation, or by an administrator of any environment."""
    return user.is_superuser or Membership.objects.filter(user_id=user.pk, role=ROLE).exists()


def locked_for(environment_id: int, by: AbstractUser) -> tuple[Environment, Actor]:
    """The environment under its lock, which starts of runs and other changes take too; refused without the role."""
    known = Environment.objects.select_for_update()
    try:
        return _administered(known.filter(pk=environment_id).first(), by)
    except OperationalError as error:
        if isinstance(error.__cause__, LockNotAvailable):
            raise Unavailable(
                "Somebody else is changing this environment at this moment. Nothing was done; try again shortly."
            ) from error
        raise


def administered_by(environment_id: int, by: AbstractUser) -> tuple[Environment, Actor]:
    """The same without the lock, for whoever only looks."""
    return _administered(Environment.objects.filter(pk=environment_id).first(), by)


def _administered(environment: Environment | None, by: AbstractUser) -> tuple[Environment, Actor]:
    actor = actor_for(by, environment) if environment is not None else None
    if environment is None or actor is None or not actor.roles:
        raise NoSuchRun("There is no such environment, or you have no role in it.")
    must_be_administrator(environment, actor)
    return environment, actor


def must_be_administrator(environment: Environment, actor: Actor) -> None:
    if environment.rehearsal_of_id is not None:
        raise OutOfTurn("This is the copy of a rehearsal. Change the environment that it copies.")
    if ROLE not in actor.roles:
        raise NotAllowed(
            f"Changing {environment.name} takes the role administrator there. One of its administrators can do it."
        )


# Commands are carried out once.


def done_before(command_id: UUID, actor: Actor, act: str) -> Changed | None:
    """What the same command did before; the same id for something else is a mistake."""
    receipt = CommandReceipt.objects.filter(pk=command_id).first()
    if receipt is None:
        return None
    if (receipt.actor_id, receipt.act) != (actor.id, act):
        raise BadInput(
            "This form was used for something else before. Load the page again and repeat your act."
        )
    return Changed(int(receipt.answer), receipt.seq, repeated=True)


def receipt(command_id: UUID, actor: Actor, act: str, done: Changed) -> Changed:
    try:
        with transaction.atomic():
            CommandReceipt.objects.create(
                command_id=command_id,
                actor_id=actor.id,
                act=act,
                seq=done.number,
                answer=str(done.environment),
                at=timezone.now(),
            )
    except IntegrityError as elsewhere:  # in another environment, whose lock is another one, at this moment
        raise BadInput(_USED) from elsewhere
    return done


_USED = "This form was used for something else before. Load the page again and repeat your act."


# The one way in.


def apply(
    environment: Environment,
    before: Content,
    after: Content,
    *,
    by: Actor,
    kind: str,
    note: Mapping[str, Any] | None = None,
    renamed: Mapping[Ident, Ident] | None = None,
) -> Changed:
    """Write what leads from `before` to `after`, record it and tell the pages. The caller holds the lock."""
    changes = difference(before, after, renamed)
    if not changes:
        return Changed(environment.pk, 0)
    found = [text for _, text in obstacles(environment, changes)]
    if found:
        more = f" And {len(found) - TOLD} more of this kind." if len(found) > TOLD else ""
        raise OutOfTurn("Nothing was changed. " + " ".join(found[:TOLD]) + more)
    _write(environment, changes)
    body = {**(note or {}), "changes": [_told(change) for change in changes]}
    number = register.enter(changes_book(environment.pk), kind, by=by, body=body)
    announce_environment(environment.pk)
    return Changed(environment.pk, number)


def _told(change: Change) -> dict[str, Any]:
    return {
        "kind": change.kind.value,
        "act": change.act,
        "name": change.name,
        "fields": [
            {"field": one.field, "title": one.title, "before": one.before, "after": one.after}
            for one in change.fields
        ],
    }


def obstacles(environment: Environment, changes: Iterable[Change]) -> list[tuple[Ident, str]]:
    """Why changes cannot be made now, by record: an open run works on it, or a past one is the reason to keep it."""
    touched = {ident(one.kind, one.name): one for one in changes if one.before is not None}
    found: list[tuple[Ident, str]] = []
    for key, (run, title) in held_by_runs(environment).items():
        if key in touched:
            found.append(
                (
                    key,
                    f"{touched[key].name} belongs to run {run}, “{title}”, which is under way. End it first.",
                )
            )
    removed = {key: one for key, one in touched.items() if one.act == "removed"}
    for key, run in _remembered(environment, removed):
        if key not in {held for held, _ in found}:
            text = (
                f"{removed[key].name} took part in run {run}, and its log is part of that record. It stays."
            )
            found.append((key, text))
    return found


def _remembered(environment: Environment, removed: Collection[Ident]) -> list[tuple[Ident, int]]:
    """The removed records that a run's record still refers to, with one such run each."""
    if not removed:
        return []
    bound = RunBinding.objects.filter(application__environment=environment).values_list(
        "application__name", "run_id"
    )
    claims = Claim.objects.filter(run__environment=environment)
    servers = claims.exclude(application=None).values_list("application__name", "run_id")
    hosts = claims.exclude(host=None).values_list("host__name", "run_id")
    runs = {ident(Kind.APPLICATION, str(name)): run for name, run in (*bound, *servers)}
    runs |= {ident(Kind.HOST, str(name)): run for name, run in hosts}
    return [(key, runs[key]) for key in removed if key in runs]


# Writing.


def _write(environment: Environment, changes: Iterable[Change]) -> None:
    """In an order in which no row refers to what is not there yet, or no longer."""
    by_kind: dict[Kind, list[Change]] = {kind: [] for kind in Kind}
    for change in changes:
        by_kind[change.kind].append(change)
    for change in by_kind[Kind.ENVIRONMENT]:
        _write_environment(environment, change)
    _write_targets(environment, by_kind[Kind.TARGET])
    gone = [one.before.name for one in by_kind[Kind.HOST] if one.before is not None and one.after is None]
    hold_agents(environment.hosts.filter(name__in=gone).values_list("pk", flat=True))
    hosts = _write_hosts(environment, by_kind[Kind.HOST])
    _write_applications(environment, by_kind[Kind.APPLICATION], hosts)
    environment.hosts.filter(name__in=gone).delete()


def _flag(text: str) -> bool | None:
    return None if not text else text == "yes"


def _write_environment(environment: Environment, change: Change) -> None:
    after = change.after
    assert after is not None
    if Environment.objects.filter(name=after.name, rehearsal_of=None).exclude(pk=environment.pk).exists():
        raise BadFields({"name": f"There is another environment named {after.name}. Choose another name."})
    environment.name = after["name"]
    environment.disaster_recovery = after["disaster_recovery"] == "yes"
    environment.single_language = _flag(after["single_language"])
    environment.schema_version = after["schema_version"]
    environment.log_schema_version = after["log_schema_version"]
    environment.uses_lrm = after["uses_lrm"] == "yes"
    environment.save(update_fields=[one.name for one in FIELDS[Kind.ENVIRONMENT]])


def _write_targets(environment: Environment, changes: Iterable[Change]) -> None:
    for change in changes:
        if change.before is not None:
            environment.targets.filter(component=change.before.name).delete()
    Target.objects.bulk_create(
        Target(environment=environment, component=one.after["type"], version=one.after["version"])
        for one in changes
        if one.after is not None
    )


_HOST_COLUMNS = ("host_type", "site", "os_name", "os_version", "lca_version")


def _write_hosts(environment: Environment, changes: Iterable[Change]) -> dict[str, Host]:
    """The hosts that stay or come, by folded name."""
    there = {host.name: host for host in environment.hosts.all()}
    new: list[Host] = []
    changed: list[Host] = []
    for change in changes:
        if change.after is None:
            continue
        host = there.pop(change.before.name) if change.before else Host(environment=environment)
        host.name = change.after["host"]
        for column in _HOST_COLUMNS:
            setattr(host, column, change.after[column])
        (changed if change.before else new).append(host)
    Host.objects.bulk_create(new)
    Host.objects.bulk_update(changed, ["name", *_HOST_COLUMNS], batch_size=500)
    return {folded(host.name): host for host in (*there.values(), *new, *changed)}


_APPLICATION_COLUMNS = ("name", "type", "version", "folder", "database")
# What was seen of a server belongs to the host on which it was seen.
_SEEN: dict[str, Any] = {
    "mode": "",
    "process_state": "unknown",
    "process_reason": "",
    "log_trouble": "",
    "client_total": None,
    "client_total_at": None,
}


def _write_applications(
    environment: Environment, changes: Iterable[Change], hosts: Mapping[str, Host]
) -> None:
    there = {application.name: application for application in environment.applications.all()}
    involved = [there[one.before.name].pk for one in changes if one.before is not None]
    # Peers are set last: while rows are moved about, none may hold another one's peer.
    environment.applications.filter(pk__in=involved).update(peer=None)
    environment.applications.filter(
        pk__in=[there[one.before.name].pk for one in changes if one.before is not None and one.after is None]
    ).delete()
    new: list[Application] = []
    changed: list[Application] = []
    moved: list[Application] = []
    peers: dict[str, str] = {}
    for change in changes:
        if change.after is None:
            continue
        application = there[change.before.name] if change.before else Application(environment=environment)
        if change.before is not None and folded(change.before["host"]) != folded(change.after["host"]):
            moved.append(application)
        _fill(application, change.after, hosts)
        (changed if change.before else new).append(application)
        peers[change.after["name"]] = change.after["peer"]
    Application.objects.bulk_create(new)
    columns = [*_APPLICATION_COLUMNS, "standing", "port", "dormant", "host"]
    Application.objects.bulk_update(changed, columns, batch_size=500)
    Application.objects.filter(pk__in=[one.pk for one in moved]).update(**_SEEN)
    _write_peers(environment, peers)


def _fill(application: Application, after: Record, hosts: Mapping[str, Host]) -> None:
    for column in _APPLICATION_COLUMNS:
        setattr(application, column, after[column])
    application.standing = after["role"]
    application.port = int(after["port"]) if after["port"] else None
    application.dormant = after["dormant"] == "yes"
    application.host = hosts[folded(after["host"])]


def _write_peers(environment: Environment, peers: Mapping[str, str]) -> None:
    by_name = {application.name: application for application in environment.applications.all()}
    paired = []
    for name, peer in peers.items():
        if peer:
            by_name[name].peer = by_name[peer]
            paired.append(by_name[name])
    Application.objects.bulk_update(paired, ["peer"], batch_size=500)


# By hand: one record at a time, and what belongs to it.


@transaction.atomic
def create_environment(*, name: str, by: AbstractUser, command_id: UUID) -> Changed:
    """A new, empty environment; who makes it is its first administrator."""
    if not may_create(by):
        raise NotAllowed(
            "A new environment is made by an administrator of one that exists, or by whoever runs this installation."
        )
    maker = Actor(id=actor_id(by), name=by.get_full_name() or by.get_username(), token=token_of(by))
    before = done_before(command_id, maker, "CreateEnvironment")
    if before is not None:
        return before
    record = read_record(Kind.ENVIRONMENT, {"name": name}, blank(Kind.ENVIRONMENT))
    taken = BadFields({"name": f"There is an environment named {record.name} already. Choose another name."})
    if any(folded(known) == folded(record.name) for known in _names()):
        raise taken
    try:
        with transaction.atomic():
            environment = Environment.objects.create(name=record.name)
    except IntegrityError:
        raise taken from None
    register.acting(maker)
    Membership.objects.create(environment=environment, user_id=by.pk, role=ROLE, given_by=maker.id)
    body = {"changes": [_told(difference(Content({}), Content.of([record]))[0])]}
    number = register.enter(
        changes_book(environment.pk), "environment.created", by=actor_for(by, environment), body=body
    )
    return receipt(command_id, maker, "CreateEnvironment", Changed(environment.pk, number))


def _names() -> Iterable[str]:
    return Environment.objects.filter(rehearsal_of=None).values_list("name", flat=True)


def read_record(kind: Kind, texts: Mapping[str, str], base: Record) -> Record:
    """`base` with what was typed into a form, each text judged by its field; `BadFields` with every mistake."""
    values, mistakes = dict(base.values), {}
    for field in FIELDS[kind]:
        if field.name not in texts:
            continue
        try:
            values[field.name] = field.read(texts[field.name])
        except NotUsable as mistake:
            mistakes[field.name] = str(mistake)
    if mistakes:
        raise BadFields(mistakes)
    return Record(kind, values)


@transaction.atomic
def save_record(
    *,
    environment_id: int,
    kind: Kind,
    name: str,
    texts: Mapping[str, str],
    seen: str,
    by: AbstractUser,
    command_id: UUID,
) -> Changed:
    """Add a record (`name` is empty) or change the one of this name. `seen` is the digest of what the form showed.

    The other members of pairs follow: who is named as peer names this one, who was left stands alone.
    """
    environment, actor = locked_for(environment_id, by)
    earlier = done_before(command_id, actor, "SaveRecord")
    if earlier is not None:
        return earlier
    before = content_of(environment)
    base = _as_seen(before, kind, name, seen)
    record = read_record(kind, texts, base or blank(kind))
    if base is None or record.ident != base.ident:
        _must_be_new(before, record)
    after = _put(before, base, record)
    _must_fit(before, after, record)
    renamed = {record.ident: base.ident} if base is not None and base.ident != record.ident else None
    done = apply(environment, before, after, by=actor, kind="environment.edited", renamed=renamed)
    return receipt(command_id, actor, "SaveRecord", done)


def _as_seen(content: Content, kind: Kind, name: str, seen: str) -> Record | None:
    if not name:
        return None
    base = content.get(kind, name)
    if base is None or base.digest() != seen:
        raise OutOfTurn(
            f"Somebody has changed {name} since this page was loaded. Load it again and repeat your change."
        )
    return base


def _must_be_new(content: Content, record: Record) -> None:
    other = content.records.get(record.ident)
    if other is not None:
        raise BadFields(
            {KEYS[record.kind]: f"There is {other.name} already. Choose another name, or change that one."}
        )


def _put(content: Content, base: Record | None, record: Record) -> Content:
    """The content with `record` instead of `base`, and with whatever names it brought along."""
    after = content.put(record, instead_of=[base.ident] if base is not None else [])
    if base is not None and record.kind is Kind.HOST and base.name != record.name:
        moved = (one for one in after.all(Kind.APPLICATION) if folded(one["host"]) == folded(base.name))
        return after.put(*(_with(one, host=record.name) for one in moved))
    if record.kind is Kind.APPLICATION:
        return _paired(after, base, record)
    return after


def _with(record: Record, **values: str) -> Record:
    return replace(record, values={**record.values, **values})


_OTHER = {"primary": "backup", "backup": "primary"}


def _paired(content: Content, base: Record | None, record: Record) -> Content:
    names = {folded(record.name)} | ({folded(base.name)} if base is not None else set())
    for one in content.all(Kind.APPLICATION):
        if (
            one.ident != record.ident
            and folded(one["peer"]) in names
            and folded(one.name) != folded(record["peer"])
        ):
            content = content.put(_with(one, peer="", role="standalone"))
    other = content.get(Kind.APPLICATION, record["peer"]) if record["peer"] else None
    if other is None or other.ident == record.ident:
        return content
    content = content.put(_with(record, peer=other.name))
    if other["peer"] and folded(other["peer"]) not in names:
        return content  # it is somebody else's peer, and that is told as a mistake
    return content.put(_with(other, peer=record.name, role=_OTHER.get(record["role"], other["role"])))


def _must_fit(before: Content, after: Content, record: Record | None = None) -> None:
    """Refuse what does not fit together now and did before."""
    old = set(problems(before))
    mistakes: dict[str, str] = {}
    for one in problems(after):
        if not one.is_remark and one not in old:
            field = one.field if record is not None and one.ident == record.ident else ""
            mistakes[field] = f"{mistakes[field]} {one.message}" if field in mistakes else one.message
    if mistakes:
        raise BadFields(mistakes)


@transaction.atomic
def remove_record(
    *, environment_id: int, kind: Kind, name: str, seen: str, by: AbstractUser, command_id: UUID
) -> Changed:
    """Remove a target, an application or a host on which none stands; a peer is left standing alone."""
    environment, actor = locked_for(environment_id, by)
    earlier = done_before(command_id, actor, "RemoveRecord")
    if earlier is not None:
        return earlier
    before = content_of(environment)
    record = _as_seen(before, kind, name, seen)
    if record is None or kind is Kind.ENVIRONMENT:
        raise BadInput("There is nothing of this name to remove.")
    after = before.put(instead_of=[record.ident])
    if kind is Kind.APPLICATION:
        left = (one for one in after.all(kind) if folded(one["peer"]) == folded(record.name))
        after = after.put(*(_with(one, peer="", role="standalone") for one in left))
    _must_fit(before, after)
    note = {"agents": _agents_on(environment, name)} if kind is Kind.HOST else {}
    done = apply(environment, before, after, by=actor, kind="environment.edited", note=note)
    return receipt(command_id, actor, "RemoveRecord", done)


def _agents_on(environment: Environment, host: str) -> list[str]:
    return list(
        Agent.objects.filter(environment=environment, host__name=host).values_list("agent_id", flat=True)
    )
