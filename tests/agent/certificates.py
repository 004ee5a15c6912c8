"""Certificates for tests of TLS, made as they are needed."""

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID


def make_certificate(
    folder, name="agent", *, host="127.0.0.1", days=30, signed_by=None, weak=False, is_ca=False
):
    """Certificate and key in PEM files below `folder`; gives {"certificate": …, "key": …} as the agent wants them.

    `signed_by` is what another call gave; `days` from now until it ends (negative: it has ended).
    """
    key = rsa.generate_private_key(65537, 1024) if weak else ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    issuer, signing = subject, key
    if signed_by:
        issuer = x509.load_pem_x509_certificate(Path(signed_by["certificate"]).read_bytes()).subject
        signing = serialization.load_pem_private_key(Path(signed_by["key"]).read_bytes(), None)
    try:
        names = x509.SubjectAlternativeName([x509.IPAddress(ip_address(host))])
    except ValueError:
        names = x509.SubjectAlternativeName([x509.DNSName(host)])
    end = datetime.now(UTC) + timedelta(days=days)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(end - timedelta(days=365))
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .add_extension(names, critical=False)
        .sign(signing, SHA256())
    )
    paths = {"certificate": str(folder / f"{name}.pem"), "key": str(folder / f"{name}.key")}
    Path(paths["certificate"]).write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    kind, clear = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    Path(paths["key"]).write_bytes(key.private_bytes(serialization.Encoding.PEM, kind, clear))
    return paths


def pem(paths) -> str:
    return Path(paths["certificate"]).read_text()
