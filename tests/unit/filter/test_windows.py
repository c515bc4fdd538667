"""Sequence numbers: what belongs to a connection passes, what does not is denied, wherever the numbers begin."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, TCP  # type: ignore[import-untyped]

from components.filter.flows import State
from components.filter.model import Side
from tests.unit.filter.talk import Box, back, out

SCALE = [("WScale", 7)]
M = 2**32


class Connection:
    """A connection of which each segment is made by hand; numbers count from each side's own beginning."""

    def __init__(self, near: int = 0, far: int = 0, window: int = 500, scale: bool = True, opens: bool = True) -> None:
        self.box = Box()
        self.first = {Side.RED: near, Side.TUNNEL: far}
        self.window = window
        if opens:
            options = SCALE if scale else []
            assert self.say(Side.RED, "S", 0, 0, options=options, window=64240)
            assert self.say(Side.TUNNEL, "SA", 0, 1, options=options, window=64240)
            assert self.say(Side.RED, "A", 1, 1)

    def segment(self, side: Side, flags: str, seq: int, ack: int, data: int = 0, **fields: object) -> bytes:
        other = Side.TUNNEL if side is Side.RED else Side.RED
        ports = (40000, 443) if side is Side.RED else (443, 40000)
        fields = {"window": self.window} | fields
        header = TCP(
            sport=ports[0],
            dport=ports[1],
            flags=flags,
            seq=(self.first[side] + seq) % M,
            ack=(self.first[other] + ack) % M if "A" in flags else 0,
            **fields,
        )
        return bytes((out() if side is Side.RED else back()) / header / bytes(data))

    def say(self, side: Side, flags: str, seq: int, ack: int, data: int = 0, **fields: object) -> bool:
        return self.box.passes(self.segment(side, flags, seq, ack, data, **fields), side, int(side is Side.TUNNEL))

    def state(self) -> State:
        (flow,) = self.box.engine.flows.by_key.values()
        return flow.state


BEGINNINGS = pytest.mark.parametrize("first", [0, 2**31 - 700, 2**32 - 700, 2**32 - 1, 123_456_789])


@BEGINNINGS
def test_a_long_transfer_passes_wherever_numbers_begin(first: int) -> None:
    one = Connection(first, (first + 2**31) % M)
    for i in range(200):
        assert one.say(Side.RED, "A", 1 + i * 1000, 1, 1000)
        if i % 2:
            assert one.say(Side.TUNNEL, "A", 1, 1 + (i + 1) * 1000)
    assert one.box.why() == {} and one.state() is State.ESTABLISHED


@BEGINNINGS
def test_what_lies_outside_of_the_windows_is_denied(first: int) -> None:
    one = Connection(first, first)
    reach = 64240  # what the other side has offered: 500 << 7 is less
    for side in (Side.TUNNEL, Side.RED):
        assert not one.say(side, "A", 1 + 3 * reach, 1, 100)
        assert not one.say(side, "A", 1, 300, 100), "it acknowledges what nobody sent"
        assert not one.say(side, "A", 1, 1 + 2**30, 0)
        assert not one.say(side, "R", 2**20, 1)
        assert one.say(side, "A", 1, 1, 100), "and none of that has changed anything"
    assert one.box.why()["window"] == 4


@BEGINNINGS
def test_what_is_late_passes_and_changes_nothing(first: int) -> None:
    one = Connection(first, first)
    for i in range(300):
        assert one.say(Side.TUNNEL, "A", 1 + i * 1000, 1, 1000) and one.say(Side.RED, "A", 1, 1 + (i + 1) * 1000)
    (flow,) = one.box.engine.flows.by_key.values()
    before = [(end.end, end.limit, end.window, end.acked) for end in (flow.near_end, flow.far_end) if end]
    assert len(before) == 2
    assert one.say(Side.TUNNEL, "A", 1, 1, 1000), "sent again after all"
    assert one.say(Side.RED, "A", 1, 1001)
    assert before == [(end.end, end.limit, end.window, end.acked) for end in (flow.near_end, flow.far_end) if end]


