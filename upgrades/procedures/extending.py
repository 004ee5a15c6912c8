"""Texts that build on another one: `extends` names it, and what follows says only what is different (PRX-0).

The result is one whole tree, as if somebody had written it out; everything behind it knows nothing of extending. Each
node keeps the place where it was written, so that a mistake is told in the right file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from upgrades.domain.condition import All, AnyOf, Condition, Is, Not, NotACondition, parse_condition, spell
from upgrades.procedures.mistakes import Mistakes, Place, nearest
from upgrades.procedures.strict_yaml import ListNode, MapNode, Node, TextNode

OWN_KEYS = ("extends", "given", "leave-out", "change")
_NAMED = ("roles", "groups", "parameters", "exposures", "duties")
_CONDITIONS = ("when", "required-when", "condition", "offered-when")
_PLAIN = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 ._-]*[A-Za-z0-9])?", re.ASCII)

Trees = Callable[[str, int], MapNode | None]  # name and version of a sound text -> its tree


def is_extension(root: Node | None) -> bool:
    return isinstance(root, MapNode) and root.get("extends") is not None


def whole(root: MapNode, trees: Trees, mistakes: Mistakes) -> MapNode | None:
    """The tree of the text that `root` extends, with what `root` changes in it. None: there is nothing to extend."""
    base = _base(root, trees, mistakes)
    if base is None:
        return None
    change = _Change(root, mistakes)
    own = {key.text: (key, value) for key, value in root.entries if key.text not in OWN_KEYS}
    entries = []
    for key, value in base.entries:
        mine = own.pop(key.text, None)
        if mine is None:
            entries.append((key, value))
        elif key.text in _NAMED:
            entries.append((mine[0], _merged(value, mine[1])))
        elif key.text == "steps":
            mistakes.add(
                mine[0].place, "", "A text that extends another one changes its steps with `change`."
            )
        else:
            entries.append(mine)
    entries += own.values()
    return change.applied(MapNode(root.place, tuple(entries)))


def _base(root: MapNode, trees: Trees, mistakes: Mistakes) -> MapNode | None:
    named = root.get("extends")
    name, version = (_text(named, key) for key in ("procedure", "version"))
    if (
        not isinstance(named, MapNode)
        or len(named.entries) != 2
        or not name
        or not re.fullmatch("[0-9]{1,6}", version)
    ):
        where = named.place if named is not None else root.place
        mistakes.add(where, "", "Write `extends: {procedure: name, version: 1}`.")
        return None
    base = trees(name, int(version))
    if base is None:
        mistakes.add(
            named.place, "", f"There is no sound procedure `{name[:64]}`, version {version}, to extend."
        )
    return base


def _text(node: Node | None, key: str = "") -> str:
    found = node.get(key) if key and isinstance(node, MapNode) else node
    return found.text if isinstance(found, TextNode) else ""


def _items(node: Node | None) -> tuple[Node, ...]:
    return node.items if isinstance(node, ListNode) else ()


def _merged(base: Node, own: Node) -> Node:
    """Entries of both; of one name, those of `own`."""
    if not isinstance(base, MapNode) or not isinstance(own, MapNode):
        return own
    mine = {key.text: (key, value) for key, value in own.entries}
    entries = [mine.pop(key.text, (key, value)) for key, value in base.entries]
    return MapNode(base.place, (*entries, *mine.values()))


def _with(node: MapNode, key: TextNode, value: Node) -> MapNode:
    entries = [(name, value if name.text == key.text else old) for name, old in node.entries]
    if node.get(key.text) is None:
        entries.append((key, value))
    return replace(node, entries=tuple(entries))


def _without(node: MapNode, *keys: str) -> MapNode:
    return replace(node, entries=tuple(entry for entry in node.entries if entry[0].text not in keys))


@dataclass(slots=True)
class _Change:
    """What a text changes in the one that it extends."""

    root: MapNode
    mistakes: Mistakes

    def applied(self, tree: MapNode) -> MapNode:
        tree = self._steps_changed(tree)
        given = self._given(tree)
        gone = self._left_out(tree) | set(given)
        tree, skipped = _evaluated(tree, given)
        return _pruned(tree, gone | skipped)

    # change: steps by their id, with the keys that are different. Lists whose entries have ids are changed entry by entry;
    # other lists are replaced, or `also` adds to them.

    def _steps_changed(self, tree: MapNode) -> MapNode:
        steps = tree.get("steps")
        if not isinstance(steps, ListNode):
            return tree
        patches: dict[str, MapNode] = {}
        for node in _items(self.root.get("change")):
            if isinstance(node, MapNode) and _text(node, "id"):
                patches[_text(node, "id")] = node
            else:
                self.mistakes.add(node.place, "", "Each change names its step: `- id: …`.", structure=True)
        known = tuple(_text(step, "id") for step in steps.items)
        for name, node in patches.items():
            if name not in known:
                self.mistakes.add(
                    node.place, "", f"There is no step `{name[:64]}` to change.{nearest(name, known)}"
                )
        changed = tuple(
            _patched(step, patches[_text(step, "id")]) if _text(step, "id") in patches else step
            for step in steps.items
        )
        entries = tuple(
            (key, ListNode(steps.place, changed) if key.text == "steps" else old) for key, old in tree.entries
        )
        return replace(tree, entries=entries)

    # leave-out: `step`, `step.gate`, or a role, parameter, exposure or duty.

    def _left_out(self, tree: MapNode) -> set[str]:
        known = set(_names(tree))
        gone = set()
        for node in _items(self.root.get("leave-out")):
            name = _text(node)
            if name in known:
                gone.add(name)
            else:
                hint = nearest(name, tuple(sorted(known)))
                self.mistakes.add(node.place, "", f"There is no `{name[:130]}` to leave out.{hint}")
        return gone

    # given: answers that are settled here, so that nobody is asked.

    def _given(self, tree: MapNode) -> dict[str, bool]:
        given: dict[str, bool] = {}
        node = self.root.get("given")
        parameters = tree.get("parameters")
        entries = parameters.entries if isinstance(parameters, MapNode) else ()
        known = [key.text for key, parameter in entries if _text(parameter, "type") == "boolean"]
        for key, value in node.entries if isinstance(node, MapNode) else ():
            if key.text not in known or _text(value) not in ("true", "false"):
                self.mistakes.add(
                    key.place, "", "Given is a parameter that is asked as yes or no, with `true` or `false`."
                )
            given[key.text] = _text(value) == "true"
        return given


def _patched(step: Node, patch: MapNode) -> Node:
    if not isinstance(step, MapNode):
        return step
    for key, value in patch.entries:
        step = (
            _added(step, value)
            if key.text == "also"
            else _with(step, key, _changed(step.get(key.text), value))
        )
    return step


def _changed(before: Node | None, value: Node) -> Node:
    """`value`, or the entries of `before` with what `value` says of those of the same id; new ids come last."""
    if not isinstance(before, ListNode) or not isinstance(value, ListNode):
        return value
    changes = {_text(item, "id"): item for item in value.items if isinstance(item, MapNode)}
    if "" in changes or len(changes) < len(value.items):
        return value
    items: list[Node] = []
    for item in before.items:
        change = changes.pop(_text(item, "id"), None)
        items.append(_patched(item, change) if change is not None else item)
    return replace(before, items=(*items, *changes.values()))


def _added(step: MapNode, more: Node) -> MapNode:
    for key, value in more.entries if isinstance(more, MapNode) else ():
        before = step.get(key.text)
        step = _with(step, key, ListNode(value.place, (*_items(before), *_items(value))))
    return step


def _names(tree: MapNode) -> Iterator[str]:
    for part in _NAMED:
        found = tree.get(part)
        yield from (key.text for key, _ in found.entries) if isinstance(found, MapNode) else ()
    for step in _items(tree.get("steps")):
        yield _text(step, "id")
        for gate in (*_items(_get(step, "needs")), *_items(_get(step, "gates"))):
            yield f"{_text(step, 'id')}.{_text(gate, 'id')}"


def _get(node: Node, key: str) -> Node | None:
    return node.get(key) if isinstance(node, MapNode) else None


# Settled answers.


def _evaluated(tree: MapNode, given: Mapping[str, bool]) -> tuple[MapNode, set[str]]:
    """The tree without what the settled answers rule out, and the steps and gates that went with it."""
    if not given:
        return tree, set()
    skipped: set[str] = set()
    steps = []
    for step in _items(tree.get("steps")):
        kept = _settled(step, given, skipped, _text(step, "id"))
        if kept is None:
            skipped.add(_text(step, "id"))
        else:
            steps.append(kept)
    entries = []
    for key, value in tree.entries:
        if key.text == "steps":
            entries.append(
                (key, replace(value, items=tuple(steps)) if isinstance(value, ListNode) else value)
            )
        else:
            entries.append((key, _settled(value, given, skipped, "") or value))
    return replace(tree, entries=tuple(entries)), skipped


def _settled(node: Node, given: Mapping[str, bool], skipped: set[str], step: str) -> Node | None:
    """The node with its conditions settled as far as they can be; None when it has no part any more."""
    if isinstance(node, ListNode):
        kept = []
        for item in node.items:
            found = _settled(item, given, skipped, step)
            if found is None:
                skipped.add(f"{step}.{_text(item, 'id')}")
            else:
                kept.append(found)
        return replace(node, items=tuple(kept))
    if not isinstance(node, MapNode):
        return node
    for key in _CONDITIONS:
        value = node.get(key)
        outcome = _outcome(value, given) if isinstance(value, TextNode) else None
        if outcome is False and key == "when":
            return None
        if isinstance(outcome, bool):
            node = _without(node, key, *(("otherwise",) if key == "when" else ()))
        elif outcome is not None and isinstance(value, TextNode):
            node = _with(node, TextNode(value.place, key, quoted=False), replace(value, text=spell(outcome)))
    entries = []
    for name, value in node.entries:
        found = _settled(value, given, skipped, step)
        entries.append((name, found if found is not None else value))
    return replace(node, entries=tuple(entries))


def _outcome(node: TextNode, given: Mapping[str, bool]) -> Condition | bool | None:
    """What is left of a condition; None when nothing of it is settled (or it cannot be read, which is told later)."""
    try:
        condition = parse_condition(node.text)
    except NotACondition:
        return None
    found = simplified(condition, given)
    return None if found == condition else found


def simplified(condition: Condition, given: Mapping[str, bool]) -> Condition | bool:
    """`condition` with the facts in `given` put in: True, False, or the condition that is left."""
    match condition:
        case Is(name):
            return given.get(name, condition)
        case Not(inner):
            found = simplified(inner, given)
            return not found if isinstance(found, bool) else Not(found)
        case All(parts) | AnyOf(parts):
            ends = isinstance(condition, AnyOf)  # one true part settles an “or”, one false part an “and”
            found_parts = [simplified(part, given) for part in parts]
            if ends in found_parts:
                return ends
            left = tuple(part for part in found_parts if not isinstance(part, bool))
            if not left:
                return not ends
            return left[0] if len(left) == 1 else type(condition)(left)
    return condition


# Leaving out, with all that refers to it.

_REFERENCES = {"opens": "exposure", "closes": "exposure", "owes": "duty", "fulfils": "duty"}


def _pruned(tree: MapNode, gone: set[str]) -> MapNode:
    entries: list[tuple[TextNode, Node]] = []
    for key, value in tree.entries:
        if key.text in _NAMED and isinstance(value, MapNode):
            value = replace(
                value, entries=tuple(entry for entry in value.entries if entry[0].text not in gone)
            )
            if not value.entries and key.text not in ("parameters", "exposures"):
                continue
        if key.text == "steps" and isinstance(value, ListNode):
            kept = (step for step in value.items if _text(step, "id") not in gone)
            value = replace(value, items=tuple(_pruned_step(step, gone) for step in kept))
        entries.append((key, value))
    return replace(tree, entries=tuple(entries))


def _pruned_step(step: Node, gone: set[str]) -> Node:
    if not isinstance(step, MapNode):
        return step
    own = _text(step, "id")
    entries: list[tuple[TextNode, Node]] = []
    for key, value in step.entries:
        if isinstance(value, ListNode):
            items = value.items
            if key.text in _REFERENCES:
                items = tuple(item for item in items if _text(item, _REFERENCES[key.text]) not in gone)
            elif key.text in ("needs", "gates"):
                items = tuple(item for item in items if f"{own}.{_text(item, 'id')}" not in gone)
                items = tuple(_pruned_gate(item, gone) for item in items)
            if not items:
                continue
            value = replace(value, items=items)
        entries.append((key, value))
    return replace(step, entries=tuple(entries))


def _pruned_gate(gate: Node, gone: set[str]) -> Node:
    """A way back without the items whose proof is gone."""
    items = _get(gate, "items")
    if not isinstance(gate, MapNode) or not isinstance(items, ListNode):
        return gate
    kept = [
        item
        for item in items.items
        if _text(item, "step") not in gone and f"{_text(item, 'step')}.{_text(item, 'gate')}" not in gone
    ]
    return _with(gate, TextNode(items.place, "items", quoted=False), replace(items, items=tuple(kept)))


# Places, and writing it all out.


def placed(node: Node, file: str) -> Node:
    """The tree with every place saying that it is in `file`."""
    place: Place = replace(node.place, file=file)
    match node:
        case TextNode():
            return replace(node, place=place)
        case ListNode(items=items):
            return ListNode(place, tuple(placed(item, file) for item in items))
        case MapNode(entries=entries):
            return MapNode(
                place,
                tuple(
                    (TextNode(replace(key.place, file=file), key.text, key.quoted), placed(value, file))
                    for key, value in entries
                ),
            )


def written(tree: MapNode, notice: str) -> bytes:
    """The tree as a text of its own, which reads as the same tree; `notice` is its first comment."""
    return "\n".join([f"# {notice}", *_lines(tree, 0), ""]).encode()


def _lines(node: MapNode, depth: int) -> Iterator[str]:
    for key, value in node.entries:
        yield from _entry(f"{'  ' * depth}{_scalar(key)}:", value, depth)


def _entry(head: str, value: Node, depth: int) -> Iterator[str]:
    match value:
        case TextNode():
            yield f"{head} {_scalar(value)}"
        case MapNode(entries=entries):
            yield head if entries else f"{head} {{}}"
            yield from _lines(value, depth + 1)
        case ListNode(items=items):
            yield head if items else f"{head} []"
            for item in items:
                yield from _item(item, depth + 1)


def _item(node: Node, depth: int) -> Iterator[str]:
    indent = "  " * depth
    match node:
        case TextNode():
            yield f"{indent}- {_scalar(node)}"
        case MapNode():
            first, *rest = list(_lines(node, depth + 1)) or [f"{indent}  {{}}"]
            yield f"{indent}- {first.lstrip()}"
            yield from rest
        case ListNode():
            yield f"{indent}-"
            for item in node.items:
                yield from _item(item, depth + 1)


def _scalar(node: TextNode) -> str:
    if not node.quoted and _PLAIN.fullmatch(node.text):
        return node.text
    return json.dumps(node.text, ensure_ascii=False)
