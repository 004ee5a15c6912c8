"""The key that signs checkpoints: a file that only the checkpoint process may read.

Its first line is the name that its signatures carry, as “name: runbook.example.org/runbook”: auditors know the key by that
name, so it stays with the key whatever the installation is called later. Older files have no such line.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from upgrades.domain.checkpoint import Checkpoint, Note, PublicKey, Signature, note_text
from upgrades.domain.refusal import Refused

NAME_LINE = "name: "


class NoKey(Refused):
    """There is no key that could sign, or the file is not as it must be. Acts go on without."""

    code = "no-key"


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key and the name that its signatures carry."""

    name: str
    private: Ed25519PrivateKey

    @property
    def public(self) -> PublicKey:
        raw = self.private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return PublicKey(self.name, raw)

    def note(self, checkpoint: Checkpoint) -> str:
        """The checkpoint as a note with this key's signature."""
        value = self.private.sign(checkpoint.body.encode())
        return note_text(checkpoint, [Signature(self.name, self.public.id, value)])


def make_key(path: Path, name: str) -> SigningKey:
    """A new key in a new file that its owner alone may read. FileExistsError: there is one, and it stays."""
    private = Ed25519PrivateKey.generate()
    path.parent.mkdir(parents=True, exist_ok=True)
    opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(opened, "wb") as file:
        file.write(f"{NAME_LINE}{name}\n".encode())
        file.write(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        file.flush()
        os.fsync(file.fileno())
    return SigningKey(name, private)


def read_signing_key(path: Path, name: str) -> SigningKey:
    """The key in the file; `name` is for a file without a name. `NoKey` says why there is none, and what to do."""
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            text = file.read(10_000)
    except OSError as trouble:
        raise NoKey(
            f"The key that signs checkpoints cannot be read ({trouble.strerror}: {path}). "
            "Restore it, or make a new one with: manage.py make_checkpoint_key"
        ) from None
    if mode & 0o077:
        raise NoKey(
            f"Others than its owner may read the key {path}. Take their rights away: chmod 600 {path}"
        )
    try:
        private = load_pem_private_key(text, password=None)
    except ValueError:
        private = None
    if not isinstance(private, Ed25519PrivateKey):
        raise NoKey(f"{path} holds no Ed25519 key. Restore it from your copy.")
    return SigningKey(_name_in(path, text) or name, private)


def _name_in(path: Path, text: bytes) -> str:
    first = text.split(b"\n", 1)[0].decode(errors="replace")
    if not first.startswith(NAME_LINE):
        return ""
    name = first.removeprefix(NAME_LINE).strip()
    if not name or "+" in name or len(name.split()) != 1:
        raise NoKey(
            f"The first line of {path} names the key, but “{name[:80]}” is no name of a key. "
            "Restore the file from your copy, or write the name that stands before the + in the line that the auditors have."
        )
    return name


def is_signed_by(note: Note, key: PublicKey) -> bool:
    """Whether one of the note's signatures is this key's, and right."""
    public = Ed25519PublicKey.from_public_bytes(key.public)
    for signature in note.signatures:
        if (signature.name, signature.key_id) != (key.name, key.id):
            continue
        try:
            public.verify(signature.value, note.body.encode())
        except InvalidSignature:
            return False
        return True
    return False
