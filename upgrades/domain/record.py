"""Canonical text and the hash chain: what the record of a run is made of (design.md section 8)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

GENESIS = "0" * 64


def canonical(body: Mapping[str, Any]) -> str:
    """The one text of `body`: sorted keys, no blanks, UTF-8 characters as they are. This text is what is hashed."""
    return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(body: Mapping[str, Any]) -> str:
    """SHA-256 (64 hex digits) of the canonical text of `body`."""
    return hashlib.sha256(canonical(body).encode()).hexdigest()


def link(previous: str, text: str) -> str:
    """The hash of the record `text` that follows the record whose hash is `previous`."""
    return hashlib.sha256(previous.encode() + b"\n" + text.encode()).hexdigest()
