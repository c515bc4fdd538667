"""What rules do to packets and flows: reject, limit, log, replace, explain, and what no rule has a say about."""

from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP  # type: ignore[import-untyped]
from scapy.layers.inet6 import ICMPv6DestUnreach, IPv6  # type: ignore[import-untyped]

from appliance.vchan.messages import Packets
from components.filter.engine import Engine
from components.filter.explain import WHY, in_sequence
from components.filter.model import Action, Flags, Hours, Limit, Link, Quota, Range, Rule, RuleSet, Side, Tracking
from components.filter.ruleset import read_prefix
from components.filter.ways import Ways
from tests.unit.filter.talk import FAR, NEAR, WALL, Box, back, echo, ip, tcp_back, tcp_out, udp_back, udp_out

KNOWN = Rule(Action.ALLOW, tracking=Tracking.ESTABLISHED | Tracking.RELATED)
RED = Rule(Action.ALLOW, sides=Side.RED)
BOTH = pytest.mark.parametrize("version", [4, 6])


def box(*rules: Rule, lan: tuple[str, ...] = (), ways: Ways | None = None) -> Box:
    prefixes = tuple(read_prefix("", text) for text in lan)
    return Box(engine_=Engine(RuleSet(rules, files=("vpn.rules",), lan=prefixes), ways))


def test_without_a_rule_nothing_passes_and_nothing_is_implied() -> None:
    empty = box()
    assert not empty.red(tcp_out("S")) and not empty.tunnel(udp_back())
    only = box(RED)
    assert only.red(udp_out()) and not only.tunnel(udp_back()), "answers need a rule as well"


def test_the_first_rule_that_matches_decides() -> None:
    one = box(Rule(Action.DROP, protocols=(17,), destination_ports=(Range(53, 53),)), RED)
    assert not one.red(udp_out()) and one.red(udp_out(dport=54)) and one.why() == {"dropped": 1}
    assert [hit.packets for hit in one.engine.hits()] == [1, 1]
    other = box(RED, Rule(Action.DROP, protocols=(17,), destination_ports=(Range(53, 53),)))
    assert other.red(udp_out())


# rejecting ------------------------------------------------------------------------------------------------------------


def rejecting() -> Box:
    return box(Rule(Action.REJECT))


@BOTH
def test_a_rejected_segment_is_reset(version: int) -> None:
    one = rejecting()
    assert not one.tunnel(tcp_back("S", version, seq=7))
    assert not one.tunnel(tcp_back("A", version, seq=9, ack=77))
    layer = IP if version == 4 else IPv6
    made = layer(one.answers[0])
    assert (made.src, made.dst) == (NEAR[version], FAR[version])
    assert (made[TCP].sport, made[TCP].dport, made[TCP].flags, made[TCP].ack) == (40000, 443, "RA", 8)
    assert len(one.answers) == 2 and layer(one.answers[1])[TCP].flags == "A", "of no connection: asked, not rejected"
    clean = layer(one.answers[0])
    del clean[TCP].chksum
    if version == 4:
        del clean.chksum
    assert bytes(clean) == one.answers[0]


@BOTH
def test_what_is_not_tcp_is_answered_with_prohibited(version: int) -> None:
    one = rejecting()
    sent = udp_back(version, data=bytes(1400))
    assert not one.tunnel(sent) and not one.tunnel(back(version) / echo(version, True))
    assert len(one.answers) == 2
    made = (IP if version == 4 else IPv6)(one.answers[0])
    error = made[ICMP if version == 4 else ICMPv6DestUnreach]
    assert (error.type, error.code) == ((3, 13) if version == 4 else (1, 1))
    assert len(one.answers[0]) == (576 if version == 4 else 1280)
    assert bytes(error.payload)[:40] == sent[:40]
    if version == 4:
        del made.chksum, error.chksum
    else:
        del error.cksum
    assert bytes(made) == one.answers[0]


def test_what_must_not_be_answered_is_not() -> None:
    one = box(Rule(Action.REJECT), Rule(Action.REJECT, tracking=Tracking.INVALID), ways=Ways(is_bridge=True))
    for packet in (
        tcp_back("R"),
        tcp_back("RA"),
        back() / ICMP(type=3, code=1) / IP(udp_out()),
        ip(4, FAR[4], "224.0.0.5") / UDP(),
        ip(4, FAR[4], "255.255.255.255") / UDP(),
        ip(6, FAR[6], "ff02::1") / UDP(),
        ip(4, "0.0.0.0", NEAR[4]) / UDP(),
        IP(src=FAR[4], dst=NEAR[4], flags="MF") / UDP() / bytes(16),
    ):
        assert not one.tunnel(packet)
    assert one.answers == []


