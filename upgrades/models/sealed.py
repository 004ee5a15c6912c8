"""Text that must not be readable in the database, in its backups or in a log of its statements."""

from __future__ import annotations

import base64
import functools
import secrets
from typing import TYPE_CHECKING, Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings
from django.db import models

_MARK = "sealed1."
_NONCE = 12


def seal(text: str) -> str:
    """The text encrypted with a key made of SECRET_KEY (AES-256-GCM); each time another one."""
    nonce = secrets.token_bytes(_NONCE)
    sealed = _cipher(settings.SECRET_KEY).encrypt(nonce, text.encode(), _MARK.encode())
    return _MARK + base64.b64encode(nonce + sealed).decode()


def unseal(text: str) -> str:
    """The text that was sealed; empty where neither SECRET_KEY nor the one before opens it."""
    try:
        raw = base64.b64decode(text.removeprefix(_MARK), validate=True)
    except ValueError:
        return ""
    for key in (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS):
        try:
            return _cipher(key).decrypt(raw[:_NONCE], raw[_NONCE:], _MARK.encode()).decode()
        except (InvalidTag, ValueError):
            continue
    return ""


@functools.cache
def _cipher(key: str) -> AESGCM:
    derived = HKDF(algorithm=SHA256(), length=32, salt=None, info=b"runbook sealed text")
    return AESGCM(derived.derive(key.encode()))


if TYPE_CHECKING:
    _Text = models.TextField[str, str]  # generic for the type checker only
else:
    _Text = models.TextField


class SealedText(_Text):
    """Sealed in the database, plain in Python. It cannot be searched for."""

    def get_prep_value(self, value: Any) -> Any:
        value = super().get_prep_value(value)
        return seal(value) if isinstance(value, str) and value else value

    def from_db_value(self, value: str | None, *_: Any) -> str | None:
        return unseal(value) if value else value
