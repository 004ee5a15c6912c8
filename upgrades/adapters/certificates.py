"""Certificates that an agent's TLS must rest on: its own, or that of the authority which signed it.

Nothing of TLS is switched off by naming one: names and dates are looked at as ever, and no other authority counts.
"""

from __future__ import annotations

import functools
import ssl
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from upgrades.domain.environment_records import NotUsable

LENGTH = 20_000  # characters; five certificates of the largest usual kind
MOST = 5


def read_certificate(text: str, *, at: datetime) -> str:
    """One to five certificates in PEM, as they are stored; empty for an empty text. NotUsable with the reason."""
    text = text.strip()
    if not text:
        return ""
    if "PRIVATE KEY" in text:
        raise NotUsable(
            "This holds a private key, which belongs on the agent's host only. Paste the certificate."
        )
    try:
        found = x509.load_pem_x509_certificates(text.encode()) if len(text) <= LENGTH else []
    except ValueError:
        found = []
    if not 1 <= len(found) <= MOST:
        raise NotUsable(
            "This is no certificate. Paste one to five in PEM, as the file named in the agent's “tls” has them: each "
            "from BEGIN CERTIFICATE to END CERTIFICATE."
        )
    for certificate in found:
        _must_be_fit(certificate, at)
    return "".join(certificate.public_bytes(Encoding.PEM).decode() for certificate in found)


def _must_be_fit(certificate: x509.Certificate, at: datetime) -> None:
    if certificate.not_valid_after_utc <= at:
        until = f"{certificate.not_valid_after_utc:%Y-%m-%d}"
        raise NotUsable(f"This certificate ended on {until}. Paste the one that the agent uses now.")
    key = certificate.public_key()
    strong = (
        (isinstance(key, RSAPublicKey) and key.key_size >= 2048)
        or (isinstance(key, EllipticCurvePublicKey) and key.key_size >= 256)
        or isinstance(key, Ed25519PublicKey | Ed448PublicKey)
    )
    if not strong:
        raise NotUsable(
            "The key of this certificate is too weak. Make one with RSA of 2048 bits or more, EC of 256 or Ed25519."
        )


def fingerprints(text: str) -> list[str]:
    """SHA-256 of each stored certificate, as `openssl x509 -fingerprint -sha256` prints it."""
    if not text:
        return []
    found = x509.load_pem_x509_certificates(text.encode())
    return [certificate.fingerprint(SHA256()).hex(":").upper() for certificate in found]


@functools.lru_cache(maxsize=2000)
def trusting(text: str) -> ssl.SSLContext:
    """TLS that rests on these certificates and on nothing else."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(cadata=text)
    # The agent's own certificate is enough, also where an authority signed it.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context
