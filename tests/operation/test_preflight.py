"""`manage.py preflight` against real servers, each wrong setting really set: what is unsafe is refused, doubt too."""

import os
import re
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from celery import current_app
from django.db import connection, connections

from runbook.environment import parse_database_url
from runbook.stores import APP_ROLE
from tests.factories import make_user
from tests.operation.conftest import ROOT, manage
from upgrades.adapters import store_settings
from upgrades.services import demo, preflight
from upgrades.services.preflight import Verdict, examine

pytestmark = pytest.mark.processes
GOOD = {
    "SECRET_KEY": "".join(f"{number:02x}" for number in range(7, 255, 5)),
    "RUNBOOK_HTTPS": "on",
    "RUNBOOK_HOSTS": "runbook.example.org",
    "RUNBOOK_PROXIES": "1",
    "MAIL_URL": "smtps://mail.example.org",
    "DEBUG": "off",
}


@pytest.fixture
def at(place, settings, django_db_blocker):
    """Django works on the servers of these tests, as the role that is wished."""

    @contextmanager
    def working(role_url=place.stores.postgres.app_url):
        kept = {key: connection.settings_dict[key] for key in ("NAME", "USER", "PASSWORD", "HOST", "PORT")}
        wished = {key: value for key, value in parse_database_url(role_url).items() if key in kept}
        settings.REDIS_URL = place.stores.redis.url
        connection.close()
        connections["default"].settings_dict.update(wished)
        try:
            with django_db_blocker.unblock():
                yield
                connection.close()
        finally:
            connections["default"].settings_dict.update(kept)

    return working


def found(subject, **chosen):
    return next(finding for finding in examine(**chosen) if finding.subject == subject)


def refusal(subject, **chosen):
    finding = found(subject, **chosen)
    assert finding.verdict is Verdict.REFUSED, finding
    assert not finding.passes
    return finding.text


@pytest.fixture
def redis_set(place):
    """CONFIG SET on the real server, taken back at the end of the test."""
    client = redis.Redis.from_url(place.stores.redis.url, decode_responses=True)
    before = {}

    def change(name, value):
        before.setdefault(name, client.config_get(name)[name])
        client.config_set(name, value)
        return client

    yield change
    for name, value in before.items():
        client.config_set(name, value)
    client.close()


@pytest.fixture
def conf():
    """The settings of the real Celery application, as they were at the end of the test."""
    conf, before = current_app.conf, {}

    def change(name, value):
        before.setdefault(name, conf[name])
        conf[name] = value

    yield change
    for name, value in before.items():
        conf[name] = value


# As a shell runs it.


def test_a_safe_installation_is_fit_for_service(place):
    done = manage({**place.app, **GOOD}, "preflight")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("Fit for service.\n")
    assert "refused" not in done.stdout


def test_every_unsafe_setting_is_told_at_once_and_nothing_goes_into_service(place, tmp_path):
    key = tmp_path / "key"
    key.write_text("PRIVATE")
    wrong = {
        "SECRET_KEY": "of-the-tests-" + "0" * 40,
        "RUNBOOK_HTTPS": "off",
        "RUNBOOK_HOSTS": "127.0.0.1",
        "RUNBOOK_PROXIES": "",
        "DEBUG": "on",
        "CHECKPOINT_KEY_FILE": str(key),
        "CHECKPOINT_MAIL_TO": "audit@example.org,second@example.org",
        "MAIL_URL": "",
    }
    done = manage({**place.owner, **wrong}, "preflight")
    assert done.returncode == 1
    for sentence in (
        "refused            DEBUG: DEBUG is on",
        "refused            SECRET_KEY: SECRET_KEY holds “of-the-tests-”",
        "refused            HTTPS: RUNBOOK_HTTPS is off",
        "refused            hosts: RUNBOOK_HOSTS names only this machine",
        "refused            proxies: RUNBOOK_PROXIES is not set",
        f"refused            checkpoint key: This account may read {key}",
        "refused            deployment checks: Django objects: ",
        "You should not have DEBUG set to True",
        "refused            database role: The role runbook owns",
        "warning            mail: MAIL_URL is not set, so mails go to the log and reach nobody. Checkpoints will not reach 2",
    ):
        assert sentence in done.stdout
    assert "Not fit for service: 8 refused, 0 could not be seen." in done.stderr
    assert "Traceback" not in done.stderr


def test_servers_that_are_away_do_not_pass(place):
    away = {
        "DATABASE_URL": "postgresql://a:hunter2@127.0.0.1:1/a",
        "REDIS_URL": "redis://:hunter2@127.0.0.1:1/0",
    }
    done = manage({**GOOD, **away}, "preflight")
    assert done.returncode == 1
    assert "could not be seen  PostgreSQL: PostgreSQL does not answer (OperationalError)" in done.stdout
    assert "could not be seen  Redis: Redis does not answer (ConnectionError)" in done.stdout
    assert "0 refused, 2 could not be seen" in done.stderr
    assert "hunter2" not in done.stdout + done.stderr


