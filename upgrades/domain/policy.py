"""Who must sign what: the policies of an environment as values, and whether signatures fill them.

An environment keeps one document (`Environment.policies`); a run keeps the document as it was when the run started.
Under each policy's name stands what it asks for; under `people` the groups and the deputies, under `steps` whether
only the holder of a step acts on it. Nothing in it can make time approve anything: a request that is not decided in
time lapses, is rejected, or puts the run on hold.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from upgrades.domain.refusal import BadInput

START, DEVIATION = "start", "deviation"
PEOPLE, STEPS = "people", "steps"  # what stands in the document beside the policies
GROUP = "group:"  # begins the name of a group among rights: a role is named as it is
ROLES = (
    "approver",
    "administrator",
    "auditor",
    "author",
    "operator",
)  # a policy may ask for any but the last three
SIGNING_ROLES = ("approver", "administrator")
SOONEST, LATEST = 300, 30 * 24 * 3600  # seconds until a request expires
MOST_SIGNATURES = 9


class Result(StrEnum):
    """What becomes of a request that is not decided in time."""

    LAPSE = "lapse"  # what was signed lapses, and the request begins anew
    REJECT = "reject"  # it is rejected; somebody has to ask again
    HOLD = "hold"  # it is rejected, and the run is put on hold


@dataclass(frozen=True, slots=True)
class Need:
    """So many signatures of people with one right: a role, or membership in a group (`group:database`)."""

    of: str
    signatures: int

    @property
    def whom(self) -> str:
        return right_name(self.of)

    @property
    def in_words(self) -> str:
        if self.of.startswith(GROUP):
            return f"{self.signatures} of {self.whom}"
        return f"{self.signatures} {self.of}{'s' if self.signatures != 1 else ''}"


@dataclass(frozen=True, slots=True)
class Expiry:
    after: int  # seconds
    result: Result


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What one kind of approval asks for. `never`: gates that no deviation waives, as `gate` or `step.gate`."""

    name: str
    needs: tuple[Need, ...]
    expiry: Expiry | None = None
    ahead: bool = False
    override: bool = False
    never: frozenset[str] = frozenset()

    @property
    def needed(self) -> int:
        return sum(need.signatures for need in self.needs)

    @property
    def rights(self) -> tuple[str, ...]:
        """Every right that fills a slot, in the order of the policy."""
        return tuple(dict.fromkeys(need.of for need in self.needs))

    @property
    def whom(self) -> str:
        """“approver”, “2 of the role approver and 1 of the group database”."""
        if len(self.needs) == 1:
            return self.needs[0].whom
        return " and ".join(f"{need.signatures} of {need.whom}" for need in self.needs)

    @property
    def in_words(self) -> str:
        """“1 approver”, “2 approvers and 1 of the group database”, “nobody”."""
        return " and ".join(need.in_words for need in self.needs) or "nobody"

    def never_waives(self, step: str, gate: str) -> bool:
        return bool(self.never & {gate, f"{step}.{gate}"})


@dataclass(frozen=True, slots=True)
class Deputy:
    """From `begins` until `ends` (not included), `deputy` may sign where `person` may."""

    person: str
    deputy: str
    begins: datetime
    ends: datetime

    def stands_in(self, at: datetime) -> bool:
        return self.begins <= at < self.ends


@dataclass(frozen=True, slots=True)
class People:
    """The groups of an environment, each with the ids of its people, and its deputies."""

    groups: Mapping[str, frozenset[str]] = field(default_factory=dict)
    deputies: tuple[Deputy, ...] = ()

    def groups_of(self, person: str) -> tuple[str, ...]:
        return tuple(sorted(f"{GROUP}{name}" for name, members in self.groups.items() if person in members))

    def stood_in_for(self, deputy: str, at: datetime) -> tuple[str, ...]:
        """For whom this person may sign at that time."""
        found = [item.person for item in self.deputies if item.deputy == deputy and item.stands_in(at)]
        return tuple(dict.fromkeys(found))


