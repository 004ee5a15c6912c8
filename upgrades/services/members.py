"""Who has which role in an environment: given, confirmed and taken by its administrators, or by groups of the provider.

The database puts each change on the register (book `access/<environment>`), whoever makes it. What is taken acts at the
next request, and open pages are told at once. A role given while a run is under way signs nothing in that run until a
second administrator has confirmed it (trust.md 10.1). Whoever gives a group its role gives it to each of its members.
"""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Iterable

from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractUser
from django.db import transaction

from upgrades.adapters import register
from upgrades.domain.refusal import BadInput, NotAllowed, OutOfTurn
from upgrades.domain.run_events import Actor
from upgrades.models import Environment, GroupRole, Membership
from upgrades.services.people import actor_for, actor_id
from upgrades.services.runs import NoSuchRun
from upgrades.services.sign_in import announce_person

logger = logging.getLogger(__name__)

ADMINISTRATOR = Membership.Role.ADMINISTRATOR.value
AUDITOR = Membership.Role.AUDITOR.value
PROVIDER = Actor(id="system:provider", name="Groups of the sign-in provider", kind="system")


def one_spelling(name: str) -> str:
    """The form in which names of people are looked up, in any case: “Ｎｉｎａ ” is “Nina”, and finds “nina”."""
    return unicodedata.normalize("NFKC", name).strip()


@transaction.atomic
def give_role(*, environment_id: int, username: str, role: str, by: AbstractUser) -> Membership:
    """Give the person of that name a role. Nobody gives one to themselves."""
    environment = _administered(environment_id, by)
    if role not in Membership.Role.values:
        raise BadInput("This is no role. Choose one of the list.", "role")
    person = get_user_model().objects.filter(username__iexact=one_spelling(username), is_active=True).first()
    if person is None:
        raise BadInput(
            f"Nobody here signs in as “{username.strip()[:150]}”. Whoever runs Runbook makes accounts; people of the "
            "organisation's provider are known once they have signed in.",
            "username",
        )
    if person.pk == by.pk:
        raise NotAllowed("Nobody gives a role to themselves. Another administrator of the environment can.")
    _fits(environment, person, role)
    return Membership.objects.create(
        environment=environment, user_id=person.pk, role=role, given_by=actor_id(by)
    )


def _fits(environment: Environment, person: AbstractUser, role: str) -> None:
    held = set(
        Membership.objects.filter(environment=environment, user_id=person.pk).values_list("role", flat=True)
    )
    name = person.get_full_name() or person.get_username()
    if role in held:
        raise OutOfTurn(f"{name} has the role {role} already.")
    if held and (role == AUDITOR or AUDITOR in held):
        raise OutOfTurn(
            f"An auditor holds no other role in the same environment, and {name} is {', '.join(sorted(held))}. "
            "Take that first."
        )


@transaction.atomic
def take_role(*, environment_id: int, membership_id: int, by: AbstractUser) -> None:
    """Take a role away. It acts at the person's next request; the last administrator keeps theirs."""
    environment = _administered(environment_id, by)
    membership = _membership(environment, membership_id)
    if membership.group:
        raise OutOfTurn(
            f"This role follows from the group {membership.group}. Take the group's role below, or have the person "
            "leave the group."
        )
    if membership.role == ADMINISTRATOR and not _other_administrators(environment, membership):
        raise OutOfTurn("This is the last administrator of the environment. Make another person one first.")
    membership.delete()
    announce_person(membership.user_id)


def _other_administrators(environment: Environment, but: Membership) -> bool:
    rows = Membership.objects.filter(environment=environment, role=ADMINISTRATOR, user__is_active=True)
    return rows.exclude(pk=but.pk).exists()


@transaction.atomic
def confirm_role(*, environment_id: int, membership_id: int, by: AbstractUser) -> None:
    """A second administrator confirms a role, so that it signs in runs under way too."""
    environment = _administered(environment_id, by)
    membership = _membership(environment, membership_id)
    if membership.confirmed_by:
        raise OutOfTurn("This role is confirmed already.")
    if not membership.given_by:
        raise OutOfTurn(
            "It is not known who gave this role, so nobody can confirm it as a second person. Take it, from the group if "
            "it came by one, and give it again."
        )
    if actor_id(by) in (membership.given_by, actor_id(membership.user)):
        raise NotAllowed(
            "Another administrator confirms a role: neither whoever gave it, to the person or to the group, nor the "
            "person who has it."
        )
    membership.confirmed_by = actor_id(by)
    membership.save(update_fields=["confirmed_by"])


