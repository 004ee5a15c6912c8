"""Ten people clicking at once, again and again: right every time (D04, I4).

`RUNBOOK_TRIALS` says how many times; the nightly run takes 1000.
"""

import os
import random
from functools import partial

import pytest

from tests.factories import make_user
from tests.services.night import REASON, Night, at_once, check_every_run
from upgrades.domain import run as core
from upgrades.domain.gates import signers, valid_signatures
from upgrades.domain.policy import missing, policy_in
from upgrades.domain.refusal import NotAllowed, OutOfTurn
from upgrades.models import RunRequest
from upgrades.services import runs
from upgrades.services.people import actor_id

TRIALS = int(os.environ.get("RUNBOOK_TRIALS", "50"))
EACH_RUN = 25  # trials; then another run, for what happened before is read again at each click
EACH = {"needs": [{"role": "approver", "signatures": 1}, {"group": "database", "signatures": 1}]}


class Team:
    """Three people who are barred, three without the right, four who may: two approvers, two of the group, one of
    them in both."""

    def __init__(self, place):
        self.night = Night(policies={"point-of-no-return": EACH}, place=place)
        environment = self.night.environment
        self.barred = [self.night.operator]
        for _ in range(2):
            executor = make_user("operator", "approver", environment=environment, is_superuser=True)
            self.night.act(self.night.confirm("packages-delivered"), executor)
            self.barred.append(executor)
        self.others = [make_user(role, environment=environment) for role in ("auditor", "author", "operator")]
        self.both = make_user("approver", environment=environment)
        self.group = make_user("author", environment=environment)
        self.approvers = [self.night.approver, make_user("approver", environment=environment)]
        people = [actor_id(self.both), actor_id(self.group), *(actor_id(one) for one in self.barred)]
        environment.policies["people"] = {"groups": {"database": people}, "deputies": []}
        environment.save(update_fields=["policies"])
        self.night.go_to("stop-old")

    @property
    def entitled(self):
        return [self.both, self.group, *self.approvers]

    def signed(self):
        state, procedure = self.night.state, self.night.procedure
        step = procedure.step("stop-old")
        return valid_signatures(procedure, state, step, step.gate("approval"))


def trial(team, number, dice):
    """Everybody clicks at once; some reject, sometimes. Then something changes, and it begins anew."""
    night = team.night
    clicking = [one for one in team.entitled if dice.random() < 0.7]
    sign = night.sign()
    acts = [(person, sign) for person in (*team.barred, *team.others, *clicking)]
    rejecting = clicking[:1] if dice.random() < 0.3 else []
    reject = core.Reject(step=sign.step, visit=sign.visit, gate=sign.gate, digest=sign.digest, reason=REASON)
    acts += [(person, reject) for person in rejecting]
    dice.shuffle(acts)
    answers = at_once(*(partial(night.act, command, person) for person, command in acts))

    refused = {
        person for (person, _), answer in zip(acts, answers, strict=True) if isinstance(answer, NotAllowed)
    }
    assert refused == {*team.barred, *team.others}
    assert all(isinstance(answer, runs.Done | NotAllowed | OutOfTurn) for answer in answers)

    signed, policy = team.signed(), policy_in({"p": EACH}, "p")
    assert {item.by.id for item in signed} <= {actor_id(person) for person in clicking}
    assert len({item.by.id for item in signed}) == len(signed) <= policy.needed
    rejected = any(
        isinstance(answer, runs.Done)
        for (_, command), answer in zip(acts, answers, strict=True)
        if command is reject
    )
    enough = could_fill(team, clicking)
    met = night.verdict("stop-old", "approval").is_met
    if not rejecting:
        assert met is enough, "as many sign as are needed, whatever the order of their clicks"
    assert met is (not missing(policy, signers(signed)) and not rejected)
    assert RunRequest.objects.filter(run=night.run, kind="approval").exists() is not met
    if not met:
        with pytest.raises(core.GateClosed):
            night.act(core.Begin(step="stop-old", visit=1))
    if rejected:
        night.act(core.AskAgain(step=sign.step, visit=sign.visit, gate=sign.gate, reason=REASON))
    night.environment.targets.filter(component="SCS").update(version=f"8.5.{200 + number}")
    night.advance()
    assert team.signed() == ()


def could_fill(team, clicking):
    """Whether those who click can fill both slots: somebody of the group, and another one who is an approver."""
    group = [one for one in (team.both, team.group) if one in clicking]
    approvers = [one for one in (team.both, *team.approvers) if one in clicking]
    return any(first != second for first in group for second in approvers)


def test_of_ten_people_clicking_at_once_exactly_those_count_who_may(transactional_db):
    dice = random.Random(TRIALS)
    team = None
    for number in range(TRIALS):
        if number % EACH_RUN == 0:
            team = Team(f"Production {number}")
        trial(team, number, dice)
    check_every_run()
