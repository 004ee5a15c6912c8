"""The figures for Prometheus: who may have them, that each is there and true, and what a scrape costs."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
import yaml
from django.test import Client
from django.utils import timezone
from prometheus_client.parser import text_string_to_metric_families

from tests.factories import make_environment, make_user, publish, start
from tests.services.fake_agent import FILE, FakeAgent, news, part
from upgrades.adapters.agent_client import Origin
from upgrades.models import (
    Agent,
    Environment,
    GateOpening,
    Heartbeat,
    LogFile,
    LogLine,
    RunBurden,
    RunRequest,
)
from upgrades.services import operation, polling
from upgrades.services.agents import take_news

ROOT = Path(__file__).resolve().parent.parent.parent
TOKEN = "t" * 40


@pytest.fixture(autouse=True)
def _token(settings):
    settings.METRICS_TOKEN = TOKEN


def scrape(client=None):
    """Every sample by its name and labels."""
    answer = (client or Client()).get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
    assert answer.status_code == 200
    return samples(answer.content.decode())


def samples(text):
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


# Who may have them.


@pytest.mark.parametrize(
    ("headers", "networks", "address", "status"),
    [
        pytest.param({}, [], "127.0.0.1", 403, id="a stranger, even on this machine"),
        pytest.param({"Authorization": f"Bearer {TOKEN}"}, [], "10.9.9.9", 200, id="the token"),
        pytest.param(
            {"Authorization": f"bearer {TOKEN}"}, [], "10.9.9.9", 200, id="the scheme in small letters"
        ),
        pytest.param({"Authorization": f"Basic {TOKEN}"}, [], "10.9.9.9", 403, id="another scheme"),
        pytest.param({"Authorization": f"Bearer {TOKEN}x"}, [], "10.9.9.9", 403, id="a longer token"),
        pytest.param({"Authorization": "Bearer "}, [], "10.9.9.9", 403, id="an empty token"),
        pytest.param(
            {"Authorization": "Bearer wrong"}, ["10.9.0.0/16"], "10.9.9.9", 403, id="a wrong token from there"
        ),
        pytest.param({}, ["10.9.0.0/16"], "10.9.9.9", 200, id="an allowed network"),
        pytest.param({}, ["10.9.0.0/16"], "10.8.9.9", 403, id="another network"),
        pytest.param({}, ["fd00::/8"], "fd00::7", 200, id="an allowed network of version 6"),
        pytest.param({}, ["10.9.0.0/16"], "", 403, id="no address"),
        pytest.param({"X-Forwarded-For": "10.9.9.9"}, ["10.9.0.0/16"], "10.9.9.9", 403, id="through a proxy"),
        pytest.param(
            {"Forwarded": "for=10.9.9.9"}, ["10.9.0.0/16"], "10.9.9.9", 403, id="through another proxy"
        ),
    ],
)
@pytest.mark.django_db
def test_figures_are_for_the_token_and_for_allowed_networks(settings, headers, networks, address, status):
    from ipaddress import ip_network

    settings.METRICS_NETWORKS = [ip_network(network) for network in networks]
    answer = Client().get("/metrics", headers=headers, REMOTE_ADDR=address)
    assert answer.status_code == status
    assert (b"runbook_agents" in answer.content) is (status == 200)


def test_without_a_token_in_the_settings_none_is_right(settings):
    settings.METRICS_TOKEN = ""
    for shown in ("Bearer ", "Bearer x"):
        assert Client().get("/metrics", headers={"Authorization": shown}).status_code == 403


@pytest.mark.django_db
def test_a_person_with_every_role_is_no_program():
    environment = make_environment()
    client = Client()
    client.force_login(make_user("administrator", environment=environment, is_superuser=True))
    assert client.get("/metrics").status_code == 403


# What they tell.


def test_a_real_scrape_tells_of_the_requests_before_it(transactional_db, live_server):
    with httpx.Client(base_url=live_server.url, trust_env=False) as http:
        before = samples(http.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"}).text)
        assert http.get("/sign-in/").status_code == 200
        assert http.get("/no-such-page/<script>/").status_code == 404
        answer = http.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    after = samples(answer.text)

    def more(*key):
        return after.get(key, 0) - before.get(key, 0)

    assert more("runbook_http_requests_total", "200", "GET", "sign-in") == 1
    assert more("runbook_http_requests_total", "404", "GET", "none") == 1
    assert more("runbook_http_request_seconds_count", "sign-in") == 1
    assert more("runbook_http_database_seconds_count", "metrics") >= 5
    assert "script" not in answer.text


@pytest.mark.django_db
def test_agents_and_leases_are_counted_by_what_is_so():
    environment, now = make_environment(), timezone.now()
    first, second, third = Agent.objects.filter(environment=environment).order_by("pk")
    Agent.objects.filter(pk=first.pk).update(trouble="no connection", trouble_since=now, clock_skew=-7.5)
    Agent.objects.filter(pk=second.pk).update(
        seen_at=now - timedelta(minutes=5), lease_until=now - timedelta(minutes=1)
    )
    Agent.objects.filter(pk=third.pk).update(lease_until=now + timedelta(minutes=1), due_at=now)
    told = scrape()
    assert told["runbook_agents", "in-trouble"] == 1
    assert told["runbook_agents", "silent"] == 1
    assert told["runbook_agents", "answering"] == 1
    assert 299 < told["runbook_agent_poll_age_seconds", "worst"] < 330
    assert told["runbook_agent_poll_age_seconds", "median"] < 30
    assert told["runbook_agent_clock_skew_worst_seconds",] == 7.5
    assert (told["runbook_leases", "held"], told["runbook_leases", "overrun"]) == (1, 1)
    assert told["runbook_leases_expired_total",] == 0
    assert second.pk in polling.claim(uuid4())
    assert scrape()["runbook_leases_expired_total",] == 1


@pytest.mark.django_db
def test_what_is_due_is_counted_with_the_age_of_the_oldest():
    environment, now = make_environment(), timezone.now()
    Agent.objects.update(due_at=now - timedelta(seconds=90))
    environment.rules_due_at = now - timedelta(seconds=30)
    environment.save()
    told = scrape()
    assert told["runbook_queue_waiting", "agents"] == 3
    assert 90 <= told["runbook_queue_oldest_seconds", "agents"] < 120
    assert 30 <= told["runbook_queue_oldest_seconds", "rules"] < 60
    assert told["runbook_queue_oldest_seconds", "requests"] == 0


@pytest.mark.django_db
def test_runs_and_exposures_are_counted_and_rehearsals_are_not():
    environment = make_environment()
    run = start(environment, make_user("operator", environment=environment))
    told = scrape()
    assert told["runbook_runs_open", "running"] == 1
    assert told["runbook_exposures_open",] == 0
    for minutes in (1, 6000):
        RunBurden.objects.create(
            run_id=run,
            environment=environment,
            burden="exposure:read-only",
            title="Read-only",
            opened_at=timezone.now() - timedelta(minutes=minutes),
        )
    told = scrape()
    assert (told["runbook_exposures_open",], told["runbook_exposures_over_maximum",]) == (2, 1)
    environment.runs.update(rehearsal=True)
    told = scrape()
    assert ("runbook_runs_open", "running") not in told
    assert told["runbook_exposures_open",] == 0


@pytest.mark.django_db
def test_nothing_of_a_copy_for_rehearsals_is_counted():
    """Not its agents, rules and requests, not how its gates opened, not its logs: nobody is to be woken for a practice."""
    environment, now = make_environment(), timezone.now()
    run = start(environment, make_user("operator", environment=environment))
    Agent.objects.update(due_at=now - timedelta(seconds=90))
    Environment.objects.update(rules_due_at=now - timedelta(seconds=90))
    RunRequest.objects.create(
        run_id=run, environment=environment, kind="approval", step="x", since=now, due_at=now
    )
    GateOpening.objects.create(run_id=run, step="x", gate="y", read_at=now, opened_at=now, on_host=60.0)
    file = LogFile.objects.create(
        application=environment.applications.first(), identity="f", name="x.log", size=5000
    )
    LogLine.objects.create(file=file, offset=0, length=0, kind="gap", text="lost", raw=b"", read_at=now)
    counted = {
        ("runbook_queue_waiting", "agents"): 3,
        ("runbook_queue_waiting", "rules"): 1,
        ("runbook_queue_waiting", "requests"): 1,
        ("runbook_gates_opened_last_hour",): 1,
        ("runbook_log_lag_bytes",): 5000,
        ("runbook_log_lag_worst_bytes",): 5000,
        ("runbook_log_gaps_last_hour",): 1,
    }
    told = scrape()
    assert {name: told[name] for name in counted} == counted

    environment.rehearsal_of = make_environment("Lab · Berlin")
    environment.save()
    environment.runs.update(rehearsal=True)
    Agent.objects.exclude(environment=environment).update(due_at=None)
    Environment.objects.exclude(pk=environment.pk).update(rules_due_at=None)
    told = scrape()
    assert {name: told[name] for name in counted} == dict.fromkeys(counted, 0)
    assert ("runbook_gate_latency_seconds", "1", "written") not in told


@pytest.mark.django_db
def test_workers_and_the_tick_are_told_by_their_rows():
    told = scrape()
    assert told["runbook_workers_seen",] == 0
    assert ("runbook_tick_age_seconds",) not in told
    operation.alive(Heartbeat.Kind.WORKER, "celery@one")
    operation.alive(Heartbeat.Kind.WORKER, "celery@one")
    operation.alive(Heartbeat.Kind.WORKER, "celery@two")
    operation.alive(Heartbeat.Kind.TICK)
    Heartbeat.objects.filter(name="celery@two").update(seen_at=timezone.now() - timedelta(minutes=1))
    told = scrape()
    assert told["runbook_workers_seen",] == 1
    assert told["runbook_tick_age_seconds",] < 10


@pytest.mark.django_db
def test_log_files_are_told_by_what_is_not_read_and_what_is_lost():
    environment = make_environment()
    application = environment.applications.first()
    for number, (size, state) in enumerate([(5000, "open"), (100, "open"), (9000, "gone")]):
        LogFile.objects.create(
            application=application, identity=f"f{number}", name="x.log", size=size, state=state
        )
    file = LogFile.objects.first()
    LogLine.objects.create(
        file=file, offset=0, length=0, kind="gap", text="lost", raw=b"", read_at=timezone.now()
    )
    told = scrape()
    assert told["runbook_log_lag_bytes",] == 5100
    assert told["runbook_log_lag_worst_bytes",] == 5000
    assert told["runbook_log_gaps_last_hour",] == 1


@pytest.mark.django_db
def test_a_scrape_takes_few_queries_however_much_there_is(django_assert_num_queries):
    environment = make_environment()
    publish()
    with django_assert_num_queries(7):
        assert scrape()["runbook_database_up",] == 1
    operator = make_user("operator", environment=environment)
    run = start(environment, operator)
    GateOpening.objects.create(
        run_id=run, step="x", gate="y", read_at=timezone.now(), opened_at=timezone.now(), on_host=0.25
    )
    with django_assert_num_queries(7):
        told = scrape()
    assert told["runbook_gates_opened_last_hour",] == 1
    assert told["runbook_gate_latency_seconds", "0.99", "written"] >= 0.25


@pytest.mark.django_db
def test_a_refused_act_is_counted():
    environment = make_environment()
    publish()
    client = Client()
    client.force_login(make_user("auditor", environment=environment))
    run = start(environment, make_user("operator", environment=environment))
    before = scrape().get(("runbook_refused_acts_total", "403"), 0)
    sent = {
        "command_id": uuid4(),
        "step": "prerequisites",
        "visit": 1,
        "gate": "packages-delivered",
        "answer": "pass",
    }
    assert client.post(f"/runs/{run}/confirm/", sent).status_code == 403
    assert scrape()["runbook_refused_acts_total", "403"] == before + 1


def test_while_the_database_is_away_the_rest_is_told(monkeypatch):
    from django.db import OperationalError

    from upgrades.queries import operation as asked

    def away(_now):
        raise OperationalError("the connection is lost")

    monkeypatch.setattr(asked, "agents", away)
    told = scrape()
    assert told["runbook_database_up",] == 0
    assert ("runbook_workers_seen",) not in told


# Gates.


@pytest.fixture
def night(db):
    from tests.services.night import Night

    return Night()


@pytest.fixture
def fake_agent():
    agent = FakeAgent()
    yield agent
    agent.close()


def test_a_gate_that_opens_is_timed_from_its_line_by_both_clocks(night, fake_agent):
    """The host's zone is unknown and its clock is two minutes ahead: neither matters."""
    before = b"10:00:00.000 Std 25301 of an earlier launch\n"
    fake_agent.listed = {FILE: len(before)}
    fake_agent.stands_for(night.agent("new"))
    night.go_to("launch-new")
    written = timezone.now() + timedelta(
        hours=5, minutes=45, seconds=120 - 3
    )  # three seconds ago, in Kathmandu
    line = f"{written:%H:%M:%S}.{written.microsecond // 1000:03} Std"
    later = f"{line} 25301 synthetic\n{line} 22170 synthetic\n".encode()
    told = replace(news(part(before + later)), origin=Origin("fra-cfg-02", "0" * 16, timezone.now(), 120.0))
    take_news(night.agent("new").pk, told)
    LogLine.objects.update(logged_at=f"{written:%Y-%m-%dT%H:%M:%S}.{written.microsecond // 1000:03}")
    night.advance()
    opening = GateOpening.objects.get()
    assert (opening.step, opening.run_id) == ("launch-new", night.run)
    assert opening.read_at <= opening.opened_at
    assert 2.5 < opening.on_host < 60


