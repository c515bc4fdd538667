"""Who may open what, and who may answer."""

from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_LSRR, fragment  # type: ignore[import-untyped]
from scapy.layers.inet6 import (  # type: ignore[import-untyped]
    ICMPv6DestUnreach,
    ICMPv6ND_NS,
    ICMPv6PacketTooBig,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    fragment6,
)

from appliance.vchan.messages import Packets
from components.filter.engine import Engine
from components.filter.flows import TIMEOUTS, State
from components.filter.model import Side
from tests.unit.filter.talk import FAR, NEAR, Box, back, echo, ip, out, ruleset, tcp_back, tcp_out, udp_back, udp_out


def handshake(box: Box, version: int = 4) -> None:
    assert box.red(tcp_out("S", version)) and box.tunnel(tcp_back("SA", version)) and box.red(tcp_out("A", version))


BOTH = pytest.mark.parametrize("version", [4, 6])


@BOTH
def test_nothing_from_the_tunnel_passes_by_itself(version: int) -> None:
    box = Box()
    for packet in (
        tcp_back("S", version),
        tcp_back("SA", version),
        tcp_back("A", version),
        tcp_back("R", version),
        tcp_back("", version),
        udp_back(version),
        back(version) / echo(version, True),
        back(version) / echo(version, False),
        ip(version, FAR[version], NEAR[version]) / b"something else",
    ):
        assert not box.tunnel(packet)
    assert len(box.engine.flows) == 0


@BOTH
def test_what_red_opens_is_answered_and_only_that(version: int) -> None:
    box = Box()
    assert box.red(tcp_out("S", version))
    assert box.tunnel(tcp_back("SA", version))
    assert box.red(tcp_out("A", version)) and box.tunnel(tcp_back("PA", version))
    assert not box.tunnel(tcp_back("SA", version, sport=444))
    assert not box.tunnel(tcp_back("SA", version, dport=40001))
    assert not box.tunnel(
        ip(version, {4: "10.8.0.3", 6: "fd08::3"}[version], NEAR[version]) / TCP(sport=443, dport=40000, flags="A")
    )
    assert not box.tunnel(
        ip(version, FAR[version], {4: "192.168.1.11", 6: "fd00::11"}[version]) / TCP(sport=443, dport=40000, flags="A")
    )
    assert not box.tunnel(udp_back(version, sport=443, dport=40000))
    assert box.red(udp_out(version)) and box.tunnel(udp_back(version)) and not box.tunnel(udp_back(version, sport=54))


@BOTH
def test_a_flow_of_red_is_no_way_in_for_a_syn(version: int) -> None:
    box = Box()
    assert box.red(tcp_out("S", version)) and box.tunnel(tcp_back("SA", version))
    assert not box.tunnel(tcp_back("S", version))
    assert box.why() == {"no rule": 1}


@BOTH
def test_pings(version: int) -> None:
    box = Box()
    assert box.red(out(version) / echo(version, True))
    assert box.tunnel(back(version) / echo(version, False))
    assert not box.tunnel(back(version) / echo(version, False, ident=8))
    assert not box.tunnel(back(version) / echo(version, True)), "a ping of theirs is not the answer to ours"
    assert not Box().red(out(version) / echo(version, False)), "an answer to nothing"


@BOTH
def test_a_rule_lets_the_tunnel_open_and_red_answer(version: int) -> None:
    box = Box(f"allow new from tunnel tcp to {NEAR[version]} port 22, 8000-8010")
    assert box.tunnel(tcp_back("S", version, dport=22)) and box.red(tcp_out("SA", version, sport=22))
    assert box.tunnel(tcp_back("A", version, dport=22))
    for port, passes in ((7999, False), (8000, True), (8010, True), (8011, False)):
        assert box.tunnel(tcp_back("S", version, dport=port)) is passes
    assert not box.tunnel(udp_back(version, dport=22))
    assert not box.tunnel(tcp_back("A", version, dport=8005)), "only a SYN opens"


def test_rules_by_source_peer_and_protocol() -> None:
    box = Box(
        "allow from peer one 192.0.2.1",
        "allow from peer two 10.8.0.0/24 udp",
        "allow new from tunnel icmp type echo-request to 192.168.0.0/16",
        "allow new from tunnel fd08::/16 to fd00::/64",
    )
    assert not box.tunnel(udp_back(), peer=1)
    assert box.tunnel(udp_back(), peer=2)
    assert not box.tunnel(ip(4, "10.8.1.2", NEAR[4]) / UDP(dport=1, sport=2), peer=2)
    assert box.tunnel(back() / echo(4, True)) and box.red(out() / echo(4, False))
    assert box.tunnel(back(6) / echo(6, True)) and box.tunnel(tcp_back("S", 6)) and box.tunnel(udp_back(6))
    assert not box.tunnel(back(6) / ICMPv6ND_NS(tgt=NEAR[6])), "of ICMP, rules allow echo requests"
    assert not box.tunnel(back() / ICMP(type=5)) and not box.tunnel(back() / ICMP(type=13))


