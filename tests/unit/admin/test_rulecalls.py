"""Rules: a packet is explained by the filter itself, two sets are compared, and who asks too much is told to wait."""

from __future__ import annotations

import json
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP, UDP  # type: ignore[import-untyped]
from septum.admin.v1 import admin_pb2 as pb
from septum.v1.counting import CountingReply, NotExplained

from appliance.rules.read import from_text
from appliance.signed import canonical
from appliance.signed.peers import PeerEntry, encode
from appliance.vchan.messages import Packets
from components.admin import packets
from components.admin.pieces import MOST_OF_ONE
from components.admin.rulecalls import DIFF_RATE, EXPLAIN_RATE, MOST_CHANGES
from components.admin.status import Code
from components.filter import ruleset
from components.filter.headers import parse
from components.filter.model import Side
from tests.unit.admin.box import Box, Caller, Failed
from tests.unit.filter.talk import FAR, NEAR, tcp_back, tcp_out

EXPLAIN, DIFF = "/septum.admin.v1.Rules/ExplainPacket", "/septum.admin.v1.Rules/DiffRules"
RULES = """# the office
allow established related
allow "web" from red tcp port 443
reject from tunnel tcp port 22
"""
FAR_AWAY = PeerEntry(3, "far", b"f" * 32, ("10.8.0.0/24",))


def compiled(text: str) -> bytes:
    return canonical.encode(ruleset.encode(from_text(text, "rules").ruleset))


def headers(**other: Any) -> pb.PacketHeaders:
    given = {"protocol": "tcp", "source": NEAR[4], "destination": FAR[4], "source_port": 40000, "destination_port": 443}
    return pb.PacketHeaders(**{**given, **other})


def explain(caller: Caller, **asked: Any) -> pb.PacketExplanation:
    found: pb.PacketExplanation = caller.call(EXPLAIN, pb.ExplainPacketRequest(**asked), pb.PacketExplanation)
    return found


# explaining -----------------------------------------------------------------------------------------------------------


def test_a_packet_is_explained_with_the_rule_as_it_was_written() -> None:
    box = Box()
    box.put(RULES, encode([FAR_AWAY]))
    caller = box.call()
    said = explain(caller, headers=headers())
    assert (said.verdict, said.rule, said.file, said.line) == (pb.VERDICT_ALLOW, 2, "rules", 3)
    assert said.text == 'allow "web" from red tcp port 443' and (said.leaves, said.tracking) == ("tunnel", "new")
    assert said.state == "no flow" and said.digest == box.counting.digest.hex()
    ssh = headers(source=FAR[4], destination=NEAR[4], destination_port=22)
    for peer in ("far", "ZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmY="):
        said = explain(caller, headers=ssh, peer=peer)
        assert (said.verdict, said.line, box.explained[-1].peer) == (pb.VERDICT_REJECT, 4, 3)
    said = explain(caller, headers=headers(destination_port=80))
    assert (said.verdict, said.rule, said.file, said.text) == (pb.VERDICT_DROP, 0, "", "")
    assert said.why.startswith("no rule matches")
    said = explain(caller, raw=b"\x45nonsense")
    assert said.verdict == pb.VERDICT_DROP and said.why.startswith("the headers are not")
    assert not box.engine.flows.by_key, "asking opens none"


def test_the_connections_count_that_the_filter_knows() -> None:
    box = Box()
    box.put(RULES, encode([FAR_AWAY]))
    for packet, side in ((tcp_out("S"), Side.RED), (tcp_back("SA"), Side.TUNNEL), (tcp_out("A"), Side.RED)):
        assert box.engine.judge(Packets(packet, len(packet), 3 * (side is Side.TUNNEL)), side, box.now, box.wall)[0]
    caller = box.call()
    answer = headers(source=FAR[4], destination=NEAR[4], source_port=443, destination_port=40000, flags="ack,psh")
    said = explain(caller, headers=answer, peer="far")
    assert (said.verdict, said.line, said.tracking, said.leaves) == (pb.VERDICT_ALLOW, 2, "established", "red")
    assert said.state.startswith("established, opened from the red side, answered")
    far = bytes(IP(src=FAR[4], dst=NEAR[4]) / TCP(sport=443, dport=40000, flags="A", seq=2**31, ack=2**31))
    assert explain(caller, raw=far, peer="far").tracking == "established", "nobody who asks knows the numbers"


