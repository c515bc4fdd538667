"""Why a box cannot be reached: looked at step by step, once a call has failed, and said with the next thing to do.

gRPC says "failed to connect to all addresses" of a wrong port, a wrong certificate and a clock that is off. So the same
way is gone again here, with plain sockets: the name, TCP, TLS 1.3 with the pinned authority, the administrator's own
certificate, ALPN.
"""

from __future__ import annotations

import hashlib
import os
import socket
import ssl
import tempfile
import time
from contextlib import suppress
from typing import Any, Final

from appliance.ctl import identity
from appliance.ctl.contexts import SERVER_NAME, Context, host_and_port
from appliance.ctl.trouble import Exit, Trouble

CONNECT: Final = 5.0  # seconds
_ALERT: Final = (
    1.0  # that a server takes to refuse a certificate: it does so after the handshake (RFC 8446 section 4.4.2.4)
)

# X509_V_ERR_… of OpenSSL's x509_vfy.h
_NOT_YET, _EXPIRED, _WRONG_NAME, _WRONG_PURPOSE = 9, 10, 62, 26

_NO_TLS: Final = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNEXPECTED_MESSAGE", "RECORD_LAYER_FAILURE", "PACKET_LENGTH")
_OLD_TLS: Final = ("UNSUPPORTED_PROTOCOL", "ALERT_PROTOCOL_VERSION", "NO_PROTOCOLS_AVAILABLE")


def reach(address: str) -> socket.socket:
    """A TCP connection to the box. Errors: Trouble (UNREACHED)."""
    host, port = host_and_port(address)
    try:
        return socket.create_connection((host, port), CONNECT)
    except socket.gaierror as error:
        why = f"the name {host} is not known here: {error.strerror or error}"
        raise Trouble(Exit.UNREACHED, why, _ADDRESS, reason="NAME") from None
    except TimeoutError:
        why = f"no answer from {address} within {CONNECT:g} s: the box is down, or something between drops what is sent"
        raise Trouble(Exit.UNREACHED, why, f"ping {host}; {_ADDRESS}", reason="TIMEOUT") from None
    except ConnectionRefusedError:
        why = f"nothing listens at {address}: the machine is there, and its box is down, or has no `admin` at that port"
        raise Trouble(Exit.UNREACHED, why, "on the box: septum ps", reason="REFUSED") from None
    except OSError as error:
        why = f"{address} cannot be reached: {error.strerror or error}"
        raise Trouble(Exit.UNREACHED, why, f"ip route get {host}", reason="NETWORK") from None


_ADDRESS: Final = "septumctl contexts address ADDRESS, if it has another one"


def shown_chain(address: str) -> list[bytes]:
    """The certificates, in DER, that whoever answers at ``address`` shows; nothing about them is checked.

    Errors: Trouble (UNREACHED).
    """
    context = _context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with reach(address) as raw:
        try:
            with context.wrap_socket(raw, server_hostname=SERVER_NAME) as tls:
                return _chain(tls)
        except OSError as error:
            raise _handshake(address, error) from None


def _chain(tls: ssl.SSLSocket) -> list[bytes]:
    """Public since Python 3.13; before, what it stands on has it."""
    holder: Any = tls if hasattr(tls, "get_unverified_chain") else tls._sslobj  # type: ignore[attr-defined]
    found = holder.get_unverified_chain() or []
    return [one if isinstance(one, bytes) else ssl.PEM_cert_to_DER_cert(one.public_bytes()) for one in found]


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["h2"])
    return context


def own_certificate(context: Context) -> None:
    """Errors: Trouble, if the administrator's certificate is of no use by this machine's clock."""
    try:
        valid = identity.validity(context.chain_pem)
    except ValueError:
        why = f"{context.folder / 'tls.pem'} has no certificate"
        raise Trouble(Exit.NOT_ALLOWED, why, _NEW, reason="CERTIFICATE") from None
    now = time.time()
    if now < valid.begin:
        begin = identity.day(valid.begin)
        why = f"by this machine's clock it is {identity.day(now)}, and your certificate begins {begin}"
        raise Trouble(Exit.NOT_ALLOWED, why, _CLOCK, reason="CLOCK")
    if now >= valid.end:
        why = f"your certificate for {context.name} ended {identity.day(valid.end)} (now: {identity.day(now)})"
        raise Trouble(Exit.NOT_ALLOWED, why, f"if the clock is right: {_NEW}", reason="EXPIRED")


_CLOCK: Final = "set the clock: timedatectl set-ntp true"
_NEW: Final = (
    "ask a security officer for a new invitation (septumctl admins revoke, then invite), then: "
    "septumctl enroll TOKEN --replace"
)


def explain(context: Context) -> Trouble | None:
    """What is in the way to the box; None if nothing is found. Errors: none that are not returned."""
    try:
        own_certificate(context)
        with reach(context.address) as raw:
            _try_tls(context, raw)
    except Trouble as trouble:
        return trouble
    return None


def _try_tls(context: Context, raw: socket.socket) -> None:
    address = context.address
    tls = _context()
    tls.load_verify_locations(cadata=context.root_pem)
    _load(tls, context)
    try:
        with tls.wrap_socket(raw, server_hostname=SERVER_NAME) as connected:
            if connected.selected_alpn_protocol() != "h2":
                why = f"who answers at {address} speaks TLS and no HTTP/2: that is not `admin`"
                raise Trouble(Exit.UNREACHED, why, _ADDRESS, reason="PROTOCOL")
            _wait_for_alert(connected)
    except ssl.SSLCertVerificationError as error:
        raise _mistrust(context, error) from None
    except OSError as error:
        raise _handshake(address, error) from None


