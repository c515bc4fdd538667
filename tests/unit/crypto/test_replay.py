"""The window, against a set that forgets nothing; and the cases of WireGuard's own self-test."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from components.crypto.constants import WINDOW, WINDOW_RING
from components.crypto.replay import ReplayWindow


def naive(counters: list[int]) -> list[bool]:
    """Which of the counters a window of WINDOW accepts, in order."""
    seen: set[int] = set()
    greatest = -1
    verdicts = []
    for counter in counters:
        fresh = counter not in seen and counter + WINDOW >= greatest
        if fresh:
            seen.add(counter)
            greatest = max(greatest, counter)
        verdicts.append(fresh)
    return verdicts


def accept(window: ReplayWindow, counter: int) -> bool:
    if not window.is_fresh(counter):
        return False
    window.commit(counter)
    return True


steps = st.one_of(
    st.integers(-3, 3),
    st.integers(-WINDOW - 70, WINDOW + 70),
    st.sampled_from([-WINDOW - 1, -WINDOW, -WINDOW + 1, 8191, 8192, 8193, 100_000]),
)


@given(st.integers(0, 2**64 - 10_000_000), st.lists(steps, max_size=60))
def test_as_a_set_that_forgets_nothing(start: int, walk: list[int]) -> None:
    counters, at = [], start
    for step in walk:
        at = max(0, at + step)
        counters.append(at)
    window = ReplayWindow()
    assert [accept(window, counter) for counter in counters] == naive(counters)


@given(st.integers(0, 2**64 - 10_000_000), st.lists(st.tuples(steps, st.integers(1, 2048)), max_size=20))
def test_a_run_is_as_one_after_another(start: int, walk: list[tuple[int, int]]) -> None:
    single, runs, at = ReplayWindow(), ReplayWindow(), start
    for step, count in walk:
        at = max(0, at + step)
        fresh = next((n for n in range(count) if not single.is_fresh(at + n)), count)
        if fresh:
            runs.commit_run(at, fresh)
            assert all(accept(single, at + n) for n in range(fresh))
            at += fresh
    assert runs.next == single.next
    reach = range(max(0, runs.next - WINDOW_RING), runs.next + 9)
    assert [runs.is_fresh(n) for n in reach] == [single.is_fresh(n) for n in reach]


@given(st.permutations(range(40)), st.integers(0, 20_000))
def test_any_order_is_taken_once(order: list[int], base: int) -> None:
    window = ReplayWindow()
    assert all(accept(window, base + n) for n in order)
    assert not any(accept(window, base + n) for n in order)


def test_asking_changes_nothing() -> None:
    window = ReplayWindow()
    assert window.is_fresh(10**6)
    assert window.is_fresh(0)
    assert window.next == 0


def test_the_edge_of_the_window() -> None:
    window = ReplayWindow()
    assert accept(window, WINDOW + 5)
    assert not window.is_fresh(4)
    assert window.is_fresh(5)
    assert accept(window, 5)
    assert not window.is_fresh(5)


def test_a_long_leap_clears_every_mark() -> None:
    window = ReplayWindow()
    for counter in range(9000):
        assert accept(window, counter)
    assert accept(window, 10**9)
    assert all(window.is_fresh(counter) for counter in range(10**9 - WINDOW, 10**9))
    assert not window.is_fresh(10**9 - WINDOW - 1)


@given(st.integers(WINDOW_RING, 3 * WINDOW_RING), st.integers(1, WINDOW_RING + 70), st.booleans())
def test_a_leap_clears_the_marks_it_passes_and_no_others(start: int, leap: int, run: bool) -> None:
    window = ReplayWindow()
    for first in range(0, start, 2000):
        window.commit_run(first, min(2000, start - first))
    to = start - 1 + leap
    window.commit_run(to, 5) if run else window.commit(to)
    low = max(0, window.next - 1 - WINDOW)
    assert [n for n in range(low, to) if window.is_fresh(n)] == list(range(max(start, low), to))
    assert not any(map(window.is_fresh, range(to, window.next)))
