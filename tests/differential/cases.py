"""Random rule sets, and packets to try them with: a few hosts and ports, so that rules and packets meet.

A case is made by its seed alone. Its packets are those of several conversations at once, each mostly honest: what a
filter must let through is as likely as what it must stop.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from random import Random
from typing import Final, NamedTuple

from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6PacketTooBig,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    fragment6,
)
from scapy.packet import Packet, Raw

from components.filter.model import (
    Action,
    Flags,
    Icmp,
    Limit,
    Prefix,
    Quota,
    Range,
    Rule,
    RuleSet,
    Side,
    Tracking,
    Translation,
)

_HOSTS: Final = {
    "red": ("10.1.0.1", "10.1.0.2", "10.1.7.9", "fd01::1", "fd01::2"),
    "peer1": ("10.2.0.1", "10.2.0.2", "10.2.3.4", "fd02::1", "fd02::2"),
    "peer2": ("10.3.0.1", "10.3.9.9", "fd03::1"),
}
_PORTS: Final = (22, 53, 80, 443, 8080)
_CLIENT_PORTS: Final = (1024, 40000, 50000, 65535)
_PREFIXES: Final = (
    *(
        "0.0.0.0/0",
        "10.0.0.0/8",
        "10.1.0.0/16",
        "10.1.0.0/24",
        "10.1.0.1/32",
        "10.2.0.0/16",
        "10.2.0.2/31",
        "10.3.9.9/32",
    ),
    *("::/0", "fd00::/8", "fd01::/64", "fd01::1/128", "fd02::/64", "fd03::1/128"),
)
# Of what none is a host's: each side's own for the other, and what clients of the two sides are known by
_PUBLIC: Final = {"red": ("10.1.9.9", "10.1.9.8"), "peer1": ("10.2.200.1",), "peer2": ()}
_ALIASES: Final = {Side.RED: ("10.1.200.1", "10.1.200.2"), Side.TUNNEL: ("10.3.200.1", "10.2.200.2")}
ALIASES: Final = frozenset(ipaddress.ip_address(one).packed for some in _ALIASES.values() for one in some)
"""Addresses that hosts are known by on the other side: with a port of the box's choice."""

_OTHER_PROTOCOLS: Final = (2, 4, 47, 50, 89, 103, 112, 253)  # IGMP, IP in IP, GRE, ESP, OSPF, PIM, VRRP, experiments


class Item(NamedTuple):
    """One datagram, in one piece or several, that comes in by ``way``."""

    way: str
    packets: tuple[bytes, ...]


class Case(NamedTuple):
    """A rule set and what comes in, in order."""

    ruleset: RuleSet
    items: tuple[Item, ...]


def case(seed: int, size: int = 50) -> Case:
    """The case of that number: ``size`` datagrams, about."""
    random = Random(seed)
    ruleset = _ruleset(random)
    # A quota counts what comes: fragments here, the datagram that they were joined to there (docs/filter.md)
    counts = any(rule.quota for rule in ruleset.rules)
    kinds = tuple(kind for kind in _KINDS if not (counts and kind is _fragments))
    hosts = _HOSTS
    if ruleset.translations:
        hosts = {way: (*_PUBLIC[way], *names) for way, names in _HOSTS.items()}
    return Case(ruleset, tuple(_traffic(random, size, kinds, hosts)))


# rules ----------------------------------------------------------------------------------------------------------------


def prefix(text: str) -> Prefix:
    """A prefix as rules have it."""
    network = ipaddress.ip_network(text)
    return Prefix(len(network.network_address.packed), int(network.network_address), int(network.netmask))


