"""Findings as rows: what agents brought, since when it stands, and that it goes when it is so no more."""

from datetime import timedelta

import pytest
from django.utils import timezone

from tests.factories import make_environment, make_user, start
from tests.services.fake_agent import OTHER, news, part
from tests.services.test_polling import following, is_at
from tests.waiting import wait_for
from tests.web.plan_scene import large_environment
from upgrades import tasks
from upgrades.models import Agent, Application, Environment, Finding, LogFile, LogLine, RunBurden
from upgrades.queries.environment_watch import breaches, standing_findings, watched
from upgrades.services import environment_rules, runs, scs_logs
from upgrades.services.agents import take_news


@pytest.fixture
def environment(db):
    return make_environment()


def logs(environment, application, *lines, start=0, **more):
    """The agent of the application's host brings these lines, which stand in its log from `start` on."""
    host = environment.applications.get(name=application).host
    content = "".join(f"{line}\n" for line in lines).encode()
    brought = part(b" " * start + content, start, name=f"{application}.log", **more)
    take_news(host.agent.pk, news(brought, application=application, host=host.name))
    return start + len(content)


def standing(environment):
    return {
        finding.rule: finding for finding in Finding.objects.filter(environment=environment, ended_at=None)
    }


def later(seconds=60):
    return timezone.now() + timedelta(seconds=seconds)


# Reports of SCS.


def test_split_brain_stands_since_it_was_read_and_ends_with_the_recovery(environment):
    end = logs(environment, "scs", "10:00:00.000 Std 10329 synthetic")
    assert environment_rules.check(environment.pk)
    finding = standing(environment)["43-10329"]
    assert finding.since == LogLine.objects.get().read_at
    assert not environment_rules.check(environment.pk)
    logs(environment, "scs", "10:01:00.000 Std 10330 synthetic", start=end)
    environment_rules.check(environment.pk)
    assert standing(environment) == {}
    assert Finding.objects.get().ended_at is not None


def test_what_comes_again_is_a_new_finding(environment):
    end = logs(environment, "scs", "10:00:00.000 Std 10327 synthetic")
    environment_rules.check(environment.pk)
    end = logs(environment, "scs", "10:01:00.000 Std 10328 synthetic", start=end)
    environment_rules.check(environment.pk)
    logs(environment, "scs", "10:02:00.000 Std 10327 synthetic", start=end)
    environment_rules.check(environment.pk)
    assert Finding.objects.count() == 2
    assert list(standing(environment)) == ["43-10327"]


def test_full_lines_and_common_ones_are_read_alike(environment):
    logs(
        environment, "scs", "2026-03-01T10:00:00.000 Standard   fra-scs-01   scs   GCTI-43-10329   synthetic"
    )
    environment_rules.check(environment.pk)
    assert list(standing(environment)) == ["43-10329"]


def test_a_short_report_of_two_primaries_is_an_ordinary_switchover(environment):
    end = logs(environment, "scs", "10:00:00.000 Std 20622 synthetic")
    environment_rules.check(environment.pk)
    assert standing(environment) == {}
    environment_rules.check(environment.pk, now=later())
    assert list(standing(environment)) == ["43-20622"]
    logs(environment, "scs", "10:00:01.000 Std 20623 synthetic", start=end)
    environment_rules.check(environment.pk, now=later())
    assert standing(environment) == {}


def test_no_primary_after_two_is_the_newer_report(environment):
    logs(environment, "scs", "10:00:00.000 Std 20622 synthetic", "10:00:01.000 Std 20621 synthetic")
    environment_rules.check(environment.pk, now=later())
    assert list(standing(environment)) == ["43-20621"]


def test_a_new_start_of_scs_forgets_what_it_had_reported(environment):
    logs(environment, "scs", "10:00:00.000 Std 10329 synthetic", "10:05:00.000 Std 05060 Application started")
    environment_rules.check(environment.pk)
    assert standing(environment) == {}


def test_the_report_in_a_newer_file_counts(environment):
    logs(environment, "scs", "10:00:00.000 Std 10329 synthetic")
    logs(environment, "scs", "11:00:00.000 Std 10330 synthetic", file=OTHER)
    environment_rules.check(environment.pk)
    assert standing(environment) == {}


def test_the_same_number_in_the_log_of_another_server_means_nothing(environment):
    logs(environment, "messageserver", "10:00:00.000 Std 10329 synthetic")
    environment_rules.check(environment.pk)
    assert standing(environment) == {}


# Two primaries: normal at the step, an incident elsewhere.


def test_two_primaries_are_normal_while_the_run_launches_and_an_incident_when_it_is_gone(night):
    night.go_to("launch-new")
    Application.objects.filter(environment=night.environment).update(mode="primary")
    environment_rules.check(night.environment.pk)
    assert "two-primaries" not in standing(night.environment)
    night.go_to("install-remaining")
    Application.objects.filter(environment=night.environment, name__startswith="confserv").update(
        mode="primary"
    )
    environment_rules.check(night.environment.pk)
    assert standing(night.environment)["two-primaries"].subject == "confserv + confserv_b"


# The read-only window.


@pytest.fixture
def read_only(environment):
    """A run whose configuration is read-only since now; its logs were followed before."""
    end = logs(environment, "confserv", "10:00:00.000 Std 24201 synthetic, before the window")
    operator = make_user("operator", environment=environment)
    run = start(environment, operator)
    RunBurden.objects.create(
        run_id=run,
        environment=environment,
        burden="exposure:read-only",
        title="Read-only",
        opened_at=timezone.now(),
    )
    return environment, run, end


