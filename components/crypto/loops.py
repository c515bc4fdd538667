"""The loops over packets of `encrypt` and `decrypt`, in Python: what a reader reads, and what runs without a compiler.

fast.pyx has the same with the same results, to the byte; twin.py chooses. Source: WireGuard paper, section 5.4.6.
"""

from __future__ import annotations

from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from appliance.vchan.codec import Buffer
from components.crypto.constants import HEADER, HEADER_BYTES, KEY_BYTES, NONCE, OVERHEAD, PADDING, TRANSPORT_DATA

__all__ = ["Opener", "Sealer", "alike", "succession"]

_MOST: Final = 65536  # bytes of one packet or datagram, and items of one run
_COUNTERS: Final = 2**64

# The cipher is used once before the seal: OpenSSL fetches it then, and what that takes cannot be had in a sealed domain
ChaCha20Poly1305(bytes(KEY_BYTES)).encrypt(NONCE.pack(0), b"", None)


def _check_run(start: int, size: int, count: int, bytes_: int) -> None:
    if not (0 <= size <= _MOST and 0 < count <= _MOST and 0 <= start <= bytes_ - size * count):
        raise IndexError(f"{count} items of {size} bytes at {start} of {bytes_}")


def _check_counters(counter: int, count: int) -> None:
    if not 0 <= counter <= _COUNTERS - count:
        raise ValueError(f"{count} counters from {counter} on")


class Sealer:
    """A send key of 32 bytes, and the next ``counter`` under it, for whoever seals. The key lives in the cipher, whose
    memory OpenSSL clears when it is dropped.
    """

    __slots__ = ("_encrypt_into", "counter")

    def __init__(self, key: bytes) -> None:
        self._encrypt_into = ChaCha20Poly1305(key).encrypt_into
        self.counter = 0

    def seal(
        self,
        packets: Buffer,
        start: int,
        size: int,
        count: int,
        padding: int,
        receiver: int,
        counter: int,
        out: memoryview,
        to: int,
    ) -> None:
        """Lays down ``count`` datagrams from ``to`` on in ``out``: the packets of ``size`` bytes from ``start`` on in
        ``packets``, each with ``padding`` (0 to 15) zeros, under counters that go up from ``counter``.

        Errors: IndexError if that is nothing or beyond a buffer, ValueError for other padding, or if the counters would
        begin anew; nothing was sealed then.
        """
        if not 0 <= padding < PADDING:
            raise ValueError(f"padding of {padding} bytes")
        stride = size + padding + OVERHEAD
        _check_run(start, size, count, len(packets))
        _check_run(to, stride, count, len(out))
        _check_counters(counter, count)
        encrypt_into, write_header, nonce = self._encrypt_into, HEADER.pack_into, NONCE.pack
        padded = memoryview(bytearray(size + padding))
        for at in range(start, start + size * count, size) if size else range(count):
            plain = packets[at : at + size]
            if padding:
                padded[:size] = plain
                plain = padded
            write_header(out, to, TRANSPORT_DATA, receiver, counter)
            body = to + HEADER_BYTES
            to += stride
            encrypt_into(nonce(counter), plain, None, out[body:to])
            counter += 1


class Opener:
    """A receive key of 32 bytes; as ``Sealer``."""

    __slots__ = ("_decrypt_into",)

    def __init__(self, key: bytes) -> None:
        self._decrypt_into = ChaCha20Poly1305(key).decrypt_into

    def open(
        self, untrusted: Buffer, start: int, size: int, count: int, counter: int, out: memoryview, to: int
    ) -> bytes:
        """Opens the ``count`` datagrams of ``size`` bytes from ``start`` on, whose counters go up from ``counter``.

        A byte for each: 1 if it is authentic. The plaintexts of those lie back to back from ``to`` on in ``out``.
        Errors: IndexError if that is nothing or beyond a buffer, ValueError if the counters would begin anew; nothing
        was opened then.
        """
        plain = size - OVERHEAD
        _check_run(start, size, count, len(untrusted))
        _check_run(to, plain, count, len(out))
        _check_counters(counter, count)
        decrypt_into, nonce = self._decrypt_into, NONCE.pack
        authentic = bytearray(count)
        for i in range(count):
            try:
                decrypt_into(nonce(counter), untrusted[start + HEADER_BYTES : start + size], None, out[to : to + plain])
            except InvalidTag:
                pass
            else:
                authentic[i] = 1
                to += plain
            start += size
            counter += 1
        return bytes(authentic)


def succession(untrusted: Buffer, start: int, size: int, most: int) -> int:
    """How many datagrams of ``size`` bytes from ``start`` on, ``most`` at the most and at least one, have the type and
    receiver of the first, and counters that go up by one.

    Errors: IndexError if there is no first.
    """
    if size < HEADER_BYTES or not 0 <= start <= len(untrusted) - HEADER_BYTES:
        raise IndexError(f"a datagram of {size} bytes at {start} of {len(untrusted)}")
    read_header = HEADER.unpack_from
    kind, receiver, counter = read_header(untrusted, start)
    for count in range(1, most):
        at = start + count * size
        if at + HEADER_BYTES > len(untrusted) or read_header(untrusted, at) != (kind, receiver, counter + count):
            return count
    return max(1, most)


def alike(packets: Buffer, start: int, size: int, most: int, first: int, address: int, width: int) -> int:
    """How many whole packets of ``size`` bytes from ``start`` on, ``most`` at the most and at least one, have the
    ``first`` bytes, and the ``width`` bytes at ``address``, of the first one.

    Errors: IndexError if there is no first, or those bytes are none of its own.
    """
    if not (0 < first <= size and width > 0 and 0 <= address <= size - width and 0 <= start <= len(packets) - size):
        raise IndexError(f"{first} bytes and {width} bytes at {address} in {size} at {start} of {len(packets)}")
    head = packets[start : start + first]
    own = packets[start + address : start + address + width]
    for count in range(1, most):
        at = start + count * size
        if (
            at + size > len(packets)
            or packets[at : at + first] != head
            or packets[at + address : at + address + width] != own
        ):
            return count
    return max(1, most)