ERRORS_BACK = [
    (4, ICMP(type=3, code=4, nexthopmtu=1280)),
    (4, ICMP(type=3, code=1)),
    (4, ICMP(type=11)),
    (6, ICMPv6PacketTooBig(mtu=1280)),
    (6, ICMPv6DestUnreach()),
    (6, ICMPv6TimeExceeded()),
]


@pytest.mark.parametrize(("version", "error"), ERRORS_BACK)
def test_errors_about_a_flow_pass_and_others_do_not(version: int, error: ICMP) -> None:
    box = Box()
    router = {4: "10.9.9.9", 6: "fd09::9"}[version]
    for mine in (tcp_out("S", version), udp_out(version), bytes(out(version) / echo(version, True))):
        about = IP(mine) if version == 4 else IPv6(mine)
        assert not box.tunnel(ip(version, router, NEAR[version]) / error / about), "no such flow yet"
        assert box.red(mine)
        assert box.tunnel(ip(version, router, NEAR[version]) / error / about)
        other = {4: "192.168.1.99", 6: "fd00::99"}[version]
        assert not box.tunnel(ip(version, router, other) / error / about), "to somebody else"
        assert not box.tunnel(ip(version, router, NEAR[version]) / error / bytes(about)[:20]), "about too little"
    theirs = tcp_back("A", version)
    assert not box.tunnel(ip(version, router, NEAR[version]) / error / (IP if version == 4 else IPv6)(theirs))


@pytest.mark.parametrize(("version", "error"), ERRORS_BACK)
def test_errors_from_the_red_side_need_a_flow_too(version: int, error: ICMP) -> None:
    box = Box("allow new from tunnel udp to port 53")
    question = udp_back(version, sport=9, dport=53)
    about = IP(question) if version == 4 else IPv6(question)
    report = ip(version, NEAR[version], FAR[version]) / error / about
    assert not box.red(report)
    assert box.tunnel(question) and box.red(report)


def test_only_the_first_kilobytes_of_an_error_matter() -> None:
    box = Box()
    big = udp_out(data=bytes(1200))
    assert box.red(big)
    assert box.tunnel(ip(4, "10.9.9.9", NEAR[4]) / ICMP(type=3, code=4) / big[:28])


def test_answers_from_red_need_somebody_who_asked() -> None:
    box = Box()
    assert not box.red(tcp_out("R"))
    assert box.red(tcp_out("A")), "a connection older than the filter goes on"
    assert box.red(tcp_out("R"))


# time -----------------------------------------------------------------------------------------------------------------


def test_an_unanswered_flow_is_forgotten_sooner_than_an_established_one() -> None:
    box = Box()
    box.red(tcp_out("S"))
    box.now += TIMEOUTS[State.OPENING] + 1
    assert not box.tunnel(tcp_back("SA"))
    box.red(tcp_out("S"))
    box.tunnel(tcp_back("SA"))
    box.now += TIMEOUTS[State.ANSWERING] + 1
    assert not box.tunnel(tcp_back("A"))
    handshake(box)
    box.now += TIMEOUTS[State.ESTABLISHED] - 1
    assert box.tunnel(tcp_back("A"))
    box.now += TIMEOUTS[State.ESTABLISHED] + 1
    assert not box.tunnel(tcp_back("A"))


def test_both_fins_or_a_reset_shorten_a_connections_life() -> None:
    for last in (["FA", "A"], ["R", None]):
        box = Box()
        box.red(tcp_out("S"))
        box.tunnel(tcp_back("SA"))
        box.red(tcp_out(last[0]))
        if last[1]:
            assert box.tunnel(tcp_back("FA"))
        box.now += TIMEOUTS[State.CLOSING if last[1] else State.RESET] + 1
        assert not box.tunnel(tcp_back("A"))


def test_half_a_close_is_not_a_close() -> None:
    box = Box()
    box.red(tcp_out("S"))
    box.tunnel(tcp_back("SA"))
    box.red(tcp_out("FA"))
    box.now += TIMEOUTS[State.CLOSING] + 1
    assert box.tunnel(tcp_back("A"))


