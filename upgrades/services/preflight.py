"""Whether this installation is set up so that nothing is lost and nobody gets in by a setting: `manage.py preflight`.

Everything is asked of what is really in force: of the servers, as the role and the account that pages and workers
have. What cannot be seen does not pass.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import Any

from celery import current_app
from django.conf import settings
from django.core.checks import run_checks
from django.db import DatabaseError, connection
from django.db.migrations.loader import MigrationLoader

from upgrades.adapters.store_settings import NotSeen, PostgresSeen, RedisSeen, ask_postgres, ask_redis
from upgrades.services import demo

SECRET_LENGTH = 50
SECRET_SIGNS = 10  # different characters; 64 random hexadecimal digits have fewer once in a million times
# Parts of texts that stand in examples, in tests and in guides, so that everybody knows them.
KNOWN_SECRETS = (
    "django-insecure-",
    "for-tools-",
    "of-the-tests-",
    "changeme",
    "change-me",
    "secret",
    "password",
)
KOMBU_AT_LEAST = (5, 7)
POSTGRES_AT_LEAST = 140000
REDIS_AT_LEAST = (6, 2)
CLOCK_SECONDS = 2.0
FLUSHES = frozenset({"on", "local", "remote_write", "remote_apply"})
LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]"})


class Verdict(StrEnum):
    """`WARNING` is for what costs comfort and no safety: it passes."""

    OK = "ok"
    WARNING = "warning"
    UNSEEN = "could not be seen"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was looked at, and what was found: for a refusal what is wrong, why it matters, and what to do."""

    subject: str
    verdict: Verdict
    text: str

    @property
    def passes(self) -> bool:
        return self.verdict in (Verdict.OK, Verdict.WARNING)


def examine(clock: Callable[[], float] = time.time) -> list[Finding]:
    """Every finding, in the order in which somebody would repair them."""
    return [
        *_settings(),
        _deployment_checks(),
        *_celery(),
        *_asked("PostgreSQL", lambda: _postgres(ask_postgres(clock))),
        *_asked("Redis", lambda: _redis(ask_redis(settings.REDIS_URL))),
    ]


def _asked(subject: str, look: Callable[[], Iterable[Finding]]) -> list[Finding]:
    try:
        return list(look())
    except NotSeen as reason:
        return [Finding(subject, Verdict.UNSEEN, str(reason))]


def _found(subject: str, ok: str, refusal: str) -> Finding:
    """Refused when there is a refusal, else ok."""
    return Finding(subject, Verdict.REFUSED, refusal) if refusal else Finding(subject, Verdict.OK, ok)


def _refused_if(wrong: bool, subject: str, ok: str, refusal: str) -> Finding:
    return _found(subject, ok, refusal if wrong else "")


# Settings.


def _settings() -> Iterator[Finding]:
    yield _refused_if(
        settings.DEBUG,
        "DEBUG",
        "off",
        "DEBUG is on: a failing page would show code and settings to whoever sees it. Set DEBUG=off.",
    )
    yield _found("SECRET_KEY", "long and of many signs", _weak_secret(settings.SECRET_KEY))
    yield _refused_if(
        not settings.HTTPS,
        "HTTPS",
        "on",
        "RUNBOOK_HTTPS is off: sessions and passwords would travel in the clear. Put a proxy with TLS in front and set "
        "RUNBOOK_HTTPS=on.",
    )
    names = [name for name in settings.ALLOWED_HOSTS if name not in LOOPBACK]
    yield _found("hosts", ", ".join(names), _wrong_hosts(names))
    yield _refused_if(
        not settings.PROXIES_ARE_COUNTED,
        "proxies",
        f"{settings.ALLAUTH_TRUSTED_PROXY_COUNT}",
        "RUNBOOK_PROXIES is not set, so the proxy in front would count as everybody's address: one person's wrong passwords "
        "would lock all out. Set it to the number of proxies that add to X-Forwarded-For (0: none).",
    )
    yield _found(
        "checkpoint key", "out of this account's reach", _readable_key(Path(settings.CHECKPOINT_KEY_FILE))
    )
    yield _evidence()
    yield _mail()


