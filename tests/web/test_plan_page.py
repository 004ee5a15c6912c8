"""The plan page, the plan of record, and the runs that attach to it."""

import re
from uuid import uuid4

import pytest
from django.urls import reverse

from tests.factories import bind, give, make_environment, make_user, publish
from tests.web.plan_scene import large_environment
from upgrades.models import PlanItem, PlanOfRecord, ProcedureVersion, Run
from upgrades.queries.plan import planned
from upgrades.services import environment_rules
from upgrades.services.planning import save_plan
from upgrades.services.starting import start_run


@pytest.fixture
def place(db):
    publish()
    return large_environment()


@pytest.fixture
def operator(place):
    return make_user("operator", environment=place, first_name="Olga")


@pytest.fixture
def page(client, operator, place):
    client.force_login(operator)
    return lambda: client.get(reverse("plan", args=[place.pk]))


def save(environment, by, **changes):
    wishes = {"digest": planned(environment).digest, "command_id": uuid4()}
    return save_plan(environment_id=environment.pk, by=by, **{**wishes, **changes})


def text(response):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", response.content.decode()))


def test_the_page_shows_each_run_with_its_reason_and_requirement(page):
    shown = text(page())
    assert "First, because LCA and Configuration Server ask for the latest one." in shown
    assert "LCA-P2 CS-P3" in shown
    for title in (
        "scs and scs_b",
        "LCA on 19 hosts in Berlin",
        "confserv and confserv_b",
        "confserv_dr and confserv_dr_b",
    ):
        assert title in shown


def test_the_number_of_queries_does_not_grow_with_the_environment(
    page, django_assert_max_num_queries, place, operator
):
    save(place, operator)
    with django_assert_max_num_queries(18):
        page()


def test_a_plan_says_which_procedure_is_not_published(page):
    ProcedureVersion.objects.filter(procedure="lca").delete()
    assert "not published" in text(page())


def test_saving_makes_it_the_plan_of_record(client, page, place, operator):
    page()
    form = {"command_id": uuid4(), "digest": planned(place).digest}
    answer = client.post(reverse("plan", args=[place.pk]), form)
    assert (answer.status_code, answer["Location"]) == (303, reverse("plan", args=[place.pk]))
    again = client.post(reverse("plan", args=[place.pk]), form)
    assert again.status_code == 303
    record = PlanOfRecord.objects.get()
    assert (record.number, record.saved_by_name, record.items.count()) == (
        1,
        "Olga",
        len(planned(place).plan.items),
    )
    assert "Nothing has changed that would change this plan." in text(page())


def test_a_plan_that_changed_since_it_was_shown_is_not_saved(client, page, place):
    page()
    digest = planned(place).digest
    place.applications.filter(name="proxy_reports").update(version="8.5.101")
    answer = client.post(reverse("plan", args=[place.pk]), {"command_id": uuid4(), "digest": digest})
    assert answer.status_code == 409
    assert "has changed since this plan was made" in text(answer)
    assert not PlanOfRecord.objects.exists()


@pytest.mark.parametrize("number", ["", "no-uuid"])
def test_a_form_without_its_number_is_refused(client, page, place, number):
    page()
    answer = client.post(
        reverse("plan", args=[place.pk]), {"command_id": number, "digest": planned(place).digest}
    )
    assert answer.status_code == 400


def test_only_an_operator_saves(client, place):
    auditor = make_user("auditor", environment=place)
    client.force_login(auditor)
    shown = client.get(reverse("plan", args=[place.pk]))
    assert "Save as the plan" not in shown.content.decode()
    answer = client.post(
        reverse("plan", args=[place.pk]), {"command_id": uuid4(), "digest": planned(place).digest}
    )
    assert answer.status_code == 403


def test_a_stranger_sees_no_plan(client, place):
    client.force_login(make_user())
    assert client.get(reverse("plan", args=[place.pk])).status_code == 404
    assert client.post(reverse("plan", args=[place.pk]), {"command_id": uuid4()}).status_code == 404


def test_what_is_done_counts_and_stays_on_the_page(page, place, operator):
    save(place, operator)
    place.applications.filter(type="SCS").update(version="8.5.100.40")
    shown = text(page())
    assert "2 of 55 upgrades done" in shown
    assert "1 · scs and scs_b" in shown
    assert "Nothing has changed that would change this plan." in shown


def test_what_has_changed_is_told_and_can_be_saved_anew(page, place, operator):
    save(place, operator)
    place.targets.filter(component="ConfigurationServerProxy").update(version="8.5.102")
    place.applications.filter(name="proxy_reports").delete()
    shown = text(page())
    assert "the target of proxy_fra is now 8.5.102, not 8.5.101" in shown
    assert "proxy_reports is not asked for any more" in shown
    assert save(place, operator) == 2
    assert list(PlanOfRecord.objects.filter(replaced_at=None).values_list("number", flat=True)) == [2]
    assert "Nothing has changed that would change this plan." in text(page())


