"""Changes of an environment's policies: one person proposes, another confirms; the register tells both.

A run keeps the policies that it started with (docs/adr/0010-approvals.md); groups and deputies count from the moment
that their change is confirmed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.contrib.auth.models import AbstractUser
from django.db import transaction
from django.utils import timezone

from upgrades.adapters import register
from upgrades.domain.policy import checked_document
from upgrades.domain.refusal import NotAllowed, OutOfTurn
from upgrades.domain.run import REASON
from upgrades.domain.run_events import Actor
from upgrades.domain.wording import checked
from upgrades.models import Environment, PolicyChange, Run
from upgrades.queries.people import policy_people
from upgrades.queries.run_lines import OVER
from upgrades.services import runs
from upgrades.services.people import actor_for
from upgrades.services.runs import NoSuchRun
from upgrades.services.sign_in import Proof, proven

PROPOSED, CONFIRMED, REJECTED = "policies.proposed", "policies.confirmed", "policies.rejected"
DECIDERS = ("administrator", "approver")


def _locked(environment_id: int, by: AbstractUser) -> tuple[Environment, Actor]:
    environment = Environment.objects.select_for_update().filter(pk=environment_id, rehearsal_of=None).first()
    actor = actor_for(by, environment) if environment is not None else None
    if environment is None or actor is None or not actor.roles:
        raise NoSuchRun("There is no such environment, or you have no role in it.")
    return environment, actor


@transaction.atomic
def propose(
    *, environment_id: int, document: Mapping[str, Any], reason: str, by: AbstractUser
) -> PolicyChange:
    """Put a change before a second person. BadInput for a policy that would open for nothing, or never."""
    environment, actor = _locked(environment_id, by)
    if "administrator" not in actor.roles:
        raise NotAllowed(
            f"{actor.name} may not change policies: that takes the role administrator in {environment.name}."
        )
    reason = checked(reason, what="The reason", least=REASON)
    changed = checked_document(document, policy_people(environment))
    if changed == environment.policies:
        raise OutOfTurn("Nothing would change: this is what the policies say already.")
    if PolicyChange.objects.filter(environment=environment, status=PolicyChange.Status.OPEN).exists():
        raise OutOfTurn(
            "Another change waits for a second person. It is confirmed, rejected or withdrawn first."
        )
    change = PolicyChange.objects.create(
        environment=environment,
        before=environment.policies,
        document=changed,
        reason=reason,
        asked_by_id=actor.id,
        asked_by_name=actor.name,
        asked_at=timezone.now(),
    )
    _register(change, PROPOSED, actor)
    runs.announce_environment(environment.pk)
    return change


@transaction.atomic
def decide(
    *,
    environment_id: int,
    change_id: int,
    confirm: bool,
    comment: str,
    by: AbstractUser,
    proof: Proof | None = None,
) -> PolicyChange:
    """Confirm a change as its second person, with a fresh proof; or reject it. Who proposed it may withdraw it."""
    environment, actor = _locked(environment_id, by)
    change = PolicyChange.objects.select_for_update().filter(pk=change_id, environment=environment).first()
    if change is None:
        raise NoSuchRun("There is no such change, or you have no role in its environment.")
    if change.status != PolicyChange.Status.OPEN:
        raise OutOfTurn(f"This change was {change.status} by {change.decided_by_name} already.")
    own = change.asked_by_id == actor.id
    if confirm:
        _may_confirm(actor, own=own)
        proven(proof, by, environment)
        _apply(environment, change, actor)
        status = PolicyChange.Status.CONFIRMED
    else:
        if not own and not set(actor.roles) & set(DECIDERS):
            raise NotAllowed(f"{actor.name} may not reject it: that takes an administrator or an approver.")
        status = PolicyChange.Status.WITHDRAWN if own else PolicyChange.Status.REJECTED
    change.status = status
    change.comment = checked(comment, what="The comment", least=0 if confirm or own else REASON)
    change.decided_by_id, change.decided_by_name, change.decided_at = actor.id, actor.name, timezone.now()
    change.save()
    _register(change, CONFIRMED if confirm else REJECTED, actor)
    runs.announce_environment(environment.pk)
    open_runs = Run.objects.filter(environment_id=environment.pk).exclude(status__in=OVER)
    runs.touch(open_runs.values_list("pk", flat=True))  # groups and deputies count at once
    return change


def _may_confirm(actor: Actor, *, own: bool) -> None:
    if own:
        raise NotAllowed(
            f"{actor.name} proposed this change, so another administrator or an approver confirms it."
        )
    if not set(actor.roles) & set(DECIDERS):
        raise NotAllowed(f"{actor.name} may not confirm it: that takes an administrator or an approver.")


def _apply(environment: Environment, change: PolicyChange, actor: Actor) -> None:
    if environment.policies != change.before:
        raise OutOfTurn("The policies have changed since this was proposed. Reject it, and propose it anew.")
    checked_document(change.document, policy_people(environment))  # people may have left since
    register.acting(actor)
    environment.policies = change.document
    environment.save(update_fields=["policies"])


def _register(change: PolicyChange, kind: str, actor: Actor) -> None:
    body = {
        "change": change.pk,
        "status": str(change.status),
        "before": change.before,
        "after": change.document,
        "reason": change.reason,
        "comment": change.comment,
        "asked-by": change.asked_by_id,
    }
    register.enter(register.access_book(change.environment_id), kind, by=actor, body=body)