def test_what_is_counted_no_more_is_forgotten(night):
    now = timezone.now()
    for days in (1, 40):
        at = now - timedelta(days=days)
        GateOpening.objects.create(run_id=night.run, step="x", gate="y", read_at=at, opened_at=at)
        Heartbeat.objects.create(kind="worker", name=f"w{days}", seen_at=at + timedelta(hours=1))
    operation.forget_old(now)
    assert GateOpening.objects.count() == 1
    assert list(Heartbeat.objects.values_list("name", flat=True)) == ["w1"]


# Several processes of one machine.

PROGRAM = """
import django
django.setup()
from django.test import Client
client = Client(HTTP_HOST="localhost")
client.get("/healthz")
print(client.get("/metrics", headers={"Authorization": "Bearer " + "t" * 40}).content.decode())
"""


@pytest.mark.django_db(transaction=True)
def test_web_processes_that_share_a_folder_count_together(tmp_path):
    def once(**more):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env={**os.environ, "RUNBOOK_METRICS_TOKEN": TOKEN, **more},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        return samples(done.stdout)

    key = ("runbook_http_requests_total", "200", "GET", "healthz")
    once(RUNBOOK_METRICS_FOLDER=str(tmp_path))
    shared = once(RUNBOOK_METRICS_FOLDER=str(tmp_path))
    assert (shared[key], shared["runbook_requests_shared",]) == (2, 1)
    alone = once()
    assert (alone[key], alone["runbook_requests_shared",]) == (1, 0)


# What is written about them.


def names_there():
    from upgrades.web import metrics

    registered = {metric.name for registry in (metrics.PROCESS,) for metric in registry.collect()}
    return registered | {family.name for family in metrics.Stored().collect()}


@pytest.mark.django_db
def test_each_figure_is_explained_and_each_explained_one_is_there():
    operation.alive(Heartbeat.Kind.TICK)
    rows = re.findall(r"^\| `(runbook_\w+)`", (ROOT / "docs" / "observability.md").read_text(), re.MULTILINE)
    assert sorted(rows) == sorted(names_there())


@pytest.mark.django_db
def test_the_example_alerts_speak_of_figures_that_exist():
    operation.alive(Heartbeat.Kind.TICK)
    known = names_there()
    rules = [
        rule
        for group in yaml.safe_load((ROOT / "docs" / "alerts.yml").read_text())["groups"]
        for rule in group["rules"]
    ]
    assert len({rule["alert"] for rule in rules}) == len(rules) >= 10
    for rule in rules:
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"]["summary"].endswith(".")
        named = re.findall(r"runbook_\w+", rule["expr"])
        assert named
        for name in named:
            assert re.sub(r"_(total|count|sum|bucket)$", "", name) in known