# Django's own checks.


def test_django_s_deployment_checks_find_nothing_in_production(place):
    done = manage(
        {**place.app, **GOOD}, "check", "--deploy", "--fail-level", "DEBUG", "--database", "default"
    )
    assert done.returncode == 0, done.stderr
    assert "no issues (2 silenced)" in done.stdout


def test_each_silenced_check_says_why(settings):
    text = (ROOT / "runbook" / "settings.py").read_text()
    assert settings.SILENCED_SYSTEM_CHECKS == ["security.W008", "security.W021"]
    for name in settings.SILENCED_SYSTEM_CHECKS:
        reason = re.search(rf'"{re.escape(name)}",  # (.+)', text)
        assert reason, name
        assert len(reason[1]) > 20


# Settings.


@pytest.mark.parametrize(
    ("secret", "why"),
    [
        ("short", "has 5 characters, fewer than 50"),
        ("ab" * 40, "has only 2 different characters"),
        ("django-insecure-7f3k9q2m5x8v1z4b6n0c7w2e5r9t3y8u1i4o6p", "holds “django-insecure-”"),
        ("My-Secret-7f3k9q2m5x8v1z4b6n0c7w2e5r9t3y8u1i4o6p00aa22", "holds “secret”"),
    ],
)
def test_a_secret_that_can_be_guessed_is_refused(at, settings, secret, why):
    settings.SECRET_KEY = secret
    with at():
        assert why in refusal("SECRET_KEY")


@pytest.mark.parametrize("names", [["*"], [".example.org"]])
def test_hosts_that_stand_for_many_are_refused(at, settings, names):
    settings.ALLOWED_HOSTS = [*names, "127.0.0.1"]
    with at():
        assert f"RUNBOOK_HOSTS has {names[0]}" in refusal("hosts")


# Evidence.


@contextmanager
def without_rights():
    """As an account that is nobody's, where these tests run as root, who may do everything."""
    was_root = os.geteuid() == 0
    if was_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if was_root:
            os.seteuid(0)


@pytest.mark.parametrize("closed", ["", "12", "12/screen.png"])
def test_evidence_that_this_account_cannot_reach_is_refused(at, settings, closed):
    with tempfile.TemporaryDirectory() as above:
        settings.EVIDENCE_FOLDER = folder = Path(above) / "evidence"
        (folder / "12").mkdir(parents=True)
        (folder / "12" / "screen.png").touch()
        for path in (Path(above), folder, *folder.rglob("*")):
            path.chmod(0o777)
        with at():
            assert found("evidence").verdict is Verdict.OK
            (folder / closed).chmod(0)
            with without_rights():
                assert f"This account may not work with {folder / closed}:" in refusal("evidence")
        (folder / closed).chmod(0o700)


def test_a_folder_of_evidence_that_is_not_there_yet_has_to_be_possible(at, settings, tmp_path):
    settings.EVIDENCE_FOLDER = tmp_path / "one" / "two"
    with at():
        assert found("evidence").verdict is Verdict.OK
        (tmp_path / "one").touch(mode=0o600)
        assert f"may not work with {tmp_path / 'one'}" in refusal("evidence")


# Celery and kombu.


@pytest.mark.parametrize(
    ("place_of_it", "value", "told"),
    [
        ("visibility_timeout", 60, "visibility_timeout = 60"),
        ("broker_transport_options", {"visibility_timeout": 30}, "broker_transport_options = 30"),
        ("result_backend_transport_options", {}, "result_backend_transport_options = not set"),
        ("task_time_limit", 120, "task_time_limit (120 s) everywhere (visibility_timeout = 120, broker_"),
        ("task_time_limit", None, "task_time_limit of Celery is not set"),
    ],
)
def test_a_visibility_timeout_below_the_hard_limit_is_refused_in_each_place(
    at, conf, place_of_it, value, told
):
    conf(place_of_it, value)
    with at():
        assert told in refusal("visibility timeout")


def test_a_task_with_a_longer_limit_of_its_own_is_refused(at, monkeypatch):
    monkeypatch.setattr(current_app.tasks["upgrades.tasks.tick"], "time_limit", 500)
    with at():
        assert "the time limit of upgrades.tasks.tick (500 s)" in refusal("visibility timeout")


@pytest.mark.parametrize("name", ["task_acks_late", "task_reject_on_worker_lost"])
def test_an_early_acknowledgement_is_refused(at, conf, name):
    conf(name, False)
    with at():
        assert f"{name} of Celery is off" in refusal("acknowledgement")


