"""The status page, and what run and environment pages say when there is no news (I10)."""

from datetime import timedelta

import pytest
from django.utils import timezone

from tests.factories import frankfurt, give, make_environment, make_user, server, start
from tests.web.run_scene import Stage
from upgrades.domain import run as core
from upgrades.domain.freshness import IDLE, SLACK, WATCHED
from upgrades.models import Agent, CheckpointWatch, Heartbeat, LogFile, LogLine, Run
from upgrades.queries import operation as asked
from upgrades.services import operation

pytestmark = pytest.mark.django_db


@pytest.fixture
def environment():
    return make_environment()


@pytest.fixture
def operator(client, environment):
    user = make_user("operator", environment=environment)
    client.force_login(user)
    return user


def heard(host, ago, **more):
    Agent.objects.filter(host__name=host).update(seen_at=timezone.now() - ago, **more)


def words(answer):
    return " ".join(answer.text.split())


def status(client):
    return words(client.get("/status/"))


# Who sees what.


def test_it_names_the_environments_of_the_person_and_no_others(client, environment, operator):
    make_environment("Lab · Berlin")
    text = status(client)
    assert "Production · Frankfurt" in text
    assert "all 3 heard" in text
    assert "Lab · Berlin" not in text


def test_who_has_no_environment_is_told_how_to_get_one(client):
    client.force_login(make_user())
    assert "No environment is yours yet" in status(client)


def test_workers_are_named_to_those_who_operate_something(client, environment, operator):
    operation.alive(Heartbeat.Kind.WORKER, "celery@node-7")
    operation.alive(Heartbeat.Kind.TICK)
    assert "celery@node-7" in status(client)
    client.force_login(make_user("auditor", environment=environment))
    text = status(client)
    assert "1 worker; the reconciler went through" in text
    assert "celery@node-7" not in text


def test_the_way_to_it_stands_on_the_environments_and_in_the_menu_of_each_page(client, operator):
    assert client.get("/environments/").text.count('href="/status/"') == 2
    assert client.get("/runs/").text.count('href="/status/"') == 1


# The background work.


@pytest.mark.parametrize(
    ("worker", "tick", "says"),
    [
        (None, None, "No worker takes tasks.</b> None was ever seen."),
        (60, 5, "No worker takes tasks.</b> The last one was seen at"),
        (1, None, "The clock of the background work stands still.</b> It never ticked."),
        (1, 60, "The clock of the background work stands still.</b> It ticked last at"),
        (1, 1, "1 worker; the reconciler went through"),
    ],
)
def test_it_says_whether_the_background_work_goes_on(client, operator, worker, tick, says):
    for kind, name, age in (("worker", "celery@here", worker), ("tick", "", tick)):
        if age is not None:
            Heartbeat.objects.create(kind=kind, name=name, seen_at=timezone.now() - timedelta(seconds=age))
    assert says in status(client)


def test_what_is_due_for_too_long_is_told(client, operator):
    assert status(client).count("none is due") == 5
    Agent.objects.update(due_at=timezone.now() - timedelta(minutes=2))
    assert '<span class="stop">3 due</span>, the oldest for' in status(client)


# Hosts.


def test_a_host_without_news_stands_first_with_since_when_and_why(client, operator):
    heard(
        "fra-scs-01",
        timedelta(seconds=14),
        trouble="connection refused \x1b[2J <b>",
        trouble_since=timezone.now(),
    )
    text = status(client)
    assert "1 of 3 not heard" in text
    assert "<b>No news from fra-scs-01</b> for" in text
    assert "connection refused" in text
    assert "\x1b" not in text
    assert "<b> " not in text.split("connection refused")[1][:60]
    table = text.partition("<tbody>")[2]
    assert table.index("fra-scs-01") < table.index("fra-cfg-01")


def test_an_agent_of_an_open_run_is_missed_sooner(client, environment, operator):
    just_too_old = 2 * WATCHED + SLACK + timedelta(seconds=1)
    heard("fra-cfg-01", just_too_old)
    assert "No news from" not in status(client)
    start(environment, operator)
    text = status(client)
    assert "<b>No news from fra-cfg-01</b>" in text
    assert "an open run rests on it" in text
    heard("fra-cfg-01", 2 * WATCHED - timedelta(seconds=1))
    assert "No news from" not in status(client)


def test_clocks_lags_and_gaps_are_told_per_host(client, environment, operator):
    heard("fra-cfg-01", timedelta(), clock_skew=-86400.0)
    heard("fra-cfg-02", timedelta(), clock_skew=1.5)
    confserv = environment.applications.get(name="confserv")
    file = LogFile.objects.create(
        application=confserv, identity="f", name="confserv.<i>.log", size=200_704, cursor=1024
    )
    LogFile.objects.create(application=confserv, identity="g", name="read.log", size=10, cursor=10)
    LogFile.objects.create(application=confserv, identity="h", name="half-a-line.log", size=90, cursor=10)
    now = timezone.now()
    for offset, text, ago in ((0, "vanished today", 0), (1, "vanished last week", 7)):
        LogLine.objects.create(
            file=file,
            offset=offset,
            length=0,
            kind="gap",
            text=text,
            raw=b"",
            read_at=now - timedelta(days=ago),
        )
    text = status(client)
    assert '<b class="wait">-86400.0 s</b>' in text
    assert "1.5 s" in text
    assert "195.0 KB of confserv" in text
    assert "confserv.&lt;i&gt;.log" in text
    assert "read.log" not in text
    assert "half-a-line.log" not in text
    assert "confserv: " in text
    assert "vanished today" in text
    assert "last week" not in text


