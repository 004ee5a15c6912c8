"""The people and the environment of the demo. Doing it again changes nothing that is there."""

from __future__ import annotations

from django.contrib.auth.hashers import check_password
from django.contrib.auth.models import User
from django.db import transaction

from upgrades.adapters import simulator_client
from upgrades.models import Environment, Membership, Target
from upgrades.services.simulated import environment_from_world, renew_world

ENVIRONMENT = "Production · Frankfurt"
PASSWORD = "quiet-night-in-frankfurt"
PEOPLE = {
    Membership.Role.OPERATOR: ("Nina", "Adler"),
    Membership.Role.APPROVER: ("Tomas", "Lindqvist"),
    Membership.Role.AUDITOR: ("Ruth", "Okafor"),
    Membership.Role.AUTHOR: ("Imre", "Varga"),
    Membership.Role.ADMINISTRATOR: ("Sofia", "Costa"),
}
POLICIES = {
    "point-of-no-return": {"needs": [{"role": "approver", "signatures": 1}], "override": True},
    "deviation": {"role": "approver", "signatures": 1},
}
SCS_AND_LCA = "8.5.100"
TARGETS = {"ConfigurationServer": "8.5.101", "SCS": SCS_AND_LCA, "LCA": SCS_AND_LCA}


def seed() -> Environment:
    """Five people, one per role and named after it, and a simulated environment in which they have it."""
    environment = _environment()
    for role, (first, last) in PEOPLE.items():
        user = _person(role.value, first, last)
        Membership.objects.get_or_create(environment=environment, user=user, role=role)
    return environment


def open_accounts() -> list[str]:
    """The demo's people who are let in with the demo's password, which stands here for everybody to read."""
    people = User.objects.filter(username__in=[role.value for role in PEOPLE], is_active=True)
    return [user.username for user in people.order_by("username") if check_password(PASSWORD, user.password)]


def _environment() -> Environment:
    environment = Environment.objects.filter(name=ENVIRONMENT, rehearsal_of=None).first()
    if environment is None:
        return _new_environment()
    if environment.world not in simulator_client.worlds():
        renew_world(environment)  # the simulator was begun anew
    return environment


def _new_environment() -> Environment:
    world = simulator_client.create_world({"world": "frankfurt"})
    with transaction.atomic():
        environment = environment_from_world(world, name=ENVIRONMENT)
        environment.policies = POLICIES
        environment.save(update_fields=["policies"])
        environment.hosts.update(site="Frankfurt")
        Target.objects.bulk_create(
            Target(environment=environment, component=component, version=version)
            for component, version in TARGETS.items()
        )
    return environment


def _person(name: str, first: str, last: str) -> User:
    user, is_new = User.objects.get_or_create(
        username=name, defaults={"first_name": first, "last_name": last}
    )
    if is_new or not user.check_password(PASSWORD):
        user.set_password(PASSWORD)
        user.save(update_fields=["password"])
    return user
