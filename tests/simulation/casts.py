"""What a walk begins with: which servers play which roles, the answers of the dialog, the policies of the place."""

from dataclasses import dataclass, replace
from functools import lru_cache

import yaml

from upgrades.domain.environment import Server
from upgrades.domain.groups import NOBODY, choose, expand
from upgrades.domain.procedure import ParameterType
from upgrades.domain.run_events import CATEGORIES, Bound, RunStarted
from upgrades.domain.start_approval import with_start_approval
from upgrades.procedures.loader import builtin, load, whole_text

TEXTS = {path.parent.name: (str(path), text) for path, text in builtin() if path.stem == "1"}
NAMES = tuple(sorted(TEXTS))
MASTER, PROXY = "ConfigurationServer", "ConfigurationServerProxy"
# Which rollback may take which upgrade back in the middle.
WAYS_BACK = {
    "pair": ("rollback-both-down", "rollback-folders", "rollback-immediate", "rollback-operational"),
    "single": ("rollback-standalone",),
}


@lru_cache(maxsize=64)
def text_of(name):
    """The procedure as the application reads it."""
    path, text = TEXTS[name]
    return load(text, name=path)


@lru_cache(maxsize=64)
def plain_text_of(name):
    """The same text as plain JSON data, for those who do not trust that reading."""
    path, text = TEXTS[name]
    return yaml.load(whole_text(text, name=path), Loader=yaml.BaseLoader)


def carried_out(name, started):
    """The procedure of a run that `started` so."""
    text = text_of(name)
    return with_start_approval(expand(text, started.groups, started.bindings), started)


@dataclass(frozen=True)
class Cast:
    """The servers of the place, and which of them play the roles of the dialog."""

    servers: tuple[Server, ...]
    bound: dict[str, Server]


def server(name, host, kind, version, **more):
    return Server(name=name, type=kind, host=host, version=version, **more)


def pair(names, hosts, kind, version, **more):
    """Primary and backup."""
    return tuple(
        server(name, host, kind, version, peer=names[1 - at], standing=part, mode=part, **more)
        for at, (name, host, part) in enumerate(zip(names, hosts, ("primary", "backup"), strict=True))
    )


def cast_for(name, rng):
    text = text_of(name)
    roles = {role.name for role in text.roles}
    if name == "lca":
        return Cast(_hosts(rng), {})
    if name == "management-layer":
        kind = rng.choice(("SCS", "MessageServer"))
        servers = _one_or_two(rng, kind, ("ml_a", "ml_b"), rng.choice(("8.1.2", "8.5.000")))
        return Cast(servers, {"server": rng.choice(servers)})
    if name == "disaster-recovery":
        servers = _one_or_two(rng, MASTER, ("copy_a", "copy_b"), "8.1.3", dormant=True)
        return Cast(servers, {"copy": servers[0]})
    if roles == {"new", "old"}:
        kind = PROXY if "proxy" in name else MASTER
        version = "8.1.3" if "same-schema" in name else rng.choice(("8.1.3", "8.5.0", "8.5.100"))
        primary, backup = pair(("confserv", "confserv_b"), ("fra-01", "fra-02"), kind, version)
        return Cast((primary, backup), {"new": backup, "old": primary})
    if roles == {"first", "second"}:
        kind = rng.choice((MASTER, MASTER, PROXY))
        primary, backup = pair(("confserv", "confserv_b"), ("fra-01", "fra-02"), kind, "8.5.101")
        return Cast((primary, backup), {"first": backup, "second": primary})
    if roles == {"server"}:
        kind = PROXY if "proxy" in name else rng.choice((MASTER, MASTER, PROXY)) if "roll" in name else MASTER
        version = "8.5.101" if "roll" in name else rng.choice(("8.1.3", "8.5.100"))
        alone = server("confserv", "fra-01", kind, version, mode="primary")
        return Cast((alone,), {"server": alone})
    return Cast((), {})


def _one_or_two(rng, kind, names, version, **more):
    if rng.random() < 0.5:
        return (server(names[0], "ham-01", kind, version, mode="primary", **more),)
    return pair(names, ("ham-01", "ham-02"), kind, version, **more)


def _hosts(rng):
    hosts = [f"host-{number}" for number in range(1, rng.randint(2, 4))]
    agents = [server(f"lca_{host}", host, "LCA", "8.1.3") for host in hosts]
    match rng.choice(("alone", "alone", "pair")):
        case "pair":
            scs = pair(("scs_a", "scs_b"), ("scs-1", "scs-2"), "SCS", "8.5.101")
        case _:
            scs = (server("scs", "scs-1", "SCS", "8.5.101", mode="primary"),)
    agents += [server(f"lca_{one.host}", one.host, "LCA", "8.1.3") for one in scs]
    return (*agents, *scs)