def _membership(environment: Environment, membership_id: int) -> Membership:
    found = (
        Membership.objects.select_related("user").filter(environment=environment, pk=membership_id).first()
    )
    if found is None:
        raise OutOfTurn("This role is not held any more. Load the page again.")
    return found


def _administered(environment_id: int, by: AbstractUser) -> Environment:
    """The environment, under its lock; only its administrators get it. Entries of the register name `by`."""
    environment = Environment.objects.select_for_update().filter(pk=environment_id, rehearsal_of=None).first()
    actor = actor_for(by, environment) if environment is not None else None
    if environment is None or actor is None or not actor.roles:
        raise NoSuchRun("There is no such environment, or you have no role in it.")
    if ADMINISTRATOR not in actor.roles:
        raise NotAllowed(f"Roles in {environment.name} are given and taken by its administrators.")
    register.acting(actor)
    return environment


# Groups of the provider.


@transaction.atomic
def give_group(*, environment_id: int, group: str, role: str, by: AbstractUser) -> None:
    """From now on members of the provider's group have the role; it reaches each but `by` at their next sign-in."""
    environment = _administered(environment_id, by)
    group = unicodedata.normalize("NFKC", group).strip()
    if not group or len(group) > 200 or not group.isprintable():
        raise BadInput("Write the group's name as the provider sends it, 200 characters at most.", "group")
    if role not in Membership.Role.values:
        raise BadInput("This is no role. Choose one of the list.", "role")
    _, is_new = GroupRole.objects.get_or_create(
        environment=environment, group=group, role=role, defaults={"given_by": actor_id(by)}
    )
    if not is_new:
        raise OutOfTurn(f"The group {group} has the role {role} already.")


@transaction.atomic
def take_group(*, environment_id: int, group_role_id: int, by: AbstractUser) -> None:
    """The group stands for the role no longer; those who had it by the group lose it now."""
    environment = _administered(environment_id, by)
    rule = GroupRole.objects.filter(environment=environment, pk=group_role_id).first()
    if rule is None:
        raise OutOfTurn("This group has no such role any more. Load the page again.")
    following = Membership.objects.filter(environment=environment, group=rule.group, role=rule.role)
    for person in following.values_list("user_id", flat=True):
        announce_person(person)
    following.delete()
    rule.delete()


@transaction.atomic
def follow_groups(person: AbstractUser, groups: Iterable[str]) -> None:
    """Bring the roles that the person has by groups in line with the groups that the provider told just now.

    Roles that people gave stay as they are. An auditor gets no other role by a group, nor does a group make anybody with
    another role an auditor: where both would hold, the later one is left out. Nobody gets by a group what they gave to it
    themselves. Where another group is the reason for a role from now on, it goes and comes anew, unconfirmed.
    """
    giving = _rules_for(person, groups)
    register.acting(PROVIDER)
    changed = False
    for membership in Membership.objects.filter(user_id=person.pk).exclude(group=""):
        rules = giving.get((membership.environment_id, membership.role), ())
        if (membership.group, membership.given_by) not in [(rule.group, rule.given_by) for rule in rules]:
            membership.delete()
            changed = True
    for (environment_id, role), (rule, *_) in giving.items():
        held = set(
            Membership.objects.filter(environment_id=environment_id, user_id=person.pk).values_list(
                "role", flat=True
            )
        )
        if role in held or (held and (role == AUDITOR or AUDITOR in held)):
            continue
        Membership.objects.create(
            environment_id=environment_id,
            user_id=person.pk,
            role=role,
            group=rule.group,
            given_by=rule.given_by,
        )
    if changed:
        announce_person(person.pk)


def _rules_for(person: AbstractUser, groups: Iterable[str]) -> dict[tuple[int, str], list[GroupRole]]:
    """What gives the person a role by one of `groups`, by environment and role; nothing that they gave themselves."""
    names = {unicodedata.normalize("NFKC", group).strip() for group in groups}
    found: dict[tuple[int, str], list[GroupRole]] = {}
    for rule in GroupRole.objects.filter(group__in=names).order_by("environment_id", "role", "group"):
        if rule.given_by == actor_id(person):
            logger.info(
                "user %s does not get the role %s in environment %s by the group %s, for they gave it to the group",
                person.pk,
                rule.role,
                rule.environment_id,
                rule.group,
            )
            continue
        found.setdefault((rule.environment_id, rule.role), []).append(rule)
    return found
