"""One packet in words, as people give it to `explain` and as examples are shown.

* ``tcp 10.1.0.5:51000 > 192.0.2.7:443``, from the red side, since nothing else is said
* ``from peer alice tcp [fd00::1]:51000 > [fd00::2]:443 flags syn,ack state established``
* ``icmp 10.1.0.5 > 192.0.2.7 type echo-request``, ``proto gre 10.1.0.5 > 192.0.2.7``
* ``from red arp request vlan 10 source 02:00:00:00:00:01``
"""

from __future__ import annotations

import ipaddress
import re
import struct
from collections.abc import Mapping
from typing import Final, NamedTuple, NoReturn

from appliance.rules import intervals, space, values, words
from appliance.rules.intervals import Intervals
from appliance.rules.space import Box, Family

_SMALLEST_TYPE: Final = 1536  # IEEE 802.3 clause 3.2.6; what is below names an LLC frame's service
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
_LIKED_TYPES: Final = {4: (8 << 8, 3 << 8), 6: (128 << 8, 1 << 8)}
"""What examples are made of, where that is among what they may be."""


class Sample(NamedTuple):
    """One packet of a family: a number for each axis."""

    family: Family
    point: tuple[int, ...]

    def on(self, axis: str) -> int | None:
        """Where it is on an axis; None for one that its family has not."""
        return self.point[self.family.axes.index(axis)] if axis in self.family.axes else None

    @property
    def origin(self) -> int:
        """Who sent it."""
        return self.point[self.family.axes.index(space.ORIGIN)]

    def moved(self, axis: str, number: int) -> Sample:
        """The same, elsewhere on one axis."""
        at = self.family.axes.index(axis)
        return self._replace(point=(*self.point[:at], number, *self.point[at + 1 :]))

    def box(self) -> Box:
        """The box that has just this packet in it."""
        return tuple(((number, number),) for number in self.point)


def sample(family: Family, one: Box) -> Sample:
    """A packet in ``one``, as ordinary as may be."""
    return Sample(family, tuple(_pick(family, axis, found) for axis, found in zip(family.axes, one, strict=True)))


def _pick(family: Family, axis: str, found: Intervals) -> int:
    is_address = axis in (space.SOURCE, space.DESTINATION)
    liked = _LIKED_ADDRESSES[family.version] if is_address else _LIKED.get(axis, ())
    if axis == space.TYPE:
        liked = _LIKED_TYPES[family.version]
    if axis == space.SOURCE:
        liked = tuple(reversed(liked))
    for number in liked:
        if intervals.has(found, number):
            return number
    first, last = found[0]
    if is_address and last - first >= 3:
        return first + 1  # the first address of a prefix is no host's
    return first


def starts(family: Family) -> dict[str, int]:
    """Where a packet is on each axis if nothing else is said."""
    liked = {axis: _pick(family, axis, family.all(axis)) for axis in family.axes}
    return liked | {space.FLAGS: words.FLAGS["syn"], space.STATE: space.NEW}


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


# reading --------------------------------------------------------------------------------------------------------------


class Said(NamedTuple):
    """A packet as it was described; ``state`` is None if it was not said, ``origin`` too."""

    sample: Sample
    origin: int | None
    state: int | None


_EXAMPLE: Final = "write it like 'tcp 10.1.0.5:51000 > 192.0.2.7:443'"


class _Words:
    """The words of a description, taken one by one. Errors: ValueError, the end of a sentence."""

    def __init__(self, text: str) -> None:
        # A '>' may stand without blanks around it; names of peers may be quoted
        self._words = re.findall(r'"[^"]*"|>|[^\s>"]+', text.replace("->", ">"))

    def peek(self) -> str:
        return self._words[0] if self._words else ""

    def take(self, what: str) -> str:
        if not self._words:
            raise ValueError(f"{what} is missing; {_EXAMPLE}")
        word: str = self._words.pop(0)
        return word


def parse(text: str, with_link: bool, peers: Mapping[str, int]) -> Said:
    """The packet that ``text`` describes. ``peers`` are numbers by name. Errors: ValueError."""
    said = _Words(text)
    origin = None
    if said.peek() == "from":
        said.take("")
        origin = _read_origin(said, peers)
    family, given = _read_kind(said, with_link)
    state = None
    while said.peek():
        word = said.take("")
        axis, number = _read_more(said, word, family)
        given[axis] = number
        state = number if axis == space.STATE else state
    point = starts(family) | given | {space.ORIGIN: space.RED if origin is None else origin}
    return Said(Sample(family, tuple(point[axis] for axis in family.axes)), origin, state)


def read_origin(text: str, peers: Mapping[str, int]) -> int:
    """``red``, ``black``, ``tunnel`` (its first peer) or ``peer NAME``, on the axis of origins. Errors: ValueError."""
    return _read_origin(_Words(text), peers)