def right_name(of: str) -> str:
    """“the role approver”, “the group database”."""
    return f"the group {of.removeprefix(GROUP)}" if of.startswith(GROUP) else f"the role {of}"


# Reading. What is stored was checked when it was written; runs of earlier releases keep the form {"role", "signatures"}.


def policy_in(stored: Mapping[str, Any], name: str) -> Policy:
    """The policy of that name; one signature of an approver where the document says nothing."""
    said = stored.get(name)
    said = said if isinstance(said, Mapping) else {}
    if "needs" in said:
        needs = tuple(Need(_of(item), int(item["signatures"])) for item in said["needs"])
    else:
        needs = (Need(str(said.get("role", "approver")), int(said.get("signatures", 1))),)
    expires = said.get("expires")
    return Policy(
        name=name,
        needs=tuple(need for need in needs if need.signatures > 0),
        expiry=Expiry(int(expires["after"]), Result(expires["result"])) if expires else None,
        ahead=bool(said.get("ahead", False)),
        override=bool(said.get("override", False)),
        never=frozenset(said.get("never", ())),
    )


def _of(item: Mapping[str, Any]) -> str:
    return f"{GROUP}{item['group']}" if "group" in item else str(item["role"])


def policies_in(stored: Mapping[str, Any]) -> tuple[Policy, ...]:
    """Every policy that the document states, by name."""
    return tuple(policy_in(stored, name) for name in sorted(stored) if name not in (PEOPLE, STEPS))


def people_in(stored: Mapping[str, Any]) -> People:
    said = stored.get(PEOPLE) or {}
    groups = {name: frozenset(members) for name, members in said.get("groups", {}).items()}
    deputies = tuple(
        Deputy(
            item["person"],
            item["deputy"],
            datetime.fromisoformat(item["from"]),
            datetime.fromisoformat(item["to"]),
        )
        for item in said.get("deputies", ())
    )
    return People(groups, deputies)


def only_holder_acts(stored: Mapping[str, Any]) -> bool:
    """Whether nobody but the holder of a step acts on it. Otherwise the page only says who holds it."""
    return (stored.get(STEPS) or {}).get("holder") == "only"


# Slots. One person fills one slot, however many of the rights that are asked for he has.


@dataclass(frozen=True, slots=True)
class Signer:
    """Somebody whose signature counts, and the rights that it was given under.

    `right_of` is whose rights these are: a deputy and the person that he stands in for are one.
    """

    id: str
    rights: frozenset[str]
    right_of: str


def missing(policy: Policy, signers: Iterable[Signer]) -> tuple[Need, ...]:
    """What the policy still asks for when these have signed; nothing: it is filled."""
    slots = [need.of for need in policy.needs for _ in range(need.signatures)]
    taken = _matched(slots, distinct(signers))
    left: dict[str, int] = {}
    for place, of in enumerate(slots):
        if place not in taken:
            left[of] = left.get(of, 0) + 1
    return tuple(Need(of, count) for of, count in left.items())


def distinct(signers: Iterable[Signer]) -> list[Signer]:
    """One signature a person and one a right: the earlier one stays."""
    found: list[Signer] = []
    for signer in signers:
        people = {name for other in found for name in (other.id, other.right_of)}
        if not {signer.id, signer.right_of} & people:
            found.append(signer)
    return found


def _matched(slots: Sequence[str], signers: Sequence[Signer]) -> dict[int, int]:
    """Slot -> signer, as many slots as can be filled at once (augmenting paths)."""
    taken: dict[int, int] = {}

    def place(who: int, tried: set[int]) -> bool:
        for slot, of in enumerate(slots):
            if of in signers[who].rights and slot not in tried:
                tried.add(slot)
                if slot not in taken or place(taken[slot], tried):
                    taken[slot] = who
                    return True
        return False

    for who in range(len(signers)):
        place(who, set())
    return taken


