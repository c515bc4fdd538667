"""The table of flows: bounded, and fair between the sides."""

from __future__ import annotations

from itertools import pairwise
from types import MappingProxyType

from components.filter.state import SHARES, TIMEOUTS, FlowTable, Side, State

SMALL = MappingProxyType({Side.RED: 10, Side.TUNNEL: 5})


def name(i: int) -> bytes:
    return i.to_bytes(4, "big")


def test_there_are_65536_flows_at_the_most() -> None:
    assert sum(SHARES.values()) == 65536


def test_every_state_has_a_timeout() -> None:
    assert set(TIMEOUTS) == set(State)


def test_a_flood_from_one_side_evicts_that_sides_unanswered_flows_only() -> None:
    table = FlowTable(SMALL)
    answered = table.open(b"ours", Side.TUNNEL, State.OPENING, 0.0)
    table.seen(answered, Side.RED, 0, 0.0)
    red = [table.open(name(i), Side.RED, State.OPENING, 0.0) for i in range(10)]
    for i in range(100, 200):
        table.open(name(i), Side.TUNNEL, State.OPENING, 1.0)
    assert len(table) == 15 and table.evicted == 96
    assert table.get(b"ours", 2.0) is answered
    assert all(table.get(flow.key, 2.0) is flow for flow in red)
    assert [table.get(name(i), 2.0) is not None for i in range(195, 200)] == [False, True, True, True, True]


def test_when_all_are_answered_the_one_longest_silent_goes() -> None:
    table = FlowTable(SMALL)
    flows = [table.open(name(i), Side.TUNNEL, State.ASKED, 0.0) for i in range(5)]
    for i, flow in enumerate(flows):
        table.seen(flow, Side.RED, 0, 5.0 - i)
    table.open(b"new", Side.TUNNEL, State.ASKED, 6.0)
    assert table.get(name(4), 6.0) is None and all(table.get(name(i), 6.0) for i in range(4))


def test_expired_flows_are_swept_a_bounded_number_at_a_time() -> None:
    table = FlowTable()
    for i in range(5000):
        table.open(name(i), Side.RED, State.ECHO, float(i % 2))
    late = TIMEOUTS[State.ECHO] + 0.5
    sizes = []
    for _ in range(5):
        table.sweep(late)
        sizes.append(len(table))
    assert sizes[-1] == 2500 and all(a - b <= 2048 for a, b in pairwise(sizes))
    for _ in range(5):
        table.sweep(late + 1)
    assert len(table) == 0
    assert table.get(name(1), 0.0) is None


def test_a_flow_opened_anew_takes_the_place_of_the_old() -> None:
    table = FlowTable(SMALL)
    old = table.open(b"x", Side.RED, State.OPENING, 0.0)
    table.seen(old, Side.TUNNEL, 0, 0.0)
    new = table.open(b"x", Side.TUNNEL, State.OPENING, 1.0)
    assert len(table) == 1 and table.get(b"x", 1.0) is new and table.evicted == 0
