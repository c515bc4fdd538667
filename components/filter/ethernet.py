"""The filter of a transparent bridge: Ethernet frames in, judged, frames out.

What is IP is judged by the engine as in any other box, with the link header as one more thing that rules can ask for.
All else - ARP, spanning tree, whatever has another type - passes only by a rule that names it. Behind one VLAN tag the
frame is judged with its VLAN; behind a second one nobody looks: such a frame is of the type 0x8100, and passes only by
a rule that names that. What the engine answers goes back with the addresses of the frame changed over, and its tags.

IEEE 802.3 clause 3.2 (addresses, length or type), IEEE 802.1Q clause 9 (tags), IEEE 802.2 (LLC), RFC 826 (ARP).
"""

from __future__ import annotations

from typing import Final, NamedTuple

from appliance.vchan.messages import Frames, Packets
from components.filter.engine import Engine
from components.filter.explain import WHY, Explanation, denied, explain_frame
from components.filter.model import Action, Link, Side

_UNTAGGED: Final = 14
_TAGGED: Final = 18
_TAGS: Final = (b"\x81\x00", b"\x88\xa8")  # 802.1Q, 802.1ad
_ARP: Final = 0x0806
_LARGEST_LENGTH: Final = 1500
_SMALLEST_TYPE: Final = 1536
# What the first bytes of the packets in a group may be, by the type that the frames have
_FIRST_BYTES: Final = {0x0800: bytes(range(0x40, 0x50)), 0x86DD: bytes(range(0x60, 0x70))}

_ARP_LENGTH: Final = 28
_ARP_OF_IPV4: Final = (
    b"\x00\x01\x08\x00\x06\x04"  # hardware Ethernet, protocol IPv4, and the lengths of their addresses
)


class Malformed(ValueError):
    """A frame that no honest host sends. The text says nothing of what was in it."""


class Outgoing(NamedTuple):
    """A group of frames, and the side that it leaves by."""

    side: Side
    frames: Frames


class Header(NamedTuple):
    """A link header, read: what the payload is, and the VLAN."""

    kind: int  # the type, or the length of an LLC frame
    vlan: int
    source: bytes
    destination: bytes


def parse(link: bytes) -> Header:
    """Reads a link header. Errors: Malformed."""
    if link[6] & 1:
        raise Malformed("from a group address")
    kind, vlan = int.from_bytes(link[-2:], "big"), 0
    if len(link) != _UNTAGGED:
        if len(link) < _TAGGED or (len(link) - _UNTAGGED) % 4 or link[12:14] not in _TAGS:
            raise Malformed("no tag where there is room for one")
        vlan = int.from_bytes(link[14:16], "big") & 0x0FFF
        if len(link) > _TAGGED:
            kind = int.from_bytes(link[16:18], "big")
            if link[16:18] not in _TAGS:
                raise Malformed("no tag where there is room for two")
    if _LARGEST_LENGTH < kind < _SMALLEST_TYPE:
        raise Malformed("neither a length nor a type")
    return Header(kind, vlan, link[6:12], link[:6])


class Ethernet:
    """The verdict on frames, around the engine's on packets. It counts what it denies in the engine's own counters."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def judge(self, group: Frames, side: Side, now: float, wall: float) -> list[Outgoing]:
        """What may go where: frames of the group, and answers to them."""
        try:
            header = parse(group.link)
        except Malformed:
            self._engine.denied[side]["malformed"] += _count(group)
            return []
        if header.kind in _FIRST_BYTES:
            return self._packets(group, header, side, now, wall)
        view, far = memoryview(group.payloads), _other(side)
        passed = [
            payload
            for at in range(0, len(view), group.size)
            if self._other(payload := view[at : at + group.size], header, side, now, wall)
        ]
        if not passed:
            return []
        if len(passed) == _count(group):
            return [Outgoing(far, group)]
        return [Outgoing(far, group._replace(payloads=payload, size=len(payload))) for payload in passed]

    def _packets(self, group: Frames, header: Header, side: Side, now: float, wall: float) -> list[Outgoing]:
        """A group of IP packets: the engine's verdict, in frames again."""
        view = memoryview(group.payloads)
        if bytes(view[:: group.size]).translate(None, _FIRST_BYTES[header.kind]):
            self._engine.denied[side]["malformed"] += _count(group)
            return []
        link = Link(header.kind, header.vlan, header.source, header.destination)
        outcome = self._engine.judge(Packets(group.payloads, group.size), side, now, wall, link)
        found = [Outgoing(out, Frames(*packets[:2], group.link)) for out, packets in outcome.passed]
        for out, packets in outcome.answers:
            if out is not side:  # a question to whom the frame is for
                found.append(Outgoing(out, Frames(*packets[:2], group.link)))
            elif not header.destination[0] & 1:  # never to what came to many (RFC 1122 section 3.2.2)
                back = b"".join((header.source, header.destination, group.link[12:]))
                found.append(Outgoing(out, Frames(*packets[:2], back)))
        return found

    def explain(self, link: bytes, payload: bytes, side: Side, now: float, wall: float) -> Explanation:
        """What would become of a frame, given as its header (addresses, tags, type) and what is in it. Changes
        nothing.
        """
        try:
            header = parse(link)
            if header.kind not in _FIRST_BYTES:
                return explain_frame(self._engine, self._link(header, payload, side), len(payload), side, now, wall)
        except Malformed as malformed:
            return denied(why) if (why := str(malformed)) in WHY else denied("malformed", why)
        if payload[:1].translate(None, _FIRST_BYTES[header.kind]):
            return denied("malformed", "another IP version than the frame's type has")
        of_ip = Link(header.kind, header.vlan, header.source, header.destination)
        return self._engine.explain(payload, side, 0, now, wall, of_ip)

    def _other(self, payload: memoryview, header: Header, side: Side, now: float, wall: float) -> bool:
        """Whether a frame that is not IP may pass: by a rule that names it."""
        try:
            link = self._link(header, payload, side)
        except Malformed as malformed:
            self._engine.denied[side][str(malformed)] += 1
            return False
        return self._engine.judge_link(link, 1, len(payload), side, now, wall) is Action.ALLOW

    def _link(self, header: Header, payload: bytes | memoryview, side: Side) -> Link:
        """What rules are asked about, of a frame that is not IP. Errors: Malformed, with a reason that WHY has."""
        kind, operation = header.kind, 0
        if kind == _ARP:
            operation = self._arp(bytes(payload), side)
        elif kind <= _LARGEST_LENGTH:
            kind = _llc(payload, kind)
        return Link(kind, header.vlan, header.source, header.destination, operation)

    def _arp(self, payload: bytes, side: Side) -> int:
        """The operation of an ARP packet. Errors: Malformed, also if the red side claims what is not its own."""
        if len(payload) != _ARP_LENGTH or payload[:6] != _ARP_OF_IPV4:
            raise Malformed("malformed")
        sender = payload[14:18]
        is_probe = not any(sender)  # who has no address yet asks whether one is free (RFC 5227)
        lan = self._engine.ruleset.lan
        if side is Side.RED and lan and not is_probe and not any(prefix.has(sender) for prefix in lan):
            raise Malformed("spoofed")
        return int.from_bytes(payload[6:8], "big")


def _llc(payload: bytes | memoryview, length: int) -> int:
    """The DSAP of an LLC frame. Errors: Malformed."""
    if length < 3 or len(payload) != length:
        raise Malformed("malformed")
    return payload[0]


def _other(side: Side) -> Side:
    return Side.BLACK if side is Side.RED else Side.RED


def _count(group: Frames) -> int:
    return -(-len(group.payloads) // group.size)