def adds(policy: Policy, signers: Sequence[Signer], one: Signer) -> bool:
    """Whether the signature of `one` brings the policy nearer to being filled."""
    return _open(policy, [*signers, one]) < _open(policy, signers)


def _open(policy: Policy, signers: Iterable[Signer]) -> int:
    return sum(need.signatures for need in missing(policy, signers))


def useful_rights(policy: Policy, signers: Sequence[Signer]) -> tuple[str, ...]:
    """The rights under which one more person could sign usefully."""
    return tuple(
        of for of in policy.rights if adds(policy, signers, Signer("somebody", frozenset({of}), "somebody"))
    )


def unfilled_by(policy: Policy, signed: Sequence[Signer], others: Iterable[Signer]) -> tuple[Need, ...]:
    """What would still be missing if all `others` who may sign did so: nothing left, or nobody is left for it."""
    return missing(policy, [*signed, *others])


# Writing: what a change of policies may look like.

NAME = re.compile(r"[a-z][a-z0-9-]{0,39}")
_GATE = re.compile(r"[a-z0-9][a-z0-9-]{0,63}(\.[a-z0-9][a-z0-9-]{0,63})?")


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody with a role in the environment, as far as policies are concerned."""

    id: str
    name: str
    roles: frozenset[str]


def checked_document(stored: Mapping[str, Any], people: Sequence[Person]) -> dict[str, Any]:
    """`stored` in its canonical form; `BadInput` with every mistake when it would open for nothing, or never."""
    mistakes: list[str] = []
    known = {person.id: person for person in people}
    groups = _checked_groups(stored.get(PEOPLE, {}).get("groups", {}), known, mistakes)
    deputies = _checked_deputies(stored.get(PEOPLE, {}).get("deputies", ()), known, mistakes)
    document: dict[str, Any] = {
        name: _checked_policy(name, stored[name], groups, mistakes)
        for name in sorted(stored)
        if name not in (PEOPLE, STEPS)
    }
    if groups or deputies:
        document[PEOPLE] = {"groups": groups, "deputies": deputies}
    holder = (stored.get(STEPS) or {}).get("holder", "")
    if holder not in ("", "shown", "only"):
        mistakes.append("Who acts on a step is “only” its holder, or the holder is only “shown”.")
    elif holder == "only":
        document[STEPS] = {"holder": "only"}
    if not mistakes:
        mistakes += _never_filled(document, people)
    if mistakes:
        raise BadInput(" ".join(mistakes), "policies")
    return document


def _checked_groups(
    said: Mapping[str, Iterable[str]], known: Mapping[str, Person], mistakes: list[str]
) -> dict[str, list[str]]:
    groups = {}
    for name in sorted(said):
        members = sorted(set(said[name]))
        strangers = [member for member in members if member not in known]
        if not NAME.fullmatch(name):
            mistakes.append(f"“{name}” is no name of a group: small letters, digits and hyphens.")
        elif strangers:
            mistakes.append(f"In the group {name}, {', '.join(strangers)} has no role in this environment.")
        elif not members:
            mistakes.append(f"The group {name} has nobody in it.")
        groups[name] = members
    return groups


def _checked_deputies(
    said: Iterable[Mapping[str, str]], known: Mapping[str, Person], mistakes: list[str]
) -> list[dict[str, str]]:
    deputies = []
    for item in said:
        person, deputy = item["person"], item["deputy"]
        begins, ends = datetime.fromisoformat(item["from"]), datetime.fromisoformat(item["to"])
        if person not in known or deputy not in known:
            mistakes.append("A deputy, and whom he stands in for, need a role in this environment.")
        elif person == deputy:
            mistakes.append(f"{known[person].name} cannot stand in for himself.")
        elif begins >= ends:
            mistakes.append(
                f"{known[deputy].name} would stand in for {known[person].name} until before it begins."
            )
        deputies.append({"person": person, "deputy": deputy, "from": item["from"], "to": item["to"]})
    return deputies


def _checked_policy(
    name: str, said: Mapping[str, Any], groups: Mapping[str, list[str]], mistakes: list[str]
) -> dict[str, Any]:
    def wrong(text: str) -> None:
        mistakes.append(f"Policy {name.replace('-', ' ')}: {text}")

    if not NAME.fullmatch(name):
        wrong("its name is not made of small letters, digits and hyphens.")
    if "needs" not in said:
        said = {**said, "needs": [{"role": said.get("role", "approver"), "signatures": said["signatures"]}]}
    needs = [_checked_need(item, groups, wrong) for item in said["needs"]]
    if len({(item.get("role"), item.get("group")) for item in needs}) < len(needs):
        wrong("the same role or group is asked for twice. Say it once, with the number that is needed.")
    if name == DEVIATION and not needs:
        wrong("a deviation always takes a second person.")
    policy: dict[str, Any] = {"needs": needs}
    expires = said.get("expires")
    if expires:
        after, result = expires.get("after"), expires.get("result")
        if not isinstance(after, int) or not SOONEST <= after <= LATEST:
            wrong("a request expires after 5 minutes at the soonest and 30 days at the latest.")
        if result not in list(Result):
            wrong("what is not decided in time lapses, is rejected, or puts the run on hold; nothing else.")
        policy["expires"] = {"after": after, "result": result}
    never = sorted(set(said.get("never", ())))
    if any(not _GATE.fullmatch(gate) for gate in never):
        wrong("a gate that is never waived is named by its id, or as step.gate.")
    if never and name != DEVIATION:
        wrong("which gates are never waived is said under the policy for deviations.")
    policy |= {key: True for key in ("ahead", "override") if said.get(key) is True}
    return policy | ({"never": never} if never else {})


def _checked_need(item: Mapping[str, Any], groups: Mapping[str, list[str]], wrong: Any) -> dict[str, Any]:
    count, role, group = item.get("signatures"), item.get("role"), item.get("group")
    if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= MOST_SIGNATURES:
        wrong(
            f"{count} signatures open for nothing, or never. Ask for 1 to {MOST_SIGNATURES}, or for nobody at all."
        )
        count = 0
    if group is not None:
        members = groups.get(group)
        if members is None:
            wrong(f"there is no group {group}.")
        elif len(members) < count:
            wrong(f"{count} of the group {group} can never sign: it has {len(members)}.")
        return {"group": group, "signatures": count}
    if role not in SIGNING_ROLES:
        wrong(f"people with the role {role} do not sign; approvers and administrators do.")
    return {"role": role, "signatures": count}


def _never_filled(document: Mapping[str, Any], people: Sequence[Person]) -> list[str]:
    """The policies that no team here could fill, whoever of its operators starts the run."""
    return [
        f"Policy {policy.name.replace('-', ' ')} can never be filled: {lack}"
        for policy in policies_in(document)
        if (lack := lacks_people(policy, people_in(document), people))
    ]


def lacks_people(policy: Policy, groups: People, people: Sequence[Person]) -> str:
    """Who is not there to fill `policy` when an operator starts the run; empty when there are enough.

    Whichever operator it is: with the fewest left over, it still has to be possible for one of them to start.
    """
    able = [
        Signer(person.id, person.roles | frozenset(groups.groups_of(person.id)), person.id)
        for person in people
    ]
    starters: list[str] = [person.id for person in people if "operator" in person.roles] or [""]
    lacks = [missing(policy, [one for one in able if one.id != starter]) for starter in starters]
    least = min(lacks, key=lambda lack: sum(need.signatures for need in lack))
    if not least:
        return ""
    return "without whoever starts a run, " + " and ".join(
        f"{need.signatures} of {need.whom} {'is' if need.signatures == 1 else 'are'} missing."
        for need in least
    )
