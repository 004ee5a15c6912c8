"""The members of an environment: who may give and take roles, what is refused, what stands on record, and from when it counts."""

import psycopg
import pytest
from django.db import IntegrityError, connection, transaction
from django.db.migrations.executor import MigrationExecutor
from django.utils import timezone

from tests.factories import give, make_environment, make_user, stand_in
from tests.services.night import Night, at_once
from upgrades.adapters import register
from upgrades.domain import run as core
from upgrades.domain.refusal import NotAllowed, OutOfTurn
from upgrades.models import GroupRole, Membership, RegisterEntry
from upgrades.queries.approvals import count_waiting
from upgrades.services import members

pytestmark = pytest.mark.django_db


@pytest.fixture
def place():
    environment = make_environment()
    people = {role: make_user(role, environment=environment, name=role) for role in Membership.Role.values}
    return environment, people


@pytest.fixture
def send(client, place):
    environment, people = place

    def post(who="administrator", **data):
        client.force_login(people[who])
        return client.post(f"/environments/{environment.pk}/members/", data)

    return post


def listening():
    """A connection that hears what open pages are told."""
    parameters = connection.get_connection_params()
    known = {
        name: parameters[name]
        for name in ("dbname", "user", "password", "host", "port")
        if parameters.get(name)
    }
    ear = psycopg.connect(**known, autocommit=True)
    ear.execute("LISTEN runbook")
    return ear


def roles(user, environment):
    return set(user.memberships.filter(environment=environment).values_list("role", flat=True))


def entries(environment):
    rows = RegisterEntry.objects.filter(book=register.access_book(environment.pk)).order_by("number")
    return [register.read(row) for row in rows]


def test_an_administrator_gives_a_role_and_the_register_names_both(send, place):
    environment, people = place
    newcomer = make_user(name="nina")

    answer = send(do="give", username="  NINA ", role="operator")

    assert answer.status_code == 303
    assert roles(newcomer, environment) == {"operator"}
    last = entries(environment)[-1]
    assert (last.kind, last.body["username"], last.body["role"]) == ("role.given", "nina", "operator")
    assert last.by.id == f"user:{people['administrator'].pk}"


@pytest.mark.django_db(transaction=True)
def test_what_is_taken_is_gone_at_the_next_click_and_told_to_open_pages(client, send, place):
    environment, people = place
    row = people["operator"].memberships.get()
    with listening() as ear:
        send(do="take", row=row.pk)
        heard = [notice.payload for notice in ear.notifies(timeout=5, stop_after=1)]
    assert heard == [f"user:{people['operator'].pk}:0"]

    assert entries(environment)[-1].kind == "role.taken"
    client.force_login(people["operator"])
    assert client.get(f"/environments/{environment.pk}/").status_code == 404


@pytest.mark.parametrize("who", ["operator", "approver", "author", "auditor"])
def test_others_look_and_change_nothing(client, send, place, who):
    environment, people = place
    make_user(name="nina")
    assert send(who, do="give", username="nina", role="operator").status_code == 403
    assert send(who, do="take", row=people["operator"].memberships.get().pk).status_code == 403
    page = client.get(f"/environments/{environment.pk}/members/").text
    assert "Give the role" not in page
    assert "approver" in page


@pytest.mark.parametrize(
    ("data", "status", "told"),
    [
        ({"do": "give", "username": "nobody", "role": "operator"}, 400, "Nobody here signs in as"),
        ({"do": "give", "username": "operator", "role": "king"}, 400, "Nothing was changed"),
        ({"do": "give", "username": "operator", "role": "operator"}, 409, "has the role operator already"),
        ({"do": "give", "username": "auditor", "role": "operator"}, 409, "holds no other role"),
        ({"do": "give", "username": "operator", "role": "auditor"}, 409, "holds no other role"),
        (
            {"do": "give", "username": "administrator", "role": "approver"},
            403,
            "Nobody gives a role to themselves",
        ),
        ({"do": "take", "row": "999999"}, 409, "not held any more"),
        ({"do": "take", "row": "١"}, 400, "not complete any more"),
        ({"do": "seize"}, 400, "not complete any more"),
        ({"do": "give", "username": ["operator", "nina"], "role": "operator"}, 400, "more than once"),
    ],
)
def test_what_does_not_fit_is_refused_and_said(send, data, status, told):
    before = Membership.objects.count()
    answer = send(**data)
    assert (answer.status_code, Membership.objects.count()) == (status, before)
    assert told in answer.text


