"""The tables of a procedure's text: every key, its form, and what it becomes in the core.

`loader.py` reads with them and the JSON Schema for editors is made of them, so that the two cannot differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from upgrades.domain import procedure as p
from upgrades.domain.condition import Condition
from upgrades.procedures import known as k
from upgrades.procedures.forms import (
    EVENT_ID,
    Boolean,
    Choice,
    ConditionText,
    Duration,
    FollowText,
    Identifier,
    Key,
    Kinds,
    Limit,
    ListOf,
    MapOf,
    NamedRecords,
    OneOf,
    OneOrMore,
    Pattern,
    Reading,
    Record,
    Reference,
    Schema,
    Sources,
    Text,
    WholeNumber,
)
from upgrades.procedures.local_checks import (
    check_clients,
    check_effect,
    check_event_gate,
    check_exposure,
    check_group,
    check_outcome,
    check_parameter,
    check_probe,
    check_role,
    check_step,
)
from upgrades.procedures.strict_yaml import Node

MAX_STEPS = 500

_TITLE = Text(most=160)
_PLAIN_TITLE = Text(most=160, filled=False)
_EVENTS = ListOf(EVENT_ID, made=frozenset)

_SOURCE = Key(Sources(), required=True, help="The requirements that this carries out, such as CSH-6a.")
_WHEN = Key(ConditionText(), help="Only when this holds. Left out: always.")

_APPLICATION_TYPE = Pattern(k.APPLICATION_TYPE, "an application type such as ConfigurationServer")

ROLE = Record(
    "role",
    {
        "title": Key(_PLAIN_TITLE, required=True, help="What the start dialog calls it."),
        "type": Key(
            OneOrMore(_APPLICATION_TYPE),
            required=True,
            attribute="application_types",
            help="An application type, or a list of those that it can be.",
        ),
        "is": Key(Choice(("primary", "backup", "standalone")), attribute="standing"),
        "pair-of": Key(Reference("role")),
    },
    p.Role,
    named_by="name",
    check=check_role,
)

GROUP = Record(
    "group",
    {
        "title": Key(_PLAIN_TITLE, required=True, help="What its members are."),
        "type": Key(_APPLICATION_TYPE, attribute="application_type", help="All applications of this type."),
        "pair-of": Key(
            Reference("role"), help="Instead of `type`: this server and its peer, the backup first."
        ),
        "beside": Key(_APPLICATION_TYPE, help="Only those with a server of this type on their host …"),
        "runs": Key(
            OneOrMore(Choice(("none", "standalone", "primary", "backup"))),
            help="… that runs as one of these, in this order; none: without such a server.",
        ),
        "when": Key(
            ConditionText(), help="Only those for which this may hold, such as each.version < target."
        ),
        "only": Key(Reference("parameter"), help="A parameter that lists hosts; empty, it leaves none out."),
    },
    p.Group,
    named_by="name",
    check=check_group,
)

PARAMETER = Record(
    "parameter",
    {
        "title": Key(_PLAIN_TITLE, required=True, help="The question of the start dialog."),
        "type": Key(Choice(tuple(p.ParameterType), p.ParameterType), required=True),
        "help": Key(Text(filled=False)),
        "source": Key(Sources()),
        "default-from": Key(
            Text(most=120, filled=False), help="A fact of the environment that is offered as the answer."
        ),
        "default": Key(Text(most=200, filled=False)),
        "required-when": Key(ConditionText(), help="The answer may be left out unless this holds."),
        "required": Key(Boolean(), help="false: the answer may be left out."),
    },
    p.Parameter,
    named_by="name",
    check=check_parameter,
)


def _exposure(*, maximum: int | str | None = None, **values: Any) -> p.ExposureKind:
    if isinstance(maximum, str):
        return p.ExposureKind(maximum_from=maximum, **values)
    return p.ExposureKind(maximum=maximum, **values)


EXPOSURE = Record(
    "exposure",
    {
        "title": Key(_TITLE, required=True),
        "text": Key(Text(most=400), required=True, help="What is weaker while it lasts."),
        "source": _SOURCE,
        "expected": Key(Duration(), help="How long it lasts when all goes well."),
        "at-most": Key(
            Limit(),
            attribute="maximum",
            help="From here on somebody has to act. {fact: name}: a countdown of as many seconds as that fact holds.",
        ),
    },
    _exposure,
    check=check_exposure,
)

DUTY = Record("duty", {"title": Key(_TITLE, required=True), "source": _SOURCE}, p.DutyKind)

_CHANGE = {
    "exposure": Key(Reference("exposure"), required=True),
    "at": Key(
        Choice(tuple(p.Moment), p.Moment), required=True, help="At the step's begin, or when it is complete."
    ),
    "when": _WHEN,
}
EXPOSURE_CHANGE = Record("change", _CHANGE, p.ExposureChange)

OWED = Record(
    "owed",
    {
        "duty": Key(Reference("duty"), required=True),
        "at": Key(
            Choice(("complete", "begin"), p.Moment),
            help="begin: already while the step is carried out. Left out: when it is complete.",
        ),
        "when": _WHEN,
    },
    p.Owed,
)

EFFECT = Record(
    "effect",
    {
        "set": Key(Text(most=120, filled=False), required=True, help="The fact, such as new.mode."),
        "to": Key(
            Text(most=120, filled=False), required=True, help="A value, or the name of a fact that has it."
        ),
        "when": _WHEN,
    },
    p.Effect,
    check=check_effect,
)

NOTICE = Record(
    "notice",
    {
        "text": Key(Text(most=600), required=True),
        "source": _SOURCE,
        "warn": Key(Boolean(), help="true: it stands out."),
        "when": _WHEN,
    },
    p.Notice,
)

OUTCOME = Record(
    "outcome",
    {
        "id": Key(Identifier(), required=True),
        "title": Key(_TITLE, required=True),
        "source": _SOURCE,
        "events": Key(
            ListOf(OneOf(), most=20), required=True, help="In this order; others may stand between."
        ),
        "none-between": Key(
            _EVENTS, help="Seen between the first and the last of them, these rule the outcome out."
        ),
        "none-before": Key(_EVENTS, help="Seen before the last of them, these rule the outcome out."),
        "when": _WHEN,
        "then": Key(FollowText(may_hold=True), required=True, attribute="follow", help="Say what follows."),
    },
    p.Outcome,
    check=check_outcome,
)

WAY_BACK_ITEM = Record(
    "item",
    {
        "title": Key(_TITLE, required=True),
        "step": Key(Reference("step"), required=True, help="The earlier step whose gate shows it."),
        "gate": Key(Identifier(), required=True),
        "when": _WHEN,
    },
    p.WayBackItem,
    named_by="title",
)


def _event_gate(
    *,
    id: str,  # noqa: A002 - the core's name
    title: str,
    source: tuple[str, ...],
    when: Condition | None = None,
    **rule: Any,
) -> p.EventGate:
    return p.EventGate(id=id, title=title, source=source, when=when, rule=p.EventRule(**rule))


def _gate(kind: str, made: Any, keys: dict[str, Key], check: Any = None) -> Record:
    common = {
        "id": Key(Identifier(), required=True),
        "kind": Key(Choice((kind,)), required=True, attribute="kind"),
        "title": Key(_TITLE, required=True),
        "source": _SOURCE,
        "when": _WHEN,
    }

    def without_kind(kind: str, **values: Any) -> Any:  # noqa: ARG001 - the class says it
        return made(**values)

    return Record("gate", {**common, **keys}, without_kind, check=check, schema_name=f"{kind}-gate")


_SERVER = Key(Reference("role", or_part=True), required=True)

GATES = Kinds(
    "gate",
    {
        "confirm": _gate(
            "confirm",
            p.ConfirmGate,
            {"ask": Key(Text(most=600), required=True, help="What the person states.")},
        ),
        "check": _gate(
            "check",
            p.CheckGate,
            {
                "condition": Key(ConditionText(), required=True),
                "otherwise": Key(
                    Text(most=600), required=True, help="What is wrong if it does not hold, and what to do."
                ),
            },
        ),
        "probe": _gate(
            "probe",
            p.ProbeGate,
            {
                "server": _SERVER,
                "probe": Key(Choice(tuple(p.Probe), p.Probe), required=True),
                "folder": Key(
                    Choice(("current", "prepared", "kept")), help="A folder that the host's agent knows."
                ),
            },
            check_probe,
        ),
        "evidence": _gate(
            "evidence",
            p.EvidenceGate,
            {
                "accepts": Key(ListOf(Choice(("file", "text")), made=frozenset), required=True),
                "ask": Key(Text(most=600), required=True, help="What is to be attached."),
            },
        ),
        "events": _gate(
            "events",
            _event_gate,
            {
                "server": _SERVER,
                "outcomes": Key(
                    ListOf(OUTCOME, unique="id", most=40), required=True, help="Tried in this order."
                ),
                "normal": Key(
                    MapOf(EVENT_ID, Text(most=200)), help="Events that are counted and shown, never an error."
                ),
                "titles": Key(MapOf(EVENT_ID, Text(most=120)), help="What the page calls each event."),
                "quiet-after": Key(Duration(), help="Then a person is asked. It never decides."),
                "hold-on-end": Key(
                    Boolean(),
                    help="true (the default): the server's end after the verdict puts the run on hold.",
                ),
                "watch-until": Key(Reference("step"), help="The verdict is watched until this step begins."),
            },
            check_event_gate,
        ),
        "clients": _gate(
            "clients",
            p.ClientsGate,
            {
                "leaving": _SERVER,
                "joining": _SERVER,
                "baseline": Key(
                    Reference("step"),
                    required=True,
                    help="At its begin the clients of `leaving` are counted.",
                ),
            },
            check_clients,
        ),
        "approval": _gate("approval", p.ApprovalGate, {"policy": Key(Identifier(), required=True)}),
        "way-back": _gate("way-back", p.WayBackGate, {"items": Key(ListOf(WAY_BACK_ITEM), required=True)}),
    },
)

_CHANGES = Key(ListOf(EXPOSURE_CHANGE, most=20))

STEP = Record(
    "step",
    {
        "id": Key(Identifier(), required=True),
        "title": Key(_TITLE, required=True),
        "source": _SOURCE,
        "phase": Key(_TITLE, required=True, help="The heading under which the page lists it."),
        "for-each": Key(
            Reference("group"),
            help="Once for each member; steps of one group that follow each other are repeated together.",
        ),
        "do": Key(
            ListOf(Text(most=600), most=30), required=True, help="What the person does, one act a line."
        ),
        "notices": Key(ListOf(NOTICE, most=30)),
        "when": Key(ConditionText(), help="The step is skipped when this surely does not hold."),
        "otherwise": Key(Text(most=300), help="What the record says when it is skipped."),
        "needs": Key(ListOf(GATES, most=40), help="Met before the step begins."),
        "gates": Key(ListOf(GATES, most=40), help="Met before the step is complete."),
        "opens": _CHANGES,
        "closes": _CHANGES,
        "effects": Key(ListOf(EFFECT, most=20), help="Facts that are true once the step is complete."),
        "owes": Key(ListOf(OWED, most=20)),
        "fulfils": Key(ListOf(OWED, most=20)),
        "aside": Key(Boolean(), help="true: reached only by go-to."),
        "numbered": Key(Boolean()),
        "destroys": Key(
            Boolean(), help="true: it stops, replaces or overwrites something; then it needs a way back."
        ),
        "completes": Key(Choice(tuple(p.Completes), p.Completes)),
        "then": Key(FollowText(), help="What follows the step. Left out: the next one."),
        "expected": Key(Duration()),
    },
    p.Step,
    check=check_step,
)

PROCEDURE = Record(
    "",
    {
        "procedure": Key(Identifier(), required=True, attribute="id", help="The name of its folder."),
        "version": Key(WholeNumber(), required=True, help="A published version never changes; count on."),
        "title": Key(_PLAIN_TITLE, required=True),
        "summary": Key(Text(filled=False), required=True),
        "source": _SOURCE,
        "authors": Key(
            ListOf(Text(most=120, filled=False), most=20),
            required=True,
            help="Who wrote it: account names. They may not approve its runs.",
        ),
        "component": Key(
            Pattern(k.APPLICATION_TYPE, "a component type such as ConfigurationServer"), required=True
        ),
        "offered-when": Key(ConditionText()),
        "roles": Key(NamedRecords(Identifier(in_conditions=True), ROLE)),
        "groups": Key(NamedRecords(Identifier(), GROUP)),
        "parameters": Key(NamedRecords(Identifier(in_conditions=True), PARAMETER), required=True),
        "exposures": Key(NamedRecords(Identifier(), EXPOSURE), required=True),
        "duties": Key(NamedRecords(Identifier(), DUTY)),
        "steps": Key(ListOf(STEP, most=MAX_STEPS, unique="id"), required=True),
    },
    p.Procedure,
    schema_name="procedure",
)

# A text that extends another one (`extending.py` puts the two together before these tables read the result).


def _optional(keys: Mapping[str, Key], *required: str) -> dict[str, Key]:
    return {name: replace(key, required=name in required) for name, key in keys.items()}


_BASE = Record(
    "base",
    {"procedure": Key(Identifier(), required=True), "version": Key(WholeNumber(), required=True)},
    dict,
    schema_name="base",
)
_LISTS = ("do", "notices", "opens", "closes", "effects", "owes", "fulfils")


class _Entries:
    """Entries of a list by their id, each with the keys that are different, or a whole new one."""

    blank: tuple[Any, ...] = ()

    def read(self, _node: Node, _to: Reading, _item: str) -> tuple[Any, ...]:
        return self.blank  # what they become is read in the whole text

    def schema(self, _: dict[str, Schema]) -> Schema:
        entry = {"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]}
        return {"type": "array", "items": entry, "minItems": 1}


_CHANGED = Key(
    _Entries(), help="Gates by their id, with the keys that are different; a new id is a new gate."
)
CHANGE = Record(
    "change",
    {
        **_optional(STEP.keys, "id"),
        "needs": _CHANGED,
        "gates": _CHANGED,
        "also": Key(
            Record("addition", _optional({name: STEP.keys[name] for name in _LISTS}), dict),
            help="What is added to the lists of the step.",
        ),
    },
    dict,
    schema_name="step-change",
)
_HEAD = ("procedure", "version", "title", "summary", "source", "authors")
EXTENSION = Record(
    "",
    {
        "extends": Key(_BASE, required=True, help="The text that this one changes."),
        **_optional({name: key for name, key in PROCEDURE.keys.items() if name != "steps"}, *_HEAD),
        "given": Key(
            MapOf(Identifier(), Boolean()),
            help="Parameters whose answer is settled; nobody is asked, and what they rule out is left out.",
        ),
        "leave-out": Key(
            ListOf(Text(most=130, filled=False)),
            help="Names of steps, of gates as step.gate, of roles, parameters, exposures and duties.",
        ),
        "change": Key(
            ListOf(CHANGE, most=MAX_STEPS), help="Steps by their id, with the keys that are different."
        ),
    },
    dict,
    schema_name="extension",
)
