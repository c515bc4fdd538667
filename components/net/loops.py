"""The loops over packets that cost the most, in Python: what a reader reads, and what runs where no compiler was.

fast.pyx has the same functions with the same results, to the byte; twin.py chooses. Their callers have checked that
the headers fit the bytes; what does not is a ValueError, or an IndexError where there is not even a byte.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Final

from components.net.checksum import MODULUS, folds, total

__all__ = ["tcp_segments", "total", "udp_segments"]

_FIN_PSH: Final = 0x09
_CWR: Final = 0x80


@lru_cache(maxsize=64)
def _ip4_struct(start: int) -> struct.Struct:
    return struct.Struct(f"!2sHH4sH{start - 12}s")


def _check(packet: bytes, start: int, payload: int, mss: int) -> None:
    version, end = packet[0] >> 4, len(packet)
    fits = {4: 20, 6: 40}.get(version, end) <= start < payload < end <= 0xFFFF and 0 < mss <= end - payload
    if not fits:
        raise ValueError(f"{end} bytes with headers of {start} and {payload} bytes, in segments of {mss}")


def _ip_headers(packet: bytes, start: int, count: int, length: int, last: int) -> list[bytes]:
    """The IP headers of ``count`` segments that have ``length`` bytes behind them, the last one ``last``."""
    if packet[0] >> 4 == 6:
        extra = start - 40
        head, tail = packet[:4], packet[6:start]
        full = b"".join((head, (extra + length).to_bytes(2, "big"), tail))
        return [full] * (count - 1) + [b"".join((head, (extra + last).to_bytes(2, "big"), tail))]
    pack = _ip4_struct(start).pack
    version, middle, rest = packet[:2], packet[6:10], packet[12:start]
    ident = int.from_bytes(packet[4:6], "big")
    size = start + length
    sum_ = total(version) + total(middle) + total(rest) + size
    headers = []
    for _ in range(count - 1):
        headers.append(pack(version, size, ident, middle, -(sum_ + ident) % MODULUS, rest))
        ident = (ident + 1) & 0xFFFF
    check = -(sum_ - size + start + last + ident) % MODULUS
    headers.append(pack(version, start + last, ident, middle, check, rest))
    return headers


@lru_cache(maxsize=64)
def _tcp_struct(length: int) -> struct.Struct:
    return struct.Struct(f"!4sI5sB2sH{length - 18}s")


def tcp_segments(packet: bytes | memoryview, start: int, payload: int, mss: int) -> bytes:
    """The segments of a TCP superpacket, back to back: its TCP header at ``start``, ``mss`` bytes a segment from
    ``payload`` on, of which there is at least one and not less than ``mss``.
    """
    packet = bytes(packet)
    end = len(packet)
    header = payload - start
    if start < 0 or header < 20 or header % 4:
        raise ValueError("no TCP header")
    _check(packet, start, payload, mss)
    count = -(-(end - payload) // mss)
    last = end - payload - (count - 1) * mss  # bytes of payload in the last segment
    ip = _ip_headers(packet, start, count, header + mss, header + last)

    ports, sequence = packet[start : start + 4], int.from_bytes(packet[start + 4 : start + 8], "big")
    ack, flags, window = packet[start + 8 : start + 13], packet[start + 13], packet[start + 14 : start + 16]
    partial, rest = int.from_bytes(packet[start + 16 : start + 18], "big"), packet[start + 18 : payload]
    # What all segments share: pseudo-header and TCP header without length, sequence number and flags. Data offset and
    # flags are one 16-bit word, which ``ack`` cuts in two.
    shared = partial - (end - start) + total(ports) + total(ack) + total(window) + total(rest)

    pack = _tcp_struct(header).pack
    parts: list[bytes] = []
    plan = folds(mss)
    of = header + mss
    now = flags & ~_FIN_PSH if count > 1 else flags
    base = shared + of + now
    for i in range(count):
        if i == count - 1:
            now = flags if count == 1 else flags & ~_CWR
            base = shared + header + last + now
        data = packet[payload : payload + mss]
        number = int.from_bytes(data, "little")
        for shift, mask in plan:
            number = (number >> shift) + (number & mask)
        check = -(base + sequence + (number << 8)) % MODULUS
        parts += ip[i], pack(ports, sequence, ack, now, window, check, rest), data
        payload += mss
        sequence = (sequence + mss) & 0xFFFFFFFF
        if i == 0 and flags & _CWR:
            now &= ~_CWR
            base = shared + of + now
    return b"".join(parts)


def udp_segments(packet: bytes | memoryview, start: int, mss: int) -> bytes:
    """The datagrams of a UDP superpacket, back to back; as ``tcp_segments``."""
    packet = bytes(packet)
    end = len(packet)
    payload = start + 8
    _check(packet, start, payload, mss)
    count = -(-(end - payload) // mss)
    last = end - payload - (count - 1) * mss
    ip = _ip_headers(packet, start, count, 8 + mss, 8 + last)
    ports = packet[start : start + 4]
    shared = int.from_bytes(packet[start + 6 : payload], "big") - (end - start) + total(ports)
    parts: list[bytes] = []
    for i in range(count):
        data = packet[payload + i * mss : payload + (i + 1) * mss]
        length = 8 + len(data)
        check = -(shared + 2 * length + total(data)) % MODULUS or MODULUS  # zero would say "no checksum" (RFC 768)
        parts += ip[i], ports + struct.pack("!HH", length, check), data
    return b"".join(parts)