def test_a_reset_ends_a_connection_only_with_the_very_next_sequence_number() -> None:
    box = Box()
    handshake(box)
    assert not box.tunnel(tcp_back("R", seq=0)) and not box.tunnel(tcp_back("R", seq=1 << 20))
    assert box.why() == {"reset": 1, "window": 1}
    assert box.tunnel(tcp_back("R", seq=500)), "the red host may answer it with a challenge (RFC 5961)"
    box.now += TIMEOUTS[State.RESET] + 1
    assert box.tunnel(tcp_back("A"))
    assert box.tunnel(tcp_back("R", seq=1))
    assert box.red(tcp_out("A")), "still on its way"
    box.now += TIMEOUTS[State.RESET] + 1
    assert not box.tunnel(tcp_back("A"))


def test_a_reset_of_a_connection_that_was_picked_up_ends_it_only_if_red_agrees() -> None:
    box = Box()
    box.red(tcp_out("A"))
    assert box.tunnel(tcp_back("R"))
    assert box.red(tcp_out("A"))
    box.now += TIMEOUTS[State.RESET] + 1
    assert box.tunnel(tcp_back("A"))


def test_udp_and_echo_timeouts() -> None:
    box = Box()
    box.red(udp_out())
    box.now += TIMEOUTS[State.ASKED] + 1
    assert not box.tunnel(udp_back())
    box.red(udp_out())
    box.tunnel(udp_back())
    box.now += TIMEOUTS[State.ANSWERED] - 1
    assert box.tunnel(udp_back())
    box.red(out() / echo(4, True))
    box.now += TIMEOUTS[State.ECHO] + 1
    assert not box.tunnel(back() / echo(4, False))


# fragments ------------------------------------------------------------------------------------------------------------


def fragments(version: int, direction: str, size: int = 3000) -> list[bytes]:
    head = out(version) if direction == "out" else back(version)
    sport, dport = (5353, 53) if direction == "out" else (53, 5353)
    whole = head / UDP(sport=sport, dport=dport) / bytes(size)
    if version == 4:
        whole[IP].id = 77
        return [bytes(f) for f in fragment(whole, 1000)]
    whole = IPv6(src=head.src, dst=head.dst) / IPv6ExtHdrFragment(id=77) / whole[UDP]
    return [bytes(f) for f in fragment6(whole, 1280)]


@BOTH
def test_later_fragments_follow_the_first(version: int) -> None:
    box = Box()
    parts = fragments(version, "back")
    assert len(parts) >= 3
    assert not any(box.tunnel(part) for part in parts), "no flow: the first is denied, so are the others"
    assert all(box.red(part) for part in fragments(version, "out"))
    assert not box.tunnel(parts[1]), "not before the first"
    assert all(box.tunnel(part) for part in parts)
    box.now += 31
    assert not box.tunnel(parts[1])


def test_a_first_fragment_that_hides_its_header_is_denied() -> None:
    box = Box("allow new from tunnel")
    tiny = IP(src=FAR[4], dst=NEAR[4], flags="MF", id=5, proto=6) / bytes(TCP(dport=80, flags="S"))[:16]
    assert not box.tunnel(tiny)
    assert box.why() == {"malformed": 1}


def test_a_later_fragment_may_not_overwrite_the_header() -> None:
    box = Box("allow new from tunnel tcp to port 80")
    first = IP(src=FAR[4], dst=NEAR[4], flags="MF", id=5, proto=6) / bytes(TCP(dport=80, flags="S"))[:24]
    assert box.tunnel(first)
    for offset, passes in ((1, False), (2, False), (3, True)):
        assert box.tunnel(IP(src=FAR[4], dst=NEAR[4], frag=offset, id=5, proto=6) / bytes(8)) is passes
    forbidden = IP(src=FAR[4], dst=NEAR[4], flags="MF", id=5, proto=6) / bytes(TCP(dport=23, flags="S"))[:24]
    assert not box.tunnel(forbidden)
    assert not box.tunnel(IP(src=FAR[4], dst=NEAR[4], frag=3, id=5, proto=6) / bytes(8))


def test_the_table_of_fragments_is_bounded() -> None:
    box = Box("allow new from tunnel udp")
    for ident in range(1100):
        assert box.tunnel(IP(src=FAR[4], dst=NEAR[4], flags="MF", id=ident, proto=17) / bytes(UDP(dport=9) / bytes(16)))
    assert not box.tunnel(IP(src=FAR[4], dst=NEAR[4], frag=3, id=0, proto=17) / bytes(8))
    assert box.tunnel(IP(src=FAR[4], dst=NEAR[4], frag=3, id=1099, proto=17) / bytes(8))


