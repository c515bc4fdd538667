"""The keys of an administrator: Ed25519 to sign with, P-256 to be known by in TLS. Both are made here and stay here."""

from __future__ import annotations

import os
import time
from datetime import datetime
from itertools import pairwise
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

RENEW_AT: Final = 1 / 3
"""With so much of its life left a certificate is renewed."""


def new_seed() -> bytes:
    """Of a new signing key."""
    return os.urandom(32)


def new_tls_key() -> str:
    """A P-256 private key, PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def request(tls_key_pem: str, name: str) -> bytes:
    """A request for a certificate (PKCS #10, RFC 2986) in DER. What the certificate will say is the box's to decide."""
    key = serialization.load_pem_private_key(tls_key_pem.encode(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    made = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.DER)


class Validity(NamedTuple):
    """From when to when a certificate is good: seconds since 1970."""

    begin: float
    end: float

    def wants_renewal(self, now: float) -> bool:
        return self.end - now < (self.end - self.begin) * RENEW_AT


def validity(chain_pem: str) -> Validity:
    """Of the first certificate. Errors: ValueError."""
    found = x509.load_pem_x509_certificate(chain_pem.encode())
    return Validity(found.not_valid_before_utc.timestamp(), found.not_valid_after_utc.timestamp())


def validity_of_der(certificate: bytes) -> Validity:
    """The same of a certificate in DER. Errors: ValueError."""
    found = x509.load_der_x509_certificate(certificate)
    return Validity(found.not_valid_before_utc.timestamp(), found.not_valid_after_utc.timestamp())


def day(seconds: float) -> str:
    """Local time, to the minute."""
    try:
        return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M")
    except (ValueError, OverflowError, OSError):
        return "-"  # a box's own word


def check_certificate(chain_pem: str, root_pem: str, tls_key_pem: str, signing_key: bytes, least: float) -> None:
    """That a certificate is of use: from this root, for this key, for who signs with ``signing_key``, and good beyond
    ``least``, in seconds since 1970. Errors: ValueError.
    """
    chain = x509.load_pem_x509_certificates(chain_pem.encode())
    root = x509.load_pem_x509_certificate(root_pem.encode())
    found = chain[0]
    try:
        for child, parent in pairwise([*(one for one in chain if one != root), root]):
            child.verify_directly_issued_by(parent)
    except (InvalidSignature, TypeError):
        raise ValueError("it is not from the box's authority") from None
    key = serialization.load_pem_private_key(tls_key_pem.encode(), None)
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    if found.public_key().public_bytes(*form) != key.public_key().public_bytes(*form):
        raise ValueError("it is for another key")
    try:
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        raise ValueError("it names nobody") from None
    if names.get_values_for_type(x509.UniformResourceIdentifier) != [f"septum:administrator:{signing_key.hex()}"]:
        raise ValueError("it names somebody else")
    begin, end = found.not_valid_before_utc.timestamp(), found.not_valid_after_utc.timestamp()
    if not begin <= time.time() < end or end <= least:
        raise ValueError(f"it is good from {day(begin)} to {day(end)}, which is of no use")


def now_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000