def _weak_secret(secret: str) -> str:
    how = "Set it to a random text, as `openssl rand -hex 32` prints."
    risk = "whoever guesses it can sign in as anybody"
    if len(secret) < SECRET_LENGTH:
        return f"SECRET_KEY has {len(secret)} characters, fewer than {SECRET_LENGTH}, and {risk}. {how}"
    known = next((part for part in KNOWN_SECRETS if part in secret.lower()), "")
    if known:
        return f"SECRET_KEY holds “{known}”, as texts in examples do, and {risk}. {how}"
    if len(set(secret)) < SECRET_SIGNS:
        return f"SECRET_KEY has only {len(set(secret))} different characters, and {risk}. {how}"
    return ""


def _wrong_hosts(names: list[str]) -> str:
    wild = [name for name in names if name == "*" or name.startswith(".")]
    if wild:
        return (
            f"RUNBOOK_HOSTS has {', '.join(wild)}, which lets a request choose the name that links and checks are made "
            "with. Name each host in full."
        )
    if not names:
        return (
            "RUNBOOK_HOSTS names only this machine, so no browser elsewhere gets in. Set it to the name that people type, "
            "as runbook.example.org."
        )
    return ""


def _readable_key(path: Path) -> str:
    if not os.access(path, os.R_OK):
        return ""
    return (
        f"This account may read {path}, the key that signs checkpoints: whoever takes over the web server could sign a "
        "false record. Run web, workers and preflight under another account than `manage.py sign_checkpoints` (not "
        "root), and keep the key out of their reach (docs/record.md)."
    )


def _evidence() -> Finding:
    folder = Path(settings.EVIDENCE_FOLDER)
    closed = _closed_evidence(folder)
    return _refused_if(
        closed is not None,
        "evidence",
        f"{folder}",
        f"This account may not work with {closed}: evidence there could be neither opened nor added. Make {folder} with all "
        "that is in it a folder of this account (as root: chown -R; after a restore by another account, too).",
    )


def _closed_evidence(folder: Path) -> Path | None:
    """Looked at from above, for nothing below a closed folder can be seen; where it is still to be made, the nearest above it."""
    top = next(path for path in (folder, *folder.parents) if os.path.exists(path))  # noqa: PTH110 - never raises
    if not _is_open_folder(top):
        return top
    for run in folder.glob("[0-9]*"):
        if not _is_open_folder(run):
            return run
        for file in run.iterdir():
            if not os.access(file, os.R_OK, effective_ids=True):
                return file
    return None


def _is_open_folder(path: Path) -> bool:
    return os.access(path, os.R_OK | os.W_OK | os.X_OK, effective_ids=True) and path.is_dir()


def _mail() -> Finding:
    if settings.EMAIL_BACKEND.endswith(".smtp.EmailBackend"):
        return Finding("mail", Verdict.OK, "a server is set")
    waiting = len(settings.CHECKPOINT_MAIL_TO)
    unsent = f"Checkpoints will not reach {waiting} auditors by mail. " if waiting else ""
    return Finding(
        "mail",
        Verdict.WARNING,
        f"MAIL_URL is not set, so mails go to the log and reach nobody. {unsent}"
        "Set it, as smtps://user:password@mail.example.org.",
    )


def _deployment_checks() -> Finding:
    """What `manage.py check --deploy` looks at; what is silenced there says why in the settings."""
    told = [
        f"{item.msg} ({item.id})"
        for item in run_checks(include_deployment_checks=True)
        if not item.is_silenced()
    ]
    return _refused_if(
        bool(told),
        "deployment checks",
        "nothing to object",
        f"Django objects: {' '.join(told)} See `manage.py check --deploy`.",
    )


# Celery: what is in force in the application, wherever it was set.