def test_an_old_kombu_is_refused(at, monkeypatch):
    monkeypatch.setattr(preflight, "version", {"kombu": "5.6.2"}.__getitem__)
    with at():
        assert "kombu 5.6.2 is installed" in refusal("kombu")


# PostgreSQL.


@pytest.mark.parametrize(
    ("on", "off"),
    [
        (f"ALTER ROLE {APP_ROLE} SET synchronous_commit = off", f"ALTER ROLE {APP_ROLE} RESET ALL"),
        ("ALTER DATABASE runbook SET synchronous_commit = off", "ALTER DATABASE runbook RESET ALL"),
    ],
)
def test_a_role_or_database_that_does_not_wait_for_the_disk_is_refused(place, at, on, off):
    with at():
        assert found("synchronous_commit").text == "on"
        place.sql(on)
        try:
            assert f"synchronous_commit = off for the role {APP_ROLE}" in refusal("synchronous_commit")
        finally:
            place.sql(off)
        assert found("synchronous_commit").verdict is Verdict.OK


@pytest.mark.parametrize("name", ["fsync", "full_page_writes", "synchronous_commit"])
def test_a_server_that_does_not_write_safely_is_refused(place, at, name):
    def set_to(statement):
        place.sql(statement, "SELECT pg_reload_conf()")
        until = time.monotonic() + 30
        wished = "off" if "=" in statement else "on"
        while place.sql(f"SHOW {name}")[0].fetchone() != (wished,):
            assert time.monotonic() < until

    with at():
        set_to(f"ALTER SYSTEM SET {name} = off")
        try:
            assert f"PostgreSQL has {name} = off" in refusal(name)
        finally:
            set_to(f"ALTER SYSTEM RESET {name}")
        assert found(name).verdict is Verdict.OK


def test_the_owner_of_the_tables_and_a_superuser_are_refused(place, at):
    with at(place.stores.postgres.url):
        assert "The role runbook owns" in refusal("database role")
    with at(place.stores.postgres.superuser_url.replace("/postgres?", "/runbook?")):
        assert "The role postgres is a superuser" in refusal("database role")


def test_a_role_that_may_become_the_owner_is_refused(place, at):
    place.sql(f"GRANT runbook TO {APP_ROLE} WITH INHERIT FALSE, SET TRUE")
    try:
        with at():
            assert f"The role {APP_ROLE} owns, or may become the owner of, database runbook" in refusal(
                "database role"
            )
    finally:
        place.sql(f"REVOKE runbook FROM {APP_ROLE}")


@pytest.mark.parametrize(
    ("what", "whose", "back"),
    [
        ("DATABASE runbook", "database runbook", "runbook"),
        ("SCHEMA public", "schema public", "pg_database_owner"),
        (
            "FUNCTION append_register(text, text, bigint, text, text)",
            "function append_register",
            "runbook",
        ),
    ],
)
def test_a_role_that_owns_what_is_around_the_tables_is_refused(place, at, what, whose, back):
    with at():
        assert found("database role").verdict is Verdict.OK
        place.sql(f"ALTER {what} OWNER TO {APP_ROLE}")
        try:
            assert f"The role {APP_ROLE} owns, or may become the owner of, {whose}" in refusal(
                "database role"
            )
        finally:
            place.sql(f"ALTER {what} OWNER TO {back}")
            manage(place.owner, "restrict_role", APP_ROLE)
        assert found("database role").verdict is Verdict.OK


PAST_THE_FUNCTIONS = {
    "upgrades_runevent": "UPDATE",
    "upgrades_registerentry": "INSERT (book, text)",
    "upgrades_checkpoint": "INSERT",
    "upgrades_checkpointleaf": "TRUNCATE",
    "upgrades_evidence": "UPDATE (sha256)",
    "upgrades_procedureversion": "TRIGGER",
    "upgrades_commandreceipt": "DELETE",
    "upgrades_run": "DELETE",
    "django_migrations": "DELETE",
}


def test_a_role_that_may_change_the_record_is_refused(place, at):
    place.sql(*(f"GRANT {right} ON {table} TO {APP_ROLE}" for table, right in PAST_THE_FUNCTIONS.items()))
    try:
        with at():
            told = refusal("database role")
    finally:
        place.sql(
            *(f"REVOKE {right} ON {table} FROM {APP_ROLE}" for table, right in PAST_THE_FUNCTIONS.items())
        )
    with at():
        assert found("database role").verdict is Verdict.OK
    for table, right in PAST_THE_FUNCTIONS.items():
        assert f"{right.split()[0]} in {table}" in told


@pytest.mark.parametrize(
    "by", ["GRANT INSERT ON upgrades_runevent TO {who}", "GRANT pg_write_all_data TO {who}"]
)
def test_a_role_that_may_become_one_that_writes_the_record_is_refused(place, at, by):
    place.sql("CREATE ROLE writer", by.format(who="writer"), f"GRANT writer TO {APP_ROLE} WITH INHERIT FALSE")
    try:
        with at():
            assert "INSERT in upgrades_runevent" in refusal("database role")
    finally:
        place.sql("DROP OWNED BY writer", "DROP ROLE writer")


