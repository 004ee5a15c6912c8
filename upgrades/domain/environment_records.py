"""An environment as records of texts: what a form, a CSV file or a YAML file says, and what must hold together.

Every value is its canonical text (“yes”, “2020”, “8.5.101”; empty: not known), so that files, forms, differences and
the record of changes all speak of the same thing. `FIELDS` is the one table of what an environment consists of.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from functools import lru_cache
from ipaddress import IPv4Address, ip_address

from upgrades.domain.application_type import NUMBERS
from upgrades.domain.record import canonical
from upgrades.domain.version import NotAVersion, Version


class Kind(StrEnum):
    """What a record is about; the order is that of files and differences."""

    ENVIRONMENT = "environment"
    TARGET = "target"
    HOST = "host"
    APPLICATION = "application"


class NotUsable(ValueError):
    """A text cannot be the value of its field; the message says what could."""


LCA = "LCA"
PATH_SHOWN = 12  # members of a chain of peers that a mistake names
# Components that have a target version but are no Application objects.
TARGETS_ONLY = (LCA, "ConfigurationDatabase", "LogDatabase")

# Marks that turn the reading order round, and invisible ones that make two names look like one.
UNSEEN = frozenset(
    "\u00ad\u061c\u180e\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2061\u2062\u2063\u2064"
    "\u2066\u2067\u2068\u2069\ufeff"
)


def is_allowed(char: str) -> bool:
    """Whether the character may stand in a value: seen by people, on one line."""
    return unicodedata.category(char) not in ("Cc", "Cs", "Co", "Cn", "Zl", "Zp") and char not in UNSEEN


@lru_cache(maxsize=50_000)
def folded(name: str) -> str:
    """The form in which two names are the same when they differ only in case, width or composition."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


# Readers: a text as somebody wrote it -> the canonical one, or NotUsable.


def _text(most: int) -> Callable[[str], str]:
    def read(raw: str) -> str:
        text = raw.strip()
        bad = next((char for char in text if not is_allowed(char)), None)
        if bad is not None:
            raise NotUsable(
                f"The character U+{ord(bad):04X} must not stand here. Type the text again without it."
            )
        if len(text) > most:
            raise NotUsable(f"This has {len(text)} characters; at most {most} are kept. Shorten it.")
        return text

    return read


def _needed(read: Callable[[str], str], what: str) -> Callable[[str], str]:
    def read_needed(raw: str) -> str:
        text = read(raw)
        if not text:
            raise NotUsable(f"{what} is missing. Write it here.")
        return text

    return read_needed


_MONTH = "jan|feb|m[aä]r|apr|ma[iy]|jun|jul|aug|sep|o[ck]t|nov|de[cz]"
_DATE = re.compile(
    rf"(?:\d{{1,2}}([./-])\d{{1,2}}\1(?:19|20)\d\d|(?:19|20)\d\d([./-])\d{{1,2}}\2\d{{1,2}}|\d{{1,2}}[/-]\d{{1,2}}(?:[/-]\d\d)?"
    rf"|\d{{1,2}}[. -]+(?:{_MONTH})[a-z]*\.?(?:[ -]?\d{{2,4}})?|(?:{_MONTH})[a-z]*\.?[ -]\d{{1,4}})(?:[ T].*)?",
    re.IGNORECASE | re.ASCII,
)


def _refuse_date(text: str) -> None:
    if _DATE.fullmatch(text):
        raise NotUsable(
            f"“{text[:40]}” looks like a date: spreadsheets make one of a version such as 8.5. "
            "Format the column as text and type the version again."
        )


def read_version(raw: str) -> str:
    """A version; “unknown” and an empty text are both: not known."""
    text = _text(40)(raw)
    if folded(text) in ("", "unknown"):
        return ""
    _refuse_date(text)
    if "," in text:
        raise NotUsable(f"“{text}” has a comma. Versions are written with dots, for example 8.5.101.")
    try:
        return Version.parse(text).text
    except NotAVersion as error:
        raise NotUsable(str(error)) from None