def test_the_last_administrator_stays(send, place):
    _, people = place
    answer = send(do="take", row=people["administrator"].memberships.get().pk)
    assert answer.status_code == 409
    assert "last administrator" in answer.text


def test_the_database_itself_keeps_an_auditor_from_another_role(place):
    environment, people = place
    for user, role in ((people["auditor"], "operator"), (people["operator"], "auditor")):
        with pytest.raises(IntegrityError, match="an auditor holds no other role"), transaction.atomic():
            give(user, environment, role)


@pytest.mark.django_db(transaction=True)
def test_two_roles_given_at_the_same_moment_do_not_make_an_auditor_with_another(place):
    environment, _ = place
    both = make_user()
    outcomes = at_once(
        lambda: give(both, environment, "auditor"), lambda: give(both, environment, "operator")
    )
    assert sum(isinstance(outcome, IntegrityError) for outcome in outcomes) == 1
    assert len(roles(both, environment)) == 1


# Roles that come while a run is under way.


@pytest.fixture
def night():
    return Night().go_to("stop-old")


def late_approver(night):
    late = make_user()
    given = night.environment.memberships.create(user=late, role="approver", given_by="user:1")
    return late, given


def test_a_right_to_sign_does_not_count_in_a_run_that_was_under_way(night):
    late, _ = late_approver(night)
    with pytest.raises(NotAllowed, match="after this run had started"):
        night.act(night.sign(), late)
    assert night.kinds[-1] == "attempt.refused"


def test_nor_does_it_by_a_deputy(night):
    late, given = late_approver(night)
    deputy = make_user("author", environment=night.environment)
    stand_in(night.environment, deputy, late)
    with pytest.raises(NotAllowed, match=f"came to {late.username} after this run had started"):
        night.act(night.sign(), deputy)
    assert night.kinds[-1] == "attempt.refused"

    second = make_user("administrator", environment=night.environment)
    members.confirm_role(environment_id=night.environment.pk, membership_id=given.pk, by=second)
    night.act(night.sign(), deputy)
    assert night.history[-1].event.for_id == f"user:{late.pk}"


def test_a_signature_under_another_right_fills_no_place_of_a_late_role():
    both = {"needs": [{"role": "approver", "signatures": 1}, {"group": "database", "signatures": 1}]}
    night = Night(policies={"point-of-no-return": both}).go_to("stop-old")
    late, expert = (make_user("author", environment=night.environment) for _ in range(2))
    groups = {"database": [f"user:{late.pk}", f"user:{expert.pk}"]}
    night.environment.policies |= {"people": {"groups": groups, "deputies": []}}
    night.environment.save(update_fields=["policies"])
    give(late, night.environment, "approver", given_at=timezone.now())

    night.act(night.sign(), late)
    assert "approver" not in night.history[-1].by.roles
    with pytest.raises(OutOfTurn, match="still needs 1 of the role approver"):
        night.act(night.sign(), expert)
    assert not night.verdict("stop-old", "approval").is_met


def test_what_a_late_role_does_not_sign_is_offered_to_nobody(night, client):
    late, given = late_approver(night)
    deputy = make_user("author", environment=night.environment)
    stand_in(night.environment, deputy, late)
    page = f"/approvals/{night.run}/stop-old/approval/"
    for person in (late, deputy):
        client.force_login(person)
        assert count_waiting(person) == 0
        assert "after this run had started" in client.get("/approvals/").text
        answer = client.get(page).text
        assert 'value="sign"' not in answer
        assert "after this run had started" in answer
    client.force_login(night.approver)
    board = f"/runs/{night.run}/board/"
    assert late.username not in client.get(page).text
    client.force_login(late)
    known = client.get(board)["ETag"]

    second = make_user("administrator", environment=night.environment)
    members.confirm_role(environment_id=night.environment.pk, membership_id=given.pk, by=second)
    assert client.get(board, headers={"If-None-Match": known}).status_code == 200
    for person in (late, deputy):
        client.force_login(person)
        assert count_waiting(person) == 1
        assert 'value="sign"' in client.get(page).text