def test_tables_that_are_not_those_of_this_release_are_refused(place, at):
    place.sql("DELETE FROM django_migrations WHERE app = 'upgrades' AND name LIKE '0009%'")
    try:
        with at():
            assert "migrations of this release were not made" in refusal("tables")
    finally:
        place.sql(
            "INSERT INTO django_migrations (app, name, applied) VALUES ('upgrades', '0009_policies', now())"
        )


def test_a_database_without_tables_does_not_pass(place, at):
    place.sql("CREATE DATABASE bare OWNER runbook", database="postgres")
    with at(place.stores.postgres.url.replace("/runbook?", "/bare?")):
        finding = found("tables")
    assert (finding.verdict, finding.passes) == (Verdict.UNSEEN, False)


def test_a_rehearsal_in_a_database_without_tables_says_what_is_missing(place):
    place.sql("CREATE DATABASE blank OWNER runbook", database="postgres")
    bare = {**place.app, "DATABASE_URL": place.stores.postgres.url.replace("/runbook?", "/blank?")}
    done = manage(bare, "rehearse", "lca")
    assert done.returncode == 1
    assert "does not have the tables of this release" in done.stderr
    assert "manage.py migrate" in done.stderr
    assert "Traceback" not in done.stderr


def test_people_of_the_demo_whose_password_everybody_knows_are_refused(place, at):
    with at():
        assert found("demo accounts").text == "none"
        people = [make_user(name=name, password=demo.PASSWORD) for name in ("auditor", "operator")]
        make_user(name="approver", password="another-one-than-that")
        make_user(name="author", password=demo.PASSWORD, is_active=False)
        told = refusal("demo accounts")
        assert "auditor, operator can sign in with the demo's password" in told
        for person in people:
            person.set_password("a-word-of-their-own")
            person.save()
        assert found("demo accounts").verdict is Verdict.OK


def test_a_role_that_cannot_see_the_accounts_does_not_pass(place, at):
    place.sql(f"REVOKE SELECT ON auth_user FROM {APP_ROLE}")
    try:
        with at():
            assert found("demo accounts").verdict is Verdict.UNSEEN
            assert found("clocks").verdict is Verdict.OK
    finally:
        place.sql(f"GRANT SELECT ON auth_user TO {APP_ROLE}")


@pytest.mark.parametrize(("seconds", "told"), [(60, "60.0 s behind"), (-3600, "3600.0 s ahead of")])
def test_a_clock_that_differs_from_the_database_s_is_refused(at, seconds, told):
    with at():
        assert f"The database's clock is {told} this machine's" in refusal(
            "clocks", clock=lambda: time.time() + seconds
        )


# Redis.


def test_a_redis_that_evicts_is_refused(at, redis_set):
    redis_set("maxmemory-policy", "allkeys-lru")
    with at():
        assert "maxmemory-policy allkeys-lru" in refusal("Redis eviction")


def test_a_redis_without_an_append_only_file_is_refused(at, redis_set):
    redis_set("appendonly", "no")
    with at():
        assert "Redis keeps no append-only file" in refusal("Redis append-only file")


def test_a_redis_that_leaves_the_disk_to_the_system_is_refused(at, redis_set):
    redis_set("appendfsync", "no")
    with at():
        assert "appendfsync no" in refusal("Redis appendfsync")


def test_a_replica_of_redis_is_refused(place, at):
    client = redis.Redis.from_url(place.stores.redis.url)
    client.replicaof("127.0.0.1", "1")
    try:
        with at():
            assert "REDIS_URL leads to a slave" in refusal("Redis role")
    finally:
        client.replicaof("NO", "ONE")
        client.close()


def test_an_account_of_redis_that_may_not_ask_does_not_pass(place, at, settings):
    with redis.Redis.from_url(place.stores.redis.url) as client:
        client.acl_setuser(
            "limited", enabled=True, nopass=True, categories=["+@all"], commands=["-config"], keys=["*"]
        )
        try:
            with at():
                settings.REDIS_URL = "redis://limited:x@" + place.stores.redis.url.partition("@")[2]
                finding = found("Redis appendfsync")
        finally:
            client.acl_deluser("limited")
    assert finding.verdict is Verdict.UNSEEN
    assert "+config|get" in finding.text


def test_a_failed_write_of_the_append_only_file_is_refused(at, monkeypatch):
    real = store_settings.ask_redis
    with at():
        from dataclasses import replace

        monkeypatch.setattr(preflight, "ask_redis", lambda url: replace(real(url), write_failed=True))
        assert "could not write its append-only file" in refusal("Redis append-only file")
