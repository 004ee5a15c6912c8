"""Claims: what a run holds, who is refused, and that nothing is left behind."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from uuid import uuid4

import pytest
from django.db import IntegrityError, connections, transaction
from django.utils import timezone

from tests.factories import make_environment, make_user, start
from tests.services.night import REASON
from upgrades.domain import run as core
from upgrades.domain.refusal import OutOfTurn
from upgrades.models import Application, Claim, Run
from upgrades.services import claims, projections, runs


def held(run_id):
    open_claims = Claim.objects.filter(run=run_id, released_at=None).select_related("application", "host")
    return sorted(str(claim.application or claim.host) for claim in open_claims)


def test_a_run_holds_the_servers_that_are_bound_to_it(night):
    assert held(night.run) == ["confserv", "confserv_b"]


def test_a_second_run_is_refused_with_the_name_of_the_first(night):
    with pytest.raises(OutOfTurn, match=f"belongs to run {night.run}") as refused:
        start(night.environment, night.operator)
    assert night.row.title in refused.value.message


def test_claims_end_with_an_abort(night):
    night.act(core.Abort(reason=REASON))
    assert held(night.run) == []
    assert Claim.objects.filter(run=night.run, released_at=night.row.ended_at).count() == 2
    start(night.environment, night.operator)


def test_a_run_that_could_not_be_opened_leaves_no_claim(night, monkeypatch):
    """The worker dies between the claim and the end of the transaction."""
    night.act(core.Abort(reason=REASON))

    def crash(*_args, **_named):
        raise RuntimeError

    monkeypatch.setattr("upgrades.services.planning.attach", crash)
    with pytest.raises(RuntimeError), transaction.atomic():
        start(night.environment, night.operator)
    assert Claim.objects.filter(released_at=None).count() == 0
    assert Run.objects.count() == 1


def test_a_crash_while_a_run_ends_keeps_both_the_run_and_its_claims(night, monkeypatch):
    def crash(_environment_id):
        raise RuntimeError

    monkeypatch.setattr(runs, "announce_environment", crash)
    with pytest.raises(RuntimeError), transaction.atomic():
        night.act(core.Abort(reason=REASON))
    assert night.row.status == "running"
    assert held(night.run) == ["confserv", "confserv_b"]


def test_rebuilding_a_run_changes_no_claim(night):
    before = list(Claim.objects.values())
    projections.rebuild(night.run)
    assert list(Claim.objects.values()) == before


@pytest.mark.parametrize("what", ["application", "host"])
def test_the_database_itself_refuses_a_second_holder(night, what):
    confserv = Application.objects.get(environment=night.environment, name="confserv")
    row = {what: confserv if what == "application" else confserv.host, "run_id": night.run}
    if what == "host":
        Claim.objects.create(**row, claimed_at=timezone.now())
    with pytest.raises(IntegrityError), transaction.atomic():
        Claim.objects.create(**row, claimed_at=timezone.now())


@pytest.mark.parametrize("row", [{}, {"application": True, "host": True}])
def test_a_claim_is_of_a_server_or_of_a_host(night, row):
    scs = Application.objects.get(environment=night.environment, name="scs")
    values = {name: scs if name == "application" else scs.host for name in row}
    with pytest.raises(IntegrityError), transaction.atomic():
        Claim.objects.create(run_id=night.run, claimed_at=timezone.now(), **values)


def test_work_on_an_lca_claims_its_host_and_all_that_runs_there(db):
    environment = make_environment()
    on_host = environment.applications.get(name="scs").host
    lca = Application.objects.create(environment=environment, host=on_host, name="lca", type="LCA")
    asked = claims.wanted("LCA", [lca])
    names = set(Application.objects.filter(pk__in=asked.applications).values_list("name", flat=True))
    assert names == {"lca", "scs", "messageserver"}
    assert asked.hosts == {on_host.pk}


def test_where_the_roles_of_an_lca_run_are_servers_their_hosts_are_claimed(db):
    environment = make_environment()
    scs = environment.applications.get(name="scs")
    assert claims.wanted("LCA", [scs]).hosts == {scs.host_id}
    assert claims.wanted("SCS", [scs]).hosts == frozenset()


def test_of_two_who_claim_at_once_one_is_refused_by_name(real_night):
    """Without the lock of the environment: the database alone keeps them apart."""
    scs = Application.objects.get(environment=real_night.environment, name="scs")
    asked = claims.wanted("SCS", [scs])
    other = make_environment("Another")
    operator = make_user("operator", environment=other)
    contenders = [real_night.run, start(other, operator, command_id=uuid4())]
    together = Barrier(2)

    def take(run_id):
        together.wait(10)
        try:
            with transaction.atomic():
                claims.take(run_id, asked)
            return None
        except OutOfTurn as refused:
            return refused.message
        finally:
            connections.close_all()

    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(take, contenders))
    [refused] = [answer for answer in answers if answer is not None]
    winner = contenders[answers.index(None)]
    assert f"scs belongs to run {winner}" in refused
    assert held(winner) == ["confserv", "confserv_b", "scs"]


def test_what_a_run_that_is_over_still_holds_is_swept_up(night):
    assert claims.sweep() == 0
    Run.objects.filter(pk=night.run).update(status="aborted")
    assert claims.sweep() == 2
    Run.objects.filter(pk=night.run).update(status="running")