# what is malformed ----------------------------------------------------------------------------------------------------


def test_malformed_packets_of_either_side() -> None:
    good = tcp_back("S")
    fine6 = tcp_back("S", 6)
    for packet in (
        good[:-1],
        good + b"\0",
        good[:19],
        b"\x55" + good[1:],
        b"\x44" + good[1:],
        b"\x4f" + good[1:],
        good[:32] + b"\x40" + good[33:],
        good[:32] + b"\x60" + good[33:],
        fine6[:-1],
        fine6[:39],
        bytes(back() / ICMP(type=8))[:-1],
        bytes(IP(src=FAR[4], dst=NEAR[4], proto=58) / bytes(8)),
        bytes(IPv6(src=FAR[6], dst=NEAR[6], nh=1) / bytes(8)),
        bytes(IP(src=FAR[4], dst=NEAR[4], options=[IPOption_LSRR(routers=["1.2.3.4"])]) / UDP(dport=1)),
        bytes(IP(src=FAR[4], dst=NEAR[4], options=b"\x07\x30\x04\x00") / UDP(dport=1)),
        bytes(IPv6(src=FAR[6], dst=NEAR[6]) / IPv6ExtHdrRouting(addresses=["fd09::9"], segleft=1) / UDP(dport=1)),
        bytes(IPv6(src=FAR[6], dst=NEAR[6], nh=0) / b"\x3b\xff\0\0\0\0\0\0"),
        bytes(IPv6(src=FAR[6], dst=NEAR[6], nh=60) / (b"\x3c\0\0\0\0\0\0\0" * 8 + b"\x3b\0\0\0\0\0\0\0")),
        bytes(IP(src=FAR[4], dst=NEAR[4], frag=8191, proto=17) / bytes(16)),
    ):
        box = Box("allow new from tunnel")
        assert not box.tunnel(packet), packet.hex()
        assert not box.red(packet)
        assert box.why() == {"malformed": 1}, packet.hex()
        assert box.engine.denied[1]["malformed"] == box.engine.denied[2]["malformed"] == 1


def test_harmless_extension_headers_and_options_pass() -> None:
    box = Box()
    assert box.red(IPv6(src=NEAR[6], dst=FAR[6]) / IPv6ExtHdrHopByHop() / UDP(sport=5353, dport=53))
    assert box.tunnel(udp_back(6))
    assert box.red(IP(src=NEAR[4], dst=FAR[4], options=b"\x94\x04\0\0") / UDP(sport=5353, dport=53))
    assert box.red(IPv6(src=NEAR[6], dst="ff02::2") / ICMPv6ND_NS(tgt=NEAR[6])), "red may call out to its link"


# groups ---------------------------------------------------------------------------------------------------------------


def data(version: int, count: int, size: int = 400, flags: str = "A", sport: int = 443) -> list[bytes]:
    segment = TCP(sport=sport, dport=40000, flags=flags, seq=1, ack=1)
    return [bytes(back(version) / segment.copy() / bytes(size)) for _ in range(count)]


@BOTH
@pytest.mark.parametrize("size", [400, 401])
def test_a_group_that_passes_is_not_copied(version: int, size: int) -> None:
    box = Box()
    packets = [*data(version, 10, size), data(version, 1, 7)[0]]
    group = Packets(memoryview(b"".join(packets)), len(packets[0]), 9)
    assert box.group(group) == []
    assert box.why() == {"no flow": 11}
    box.red(tcp_out("S", version))
    assert box.group(group)[0] is group
    assert box.engine.passed == 12


@BOTH
@pytest.mark.parametrize("size", [400, 402])
def test_a_stranger_in_a_group_is_taken_out(version: int, size: int) -> None:
    box = Box()
    box.red(tcp_out("S", version))
    for where in range(5):
        for stranger in (data(version, 1, size, sport=444)[0], b"\x00" + data(version, 1, size)[0][1:]):
            packets = data(version, 4, size)
            packets.insert(where, stranger)
            group = Packets(memoryview(b"".join(packets)), len(stranger), 9)
            passed = box.group(group)
            expected = [p for i, p in enumerate(packets) if i != where]
            assert [(bytes(p.packets), p.size, p.peer) for p in passed] == [(b"".join(expected), len(stranger), 9)]


