"""Groups, pacing, once, settings: the parts both cores stand on."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.guest.settings import SettingsError
from components.crypto.constants import GROUP_ITEMS, REPORT_INTERVAL, REPORT_TICKS, URGENT_INTERVAL
from components.crypto.groups import Grouping
from components.crypto.once import Once
from components.crypto.pacing import Pacing
from components.crypto.settings import EncryptSettings, parse
from components.keymgr.constants import REPORT_LAG

LIMIT = 5000
runs = st.lists(st.tuples(st.integers(1, 3), st.integers(1, LIMIT), st.integers(0, 150)), max_size=12)


@given(runs)
def test_groups_hold_what_was_laid_down_and_break_no_limit(laid: list[tuple[int, int, int]]) -> None:
    grouping: Grouping[int] = Grouping(LIMIT)
    for owner, size, count in laid:
        grouping.add(owner, size, count)
    expected = [(owner, size) for owner, size, count in laid for _ in range(count)]
    items, at = [], 0
    for owner, start, stop, size in grouping.take():
        assert start == at, "nothing lies between groups"
        assert 0 < stop - start <= LIMIT
        sizes = [min(size, stop - one) for one in range(start, stop, size)]
        assert len(sizes) <= GROUP_ITEMS
        items += [(owner, one) for one in sizes]
        at = stop
    assert items == expected
    assert grouping.take() == [], "a round ends with take()"


def test_a_shorter_item_ends_its_group_and_a_longer_one_begins_the_next() -> None:
    grouping: Grouping[str] = Grouping(LIMIT)
    for owner, size, count in (("a", 100, 2), ("a", 50, 1), ("a", 50, 1), ("a", 60, 1), ("b", 60, 1)):
        grouping.add(owner, size, count)
    sizes = [(owner, stop - start, size) for owner, start, stop, size in grouping.take()]
    assert sizes == [("a", 250, 100), ("a", 50, 50), ("a", 60, 60), ("b", 60, 60)]


def test_a_round_starts_at_the_beginning_of_the_buffer() -> None:
    grouping: Grouping[str] = Grouping(LIMIT)
    grouping.add("a", 100, 1)
    assert grouping.take() == [("a", 0, 100, 100)]
    assert grouping.end == 0
    grouping.add("a", 90, 1)
    assert grouping.take() == [("a", 0, 90, 90)]


@given(runs)
def test_rounds_that_leave_the_last_group_open_lose_and_mix_nothing(laid: list[tuple[int, int, int]]) -> None:
    grouping: Grouping[int] = Grouping(LIMIT)
    buffer = memoryview(bytearray(LIMIT + max((size * count for _, size, count in laid), default=0)))
    expected, came = [], []

    def taken(groups: list[tuple[int, int, int, int]]) -> None:
        for owner, start, stop, size in groups:
            assert stop - start <= LIMIT
            came.extend((owner, bytes(buffer[one : min(one + size, stop)])) for one in range(start, stop, size))

    for number, (owner, size, count) in enumerate(laid):
        grouping.begin(buffer)
        item = bytes([number]) * size
        expected += [(owner, item)] * count
        buffer[grouping.end : grouping.end + size * count] = item * count
        grouping.add(owner, size, count)
        taken(grouping.take_full())
    taken(grouping.take())
    assert came == expected


def test_a_group_that_is_left_open_grows_until_it_is_full() -> None:
    grouping: Grouping[str] = Grouping(LIMIT)
    buffer = memoryview(bytearray(2 * LIMIT))
    grouping.add("a", 1000, 3)
    assert grouping.take_full() == []
    grouping.begin(buffer)
    grouping.add("a", 1000, 4)
    assert grouping.take_full() == [("a", 0, 5000, 1000)]
    grouping.begin(buffer)
    assert grouping.take() == [("a", 0, 2000, 1000)]


def test_the_first_report_at_once_then_one_an_interval_and_one_after_the_last() -> None:
    pacing = Pacing()
    assert (pacing.due(), pacing.pop(0.0)) == (None, None)
    pacing.note(7, 1.0)
    assert pacing.pop(1.0) == 7
    assert pacing.pop(1.0) is None
    for n in range(10):
        pacing.note(7, 1.01 + n / 100)
    assert pacing.pop(1.2) is None
    assert pacing.due() == 1.0 + REPORT_INTERVAL
    assert pacing.pop(1.0 + REPORT_INTERVAL) == 7
    assert pacing.pop(9.0) is None, "nothing happened since"
    pacing.note(7, 9.0)
    assert pacing.pop(9.0) == 7


def test_something_urgent_overtakes_but_does_not_flood() -> None:
    pacing = Pacing()
    pacing.note(7, 1.0)
    assert pacing.pop(1.0) == 7
    pacing.note(7, 1.001)
    pacing.note(7, 1.002, URGENT_INTERVAL)
    assert pacing.pop(1.003) is None
    assert pacing.pop(1.0 + URGENT_INTERVAL) == 7
    assert pacing.pop(5.0) is None, "the slower note was overtaken, not kept"


def test_a_crowd_is_reported_together_and_less_often_but_within_what_keymgr_allows_for() -> None:
    pacing = Pacing()
    times: dict[int, list[float]] = {number: [] for number in range(2000)}
    steps = [step / 1000 for step in range(3000)]
    for step, now in enumerate(steps):
        for number in range(step % 50, 2000, 50):  # each is active twenty times a second
            pacing.note(number, now)
        while (number := pacing.pop(now)) is not None:
            times[number].append(now)
    gaps = [later - sooner for reported in times.values() for sooner, later in pairwise(reported)]
    assert min(gaps) >= REPORT_INTERVAL and max(gaps) <= REPORT_LAG
    assert len(gaps) < 2000 * 3 / (2 * REPORT_INTERVAL)
    turns = {now for reported in times.values() for now in reported if now > 0.05}
    assert len(turns) <= 3 * REPORT_TICKS


def test_what_is_forgotten_is_not_reported() -> None:
    pacing = Pacing()
    pacing.note(7, 1.0)
    assert pacing.pending(7)
    pacing.forget(7)
    assert not pacing.pending(7)
    assert pacing.pop(2.0) is None


def test_once_is_once_and_bounded() -> None:
    once = Once(most=3)
    assert [once.is_first(n) for n in (1, 2, 2, 1, 3)] == [True, True, False, False, True]
    assert once.is_first(4), "1 falls out now"
    assert not once.is_first(2)
    assert once.is_first(1)


def test_settings() -> None:
    assert parse("encrypt", {}) == EncryptSettings(1420)
    assert parse("encrypt", {"mtu": 1280}) == EncryptSettings(1280)
    for role, table in (
        ("encrypt", {"mtu": 100}),
        ("encrypt", {"mut": 1420}),
        ("encrypt", {"mtu": "1"}),
        ("decrypt", {}),
    ):
        with pytest.raises(SettingsError):
            parse(role, table)