def _ruleset(random: Random) -> RuleSet:
    translations = tuple(_translations(random)) if random.random() < 0.3 else ()
    rules = [_rule(random) for _ in range(random.choice((0, 1, 2, 3, 5, 8, 20)))]
    if random.random() < 0.15:
        # Allowed, such a packet is of a flow from then on for the kernel; never for ours. And its own reset to such a
        # packet, of a translated connection, the kernel does not let out
        action = Action.DROP if translations else random.choice((Action.DROP, Action.REJECT))
        rules.insert(random.randint(0, len(rules)), Rule(action, tracking=Tracking.INVALID))
    if random.random() < 0.7:
        states = Tracking.ESTABLISHED | (Tracking.RELATED if random.random() < 0.8 else 0)
        rules.insert(0 if random.random() < 0.8 else random.randint(0, len(rules)), Rule(Action.ALLOW, tracking=states))
    if random.random() < (0.8 if translations else 0.5):
        rules.append(Rule(Action.ALLOW, sides=random.choice((Side.RED, Side.TUNNEL, 0))))
    numbered = tuple(rule._replace(line=number) for number, rule in enumerate(rules, 1))
    is_lan_named = random.random() < (0.3 if translations else 0.1)
    lan = (prefix("10.1.0.0/24"), prefix("fd01::/64")) if is_lan_named else ()
    return RuleSet(numbered, translations, files=("case",), lan=lan)


def _action(random: Random) -> Action:
    return random.choices((Action.ALLOW, Action.DROP, Action.REJECT), (6, 3, 2))[0]


def _rule(random: Random) -> Rule:
    rule = Rule(_action(random))
    if random.random() < 0.5:
        rule = rule._replace(sides=random.choice((Side.RED, Side.TUNNEL)))
    elif random.random() < 0.2:
        rule = rule._replace(sides=Side.TUNNEL, peers=(random.choice((1, 2)),))
    if random.random() < 0.3:
        rule = rule._replace(version=random.choice((4, 6)))
    if random.random() < 0.4:
        rule = rule._replace(sources=_prefixes(random))
    elif random.random() < 0.1:
        rule = rule._replace(not_sources=_prefixes(random))
    if random.random() < 0.4:
        rule = rule._replace(destinations=_prefixes(random))
    elif random.random() < 0.1:
        rule = rule._replace(not_destinations=_prefixes(random))
    return _conditioned(random, _of_protocol(random, rule))


def _of_protocol(random: Random, rule: Rule) -> Rule:
    kind = random.choice(("any", "tcp", "tcp", "udp", "both", "icmp", "icmpv6", "other"))
    if kind in ("tcp", "udp", "both"):
        rule = rule._replace(protocols={"tcp": (6,), "udp": (17,), "both": (6, 17)}[kind])
        if random.random() < 0.7:
            rule = rule._replace(destination_ports=_ports(random))
        if random.random() < 0.15:
            rule = rule._replace(source_ports=_ports(random))
        if kind == "tcp" and random.random() < 0.3:
            mask = random.choice((0x02, 0x12, 0x17, 0x3F))
            rule = rule._replace(flags=Flags(mask, random.choice((0x02, 0x10, 0x12, 0x00, 0x04, 0x01)) & mask))
    elif kind == "icmp":
        rule = rule._replace(version=4, protocols=(1,))
        if random.random() < 0.7:
            rule = rule._replace(icmp=(Icmp(random.choice((0, 3, 8, 11, 13)), None),))
    elif kind == "icmpv6":
        rule = rule._replace(version=6, protocols=(58,))
        if random.random() < 0.7:
            rule = rule._replace(icmp=(Icmp(random.choice((1, 2, 3, 128, 129)), None),))
    elif kind == "other":
        rule = rule._replace(protocols=(random.choice(_OTHER_PROTOCOLS),))
    return rule


def _conditioned(random: Random, rule: Rule) -> Rule:
    roll = random.random()
    if roll < 0.15:
        return rule._replace(
            tracking=random.choice((Tracking.NEW, Tracking.ESTABLISHED, Tracking.NEW | Tracking.RELATED))
        )
    # One bucket here must be one there: a rule of one IP version and one protocol is one of nftables'
    if roll < 0.25 and rule.version and len(rule.protocols) == 1:
        if random.random() < 0.5:
            return rule._replace(limit=Limit(1, 0, 86400, random.choice((1, 2, 5))))
        return rule._replace(quota=Quota(0, random.choice((40, 100, 200, 1000))))
    if roll < 0.3:
        return rule._replace(expires=random.choice((1_000_000_000, 4_000_000_000)))
    return rule