def _system_version(raw: str) -> str:
    text = _text(40)(raw)
    _refuse_date(text)
    return text


def read_port(raw: str) -> str:
    """1 to 65535 in plain digits, or empty."""
    text = raw.strip()
    if not text:
        return ""
    if not re.fullmatch(r"[1-9][0-9]{0,4}", text, re.ASCII) or int(text) > 65535:
        raise NotUsable(f"“{text[:20]}” is not a port. Write a number from 1 to 65535 in plain digits.")
    return text


_YES_NO = {"yes": "yes", "true": "yes", "no": "no", "false": "no"}


def _flag(when_empty: str) -> Callable[[str], str]:
    def read(raw: str) -> str:
        text = raw.strip()
        if not text:
            return when_empty
        if folded(text) not in _YES_NO:
            raise NotUsable(f"“{text[:20]}” is neither yes nor no. Write one of them.")
        return _YES_NO[folded(text)]

    return read


ROLES = ("primary", "backup", "standalone")


def _role(raw: str) -> str:
    text = folded(raw.strip())
    if text and text not in ROLES:
        raise NotUsable(f"“{raw.strip()[:20]}” is not a role. Write primary, backup or standalone.")
    return text or "standalone"


_KNOWN_TYPES = {folded(name): name for name in (*NUMBERS, *TARGETS_ONLY)}


def _component(raw: str) -> str:
    """A known type in its own spelling whatever its case and blanks; another one as it was written."""
    text = _text(60)(raw)
    if not text:
        raise NotUsable("The type is missing. Write it here, for example ConfigurationServer.")
    return _KNOWN_TYPES.get(folded(text).replace(" ", ""), text)


def _application_type(raw: str) -> str:
    text = _component(raw)
    if text == LCA:
        raise NotUsable("LCA is no application here: write its version as lca_version of its host.")
    if text in TARGETS_ONLY:
        raise NotUsable(f"{text} is no application: only a target can have this type.")
    return text


_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)", re.ASCII)
_NUMBER_LIKE = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)


def read_host(raw: str) -> str:
    """The one canonical form of a host's name or address: lower case, no dot at the end, addresses in full."""
    text = raw.strip()
    if not text:
        raise NotUsable("The host is missing. Write its name here.")
    if not text.isascii():
        raise NotUsable(
            f"“{text[:40]}” has characters outside a-z, 0-9. Write the name as DNS has it (xn--…)."
        )
    name = text.lower().removesuffix(".")
    if ":" in name and not _is_address(name):
        raise NotUsable(f"“{text[:40]}” is not a host's name. A port has a column of its own.")
    if _is_address(name):
        return _address(name)
    return _host_name(name, text)


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _address(name: str) -> str:
    address = ip_address(name)
    mapped = None if isinstance(address, IPv4Address) else address.ipv4_mapped
    where = mapped or address
    if where.is_loopback or where.is_unspecified or where.is_multicast or where.is_link_local or "%" in name:
        raise NotUsable(f"“{name}” is no address of one machine in the network. Write the host's own name.")
    return str(where)


def _host_name(name: str, text: str) -> str:
    labels = name.split(".")
    if _NUMBER_LIKE.fullmatch(labels[-1]):
        raise NotUsable(
            f"“{text[:40]}” is a number or an incomplete address. Write all four parts, or the name."
        )
    if labels[-1] in ("localhost", "localdomain"):
        raise NotUsable("“localhost” is what every machine calls itself. Write the host's own name.")
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise NotUsable(
            f"“{text[:40]}” is not a host's name. Write letters, digits, dashes and dots, at most 253 characters, "
            "for example fra-cfg-01.example.net."
        )
    return name


# The table.


@dataclass(frozen=True, slots=True)
class Field:
    """A part of a record. `name` is the column of a CSV file and, with dashes, the key of a YAML file."""

    name: str
    title: str
    read: Callable[[str], str]
    default: str = ""


