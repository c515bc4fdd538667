"""The certificates of administrators: what they say, and making them.

An administrator's certificate is for one key of P-256 and thirty days. It names, as subjectAltName, the key that he
signs with: ``septum:administrator:`` and 64 digits. Nothing else of it is believed; who that is, the roster says.
Sources: RFC 5280, RFC 2986 (PKCS #10).
"""

from __future__ import annotations

import datetime
import math
import re
from contextlib import suppress
from typing import Final, NamedTuple

import cryptography.hazmat.backends.openssl.backend  # noqa: F401 - else at first use: too late in a domain
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from components.admin.status import Code, RpcError

DAYS: Final = 30
EARLIER: Final = datetime.timedelta(hours=1)  # than now: clocks differ
_URI: Final = re.compile(r"septum:administrator:([0-9a-f]{64})")


class Shown(NamedTuple):
    """What a certificate that OpenSSL found good says: the key that its owner signs with, and until when it is good, in
    seconds since 1970.
    """

    key: bytes
    until: float


def shown(certificate: bytes) -> Shown:
    """What this certificate, in DER, says. Errors: RpcError (UNAUTHENTICATED) if it is no administrator's."""
    try:
        parsed = x509.load_der_x509_certificate(certificate)
        names = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
        match = _URI.fullmatch(uris[0]) if len(uris) == 1 else None
        until = parsed.not_valid_after_utc.timestamp()
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        match, until = None, 0.0
    if match is None:
        raise RpcError(Code.UNAUTHENTICATED, "the certificate is no administrator's")
    return Shown(bytes.fromhex(match[1]), until)


class Issuer:
    """Certifies administrators. ``certificate`` and ``key``: the issuing authority's, PEM. ``before``: the certificate
    of the one before it, if there was one, which counts until ``before_until``, in seconds since 1970.

    Errors: ValueError.
    """

    def __init__(self, certificate: str, key: str, before: str = "", before_until: float = 0.0) -> None:
        self._certificate = x509.load_pem_x509_certificate(certificate.encode())
        self._taken = [(self._certificate, math.inf)]
        if before:
            self._taken.append((x509.load_pem_x509_certificate(before.encode()), before_until))
        loaded = serialization.load_pem_private_key(key.encode(), None)
        if not isinstance(loaded, ec.EllipticCurvePrivateKey):
            raise ValueError("the issuing authority's key is not one of P-256")
        self._key = loaded
        self._rehearse()

    def _rehearse(self) -> None:
        """Does everything once. The library imports some of itself when it is first used, and opens files to do so:
        that must be behind us when the domain is sealed.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        asked = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
        issued = self.issue(asked.public_bytes(serialization.Encoding.DER), "nobody", bytes(32), 1e9, 1 << 150)
        der = x509.load_pem_x509_certificate(issued.encode()).public_bytes(serialization.Encoding.DER)
        shown(der)
        self.taken_until(der)
        self.taken_until(self._certificate.public_bytes(serialization.Encoding.DER))
        for refused in (lambda: self.issue(b"0", "nobody", bytes(32), 1e9, 1), lambda: shown(b"0")):
            with suppress(RpcError):
                refused()

    def taken_until(self, certificate: bytes) -> float:
        """Until when, in seconds since 1970, certificates of whoever has issued this one, in DER, are taken: 0.0 of
        another authority that the box once had.
        """
        parsed = x509.load_der_x509_certificate(certificate)
        for issuing, until in self._taken:
            with suppress(Exception):  # whatever is wrong with it, or not known here: it is not theirs
                parsed.verify_directly_issued_by(issuing)
                return until
        return 0.0

    def issue(self, request: bytes, name: str, signing_key: bytes, wall: float, serial: int) -> str:
        """A certificate, PEM, for the key in ``request`` (PKCS #10, DER), which must prove that it has its private
        half. ``wall``: seconds since 1970; ``serial``: 20 random bytes as a number.

        Errors: RpcError (INVALID_ARGUMENT).
        """
        try:
            asked = x509.load_der_x509_csr(request)
            public = asked.public_key()
            if not isinstance(public, ec.EllipticCurvePublicKey) or not isinstance(public.curve, ec.SECP256R1):
                raise RpcError(Code.INVALID_ARGUMENT, "must be for a key of P-256", path="request")
            if not asked.is_signature_valid:
                raise InvalidSignature
        except RpcError:
            raise
        except Exception:  # whatever a parser of ASN.1 may raise: the request is what is wrong
            raise RpcError(
                Code.INVALID_ARGUMENT, "must be a request for a certificate (PKCS #10, DER)", path="request"
            ) from None
        now = datetime.datetime.fromtimestamp(wall, datetime.UTC)
        issuer = self._certificate
        made = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(issuer.subject)
            .public_key(public)
            .serial_number((serial >> 1) or 1)
            .not_valid_before(now - EARLIER)
            .not_valid_after(now + datetime.timedelta(days=DAYS))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_USAGE, critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
            .add_extension(
                x509.SubjectAlternativeName(
                    [x509.UniformResourceIdentifier(f"septum:administrator:{signing_key.hex()}")]
                ),
                critical=False,
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(
                    issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
                ),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )
        return made.public_bytes(serialization.Encoding.PEM).decode()


_USAGE: Final = x509.KeyUsage(
    digital_signature=True,
    key_cert_sign=False,
    crl_sign=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    encipher_only=False,
    decipher_only=False,
)
