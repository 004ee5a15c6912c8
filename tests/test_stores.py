"""The stores that the demo and the tests start: they keep data, survive crashes, and tell what is wrong."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
import redis

from runbook.stores import PostgresServer, RedisServer, Stores, StoreTrouble, free_port

pytestmark = pytest.mark.processes
ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def module_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("stores")


@pytest.fixture(scope="module")
def stores(module_folder):
    with Stores(module_folder / "stores") as started:
        yield started


def remember(urls, value):
    with psycopg.connect(urls.database) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kept (value text)")
        connection.execute("INSERT INTO kept VALUES (%s)", [value])
    with redis.Redis.from_url(urls.redis) as client:
        client.rpush("kept", value)


def remembered(urls):
    with psycopg.connect(urls.database) as connection:
        rows = [value for (value,) in connection.execute("SELECT value FROM kept")]
    with redis.Redis.from_url(urls.redis) as client:
        return rows, [value.decode() for value in client.lrange("kept", 0, -1)]


def test_a_second_start_keeps_the_data_and_the_addresses(tmp_path):
    with Stores(tmp_path / "stores") as first:
        before = first.urls
        remember(before, "one")
    with Stores(tmp_path / "stores") as second:
        assert second.urls == before
        assert remembered(before) == (["one"], ["one"])
    assert second.postgres.pid is None
    assert second.redis.pid is None


def test_both_come_back_after_a_crash(stores):
    stores.postgres.kill()
    stores.redis.kill()
    assert stores.dead() is not None
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(stores.urls.database)
    stores.postgres.start()
    stores.redis.start()
    assert stores.dead() is None
    remember(stores.urls, "after the crash")


def test_a_pid_file_with_the_number_of_another_program_does_not_stop_the_start(tmp_path):
    with Stores(tmp_path / "stores") as stores:
        pass
    me = str(os.getpid())
    (stores.postgres.folder / "postmaster.pid").write_text(
        f"{me}\n{stores.postgres.folder}\n1\n5432\n\n\n\nready\n"
    )
    (stores.redis.folder / "redis.pid").write_text(me)
    assert stores.postgres.pid is None
    assert stores.redis.pid is None
    with stores:
        assert stores.postgres.pid not in (None, os.getpid())


def test_running_stores_are_used_and_not_ended_by_a_second_user(stores, module_folder):
    with Stores(module_folder / "stores") as second:
        assert second.urls == stores.urls
    assert stores.postgres.pid is not None
    assert stores.redis.pid is not None


def test_the_stores_are_set_up_so_that_acknowledged_means_kept(stores):
    with psycopg.connect(stores.urls.database) as connection:
        for name in ("fsync", "full_page_writes", "synchronous_commit", "data_checksums"):
            assert connection.execute(f"SHOW {name}").fetchone() == ("on",)
        assert connection.execute(
            "SELECT rolsuper FROM pg_roles WHERE rolname = current_user"
        ).fetchone() == (False,)
    with redis.Redis.from_url(stores.urls.redis) as client:
        found = client.config_get("append*") | client.config_get("maxmemory-policy")
    assert (found["appendonly"], found["appendfsync"], found["maxmemory-policy"]) == (
        "yes",
        "everysec",
        "noeviction",
    )


def test_redis_wants_its_password(stores):
    without = "redis://" + stores.urls.redis.partition("@")[2]
    with redis.Redis.from_url(without) as client, pytest.raises(redis.AuthenticationError):
        client.ping()


def test_a_taken_port_is_named_with_the_variable_that_changes_it(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StoreTrouble, match=rf"Port {port} .* is taken .* RUNBOOK_REDIS_PORT"):
            RedisServer(tmp_path / "redis", port).start()


def test_a_remembered_port_that_is_taken_by_now_is_replaced(tmp_path):
    server = RedisServer(tmp_path / "redis")
    server.start()
    server.stop()
    with socket.create_server(("127.0.0.1", int((server.folder / "port").read_text()))) as taken:
        server.start()
        try:
            assert not server.url.endswith(f":{taken.getsockname()[1]}/0")
        finally:
            server.stop()


def test_a_server_that_cannot_start_shows_the_end_of_its_log(tmp_path):
    server = RedisServer(tmp_path / "redis", free_port())
    server.folder.mkdir(parents=True)
    (server.folder / "appendonly.aof").write_bytes(b"this is no Redis file\n")
    with pytest.raises(StoreTrouble, match=r"(?s)redis did not start.*Bad file format"):
        server.start()
    assert server.pid is None


def test_data_of_another_postgresql_is_refused_with_what_to_do(tmp_path):
    server = PostgresServer(tmp_path / "stores" / "postgresql")
    server.folder.mkdir(parents=True)
    (server.folder / "PG_VERSION").write_text("16\n")
    with pytest.raises(StoreTrouble, match=r"PostgreSQL 16, and PostgreSQL 18 is installed.*make demo-reset"):
        server.start()


def test_an_initialisation_that_was_cut_off_is_begun_again(tmp_path):
    server = PostgresServer(tmp_path / "stores" / "postgresql")
    half = server.folder.with_name("postgresql.new")
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    server.start()
    try:
        assert server.answers()
    finally:
        server.stop()


def test_a_very_long_path_does_not_hinder_the_socket(tmp_path):
    server = PostgresServer(tmp_path / ("long" * 30) / "postgresql")
    server.start()
    try:
        psycopg.connect(server.url).close()
    finally:
        server.stop()


def test_the_command_line_starts_tells_and_stops(tmp_path):
    def run(action):
        command = [sys.executable, "-m", "runbook.stores", action, "--folder", str(tmp_path / "stores")]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    asked_too_early = run("url")
    assert (asked_too_early.returncode, "was never started" in asked_too_early.stderr) == (1, True)
    started = run("start")
    assert started.returncode == 0, started.stderr
    try:
        assert started.stdout.startswith("export DATABASE_URL='postgresql://runbook@/runbook?host=")
        assert run("url").stdout == started.stdout
    finally:
        assert run("stop").returncode == 0
    assert Stores(tmp_path / "stores").postgres.pid is None