def _read_origin(said: _Words, peers: Mapping[str, int]) -> int:
    word = said.take("who it is from")
    if word in ("red", "black", "tunnel"):
        return {"red": space.RED, "black": space.BLACK, "tunnel": space.FIRST_PEER}[word]
    if word != "peer":
        _refuse(word, "must be red, black, tunnel or peer NAME")
    name = said.take("the name of a peer").strip('"')
    number = peers.get(name) or (int(name) if re.fullmatch(r"[1-9][0-9]{0,4}", name) else 0)
    if not 1 <= number <= 65_535:
        _refuse(name, f"is no peer that is known; known: {', '.join(peers) or 'none, but by number'}")
    return space.FIRST_PEER + number - 1


def _refuse(word: str, why: str) -> NoReturn:
    raise ValueError(f"{word!r} {why}")


def _read_kind(said: _Words, with_link: bool) -> tuple[Family, dict[str, int]]:
    word = said.take("the protocol").lower()
    if word in ("arp", "ethertype", "stp"):
        return _read_frame(said, word)
    protocol = words.PROTOCOLS.get(word)
    if word == "proto":
        name = said.take("the protocol's number or name")
        protocol = words.PROTOCOLS.get(name)
        protocol = values.number(name, 0, 255) if protocol is None and name.isdigit() else protocol
        word = name
    if protocol is None:
        _refuse(word, f"is no protocol; {_EXAMPLE}")
    source, from_port = _read_end(said.take("the source"), protocol)
    if (arrow := said.take("'>'")) != ">":
        _refuse(arrow, "must be '>', between source and destination")
    destination, to_port = _read_end(said.take("the destination"), protocol)
    if source.version != destination.version:
        raise ValueError("source and destination are of two IP versions")
    family = _family(source.version, protocol, with_link)
    given = {space.SOURCE: int(source), space.DESTINATION: int(destination)}
    if family.protocol == 0:
        given[space.PROTOCOL] = protocol
    if from_port is not None:
        given[space.FROM_PORT] = from_port
    if to_port is not None:
        given[space.TO_PORT] = to_port
    return family, given


def _family(version: int, protocol: int, with_link: bool) -> Family:
    if protocol == (space.ICMP6 if version == 4 else space.ICMP):
        raise ValueError("goes with the other IP version: icmp with IPv4, icmp6 with IPv6")
    ours = [family for family in space.families(with_link) if family.version == version]
    return next((family for family in ours if family.protocol == protocol), ours[-1])


def _read_frame(said: _Words, word: str) -> tuple[Family, dict[str, int]]:
    arp, other = space.families(with_link=True)[-2:]
    if word == "arp":
        number = words.OPERATIONS.get(said.peek())
        if number is None and said.peek().isdigit():
            number = values.number(said.peek(), 0, 65_535)
        if number is not None:
            said.take("")
        return arp, {space.OPERATION: words.OPERATIONS["request"] if number is None else number}
    if word == "stp":
        return other, {space.ETHERTYPE: words.STP}
    name = said.take("the ethertype")
    number = words.ETHERTYPES.get(name)
    if number is None:
        if not re.fullmatch(r"0x[0-9a-fA-F]{1,4}", name):
            _refuse(name, f"is no ethertype like 0x88cc; known: {', '.join(words.ETHERTYPES)}")
        number = int(name, 16)
    return other, {space.ETHERTYPE: number}


def _read_end(text: str, protocol: int) -> tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int | None]:
    host, port = text, ""
    if match := re.fullmatch(r"\[([^\]]*)\](?::(\d+))?", text):
        host, port = match[1], match[2] or ""
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        _refuse(text, "is no address, alone or with a port: 192.0.2.7:443, [2001:db8::7]:443")
    if not port:
        return address, None
    if protocol not in (space.TCP, space.UDP):
        _refuse(text, "has a port, and only tcp and udp have")
    if not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65_535:
        _refuse(text, "has a port that is not in 0 to 65535")
    return address, int(port)


def _read_more(said: _Words, word: str, family: Family) -> tuple[str, int]:
    axis = {"type": space.TYPE, "flags": space.FLAGS, "state": space.STATE, "vlan": space.VLAN}.get(word)
    axis = axis or {"source": space.FROM_MAC, "destination": space.TO_MAC}.get(word)
    if axis is None:
        _refuse(word, "is not known here; there are type, flags, state, vlan, source and destination (MAC addresses)")
    if axis not in family.axes:
        _refuse(word, f"is nothing that such a packet ({family.name}) has in this rule set")
    value = said.take(f"what follows {word!r}")
    match axis:
        case space.TYPE:
            return axis, _read_type(said, value, words.ICMP if family.version == 4 else words.ICMP6)
        case space.FLAGS:
            bits = [words.FLAGS.get(name) for name in value.lower().split(",")] if value != "none" else []
            if None in bits:
                _refuse(value, f"are no TCP flags like syn,ack; known: {', '.join(words.FLAGS)}")
            return axis, sum(set(bits), 0)  # type: ignore[arg-type]
        case space.STATE:
            if value not in _STATES:
                _refuse(value, f"is no state; known: {', '.join(_STATES)}")
            return axis, _STATES.index(value)
        case space.VLAN:
            return axis, values.number(value, 0, 4094) if value.isdigit() else _refuse(value, "is no number of a VLAN")
    return axis, int.from_bytes(values.mac(value), "big")