def test_it_counts_once_a_second_administrator_has_confirmed_it(night):
    late, given = late_approver(night)
    second = make_user("administrator", environment=night.environment)
    members.confirm_role(environment_id=night.environment.pk, membership_id=given.pk, by=second)
    night.act(night.sign(), late)
    assert night.kinds[-1] == "approval.signed"
    assert entries(night.environment)[-1].kind == "role.confirmed"


def test_neither_its_giver_nor_its_holder_confirms_a_role(night):
    giver = make_user("administrator", environment=night.environment)
    late = make_user("administrator", environment=night.environment)
    given = night.environment.memberships.create(user=late, role="approver", given_by=f"user:{giver.pk}")
    for person in (giver, late):
        with pytest.raises(NotAllowed, match="Another administrator confirms"):
            members.confirm_role(environment_id=night.environment.pk, membership_id=given.pk, by=person)


def test_whoever_comes_as_an_operator_takes_part_at_once(night):
    late = make_user()
    night.environment.memberships.create(user=late, role="operator", given_by="user:1")
    night.act(night.sign(), night.approver)
    night.act(core.Begin(step="stop-old", visit=1), late)
    assert "step.begun" in night.kinds
    assert night.history[-1].by.id == f"user:{late.pk}"


# Groups of the provider.


def test_groups_become_roles_only_through_the_table_and_leave_with_the_group(send, place):
    environment, _ = place
    send(do="give-group", group="change-team", role="operator")
    person = make_user()

    members.follow_groups(person, ["change-team", "administrators"])
    assert roles(person, environment) == {"operator"}
    assert entries(environment)[-1].by.id == "system:provider"

    members.follow_groups(person, [])
    assert roles(person, environment) == set()


def test_a_role_given_by_hand_stays_whatever_the_groups_are(place):
    environment, people = place
    GroupRole.objects.create(environment=environment, group="change-team", role="operator")
    members.follow_groups(people["operator"], [])
    assert roles(people["operator"], environment) == {"operator"}


def test_no_group_makes_an_auditor_of_somebody_with_another_role(place):
    environment, people = place
    GroupRole.objects.create(environment=environment, group="audit", role="auditor")
    members.follow_groups(people["operator"], ["audit"])
    assert roles(people["operator"], environment) == {"operator"}


def test_a_group_that_loses_its_role_takes_it_from_its_members_now(send, place):
    environment, _ = place
    rule = GroupRole.objects.create(environment=environment, group="change-team", role="operator")
    person = make_user()
    members.follow_groups(person, ["change-team"])
    send(do="take-group", row=rule.pk)
    assert roles(person, environment) == set()


def by_group(environment, giver, *groups, role="approver"):
    for group in groups:
        members.give_group(environment_id=environment.pk, group=group, role=role, by=giver)


def test_whoever_gave_the_group_its_role_does_not_confirm_it(night, client):
    anna, berta = (make_user("administrator", environment=night.environment) for _ in range(2))
    by_group(night.environment, anna, "staff")
    late = make_user()
    members.follow_groups(late, ["staff"])
    given = late.memberships.get()
    confirm = {"environment_id": night.environment.pk, "membership_id": given.pk}
    with pytest.raises(NotAllowed, match="Another administrator confirms"):
        members.confirm_role(**confirm, by=anna)
    for person, offered in ((anna, 0), (berta, 1)):
        client.force_login(person)
        page = client.get(f"/environments/{night.environment.pk}/members/").text
        assert page.count('value="confirm"') == offered
    members.confirm_role(**confirm, by=berta)
    night.act(night.sign(), late)
    assert night.kinds[-1] == "approval.signed"