def test_without_the_option_on_both_sides_windows_are_not_scaled() -> None:
    one = Connection(window=1000, scale=False)
    assert one.say(Side.RED, "A", 1, 1, 60_000) and one.say(Side.TUNNEL, "A", 1, 60_001)
    (flow,) = one.box.engine.flows.by_key.values()
    assert flow.far_end is not None and flow.far_end.scale == 0 and flow.near_end is not None
    assert flow.near_end.limit == 1 + 64240, "60,001 and 1000 more are less"


def test_selective_acknowledgments_while_a_hole_is_open() -> None:
    one = Connection(window=3000)
    for i in range(30):
        assert one.say(Side.RED, "A", 1 + i * 1000, 1, 1000)
        assert one.say(Side.TUNNEL, "A", 1, 1, options=[("SAck", (1001, 1 + (i + 1) * 1000))])
    assert one.say(Side.RED, "A", 1, 1, 1000) and one.say(Side.TUNNEL, "A", 1, 30_001)
    assert one.box.why() == {}


def test_a_syn_that_carries_data_may_be_acknowledged_with_or_without_them() -> None:
    for acknowledged in (1, 101):
        one = Connection(opens=False)
        assert one.say(Side.RED, "S", 0, 0, 100)
        assert one.say(Side.TUNNEL, "SA", 0, acknowledged) and one.state() is State.ANSWERING
        assert one.say(Side.RED, "A", 101, 1, 10) and one.state() is State.ESTABLISHED


def test_only_what_acknowledges_the_syn_answers_it() -> None:
    one = Connection(opens=False)
    assert one.say(Side.RED, "S", 0, 0)
    assert not one.say(Side.TUNNEL, "SA", 0, 2) and not one.say(Side.TUNNEL, "RA", 0, 77)
    assert one.state() is State.OPENING
    assert not one.say(Side.RED, "A", 1, 1), "nobody has answered"
    assert one.say(Side.TUNNEL, "SA", 0, 1) and one.state() is State.ANSWERING


def test_a_refusal_leaves_nothing_behind() -> None:
    one = Connection(opens=False)
    assert one.say(Side.RED, "S", 0, 0) and one.say(Side.TUNNEL, "RA", 0, 1)
    assert len(one.box.engine.flows) == 0


def test_both_fins_close_and_a_syn_opens_anew() -> None:
    one = Connection()
    assert one.say(Side.RED, "FA", 1, 1) and one.state() is State.ESTABLISHED
    assert one.say(Side.TUNNEL, "FA", 1, 2) and one.state() is State.CLOSING
    assert one.say(Side.RED, "A", 2, 2) and one.state() is State.CLOSING
    assert one.say(Side.RED, "S", 1 << 30, 0) and one.state() is State.OPENING


def test_a_client_that_forgot_the_connection_opens_it_anew_with_its_servers_help() -> None:
    """RFC 9293 section 3.5.1: the server answers the SYN with what it has; here it has forgotten as well."""
    one = Connection()
    assert one.say(Side.RED, "S", 1 << 30, 0) and one.state() is State.ESTABLISHED
    assert not one.say(Side.TUNNEL, "SA", 1 << 29, 5), "that answers something else"
    assert one.say(Side.TUNNEL, "SA", 1 << 29, (1 << 30) + 1) and one.state() is State.ANSWERING
    assert one.say(Side.RED, "A", (1 << 30) + 1, (1 << 29) + 1, 100) and one.state() is State.ESTABLISHED
    assert one.say(Side.TUNNEL, "A", (1 << 29) + 1, (1 << 30) + 101)
    assert not one.say(Side.TUNNEL, "A", (1 << 29) + (1 << 28), (1 << 30) + 101), "the new windows hold"


def test_a_connection_that_is_picked_up_is_not_followed() -> None:
    one = Connection(opens=False)
    assert one.say(Side.RED, "A", 5000, 700) and one.say(Side.TUNNEL, "A", 1 << 30, 9, 100)
    assert one.say(Side.RED, "A", 1 << 25, 3, 100)


@pytest.mark.parametrize("flags", ["", "F", "SF", "SR", "FR", "P", "FPU", "SFRA", "SRA", "RFA"])
def test_flags_that_no_honest_stack_sends_together_are_of_no_connection(flags: str) -> None:
    one = Connection()
    for side in (Side.RED, Side.TUNNEL):
        assert not one.say(side, flags, 1, 1)
    assert one.box.why() == {"flags": 1} and one.state() is State.ESTABLISHED