def _read_type(said: _Words, value: str, names: Mapping[str, tuple[int, int | None]]) -> int:
    if value.isdigit():
        number, code = values.number(value, 0, 255), 0
    elif value in names:
        number, code = names[value][0], names[value][1] or 0
    else:
        _refuse(value, f"is no type of this ICMP; known: {', '.join(names)}")
    if said.peek() == "code":
        said.take("")
        word = said.take("the code")
        code = values.number(word, 0, 255) if word.isdigit() else _refuse(word, "is no number of a code")
    return number << 8 | code


# bytes ----------------------------------------------------------------------------------------------------------------


def build(packet: Sample) -> bytes:
    """An IP packet as described, with right lengths and checksums and nothing in it."""
    family = packet.family
    assert family.version
    point = dict(zip(family.axes, packet.point, strict=True))
    source, destination = (point[axis].to_bytes(family.width, "big") for axis in (space.SOURCE, space.DESTINATION))
    protocol = family.protocol or point[space.PROTOCOL]
    body = bytearray(_body(protocol, point))
    at = {space.TCP: 16, space.UDP: 6, space.ICMP: 2, space.ICMP6: 2}.get(protocol)
    if at is not None:
        # ICMP of IPv4 has no pseudo header (RFC 792)
        pseudo = b"" if protocol == space.ICMP else source + destination
        extra = 0 if protocol == space.ICMP else protocol + len(body)
        body[at : at + 2] = _checksum(pseudo + body, extra)
    if family.version == 6:
        head = struct.pack("!IHBB", 6 << 28, len(body), protocol, 64)
        return head + source + destination + body
    header = bytearray(struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 1, 0, 64, protocol, 0) + source + destination)
    header[10:12] = _checksum(header, 0)
    return bytes(header) + body


def link_header(packet: Sample) -> bytes:
    """The header of the Ethernet frame that a packet comes in: addresses, a tag if it has one, type or length."""
    family = packet.family
    tag = struct.pack("!HH", 0x8100, packet.on(space.VLAN) or 0) if packet.on(space.VLAN) else b""
    if family.version:
        kind = 0x0800 if family.version == 4 else 0x86DD
    else:
        kind = 0x0806 if packet.on(space.OPERATION) is not None else packet.on(space.ETHERTYPE) or 0
    if kind < _SMALLEST_TYPE:
        kind = len(payload(packet))  # an LLC frame has its length there
    hosts = (packet.on(axis) for axis in (space.TO_MAC, space.FROM_MAC))
    usual = (_LIKED[axis][0] for axis in (space.TO_MAC, space.FROM_MAC))
    addresses = [(given or liked).to_bytes(6, "big") for given, liked in zip(hosts, usual, strict=True)]
    return b"".join((*addresses, tag, struct.pack("!H", kind)))


def payload(packet: Sample) -> bytes:
    """What is in that frame."""
    if packet.family.version:
        return build(packet)
    if (operation := packet.on(space.OPERATION)) is not None:
        # Who has no address yet asks for one's owner (RFC 5227): nobody is spoken for
        return struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation) + bytes(20)
    kind = packet.on(space.ETHERTYPE) or 0
    return bytes((kind & 0xFF, kind & 0xFF, 3)) + bytes(35) if kind < _SMALLEST_TYPE else bytes(46)


def _body(protocol: int, point: Mapping[str, int]) -> bytes:
    if protocol == space.TCP:
        ports = point[space.FROM_PORT], point[space.TO_PORT]
        # Numbers that fit each other, whoever sends: SYN, SYN and ACK, ACK are a handshake
        sequence = 1 if point[space.FLAGS] & words.FLAGS["syn"] else 2
        acknowledged = 2 if point[space.FLAGS] & words.FLAGS["ack"] else 0
        return struct.pack("!HHIIBBHHH", *ports, sequence, acknowledged, 5 << 4, point[space.FLAGS], 65_535, 0, 0)
    if protocol == space.UDP:
        return struct.pack("!HHHH", point[space.FROM_PORT], point[space.TO_PORT], 8, 0)
    if protocol in (space.ICMP, space.ICMP6):
        return struct.pack("!BBHHH", *divmod(point[space.TYPE], 256), 0, 1, 1)
    return bytes(8)


def _checksum(words_: bytes | bytearray, extra: int) -> bytes:
    """RFC 1071."""
    return (-(int.from_bytes(words_, "big") + extra) % 0xFFFF).to_bytes(2, "big")