def test_nobody_gives_a_role_to_themselves_by_a_group(place):
    environment, people = place
    anna, berta = people["administrator"], make_user("administrator", environment=environment)
    by_group(environment, anna, "staff")
    members.follow_groups(anna, ["staff"])
    assert roles(anna, environment) == {"administrator"}

    by_group(environment, berta, "team")
    members.follow_groups(anna, ["staff", "team"])
    assert roles(anna, environment) == {"administrator", "approver"}
    assert anna.memberships.get(role="approver").group == "team"
    members.follow_groups(anna, ["staff"])
    assert roles(anna, environment) == {"administrator"}


def test_a_role_by_another_group_is_another_gift(night):
    """The second administrator confirmed what the first one gave, not what the second one gave."""
    anna, berta = (make_user("administrator", environment=night.environment) for _ in range(2))
    by_group(night.environment, anna, "staff")
    by_group(night.environment, berta, "team")
    late = make_user()
    members.follow_groups(late, ["staff", "team"])
    given = late.memberships.get()
    assert (given.group, given.given_by) == ("staff", f"user:{anna.pk}")
    members.confirm_role(environment_id=night.environment.pk, membership_id=given.pk, by=berta)
    members.follow_groups(late, ["team", "staff"])
    assert late.memberships.get().confirmed_by == f"user:{berta.pk}"

    members.follow_groups(late, ["team"])
    given = late.memberships.get()
    assert (given.group, given.given_by, given.confirmed_by) == ("team", f"user:{berta.pk}", "")
    with pytest.raises(NotAllowed, match="after this run had started"):
        night.act(night.sign(), late)


def test_what_nobody_knows_the_giver_of_is_confirmed_by_nobody(place):
    environment, people = place
    GroupRole.objects.create(environment=environment, group="staff", role="approver")
    late = make_user()
    members.follow_groups(late, ["staff"])
    row = {"environment_id": environment.pk, "membership_id": late.memberships.get().pk}
    with pytest.raises(OutOfTurn, match="not known who gave"):
        members.confirm_role(**row, by=people["administrator"])


def test_the_upgrade_finds_who_gave_a_group_its_role(transactional_db):
    environment = make_environment()
    anna, berta = (make_user("administrator", environment=environment) for _ in range(2))
    by_group(environment, anna, "staff")
    GroupRole.objects.create(environment=environment, group="shell", role="operator")
    alike, sound, unsure = (make_user() for _ in range(3))
    for person, group in ((alike, "staff"), (sound, "staff"), (unsure, "shell")):
        members.follow_groups(person, [group])
    before = {person: person.memberships.get().given_at for person in (alike, sound, unsure)}
    executor = MigrationExecutor(connection)
    newest = executor.loader.graph.leaf_nodes("upgrades")
    executor.migrate([("upgrades", "0016_one_index_of_events")])
    try:
        assert set(Membership.objects.exclude(group="").values_list("given_by", flat=True)) == {
            "system:provider"
        }
        for person, by in ((alike, anna), (sound, berta), (unsure, berta)):
            person.memberships.update(confirmed_by=f"user:{by.pk}")
        known = len(entries(environment))
    finally:
        MigrationExecutor(connection).migrate(newest)

    assert dict(GroupRole.objects.values_list("group", "given_by")) == {
        "staff": f"user:{anna.pk}",
        "shell": "",
    }
    assert {person: person.memberships.get().given_at for person in before} == before
    found = [person.memberships.get() for person in (alike, sound, unsure)]
    assert [row.given_by for row in found] == [f"user:{anna.pk}", f"user:{anna.pk}", ""]
    assert [row.confirmed_by for row in found] == ["", f"user:{berta.pk}", ""]
    told = [(entry.kind, entry.body["user"], entry.by.id) for entry in entries(environment)[known:]]
    anew = [f"user:{person.pk}" for person in (alike, unsure)]
    assert sorted(told) == sorted(
        (kind, who, "system") for kind in ("role.given", "role.taken") for who in anew
    )