def test_a_fragmented_segment_ends_the_following_and_not_the_connection() -> None:
    one = Connection()
    whole = bytearray(one.segment(Side.RED, "A", 1, 1, 400))
    whole[6] |= 0x20  # more fragments
    assert one.box.red(whole)
    assert one.say(Side.RED, "A", 1 << 20, 1, 10) and one.say(Side.TUNNEL, "A", 1, (1 << 20) + 10)


@settings(max_examples=60)
@given(st.integers(0, M - 1), st.lists(st.tuples(st.booleans(), st.integers(0, 4), st.integers(1, 1400)), max_size=40))
def test_a_run_of_segments_is_judged_as_each_of_them_is(first: int, turns: list[tuple[bool, int, int]]) -> None:
    """Trains of equal segments, as groups are made, against the same segments one by one."""
    quick, slow = Connection(first, first), Connection(first, first)
    slow.box.engine._living = lambda *_: None  # type: ignore[method-assign]
    sent = {Side.RED: 1, Side.TUNNEL: 1}
    for is_red, jump, size in turns:
        side, other = (Side.RED, Side.TUNNEL) if is_red else (Side.TUNNEL, Side.RED)
        begin = sent[side] + (0, 0, 0, -2000, 100_000)[jump]
        train = [quick.segment(side, "A", begin + i * size, sent[other], size) for i in range(3)]
        peer = int(side is Side.TUNNEL)
        found, wanted = (one.box.judge(b"".join(train), len(train[0]), side, peer) for one in (quick, slow))
        assert [bytes(group.packets) for _, group in found.passed] == [
            bytes(group.packets) for _, group in wanted.passed
        ]
        if found.passed and jump < 3:
            sent[side] = begin + 3 * size
    (mine,), (theirs,) = (one.box.engine.flows.by_key.values() for one in (quick, slow))
    assert mine.state is theirs.state and mine.packets == theirs.packets
    for one, two in pairwise([(flow.near_end, flow.far_end) for flow in (mine, theirs)]):
        for a, b in zip(one, two, strict=True):
            assert a is not None and b is not None and (a.end, a.limit, a.acked) == (b.end, b.limit, b.acked)


@BEGINNINGS
def test_an_error_about_a_segment_that_is_not_on_its_way_is_nobodys(first: int) -> None:
    one = Connection(first, (first + 99) % M)
    assert one.say(Side.RED, "PA", 1, 1, 1000) and one.say(Side.TUNNEL, "A", 1, 401) and one.say(Side.RED, "A", 1001, 1)

    def error(side: Side, sequence: int) -> bool:
        about = one.segment(Side.RED if side is Side.TUNNEL else Side.TUNNEL, "A", sequence, 1, 100)
        return one.box.passes((back() if side is Side.TUNNEL else out()) / ICMP(type=3, code=4) / about[:28], side, 1)

    for sequence, passes in ((400, False), (401, True), (1000, True), (1001, True), (1002, False), (2**31, False)):
        assert error(Side.TUNNEL, sequence) is passes, sequence
    assert one.box.why() == {"unsent": 3}
    for sequence, passes in ((0, False), (1, True), (2, False), (-66_000, False)):
        assert error(Side.RED, sequence) is passes, sequence


def test_an_error_about_an_unanswered_syn_or_one_whose_numbers_nobody_follows() -> None:
    one = Connection(500, opens=False)
    assert one.say(Side.RED, "S", 0, 0)
    for sequence, passes in ((0, True), (2, False), (2**31, False)):
        about = one.segment(Side.RED, "S", sequence, 0)
        assert one.box.tunnel(back() / ICMP(type=3, code=1) / about[:28]) is passes
    picked = Connection(opens=False)
    assert picked.say(Side.RED, "A", 1, 1)
    about = picked.segment(Side.RED, "A", 2**30, 1)
    assert picked.box.tunnel(back() / ICMP(type=3, code=4) / about[:28])


def test_who_forgot_the_connection_is_refused_by_who_forgot_it_too() -> None:
    one = Connection()
    assert one.say(Side.RED, "S", 5000, 0), "the client has begun anew"
    assert not one.say(Side.TUNNEL, "RA", 70_000, 5002) and one.state() is State.ESTABLISHED
    assert one.say(Side.TUNNEL, "RA", 70_000, 5001) and one.state() is State.RESET