def _translations(random: Random) -> Iterator[Translation]:
    for _ in range(random.choice((1, 1, 2, 3))):
        side = random.choice((Side.RED, Side.RED, Side.TUNNEL))
        protocols = random.choice(((), (6,), (17,), (6, 17), (1,)))
        has_ports = bool(protocols) and protocols != (1,)
        ports = _ports(random) if has_ports and random.random() < 0.3 else ()
        sources = _prefixes4(random) if random.random() < 0.3 else ()
        if random.random() < 0.5:
            leaves = random.choice((0, Side.RED, Side.TUNNEL))
            destinations = _prefixes4(random) if random.random() < 0.3 else ()
            alias = int(ipaddress.ip_address(random.choice(_ALIASES[side])))
            yield Translation(
                "", 0, 0, random.choice((0, side)), leaves, protocols, sources, destinations, ports, alias
            )
        else:
            way = "peer1" if side is Side.RED else "red"
            destinations = (prefix(f"{random.choice(_PUBLIC[way])}/32"),)
            true = int(ipaddress.ip_address(random.choice([one for one in _HOSTS[way] if ":" not in one])))
            port = random.choice((0, *_PORTS)) if has_ports else 0
            sides = random.choice((0, side, side))
            yield Translation("", 0, 0, sides, 0, protocols, sources, destinations, ports, None, true, port)


def _prefixes4(random: Random) -> tuple[Prefix, ...]:
    return tuple(one for one in _prefixes(random) if one.width == 4)


def _prefixes(random: Random) -> tuple[Prefix, ...]:
    return tuple(prefix(text) for text in random.sample(_PREFIXES, random.choice((1, 1, 2, 3))))


def _ports(random: Random) -> tuple[Range, ...]:
    first = random.choice((*_PORTS, *_CLIENT_PORTS))
    return random.choice(
        (
            (Range(first, first),),
            (Range(first, min(65535, first + 1000)),),
            (Range(1, 1023),),
            (Range(22, 22), Range(80, 443)),
            (Range(1024, 65535),),
        )
    )


# packets --------------------------------------------------------------------------------------------------------------


class _Talk:
    """Two hosts behind different interfaces, and how their packets begin."""

    def __init__(self, random: Random, hosts: Mapping[str, Sequence[str]]) -> None:
        self.random = random
        self.all = hosts
        client = random.choice(("red", "red", "peer1", "peer2"))
        server = random.choice(("peer1", "peer2")) if client == "red" else "red"
        version = random.choice((4, 4, 6))
        self.ways = (client, server)
        # A public address is only for others to call
        self.hosts = tuple(
            random.choice([name for name in names[way] if (":" in name) == (version == 6)])
            for way, names in zip(self.ways, (_HOSTS, hosts), strict=True)
        )
        self.version = version
        self.ports = random.choice(_CLIENT_PORTS), random.choice(_PORTS)

    def alone(self) -> None:
        """Takes a client's port that no other conversation of the case has."""
        number = getattr(self.random, "connections", 0)
        self.random.connections = number + 1  # type: ignore[attr-defined]
        self.ports = 40_000 + number, self.ports[1]

    def packet(self, end: int, *layers: Packet) -> Packet:
        """From the client (``end`` 0) or the server (1)."""
        source, destination = self.hosts[end], self.hosts[1 - end]
        if self.version == 4:
            packet = IP(src=source, dst=destination, id=self.random.randrange(1, 65536), ttl=64)
        else:
            packet = IPv6(src=source, dst=destination, hlim=64)
        for layer in layers:
            packet = packet / layer
        return packet

    def item(self, end: int, *layers: Packet) -> Item:
        return Item(self.ways[end], (bytes(self.packet(end, *layers)),))

    def tcp(self, end: int, flags: str, seq: int, ack: int, data: bytes = b"", **more: object) -> Item:
        header = TCP(
            sport=self.ports[end], dport=self.ports[1 - end], flags=flags, seq=seq % 2**32, ack=ack % 2**32, **more
        )
        return self.item(end, header, Raw(data)) if data else self.item(end, header)

    def udp(self, end: int, data: bytes = b"x" * 20) -> Item:
        return self.item(end, UDP(sport=self.ports[end], dport=self.ports[1 - end]), Raw(data))