def test_what_is_no_packet_is_refused_with_its_field_and_a_hint() -> None:
    box = Box()
    box.put(RULES, encode([FAR_AWAY]))
    caller = box.call()
    wrong: list[tuple[dict[str, Any], str, str]] = [
        ({}, "headers", "one of them says which packet"),
        ({"headers": headers(protocol="tpc")}, "headers.protocol", "tcp, udp, icmp"),
        ({"headers": headers(protocol="256")}, "headers.protocol", "0 to 255"),
        ({"headers": headers(source="10.1.0.5:443")}, "headers.source", "like 10.1.0.5"),
        ({"headers": headers(source="fe80::1%eth0")}, "headers.source", "like 10.1.0.5"),
        ({"headers": headers(destination="fd00::1")}, "headers.destination", "IPv4, as the source"),
        ({"headers": headers(protocol="icmp")}, "headers.source_port", "only tcp and udp"),
        ({"headers": headers(flags="syn ack")}, "headers.flags", "syn,ack"),
        ({"headers": headers(icmp_type=8)}, "headers.icmp_type", "only icmp"),
        ({"headers": headers(protocol="icmp6", source_port=0, destination_port=0)}, "headers.protocol", "icmp6"),
        ({"headers": headers(source_port=65_536)}, "headers.source_port", "0 to 65535"),
        ({"raw": bytes(1281)}, "raw", "1280"),
        ({"headers": headers(), "side": 1, "peer": "far"}, "peer", "no peer's"),
        ({"headers": headers(), "side": 2}, "peer", "is missing"),
        ({"headers": headers(), "side": 3}, "side", "0 to 2"),
    ]
    for asked, path, hint in wrong:
        with pytest.raises(Failed) as refused:
            explain(caller, **asked)
        assert (refused.value.code, refused.value.path) == (Code.INVALID_ARGUMENT, path), asked
        assert hint in str(refused.value)
    with pytest.raises(Failed) as refused:
        explain(caller, headers=headers(), peer="nobody")
    assert (refused.value.code, refused.value.path) == (Code.NOT_FOUND, "peer")
    assert not box.explained, "the filter was asked nothing"


def test_few_packets_are_explained() -> None:
    box = Box()
    box.put(RULES)
    caller = box.call()
    for _ in range(int(EXPLAIN_RATE[1])):
        explain(caller, headers=headers())
    with pytest.raises(Failed) as refused:
        explain(caller, headers=headers())
    assert (refused.value.code, refused.value.reason) == (Code.RESOURCE_EXHAUSTED, "RATE") and refused.value.retry > 0
    box.turn(60.0)
    busy = CountingReply(refused=NotExplained(why="too many", wait_ms=500))
    box.players["filter"]._answer = lambda request: busy
    with pytest.raises(Failed) as refused:
        explain(caller, headers=headers())
    assert (refused.value.reason, refused.value.retry) == ("RATE", 0.5)
    box.players["filter"].is_away = True
    with pytest.raises(Failed) as refused:
        explain(caller, headers=headers())
    assert (refused.value.code, refused.value.reason) == (Code.UNAVAILABLE, "AWAY")


def test_where_a_rule_is_written_is_not_said_of_others_than_those_that_decided() -> None:
    box = Box()
    box.put(RULES)
    box.counting.digest = bytes(32)
    said = explain(box.call(), headers=headers())
    assert said.rule == 2 and (said.file, said.line, said.text) == ("", 0, "")


@pytest.mark.parametrize(
    ("asked", "theirs"),
    [
        ({"flags": "syn,ack"}, IP(src=NEAR[4], dst=FAR[4]) / TCP(sport=40000, dport=443, flags="SA", seq=1, ack=2)),
        ({"protocol": "UDP"}, IP(src=NEAR[4], dst=FAR[4]) / UDP(sport=40000, dport=443)),
    ],
)
def test_packets_are_what_scapy_makes_of_the_same_headers(asked: dict[str, Any], theirs: Any) -> None:
    ours = packets.build(headers(**asked))
    layer = theirs.lastlayer().__class__
    for one, other in ((ours, bytes(theirs)),):
        ip = IP(one)
        assert ip.chksum == IP(bytes(ip.copy().__class__(_without(ip)))).chksum
        assert (ip[layer].sport, ip[layer].dport) == (IP(other)[layer].sport, IP(other)[layer].dport)
        assert ip[layer].chksum == IP(_again(ip, layer))[layer].chksum
    assert parse(ours).ends == parse(bytes(theirs)).ends


def _without(ip: Any) -> bytes:
    copy = ip.copy()
    del copy.chksum
    return bytes(copy)


def _again(ip: Any, layer: Any) -> bytes:
    copy = ip.copy()
    del copy[layer].chksum
    return bytes(copy)


# comparing ------------------------------------------------------------------------------------------------------------