def test_the_live_part_is_sent_again_only_when_something_is_different(client, environment, operator):
    etag = client.get("/status/board/").headers["ETag"]
    assert client.get("/status/board/", headers={"If-None-Match": etag}).status_code == 304
    heard("fra-cfg-01", timedelta(minutes=3))
    answer = client.get("/status/board/", headers={"If-None-Match": etag})
    assert answer.status_code == 200
    assert answer.text.lstrip().startswith('<div class="stack" id="status"')


def test_trouble_with_checkpoints_reaches_a_page_that_is_open_already(client, operator):
    etag = client.get("/status/board/").headers["ETag"]
    CheckpointWatch.objects.create(seen_at=timezone.now(), trouble="The key cannot be read.")
    answer = client.get("/status/board/", headers={"If-None-Match": etag})
    assert "<b>Checkpoints:</b>" in answer.text
    assert "The key cannot be read." in answer.text


def test_who_operates_nothing_any_more_is_shown_no_workers_on_a_page_that_is_open_already(
    client, environment, operator
):
    operation.alive(Heartbeat.Kind.WORKER, "celery@node-7")
    board = client.get("/status/board/")
    assert "celery@node-7" in board.text
    operator.memberships.update(role="auditor")
    answer = client.get("/status/board/", headers={"If-None-Match": board.headers["ETag"]})
    assert answer.status_code == 200
    assert "celery@node-7" not in answer.text


def test_it_costs_the_same_few_queries_for_one_host_and_for_many(client, operator, django_assert_num_queries):
    with django_assert_num_queries(14):
        client.get("/status/")
    hosts = [f"h-{number:03}" for number in range(60)]
    world = frankfurt(servers=[server(f"s-{host}", "SCS", host) for host in hosts], agents=[])
    give(operator, make_environment("Many", world=world), "operator")
    with django_assert_num_queries(14):
        client.get("/status/")


# Honest display elsewhere.


def test_the_page_of_an_environment_calls_nothing_good_that_is_older_than_two_polls(
    client, environment, operator
):
    environment.applications.update(mode="primary")
    address = f"/environments/{environment.pk}/"
    assert '<span class="chip go">primary</span>' in client.get(address).text
    Agent.objects.update(seen_at=timezone.now() - 2 * IDLE - SLACK - timedelta(seconds=1))
    text = words(client.get(address))
    assert "no news from their agents since" in text
    assert "was known then" in text
    assert '<span class="chip go">primary</span>' not in text
    assert "data-ask-every" in text


@pytest.fixture
def stage(client):
    stage = Stage().reach("launch-new")
    stage.advance()
    Agent.objects.update(trouble="", trouble_since=None, seen_at=timezone.now())
    client.force_login(stage.operator)
    return stage


def board(client, stage, etag=None):
    headers = {"If-None-Match": etag} if etag else {}
    return client.get(f"/runs/{stage.run_id}/board/", headers=headers)


@pytest.mark.parametrize(
    "ago", [timedelta(seconds=14), -timedelta(minutes=5)], ids=["silent", "clock set back"]
)
def test_the_page_of_a_run_says_that_there_is_no_news_though_nothing_else_has_changed(client, stage, ago):
    before = board(client, stage)
    assert "No news from" not in before.text
    assert "The agent on fra-cfg-02 reads the log of confserv_b" in before.text
    etag = before.headers["ETag"]
    assert board(client, stage, etag).status_code == 304
    heard("fra-cfg-02", ago)
    silent = board(client, stage, etag)
    text = words(silent)
    assert "<b>No news from fra-cfg-02 since" in text
    assert "What is shown of confserv_b was known then; gates that rest on their logs stay shut." in text
    assert "No news from the agent on fra-cfg-02, which reads the log of confserv_b" in text
    assert "last known: " in text
    assert board(client, stage, silent.headers["ETag"]).status_code == 304
    heard("fra-cfg-02", timedelta())
    back = board(client, stage, silent.headers["ETag"])
    assert back.status_code == 200
    assert "No news from" not in back.text


def test_a_page_keeps_asking_for_what_grows_old(client, stage):
    assert 'data-ask-every="5000"' in board(client, stage).text


def test_of_two_silent_hosts_the_longer_silence_counts(client, stage):
    heard("fra-cfg-01", timedelta(minutes=5))
    heard("fra-cfg-02", timedelta(minutes=1))
    assert "<b>No news from fra-cfg-01 and fra-cfg-02 since" in words(board(client, stage))


def test_workers_count_as_seen_for_as_long_as_is_said():
    assert timedelta(seconds=3 * 3) < asked.WORKER_SILENT


# Runs that workers cannot go on with.


def test_a_parked_run_says_so_on_its_page_and_on_the_status_page(client, stage):
    since = timezone.now() - timedelta(minutes=2)
    client.force_login(stage.operator)
    assert "Workers cannot go on" not in words(board(client, stage)) + status(client)
    Run.objects.filter(pk=stage.run_id).update(parked_since=since)
    page = words(client.get(f"/runs/{stage.run_id}/"))
    assert "<b>Workers cannot go on with this run.</b>" in page
    assert "It is tried once a minute; until then nothing here opens by itself" in page
    assert f'<b>Workers cannot go on with <a href="/runs/{stage.run_id}/">' in status(client)


def test_a_run_that_is_over_is_parked_no_more(client):
    stage = Stage()
    Run.objects.filter(pk=stage.run_id).update(parked_since=timezone.now())
    stage.act(core.Abort(reason="The window was withdrawn."))
    client.force_login(stage.operator)
    assert "Workers cannot go on" not in words(client.get(f"/runs/{stage.run_id}/")) + status(client)
