"""Packets of both directions for tests of the filter, made by scapy, and a filter with a clock."""

from __future__ import annotations

from scapy.layers.inet import ICMP, IP, TCP, UDP  # type: ignore[import-untyped]
from scapy.layers.inet6 import ICMPv6EchoReply, ICMPv6EchoRequest, IPv6  # type: ignore[import-untyped]

from appliance.vchan.messages import Packets
from components.filter.settings import parse
from components.filter.verdict import Filter

NEAR = {4: "192.168.1.10", 6: "fd00::10"}
FAR = {4: "10.8.0.2", 6: "fd08::2"}


def ip(version: int, source: str, destination: str, **fields: object) -> IP | IPv6:
    return (IP if version == 4 else IPv6)(src=source, dst=destination, **fields)


def out(version: int = 4) -> IP | IPv6:
    """An IP header from the red side into the tunnel."""
    return ip(version, NEAR[version], FAR[version])


def back(version: int = 4) -> IP | IPv6:
    return ip(version, FAR[version], NEAR[version])


def tcp_out(flags: str = "S", version: int = 4, sport: int = 40000, dport: int = 443, **fields: object) -> bytes:
    return bytes(out(version) / TCP(sport=sport, dport=dport, flags=flags, **fields))


def tcp_back(flags: str = "SA", version: int = 4, sport: int = 443, dport: int = 40000, **fields: object) -> bytes:
    return bytes(back(version) / TCP(sport=sport, dport=dport, flags=flags, **fields))


def udp_out(version: int = 4, sport: int = 5353, dport: int = 53, data: bytes = b"q") -> bytes:
    return bytes(out(version) / UDP(sport=sport, dport=dport) / data)


def udp_back(version: int = 4, sport: int = 53, dport: int = 5353, data: bytes = b"a") -> bytes:
    return bytes(back(version) / UDP(sport=sport, dport=dport) / data)


def echo(version: int, request: bool, ident: int = 7) -> ICMP:
    if version == 4:
        return ICMP(type=8 if request else 0, id=ident)
    return (ICMPv6EchoRequest if request else ICMPv6EchoReply)(id=ident)


class Box:
    """A filter and a clock; single packets in, the single packets that pass out."""

    def __init__(self, *rules: dict[str, object]) -> None:
        self.filter = Filter(parse("filter", {"allow_from_tunnel": list(rules)}))
        self.now = 1000.0
        self.questions: list[bytes] = []

    def red(self, packet: object) -> bool:
        """Whether ``packet`` may go from the red side into the tunnel."""
        raw = bytes(packet)  # type: ignore[call-overload]
        passed = self.filter.from_red(Packets(raw, len(raw), 0), self.now)
        assert [p.packets for p in passed] in ([], [raw])
        return bool(passed)

    def tunnel(self, packet: object, peer: int = 1) -> bool:
        """Whether ``packet`` may go from the tunnel to the red side."""
        raw = bytes(packet)  # type: ignore[call-overload]
        verdict = self.filter.from_tunnel(Packets(raw, len(raw), peer), self.now)
        assert [p.packets for p in verdict.passed] in ([], [raw])
        self.questions += [bytes(question.packets) for question in verdict.questions]
        return bool(verdict.passed)

    def why(self) -> dict[str, int]:
        """All denials so far."""
        return {why: n for counts in self.filter.denied.values() for why, n in counts.items()}
