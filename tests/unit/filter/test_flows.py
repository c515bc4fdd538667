"""The table of flows: bounded, and fair between the sides."""

from __future__ import annotations

from itertools import pairwise
from types import MappingProxyType

from components.filter.flows import SHARES, TIMEOUTS, Flow, FlowTable, State
from components.filter.model import Side

SMALL = MappingProxyType({Side.RED: 10, Side.TUNNEL: 5})


def name(i: int) -> bytes:
    return i.to_bytes(4, "big")


def opened(table: FlowTable, key: bytes, opener: Side, state: State, now: float) -> Flow:
    flow = Flow(key, opener, Side.TUNNEL, state)
    table.open(flow, now)
    return flow


def answer(table: FlowTable, flow: Flow, now: float) -> None:
    table.was_answered(flow)
    table.has_come(flow, {State.OPENING: State.ESTABLISHED, State.ASKED: State.ANSWERED}[flow.state], now)


def test_the_red_side_may_have_a_hundred_thousand_flows() -> None:
    assert SHARES[Side.RED] >= 100_000 and set(SHARES) == set(Side)


def test_every_state_has_a_timeout() -> None:
    assert set(TIMEOUTS) == set(State)


def test_a_flood_from_one_side_evicts_that_sides_unanswered_flows_only() -> None:
    table = FlowTable(SMALL)
    answered = opened(table, b"ours", Side.TUNNEL, State.OPENING, 0.0)
    answer(table, answered, 0.0)
    red = [opened(table, name(i), Side.RED, State.OPENING, 0.0) for i in range(10)]
    for i in range(100, 200):
        opened(table, name(i), Side.TUNNEL, State.OPENING, 1.0)
    assert len(table) == 15 and table.evicted == 96
    assert table.near(b"ours", 2.0) is answered
    assert all(table.near(flow.key, 2.0) is flow for flow in red)
    assert [table.near(name(i), 2.0) is not None for i in range(195, 200)] == [False, True, True, True, True]


def test_when_all_are_answered_the_one_longest_silent_goes() -> None:
    table = FlowTable(SMALL)
    flows = [opened(table, name(i), Side.TUNNEL, State.ASKED, 0.0) for i in range(5)]
    for i, flow in enumerate(flows):
        answer(table, flow, 5.0 - i)
    opened(table, b"new", Side.TUNNEL, State.ASKED, 6.0)
    assert table.near(name(4), 6.0) is None and all(table.near(name(i), 6.0) for i in range(4))


def test_expired_flows_are_swept_a_bounded_number_at_a_time() -> None:
    table = FlowTable()
    for i in range(10_000):
        opened(table, name(i), Side.RED, State.ECHO, float(i % 2))
    late = TIMEOUTS[State.ECHO] + 0.5
    sizes = []
    for _ in range(5):
        table.sweep(late)
        sizes.append(len(table))
    assert sizes[-1] == 5000 and all(a - b <= 4096 for a, b in pairwise(sizes))
    for _ in range(5):
        table.sweep(late + 1)
    assert len(table) == 0
    assert table.near(name(1), 0.0) is None


def test_a_flow_opened_anew_takes_the_place_of_the_old() -> None:
    table = FlowTable(SMALL)
    old = opened(table, b"x", Side.RED, State.OPENING, 0.0)
    answer(table, old, 0.0)
    new = opened(table, b"x", Side.TUNNEL, State.OPENING, 1.0)
    assert len(table) == 1 and table.near(b"x", 1.0) is new and table.evicted == 0
