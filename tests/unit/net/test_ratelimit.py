"""The token buckets, against the arithmetic they stand for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from components.net.ratelimit import RateLimiter


def test_a_burst_then_the_rate() -> None:
    limiter = RateLimiter(20, 5, 10)
    assert [limiter.allows(b"a", 0.0) for _ in range(7)] == [True] * 5 + [False] * 2
    assert not limiter.allows(b"a", 0.04)
    assert limiter.allows(b"a", 0.0501)
    assert not limiter.allows(b"a", 0.0502)
    assert [limiter.allows(b"a", 10.0) for _ in range(6)] == [True] * 5 + [False]


def test_sources_do_not_share() -> None:
    limiter = RateLimiter(20, 5, 10)
    for _ in range(50):
        limiter.allows(b"a", 0.0)
    assert limiter.allows(b"b", 0.0)


def test_the_table_is_bounded_and_never_evicts_the_busy() -> None:
    limiter = RateLimiter(20, 5, 100)
    for n in range(100):
        assert limiter.allows(n.to_bytes(2, "big"), 0.0)
    assert not limiter.allows(b"new", 0.1), "full: a new source must wait"
    assert len(limiter) == 100
    assert limiter.allows(b"new", 0.26), "the old ones have filled up and say nothing any more"
    assert len(limiter) == 1


def test_being_pushed_out_gives_no_more_tokens_than_staying() -> None:
    limiter = RateLimiter(20, 5, 2)
    for _ in range(5):
        limiter.allows(b"a", 0.0)
    limiter.allows(b"b", 0.2)
    limiter.allows(b"c", 0.2)
    assert [limiter.allows(b"a", 0.2) for _ in range(5)] == [True] * 4 + [False]


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0, 0.3)), max_size=200))
def test_no_source_gets_more_than_burst_and_rate(events: list[tuple[int, float]]) -> None:
    limiter = RateLimiter(20, 5, 3)
    allowed: dict[int, list[float]] = {}
    now = 0.0
    for source, step in events:
        now += step
        if limiter.allows(bytes((source,)), now):
            allowed.setdefault(source, []).append(now)
        assert len(limiter) <= 3
    for times in allowed.values():
        for i, start in enumerate(times):
            for j in range(i, len(times)):
                assert j - i + 1 <= 5 + 20 * (times[j] - start) + 1e-6
