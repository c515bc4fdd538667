"""Packets of both directions for tests of the filter, made by scapy, and a filter with a clock."""

from __future__ import annotations

from scapy.layers.inet import ICMP, IP, TCP, UDP  # type: ignore[import-untyped]
from scapy.layers.inet6 import ICMPv6EchoReply, ICMPv6EchoRequest, IPv6  # type: ignore[import-untyped]

from appliance.rules.read import from_text
from appliance.vchan.messages import Packets
from components.filter.engine import Engine, Outcome
from components.filter.model import RuleSet, Side

NEAR = {4: "192.168.1.10", 6: "fd00::10"}
FAR = {4: "10.8.0.2", 6: "fd08::2"}


def ip(version: int, source: str, destination: str, **fields: object) -> IP | IPv6:
    return (IP if version == 4 else IPv6)(src=source, dst=destination, **fields)


def out(version: int = 4) -> IP | IPv6:
    """An IP header from the red side into the tunnel."""
    return ip(version, NEAR[version], FAR[version])


def back(version: int = 4) -> IP | IPv6:
    return ip(version, FAR[version], NEAR[version])


def numbers(flags: str) -> dict[str, int]:
    """Of a segment after, or in, a handshake that began at 0 on both sides."""
    return {"seq": 0 if "S" in flags else 1, "ack": 1 if "A" in flags else 0}


def tcp_out(flags: str = "S", version: int = 4, sport: int = 40000, dport: int = 443, **fields: object) -> bytes:
    return bytes(out(version) / TCP(sport=sport, dport=dport, flags=flags, **numbers(flags) | fields))


def tcp_back(flags: str = "SA", version: int = 4, sport: int = 443, dport: int = 40000, **fields: object) -> bytes:
    return bytes(back(version) / TCP(sport=sport, dport=dport, flags=flags, **numbers(flags) | fields))


def udp_out(version: int = 4, sport: int = 5353, dport: int = 53, data: bytes = b"q") -> bytes:
    return bytes(out(version) / UDP(sport=sport, dport=dport) / data)


def udp_back(version: int = 4, sport: int = 53, dport: int = 5353, data: bytes = b"a") -> bytes:
    return bytes(back(version) / UDP(sport=sport, dport=dport) / data)


def echo(version: int, request: bool, ident: int = 7) -> ICMP:
    if version == 4:
        return ICMP(type=8 if request else 0, id=ident)
    return (ICMPv6EchoRequest if request else ICMPv6EchoReply)(id=ident)


WALL = 1_700_000_000.0  # Tuesday, 14 November 2023, 22:13 UTC


ALWAYS = ("allow established related", "allow from red")


def ruleset(*rules: str) -> RuleSet:
    """What red opens, answers to it, and these rules."""
    return from_text("\n".join((*ALWAYS, *rules)), "test.rules").ruleset


def engine(*rules: str) -> Engine:
    """An engine by which red may open everything, and the tunnel what is listed."""
    return Engine(ruleset(*rules))


class Box:
    """A filter and a clock; single packets in, the single packets that pass out."""

    def __init__(self, *rules: str, engine_: Engine | None = None) -> None:
        self.engine = engine_ or engine(*rules)
        self.now = 1000.0
        self.wall = WALL
        self.answers: list[bytes] = []

    def judge(self, packets: bytes | memoryview, size: int, side: Side, peer: int = 0) -> Outcome:
        return self.engine.judge(Packets(packets, size, peer), side, self.now, self.wall)

    def passes(self, packet: object, side: Side, peer: int = 0) -> bool:
        """Whether ``packet`` passes, unchanged."""
        raw = bytes(packet)  # type: ignore[call-overload]
        outcome = self.judge(raw, len(raw), side, peer)
        assert [p.packets for _, p in outcome.passed] in ([], [raw])
        self.answers += [bytes(answer.packets) for _, answer in outcome.answers]
        return bool(outcome.passed)

    def red(self, packet: object) -> bool:
        """Whether ``packet`` may go from the red side into the tunnel."""
        return self.passes(packet, Side.RED)

    def tunnel(self, packet: object, peer: int = 1) -> bool:
        """Whether ``packet`` may go from the tunnel to the red side."""
        return self.passes(packet, Side.TUNNEL, peer)

    def group(self, group: Packets) -> list[Packets]:
        """What of a group from the tunnel may go to the red side."""
        return [passed for _, passed in self.engine.judge(group, Side.TUNNEL, self.now, self.wall).passed]

    def why(self) -> dict[str, int]:
        """All denials so far."""
        return {why: n for counts in self.engine.denied.values() for why, n in counts.items()}