def _load(tls: ssl.SSLContext, context: Context) -> None:
    """The administrator's certificate. ``ssl`` reads it from files alone: one that nobody else sees, for a moment."""
    descriptor, name = tempfile.mkstemp()
    try:
        with open(descriptor, "w") as opened:
            opened.write(context.tls_key_pem + "\n" + context.chain_pem)
        tls.load_cert_chain(name)
    except ssl.SSLError:
        why = f"key and certificate in {context.folder / 'tls.pem'} do not belong together"
        raise Trouble(Exit.NOT_ALLOWED, why, _NEW, reason="CERTIFICATE") from None
    finally:
        with suppress(OSError):
            os.unlink(name)


def _wait_for_alert(connected: ssl.SSLSocket) -> None:
    """A server that minds the certificate says so at once; one that does not says SETTINGS (RFC 9113 section 3.4)."""
    connected.settimeout(_ALERT)
    with suppress(TimeoutError):
        if not connected.recv(1):
            raise ConnectionResetError("it ends the connection at once")


def _mistrust(context: Context, error: ssl.SSLCertVerificationError) -> Trouble:
    address = context.address
    with suppress(Trouble, ValueError):
        chain = shown_chain(address)
        now = time.time()
        if error.verify_code in (_NOT_YET, _EXPIRED):
            valid = identity.validity_of_der(chain[0])
            why = (
                f"{address} shows a certificate that is good from {identity.day(valid.begin)} to "
                f"{identity.day(valid.end)}; by this machine's clock it is {identity.day(now)}"
            )
            then = f"{_CLOCK}; if it is right, the box's is wrong, or its certificate was not renewed: look there"
            return Trouble(Exit.NOT_BELIEVED, why, then, reason="CLOCK")
        if error.verify_code not in (_WRONG_NAME, _WRONG_PURPOSE):
            shown = hashlib.sha256(chain[-1]).hexdigest()
            if shown == context.box:
                shown = f"{shown}, with a certificate that is not from it"
            why = (
                f"who answers at {address} is not the box that {context.name} stands for; nothing was sent\n"
                f"  its fingerprint: {shown}\n  expected:        {context.box}"
            )
            return Trouble(Exit.NOT_BELIEVED, why, _OTHER, reason="WRONG_BOX")
    why = f"who answers at {address} shows a certificate that is not a box's: {error.verify_message}; nothing was sent"
    return Trouble(Exit.NOT_BELIEVED, why, _OTHER, reason="WRONG_CERTIFICATE")


_OTHER: Final = (
    "compare with `septumctl version` of a colleague; a box that was made anew takes a new invitation "
    "(septumctl enroll TOKEN --replace); if it was not, somebody is in between"
)


def _handshake(address: str, error: OSError) -> Trouble:
    """What an error of TLS, or of a socket during it, means."""
    said = f"{getattr(error, 'reason', '') or ''} {error}".upper().replace(" ", "_")
    if any(word in said for word in _OLD_TLS):
        why = f"who answers at {address} does not speak TLS 1.3, which is all that is spoken here"
        return Trouble(Exit.UNREACHED, why, _ADDRESS, reason="TLS_VERSION")
    for words, reason, why, then in _REFUSED:
        if any(word in said for word in words):
            return Trouble(Exit.NOT_ALLOWED, f"{address} {why}", then, reason=reason)
    if any(word in said for word in _NO_TLS):
        why = f"who answers at {address} does not speak TLS: that is not the port of `admin`"
        return Trouble(Exit.UNREACHED, why, _ADDRESS, reason="PROTOCOL")
    if isinstance(error, TimeoutError):
        why = f"{address} takes connections and says nothing within {CONNECT:g} s: it is busy, or not a box"
        return Trouble(Exit.UNREACHED, why, "on the box: septum ps", reason="SILENT")
    said = getattr(error, "reason", None) or error.strerror or str(error)
    why = f"{address} ends the connection before anything is said ({said})"
    then = "wait a minute: an address with too many connections or failures is locked out; on the box: septum ps"
    return Trouble(Exit.UNREACHED, why, then, reason="HUNG_UP")


_REFUSED: Final = (
    (("CERTIFICATE_EXPIRED",), "EXPIRED", "says that your certificate has expired", f"if the clocks are right: {_NEW}"),
    (("CERTIFICATE_REVOKED", "ACCESS_DENIED"), "REVOKED", "knows you no more: your access was revoked", _NEW),
    (("UNKNOWN_CA", "BAD_CERTIFICATE", "CERTIFICATE_UNKNOWN", "UNSUPPORTED_CERTIFICATE", "DECRYPT_ERROR"),
     "CERTIFICATE", "does not take your certificate: it is not of that box", _NEW),
    (("CERTIFICATE_REQUIRED",), "CERTIFICATE", "wants a certificate, and got none", _NEW),
)  # fmt: skip


def find_root(chain: list[bytes], box: str) -> bytes | None:
    """The certificate, of those shown, whose fingerprint ``box`` is."""
    return next((one for one in chain if hashlib.sha256(one).hexdigest() == box), None)


__all__ = ["explain", "find_root", "own_certificate", "reach", "shown_chain"]
