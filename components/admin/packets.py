"""An IP packet made of the headers that somebody wrote down, to ask the filter about: right lengths and checksums, and
nothing in it. RFC 791, 8200, 9293, 768, 792, 4443; checksums RFC 1071.
"""

from __future__ import annotations

import ipaddress
import struct
from typing import Any, Final, NoReturn

from septum.admin.v1 import admin_pb2 as pb

from components.admin.status import Code, RpcError

_TCP, _UDP, _ICMP, _ICMP6 = 6, 17, 1, 58
PROTOCOLS: Final = {"tcp": _TCP, "udp": _UDP, "icmp": _ICMP, "icmp6": _ICMP6, "icmpv6": _ICMP6}
FLAGS: Final = {"fin": 1, "syn": 2, "rst": 4, "psh": 8, "ack": 16, "urg": 32, "ece": 64, "cwr": 128}
_CHECKSUM_AT: Final = {_TCP: 16, _UDP: 6, _ICMP: 2, _ICMP6: 2}
_OF_PROTOCOL: Final = {
    "source_port": {_TCP, _UDP},
    "destination_port": {_TCP, _UDP},
    "flags": {_TCP},
    "icmp_type": {_ICMP, _ICMP6},
    "icmp_code": {_ICMP, _ICMP6},
}
"""Fields that not every protocol has."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def build(headers: pb.PacketHeaders) -> bytes:
    """The packet. Errors: RpcError (INVALID_ARGUMENT) with the path of what cannot be, and what can."""
    protocol = _protocol(headers.protocol)
    source, destination = _address(headers, "source"), _address(headers, "destination")
    if source.version != destination.version:
        _refuse("destination", f"must be of IPv{source.version}, as the source is")
    if protocol == (_ICMP6 if source.version == 4 else _ICMP):
        _refuse("protocol", "must be icmp with IPv4, and icmp6 with IPv6")
    for field, protocols in _OF_PROTOCOL.items():
        if getattr(headers, field) and protocol not in protocols:
            names = " and ".join(sorted(name for name, one in PROTOCOLS.items() if one in protocols))
            _refuse(field, f"only {names} have one: leave it out")
    return _packet(protocol, source.packed, destination.packed, _body(protocol, headers))


def _refuse(field: str, why: str) -> NoReturn:
    raise RpcError(Code.INVALID_ARGUMENT, why, path=f"headers.{field}")


def _protocol(text: str) -> int:
    number = PROTOCOLS.get(text.lower(), -1)
    if number < 0 and text.isascii() and text.isdecimal() and len(text) <= 3:
        number = int(text)
    if not 0 <= number <= 255:
        _refuse("protocol", f"must be one of {', '.join(PROTOCOLS)}, or a number in 0 to 255")
    return number


def _address(headers: Any, field: str) -> Address:
    try:
        found = ipaddress.ip_address(getattr(headers, field))
    except ValueError:
        found = None
    if found is None or (found.version == 6 and found.scope_id):
        _refuse(field, "must be an address like 10.1.0.5 or fd00::5, without a port: that is a field of its own")
    return found


def _flags(text: str) -> int:
    if not text:
        return FLAGS["syn"]
    found = [FLAGS.get(name.strip().lower()) for name in text.split(",")]
    if None in found:
        _refuse("flags", f"must be flags like syn,ack; there are {', '.join(FLAGS)}")
    return sum({bit for bit in found if bit})


def _body(protocol: int, headers: pb.PacketHeaders) -> bytearray:
    """The header within IP, without its checksum."""
    ports = headers.source_port, headers.destination_port
    if protocol == _TCP:
        flags = _flags(headers.flags)
        sequence, acknowledged = (1 if flags & FLAGS["syn"] else 2), (2 if flags & FLAGS["ack"] else 0)
        return bytearray(struct.pack("!HHIIBBHHH", *ports, sequence, acknowledged, 5 << 4, flags, 65_535, 0, 0))
    if protocol == _UDP:
        return bytearray(struct.pack("!HHHH", *ports, 8, 0))
    if protocol in (_ICMP, _ICMP6):
        return bytearray(struct.pack("!BBHHH", headers.icmp_type, headers.icmp_code, 0, 1, 1))
    return bytearray(8)


def _packet(protocol: int, source: bytes, destination: bytes, body: bytearray) -> bytes:
    at = _CHECKSUM_AT.get(protocol)
    if at is not None:
        # ICMP of IPv4 has no pseudo header (RFC 792)
        pseudo, extra = (b"", 0) if protocol == _ICMP else (source + destination, protocol + len(body))
        body[at : at + 2] = _checksum(pseudo + body, extra)
    if len(source) == 16:
        return struct.pack("!IHBB", 6 << 28, len(body), protocol, 64) + source + destination + body
    header = bytearray(struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 1, 0, 64, protocol, 0) + source + destination)
    header[10:12] = _checksum(header, 0)
    return bytes(header) + body


def _checksum(words: bytes | bytearray, extra: int) -> bytes:
    return (-(int.from_bytes(words, "big") + extra) % 0xFFFF).to_bytes(2, "big")