def test_writes_inside_the_window_are_counted_by_server_and_kind(read_only):
    environment, run, end = read_only
    assert breaches(environment) == ()
    logs(
        environment,
        "confserv",
        "10:30:00.000 Std 24200 synthetic",
        "10:30:01.000 Std 24202 synthetic",
        "10:30:02.000 Std 24202 synthetic",
        start=end,
    )
    environment_rules.check(environment.pk)
    finding = standing(environment)["CSH-3x"]
    assert finding.subject == f"run {run}"
    assert "confserv: 1 object created; confserv: 2 objects deleted" in finding.text


def test_writes_after_the_window_are_no_breach(read_only):
    environment, _, end = read_only
    RunBurden.objects.update(closed_at=timezone.now())
    logs(environment, "confserv", "10:30:00.000 Std 24200 synthetic", start=end)
    assert breaches(environment) == ()


def test_a_log_that_was_not_followed_before_proves_no_breach(read_only):
    """Its older lines come late, so nobody can tell them from new ones."""
    environment, _, _ = read_only
    logs(environment, "confserv_b", "09:00:00.000 Std 24201 synthetic")
    assert breaches(environment) == ()


# Looking in turn.


def test_the_tick_of_the_workers_looks_at_what_is_due(environment):
    environment.applications.filter(name="confserv_b").update(version="8.5.101")
    tasks.tick()
    assert {"CS-W2", "INT-2", "INT-3"} <= set(standing(environment))
    due = Environment.objects.get(pk=environment.pk).rules_due_at
    assert due is not None
    environment.applications.filter(name="confserv_b").update(version="8.1.3")
    tasks.tick()
    assert "CS-W2" in standing(environment), "it is not due yet"
    runs.announce_environment(environment.pk)
    tasks.tick()
    assert standing(environment) == {}


def test_one_environment_in_trouble_does_not_keep_the_others_waiting(environment, monkeypatch):
    other = make_environment("Another")
    for place in (environment, other):
        place.applications.filter(name="confserv_b").update(version="8.5.101")
    real = environment_rules.check

    def fails_first(environment_id, **named):
        if environment_id == environment.pk:
            raise RuntimeError
        return real(environment_id, **named)

    monkeypatch.setattr(environment_rules, "check", fails_first)
    assert environment_rules.check_due() == 2
    assert not standing(environment)
    assert standing(other)


def test_rules_are_looked_at_again_after_the_clock_was_set_back(environment):
    assert environment_rules.check_due(now=timezone.now() + timedelta(minutes=5)) == 1
    assert environment_rules.check_due() == 1
    assert environment_rules.check_due() == 0


def test_a_change_of_findings_shows_on_open_pages(environment):
    before = Environment.objects.get(pk=environment.pk).version
    environment.applications.filter(name="confserv_b").update(version="8.5.101")
    environment_rules.check(environment.pk)
    assert Environment.objects.get(pk=environment.pk).version > before


def test_the_freeze_is_rewritten_in_place_while_its_holders_change(environment):
    environment.applications.filter(name="confserv_b").update(version="8.5.101")
    environment_rules.check(environment.pk)
    first = standing(environment)["INT-3"]
    environment.applications.filter(name="confserv").update(version="")
    environment_rules.check(environment.pk)
    environment.applications.create(
        host=environment.hosts.first(), name="proxy", type="ConfigurationServerProxy", version="8.1.3"
    )
    environment_rules.check(environment.pk)
    again = standing(environment)["INT-3"]
    assert again.pk == first.pk
    assert "proxy" in again.text


def test_looking_costs_the_same_in_a_large_environment(db, django_assert_max_num_queries):
    environment = large_environment()
    with django_assert_max_num_queries(14):
        watched(environment, timezone.now())


def test_the_worst_findings_stand_first(environment):
    environment.applications.filter(name="confserv_b").update(version="8.5.101")
    environment.hosts.update(os_name="Ubuntu", host_type="Other")
    environment_rules.check(environment.pk)
    assert [view.tone for view in standing_findings(environment)] == ["stop", "stop", "wait", "info"]


# The logs of SCS where no run needs them.


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("short_connections")
def test_what_scs_reports_is_read_though_no_run_needs_its_host(start_agent):
    environment = make_environment()
    agent = Agent.objects.get(environment=environment, host__name="fra-scs-01")
    Agent.objects.exclude(pk=agent.pk).delete()
    running = start_agent("scs", agent="fra-scs-01")
    is_at(agent, running)
    running.write("scs", "10:00:00.000 Std 10329 synthetic\n")
    with following():
        wait_for(lambda: LogLine.objects.filter(event="43-10329").exists())
    environment_rules.check(environment.pk)
    assert list(standing(environment)) == ["43-10329"]


def test_a_long_log_of_scs_is_read_from_its_end(environment):
    from upgrades.adapters.agent_client import ApplicationLogs, Logs, Process
    from upgrades.adapters.agent_replies import LogFile as Listed
    from upgrades.adapters.agent_replies import Origin

    agent = Agent.objects.get(environment=environment, host__name="fra-scs-01")
    size = scs_logs.FROM_THE_BEGINNING + 10
    listed = ApplicationLogs(Process("up", ""), (Listed("a-1", "scs.log", size, size - 4, ""),), True, ())
    brought = Logs(
        Origin("fra-scs-01", "0" * 16, timezone.now(), 0.0), {"scs": listed, "messageserver": listed}
    )
    scs_logs.begin(agent.pk, brought)
    scs_logs.begin(agent.pk, brought)
    assert list(LogFile.objects.values_list("application__name", "cursor")) == [("scs", size - 4)]