FIELDS: dict[Kind, tuple[Field, ...]] = {
    Kind.ENVIRONMENT: (
        Field("name", "Name", _needed(_text(120), "The name")),
        Field("disaster_recovery", "Disaster recovery", _flag("no"), "no"),
        Field("single_language", "Single-language database", _flag("")),
        Field("schema_version", "Schema of the Configuration Database", read_version),
        Field("log_schema_version", "Schema of the log database", read_version),
        Field("uses_lrm", "Uses License Reporting Manager 8.5", _flag("no"), "no"),
    ),
    Kind.TARGET: (
        Field("type", "Component", _component),
        Field("version", "Target version", _needed(read_version, "The target version")),
    ),
    Kind.HOST: (
        Field("host", "Host", read_host),
        Field("host_type", "Type of the Host object", _text(40)),
        Field("site", "Site", _text(80)),
        Field("os_name", "Operating system", _text(80)),
        Field("os_version", "Version of the operating system", _system_version),
        Field("lca_version", "LCA version", read_version),
    ),
    Kind.APPLICATION: (
        Field("name", "Name of the Application object", _needed(_text(120), "The name")),
        Field("type", "Application type", _application_type),
        Field("version", "Version", read_version),
        Field("role", "Role", _role, "standalone"),
        Field("peer", "Peer of the pair", _text(120)),
        Field("port", "Port", read_port),
        Field("folder", "Installation folder", _text(300)),
        Field("database", "Configuration database", _text(200)),
        Field("dormant", "Dormant copy", _flag("no"), "no"),
        Field("host", "Host", read_host),
    ),
}
KEYS = {Kind.ENVIRONMENT: "name", Kind.TARGET: "type", Kind.HOST: "host", Kind.APPLICATION: "name"}


def field_of(kind: Kind, name: str) -> Field:
    return next(field for field in FIELDS[kind] if field.name == name)


Ident = tuple[Kind, str]


def ident(kind: Kind, name: str) -> Ident:
    """What makes two records the same one. There is one environment in a content, whatever its name."""
    return (kind, "" if kind is Kind.ENVIRONMENT else folded(name))


@dataclass(frozen=True, slots=True)
class Record:
    """All fields of one kind, by name."""

    kind: Kind
    values: Mapping[str, str]

    def __getitem__(self, name: str) -> str:
        return self.values[name]

    @property
    def name(self) -> str:
        return self.values[KEYS[self.kind]]

    @property
    def ident(self) -> Ident:
        return ident(self.kind, self.name)

    def digest(self) -> str:
        """Of what somebody saw of it: another digest means that it was changed meanwhile."""
        return hashlib.sha256(
            canonical({"kind": self.kind, "values": dict(self.values)}).encode()
        ).hexdigest()


def blank(kind: Kind, name: str = "") -> Record:
    """A record of which nothing is known but its name."""
    return Record(kind, {field.name: field.default for field in FIELDS[kind]} | {KEYS[kind]: name})


@dataclass(frozen=True, slots=True)
class Content:
    """All records of an environment. Not in it: people and their roles, policies, agents and keys, runs."""

    records: Mapping[Ident, Record]

    @classmethod
    def of(cls, records: Iterable[Record]) -> Content:
        return cls({record.ident: record for record in records})

    def get(self, kind: Kind, name: str) -> Record | None:
        return self.records.get(ident(kind, name))

    def all(self, kind: Kind) -> list[Record]:
        """The records of a kind in the order of files and pages."""
        found = (record for record in self.records.values() if record.kind is kind)
        return sorted(found, key=lambda record: (folded(record.name), record.name))

    @property
    def environment(self) -> Record:
        return self.records[ident(Kind.ENVIRONMENT, "")]

    def put(self, *records: Record, instead_of: Iterable[Ident] = ()) -> Content:
        """This content with the records added or replaced, and `instead_of` taken away first."""
        left = {key: record for key, record in self.records.items() if key not in set(instead_of)}
        return Content(left | {record.ident: record for record in records})

    def digest(self) -> str:
        ordered = [[record.kind, dict(record.values)] for kind in Kind for record in self.all(kind)]
        return hashlib.sha256(canonical({"records": ordered}).encode()).hexdigest()


