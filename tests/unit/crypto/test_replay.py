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
        while count and not single.is_fresh(at + count - 1):
            count -= 1
        fresh = next((n for n in range(count) if not single.is_fresh(at + count - 1 - n)), count)
        if fresh:
            at += count - fresh
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
