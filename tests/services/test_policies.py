"""Changes of policies take a second person and stand in the register; runs keep what they began with."""

import pytest

from tests.factories import POLICIES, give, make_environment, make_user, proof_of
from tests.services.night import REASON, Night, at_once, check_every_run
from upgrades.adapters import register
from upgrades.domain.policy import policy_in
from upgrades.domain.refusal import BadInput, NotAllowed, OutOfTurn
from upgrades.models import PolicyChange, RegisterEntry
from upgrades.services import policies
from upgrades.services.runs import NoSuchRun
from upgrades.services.sign_in import ProofNeeded

TWO = POLICIES | {"point-of-no-return": {"needs": [{"role": "approver", "signatures": 2}]}}

pytestmark = pytest.mark.django_db


class Place:
    def __init__(self):
        self.environment = make_environment()
        self.administrator = make_user("administrator", environment=self.environment)
        self.second = make_user("administrator", environment=self.environment)
        self.operator = make_user("operator", environment=self.environment)
        self.approvers = [make_user("approver", environment=self.environment) for _ in range(2)]

    def propose(self, document=TWO, by=None, reason=REASON):
        return policies.propose(
            environment_id=self.environment.pk, document=document, reason=reason, by=by or self.administrator
        )

    def decide(self, change, by, confirm=True, comment="", proof=True):
        return policies.decide(
            environment_id=self.environment.pk,
            change_id=change.pk,
            confirm=confirm,
            comment=comment,
            by=by,
            proof=proof_of(by) if proof else None,
        )

    @property
    def now(self):
        self.environment.refresh_from_db()
        return self.environment.policies

    @property
    def book(self):
        rows = RegisterEntry.objects.filter(book=register.access_book(self.environment.pk)).order_by("number")
        return [register.read(row) for row in rows if row.kind.startswith("policies.")]


@pytest.fixture
def place():
    return Place()


def test_a_change_counts_once_a_second_person_confirms_it(place):
    change = place.propose()
    assert policy_in(place.now, "point-of-no-return").needed == 1
    place.decide(change, place.second)
    assert policy_in(place.now, "point-of-no-return").needed == 2
    kinds = [entry.kind for entry in place.book][-3:]
    assert kinds == ["policies.proposed", "policies.changed", "policies.confirmed"]
    assert place.book[-2].by.id == f"user:{place.second.pk}"
    assert place.book[-1].body["asked-by"] == f"user:{place.administrator.pk}"


def test_an_approver_may_be_the_second_person(place):
    place.decide(place.propose(), place.approvers[0])
    assert policy_in(place.now, "point-of-no-return").needed == 2


def test_nobody_confirms_the_own_proposal_superuser_or_not(place):
    place.administrator.is_superuser = True
    place.administrator.save()
    give(place.administrator, place.environment, "approver")
    change = place.propose()
    with pytest.raises(NotAllowed, match="proposed this change"):
        place.decide(change, place.administrator)
    assert place.now == POLICIES


@pytest.mark.parametrize("role", ["operator", "auditor", "author"])
def test_who_neither_administers_nor_approves_decides_nothing(place, role):
    someone = make_user(role, environment=place.environment, is_superuser=True)
    change = place.propose()
    for confirm in (True, False):
        with pytest.raises(NotAllowed):
            place.decide(change, someone, confirm=confirm, comment=REASON)
    with pytest.raises(NotAllowed, match="role administrator"):
        place.propose(by=someone)


def test_a_stranger_finds_no_environment(place):
    with pytest.raises(NoSuchRun):
        place.propose(by=make_user("administrator", environment=make_environment("Elsewhere")))


def test_a_confirmation_needs_a_fresh_proof(place):
    change = place.propose()
    with pytest.raises(ProofNeeded):
        place.decide(change, place.second, proof=False)
    assert place.now == POLICIES


def test_whoever_proposed_may_withdraw_and_a_second_person_may_reject(place):
    change = place.decide(place.propose(), place.administrator, confirm=False)
    assert change.status == "withdrawn"
    with pytest.raises(BadInput, match="at least 20"):
        place.decide(place.propose(), place.second, confirm=False, comment="no")
    assert (
        place.decide(PolicyChange.objects.get(status="open"), place.second, False, REASON).status
        == "rejected"
    )
    assert place.now == POLICIES


def test_one_change_at_a_time_and_no_change_is_none(place):
    place.decide(place.propose(), place.second)
    with pytest.raises(OutOfTurn, match="Nothing would change"):
        place.propose(TWO)
    place.propose(POLICIES)
    with pytest.raises(OutOfTurn, match="Another change waits"):
        place.propose({})


def test_a_policy_that_nobody_could_fill_is_refused_also_when_people_left_since(place):
    with pytest.raises(BadInput, match="can never be filled"):
        place.propose({"start": {"needs": [{"role": "approver", "signatures": 3}]}})
    change = place.propose()
    place.environment.memberships.filter(user=place.approvers[0]).delete()
    with pytest.raises(BadInput, match="can never be filled"):
        place.decide(change, place.second)
    assert place.now == POLICIES


def test_a_change_is_not_confirmed_over_another_one(place):
    change = place.propose()
    place.environment.policies = {}
    place.environment.save(update_fields=["policies"])
    with pytest.raises(OutOfTurn, match="have changed since"):
        place.decide(change, place.second)


def test_ten_people_deciding_one_change_at_once_decide_it_once(transactional_db):
    place = Place()
    people = [make_user("administrator", environment=place.environment) for _ in range(5)]
    change = place.propose()
    answers = at_once(
        *(lambda by=by: place.decide(change, by) for by in people),
        *(lambda by=by: place.decide(change, by, False, REASON) for by in people),
    )
    assert sum(isinstance(answer, PolicyChange) for answer in answers) == 1
    assert sum(isinstance(answer, OutOfTurn) for answer in answers) == 9
    kinds = [entry.kind for entry in place.book]
    assert kinds.count("policies.confirmed") + kinds.count("policies.rejected") == 1


def test_a_run_keeps_the_policies_that_it_started_with():
    night = Night()
    administrators = [make_user("administrator", environment=night.environment) for _ in range(2)]
    make_user("approver", environment=night.environment)
    change = policies.propose(
        environment_id=night.environment.pk, document=TWO, reason=REASON, by=administrators[0]
    )
    policies.decide(
        environment_id=night.environment.pk,
        change_id=change.pk,
        confirm=True,
        comment="",
        by=administrators[1],
        proof=proof_of(administrators[1]),
    )
    night.go_to("stop-old")
    night.act(night.sign(), night.approver)
    assert night.verdict("stop-old", "approval").is_met
    check_every_run()
