"""Packets of a capture file: pcap (draft-ietf-opsawg-pcap) and pcapng (draft-ietf-opsawg-pcapng), read with bounds.

Whoever wrote the file is not trusted: every length is held against what is there before it is believed, and what does
not add up ends the reading with CaptureError. Frames are given as what is in them: an IP packet, with its time.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

MAX_BYTES: Final = 1 << 30
_LONGEST: Final = 1 << 18  # of one packet, or one block
_MOST_LINKS: Final = 256

_ETHERNET, _RAW, _LOOP, _COOKED, _COOKED2, _IP4, _IP6 = 1, 101, 0, 113, 276, 228, 229
_HEADS: Final = {_RAW: 0, _IP4: 0, _IP6: 0, _LOOP: 4, _COOKED: 16, _COOKED2: 20}
_VLAN_TAGS: Final = frozenset({0x8100, 0x88A8})
_IP: Final = frozenset({0x0800, 0x86DD})
_ARP: Final = 0x0806
_ARP_LENGTH: Final = 28
_LONGEST_LLC: Final = 1500  # IEEE 802.3 clause 3.2.6: up to here the field is a length


class CaptureError(ValueError):
    """The file is no capture, or is not whole."""


class Captured(NamedTuple):
    """One packet. ``number`` counts frames of the file from 1; ``when`` is in seconds since 1970; ``packet`` is
    empty for a frame that holds no IP, ``cut`` says that the capture has only the start of it. Of Ethernet, ``link`` is
    the header with its tags, and ``payload`` all that is behind it but padding; both are empty of other links.
    """

    number: int
    when: float
    packet: bytes
    cut: bool
    link: bytes = b""
    payload: bytes = b""


class _Reader:
    """Exactly as many bytes as are asked for."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self.at = 0

    def left(self) -> int:
        return len(self._raw) - self.at

    def take(self, count: int) -> bytes:
        if count > self.left():
            raise CaptureError("the file ends in the midst of a packet")
        self.at += count
        return self._raw[self.at - count : self.at]


def read(path: Path) -> Iterator[Captured]:
    """Every frame of the file, in its order. Errors: CaptureError, OSError."""
    with path.open("rb") as opened:
        raw = opened.read(MAX_BYTES + 1)
    if len(raw) > MAX_BYTES:
        raise CaptureError(f"the file has more than {MAX_BYTES} bytes")
    return frames(raw)


def frames(raw: bytes) -> Iterator[Captured]:
    """Every frame of a capture. Errors: CaptureError, as soon as something does not add up."""
    magic = raw[:4]
    for order in "<>":
        for number, unit in ((0xA1B2C3D4, 1e-6), (0xA1B23C4D, 1e-9)):
            if magic == struct.pack(f"{order}I", number):
                return _pcap(_Reader(raw), order, unit)
    if magic == b"\x0a\x0d\x0d\x0a":
        return _pcapng(_Reader(raw))
    raise CaptureError("the file is neither pcap nor pcapng")


def _pcap(reader: _Reader, order: str, unit: float) -> Iterator[Captured]:
    (link,) = struct.unpack(f"{order}20xI", reader.take(24))
    number = 0
    while reader.left():
        number += 1
        seconds, part, length, whole = struct.unpack(f"{order}IIII", reader.take(16))
        if length > _LONGEST:
            raise CaptureError(f"packet {number} has {length} bytes")
        yield _captured(number, seconds + part * unit, reader.take(length), link & 0xFFFF, whole > length)


def _pcapng(reader: _Reader) -> Iterator[Captured]:
    order, links, number = "<", list[tuple[int, float]](), 0
    while reader.left():
        kind, length = struct.unpack(f"{order}II", reader.take(8))
        if kind == 0x0A0D0D0A:
            magic = reader.take(4)
            order = "<" if magic == b"\x4d\x3c\x2b\x1a" else ">"
            if magic not in (b"\x4d\x3c\x2b\x1a", b"\x1a\x2b\x3c\x4d"):
                raise CaptureError("a section without its byte order")
            reader.at -= 8
            (length,) = struct.unpack(f"{order}I", reader.take(4))
            reader.take(4)
            links, body = [], _block(reader, order, length, 12)
            continue
        body = _block(reader, order, length, 8)
        if kind == 1:
            if len(body) < 8 or len(links) >= _MOST_LINKS:
                raise CaptureError("an interface that is not well described")
            links.append((struct.unpack_from(f"{order}H", body)[0], _resolution(body[8:], order)))
        elif kind == 6:
            if len(body) < 20:
                raise CaptureError("a packet block that is too short")
            where, high, low, captured, whole = struct.unpack_from(f"{order}IIIII", body)
            if where >= len(links) or captured > len(body) - 20:
                raise CaptureError("a packet block that does not add up")
            link, unit = links[where]
            number += 1
            yield _captured(number, (high << 32 | low) * unit, body[20 : 20 + captured], link, whole > captured)
        elif kind == 3:
            if len(body) < 4 or not links:
                raise CaptureError("a packet block that does not add up")
            (whole,) = struct.unpack_from(f"{order}I", body)
            number += 1
            yield _captured(number, 0.0, body[4 : 4 + whole], links[0][0], whole > len(body) - 4)


def _block(reader: _Reader, order: str, length: int, taken: int) -> bytes:
    """The body of a block of which ``taken`` bytes have been read; its length stands at its end once more."""
    if length % 4 or not taken + 4 <= length <= _LONGEST:
        raise CaptureError(f"a block of {length} bytes")
    body = reader.take(length - taken - 4)
    if struct.unpack(f"{order}I", reader.take(4)) != (length,):
        raise CaptureError("a block with two lengths")
    return body


def _resolution(options: bytes, order: str) -> float:
    """Seconds that a tick of the interface's clock takes (option if_tsresol)."""
    at = 0
    while at + 4 <= len(options):
        code, length = struct.unpack_from(f"{order}HH", options, at)
        if code == 0:
            break
        if code == 9 and length == 1 and at + 4 < len(options):
            value = options[at + 4]
            return float(2.0 ** -(value & 0x7F) if value & 0x80 else 10.0**-value)
        at += 4 + (length + 3) // 4 * 4
    return 1e-6


def _captured(number: int, when: float, frame: bytes, link: int, cut: bool) -> Captured:
    if link in _HEADS:
        return Captured(number, when, _trimmed(frame[_HEADS[link] :]), cut)
    if link != _ETHERNET:
        raise CaptureError(f"packets of the link type {link} are not known here: Ethernet, raw IP or Linux cooked are")
    at = 12
    while len(frame) >= at + 4 and int.from_bytes(frame[at : at + 2], "big") in _VLAN_TAGS:
        at += 4
    if len(frame) < at + 2:
        return Captured(number, when, b"", cut)
    kind, payload = int.from_bytes(frame[at : at + 2], "big"), frame[at + 2 :]
    packet = _trimmed(payload) if kind in _IP else b""
    if kind == _ARP:
        payload = payload[:_ARP_LENGTH]
    elif kind <= _LONGEST_LLC:
        payload = payload[:kind]
    return Captured(number, when, packet, cut, frame[: at + 2], packet or payload)


def _trimmed(packet: bytes) -> bytes:
    """Without what Ethernet fills short frames up with."""
    if len(packet) < 20 or packet[0] >> 4 not in (4, 6):
        return b""
    length = int.from_bytes(packet[2:4], "big") if packet[0] >> 4 == 4 else 40 + int.from_bytes(packet[4:6], "big")
    return packet[:length]
