"""TLS 1.3, the server's end of one connection: bytes in, bytes out. No I/O.

The certificates of callers are looked at by OpenSSL against the box's own authority, and by nothing else; a caller
without one is let in (CERT_OPTIONAL) as nobody. Sessions are not resumed: what was true of a caller an hour ago is not.
"""

from __future__ import annotations

import errno
import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

_MOST_READ: Final = 64 << 10


class TlsError(Exception):
    """The peer does not speak TLS as we do, or shows a certificate that is not good; ``output`` has the alert."""


def context(chain_pem: str, key_pem: str, authority_pem: str) -> ssl.SSLContext:
    """What all connections share. To be made before the seal: OpenSSL reads keys from files alone, here from pipes: a
    guest's kernel has no memory that has a name. Errors: ssl.SSLError, OSError.
    """
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = made.maximum_version = ssl.TLSVersion.TLSv1_3
    made.set_alpn_protocols(["h2"])
    made.verify_mode = ssl.CERT_OPTIONAL
    made.verify_flags |= ssl.VERIFY_X509_STRICT
    made.num_tickets = 0
    made.load_verify_locations(cadata=authority_pem)
    with _readable(chain_pem) as chain, _readable(key_pem) as key:
        made.load_cert_chain(chain, key)
    return made


@contextmanager
def _readable(pem: str) -> Iterator[str]:
    """The name of a file that has ``pem``, to be read once. Errors: OSError if it is more than a pipe holds."""
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        content = f"{pem.strip()}\n".encode()
        try:
            if os.write(writer, content) != len(content):
                raise OSError(errno.EFBIG, f"{os.strerror(errno.EFBIG)}: {len(content)} bytes of PEM")
        finally:
            os.close(writer)  # who has read it all is at the end
        yield f"/proc/self/fd/{reader}"
    finally:
        os.close(reader)


class Tls:
    """One connection's. ``certificate``: the peer's in DER, once the handshake is done; None if it shows none."""

    def __init__(self, shared: ssl.SSLContext) -> None:
        self._in = ssl.MemoryBIO()
        self._out = ssl.MemoryBIO()
        self._tls = shared.wrap_bio(self._in, self._out, server_side=True)
        self.is_established = False
        self.is_closed = False
        """The peer has said that it sends no more."""
        self.certificate: bytes | None = None

    def received(self, untrusted: bytes) -> bytes:
        """What the peer says in these bytes. Errors: TlsError, after which only ``output`` may be called."""
        self._in.write(untrusted)
        try:
            if not self.is_established:
                self._tls.do_handshake()
                if self._tls.selected_alpn_protocol() != "h2":
                    raise TlsError("it does not ask for HTTP/2")
                self.is_established = True
                self.certificate = self._tls.getpeercert(binary_form=True)
            return self._read()
        except ssl.SSLWantReadError:
            return b""
        except ssl.SSLError as error:
            raise TlsError(error.reason or type(error).__name__) from None

    def _read(self) -> bytes:
        parts = []
        try:
            while part := self._tls.read(_MOST_READ):
                parts.append(part)
            self.is_closed = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.is_closed = True
        return b"".join(parts)

    def send(self, plain: bytes) -> None:
        """Has ``plain`` sent. Errors: TlsError."""
        if plain:
            try:
                self._tls.write(plain)
            except ssl.SSLError as error:
                raise TlsError(error.reason or type(error).__name__) from None

    def close(self) -> None:
        """Says that no more comes."""
        with suppress(ssl.SSLError, ValueError):  # the peer has not said so, or the handshake never was
            self._tls.unwrap()

    def output(self) -> bytes:
        """What is to be sent now."""
        return self._out.read()