def _traffic(
    random: Random, size: int, kinds: Sequence[Callable[[_Talk], Iterator[Item]]], hosts: Mapping[str, Sequence[str]]
) -> Iterator[Item]:
    """Conversations, a few at a time, packet by packet in turns."""
    talks: list[Iterator[Item]] = []
    for _ in range(size):
        while len(talks) < 4:
            talks.append(iter(random.choice(kinds)(_Talk(random, hosts))))
        while True:
            one = random.randrange(len(talks))
            item = next(talks[one], None)
            if item is not None:
                yield item
                break
            talks[one] = iter(random.choice(kinds)(_Talk(random, hosts)))


def _tcp_whole(talk: _Talk) -> Iterator[Item]:
    """One connection, or two, of which the second begins when both ends have closed the first one."""
    # Each conversation of a case has a port of its own: what a second SYN means while the first one waits is a matter
    # on which we and the kernel differ (docs/filter.md)
    talk.alone()
    is_closed = yield from _connection(talk)
    if is_closed and talk.random.random() < 0.5:
        yield from _connection(talk)


def _connection(talk: _Talk) -> Generator[Item, None, bool]:
    """Whether both ends have closed it in the end."""
    random = talk.random
    a, b = random.randrange(2**32), random.randrange(2**32)
    window = random.choice((1000, 65535))
    yield talk.tcp(0, "S", a, 0, window=window)
    if random.random() < 0.2:
        yield talk.tcp(0, "S", a, 0, window=window)
    if random.random() < 0.1:
        yield talk.tcp(1, "RA", 0, a + 1)
        yield talk.tcp(0, "A", a + 1, b + 1)
        return False
    yield talk.tcp(1, "SA", b, a + 1, window=window)
    a, b = a + 1, b + 1
    yield talk.tcp(0, "A", a, b, window=window)
    for _ in range(random.randrange(4)):
        end = random.randrange(2)
        data = bytes(random.randrange(1, 500))
        if end == 0:
            yield talk.tcp(0, "PA", a, b, data, window=window)
            a += len(data)
            yield talk.tcp(1, "A", b, a, window=window)
        else:
            yield talk.tcp(1, "PA", b, a, data, window=window)
            b += len(data)
            yield talk.tcp(0, "A", a, b, window=window)
    how = random.random()
    if how < 0.25:
        end = random.randrange(2)
        yield talk.tcp(end, "RA", (a, b)[end], (b, a)[end])
    elif how < 0.5:
        # far outside of the window: nobody's
        end = random.randrange(2)
        yield talk.tcp(end, random.choice(("A", "PA", "R")), (a, b)[end] + 2**30, (b, a)[end], b"evil")
    elif how < 0.8:
        yield talk.tcp(0, "FA", a, b, window=window)
        yield talk.tcp(1, "FA", b, a + 1, window=window)
        yield talk.tcp(0, "A", a + 1, b + 1, window=window)
    yield talk.tcp(random.randrange(2), "PA", a, b, b"late", window=window)
    return 0.5 <= how < 0.8


def _tcp_pieces(talk: _Talk) -> Iterator[Item]:
    """Segments of connections that nobody has opened, and such as no honest stack sends."""
    random = talk.random
    for _ in range(random.randrange(1, 4)):
        flags = random.choice(("A", "PA", "SA", "R", "RA", "FA", "", "FPU", "SF", "SR", "SFPU", "P"))
        yield talk.tcp(random.randrange(2), flags, random.randrange(2**32), random.randrange(2**32), b"x")


def _tcp_scan(talk: _Talk) -> Iterator[Item]:
    for port in talk.random.sample(_PORTS, 3):
        talk.ports = talk.ports[0], port
        talk.alone()
        yield talk.tcp(0, "S", talk.random.randrange(2**32), 0)


def _udp(talk: _Talk) -> Iterator[Item]:
    random = talk.random
    for _ in range(random.randrange(1, 4)):
        yield talk.udp(int(random.random() < 0.4), bytes(random.randrange(1, 300)))


