"""A group of datagrams shared out among several decrypts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.net.shards import by_receiver


def datagram(index: int, size: int, fill: int = 0) -> bytes:
    return b"\4\0\0\0" + index.to_bytes(4, "little") + bytes((fill,)) * (size - 8)


@pytest.mark.parametrize("shards", [2, 3])
@pytest.mark.parametrize("last", [0, 32, 99])
def test_a_group_of_one_session_is_passed_on_as_it_is(shards: int, last: int) -> None:
    for index in (0, 1, 2, 0xFFFFFFFF, 0x01020304):
        group = b"".join(datagram(index, 100, n) for n in range(44)) + (datagram(index, last) if last else b"")
        ((shard, part),) = by_receiver(view := memoryview(group), 100, shards)
        assert shard == index % shards
        assert part is view, "nothing is copied"


@given(
    st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 255)), min_size=1, max_size=64),
    st.integers(32, 200),
    st.integers(32, 200),
    st.integers(2, 8),
)
def test_every_datagram_comes_to_its_own_in_order(
    all_of_it: list[tuple[int, int]], size: int, last: int, shards: int
) -> None:
    sizes = [size] * (len(all_of_it) - 1) + [min(size, last)]
    datagrams = [datagram(index, length, fill) for (index, fill), length in zip(all_of_it, sizes, strict=True)]
    parts = by_receiver(memoryview(b"".join(datagrams)), size, shards)
    assert len({shard for shard, _ in parts}) == len(parts)
    for shard, part in parts:
        own = [one for (index, _), one in zip(all_of_it, datagrams, strict=True) if index % shards == shard]
        assert bytes(part) == b"".join(own)
    assert sum(len(part) for _, part in parts) == sum(map(len, datagrams))
