"""Counting clients from the logs of both servers (CSH-8a, genesys.md 2.4): what is read, from where on, and as what."""

from datetime import timedelta

import pytest
from django.utils import timezone

from upgrades.domain.run_events import GAPS
from upgrades.models import Application, LogFile, LogLine, ProcessChange

MARK = 1000


def log_of(night, role):
    return LogFile.objects.get_or_create(application=night.server(role), identity=f"log of {role}")[0]


def logs_total(night, role, offset, total):
    file = log_of(night, role)
    LogFile.objects.filter(pk=file.pk).update(cursor=max(file.cursor, offset + 40))
    LogLine.objects.create(
        file=file,
        offset=offset,
        length=40,
        kind=LogLine.Kind.TOTAL,
        total=total,
        text=f"Total number of clients: {total}",
        raw=b"",
        read_at=timezone.now(),
    )


def has(night, role, total, at):
    Application.objects.filter(pk=night.server(role).pk).update(client_total=total, client_total_at=at)


@pytest.fixture
def stopping(night, monkeypatch):
    """A run whose old primary has 84 clients and is about to be shut down; logs end at `MARK`."""
    night.go_to("stop-old")
    has(night, "old", 84, timezone.now())
    monkeypatch.setattr(
        "upgrades.services.runs.take_watermarks",
        lambda _environment, names: {
            name: {f"log of {role}": MARK, GAPS: 0}
            for role in ("old", "new")
            for name in names
            if name == night.state.application(role)
        },
    )
    return night


def carry_on(night):
    return night.go_to("await-clients")


def reason(night):
    return night.verdict("await-clients", "clients-moved").reason


@pytest.mark.requirement("CSH-8a")
def test_of_many_totals_the_last_one_of_each_server_counts(stopping):
    carry_on(stopping)
    for place, total in enumerate((84, 60, 12, 0), 1):
        logs_total(stopping, "old", MARK + place, total)
    for place, total in enumerate((90, 100, 200, 84), 1):
        logs_total(stopping, "new", MARK + place, total)
    stopping.advance()
    assert "confserv_b counts 84, confserv had 84 before, and counts 0" in reason(stopping)


def test_totals_count_whatever_the_clock_said_when_they_were_read(stopping):
    """F36: set back after the shutdown, it makes what is read from then on look older; the gate stayed shut for as long."""
    carry_on(stopping)
    logs_total(stopping, "old", MARK + 1, 0)
    logs_total(stopping, "new", MARK + 1, 84)
    LogLine.objects.update(read_at=timezone.now() - timedelta(hours=1))
    stopping.advance()
    assert "confserv_b counts 84, confserv had 84 before, and counts 0" in reason(stopping)


@pytest.mark.requirement("CSM-6a")
def test_lines_from_before_the_shutdown_count_for_nothing_though_they_are_read_after_it(stopping):
    carry_on(stopping)
    logs_total(stopping, "old", MARK - 1, 0)
    logs_total(stopping, "new", MARK - 1, 84)
    stopping.advance()
    assert "has not logged a client total yet" in reason(stopping)


def test_a_total_of_an_earlier_life_of_the_server_is_no_baseline(stopping):
    has(stopping, "old", 84, timezone.now() - timedelta(hours=1))
    ProcessChange.objects.create(
        application=stopping.server("old"), state="up", before="down", seen_at=timezone.now()
    )
    carry_on(stopping)
    assert "There is no client total of confserv from before its shutdown" in reason(stopping)


def test_a_server_without_an_agent_can_be_stopped_and_its_clients_are_confirmed(night):
    has(night.go_to("stop-old"), "old", 84, timezone.now())
    carry_on(night)  # nobody answers at the agents of this night
    assert "was not marked before the shutdown" in reason(night)
    night.act(night.confirm("clients-moved", text="all desktops show it"))
    assert night.verdict("await-clients", "clients-moved").is_met