def test_a_flood_is_not_answered_with_a_flood() -> None:
    one = rejecting()
    for port in range(1, 3000):
        one.tunnel(udp_back(dport=port))
    assert len(one.answers) == 128
    one.now += 1
    for port in range(1, 300):
        one.tunnel(udp_back(dport=port))
    assert len(one.answers) == 128 + 64
    assert not one.red(udp_out()) and len(one.answers) == 128 + 64 + 1, "the other side has its own share"


# conditions -----------------------------------------------------------------------------------------------------------


def test_a_limit_lets_through_so_many() -> None:
    one = box(KNOWN, RED._replace(limit=Limit(2, 0, 1, 3)))
    assert [one.red(udp_out(sport=port)) for port in range(1, 6)] == [True] * 3 + [False] * 2
    one.now += 1
    assert [one.red(udp_out(sport=port)) for port in range(6, 10)] == [True] * 2 + [False] * 2


def test_a_limit_holds_for_each_packet_of_a_flow_too_and_for_each_of_a_group() -> None:
    one = box(KNOWN._replace(limit=Limit(1, 0, 60, 4)), RED)
    assert one.red(udp_out())
    blob = udp_back() * 10
    assert sum(len(group.packets) for group in one.group(Packets(blob, len(blob) // 10, 1))) == 4 * len(blob) // 10
    assert not one.tunnel(udp_back())


def test_a_quota_is_used_up() -> None:
    size = len(udp_out())
    one = box(RED._replace(quota=Quota(0, 3 * size)))
    assert [one.red(udp_out()) for _ in range(4)] == [True] * 3 + [False]
    two = box(RED._replace(quota=Quota(2, 0)))
    assert [two.red(udp_out()) for _ in range(3)] == [True, True, False]


def test_expiry_and_hours_by_the_wall_clock() -> None:
    one = box(RED._replace(expires=int(WALL) + 60))
    assert one.red(udp_out())
    one.wall += 60
    assert not one.red(udp_out()), "a flow is no way around it"
    tuesday, evening = 1 << 1, Hours(1 << 1, 22 * 60, 23 * 60)
    for hours, passes in (
        (evening, True),
        (evening._replace(days=127 ^ tuesday), False),
        (evening._replace(first=22 * 60 + 14), False),
        (evening._replace(last=22 * 60 + 13), False),
    ):
        assert box(RED._replace(hours=(hours,))).red(udp_out()) is passes


def test_flags_are_asked_of_each_segment() -> None:
    one = box(Rule(Action.DROP, protocols=(6,), flags=Flags(0x28, 0x28)), KNOWN, RED)
    assert one.red(tcp_out("S")) and one.tunnel(tcp_back("SA")) and one.red(tcp_out("A"))
    assert not one.red(tcp_out("PAU")) and one.red(tcp_out("PA")) and not one.red(tcp_out("PAU"))


def test_a_log_cannot_be_flooded() -> None:
    one = box(
        *(
            RED._replace(log=True, destination_ports=(Range(port, port),), protocols=(17,), line=port)
            for port in range(1, 101)
        )
    )
    for _ in range(50):
        for port in range(1, 101):
            one.red(udp_out(dport=port))
    lines = one.engine.records.take_lines()
    assert len(lines) == 51 and lines[-1] == f"and {5000 - 50} more that are not shown"
    assert lines[0] == "allow (vpn.rules:1): from red, udp 192.168.1.10:5353 > 10.8.0.2:1, 29 bytes"
    one.now += 1
    for _ in range(50):
        one.red(udp_out(dport=7))
    lines = one.engine.records.take_lines()
    assert len(lines) == 2 and lines[1] == "and 49 more that are not shown"


# replacing ------------------------------------------------------------------------------------------------------------


def test_flows_that_the_new_rules_allow_live_on_and_others_end_at_once() -> None:
    one = box(KNOWN, RED)
    assert one.red(udp_out()) and one.tunnel(udp_back())
    assert one.red(tcp_out("S")) and one.tunnel(tcp_back("SA")) and one.red(tcp_out("A"))
    no_udp = RuleSet((Rule(Action.DROP, protocols=(17,), tracking=Tracking.NEW), KNOWN, RED))
    assert one.engine.replace(no_udp, one.now, one.wall) == (1, 1, 0)
    assert not one.tunnel(udp_back()) and not one.red(udp_out())
    assert one.tunnel(tcp_back("A")) and one.red(tcp_out("PA"))
    assert not one.tunnel(tcp_back("A", seq=1 << 25)), "its windows are as they were"
    assert [row.rule for row in one.engine.list_flows(0, 9, one.now)] == [2]
    assert [hit.packets for hit in one.engine.hits()] == [2, 2, 0]


def test_a_flow_that_the_tunnel_opened_is_judged_as_its_peers() -> None:
    rule = Rule(Action.ALLOW, sides=Side.TUNNEL, peers=(1, 2), icmp=(), protocols=(17,))
    one = box(KNOWN, rule)
    assert one.tunnel(udp_back(sport=1), peer=1) and one.tunnel(udp_back(sport=2), peer=2)
    assert one.engine.replace(RuleSet((KNOWN, rule._replace(peers=(2,)))), one.now, one.wall) == (1, 1, 0)
    assert not one.red(udp_out(dport=1)) and one.red(udp_out(dport=2)), "red may open nothing, and answer"
    assert [(row.peer, row.destination) for row in one.engine.list_flows(0, 9, one.now)] == [(2, NEAR[4])]


PORTS = range(1024, 1024 + 5000)


def sent(port: int) -> bytes:
    """A question from that port."""
    return QUESTION[:20] + port.to_bytes(2, "big") + QUESTION[22:]


def answered(port: int) -> bytes:
    return ANSWER[:22] + port.to_bytes(2, "big") + ANSWER[24:]


QUESTION, ANSWER = udp_out(), udp_back()


def test_of_many_flows_none_passes_by_what_older_rules_allowed_and_in_the_end_all_are_judged() -> None:
    one = box(KNOWN, RED)
    for port in PORTS:
        assert one.red(sent(port)) and one.tunnel(answered(port))
    some = PORTS[-499::2]
    ports = tuple(Range(port, port) for port in some)
    done = one.engine.replace(
        RuleSet((KNOWN, Rule(Action.ALLOW, sides=Side.RED, source_ports=ports, protocols=(17,)))), one.now, one.wall
    )
    assert done.kept + done.ended + done.left == 5000 and done.left > 2000, "most are left for later"
    assert len(one.engine.list_flows(0, 9999, one.now)) == done.kept, "what is not judged is not shown as living"
    (top,) = one.engine.talkers(2, one.now)
    assert top.flows == done.kept
    for port in (*PORTS[:100], *PORTS[-600:]):
        assert one.tunnel(answered(port)) is (port in some)
        assert one.red(sent(port)) is (port in some)
    turns = 0
    while one.engine.review(one.now, one.wall):
        turns += 1
    assert turns > 5 and one.engine.replaced == (250, 4750, 0) and len(one.engine.flows) == 250


def test_rules_may_be_replaced_again_before_all_flows_are_judged() -> None:
    one = box(KNOWN, RED)
    for port in PORTS:
        assert one.red(sent(port))
    nothing, all_ = RuleSet((KNOWN,)), RuleSet((KNOWN, RED))
    assert one.engine.replace(nothing, one.now, one.wall).left == 2952
    assert one.engine.replace(all_, one.now, one.wall) == (2048, 0, 904), "2048 have ended for good"
    while one.engine.review(one.now, one.wall):
        pass
    assert one.engine.replaced == (2952, 0, 0) and len(one.engine.flows) == 2952


# what no rule has a say about -----------------------------------------------------------------------------------------


def test_the_lan_speaks_for_itself_only_and_nobody_else_for_it() -> None:
    one = box(Rule(Action.ALLOW), lan=("192.168.0.0/16", "fd00::/64"))
    assert one.red(udp_out()) and one.red(udp_out(6))
    assert not one.red(ip(4, "192.169.1.1", FAR[4]) / UDP()) and not one.red(ip(6, "fd01::1", FAR[6]) / UDP())
    assert not one.tunnel(ip(4, "192.168.7.7", NEAR[4]) / UDP())
    assert one.why() == {"spoofed": 1} and one.engine.denied[Side.RED]["spoofed"] == 2


def test_martians() -> None:
    one = box(Rule(Action.ALLOW))
    for source, destination in (
        ("0.0.0.0", NEAR[4]), ("127.0.0.1", NEAR[4]), ("224.0.0.1", NEAR[4]), ("255.255.255.255", NEAR[4]),
        (FAR[4], "127.0.0.1"), (FAR[4], "0.0.0.0"), (NEAR[4], NEAR[4]),
        ("::", NEAR[6]), ("::1", NEAR[6]), ("ff02::1", NEAR[6]), ("::ffff:1.2.3.4", NEAR[6]), (FAR[6], "::1"),
    ):  # fmt: skip
        assert not one.tunnel(ip(6 if ":" in source else 4, source, destination) / UDP()), source
    assert one.why() == {"martian": 12}


def test_on_a_bridge_hosts_without_an_address_may_ask_for_one() -> None:
    ways = Ways(Side.BLACK, is_bridge=True)
    one = Engine(RuleSet((Rule(Action.ALLOW),), lan=(read_prefix("", "192.168.0.0/16"),)), ways)
    ask = bytes(ip(4, "0.0.0.0", "255.255.255.255") / UDP(sport=68, dport=67))
    link = Link(0x0800, 0, b"\2\0\0\0\0\1", b"\xff" * 6)
    assert one.judge(Packets(ask, len(ask)), Side.RED, 1.0, 0.0, link).passed


def test_a_split_box_sends_each_where_it_belongs_and_believes_no_side_about_another() -> None:
    ways = Ways(
        Side.BLACK, [(read_prefix("", "10.8.0.0/16"), Side.TUNNEL), (read_prefix("", "10.8.9.0/24"), Side.BLACK)]
    )
    one = Engine(RuleSet((KNOWN, RED)), ways)

    def sides(side: Side, packet: object, peer: int = 0) -> list[Side]:
        raw = bytes(packet)  # type: ignore[call-overload]
        return [way for way, _ in one.judge(Packets(raw, len(raw), peer), side, 1.0, 0.0).passed]

    assert sides(Side.RED, udp_out()) == [Side.TUNNEL]
    assert sides(Side.RED, ip(4, NEAR[4], "10.8.9.1") / UDP(sport=9, dport=9)) == [Side.BLACK]
    assert sides(Side.RED, ip(4, NEAR[4], "1.1.1.1") / UDP(sport=9, dport=9)) == [Side.BLACK]
    assert sides(Side.BLACK, udp_back()) == [] and sides(Side.TUNNEL, udp_back(), 1) == [Side.RED]
    assert sides(Side.BLACK, ip(4, "1.1.1.1", NEAR[4]) / UDP(sport=9, dport=9)) == [Side.RED]
    assert sides(Side.BLACK, ip(4, "10.8.0.9", NEAR[4]) / UDP()) == []
    assert dict(one.denied[Side.BLACK]) == {"no flow": 1, "spoofed": 1}


# explaining -----------------------------------------------------------------------------------------------------------


def test_an_explanation_is_what_happens_and_changes_nothing() -> None:
    limited = RED._replace(limit=Limit(1, 0, 60, 1))
    one = box(Rule(Action.DROP, protocols=(6,), flags=Flags(0x20, 0x20)), KNOWN, limited)
    packet = tcp_out("S")
    for _ in range(3):
        said = one.engine.explain(packet, Side.RED, 0, one.now, one.wall)
        assert (said.verdict, said.rule, said.tracking, said.state) == (Action.ALLOW, 2, "new", "no flow")
        assert said.leaves is Side.TUNNEL and said.steps == ((0, "TCP flags"), (2, ""))
    assert len(one.engine.flows) == 0 and sum(hit.packets for hit in one.engine.hits()) == 0
    assert one.red(packet)
    said = one.engine.explain(tcp_back("SA"), Side.TUNNEL, 1, one.now, one.wall)
    assert (said.verdict, said.rule, said.tracking) == (Action.ALLOW, 1, "established")
    assert said.state.startswith("opening, opened from the red side, not answered")
    said = one.engine.explain(tcp_back("SA", ack=9), Side.TUNNEL, 1, one.now, one.wall)
    assert (said.verdict, said.rule, said.tracking, said.why) == (Action.DROP, None, "invalid", WHY["handshake"])
    said = one.engine.explain(tcp_out("S", sport=9), Side.RED, 0, one.now, one.wall)
    assert (said.verdict, said.rule) == (Action.DROP, None) and said.steps[-1] == (2, "limit")


def test_a_segment_is_asked_about_with_the_numbers_that_come_next() -> None:
    one = box(KNOWN, RED)
    assert in_sequence(one.engine, tcp_back("A"), Side.TUNNEL, one.now, one.wall) == tcp_back("A"), "of no connection"
    assert one.red(tcp_out("S", seq=1000))

    def said(packet: bytes, side: Side) -> str:
        packet = in_sequence(one.engine, packet, side, one.now, one.wall)
        return one.engine.explain(packet, side, int(side is Side.TUNNEL), one.now, one.wall).tracking

    assert said(tcp_back("SA", seq=5, ack=5), Side.TUNNEL) == "established"
    assert one.tunnel(tcp_back("SA", seq=7000, ack=1001)) and one.red(tcp_out("A", seq=1001, ack=7001))
    for packet, side in ((tcp_out("A", seq=9**9, ack=5), Side.RED), (tcp_back("FA", seq=5, ack=9**9), Side.TUNNEL)):
        assert said(packet, side) == "established"
        assert one.engine.explain(packet, side, 1, one.now, one.wall).tracking == "invalid"
    lost = bytes(IP(src=NEAR[4], dst=FAR[4]) / ICMP(type=3, code=1) / tcp_back("A", seq=9**9, ack=5)[:28])
    assert one.engine.explain(lost, Side.RED, 0, one.now, one.wall).tracking == "invalid"
    assert said(lost, Side.RED) == "related", "an error about a segment tells nothing of its numbers either"
    for raw in (b"", b"\x45", udp_out(), bytes(IP(src=FAR[4], dst=NEAR[4], frag=9) / bytes(8))):
        assert in_sequence(one.engine, raw, Side.RED, one.now, one.wall) == raw


@pytest.mark.parametrize("packet", [
    b"", tcp_back("A"), back() / ICMP(type=5), ip(4, "127.0.0.1", NEAR[4]) / UDP(), udp_back(), tcp_back(""),
    IP(src=FAR[4], dst=NEAR[4], frag=9) / bytes(8), back() / ICMP(type=3) / IP(udp_out()),
])  # fmt: skip
def test_every_denial_has_its_words(packet: object) -> None:
    raw = bytes(packet)  # type: ignore[call-overload]
    one = box(KNOWN, RED)
    said = one.engine.explain(raw, Side.TUNNEL, 1, one.now, one.wall)
    assert said.verdict is Action.DROP and said.why and said.leaves is None
    if raw:
        assert not one.tunnel(raw)
        (why,) = one.why()
        assert said.why.startswith(WHY[why])


def test_flows_and_talkers_are_listed() -> None:
    one = box(KNOWN, RED)
    for host in range(1, 6):
        for port in range(host):
            assert one.red(ip(4, f"192.168.1.{host}", FAR[4]) / UDP(sport=1000 + port, dport=53) / bytes(100 * host))
    rows = [row for start in range(0, 20, 4) for row in one.engine.list_flows(start, 4, one.now)]
    assert len(rows) == 15 and len(set(rows)) == 15 and rows[0].state == "asked"
    top = one.engine.talkers(2, one.now)
    assert [(talker.address, talker.flows, talker.packets) for talker in top] == [
        ("192.168.1.5", 5, 5),
        ("192.168.1.4", 4, 4),
    ]


def test_a_flow_keeps_to_its_vlan() -> None:
    vlan = Rule(Action.ALLOW, link=None)
    one = Engine(RuleSet((KNOWN, vlan._replace(sides=Side.RED))), Ways(Side.BLACK, is_bridge=True))
    mac = b"\2\0\0\0\0\1"
    asked, answer = udp_out(), udp_back()
    assert one.judge(Packets(asked, len(asked)), Side.RED, 1.0, 0.0, Link(0x0800, 0, mac, mac)).passed
    assert not one.judge(Packets(answer, len(answer)), Side.BLACK, 1.0, 0.0, Link(0x0800, 5, mac, mac)).passed
    assert one.judge(Packets(answer, len(answer)), Side.BLACK, 1.0, 0.0, Link(0x0800, 0, mac, mac)).passed
