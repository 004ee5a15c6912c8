"""Builders for tests: environments, people and runs, brought to their states by the real services."""

import time
from datetime import timedelta
from itertools import count
from uuid import uuid4

from allauth.account.authentication import AUTHENTICATION_METHODS_SESSION_KEY
from allauth.account.internal.userkit import user_id_to_str
from django.contrib.auth import get_user_model
from django.utils import timezone

from upgrades.models import Agent, Membership, ProcedureVersion, Target
from upgrades.services.procedures import publish_all
from upgrades.services.sign_in import Proof
from upgrades.services.simulated import environment_from_world

POLICIES = {
    "point-of-no-return": {"role": "approver", "signatures": 1},
    "deviation": {"role": "approver", "signatures": 1},
}
TARGETS = {"ConfigurationServer": "8.5.101", "SCS": "8.5.100", "LCA": "8.5.100"}

_numbers = count(1)


def make_user(*roles, environment=None, name=None, password=None, **fields):
    """A person; with `environment`, with `roles` there. Signing in by password needs `password` (hashing is slow)."""
    name = name or f"{'-'.join(roles) or 'person'}-{next(_numbers)}"
    user = get_user_model()(username=name, **fields)
    if password is None:
        user.set_unusable_password()
    else:
        user.set_password(password)
    user.save()
    give(user, environment, *roles)
    return user


def give(user, environment, *roles, given_at=None):
    """Give `roles` in `environment` to `user`, long before any run unless `given_at` says otherwise."""
    given_at = given_at or timezone.now() - timedelta(days=30)
    Membership.objects.bulk_create(
        Membership(environment=environment, user=user, role=role, given_at=given_at) for role in roles
    )


def stand_in(environment, deputy, absent):
    """Make `deputy` the deputy of `absent` from yesterday to tomorrow."""
    environment.refresh_from_db(fields=["policies"])
    people = environment.policies.get("people", {"groups": {}, "deputies": []})
    now, day = timezone.now(), timedelta(days=1)
    row = {"person": f"user:{absent.pk}", "deputy": f"user:{deputy.pk}"}
    row |= {"from": (now - day).isoformat(), "to": (now + day).isoformat()}
    environment.policies |= {"people": {**people, "deputies": [*people["deputies"], row]}}
    environment.save(update_fields=["policies"])


def proof_of(user, kind="password"):
    """A fresh proof that `user` is there, as signatures need it."""
    return Proof(kind, user.pk, timezone.now())


def server(name, type_, host, version="8.5.100", *, role="primary", peer=None, mode=None, port=2020):
    """A server as the simulator shows it, as far as an environment is made from it."""
    return {
        "name": name,
        "type": type_,
        "host": host,
        "version": version,
        "role": role,
        "peer": peer,
        "port": port,
        "mode": mode or role,
    }


def frankfurt(world="", **changes):
    """The demo's world, as the simulator shows it."""
    hosts = ("fra-cfg-01", "fra-cfg-02", "fra-scs-01")
    servers = [
        server("confserv", "ConfigurationServer", hosts[0], "8.1.3", peer="confserv_b"),
        server("confserv_b", "ConfigurationServer", hosts[1], "8.1.3", role="backup", peer="confserv"),
        server("scs", "SCS", hosts[2]),
        server("messageserver", "MessageServer", hosts[2]),
        *(server(f"lca_{host}", "LCA", host) for host in hosts),
    ]
    agents = [
        {
            "host": host,
            "url": f"http://127.0.0.1:{7101 + place}",
            "agent": host,
            "key": {"id": "k1", "secret": "0" * 64},
            "state": "up",
        }
        for place, host in enumerate(hosts)
    ]
    return {"world": world, "servers": servers, "agents": agents, "target": "8.5.101", **changes}


def make_environment(name="Production · Frankfurt", *, world=None, policies=None, targets=None):
    """The demo's environment: a pair of Configuration Servers, an SCS, a Message Server, three hosts with agents."""
    environment = environment_from_world(world or frankfurt(), name=name)
    environment.policies = POLICIES if policies is None else policies
    environment.save(update_fields=["policies"])
    environment.hosts.update(site="Frankfurt")
    Target.objects.bulk_create(
        Target(environment=environment, component=component, version=version)
        for component, version in (TARGETS if targets is None else targets).items()
    )
    Agent.objects.filter(environment=environment).update(seen_at=timezone.now())
    return environment


def publish(procedure="config-server-ha"):
    """The newest version of a procedure of this release, published."""
    publish_all()
    return ProcedureVersion.objects.filter(procedure=procedure).order_by("-version")[0:1].get()


def bind(environment, **names):
    """Roles of a run and the ids of the applications of those names: bind(environment, new="confserv_b", …)."""
    known = dict(environment.applications.values_list("name", "pk"))
    return {role: known[name] for role, name in names.items()}


def start(environment, by, procedure="config-server-ha", **changes):
    """Start a run of the pair through the service; what it needs can be changed by name. Gives its number."""
    from upgrades.services.starting import start_run

    publish(procedure)
    wishes = {
        "environment_id": environment.pk,
        "procedure": procedure,
        "bindings": bind(environment, new="confserv_b", old="confserv"),
        "parameters": {"target": "8.5.101", "database-upgraded": "false"},
        "confirmations": {},
        "rehearsal": False,
        "change": "CHG0042317",
        "by": by,
        "command_id": uuid4(),
    }
    return start_run(**{**wishes, **changes}).run


def show_who(client, user, **record):
    """What the session of a signed-in `client` remembers after its person has shown who they are: a password, just now."""
    session = client.session
    session[AUTHENTICATION_METHODS_SESSION_KEY] = [{"method": "password", "at": time.time(), **record}]
    session["account_authentication_methods_user"] = user_id_to_str(user)
    session.save()
