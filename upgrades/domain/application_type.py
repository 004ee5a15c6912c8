"""Application types and their numbers (genesys.md 1.4): 21-22170 is event 22170 of a Configuration Server."""

from __future__ import annotations

# A Configuration Server Proxy shows up as a Configuration Server, so its events carry 21 too.
NUMBERS = {
    "ConfigurationServer": "21",
    "ConfigurationServerProxy": "21",
    "MessageServer": "42",
    "SCS": "43",
    "SNMPAgent": "45",
    "RealDBServer": "46",
    "LCA": "LCA",
    "TServer": "01",
    "StatServer": "02",
}


def type_number(application_type: str) -> str:
    """The two digits that events of this type carry ("LCA" has none); "00" for a type that is not known here."""
    return NUMBERS.get(application_type, "00")
