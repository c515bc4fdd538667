"""The operator's questions and new rules: the core by itself, and with the program that asks at the other end."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from septum.v1.filtering import (
    AskFlows,
    AskHits,
    AskTalkers,
    AskText,
    AskTotals,
    AskWhy,
    BeginRules,
    CommitRules,
    FilteringReply,
    FilteringRequest,
    RulesChunk,
)

from appliance.cli.asking import AskError
from appliance.cli.running import Rejected, RunningFilter
from appliance.rules.read import from_text
from appliance.vchan.codec import Codec
from appliance.vchan.messages import Packets
from appliance.vchan.schema import schema
from components.filter import ruleset
from components.filter.engine import Engine
from components.filter.ethernet import Ethernet
from components.filter.model import RuleSet, Side
from components.filter.operator import Operator, canonical, digest
from components.filter.ways import Ways

SHAPE = schema("filtering")
FORWARD = Codec(SHAPE.forward)
assert SHAPE.backward is not None
BACKWARD = Codec(SHAPE.backward)
OPEN = "allow established related\nallow from red\n"
NOW, WALL = 1000.0, 1.7e9


def rules(text: str) -> RuleSet:
    return from_text(text, "test.rules").ruleset


def text_of(made: RuleSet) -> bytes:
    return canonical(ruleset.encode(made))


def udp(source: str, source_port: int, destination: str, port: int, size: int = 100) -> bytes:
    body = struct.pack("!HHHH", source_port, port, 8 + size, 0) + bytes(size)
    head = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, 20 + len(body), 0, 0, 64, 17, 0, *map(socket.inet_aton, (source, destination))
    )
    return head + body


def over_the_wire(codec: Codec, message: Any) -> Any:
    return codec.decode(b"".join(codec.encode(message)))


class Line:
    """A Call without a channel, through both codecs."""

    domain = "filter"

    def __init__(self, operator: Operator) -> None:
        self.operator = operator
        self.kept: list[bytes] = []
        self.now = NOW
        self.bend: Callable[[FilteringRequest, FilteringReply], FilteringReply] = lambda request, reply: reply

    def ask(self, request: FilteringRequest) -> FilteringReply:
        reply = self.operator.answer(over_the_wire(FORWARD, request), self.now, WALL + self.now - NOW)
        return over_the_wire(BACKWARD, self.bend(request, reply))  # type: ignore[no-any-return]

    def keep(self, fd: int) -> None:
        self.kept.append(os.pread(fd, 1 << 24, 0))
        with contextlib.suppress(OSError):
            os.pwrite(fd, b"x", 0)
            raise AssertionError("it can still be changed")


class Scene:
    def __init__(self, text: str = OPEN) -> None:
        self.engine = Engine(rules(text))
        self.operator = Operator(self.engine)
        self.line = Line(self.operator)
        self.running = RunningFilter(self.line)  # type: ignore[arg-type]

    def send(self, *packets: bytes, side: Side = Side.RED, peer: int = 0) -> int:
        """How many of them pass."""
        count = 0
        for packet in packets:
            outcome = self.engine.judge(Packets(packet, len(packet), peer), side, self.line.now, WALL)
            count += len(outcome.passed)
        return count

    def ask(self, **question: Any) -> FilteringReply:
        return self.line.ask(FilteringRequest(**question))

    def refused(self, **question: Any) -> str:
        reply = self.ask(**question)
        assert reply.WhichOneof("answer") == "refused"
        return f"{reply.refused.path}: {reply.refused.why}" if reply.refused.path else str(reply.refused.why)


@pytest.fixture
def scene() -> Scene:
    return Scene()


WEB = udp("10.0.0.1", 4000, "192.0.2.7", 443)
NAME = udp("10.0.0.2", 4001, "192.0.2.8", 53, 30)


def test_the_rules_in_force_come_back_as_they_are(scene: Scene) -> None:
    assert scene.running.ruleset() == rules(OPEN)
    assert scene.running.totals().digest == digest(text_of(rules(OPEN)))


def test_many_rules_come_in_pieces(scene: Scene) -> None:
    many = rules(
        "".join(f'allow "rule {n}" from red udp to 10.{n >> 8}.{n & 255}.0/24 port {n + 1}\n' for n in range(3000))
    )
    assert len(text_of(many)) > 3 * 61440
    done = scene.running.apply(many)
    assert (done.kept, done.ended) == (0, 0)
    assert scene.running.ruleset() == many
    assert len(scene.running.hits()) == 3000
    assert scene.line.kept == [text_of(many)]
    assert ruleset.from_json(scene.line.kept[0]) == many


def test_flows_that_are_still_allowed_live_on_and_the_others_end_at_once(scene: Scene) -> None:
    assert scene.send(WEB, NAME) == 2
    done = scene.running.apply(rules("allow established\nallow from red udp to any port 53\n"))
    assert (done.kept, done.ended) == (1, 1)
    (flow,) = scene.running.flows()
    assert flow.destination_port == 53
    assert flow.number == 2
    assert scene.send(WEB, NAME) == 1


def test_what_is_shown_of_flows_and_talkers(scene: Scene) -> None:
    assert scene.send(WEB, WEB, NAME) == 3
    web, name = sorted(scene.running.flows(), key=lambda row: -row.octets)
    assert (web.protocol, web.source, web.source_port) == (17, socket.inet_aton("10.0.0.1"), 4000)
    assert (web.destination, web.destination_port, web.side, web.number) == (
        socket.inet_aton("192.0.2.7"),
        443,
        Side.RED,
        2,
    )
    assert (web.packets, web.octets, web.answered, name.packets) == (2, 2 * len(WEB), False, 1)
    first, second = scene.running.talkers(10)
    assert (first.address, first.flows, first.octets) == (socket.inet_aton("10.0.0.1"), 1, 2 * len(WEB))
    assert second.address == socket.inet_aton("10.0.0.2")
    assert len(scene.running.talkers(1)) == 1


def test_hits_and_when_the_last_was(scene: Scene) -> None:
    scene.send(WEB)
    scene.line.now += 5
    first, second = scene.running.hits()
    assert (first.packets, first.last) == (0, 0)
    assert (second.packets, second.octets) == (1, len(WEB))
    assert second.last == pytest.approx(WALL * 1000, abs=2)


def test_more_flows_than_one_answer_holds(scene: Scene) -> None:
    scene.send(*(udp("10.0.0.1", 1024 + n, "192.0.2.7", 443) for n in range(1000)))
    found = list(scene.running.flows())
    assert {row.source_port for row in found} == set(range(1024, 2024))
    assert len(found) == 1000


def test_totals_say_what_was_denied_and_why(scene: Scene) -> None:
    scene.send(udp("192.0.2.7", 1, "10.0.0.1", 2), side=Side.TUNNEL)
    totals = scene.running.totals()
    counts = {(one.side, one.what): one.count for one in totals.counts}
    assert counts[Side.TUNNEL, "no rule"] == 1
    assert (counts[0, "passed"], counts[0, "flows"], totals.replaced) == (0, 0, 0)


def test_why(scene: Scene) -> None:
    why = scene.running.explain(WEB, Side.RED)
    assert (why.verdict, why.number) == (1, 2)
    why = scene.running.explain(WEB, Side.TUNNEL, 1)
    assert (why.verdict, why.number) == (2, 0)
    assert "no rule matches" in why.why
    assert list(scene.running.flows()) == []  # nothing changes by the question
    assert scene.refused(why=AskWhy(packet=WEB, side=3)) == "side: there is no side 3"
    assert scene.refused(why=AskWhy(packet=WEB, side=1, peer=4)) == "peer: only packets from the tunnel have a peer"


# What is no rule set changes nothing


def begun(scene: Scene, text: bytes, total: int = 0, named: bytes = b"") -> bytes:
    name = named or digest(text)
    assert scene.ask(begin=BeginRules(total=total or len(text), digest=name)).WhichOneof("answer") == "taken"
    return name


def test_chunks_must_follow_each_other(scene: Scene) -> None:
    before = scene.running.totals()
    assert "begin first" in scene.refused(chunk=RulesChunk(offset=0, data=b"x"))
    assert "begin first" in scene.refused(commit=CommitRules(digest=bytes(32)))
    text = text_of(rules("drop\n"))
    begun(scene, text)
    assert "begin again" in scene.refused(chunk=RulesChunk(offset=1, data=b"x"))
    assert "begin first" in scene.refused(chunk=RulesChunk(offset=0, data=text))  # that one is over
    begun(scene, text)
    assert "begin again" in scene.refused(chunk=RulesChunk(offset=0, data=text + b" "))
    name = begun(scene, text)
    scene.ask(chunk=RulesChunk(offset=0, data=text[:-1]))
    assert "begin again" in scene.refused(commit=CommitRules(digest=name))
    begun(scene, text, named=bytes(32))
    assert "not the rules that were meant" in scene.refused(chunk=RulesChunk(offset=0, data=text))
    name = begun(scene, text)
    scene.ask(chunk=RulesChunk(offset=0, data=text))
    assert "not those that were meant" in scene.refused(commit=CommitRules(digest=bytes(32)))
    begun(scene, text)
    scene.operator.forget()
    assert "begin first" in scene.refused(chunk=RulesChunk(offset=0, data=text))
    assert scene.running.totals() == before
    assert scene.running.ruleset() == rules(OPEN)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"not JSON", "is not JSON"),
        (b"[]", "must be a table"),
        (b"[" * 100_000, "is not JSON"),
        (b'{"rules": [{"action": 9}]}', "rules[0].action: must be in 1 to 3, not 9"),
        (b'{"rules": [{"action": 1, "colour": 1}]}', "rules[0].colour"),
        (b'{"rules": [{"action": 1, "destination_ports": [[80, 80]]}]}', "only tcp and udp have ports"),
        (b'{"rules": [{"action": 1, "sources": 0}]}', "rules[0].sources"),
    ],
)
def test_rules_that_are_none_change_nothing(scene: Scene, text: bytes, why: str) -> None:
    scene.send(WEB)
    begun(scene, text)
    pieces = [(offset, text[offset : offset + 61440]) for offset in range(0, len(text), 61440)]
    for offset, data in pieces[:-1]:
        scene.ask(chunk=RulesChunk(offset=offset, data=data))
    assert why in scene.refused(chunk=RulesChunk(offset=pieces[-1][0], data=pieces[-1][1]))
    assert scene.running.ruleset() == rules(OPEN)
    assert len(list(scene.running.flows())) == 1
    assert scene.running.totals().replaced == 0


def test_rules_that_there_is_no_memory_for_change_nothing(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(scene.engine, "replace", full)
    with pytest.raises(Rejected, match="not enough memory"):
        scene.running.apply(rules("drop\n"))
    assert scene.line.kept == []
    assert scene.running.ruleset() == rules(OPEN)


# One who answers nonsense is found out


def _text(change: Callable[[Any], None]) -> Callable[[FilteringRequest, FilteringReply], FilteringReply]:
    def bend(request: FilteringRequest, reply: FilteringReply) -> FilteringReply:
        change(reply)
        return reply

    return bend


def bent(scene: Scene, change: Callable[[Any], None], ask: Callable[[RunningFilter], Any], why: str) -> None:
    scene.line.bend = _text(change)
    with pytest.raises(AskError, match=f"makes no sense, and is not believed: .*{why}"):
        ask(scene.running)


def test_rules_that_are_not_those_it_names(scene: Scene) -> None:
    def change(reply: Any) -> None:
        reply.text.data = reply.text.data.replace(b"1", b"2")

    bent(scene, change, RunningFilter.ruleset, "not those that it names")


def test_rules_that_are_none(scene: Scene) -> None:
    def change(reply: Any) -> None:
        data = json.dumps({"rules": [{"action": 1, "name": "\x1b[2J"}, {"action": 7}]}).encode()
        reply.text.data, reply.text.total, reply.text.digest = data, len(data), digest(data)

    bent(scene, change, RunningFilter.ruleset, "its rules are none")


def test_rules_that_never_end(scene: Scene) -> None:
    def change(reply: Any) -> None:
        reply.text.data, reply.text.total = b"", 1 << 20

    bent(scene, change, RunningFilter.ruleset, "end before they do")


def test_an_address_that_is_none(scene: Scene) -> None:
    scene.send(WEB)

    def change(reply: Any) -> None:
        reply.flows.rows[0].source = b"12345"

    bent(scene, change, lambda running: list(running.flows()), "an address")


def test_flows_without_end_are_not_waited_for(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    from appliance.cli import running

    monkeypatch.setattr(running, "MOST_FLOWS", 500)
    scene.send(WEB)
    row = scene.ask(flows=AskFlows()).flows.rows[0]
    scene.line.bend = _text(lambda reply: reply.flows.rows.extend([row] * 200))
    assert 500 <= len(list(scene.running.flows())) < 1000


def test_another_answer_than_was_asked_for(scene: Scene) -> None:
    scene.line.bend = lambda request, reply: scene.operator.answer(FilteringRequest(text=AskText()), NOW, WALL)
    with pytest.raises(AskError, match="it answers with text where totals was asked for"):
        scene.running.totals()


def test_a_refusal_cannot_speak_to_the_terminal(scene: Scene) -> None:
    def bend(request: FilteringRequest, reply: FilteringReply) -> FilteringReply:
        from septum.v1.filtering import Refused

        return FilteringReply(refused=Refused(path="\x1b[2J", why="\x07\n"))

    scene.line.bend = bend
    with pytest.raises(Rejected) as refused:
        scene.running.totals()
    assert str(refused.value) == "filter refuses: ?[2J: ??"


def test_one_that_was_reborn_in_between_is_noticed(scene: Scene) -> None:
    keep = scene.line.keep

    def reborn(fd: int) -> None:
        keep(fd)
        scene.line.operator = Operator(Engine(rules(OPEN)))

    scene.line.keep = reborn  # type: ignore[method-assign]
    with pytest.raises(AskError, match="was rebuilt meanwhile, with the rules from before") as error:
        scene.running.apply(rules("drop\n"))
    assert error.value.then == "the same again"


# Whatever is asked, in whatever order


def questions() -> st.SearchStrategy[dict[str, Any]]:
    u16, u32 = st.integers(0, 65535), st.integers(0, 8388607)
    good = text_of(rules("drop\n"))
    data = st.one_of(st.binary(min_size=1, max_size=50), st.just(good))
    names = st.sampled_from([digest(good), bytes(32)])
    return st.one_of(
        st.builds(
            lambda total, name: {"begin": BeginRules(total=total, digest=name)},
            st.sampled_from([1, len(good), 8388608]),
            names,
        ),
        st.builds(lambda at, data: {"chunk": RulesChunk(offset=at, data=data)}, st.one_of(st.just(0), u32), data),
        st.builds(lambda name: {"commit": CommitRules(digest=name)}, names),
        st.builds(lambda at: {"text": AskText(offset=at)}, u32),
        st.builds(lambda at: {"hits": AskHits(start=at)}, u16),
        st.builds(lambda at: {"flows": AskFlows(start=at)}, u32),
        st.builds(lambda most: {"talkers": AskTalkers(most=most)}, st.integers(1, 64)),
        st.builds(lambda most: {"totals": AskTotals(most=most)}, st.integers(1, 128)),
        st.builds(
            lambda packet, side, peer: {"why": AskWhy(packet=packet, side=side, peer=peer)},
            st.one_of(st.binary(min_size=1, max_size=80), st.just(WEB)),
            st.integers(1, 4),
            u16,
        ),
    )


@given(st.lists(questions(), max_size=12))
def test_every_question_has_an_answer(asked: list[dict[str, Any]]) -> None:
    scene = Scene()
    scene.send(WEB)
    for question in asked:
        answer = scene.ask(**question).WhichOneof("answer")
        assert answer in ("refused", *question, "taken", "replaced")
    in_force = scene.operator._text
    assert ruleset.from_json(in_force) == scene.engine.ruleset


def test_a_box_that_passes_frames_is_asked_about_frames(scene: Scene) -> None:
    link = bytes.fromhex("020000000009020000000005")
    header = AskWhy(packet=WEB, side=1, link=link + b"\x08\0")
    assert (
        scene.refused(why=header) == "link: this box passes packets, and is asked about them without a frame's header"
    )
    engine = Engine(rules("allow arp from red\nallow from red vlan 7 udp\n"), Ways(Side.BLACK, is_bridge=True))
    scene.operator = scene.line.operator = Operator(engine, Ethernet(engine))
    assert scene.refused(why=AskWhy(packet=WEB, side=1)).startswith("link: this box passes frames")
    tagged = scene.running.explain(WEB, Side.RED, 0, link + bytes.fromhex("810000070800"))
    assert (tagged.verdict, tagged.number, tagged.leaves) == (1, 2, Side.BLACK)
    assert scene.running.explain(WEB, Side.RED, 0, link + b"\x08\0").verdict == 2
    request = bytes.fromhex("0001080006040001") + bytes(20)
    asked = scene.running.explain(request, Side.RED, 0, link + b"\x08\x06")
    assert (asked.verdict, asked.number) == (1, 1) and "ethertype 0x0806" in asked.packet
    assert "another IP version" in scene.running.explain(request, Side.RED, 0, link + b"\x08\0").why
    assert len(engine.flows) == 0 and engine.passed == 0
