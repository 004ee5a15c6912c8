"""Old reports go, the record and what it rests on stay, and nobody keeps less than the policy says."""

from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from tests.factories import make_environment
from tests.services.fake_agent import FILE, news, part
from tests.services.night import Night
from upgrades.domain import run as core
from upgrades.models import Agent, LogFile, LogLine, ProcessChange, RegisterEntry, Run, RunEvent
from upgrades.services import retention
from upgrades.services.agents import take_news
from upgrades.services.record import broken_record

BEFORE = b"10:00:00.000 Std 25301 of an earlier launch\n"
READY = b"10:00:01.000 Std 25301 synthetic\n10:00:02.000 Std 22170 synthetic\n"
YEARS = timedelta(days=1000)


@pytest.fixture
def night(db):
    """A run whose times a test may set back: its rows are then not what its events say."""
    return Night()


@pytest.fixture
def launching(night, fake_agent):
    """A run that has seen the lines of its gate."""
    take_news(night.agent("new").pk, news(part(BEFORE), process="up"))
    Agent.objects.update(trouble="", trouble_since=None)
    fake_agent.listed = {FILE: len(BEFORE)}
    fake_agent.stands_for(night.agent("new"))
    night.go_to("launch-new")
    take_news(night.agent("new").pk, news(part(BEFORE + READY, len(BEFORE)), process="up"))
    night.advance()
    assert night.state.gate("launch-new", "initialized").outcome is not None
    return night


def offsets():
    return sorted(LogLine.objects.values_list("offset", flat=True))


def aged(night, by=YEARS):
    """Everything happened so long ago; what was read before the run, a year before it."""
    for line in LogLine.objects.all():
        line.read_at -= by + (timedelta(days=365) if line.offset < len(BEFORE) else timedelta())
        line.save()
    ProcessChange.objects.update(seen_at=timezone.now() - by - timedelta(days=365))
    run = Run.objects.get(pk=night.run)
    Run.objects.filter(pk=run.pk).update(started_at=run.started_at - by - timedelta(minutes=1))


def prune(night):
    return retention.prune(night.environment.pk, timezone.now())


def chains():
    return list(RunEvent.objects.order_by("pk").values_list("run", "seq", "text", "hash"))


def test_what_is_old_and_nobody_refers_to_goes_and_what_a_run_saw_stays(launching):
    launching.act(core.Hold(reason="We look at the chains tonight."))
    aged(launching)
    before, events = offsets(), chains()
    assert before == [0, len(BEFORE), len(BEFORE) + len(READY) // 2]
    pruned = prune(launching)
    assert (pruned.lines, pruned.changes, pruned.more) == (1, 1, False)
    assert offsets() == before[1:]
    assert chains() == events
    assert list(broken_record(None, [])) == []


def test_a_line_that_the_record_cites_stays_even_where_the_times_of_the_run_would_let_it_go(launching):
    aged(launching)
    Run.objects.filter(pk=launching.run).update(started_at=timezone.now() - timedelta(days=3))
    prune(launching)
    assert offsets() == [len(BEFORE), len(BEFORE) + len(READY) // 2]


def test_what_is_young_stays(launching, settings):
    aged(launching, timedelta(days=settings.KEEP_DAYS - 366))
    assert not prune(launching).any
    assert len(offsets()) == 3


def test_each_removal_stands_in_the_register_and_the_chains_hold(launching):
    aged(launching)
    prune(launching)
    entry = RegisterEntry.objects.get(kind=retention.PRUNED)
    assert entry.book == f"access/{launching.environment.pk}"
    assert '"lines":1' in entry.text
    assert not prune(launching).any
    assert RegisterEntry.objects.filter(kind=retention.PRUNED).count() == 1
    assert list(broken_record(None, [])) == []


def test_a_file_goes_when_it_is_gone_and_empty_and_one_that_is_read_keeps_its_cursor(launching):
    aged(launching)
    LogLine.objects.all().delete()
    LogFile.objects.update(seen_at=timezone.now() - YEARS)
    assert prune(launching).files == 0
    LogFile.objects.update(state="gone")
    assert prune(launching).files == 1
    assert not LogFile.objects.exists()


def test_many_rows_go_in_parts(launching, monkeypatch):
    monkeypatch.setattr(retention, "AT_ONCE", 2)
    file = LogFile.objects.get()
    LogLine.objects.bulk_create(
        LogLine(
            file=file,
            offset=9000 + n,
            length=1,
            kind="event",
            text="x",
            raw=b"x",
            read_at=timezone.now() - 2 * YEARS,
        )
        for n in range(5)
    )
    assert retention.is_due(timezone.now())
    rounds = 0
    while retention.prune_due(timezone.now()):
        rounds += 1
    assert rounds >= 3
    assert not LogLine.objects.filter(offset__gte=9000).exists()
    assert not retention.is_due(timezone.now())
    assert retention.is_due(timezone.now() + timedelta(days=2))


# How long.


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("own", "policy", "holds"), [(None, 400, 400), (800, 400, 800), (400, 900, 900), (10, 400, 400)]
)
def test_an_environment_keeps_longer_than_the_policy_and_never_shorter(settings, own, policy, holds):
    settings.KEEP_DAYS = policy
    environment = make_environment()
    environment.keep_days = own
    assert retention.days_kept(environment) == holds


@pytest.mark.django_db
def test_how_long_is_set_by_a_command_and_stands_in_the_register():
    environment, out = make_environment("Lab"), StringIO()
    call_command("prune", keep="Lab=800", stdout=out)
    assert out.getvalue() == "Lab keeps what agents reported for 800 days.\n"
    environment.refresh_from_db()
    assert environment.keep_days == 800
    entry = RegisterEntry.objects.get(kind=retention.KEPT_LONGER)
    assert '"after":800,"before":400' in entry.text


@pytest.mark.django_db
@pytest.mark.parametrize(
    "wanted", ["Lab=30", "Lab=-5", "Lab=", "Lab", "Nowhere=500", "Lab=9999999", "Lab=٥٠٠"]
)
def test_less_than_the_policy_and_what_is_no_number_is_refused(wanted):
    environment = make_environment("Lab")
    with pytest.raises(CommandError):
        call_command("prune", keep=wanted)
    environment.refresh_from_db()
    assert environment.keep_days is None
    assert not RegisterEntry.objects.filter(kind=retention.KEPT_LONGER).exists()


def test_the_command_says_what_it_removed(launching):
    aged(launching)
    out = StringIO()
    call_command("prune", stdout=out)
    assert "1 lines, 1 process changes and 0 files older than 400 days were removed." in out.getvalue()


def test_the_access_review_of_auditors_tells_it(launching, client):
    from tests.factories import make_user

    aged(launching)
    prune(launching)
    retention.keep(launching.environment.pk, 800, by=launching.operator)
    client.force_login(make_user("auditor", environment=launching.environment))
    text = client.get("/audit/access/").text
    assert "1 log lines, 1 process changes, 0 files from before" in text
    assert "from 400 to 800 days" in text