def _echo(talk: _Talk) -> Iterator[Item]:
    random = talk.random
    name = random.randrange(65536)
    for number in range(random.randrange(1, 3)):
        if talk.version == 4:
            yield talk.item(0, ICMP(type=8, id=name, seq=number), Raw(bytes(32)))
            yield talk.item(1, ICMP(type=0, id=name, seq=number), Raw(bytes(32)))
        else:
            yield talk.item(0, ICMPv6EchoRequest(id=name, seq=number, data=bytes(32)))
            yield talk.item(1, ICMPv6EchoReply(id=name, seq=number, data=bytes(32)))
    if random.random() < 0.3:
        other = random.randrange(65536)
        if talk.version == 4:
            yield talk.item(1, ICMP(type=0, id=other, seq=0))
        else:
            yield talk.item(1, ICMPv6EchoReply(id=other, seq=0))


def _icmp_error(talk: _Talk) -> Iterator[Item]:
    """An error about a datagram that was sent, or about one that was not."""
    random = talk.random
    sent = talk.udp(0)
    if random.random() < 0.3:
        sent = talk.tcp(0, "S", 1000, 0)
    if random.random() < 0.8:
        yield sent
    about = sent.packets[0]
    if talk.version == 4:
        header = random.choice((ICMP(type=3, code=3), ICMP(type=3, code=4), ICMP(type=11, code=0)))
        yield talk.item(1, header, Raw(about[: random.choice((28, 40, len(about)))]))
    else:
        header = random.choice((ICMPv6DestUnreach(code=4), ICMPv6PacketTooBig(mtu=1280), ICMPv6TimeExceeded()))
        yield talk.item(1, header, Raw(about))
    if random.random() < 0.3:  # not from where the answer to such a datagram goes
        other = _Talk(random, talk.all)
        if other.version == 4:
            yield other.item(1, ICMP(type=3, code=1), Raw(about if about[0] >> 4 == 4 else b"\x45" + bytes(27)))


def _other(talk: _Talk) -> Iterator[Item]:
    protocol = talk.random.choice(_OTHER_PROTOCOLS)
    for _ in range(talk.random.randrange(1, 3)):
        end = talk.random.randrange(2)
        packet = talk.packet(end)
        if talk.version == 4:
            packet.proto = protocol
        else:
            packet.nh = protocol
        yield Item(
            talk.ways[end], (bytes(packet / Raw(_summed(packet, protocol, bytes(4) + talk.random.randbytes(18)))),)
        )


def _summed(packet: Packet, protocol: int, data: bytes) -> bytes:
    """What has the right checksum, whatever is read as such: nftables does not answer what it finds damaged."""
    pseudo = b"" if packet.version == 4 else bytes(packet)[8:40] + struct.pack("!II", len(data) + 2, protocol)
    total = sum(struct.unpack(f"!{(len(pseudo) + len(data)) // 2}H", pseudo + data))
    return data + struct.pack("!H", -total % 0xFFFF)


def _fragments(talk: _Talk) -> Iterator[Item]:
    """A datagram in pieces, in order."""
    random = talk.random
    end = int(random.random() < 0.3)
    if talk.version == 4:
        whole = talk.packet(end, UDP(sport=talk.ports[end], dport=talk.ports[1 - end]), Raw(random.randbytes(1800)))
        yield Item(talk.ways[end], tuple(bytes(piece) for piece in fragment(whole, 800)))
    else:
        whole = talk.packet(
            end,
            IPv6ExtHdrFragment(id=random.randrange(2**32)),
            UDP(sport=talk.ports[end], dport=talk.ports[1 - end]),
            Raw(random.randbytes(3000)),
        )
        yield Item(talk.ways[end], tuple(bytes(piece) for piece in fragment6(whole, 1400)))


def _extended(talk: _Talk) -> Iterator[Item]:
    """IPv6 with an extension header before the transport's, IPv4 with an option."""
    end = talk.random.randrange(2)
    udp = UDP(sport=talk.ports[end], dport=talk.ports[1 - end])
    if talk.version == 6:
        yield talk.item(end, IPv6ExtHdrDestOpt(), udp, Raw(b"x" * 30))
    else:
        packet = talk.packet(end, udp, Raw(b"x" * 30))
        packet.options = [b"\x01\x01\x01\x00"]
        yield Item(talk.ways[end], (bytes(packet),))


_KINDS: Final = (_tcp_whole, _tcp_whole, _tcp_whole, _tcp_pieces, _tcp_scan, _udp, _udp, _echo, _icmp_error, _other,
                 _fragments, _extended)  # fmt: skip