def answers_for(text, rng):
    """An answer to each question of the start dialog."""
    found = {}
    for parameter in text.parameters:
        match parameter.type:
            case ParameterType.VERSION if parameter.name == "back-to":
                found[parameter.name] = rng.choice(("8.1.3", "8.5.0"))
            case ParameterType.VERSION:
                found[parameter.name] = "8.5.101"
            case ParameterType.BOOLEAN:
                found[parameter.name] = rng.random() < 0.5
            case ParameterType.NUMBER:
                found[parameter.name] = rng.choice(("60", "600", "3600"))
            case ParameterType.DATE:
                found[parameter.name] = "2026-06-01"
            case ParameterType.TEXT:
                found[parameter.name] = None
    return found


def environment_facts(text, rng):
    """Mostly as they should be; now and then one that keeps a gate shut, until somebody sees to it."""
    known = {
        "environment.lca-current": True,
        "environment.scs-current": True,
        "environment.masters-current": True,
        "environment.proxies-may-go-first": False,
        "environment.disaster-recovery": rng.random() < 0.4,
        "environment.schema": "8.1.1",
        "environment.schema-stays": True,
    }
    for name in ("environment.lca-current", "environment.scs-current", "environment.masters-current"):
        known[name] = rng.choice((True,) * 9 + (False, None))
    return known


def policies_for(text, rng):
    """One of the ways in which a place can ask for signatures."""
    needs = rng.choice(
        (
            [{"role": "approver", "signatures": 1}],
            [{"role": "approver", "signatures": 1}],
            [{"role": "approver", "signatures": 2}],
            [{"group": "database", "signatures": 1}, {"group": "network", "signatures": 1}],
            [{"role": "approver", "signatures": 1}, {"group": "database", "signatures": 1}],
            [],
        )
    )
    release = {"needs": needs, "ahead": rng.random() < 0.4, "override": rng.random() < 0.4}
    if rng.random() < 0.4:
        release["expires"] = {
            "after": rng.choice((900, 3600)),
            "result": rng.choice(("lapse", "reject", "hold")),
        }
    deviation = {"needs": [{"role": "approver", "signatures": rng.choice((1, 1, 2))}]}
    gates = sorted({gate.id for step in text.steps for gate in step.all_gates})
    if rng.random() < 0.5:
        deviation["never"] = rng.sample(gates, min(len(gates), 2))
    if rng.random() < 0.3:
        deviation["expires"] = {"after": 1800, "result": rng.choice(("reject", "hold"))}
    policies = {"point-of-no-return": release, "deviation": deviation}
    if rng.random() < 0.25:
        policies["start"] = {"needs": [{"role": "approver", "signatures": 1}]}
    if rng.random() < 0.2:
        policies["steps"] = {"holder": "only"}
    return policies


def started_with(name, cast, rng):
    """The first event of a run of `name` with this cast."""
    text = text_of(name)
    answers = answers_for(text, rng)
    bound = {role: one.name for role, one in cast.bound.items()}
    chosen = choose(text, cast.servers, bound, answers)
    playing = {**cast.bound, **chosen.roles}
    facts = {f"{NOBODY}.there": False, **environment_facts(text, rng)}
    for role, one in playing.items():
        facts |= {
            role: one.name,
            f"{role}.name": one.name,
            f"{role}.host": one.host,
            f"{role}.version": one.version,
            f"{role}.mode": one.mode or None,
            f"{role}.type": one.type,
            f"{role}.target": "8.5.101",
            f"{role}.there": True,
        }
    return RunStarted(
        procedure=text.id,
        procedure_version=text.version,
        procedure_hash=text.text_hash,
        title=text.title,
        environment=1,
        environment_name="Frankfurt",
        rehearsal=rng.random() < 0.1,
        category=rng.choice(CATEGORIES),
        reason="the version that runs now is no longer looked after",
        bindings={role: Bound(one.name, one.type, one.host, one.version) for role, one in playing.items()},
        facts=facts | answers,
        policies=policies_for(text, rng),
        authors=list(text.authors),
        groups=chosen.groups,
    )


def taken_back(name, started, rng):
    """A run of the rollback `name` that takes back what the run `started` so has done."""
    bound = started.bindings
    roles = {"first": "new", "second": "old"} if "new" in bound else {"server": "server"}
    servers = {
        role: Server(
            name=bound[mine].application,
            type=bound[mine].application_type,
            host=bound[mine].host,
            version="8.5.101",
            mode="primary",
        )
        for role, mine in roles.items()
    }
    return replace(started_with(name, Cast(tuple(servers.values()), servers), rng), takes_back=1)
