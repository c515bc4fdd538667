"""The verdict on frames: what is IP goes by the engine, all else by a rule that names it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP  # type: ignore[import-untyped]
from scapy.layers.inet6 import ICMPv6EchoRequest, ICMPv6ND_NS, IPv6  # type: ignore[import-untyped]
from scapy.layers.l2 import ARP  # type: ignore[import-untyped]

from appliance.assembly.load import ASSEMBLIES
from appliance.guest.settings import SettingsError
from appliance.rules.read import from_file, from_text
from appliance.vchan.messages import Frames
from components.filter.engine import Engine
from components.filter.ethernet import Ethernet, Malformed, Outgoing, parse
from components.filter.inline import parse as settings
from components.filter.model import Prefix, RuleSet, Side
from components.filter.ruleset import encode
from components.filter.ways import Ways

RED, BLACK = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
OUTWARDS, INWARDS = BLACK + RED, RED + BLACK
IP4, IP6, ARP_, TEN = b"\x08\x00", b"\x86\xdd", b"\x08\x06", bytes.fromhex("8100a00a")
ALL = b"\xff" * 6
HOST, SERVER = "192.168.9.2", "192.168.9.1"


class Box:
    """A bridge with a clock."""

    def __init__(self, *rules: str, ruleset: RuleSet | None = None) -> None:
        self.engine = Engine(
            ruleset or from_text("\n".join(rules), "test.rules").ruleset, Ways(Side.BLACK, is_bridge=True)
        )
        self.ethernet = Ethernet(self.engine)
        self.now = 100.0

    def judge(self, link: bytes, *payloads: object, side: Side = Side.RED) -> list[Outgoing]:
        self.now += 0.01
        parts = [bytes(payload) for payload in payloads]  # type: ignore[call-overload]
        return self.ethernet.judge(Frames(b"".join(parts), len(parts[0]), link), side, self.now, 1.7e9)

    def passes(self, link: bytes, *payloads: object, side: Side = Side.RED) -> bool:
        """Whether all of them do, as they are, to the other side."""
        parts = b"".join(bytes(payload) for payload in payloads)  # type: ignore[call-overload]
        went = self.judge(link, *payloads, side=side)
        far = Side.BLACK if side is Side.RED else Side.RED
        is_whole = b"".join(bytes(one.frames.payloads) for one in went) == parts
        assert is_whole or not went
        return is_whole and all(one.side is far and one.frames.link == link for one in went)


def syn(port: int = 80, **more: object) -> IP:
    return IP(src=HOST, dst=SERVER) / TCP(**{"sport": 40000, "dport": port, "flags": "S", **more})


def arp(sender: str = HOST, **more: object) -> ARP:
    return ARP(**{"hwsrc": "02:00:00:00:00:01", "psrc": sender, "pdst": SERVER, **more})


def test_ip_goes_by_the_engine_and_back() -> None:
    box = Box("allow established", "allow from red")
    assert box.passes(OUTWARDS + IP4, syn())
    answer = IP(src=SERVER, dst=HOST) / TCP(sport=80, dport=40000, flags="SA", ack=1)
    assert box.passes(INWARDS + IP4, answer, side=Side.BLACK)
    assert not box.passes(INWARDS + IP4, IP(src=SERVER, dst=HOST) / UDP(), side=Side.BLACK)
    assert box.passes(OUTWARDS + IP6, IPv6(src="fd00::2", dst="fd00::1") / ICMPv6EchoRequest())
    assert box.engine.denied[Side.BLACK] == {"no rule": 1}


def test_a_group_is_passed_on_as_the_object_it_is() -> None:
    box = Box("allow from red")
    group = Frames(
        b"".join(bytes(IP(src=HOST, dst=SERVER) / UDP(sport=1, dport=2) / bytes([i])) for i in range(9)),
        29,
        OUTWARDS + IP4,
    )
    (out,) = box.ethernet.judge(group, Side.RED, 1.0, 1.7e9)
    assert out.frames == group and out.frames.payloads is group.payloads


def test_a_packet_is_of_the_version_that_its_frame_says() -> None:
    box = Box("allow from red", "allow from black")
    assert not box.passes(OUTWARDS + IP6, syn())
    assert not box.passes(OUTWARDS + IP4, IPv6(src="fd00::2", dst="fd00::1") / UDP())
    assert not box.passes(OUTWARDS + IP4, syn(), b"\x60" + bytes(39)), "one of a group"
    assert box.engine.denied[Side.RED] == {"malformed": 4}


@pytest.mark.parametrize(
    ("rule", "kind", "payload"),
    [
        ("allow arp", ARP_, arp()),
        ("allow arp request", ARP_, arp()),
        ("allow stp", b"\0\x26", b"\x42\x42\x03" + bytes(35)),
        ("allow ethertype lldp", b"\x88\xcc", b"x"),
        ("allow ethertype 0x88b5", b"\x88\xb5", b"x"),
    ],
)
def test_what_is_no_ip_passes_by_a_rule_that_names_it(rule: str, kind: bytes, payload: object) -> None:
    assert Box(rule).passes(OUTWARDS + kind, payload, payload)
    assert Box(rule).passes(INWARDS + kind, payload, side=Side.BLACK)
    assert not Box(f"{rule} from black").passes(OUTWARDS + kind, payload)
    assert not Box("allow from red", "allow vlan none from red", "allow from mac 02:00:00:00:00:01").passes(
        OUTWARDS + kind, payload
    )
    assert not Box(rule).passes(OUTWARDS + TEN + kind, payload), (
        "a rule that says nothing of tags is about untagged frames"
    )
    assert Box(f"{rule} vlan 10").passes(OUTWARDS + TEN + kind, payload)


def test_some_of_a_group() -> None:
    box = Box("allow arp request")
    request, reply = bytes(arp()), bytes(arp(op=2))
    (out,) = box.judge(OUTWARDS + ARP_, request, reply)
    assert bytes(out.frames.payloads) == request
    assert len(box.judge(OUTWARDS + ARP_, request, reply, request)) == 2


def test_arp_that_is_none_and_arp_for_others() -> None:
    box = Box("allow arp")
    for bad in (
        bytes(arp())[:-1],
        bytes(arp()) + b"x",
        bytes(arp(hwlen=4)),
        bytes(arp(ptype=0x86DD)),
        bytes(arp(hwtype=6)),
    ):
        assert not box.passes(OUTWARDS + ARP_, bad)
    assert box.engine.denied[Side.RED] == {"malformed": 5}
    lan = Prefix(4, 0xC0A80900, 0xFFFFFF00)
    own = Box(ruleset=from_text("allow arp", "t").ruleset._replace(lan=(lan,)))
    assert own.passes(OUTWARDS + ARP_, arp())
    assert own.passes(OUTWARDS + ARP_, arp("0.0.0.0")), "who asks whether an address is free has none"
    assert not own.passes(OUTWARDS + ARP_, arp("10.0.0.1"))
    assert own.engine.denied[Side.RED] == {"spoofed": 1}
    assert own.passes(INWARDS + ARP_, arp(SERVER), side=Side.BLACK)


def test_vlans_are_networks_of_their_own() -> None:
    box = Box("allow vlan 10 established", "allow vlan 10 from red", "allow vlan 20 established")
    assert box.passes(OUTWARDS + TEN + IP4, syn())
    answer = IP(src=SERVER, dst=HOST) / TCP(sport=80, dport=40000, flags="SA", ack=1)
    twenty = TEN[:2] + b"\0\x14"
    assert not box.passes(INWARDS + twenty + IP4, answer, side=Side.BLACK)
    assert not box.passes(INWARDS + IP4, answer, side=Side.BLACK)
    assert box.passes(INWARDS + TEN + IP4, answer, side=Side.BLACK)


def test_who_sent_it_is_looked_at_every_time() -> None:
    box = Box("allow from mac 02:00:00:00:00:01 udp", "allow established")
    packet = IP(src=HOST, dst=SERVER) / UDP(sport=5, dport=6) / b"x"
    assert box.passes(OUTWARDS + IP4, packet, packet)
    assert not box.passes(BLACK + b"\x02\0\0\0\0\x09" + IP4, packet), "another host with the address of the first"


def test_a_second_tag_hides_what_is_behind_it() -> None:
    double = OUTWARDS + TEN + TEN + IP4
    assert not Box("allow from red", "allow vlan 10 from red").passes(double, syn())
    assert Box("allow vlan 10 ethertype 0x8100").passes(double, syn())


def test_a_priority_tag_is_no_vlan() -> None:
    assert Box("allow from red").passes(OUTWARDS + b"\x81\0\x60\0" + IP4, syn())


@pytest.mark.parametrize(
    "link",
    [
        BLACK + b"\x03" + RED[1:] + IP4,
        OUTWARDS + b"\x08\0\0\0" + IP4,
        OUTWARDS + TEN + b"\x08\0\0\0" + IP4,
        OUTWARDS + b"\x05\xdd",
        OUTWARDS + TEN[:2] + IP4,
    ],
)
def test_link_headers_of_no_honest_host(link: bytes) -> None:
    with pytest.raises(Malformed):
        parse(link)
    box = Box("allow from red", "allow ethertype 0x5dd")
    assert not box.passes(link, syn())
    assert box.engine.denied[Side.RED] == {"malformed": 1}


def test_answers_go_back_in_the_sender_s_own_frames() -> None:
    box = Box("reject from black", "reject vlan 10 from black")
    for tag in (b"", TEN):
        link = INWARDS + tag + IP4
        (answer,) = box.judge(link, IP(src=SERVER, dst=HOST) / TCP(dport=80, flags="S", seq=7), side=Side.BLACK)
        assert answer.side is Side.BLACK
        assert answer.frames.link == OUTWARDS + tag + IP4
        told = IP(bytes(answer.frames.payloads))
        assert (told.src, told.dst, told[TCP].ack) == (HOST, SERVER, 8)
    (answer,) = box.judge(INWARDS + IP4, IP(src=SERVER, dst=HOST) / UDP(), side=Side.BLACK)
    assert IP(bytes(answer.frames.payloads))[ICMP].code == 13
    assert not box.judge(ALL + BLACK + IP4, IP(src=SERVER, dst=HOST) / UDP(), side=Side.BLACK), "that came to all"


def test_a_question_goes_on_to_whom_the_frame_was_for() -> None:
    box = Box("allow established", "allow from red")
    (asked,) = box.judge(INWARDS + IP4, IP(src=SERVER, dst=HOST) / TCP(flags="A", seq=9, ack=5) / b"x", side=Side.BLACK)
    assert asked.side is Side.RED
    assert asked.frames.link == INWARDS + IP4


def test_the_rules_that_come_with_it() -> None:
    box = Box(ruleset=from_file(ASSEMBLIES / "filter.rules").ruleset)
    assert box.passes(ALL + RED + ARP_, arp())
    solicitation = IPv6(src="fe80::2", dst="ff02::1:ff00:1", hlim=255) / ICMPv6ND_NS(tgt="fe80::1")
    assert box.passes(b"\x33\x33\xff\0\0\1" + RED + IP6, solicitation)
    asks = IP(src="0.0.0.0", dst="255.255.255.255") / UDP(sport=68, dport=67) / bytes(240)
    answers = IP(src=SERVER, dst="255.255.255.255") / UDP(sport=67, dport=68) / bytes(240)
    assert box.passes(ALL + RED + IP4, asks)
    assert box.passes(ALL + BLACK + IP4, answers, side=Side.BLACK)
    assert not box.passes(ALL + BLACK + IP4, asks, side=Side.BLACK), "no client outside"
    for kind, payload in ((b"\0\x26", b"\x42\x42\x03" + bytes(35)), (b"\x88\xb5", b"x"), (b"\x88\x8e", b"x")):
        assert not box.passes(OUTWARDS + kind, payload)
    assert not box.passes(OUTWARDS + TEN + IP4, syn())
    assert box.passes(OUTWARDS + IP4, syn())


def test_settings_of_boxes_in_line() -> None:
    plain = encode(from_text("allow from red", "t").ruleset)
    assert settings("bridge", {"ruleset": plain}).ways.leaves(bytes(4)) is Side.BLACK
    translating = encode(from_text("nat from red to black -> 192.0.2.1\nallow from red", "t").ruleset)
    with pytest.raises(SettingsError, match="a bridge has none to translate to"):
        settings("bridge", {"ruleset": translating})
    with pytest.raises(SettingsError, match="ruleset: is missing"):
        settings("bridge", {})
    with pytest.raises(SettingsError, match="no role 'filter' that is in line"):
        settings("filter", {"ruleset": plain})
    with pytest.raises(SettingsError, match=r"clear\[1\]: is a tunnel peer's too"):
        settings("split", {"ruleset": plain, "clear": ["0.0.0.0/0", "10.0.0.0/8"], "tunnel": ["10.0.0.0/8"]})
    with pytest.raises(SettingsError, match=r"clear\[0\]"):
        settings("split", {"ruleset": plain, "clear": ["10.0.0.1/8"]})
    ways = settings(
        "split", {"ruleset": translating, "clear": ["0.0.0.0/0", "10.1.2.0/24"], "tunnel": ["10.1.0.0/16", "fd00::/8"]}
    ).ways
    assert ways.leaves(bytes((10, 1, 9, 9))) is Side.TUNNEL
    assert ways.leaves(bytes((10, 1, 2, 9))) is Side.BLACK
    assert ways.leaves(bytes((8, 8, 8, 8))) is Side.BLACK
    assert ways.leaves(b"\x20\x01" + bytes(14)) is Side.TUNNEL, "what is nobody's has no peer there"


_LINKS = st.sampled_from([b"", TEN, TEN + TEN]).flatmap(
    lambda tags: st.builds(
        lambda macs, kind: macs + tags + kind,
        st.binary(min_size=12, max_size=12),
        st.sampled_from([IP4, IP6, ARP_, b"\0\x26", b"\x88\xb5"]) | st.binary(min_size=2, max_size=2),
    )
)


@given(_LINKS, st.binary(min_size=1, max_size=200), st.integers(1, 200), st.sampled_from([Side.RED, Side.BLACK]))
def test_whatever_a_face_sends_only_whole_frames_of_it_pass(link: bytes, blob: bytes, size: int, side: Side) -> None:
    box = Box("allow from red, black", "allow arp", "allow stp", "allow ethertype 0x88b5")
    payloads = [blob[at : at + size] for at in range(0, len(blob), size)]
    for out in box.ethernet.judge(Frames(blob, size, link), side, 1.0, 1.7e9):
        if out.side is not side:
            assert out.frames.link == link
            sent = bytes(out.frames.payloads)
            assert all(sent[at : at + out.frames.size] in payloads for at in range(0, len(sent), out.frames.size))
