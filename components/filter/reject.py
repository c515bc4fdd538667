"""What the sender of a rejected packet is told: a reset for TCP, else that it was prohibited.

RFC 9293 section 3.10.7.1 (the reset to a segment for no connection), RFC 1812 section 4.3.2 and RFC 4443 section 2.4
(what an ICMP error may answer, and how much of the packet it carries). Never is an error answered with an error, nor a
reset, a fragment, or what did not come from and go to one host each.
"""

from __future__ import annotations

from typing import Final

from components.filter.headers import ACK, FIN, ICMP, ICMPV6, RST, SYN, TCP, Header, Kind

_UNREACHABLE4: Final = bytes((3, 13))  # communication administratively prohibited (RFC 1812 section 5.2.7.1)
_UNREACHABLE6: Final = bytes((1, 1))  # the same (RFC 4443 section 3.1)
_MOST4: Final = 576
_MOST6: Final = 1280
_TTL: Final = 64


def answer(packet: bytes, header: Header) -> bytes | None:
    """The packet to send back, as if from the destination of ``packet``; None if it must not be answered."""
    if header.fragment or header.kind not in (Kind.FLOW, Kind.REPLY):
        return None
    source, destination = header.ends.source, header.ends.destination
    if not (_is_host(source) and _is_host(destination)):
        return None
    if header.ends.protocol[0] == TCP:
        return None if header.flags & RST else _reset(packet, header)
    return _prohibited(packet, source, destination)


def _is_host(address: bytes) -> bool:
    if len(address) == 4:
        return 0 < address[0] < 224 and address[0] != 127
    return address[0] != 0xFF and any(address[:15]) and address[:12] != bytes(10) + b"\xff\xff"


def _reset(packet: bytes, header: Header) -> bytes:
    start, flags = header.start, header.flags
    sequence, acknowledged, answer_flags = bytes(4), bytes(4), RST
    if flags & ACK:
        sequence = packet[start + 8 : start + 12]
    else:
        length = len(packet) - start - 4 * (packet[start + 12] >> 4) + bool(flags & SYN) + bool(flags & FIN)
        number = int.from_bytes(packet[start + 4 : start + 8], "big") + length
        acknowledged, answer_flags = (number % 2**32).to_bytes(4, "big"), RST | ACK
    _, source, source_port, destination, destination_port = header.ends
    body = b"".join((destination_port, source_port, sequence, acknowledged, bytes((5 << 4, answer_flags)), bytes(6)))
    return _ip(destination, source, TCP, body, 16)


def _prohibited(packet: bytes, source: bytes, destination: bytes) -> bytes:
    if len(source) == 4:
        return _ip(destination, source, ICMP, _UNREACHABLE4 + bytes(6) + packet[: _MOST4 - 28], 2)
    return _ip(destination, source, ICMPV6, _UNREACHABLE6 + bytes(6) + packet[: _MOST6 - 48], 2)


def _ip(source: bytes, destination: bytes, protocol: int, body: bytes, checksum_at: int) -> bytes:
    """``body`` under an IP header, its checksum at ``checksum_at`` filled in."""
    pseudo = b"" if protocol == ICMP else source + destination + bytes((0, protocol)) + len(body).to_bytes(2, "big")
    body = body[:checksum_at] + checksum(pseudo + body) + body[checksum_at + 2 :]
    if len(source) == 16:
        head = b"".join((b"\x60\0\0\0", len(body).to_bytes(2, "big"), bytes((protocol, _TTL)), source, destination))
        return head + body
    total = (20 + len(body)).to_bytes(2, "big")
    head = b"".join((b"\x45\0", total, b"\0\0\x40\0", bytes((_TTL, protocol)), b"\0\0", source, destination))
    return head[:10] + checksum(head) + head[12:] + body


def checksum(words: bytes | bytearray, extra: int = 0) -> bytes:
    """RFC 1071: a buffer of 16-bit words, as one number, modulo 65535 is their one's complement sum."""
    if len(words) & 1:
        words = words + b"\0"
    return (-(int.from_bytes(words, "big") + extra) % 0xFFFF).to_bytes(2, "big")
