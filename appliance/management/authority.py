"""The box's own certificates.

    root        made once by `septum init`; its key stays on the box's host, with root, and in no domain. What the root
                certificate's SHA-256 is, the box is.
    server      what the admin domain shows callers: for `box.septum`, whatever address they call
    issuing     what the admin domain certifies administrators with, for 30 days at a time; it can issue nothing else.
                It is made anew with the server's: whoever had its key once is not somebody for good
    administrator  P-256; subjectAltName is `septum:administrator:` and the key he signs with, in hexadecimal. Who that
                is, and whether he still is anybody, the signed roster says and no certificate.

RFC 5280; all keys are P-256.
"""

from __future__ import annotations

import datetime
import hashlib
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

SERVER_NAME: Final = "box.septum"
ROOT_DAYS: Final = 20 * 365
SERVER_DAYS: Final = 825  # the server's, and the issuing authority's
ADMINISTRATOR_DAYS: Final = 30
EARLIER: Final = datetime.timedelta(hours=1)  # than now: clocks differ
_URI: Final = "septum:administrator:"


class Pair(NamedTuple):
    """A certificate and its key, PEM."""

    certificate: str
    key: str


class Made(NamedTuple):
    """All that `septum init` makes. ``box``: SHA-256 of the root certificate in DER, hexadecimal."""

    box: str
    root: Pair
    server: Pair
    issuing: Pair


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 of it in DER, hexadecimal."""
    return hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).hexdigest()


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common[:64])])


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _builder(
    subject: x509.Name,
    public: ec.EllipticCurvePublicKey,
    issuer: x509.Name,
    by: ec.EllipticCurvePublicKey,
    begin: datetime.datetime,
    days: int,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin - EARLIER)
        .not_valid_after(begin + datetime.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(by), critical=False)
    )


def make(box: str, now: datetime.datetime) -> Made:
    """The authority of a new box of that name, and what it needs to begin with."""
    root_key, server_key, issuing_key = new_key(), new_key(), new_key()
    root_name = _name(f"Septum {box} root")
    root_public = root_key.public_key()
    root = (
        _builder(root_name, root_public, root_name, root_public, now, ROOT_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .sign(root_key, hashes.SHA256())
    )
    issuing = appoint(box, root, root_key, issuing_key, now)
    server = serve(box, root, root_key, server_key, now)
    return Made(
        fingerprint(root),
        Pair(pem(root), key_pem(root_key)),
        Pair(pem(server), key_pem(server_key)),
        Pair(pem(issuing), key_pem(issuing_key)),
    )


def serve(
    box: str,
    root: x509.Certificate,
    root_key: ec.EllipticCurvePrivateKey,
    key: ec.EllipticCurvePrivateKey,
    now: datetime.datetime,
) -> x509.Certificate:
    """A certificate for the box's face."""
    return (
        _builder(_name(f"Septum {box}"), key.public_key(), root.subject, root_key.public_key(), now, SERVER_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(SERVER_NAME)]), critical=False)
        .sign(root_key, hashes.SHA256())
    )


def appoint(
    box: str,
    root: x509.Certificate,
    root_key: ec.EllipticCurvePrivateKey,
    key: ec.EllipticCurvePrivateKey,
    now: datetime.datetime,
) -> x509.Certificate:
    """A certificate for an issuing authority."""
    name = _name(f"Septum {box} administrators")
    return (
        _builder(name, key.public_key(), root.subject, root_key.public_key(), now, SERVER_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .sign(root_key, hashes.SHA256())
    )
