"""What an API token may be for. A scope never adds a right: it only lets through what its owner has."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

READ, OPERATE, EDIT, NOTICES, AUDIT = "read", "operate", "edit", "notices", "audit"
SCOPES = {
    READ: "Look at environments, procedures, plans, runs and what waits for signatures",
    OPERATE: "Save plans and their times, start runs and carry them out; never sign, reject or override",
    EDIT: "Change environments: servers, hosts, targets, imports",
    NOTICES: "Choose who is told: what is mailed to its owner, and an environment's endpoints",
    AUDIT: "Take records out: lists for an audit, the register, bundles, evidence files. Each is recorded",
}
LONGEST = timedelta(days=365)
PREFIX = "rbk"


def known_scopes(chosen: Iterable[str]) -> tuple[str, ...]:
    """Those of `chosen` that exist, each once, in their own order."""
    wanted = set(chosen)
    return tuple(scope for scope in SCOPES if scope in wanted)
