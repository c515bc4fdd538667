"""Addresses that are replaced and ports that are forwarded: there and back, with checksums that scapy agrees with."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP, UDPerror, fragment  # type: ignore[import-untyped]

from appliance.vchan.messages import Packets
from components.filter.engine import Engine
from components.filter.model import Action, Prefix, Range, Rule, RuleSet, Side, Tracking, Translation
from components.filter.nat import Exhausted, free_port
from components.filter.ruleset import read_prefix
from components.filter.ways import Ways

OUTSIDE, INSIDE, SERVER, FAR = "192.0.2.11", "192.168.1.10", "192.168.1.5", "198.51.100.7"
ALWAYS = (
    Rule(Action.ALLOW, tracking=Tracking.ESTABLISHED | Tracking.RELATED),
    Rule(Action.ALLOW, sides=Side.RED),
)


def number(address: str) -> int:
    return int.from_bytes(bytes(int(part) for part in address.split(".")), "big")


def prefix(text: str) -> tuple[Prefix, ...]:
    return (read_prefix("", text),)


SOURCE = Translation("", 0, 1, Side.RED, Side.BLACK, (), prefix("192.168.0.0/16"), (), (), source=number(OUTSIDE))
HTTP = (Range(8080, 8080),)
FORWARD = Translation(
    "", 0, 2, Side.BLACK, 0, (6,), (), prefix(OUTSIDE + "/32"), HTTP, destination=number(SERVER), port=80
)


class Router:
    """A box that passes in clear and translates."""

    def __init__(self, *rules: Rule, translations: tuple[Translation, ...] = (SOURCE, FORWARD)) -> None:
        self.engine = Engine(RuleSet((*ALWAYS, *rules), translations), Ways(Side.BLACK))
        self.now = 10.0

    def send(self, side: Side, packet: object) -> IP | None:
        """What leaves for it."""
        raw = bytes(packet)  # type: ignore[call-overload]
        outcome = self.engine.judge(Packets(memoryview(raw), len(raw), 0), side, self.now, 0.0)
        if not outcome.passed:
            return None
        ((way, group),) = outcome.passed
        assert way is (Side.BLACK if side is Side.RED else Side.RED)
        made = IP(bytes(group.packets))
        check(bytes(group.packets))
        return made


def check(raw: bytes) -> None:
    """That all checksums are right, if they were so before."""
    whole = IP(raw)
    if whole.frag or whole.flags.MF:
        return
    for layer in (IP, TCP, UDP, ICMP):
        if layer in whole:
            del whole[layer].chksum
    assert bytes(whole) == raw


def ends(packet: IP) -> tuple[object, ...]:
    return (packet.src, getattr(packet.payload, "sport", None), packet.dst, getattr(packet.payload, "dport", None))


@pytest.mark.parametrize("layer", [TCP(flags="S"), UDP()])
def test_a_source_is_replaced_and_the_answer_finds_its_way_back(layer: TCP | UDP) -> None:
    box = Router()
    left = box.send(Side.RED, IP(src=INSIDE, dst=FAR) / layer.copy() / b"odd")
    assert left is not None and ends(left)[0] == OUTSIDE and ends(left)[2] == FAR
    answer = IP(src=FAR, dst=OUTSIDE) / layer.copy() / b"answer"
    answer.payload.sport, answer.payload.dport = left.payload.dport, left.payload.sport
    if layer.name == "TCP":
        answer.payload.flags, answer.payload.ack = "SA", len(b"odd") + 1
    back = box.send(Side.BLACK, answer)
    assert back is not None and back.dst == INSIDE and back.payload.dport == layer.sport
    # Nobody outside may name the inside
    answer.dst = INSIDE
    assert box.send(Side.BLACK, answer) is None


def test_two_hosts_with_one_port_leave_by_two() -> None:
    box = Router()
    left = [box.send(Side.RED, IP(src=f"192.168.1.{host}", dst=FAR) / UDP(sport=5000, dport=53)) for host in (1, 2, 3)]
    ports = [packet.payload.sport for packet in left if packet is not None]
    assert ports[0] == 5000 and len(set(ports)) == 3 and all(port >= 1024 for port in ports)
    for host, port in zip((1, 2, 3), ports, strict=True):
        back = box.send(Side.BLACK, IP(src=FAR, dst=OUTSIDE) / UDP(sport=53, dport=port))
        assert back is not None and ends(back)[2:] == (f"192.168.1.{host}", 5000)


def test_pings_of_two_hosts_with_one_identifier() -> None:
    box = Router()
    left = [box.send(Side.RED, IP(src=f"192.168.1.{host}", dst=FAR) / ICMP(id=7, seq=1) / b"ping") for host in (1, 2)]
    names = [packet.payload.id for packet in left if packet is not None]
    assert names[0] == 7 and names[1] != 7
    back = box.send(Side.BLACK, IP(src=FAR, dst=OUTSIDE) / ICMP(type=0, id=names[1], seq=1) / b"ping")
    assert back is not None and back.dst == "192.168.1.2" and back.payload.id == 7


def test_a_port_is_forwarded_and_the_rules_are_asked_about_where_it_goes() -> None:
    syn = IP(src=FAR, dst=OUTSIDE) / TCP(sport=1234, dport=8080, flags="S")
    assert Router().send(Side.BLACK, syn) is None, "a forwarding alone allows nothing"
    wrong = Rule(Action.ALLOW, sides=Side.BLACK, destinations=prefix(OUTSIDE + "/32"))
    assert Router(wrong).send(Side.BLACK, syn) is None
    box = Router(Rule(Action.ALLOW, sides=Side.BLACK, destinations=prefix(SERVER + "/32"), protocols=(6,),
                      destination_ports=(Range(80, 80),)))  # fmt: skip
    came = box.send(Side.BLACK, syn)
    assert came is not None and ends(came) == (FAR, 1234, SERVER, 80)
    answer = box.send(Side.RED, IP(src=SERVER, dst=FAR) / TCP(sport=80, dport=1234, flags="SA", ack=1))
    assert answer is not None and ends(answer) == (OUTSIDE, 8080, FAR, 1234)
    assert box.send(Side.BLACK, IP(src=FAR, dst=OUTSIDE) / TCP(sport=1234, dport=8081, flags="S")) is None


def test_errors_are_translated_with_what_is_in_them() -> None:
    box = Router()
    left = box.send(Side.RED, IP(src=INSIDE, dst=FAR) / UDP(sport=5000, dport=53) / bytes(100))
    assert left is not None
    router = IP(src="203.0.113.1", dst=OUTSIDE) / ICMP(type=11) / left
    back = box.send(Side.BLACK, router)
    assert back is not None and (back.src, back.dst) == ("203.0.113.1", INSIDE)
    inner = back[ICMP].payload
    assert ends(IP(bytes(inner))) == (INSIDE, 5000, FAR, 53)
    check(bytes(IP(bytes(inner))))
    # and one from the inside, about what came back
    answer = IP(src=FAR, dst=OUTSIDE) / UDP(sport=53, dport=left.payload.sport) / bytes(50)
    came = box.send(Side.BLACK, answer)
    assert came is not None
    for reporter in (INSIDE, "192.168.9.1"):
        told = box.send(Side.RED, IP(src=reporter, dst=FAR) / ICMP(type=3, code=3) / bytes(came)[:28])
        assert told is not None and (told.src, told.dst) == (OUTSIDE, FAR), "nobody inside is named"
        assert bytes(told[ICMP].payload)[:28][12:24] == bytes(answer)[12:24]


def test_later_fragments_are_translated_as_the_first() -> None:
    box = Router()
    whole = IP(src=INSIDE, dst=FAR, id=9) / UDP(sport=5000, dport=53) / bytes(3000)
    left = [box.send(Side.RED, part) for part in fragment(whole, 1000)]
    assert len(left) >= 3 and all(part is not None and part.src == OUTSIDE for part in left)
    box.send(Side.RED, IP(src=INSIDE, dst=FAR) / UDP(sport=5000, dport=53))


def test_a_udp_packet_without_a_checksum_stays_so() -> None:
    box = Router()
    left = box.engine.judge(
        Packets(bytes(IP(src=INSIDE, dst=FAR) / UDP(sport=5000, dport=53, chksum=0)), 28), Side.RED, 1.0, 0.0
    )
    ((_, group),) = left.passed
    assert bytes(group.packets)[26:28] == b"\0\0"


@settings(max_examples=80, deadline=None)
@given(st.binary(max_size=60), st.integers(1024, 65_535), st.integers(1, 65_535), st.sampled_from((TCP, UDP)))
def test_checksums_hold_for_any_data(data: bytes, sport: int, dport: int, layer: type) -> None:
    box = Router()
    header = layer(sport=sport, dport=dport, **({"flags": "S"} if layer is TCP else {}))
    left = box.send(Side.RED, IP(src=INSIDE, dst=FAR) / header / data)
    assert left is not None and left.src == OUTSIDE and bytes(left[layer].payload) == data


def test_a_run_of_translated_packets_is_changed_one_by_one() -> None:
    box = Router()
    first = IP(src=INSIDE, dst=FAR) / UDP(sport=5000, dport=53) / bytes(100)
    left = box.send(Side.RED, first)
    assert left is not None
    answers = [
        bytes(IP(src=FAR, dst=OUTSIDE, id=i) / UDP(sport=53, dport=left.payload.sport) / bytes([i] * 100))
        for i in range(20)
    ]
    for _ in range(2):
        outcome = box.engine.judge(Packets(b"".join(answers), len(answers[0])), Side.BLACK, 11.0, 0.0)
        ((way, group),) = outcome.passed
        blob = bytes(group.packets)
        parts = [blob[at : at + group.size] for at in range(0, len(blob), group.size)]
        assert way is Side.RED and len(parts) == 20
        for i, part in enumerate(parts):
            check(part)
            assert IP(part).dst == INSIDE and part[-1] == i


def test_ports_run_out_and_nothing_is_taken_from_others() -> None:
    tried: list[bytes] = []

    def never(port: bytes) -> bool:
        tried.append(port)
        return False

    with pytest.raises(Exhausted):
        free_port((40_000).to_bytes(2, "big"), never, 7)
    assert len(tried) <= 128 and len(set(tried)) == len(tried)
    assert all(port >= b"\x04\0" for port in tried)


def test_replacing_a_translation_ends_the_flows_that_it_made() -> None:
    box = Router()
    assert box.send(Side.RED, IP(src=INSIDE, dst=FAR) / UDP(sport=5000, dport=53))
    same = RuleSet(ALWAYS, (SOURCE,))
    assert box.engine.replace(same, 11.0, 0.0) == (1, 0, 0)
    other = RuleSet(ALWAYS, (SOURCE._replace(source=number("192.0.2.99")),))
    assert box.engine.replace(other, 11.0, 0.0) == (0, 1, 0)
    assert box.engine.replace(RuleSet(ALWAYS), 11.0, 0.0) == (0, 0, 0)


def test_a_connection_that_was_closed_is_opened_anew_from_the_same_port() -> None:
    box = Router()
    there, back = IP(src=INSIDE, dst=FAR), IP(src=FAR, dst=OUTSIDE)
    for first in (100, 70_000):
        opened = box.send(Side.RED, there / TCP(sport=40_000, dport=80, flags="S", seq=first))
        assert opened is not None and opened.sport == 40_000
        assert box.send(Side.BLACK, back / TCP(sport=80, dport=40_000, flags="SA", seq=5, ack=first + 1))
        assert box.send(Side.RED, there / TCP(sport=40_000, dport=80, flags="FA", seq=first + 1, ack=6))
        assert box.send(Side.BLACK, back / TCP(sport=80, dport=40_000, flags="FA", seq=6, ack=first + 2))
        assert box.send(Side.RED, there / TCP(sport=40_000, dport=80, flags="A", seq=first + 2, ack=7))
    assert len(box.engine.flows) == 1


def test_where_the_lan_is_named_what_is_forwarded_to_it_and_errors_for_it_come_in() -> None:
    box = Router(Rule(Action.ALLOW, sides=Side.BLACK, protocols=(6,), destinations=prefix(SERVER + "/32")))
    lan = prefix("192.168.1.0/24")
    box.engine = Engine(box.engine.ruleset._replace(lan=lan), Ways(Side.BLACK))
    came = box.send(Side.BLACK, IP(src=FAR, dst=OUTSIDE) / TCP(sport=5000, dport=8080, flags="S"))
    assert came is not None and came.dst == SERVER
    assert box.send(Side.BLACK, IP(src=FAR, dst=OUTSIDE) / TCP(sport=5000, dport=8081, flags="S")) is None
    assert box.engine.denied[Side.BLACK]["spoofed"] == 1, "the address itself is none of the LAN's"
    sent = box.send(Side.RED, IP(src=INSIDE, dst=FAR) / UDP(sport=5000, dport=53))
    assert sent is not None
    error = box.send(Side.BLACK, IP(src="203.0.113.1", dst=OUTSIDE) / ICMP(type=3, code=4) / sent)
    assert error is not None and error.dst == INSIDE and error[UDPerror].sport == 5000
    assert box.engine.replace(box.engine.ruleset, 11.0, 0.0) == (2, 0, 0), "and lives on when rules are replaced"
