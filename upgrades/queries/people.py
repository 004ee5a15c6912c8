"""People with their rights in an environment: roles, groups, and whose deputies they are at a moment."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractUser
from django.db.models.functions import Lower

from upgrades.domain.frozen import replace
from upgrades.domain.policy import People, Person, people_in
from upgrades.domain.run_events import Actor
from upgrades.models import Environment, Membership


def actor_id(user: AbstractUser) -> str:
    return f"user:{user.pk}"


def ids_of(accounts: Iterable[str]) -> frozenset[str]:
    """The ids of the people with these account names, large or small letters alike. One query, none for no names."""
    names = {name.casefold() for name in accounts}
    if not names:
        return frozenset()
    users = get_user_model().objects.annotate(folded=Lower("username")).filter(folded__in=names)
    return frozenset(actor_id(user) for user in users.only("pk"))


def through(user: AbstractUser, token: str) -> None:
    """From here on this person acts through the API token of that id: whatever they do in this request says so."""
    user.acts_through = token  # type: ignore[attr-defined]


def token_of(user: AbstractUser) -> str:
    """The id of the API token through which the person acts in this request; empty on the pages."""
    return str(getattr(user, "acts_through", ""))


def name_of(user: AbstractUser) -> str:
    return user.get_full_name() or user.get_username()


def original_of(environment: Environment) -> Environment:
    """The environment whose people these are: a copy for rehearsals has those of its original."""
    return environment.rehearsal_of or environment


def signing_people(environment: Environment) -> People:
    """The groups and deputies that hold now. What policies ask for is another matter: a run keeps what it began with."""
    return people_in(original_of(environment).policies)


class Held(NamedTuple):
    """A role as somebody has it. Until it is confirmed, it signs nothing in runs that started before it was given."""

    role: str
    given_at: datetime
    is_confirmed: bool


def held_by(row: Membership) -> Held:
    return Held(row.role, row.given_at, bool(row.confirmed_by))


def actor_with(user: AbstractUser, roles: Iterable[Held], environment: Environment, at: datetime) -> Actor:
    """The person with `roles`, the groups of the environment, and those whom this person stands in for at that time."""
    people, person = signing_people(environment), actor_id(user)
    return replace(
        _actor(person, name_of(user), roles, people),
        stands_for=_stood_in_for(people.stood_in_for(person, at), environment, people),
        token=token_of(user),
    )


def _actor(person: str, name: str, roles: Iterable[Held], people: People) -> Actor:
    mine = sorted(roles)
    groups = people.groups_of(person) if mine else ()  # a name that stayed in a group gives nothing by itself
    return Actor(
        id=person,
        name=name,
        roles=(*(one.role for one in mine), *groups),
        unconfirmed=tuple((one.role, one.given_at) for one in mine if not one.is_confirmed),
    )


def _stood_in_for(ids: Iterable[str], environment: Environment, people: People) -> tuple[Actor, ...]:
    wanted = set(ids)
    if not wanted:
        return ()
    return tuple(person for person in members(environment, people) if person.id in wanted)


def members(environment: Environment, people: People | None = None) -> tuple[Actor, ...]:
    """Everybody with an open account and a role, by name, each with roles and groups. One query."""
    if people is None:
        people = signing_people(environment)
    rows = (
        Membership.objects.filter(environment=original_of(environment), user__is_active=True)
        .select_related("user")
        .order_by("role")
    )
    roles: dict[str, list[Held]] = {}
    names: dict[str, str] = {}
    for row in rows:
        person = actor_id(row.user)
        names[person] = name_of(row.user)
        roles.setdefault(person, []).append(held_by(row))
    found = [_actor(person, names[person], mine, people) for person, mine in roles.items()]
    return tuple(sorted(found, key=lambda actor: (actor.name, actor.id)))


def policy_people(environment: Environment) -> list[Person]:
    """The same people as a policy sees them."""
    return [
        Person(actor.id, actor.name, frozenset(role for role in actor.roles if not role.startswith("group:")))
        for actor in members(environment, People())
    ]
