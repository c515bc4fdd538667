"""Packets for tests, made by hand and, as the oracle for every checksum, by scapy."""

from __future__ import annotations

import random
import struct

from scapy.layers.inet import IP, TCP, UDP  # type: ignore[import-untyped]
from scapy.layers.inet6 import IPv6  # type: ignore[import-untyped]

from components.net import virtio

V4 = ("10.1.0.2", "10.2.0.2")
V6 = ("fd01::2", "fd02::2")
TIMESTAMPS = [("NOP", None), ("NOP", None), ("Timestamp", (7, 9))]


def payload(length: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(length)


def tcp(version: int, data: bytes, **fields: object) -> bytes:
    """One TCP packet, checksums by scapy. IP fields: tos, ttl, id, df, frag, ipopts; ext: an IPv6 extension header."""
    options = fields.pop("options", TIMESTAMPS)
    ip = _ip(version, fields)
    defaults = {"sport": 40000, "dport": 80, "seq": 1000, "ack": 2000, "flags": "A", "window": 501}
    return bytes(ip / TCP(**{**defaults, **fields}, options=options) / data)


def udp(version: int, data: bytes, **fields: object) -> bytes:
    ip = _ip(version, fields)
    return bytes(ip / UDP(**{"sport": 40000, "dport": 53, **fields}) / data)


def _ip(version: int, fields: dict[str, object]) -> IP | IPv6:
    tos, ttl, ext = fields.pop("tos", 0), fields.pop("ttl", 64), fields.pop("ext", None)
    if version == 6:
        fields.pop("id", None)
        fields.pop("df", None)
        ip = IPv6(src=V6[0], dst=V6[1], tc=tos, hlim=ttl)
        return ip / ext if ext is not None else ip
    options = fields.pop("ipopts", b"")
    flags = "DF" if fields.pop("df", True) else 0
    return IP(src=V4[0], dst=V4[1], tos=tos, ttl=ttl, id=fields.pop("id", 77), flags=flags, options=options)


def transport_at(packet: bytes) -> int:
    """Where the TCP or UDP header begins."""
    if packet[0] >> 4 == 4:
        return 4 * (packet[0] & 15)
    at, protocol = 40, packet[6]
    while protocol in (0, 43, 60):
        protocol, at = packet[at], at + 8 * (packet[at + 1] + 1)
    return at


def ones(data: bytes) -> int:
    """RFC 1071, word by word: the textbook's sum."""
    total = 0
    for i in range(0, len(data), 2):
        total += int.from_bytes(data[i : i + 2].ljust(2, b"\0"), "big")
        total = (total & 0xFFFF) + (total >> 16)
    return total


def offloaded(packet: bytes, mss: int, ecn: bool = False) -> bytes:
    """``packet`` as the kernel hands it over: its checksum half done, and a virtio_net_hdr that asks for segments."""
    start = transport_at(packet)
    is_udp = 17 in (packet[9] if packet[0] >> 4 == 4 else packet[6], _last_protocol(packet))
    offset, protocol = (6, 17) if is_udp else (16, 6)
    addresses = packet[12:20] if packet[0] >> 4 == 4 else packet[8:40]
    pseudo = ones(addresses + struct.pack("!HH", protocol, len(packet) - start))
    field = start + offset
    kind = 5 if is_udp else {4: 1, 6: 4}[packet[0] >> 4] | (0x80 if ecn else 0)
    header = struct.pack("=BBHHHH", 1, kind if mss else 0, 99 if mss else 0, mss, start, offset)
    return header + packet[:field] + pseudo.to_bytes(2, "big") + packet[field + 2 :]


def _last_protocol(packet: bytes) -> int:
    if packet[0] >> 4 == 4:
        return packet[9]
    at, protocol = 40, packet[6]
    while protocol in (0, 43, 60):
        protocol, at = packet[at], at + 8 * (packet[at + 1] + 1)
    return protocol


def plain(packet: bytes) -> bytes:
    return virtio.PLAIN + packet


def hop(packet: bytes) -> bytes:
    """One router later: the TTL one less, and the IPv4 header's checksum to match."""
    changed = bytearray(packet)
    if packet[0] >> 4 == 6:
        changed[7] -= 1
        return bytes(changed)
    changed[8] -= 1
    changed[10:12] = b"\0\0"
    header = 4 * (packet[0] & 15)
    changed[10:12] = (0xFFFF - ones(bytes(changed[:header]))).to_bytes(2, "big")
    return bytes(changed)


def cut(pairs: list[tuple[bytes, int]]) -> list[bytes]:
    """The single packets of (blob, size) pairs."""
    return [blob[i : i + size] for blob, size in pairs for i in range(0, len(blob), size)]