FIELDS4 = {0: 0x46, 2: 9, 7: 1, 9: 17, 12: 11, 16: 1, 20: 9, 22: 9}
FIELDS6 = {0: 0x40, 4: 9, 6: 17, 8: 1, 23: 9, 24: 1, 39: 9, 40: 9, 42: 9}


@BOTH
def test_no_field_that_matters_escapes_the_quick_look(version: int) -> None:
    for at, value in (FIELDS4 if version == 4 else FIELDS6).items():
        for which in range(1, 4):
            box = Box()
            box.red(tcp_out("S", version))
            packets = [bytearray(p) for p in data(version, 4)]
            packets[which][at] = value
            group = Packets(b"".join(packets), len(packets[0]), 9)
            passed = box.group(group)
            assert b"".join(p.packets for p in passed) == b"".join(p for i, p in enumerate(packets) if i != which)


def alike(version: int, of_type: int, bodies: list[bytes]) -> bytes:
    """ICMP messages back to back that differ only behind their checksums, as padding can make them."""
    fields = {"proto": 1} if version == 4 else {"nh": 58}
    head = bytes((of_type, 0, 0x12, 0x34))
    return b"".join(bytes(ip(version, FAR[version], NEAR[version], **fields) / (head + body)) for body in bodies)


@BOTH
def test_an_unrelated_error_does_not_pass_behind_a_related_one(version: int) -> None:
    box = Box()
    box.red(udp_out(version, sport=5353))
    related, unrelated = (udp_out(version, sport=port, data=bytes(8)) for port in (5353, 22))
    blob = alike(version, 3 if version == 4 else 1, [bytes(4) + related, bytes(4) + unrelated])
    size = len(blob) // 2
    passed = box.group(Packets(blob, size, 9))
    assert [bytes(p.packets) for p in passed] == [blob[:size]]
    assert box.why() == {"unrelated": 1}


@BOTH
def test_an_echo_reply_that_nobody_asked_for_does_not_pass_behind_another(version: int) -> None:
    box = Box()
    box.red(out(version) / echo(version, True, ident=7))
    idents = [ident.to_bytes(2, "big") + bytes(14) for ident in (7, 8, 7, 9)]
    blob = alike(version, 0 if version == 4 else 129, idents)
    size = len(blob) // 4
    passed = box.group(Packets(blob, size, 9))
    assert b"".join(p.packets for p in passed) == blob[:size] + blob[2 * size : 3 * size]
    assert box.why() == {"no flow": 2}


@BOTH
def test_a_syn_or_a_reset_amid_data_is_judged_by_itself(version: int) -> None:
    box = Box()
    box.red(tcp_out("S", version))
    packets = data(version, 5)
    packets[2] = data(version, 1, flags="S")[0]
    passed = box.group(Packets(b"".join(packets), len(packets[0]), 9))
    assert [len(p.packets) // p.size for p in passed] == [4]
    packets[2] = data(version, 1, flags="RA")[0]
    assert box.group(Packets(b"".join(packets), len(packets[0]), 9))
    box.now += TIMEOUTS[State.RESET] + 1
    assert not box.tunnel(packets[0])


def test_a_size_larger_than_the_group_and_a_tiny_tail() -> None:
    box = Box("allow new from tunnel")
    packet = udp_back()
    assert box.group(Packets(packet, 60000, 1))[0].packets == packet
    passed = box.group(Packets(packet + b"\x45\0\0", len(packet), 1))
    assert [p.packets for p in passed] == [packet]


def test_a_peer_that_fills_the_tunnel_s_share_costs_another_peer_nothing() -> None:
    rules = ruleset("allow from tunnel udp to port 53")
    box = Box(engine_=Engine(rules, shares={Side.RED: 9, Side.TUNNEL: 20, Side.BLACK: 1}))
    quiet, greedy = "10.8.0.2", "10.8.0.3"

    def asks(source: str, port: int, peer: int) -> bool:
        return box.tunnel(ip(4, source, NEAR[4]) / UDP(sport=port, dport=53), peer)

    def answers(destination: str, port: int) -> bool:
        return box.red(ip(4, NEAR[4], destination) / UDP(sport=53, dport=port))

    for port in range(2000, 2050):
        assert asks(greedy, port, 2) and answers(greedy, port)
    for port in range(1000, 1008):
        assert asks(quiet, port, 1)
    for port in range(3000, 3050):
        assert asks(greedy, port, 2) and answers(greedy, port)
    flows = box.engine.flows.by_key.values()
    assert sorted(flow.peer for flow in flows) == [1] * 8 + [2] * 12
    assert all(answers(quiet, port) for port in range(1000, 1008)), "none of its questions was forgotten"