def test_the_freeze_names_what_holds_it(page, place):
    place.applications.filter(type="ConfigurationServer").update(version="8.5.101")
    assert "Feature freeze. Enable no new feature of Configuration Server. It is held by proxy_ber" in text(
        page()
    )


def test_an_environment_without_targets_says_what_to_do(client, db):
    environment = large_environment("Empty", targets={})
    client.force_login(make_user("operator", environment=environment))
    assert "No target versions yet" in text(client.get(reverse("plan", args=[environment.pk])))


def test_an_environment_at_its_targets_has_nothing_left(client, db):
    environment = make_environment(targets={"SCS": "8.0"})
    client.force_login(make_user("operator", environment=environment))
    assert "Nothing is left to do" in text(client.get(reverse("plan", args=[environment.pk])))


def test_the_environment_leads_to_its_plan(client, page, place):
    page()
    assert (
        reverse("plan", args=[place.pk])
        in client.get(reverse("environment", args=[place.pk])).content.decode()
    )


# Runs of a plan.


@pytest.fixture
def small(db):
    publish()
    environment = make_environment(targets={"ConfigurationServer": "8.5.101", "SCS": "8.5.100"})
    environment.hosts.update(lca_version="8.5.100")
    environment.targets.create(component="LCA", version="8.5.100")
    return environment


@pytest.fixture
def starter(small):
    return make_user("operator", environment=small)


def start(environment, by, item, **changes):
    wishes = {
        "environment_id": environment.pk,
        "procedure": "config-server-ha",
        "bindings": bind(environment, new="confserv_b", old="confserv"),
        "parameters": {"target": "8.5.101", "database-upgraded": "false"},
        "confirmations": {},
        "rehearsal": False,
        "change": "",
        "by": by,
        "command_id": uuid4(),
        "plan_item": item,
    }
    return start_run(**{**wishes, **changes}).run


def test_a_run_started_from_the_plan_shows_there(client, small, starter):
    save(small, starter)
    item = PlanItem.objects.get(key="server:confserv+confserv_b")
    client.force_login(starter)
    address = f"{reverse('start-run', args=[small.pk, 'config-server-ha'])}?plan-item={item.pk}"
    assert address in client.get(reverse("plan", args=[small.pk])).content.decode()
    dialog = client.get(address).content.decode()
    assert f'name="plan_item" value="{item.pk}"' in dialog
    run = start(small, starter, item.pk)
    assert Run.objects.get(pk=run).plan_item == item
    assert f"run {run} is under way" in text(client.get(reverse("plan", args=[small.pk])))


def test_the_form_of_the_dialog_carries_the_item(client, small, starter):
    save(small, starter)
    item = PlanItem.objects.get(key="server:confserv+confserv_b")
    client.force_login(starter)
    bound = bind(small, new="confserv_b", old="confserv")
    answer = client.post(
        reverse("start-run", args=[small.pk, "config-server-ha"]),
        {
            "command_id": uuid4(),
            "plan_item": item.pk,
            "kind": "live",
            "category": "standard",
            "role-new": bound["new"],
            "role-old": bound["old"],
            "parameter-target": "8.5.101",
            "parameter-database-upgraded": "false",
        },
    )
    assert answer.status_code == 303
    assert Run.objects.get().plan_item == item


def test_a_run_of_a_plan_that_was_replaced_is_refused(small, starter):
    from upgrades.domain.refusal import OutOfTurn

    save(small, starter)
    item = PlanItem.objects.get(key="server:confserv+confserv_b")
    small.targets.filter(component="ConfigurationServer").update(version="8.5.102")
    save(small, starter)
    with pytest.raises(OutOfTurn, match="Plan 1 has been replaced"):
        start(small, starter, item.pk)
    assert not Run.objects.exists()


def test_an_item_of_another_environment_is_refused(small, starter, place):
    from upgrades.domain.refusal import BadInput

    give(starter, place, "operator")
    save(place, starter)
    foreign = PlanItem.objects.get(key="server:confserv+confserv_b")
    with pytest.raises(BadInput, match="no such item"):
        start(small, starter, foreign.pk)


def test_an_item_for_another_procedure_is_refused(small, starter):
    from upgrades.domain.refusal import BadInput

    save(small, starter)
    item = PlanItem.objects.get(key="server:confserv+confserv_b")
    PlanItem.objects.filter(pk=item.pk).update(procedure="lca")
    with pytest.raises(BadInput, match="asks for a run of lca"):
        start(small, starter, item.pk)


# What the rules say, on the page of the environment.


def test_the_environment_shows_what_its_rules_have_found(client, place, operator):
    place.applications.filter(name="confserv_b").update(version="8.5.101")
    environment_rules.check(place.pk)
    client.force_login(operator)
    shown = text(client.get(reverse("environment", args=[place.pk])))
    assert "CS-W2 The two servers of a pair run different versions" in shown
    assert "What to do: Start the run that brings the other one to the same version" in shown
