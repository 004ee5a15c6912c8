"""A procedure as a run carries it out, from the JSON of its text: groups written out, defaults filled in."""

from tests.simulation.checker.conditions import renamed, value_of

PARTS = ("each", "beside", "peer")
NOBODY = "nobody"  # plays the companion or the peer that a member does not have


class Text:
    """The steps in order, each a dictionary with every key that matters here."""

    def __init__(self, stated, text_hash, started):
        self.name = f"{stated['procedure']}/{stated['version']}"
        self.hash = text_hash
        self.authors = list(stated["authors"])
        self.questions = tuple(stated.get("parameters") or ())
        steps = [_step(step) for step in stated["steps"]]
        self.steps = list(_written_out(steps, started["groups"]))
        if _start_is_approved(started):
            gate = {"id": "approved-start", "kind": "approval", "policy": "start", "when": None}
            first = self.steps[0]
            self.steps[0] = {**first, "needs": [gate, *first["needs"]]}
        self.by_id = {step["id"]: step for step in self.steps}

    def holds(self, condition, facts):
        return value_of(condition, facts, self.questions)

    def after(self, step_id):
        """The next step that is no aside; None at the end."""
        at = next(place for place, step in enumerate(self.steps) if step["id"] == step_id)
        return next((step for step in self.steps[at + 1 :] if not step["aside"]), None)

    def gate(self, step_id, gate_id):
        step = self.by_id.get(step_id)
        gates = (*step["needs"], *step["gates"]) if step else ()
        return next((gate for gate in gates if gate["id"] == gate_id), None)

    def gates_of_kind(self, kind):
        for step in self.steps:
            for gate in (*step["needs"], *step["gates"]):
                if gate["kind"] == kind:
                    yield step, gate


def begun_by_person(step):
    return any(gate["kind"] in ("approval", "way-back") for gate in step["needs"])


def numbers_of(gate):
    """Every event that the rule of an event gate names."""
    found = {"00-05060", *(gate.get("normal") or {})}
    for outcome in gate["outcomes"]:
        found |= set().union(*outcome["events"]) | outcome["none-between"] | outcome["none-before"]
    return found


def _start_is_approved(started):
    policy = started["policies"].get("start")
    if policy is None or started["rehearsal"]:
        return False
    needs = policy.get("needs") or [{"signatures": policy.get("signatures", 1)}]
    return any(int(need["signatures"]) > 0 for need in needs)


def _step(stated):
    return {
        "id": stated["id"],
        "when": stated.get("when"),
        "for-each": stated.get("for-each"),
        "aside": stated.get("aside") == "true",
        "by-itself": stated.get("completes") == "by-itself",
        "needs": [_gate(gate) for gate in stated.get("needs") or ()],
        "gates": [_gate(gate) for gate in stated.get("gates") or ()],
        "then": stated.get("then", "continue"),
        **{
            key: [{"when": None, "at": "complete", **part} for part in stated.get(key) or ()]
            for key in ("opens", "closes", "owes", "fulfils", "effects")
        },
    }


def _gate(stated):
    gate = {"when": None, **stated}
    if gate["kind"] == "events":
        gate["outcomes"] = [
            {
                "when": None,
                **outcome,
                "events": [
                    set(one["one-of"]) if isinstance(one, dict) else {one} for one in outcome["events"]
                ],
                "none-between": set(outcome.get("none-between") or ()),
                "none-before": set(outcome.get("none-before") or ()),
            }
            for outcome in gate["outcomes"]
        ]
    if gate["kind"] == "way-back":
        gate["items"] = [{"when": None, **item} for item in gate["items"]]
    return gate


# Groups: steps of one group that follow each other are repeated together, member by member.


def _written_out(steps, groups):
    at = 0
    while at < len(steps):
        group = steps[at]["for-each"]
        block = []
        while at < len(steps) and steps[at]["for-each"] == group:
            block.append(steps[at])
            at += 1
        if group is None:
            yield from block
            continue
        for member in groups.get(group, ()):
            copy = _Copy(member, {step["id"] for step in block})
            yield from (copy.of(step) for step in block if copy.has(step))


class _Copy:
    def __init__(self, member, block):
        self.member, self.block = member, block
        self.there = {f"{part}.there": part in member for part in PARTS}

    def has(self, part):
        """False for what the member surely has no part in: it has no companion or no peer, or has one."""
        return not isinstance(part, dict) or value_of(part.get("when"), self.there) is not False

    def fact(self, name):
        part, dot, rest = name.partition(".")
        return f"{self.member.get(part, NOBODY)}{dot}{rest}" if part in PARTS else name

    def own(self, name):
        return f"{name}--{self.member['key']}"

    def own_step(self, name):
        return self.own(name) if name in self.block else name

    def of(self, step):
        return {**self.copy(step), "id": self.own(step["id"])}

    def copy(self, part, key=""):
        if isinstance(part, dict):
            if key in ("opens", "closes"):
                part = {**part, "exposure": self.own(part["exposure"])}
            if key in ("owes", "fulfils"):
                part = {**part, "duty": self.own(part["duty"])}
            return {name: self.value(name, inner, key) for name, inner in part.items()}
        return part

    def value(self, name, value, within):
        if isinstance(value, list):
            return [self.copy(inner, name) for inner in value if self.has(inner)]
        if isinstance(value, dict):
            return self.copy(value, name)
        if not isinstance(value, str):
            return value
        if name in ("when", "condition"):
            return renamed(value, self.fact)
        if name in ("server", "leaving", "joining", "set", "to"):
            return self.fact(value)
        if name in ("watch-until", "baseline", "go-to") or (name == "step" and within == "items"):
            return self.own_step(value)
        return value
