"""The table of flows: bounded, and fair between the sides."""

from __future__ import annotations

from itertools import pairwise
from types import MappingProxyType

from hypothesis import given
from hypothesis import strategies as st

from components.filter.flows import SHARES, TIMEOUTS, Flow, FlowTable, State
from components.filter.model import Side

SMALL = MappingProxyType({Side.RED: 10, Side.TUNNEL: 5})


def name(i: int) -> bytes:
    return i.to_bytes(4, "big")


def opened(table: FlowTable, key: bytes, opener: Side, state: State, now: float, peer: int = 0) -> Flow:
    flow = Flow(key, opener, Side.TUNNEL, state)
    flow.peer = peer
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


def held(table: FlowTable, peer: int) -> int:
    return sum(flow.peer == peer for flow in table.by_key.values())


def test_a_peer_that_fills_the_share_of_all_loses_it_to_those_that_need_it() -> None:
    table = FlowTable({Side.RED: 10, Side.TUNNEL: 12})
    for i in range(20):  # with connections that are answered, so that nothing of it looks like a flood
        answer(table, opened(table, name(i), Side.TUNNEL, State.OPENING, 0.0, peer=1), 0.0)
    assert held(table, 1) == 12
    for i in range(100, 110):
        opened(table, name(i), Side.TUNNEL, State.OPENING, 1.0, peer=2)
    assert (held(table, 1), held(table, 2)) == (6, 6), "half each, however many the other one opens"
    for i in range(200, 250):
        opened(table, name(i), Side.TUNNEL, State.OPENING, 2.0, peer=3)
        opened(table, name(i + 100), Side.TUNNEL, State.OPENING, 2.0, peer=1)
    assert [held(table, peer) for peer in (1, 2, 3)] == [4, 4, 4] and len(table) == 12


def test_a_flood_of_one_peer_costs_no_peer_that_has_less() -> None:
    table = FlowTable({Side.RED: 10, Side.TUNNEL: 12})
    quiet = [opened(table, name(i), Side.TUNNEL, State.OPENING, 0.0, peer=2) for i in range(3)]
    for i in range(1000, 1500):
        opened(table, name(i), Side.TUNNEL, State.OPENING, 1.0, peer=1)
        assert all(table.near(flow.key, 1.0) is flow for flow in quiet)
    assert held(table, 1) == 9
    for flow in list(table.by_key.values()):
        table.forget(flow)
    assert len(table) == 0
    for i in range(20):
        opened(table, name(i), Side.TUNNEL, State.OPENING, 2.0, peer=1)
    assert held(table, 1) == 12, "what nobody else needs it may have"


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 30), st.booleans()), max_size=120))
def test_whoever_comes_and_goes_the_share_is_kept_and_who_holds_most_pays(steps: list[tuple[int, int, bool]]) -> None:
    table = FlowTable({Side.RED: 10, Side.TUNNEL: 8})
    for peer, number, is_over in steps:
        key = name(number)
        if is_over and (flow := table.by_key.get(key)) is not None:
            table.forget(flow)
            continue
        before = {one: held(table, one) for one in range(1, 5)}
        is_full, is_new = len(table) == 8, key not in table.by_key
        opened(table, key, Side.TUNNEL, State.OPENING, 0.0, peer)
        after = {one: held(table, one) for one in range(1, 5)}
        assert len(table) <= 8 and sum(after.values()) == len(table)
        if is_full and is_new:
            paid = [one for one in before if after[one] < before[one] + (one == peer)]
            assert paid and all(before[one] == max(before.values()) for one in paid)
