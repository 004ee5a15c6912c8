"""Gates evaluated anew over the recorded evidence. Each function gives None when the gate is met, else why not."""

from itertools import permutations

STARTED = "00-05060"
SECONDS = {"approver", "administrator", "operator"}


def in_file_order(seen):
    """The observations without repeats, those of one file in the order of that file; the others keep their places."""
    first = {}
    for one in seen:
        first.setdefault((one["kind"], one["place"]), one)
    seen = list(first.values())
    slots, ordered = {}, list(seen)
    for place, one in enumerate(seen):
        slots.setdefault(one["place"][0], []).append(place)
    for file, places in slots.items():
        if file == "process":
            continue
        for place, one in zip(
            places, sorted((seen[at] for at in places), key=lambda it: it["place"][1]), strict=True
        ):
            ordered[place] = one
    return ordered


def follow(text, gate, seen, facts, set_aside):
    """Where an event rule stands: its outcome, the doubts before it, and what contradicted it afterwards."""
    tracks = {}
    for outcome in gate["outcomes"]:
        if text.holds(outcome["when"], facts) is True:
            tracks[outcome["id"]] = {"next": 0, "lines": [], "out": False}
    result = {"outcome": None, "lines": [], "doubts": [], "ended": False, "against": []}
    starts = 0
    for one in in_file_order(seen):
        kind = one["kind"]
        if one["event"] == STARTED:
            starts += 1
            kind = "ended" if starts > 1 else kind
        if result["ended"] and result["outcome"] is None:
            continue
        if kind == "event":
            _event(gate, tracks, one, result)
        elif kind == "ended":
            if result["outcome"] is None:
                result["ended"] = True
            elif gate.get("hold-on-end", "true") == "true":
                result["against"].append(one["seq"])
        elif result["outcome"] is None and one["seq"] not in set_aside:
            result["doubts"].append(one["seq"])
    return result


def _event(gate, tracks, one, result):
    for outcome in gate["outcomes"]:
        track = tracks.get(outcome["id"])
        if track is None or track["out"] or track["next"] == len(outcome["events"]):
            continue
        number = one["event"]
        begun = track["next"] > 0
        if number in outcome["none-before"] or (begun and number in outcome["none-between"]):
            track["out"] = True
        elif number in outcome["events"][track["next"]]:
            track["next"] += 1
            track["lines"].append(one["seq"])
            if track["next"] == len(outcome["events"]):
                _complete(outcome, track, one, result)


def _complete(outcome, track, one, result):
    if result["outcome"] is None:
        result |= {"outcome": outcome["id"], "lines": list(track["lines"])}
        result["at"] = one["seq"]
    elif result["at"] != one["seq"] and isinstance(outcome["then"], dict) and "hold" in outcome["then"]:
        result["against"].append(one["seq"])


def rule_of(ledger, text, step, gate, visit=None):
    at = ledger.steps.get(step)
    facts = at["facts"] if at is not None and at["begun"] else ledger.facts
    recorded = ledger.gate(step, gate["id"], visit)
    return follow(text, gate, recorded["seen"], facts, ledger.set_aside)


def outcome_of(gate, name):
    return next((outcome for outcome in gate["outcomes"] if outcome["id"] == name), None)


def why_shut(ledger, text, step, gate):
    """Why `gate` of `step` does not open now; None when the recorded evidence opens it."""
    recorded = ledger.gate(step["id"], gate["id"])
    if recorded["overridden"]:
        return None
    return _KINDS[gate["kind"]](ledger, text, step, gate, recorded)


def _confirm(_ledger, _text, _step, _gate, recorded):
    if not recorded["confirmed"]:
        return "nobody has confirmed it"
    answer = recorded["confirmed"][-1]["answer"]
    return None if answer == "pass" else f"the last answer was {answer}"


def _check(ledger, text, _step, gate, _recorded):
    held = text.holds(gate["condition"], ledger.facts)
    return None if held is True else f"{gate['condition']} is {held}"


def _probe(ledger, _text, step, gate, recorded):
    host = ledger.bound(gate["server"])["host"]
    if host in ledger.lost:
        return f"the agent on {host} is silent"
    if recorded["probe"] is None:
        return "no agent has looked"
    if step["id"] == ledger.current and recorded["probe"]["seq"] < ledger.silences.get(host, 0):
        return f"the agent on {host} was silent since it looked"
    value = recorded["probe"]["value"]
    return None if value == "met" else f"the agent says {value}"


def _evidence(_ledger, _text, _step, gate, recorded):
    for one in recorded["evidence"]:
        form = "file" if one["sha256"] else "text"
        if form in gate["accepts"] and (form == "file" or len(one["text"].strip()) >= 3):
            return None
    return "nothing of the demanded kind is attached"


def _events(ledger, text, step, gate, recorded):
    reached = recorded["outcome"]
    if reached is None:
        return "no outcome is recorded"
    outcome = outcome_of(gate, reached["outcome"])
    if outcome is None or (outcome["then"] != "continue" and not _ends_here(outcome["then"])):
        return f"{reached['outcome']} does not let the run go on"
    result = rule_of(ledger, text, step["id"], gate)
    if result["doubts"]:
        return f"events {result['doubts']} are in doubt"
    if result["outcome"] != reached["outcome"]:
        return f"the lines lead to {result['outcome']}, not to {reached['outcome']}"
    if result["against"]:
        return f"events {result['against']} speak against it"
    return None