# What must hold together.


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that does not fit together, at one field of one record. A remark is shown but stops nothing."""

    ident: Ident
    field: str
    message: str
    is_remark: bool = False


def problems(content: Content) -> list[Problem]:
    """Everything that does not fit together, in the order of the records."""
    found = [*_places(content), *_pairs(content), *_spellings(content), *_remarks(content)]
    kinds = list(Kind)
    return sorted(found, key=lambda one: (kinds.index(one.ident[0]), one.ident[1], one.field))


# What a record cannot do without, though a file may leave it out of one that is there already.
_INDISPENSABLE = {
    Kind.ENVIRONMENT: ("name",),
    Kind.TARGET: ("version",),
    Kind.HOST: (),
    Kind.APPLICATION: ("type", "host"),
}


def _places(content: Content) -> Iterator[Problem]:
    for record in content.records.values():
        for name in _INDISPENSABLE[record.kind]:
            if not record[name]:
                yield Problem(
                    record.ident, name, f"The {name} of this {record.kind} is missing. Write it here."
                )
    for application in content.all(Kind.APPLICATION):
        if application["host"] and content.get(Kind.HOST, application["host"]) is None:
            yield Problem(
                application.ident,
                "host",
                f"The host {application['host']} is not there. Add it, or write another one.",
            )


def _pairs(content: Content) -> Iterator[Problem]:
    for one in content.all(Kind.APPLICATION):
        if not one["peer"]:
            if one["role"] != "standalone":
                yield Problem(
                    one.ident,
                    "peer",
                    f"{one.name} is {one['role']}, but of no pair. Name its peer, or make it standalone.",
                )
            continue
        if folded(one["peer"]) == folded(one.name):
            yield Problem(
                one.ident, "peer", f"{one.name} cannot be its own peer. Name the other server of the pair."
            )
            continue
        other = content.get(Kind.APPLICATION, one["peer"])
        if other is None:
            yield Problem(
                one.ident, "peer", f"{one['peer']} is not there, so {one.name} has no peer. Correct the name."
            )
            continue
        yield from _pair(content, one, other)


def _pair(content: Content, one: Record, other: Record) -> Iterator[Problem]:
    if folded(other["peer"]) != folded(one.name):
        yield Problem(one.ident, "peer", _path(content, one))
        return
    if one["role"] == "standalone":
        yield Problem(one.ident, "role", f"{one.name} has the peer {other.name}. Make it primary or backup.")
    if other.ident < one.ident:
        return  # the rest is said once, at the first of the two
    if one["role"] == other["role"] and one["role"] != "standalone":
        yield Problem(
            other.ident,
            "role",
            f"{one.name} and {other.name} are both {one['role']}. A pair has one primary and one backup.",
        )
    if folded(one["host"]) == folded(other["host"]):
        yield Problem(
            other.ident,
            "host",
            f"{one.name} and {other.name} stand on one host. A pair needs two, or one fault stops both.",
        )
    if one["type"] != other["type"]:
        yield Problem(
            other.ident,
            "type",
            f"{other.name} is a {other['type']} and its peer {one.name} a {one['type']}. A pair has one type.",
        )
    if one["dormant"] != other["dormant"]:
        yield Problem(
            other.ident,
            "dormant",
            f"Only one of {one.name} and {other.name} is dormant. Both members of a pair are, or neither.",
        )


_SHOWN = 8  # names of a long way from peer to peer


def _path(content: Content, start: Record) -> str:
    """The way from peer to peer as the records have it, until it comes back, ends, or has been shown long enough."""
    path = [start]
    after = content.get(Kind.APPLICATION, start["peer"])
    while after is not None and after not in path and len(path) < _SHOWN:
        path.append(after)
        after = content.get(Kind.APPLICATION, after["peer"])
    names = [record.name for record in path]
    if len(path) == 2 and after is None:
        return f"{names[0]} names {names[1]} as its peer, but {names[1]} names nobody. Both must name each other."
    if after is not None:
        names.append(after.name if after in path else "…")
    return f"{' → '.join(names)}: a pair has two members that name each other. Correct the peers."


def _spellings(content: Content) -> Iterator[Problem]:
    """A machine with its short and its full name would be two hosts, and a pair could stand on it unnoticed."""
    hosts = content.all(Kind.HOST)
    short = {host.name: host for host in hosts if "." not in host.name and not _is_address(host.name)}
    for host in hosts:
        if _is_address(host.name):
            continue
        first, dot, _ = host.name.partition(".")
        if dot and first in short:
            yield Problem(
                host.ident,
                "host",
                f"{first} and {host.name} look like one machine under two spellings. Use one of them.",
            )


def _remarks(content: Content) -> Iterator[Problem]:
    ports: defaultdict[tuple[str, str], list[Record]] = defaultdict(list)
    for one in content.all(Kind.APPLICATION):
        if one["port"] and one["dormant"] == "no":
            ports[(folded(one["host"]), one["port"])].append(one)
        if one["type"] not in NUMBERS:
            yield Problem(
                one.ident,
                "type",
                f"{one['type']} is not a type that is known here.{_nearest(one['type'])}",
                True,
            )
        if not one["version"]:
            yield Problem(
                one.ident,
                "version",
                f"The version of {one.name} is not known; gates that need it stay shut.",
                True,
            )
    for sharing in ports.values():
        if len(sharing) > 1:
            names = " and ".join(one.name for one in sharing)
            yield Problem(sharing[-1].ident, "port", f"{names} have the same port on one host.", True)
    for host in content.all(Kind.HOST):
        if _is_address(host.name):
            yield Problem(
                host.ident,
                "host",
                f"{host.name} is an address. If the machine is here by name too, it counts twice.",
                True,
            )


@lru_cache(maxsize=1000)
def _nearest(text: str) -> str:
    close = get_close_matches(text[:60], sorted(NUMBERS), n=1, cutoff=0.75)
    return f" Did you mean {close[0]}?" if close else " Its log events are then not recognised by type."


# Differences.


@dataclass(frozen=True, slots=True)
class FieldChange:
    field: str
    title: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Change:
    """One record added, changed or removed. For one that was added or removed the fields are those that say something."""

    kind: Kind
    act: str  # added, changed, removed
    name: str
    fields: tuple[FieldChange, ...]
    before: Record | None
    after: Record | None


def difference(
    before: Content, after: Content, renamed: Mapping[Ident, Ident] | None = None
) -> tuple[Change, ...]:
    """What leads from one content to the other, in the order of the records. `renamed`: new ident to old one."""
    renamed = renamed or {}
    gone = set(renamed.values())
    changes = []
    for kind in Kind:
        keys = {
            key
            for content in (before, after)
            for key in content.records
            if key[0] is kind and key not in gone
        }
        for key in sorted(keys | {new for new in renamed if new[0] is kind}):
            old, new = before.records.get(renamed.get(key, key)), after.records.get(key)
            if old != new:
                changes.append(_change(kind, old, new))
    return tuple(changes)


def _change(kind: Kind, old: Record | None, new: Record | None) -> Change:
    shown = old or new
    assert shown is not None
    nothing = blank(kind, shown.name)  # of what comes or goes, the name and what is as always need no telling
    pairs = ((field, (old or nothing)[field.name], (new or nothing)[field.name]) for field in FIELDS[kind])
    fields = tuple(
        FieldChange(field.name, field.title, was if old is not None else "", now if new is not None else "")
        for field, was, now in pairs
        if was != now
    )
    act = "added" if old is None else "removed" if new is None else "changed"
    return Change(kind, act, shown.name, fields, old, new)