def differ(caller: Caller, *pieces: tuple[int, bytes], **header: Any) -> pb.RulesDifference:
    messages = [pb.DiffRulesRequest(header=pb.DiffRulesHeader(**header))]
    for section, data in pieces:
        for at in range(0, len(data), 61_440):
            piece = pb.SubmitPiece(section=section, data=data[at : at + 61_440])  # type: ignore[arg-type]
            messages.append(pb.DiffRulesRequest(piece=piece))
    number = caller.begin(DIFF, *messages)
    for _ in range(20):
        if caller.is_over(number):
            break
        caller.box.turn(0.01)
    if caller.streams[number]["headers"].get("grpc-status") != "0":
        raise caller.status(number)
    (reply,) = caller.messages(number, pb.RulesDifference)
    assert isinstance(reply, pb.RulesDifference)
    return reply


def test_rules_in_force_are_compared_with_a_candidate_and_revisions_with_each_other() -> None:
    box = Box()
    caller = box.call()
    assert differ(caller) == pb.RulesDifference()
    box.put(RULES)
    text = RULES.replace("443", "8443") + "drop from red\n"
    data = compiled(text)
    found = differ(caller, (2, data), (3, text.encode()), ruleset=len(data), rules=len(text))
    assert (found.before, found.after, found.added, found.changed, found.same) == (1, 0, 1, 1, 2)
    changed, added = found.changes
    assert (changed.kind, changed.list, list(changed.fields)) == (3, "rules", ["destination_ports"])
    assert (changed.before.line, changed.before.text) == (3, 'allow "web" from red tcp port 443')
    assert changed.after.text == 'allow "web" from red tcp port 8443' and changed.after.file == "rules"
    assert json.loads(changed.after.form)["destination_ports"] == [[8443, 8443]]
    assert (added.kind, added.after.number, added.HasField("before")) == (1, 4, False)
    box.put(text)
    found = differ(caller, before=1, after=2)
    assert (found.before, found.after, len(found.changes)) == (1, 2, 2)
    found = differ(caller, before=2, after=1)
    assert (found.removed, found.changed) == (1, 1)
    assert not differ(caller).changes, "what is in force, with itself"


def test_candidates_that_are_none_are_refused() -> None:
    box = Box()
    box.put(RULES)
    caller = box.call()
    wrong: list[tuple[tuple[tuple[int, bytes], ...], dict[str, Any], str]] = [
        (((2, b"x"),), {"ruleset": 1}, "ruleset"),
        (((2, b'{"rules":[{"line":-1}]}'),), {"ruleset": 23}, "ruleset.rules[0].line"),
        (((2, b"{}"),), {"ruleset": 3}, "header.ruleset"),
        (((1, b"{}"),), {"ruleset": 2}, "piece.section"),
        (((3, b"{}"),), {"rules": 2}, "header.ruleset"),
        (((2, b"{}"),), {"ruleset": 2, "after": 1}, "header.after"),
    ]
    for pieces, header, path in wrong:
        with pytest.raises(Failed) as refused:
            differ(caller, *pieces, **header)
        assert (refused.value.code, refused.value.path) == (Code.INVALID_ARGUMENT, path)
        box.turn(10.0)


def test_few_sets_are_compared_and_of_the_changes_so_many_are_shown() -> None:
    box = Box()
    box.put(RULES)
    caller = box.call()
    many = json.dumps({"rules": [{"action": 1, "protocols": [n % 250], "name": str(n)} for n in range(9000)]}).encode()
    found = differ(caller, (2, many), ruleset=len(many))
    assert found.added == 9000 and found.removed == 3 and len(found.changes) == MOST_CHANGES
    for _ in range(int(DIFF_RATE[1]) - 1):
        differ(caller)
    with pytest.raises(Failed) as refused:
        differ(caller)
    assert (refused.value.code, refused.value.reason) == (Code.RESOURCE_EXHAUSTED, "RATE")


def test_what_is_on_its_way_has_its_bound() -> None:
    box = Box()
    box.put(RULES)
    caller = box.call()
    begun = []
    for n in range(40):
        if not n % 4:
            box.turn(20.0)
            caller = box.call()
        header = pb.DiffRulesHeader(ruleset=4 << 20)
        begun.append((caller, caller.begin(DIFF, pb.DiffRulesRequest(header=header), end=False)))
    refused = [caller.status(number) for caller, number in begun if caller.is_over(number)]
    late = [one for one in refused if one.code == Code.DEADLINE_EXCEEDED]
    full = [one for one in refused if one.code == Code.RESOURCE_EXHAUSTED]
    assert len(begun) - len(refused) <= MOST_OF_ONE // (4 << 20) and full and len(late) + len(full) == len(refused)
    box.turn(120.0)
    assert not differ(box.call()).changes, "what ended gives its room back"