def _ends_here(then):
    return isinstance(then, dict) and ("end" in then or "go-over" in then)


def _clients(ledger, _text, _step, gate, recorded):
    if recorded["confirmed"] and recorded["confirmed"][-1]["answer"] != "not-tested":
        answer = recorded["confirmed"][-1]["answer"]
        return None if answer == "pass" else "somebody saw that clients have not moved"
    leaving, joining = (ledger.bound(gate[role])["application"] for role in ("leaving", "joining"))
    base = ledger.steps.get(gate["baseline"])
    if base is None or leaving not in base["totals"]:
        return "no total from before the shutdown"
    if leaving not in base["marks"] or joining not in base["marks"]:
        return "no mark from before the shutdown"
    there, left = (_newest(ledger, name, base) for name in (joining, leaving))
    if there is None or left is None:
        return "one of the two has not logged a total since"
    wanted = base["totals"][leaving] + base["totals"].get(joining, 0)
    if left != 0 or there < wanted:
        return f"{leaving} counts {left}, {joining} counts {there} of {wanted}"
    return None


def _newest(ledger, application, base):
    """The last total that the log of a server shows behind the mark, by its place in the file."""
    marks = base["marks"][application]
    seen = [
        one
        for one in ledger.totals.get(application, ())
        if one["seq"] > base["begun"] and one["offset"] >= marks.get(one["file"], 0)
    ]
    if not seen:
        return None
    file = seen[-1]["file"]
    return max((one for one in seen if one["file"] == file), key=lambda one: one["offset"])["total"]


def _way_back(ledger, text, _step, gate, _recorded):
    for item in gate["items"]:
        if text.holds(item["when"], ledger.facts) is False:
            continue
        step, source = text.by_id[item["step"]], text.gate(item["step"], item["gate"])
        if ledger.gate(item["step"], item["gate"])["overridden"]:
            return f"{item['step']}.{item['gate']} was overridden, which proves nothing"
        why = why_shut(ledger, text, step, source)
        if why:
            return f"{item['step']}.{item['gate']}: {why}"
    return None


# Approvals.


def policy_of(ledger, name):
    said = ledger.started["policies"].get(name) or {}
    needs = said.get("needs")
    if needs is None:
        needs = [{"role": said.get("role", "approver"), "signatures": said.get("signatures", 1)}]
    slots = [
        f"group:{need['group']}" if "group" in need else need["role"]
        for need in needs
        for _ in range(int(need["signatures"]))
    ]
    return {
        "slots": slots,
        "expires": said.get("expires"),
        "ahead": said.get("ahead") is True,
        "override": said.get("override") is True,
        "never": set(said.get("never") or ()),
    }


def snapshot(ledger, text, step):
    """What a signature before `step` covers, as far as a run's record shows it."""
    evidence = sorted(
        (one["step"], one["gate"], one["sha256"], one["text"])
        for gate in ledger.gates.values()
        for one in gate["evidence"]
    )
    needs = [
        (gate["id"], why_shut(ledger, text, step, gate))
        for gate in step["needs"]
        if gate["kind"] != "approval" and text.holds(gate["when"], ledger.facts) is not False
    ]
    return [dict(ledger.facts), sorted(ledger.burdens), evidence, needs, ledger.visit(step["id"]), text.hash]


def plan_of(ledger, text):
    """What a signature covers that is given before its step's turn."""
    return [{name: ledger.facts.get(name) for name in text.questions}, text.hash]


def _approval(ledger, text, step, gate, recorded):
    policy = policy_of(ledger, gate["policy"])
    if not policy["slots"]:
        return None
    if recorded["rejected"]:
        return "it was rejected"
    if recorded["expired"]:
        return "its time ran out"
    now, plan = snapshot(ledger, text, step), plan_of(ledger, text)
    counted = [
        one
        for one in recorded["signed"]
        if one.get("covers") == (plan if one["ahead"] else now) and not _is_barred(ledger, one)
    ]
    if not fills(policy["slots"], counted):
        return f"{[one['by']['id'] for one in counted]} do not fill {policy['slots']}"
    return None


def _is_barred(ledger, signed):
    return ledger.barred(signed["by"]["id"]) or (signed["for_id"] and ledger.barred(signed["for_id"]))


def fills(slots, signed):
    """Whether different people fill all the slots: one signature a person, and one a right."""
    counted, people = [], set()
    for one in signed:
        mine = {one["by"]["id"], one["for_id"] or one["by"]["id"]}
        if not mine & people:
            people |= mine
            counted.append(set(one["for_roles"] if one["for_id"] else one["by"]["roles"]))
    return any(
        all(slot in rights for slot, rights in zip(slots, order, strict=True))
        for order in permutations(counted, len(slots))
    )


_KINDS = {
    "confirm": _confirm,
    "check": _check,
    "probe": _probe,
    "evidence": _evidence,
    "events": _events,
    "clients": _clients,
    "approval": _approval,
    "way-back": _way_back,
}


def is_watching(ledger, step, gate):
    """Whether the run reads the log for this gate now."""
    at = ledger.steps.get(step["id"])
    if ledger.is_over or at is None or not at["begun"] or at["status"] in ("left", "skipped"):
        return False
    if at["status"] == "begun":
        return True
    if ledger.gate(step["id"], gate["id"])["outcome"] is None:
        return False
    until = ledger.steps.get(gate.get("watch-until") or "")
    return until is None or not until["begun"] or until["begun"] < at["begun"]