def _celery() -> Iterator[Finding]:
    yield _found(
        "visibility timeout",
        "above the hard time limit of every task, in all three places",
        _short_visibility(),
    )
    early = [name for name in ("task_acks_late", "task_reject_on_worker_lost") if not current_app.conf[name]]
    yield _refused_if(
        bool(early),
        "acknowledgement",
        "after the work",
        f"{' and '.join(early)} of Celery is off: a killed worker would lose the task that it has. Turn it on.",
    )
    kombu = version("kombu")
    yield _refused_if(
        _older(kombu, KOMBU_AT_LEAST),
        "kombu",
        kombu,
        f"kombu {kombu} is installed; before 5.7 a worker may stop taking tasks for ever after Redis was away. "
        "Install requirements.txt of this release.",
    )


def _older(found: str, at_least: tuple[int, int]) -> bool:
    return tuple(int(part) for part in found.split(".")[:2] if part.isdigit()) < at_least


def _short_visibility() -> str:
    conf = current_app.conf
    limits = {"task_time_limit": conf.task_time_limit}
    limits |= {
        f"the time limit of {name}": task.time_limit
        for name, task in current_app.tasks.items()
        if getattr(task, "time_limit", None)
    }
    name, limit = max(limits.items(), key=lambda item: item[1] or float("inf"))
    why = "a slow task would be handed out again and run twice at once"
    if not limit:
        return f"{name} of Celery is not set: {why}. Set it below the visibility timeout."
    places: dict[str, Any] = {
        "visibility_timeout": conf.get("visibility_timeout"),
        "broker_transport_options": (conf.broker_transport_options or {}).get("visibility_timeout"),
        "result_backend_transport_options": (conf.result_backend_transport_options or {}).get(
            "visibility_timeout"
        ),
    }
    short = [place for place, seconds in places.items() if not seconds or seconds <= limit]
    if not short:
        return ""
    told = ", ".join(f"{place} = {places[place] or 'not set'}" for place in short)
    return (
        f"The visibility timeout is not above {name} ({limit:g} s) everywhere ({told}): {why}, and the shortest of the "
        "three places counts. Raise it there."
    )


# PostgreSQL.

LOST_WRITES = (
    ("synchronous_commit", FLUSHES, "what people saw confirmed would be gone after a crash"),
    ("fsync", frozenset({"on"}), "a power cut could destroy the whole database"),
    ("full_page_writes", frozenset({"on"}), "a power cut in mid-write could destroy pages for good"),
)


def _postgres(seen: PostgresSeen) -> Iterator[Finding]:
    yield _refused_if(
        seen.version < POSTGRES_AT_LEAST,
        "PostgreSQL version",
        f"{seen.version // 10000}",
        "PostgreSQL is older than 14, which this release does not work with. Upgrade it.",
    )
    for name, may_be, risk in LOST_WRITES:
        value = seen.settings.get(name, "not told")
        yield _refused_if(
            value not in may_be,
            name,
            value,
            f"PostgreSQL has {name} = {value} for the role {seen.role}: {risk}. Turn it on, for server, database and role.",
        )
    yield _checksums(seen)
    yield _found("database role", seen.role, _strong_role(seen))
    yield _migrated(seen)
    if seen.tables:
        yield _demo_accounts()
    apart = f"{abs(seen.ahead):.1f} s"
    yield _refused_if(
        abs(seen.ahead) > CLOCK_SECONDS,
        "clocks",
        f"{apart} apart",
        f"The database's clock is {apart} {'ahead of' if seen.ahead > 0 else 'behind'} this machine's: deadlines and "
        "records would not agree. Let both follow the same time servers (NTP).",
    )


def _checksums(seen: PostgresSeen) -> Finding:
    if seen.settings.get("data_checksums") == "on":
        return Finding("data_checksums", Verdict.OK, "on")
    return Finding(
        "data_checksums",
        Verdict.WARNING,
        "PostgreSQL keeps no checksums of its pages, so a disk that returns something else goes unnoticed by it. "
        "With the server stopped: pg_checksums --enable.",
    )


