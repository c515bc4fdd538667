"""The shell: counters, where groups go, and a log that cannot be flooded."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from appliance.vchan.messages import Packets
from components.filter import main
from components.filter.ruleset import encode
from tests.unit.fake_guest import FakeCounter
from tests.unit.filter.talk import ruleset, tcp_back, tcp_out, udp_back, udp_out


@dataclass
class Out:
    sent: list[Packets] = field(default_factory=list)
    full: bool = False

    def send(self, message: Packets) -> bool:
        if not self.full:
            self.sent.append(message)
        return not self.full


class FakeGuest:
    """As much of a guest as the filter uses."""

    def is_joined(self, port: str) -> bool:
        return False  # the operator's, which is optional

    def __init__(self, shards: list[dict[str, object]] | None = None, encrypts: int = 1) -> None:
        self.settings: dict[str, object] = {"ruleset": encode(ruleset("allow from tunnel udp to port 53"))}
        if shards is not None:
            self.settings["shards"] = shards
        self.encrypts = [Out() for _ in range(encrypts)]
        self.outs = {"tunnel_out": self.encrypts[0], "red_out": Out()}
        self.counters: dict[str, FakeCounter] = {}
        self.handlers: dict[str, Callable[[Packets, float], None]] = {}
        self.lines: list[tuple[str, str]] = []
        self.log = self
        self.tick: Callable[[float], float]
        main.build(self)  # type: ignore[arg-type]

    def short_end(self, port: str) -> None:
        """No message goes the short way here."""

    def info(self, event: str, text: str) -> None:
        self.lines.append((event, text))

    def warning(self, event: str, text: str) -> None:
        self.lines.append((event, text))

    def out(self, port: str) -> Out:
        return self.outs[port]

    def spread(self, port: str) -> list[Out]:
        assert port == "tunnel_out"
        return self.encrypts

    def senders(self, port: str) -> list[str]:
        assert port == "tunnel_in"
        return [f"decrypt{number}" for number in range(1, len(self.encrypts) + 1)]

    def counter(self, name: str) -> FakeCounter:
        return self.counters.setdefault(name, FakeCounter())

    def receive(self, port: str, handler: Callable[[Packets, float], None], into: Sequence[Out]) -> None:
        assert list(into) == {"red_in": self.encrypts, "tunnel_in": [self.outs["red_out"]]}[port]
        self.handlers[port] = handler

    def receive_many(self, port: str, handler: Callable[[str, Packets, float], None], into: Sequence[Out]) -> None:
        assert port == "tunnel_in" and list(into) == [self.outs["red_out"]]
        for decrypt in self.senders(port):
            self.handlers[decrypt] = functools.partial(handler, decrypt)

    def timer(self, handler: Callable[[float], float]) -> None:
        self.tick = handler

    def give(self, port: str, packet: bytes, now: float, peer: int = 5) -> None:
        self.handlers[port](Packets(memoryview(packet), len(packet), peer), now)


def test_groups_go_where_they_belong_and_are_counted() -> None:
    guest = FakeGuest()
    guest.give("red_in", tcp_out("S"), 1.0)
    guest.give("tunnel_in", tcp_back("SA"), 1.0)
    guest.give("tunnel_in", udp_back(), 1.0)
    guest.give("tunnel_in", tcp_back("S") + b"junk", 1.0)
    assert [(g.packets, g.peer) for g in guest.outs["tunnel_out"].sent] == [(tcp_out("S"), 0)]
    assert [(g.packets, g.peer) for g in guest.outs["red_out"].sent] == [(tcp_back("SA"), 5)]
    guest.tick(1.0)
    values = {name: counter.value for name, counter in guest.counters.items()}
    assert values == {
        "from_red": 1,
        "from_tunnel": 3,
        "passed": 2,
        "denied": 2,
        "malformed": 1,
        "rejected": 0,
        "flows": 1,
        "flows_full": 0,
        "sink_full": 0,
    }


def test_a_question_goes_to_the_red_side() -> None:
    guest = FakeGuest()
    guest.give("tunnel_in", tcp_back("PA", seq=5) + b"", 1.0)
    assert [len(g.packets) for g in guest.outs["red_out"].sent] == [40]


def test_what_finds_no_room_is_counted() -> None:
    guest = FakeGuest()
    guest.outs["tunnel_out"].full = guest.outs["red_out"].full = True
    guest.give("red_in", udp_out(), 1.0)
    guest.give("tunnel_in", udp_back(), 1.0)
    assert guest.counters["sink_full"].value == 2


def test_denials_make_one_line_in_ten_seconds_without_a_word_of_what_was_denied() -> None:
    guest = FakeGuest()
    strangers = udp_back(), tcp_back("R")
    for i in range(1000):
        now = 100.0 + i / 10
        for packet in strangers:
            guest.give("tunnel_in", packet, now)
        guest.tick(now)
    assert 10 <= len(guest.lines) <= 11
    assert guest.lines[0] == ("denied", "from the tunnel: 1 no rule, 1 no flow")
    assert not any("10.8" in text or "192" in text for _, text in guest.lines)


def test_the_timer_asks_for_the_next_second() -> None:
    guest = FakeGuest()
    assert guest.tick(5.0) == 6.0 and guest.tick(5.5) == 6.0 and guest.tick(6.0) == 7.0
