"""One packet in words, as people give it to `explain` and as examples are shown.

    tcp 10.1.0.5:51000 > 192.0.2.7:443
from peer alice tcp [fd00::1]:51000 > [fd00::2]:443 flags syn,ack state established
icmp 10.1.0.5 > 192.0.2.7 type echo-request
proto 47 10.1.0.5 > 192.0.2.7
from red arp request vlan 10
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from appliance.rules import intervals, space, words
from appliance.rules.intervals import Intervals
from appliance.rules.space import Box, Family

_STATES: Final = ("new", "established", "related", "invalid", "untracked")
_PROTOCOL_NAMES: Final = {number: name for name, number in words.PROTOCOLS.items()}
_ETHERTYPE_NAMES: Final = {number: name for name, number in words.ETHERTYPES.items()}
_OPERATION_NAMES: Final = {number: name for name, number in words.OPERATIONS.items()}
_ICMP_NAMES: Final = {
    name: {pair: word for word, pair in table.items()} for name, table in (("icmp", words.ICMP), ("icmp6", words.ICMP6))
}
_LIKED: Final[Mapping[str, tuple[int, ...]]] = {
    space.ORIGIN: (space.RED, space.FIRST_PEER, space.BLACK),
    space.FROM_PORT: (51_000,),
    space.TO_PORT: (443, 80, 53, 22),
    space.FLAGS: (0x02, 0x10, 0x12),
    space.STATE: (space.NEW, space.ESTABLISHED, space.UNTRACKED, space.RELATED),
    space.TYPE: (8 << 8, 128 << 8, 3 << 8, 1 << 8),
    space.PROTOCOL: (47, 50, 89),
    space.VLAN: (0,),
    space.OPERATION: (1, 2),
    space.ETHERTYPE: (0x88CC, words.STP),
    space.FROM_MAC: (0x020000000001,),
    space.TO_MAC: (0x020000000002,),
}
_LIKED_ADDRESSES: Final = {
    4: tuple(int(ipaddress.ip_address(one)) for one in ("192.0.2.7", "198.51.100.7", "203.0.113.7")),
    6: tuple(int(ipaddress.ip_address(one)) for one in ("2001:db8::7", "2001:db8:1::7")),
}
"""What examples are made of, where that is among what they may be."""


class Sample(NamedTuple):
    """One packet of a family: a number for each axis."""

    family: Family
    point: tuple[int, ...]

    def on(self, axis: str) -> int | None:
        """Where it is on an axis; None for one that its family has not."""
        return self.point[self.family.axes.index(axis)] if axis in self.family.axes else None

    def box(self) -> Box:
        return tuple(((number, number),) for number in self.point)


def sample(family: Family, one: Box) -> Sample:
    """A packet in ``one``, as ordinary as may be."""
    return Sample(family, tuple(_pick(family, axis, found) for axis, found in zip(family.axes, one, strict=True)))


def _pick(family: Family, axis: str, found: Intervals) -> int:
    is_address = axis in (space.SOURCE, space.DESTINATION)
    liked = _LIKED_ADDRESSES[family.version] if is_address else _LIKED.get(axis, ())
    if axis == space.SOURCE:
        liked = tuple(reversed(liked))
    for number in liked:
        if intervals.has(found, number):
            return number
    first, last = found[0]
    if is_address and last - first >= 3:
        return first + 1  # the first address of a prefix is no host's
    return first


def say(packet: Sample, peers: Mapping[int, str]) -> str:
    """In words that ``parse`` reads. ``peers`` are their names."""
    family = packet.family
    words_: list[str] = [f"from {_origin(packet.on(space.ORIGIN) or 0, peers)}"]
    kind = family.name
    if family.version:
        if (protocol := packet.on(space.PROTOCOL)) is not None:
            kind = _PROTOCOL_NAMES.get(protocol, f"proto {protocol}")
        ends = []
        for axis, port in ((space.SOURCE, space.FROM_PORT), (space.DESTINATION, space.TO_PORT)):
            address = _address(packet.on(axis) or 0, family.version)
            number = packet.on(port)
            bare = f"[{address}]" if family.version == 6 and number is not None else address
            ends.append(bare if number is None else f"{bare}:{number}")
        words_ += [kind, ends[0], ">", ends[1]]
        if (of_type := packet.on(space.TYPE)) is not None:
            words_.append(f"type {_type(kind, of_type)}")
        if (flags := packet.on(space.FLAGS)) is not None and flags != words.FLAGS["syn"]:
            words_.append(f"flags {','.join(name for name, bit in words.FLAGS.items() if flags & bit) or 'none'}")
        if (state := packet.on(space.STATE)) is not None and state not in (space.NEW, space.UNTRACKED):
            words_.append(f"state {_STATES[state]}")
    elif (operation := packet.on(space.OPERATION)) is not None:
        words_.append(f"arp {_OPERATION_NAMES.get(operation, str(operation))}")
    else:
        ethertype = packet.on(space.ETHERTYPE) or 0
        words_.append("stp" if ethertype == words.STP else f"ethertype {_ethertype(ethertype)}")
    if packet.on(space.VLAN):
        words_.append(f"vlan {packet.on(space.VLAN)}")
    for axis, word in ((space.FROM_MAC, "source"), (space.TO_MAC, "destination")):
        mac = packet.on(axis)
        if mac is not None and mac != _LIKED[axis][0]:
            words_.append(f"{word} {mac.to_bytes(6, 'big').hex(':')}")
    return " ".join(words_)


def _origin(number: int, peers: Mapping[int, str]) -> str:
    if number < space.FIRST_PEER:
        return "red" if number == space.RED else "black"
    peer = number - space.FIRST_PEER + 1
    name = peers.get(peer)
    if name is None:
        return f"peer {peer}" if peers else "tunnel"
    return f"peer {name}" if re.fullmatch(r"[A-Za-z_][\w.-]*", name) else f'peer "{name}"'


def _address(number: int, version: int) -> str:
    return str(ipaddress.IPv4Address(number) if version == 4 else ipaddress.IPv6Address(number))


def _type(kind: str, of_type: int) -> str:
    number, code = divmod(of_type, 256)
    names = _ICMP_NAMES.get(kind, {})
    if (number, code) in names:
        return names[number, code]
    name = names.get((number, None), str(number))
    return f"{name} code {code}" if code else name


def _ethertype(number: int) -> str:
    return _ETHERTYPE_NAMES.get(number, f"0x{number:04x}")