def _strong_role(seen: PostgresSeen) -> str:
    how = (
        "Let the owner run `manage.py restrict_role runbook_app` after each migrate, and give web, workers and beat a "
        "DATABASE_URL with that role (docs/record.md)."
    )
    if seen.is_superuser:
        return f"The role {seen.role} is a superuser of PostgreSQL and could rewrite the record. {how}"
    if seen.owned:
        return (
            f"The role {seen.role} owns, or may become the owner of, {_some(seen.owned)}, so it could take away what guards the "
            f"record, or all of it. {how} What that role owns itself goes to the role that migrates: ALTER … OWNER TO."
        )
    if seen.excess:
        return (
            f"The role {seen.role} could write past the functions that guard the record, or destroy it: "
            f"{', '.join(seen.excess)}. {how} What PUBLIC or another role gives it has to be revoked there."
        )
    return ""


def _some(names: tuple[str, ...]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} things more"


def _migrated(seen: PostgresSeen) -> Finding:
    if not seen.tables:
        return Finding(
            "tables",
            Verdict.UNSEEN,
            "The database has no tables yet. Run `manage.py migrate` as their owner.",
        )
    try:
        loader = MigrationLoader(connection)
        waiting = set(loader.graph.nodes) - set(loader.applied_migrations)
    except DatabaseError as error:
        return Finding(
            "tables",
            Verdict.UNSEEN,
            f"The role {seen.role} cannot see which migrations were made ({type(error).__name__}). "
            "Run `manage.py migrate` and `manage.py restrict_role` as the owner.",
        )
    return _refused_if(
        bool(waiting),
        "tables",
        "as this release wants them",
        f"{len(waiting)} migrations of this release were not made. Run `manage.py migrate` as the owner, then "
        "`manage.py restrict_role`.",
    )


def _demo_accounts() -> Finding:
    try:
        names = demo.open_accounts()
    except DatabaseError as error:
        return Finding(
            "demo accounts",
            Verdict.UNSEEN,
            f"The table of accounts cannot be read ({type(error).__name__}). Run `manage.py migrate` and "
            "`manage.py restrict_role` as the owner.",
        )
    return _refused_if(
        bool(names),
        "demo accounts",
        "none",
        f"The demo was in this database: {', '.join(names)} can sign in with the demo's password, which everybody knows. "
        "Where nothing else is in it yet, begin with an empty database (compose: `docker compose down -v`). Otherwise give "
        "each of them another password: manage.py changepassword NAME.",
    )


# Redis.


def _redis(seen: RedisSeen) -> Iterator[Finding]:
    yield _refused_if(
        _older(seen.version, REDIS_AT_LEAST),
        "Redis version",
        seen.version,
        f"Redis {seen.version} is older than 6.2. Upgrade it.",
    )
    yield _refused_if(
        seen.role != "master",
        "Redis role",
        seen.role,
        f"REDIS_URL leads to a {seen.role} of Redis, which takes no writes. Name the master.",
    )
    yield _refused_if(
        seen.policy != "noeviction",
        "Redis eviction",
        seen.policy,
        f"Redis may throw messages away when its memory is full (maxmemory-policy {seen.policy}): tasks would vanish "
        "without a sign. Set maxmemory-policy noeviction, and give Runbook a Redis of its own.",
    )
    yield _found("Redis append-only file", "on", _no_append_only_file(seen))
    yield _fsync(seen)


def _no_append_only_file(seen: RedisSeen) -> str:
    if not seen.append_only:
        return "Redis keeps no append-only file: a restart would lose every message that waits. Set appendonly yes."
    if seen.write_failed:
        return "Redis could not write its append-only file the last time. Look at its log and its disk."
    return ""


def _fsync(seen: RedisSeen) -> Finding:
    if seen.fsync is None:
        return Finding(
            "Redis appendfsync",
            Verdict.UNSEEN,
            "This account of Redis may not ask for appendfsync. Allow it: ACL SETUSER <name> +config|get.",
        )
    return _refused_if(
        seen.fsync not in {"everysec", "always"},
        "Redis appendfsync",
        seen.fsync,
        f"Redis leaves it to the system when its append-only file reaches the disk (appendfsync {seen.fsync}). "
        "Set appendfsync everysec or always.",
    )
