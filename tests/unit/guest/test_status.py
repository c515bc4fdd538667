"""The status page and the board behind it, as the domain writes them and the monitor reads them."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.guest.status import (
    FIRST_COUNTER,
    MAGIC,
    ROW_SIZE,
    SIZE,
    PeerRow,
    State,
    StatusPage,
    read_row,
    write_row,
)


def test_words_lie_where_the_architecture_says() -> None:
    memory = bytearray(SIZE)
    page = StatusPage(memoryview(memory), ["a", "b"])
    page.counter("b").add(3)
    page.counter("b").add()
    page.beat()
    page.accuse(0)
    page.accuse(5)
    page.pardon(0)
    page.sealed(123, 7, True)
    words = struct.unpack("<512Q", memory)
    assert words[:7] == (MAGIC, State.SEALED, 1, 1 << 5, 123, 7, 1)
    assert words[FIRST_COUNTER : FIRST_COUNTER + 2] == (0, 4)
    with pytest.raises(KeyError):
        page.counter("undeclared")


def test_too_many_counters_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        StatusPage(memoryview(bytearray(SIZE)), [str(i) for i in range(600)])


@given(
    peer=st.integers(1, 4),
    numbers=st.tuples(*[st.integers(0, 2**64 - 1)] * 3),
    address=st.sampled_from([b"", b"\x0a\x00\x00\x01", bytes(range(16))]),
    port=st.integers(0, 65535),
)
def test_a_row_comes_back(peer: int, numbers: tuple[int, int, int], address: bytes, port: int) -> None:
    board = memoryview(bytearray(4 * ROW_SIZE))
    row = PeerRow(peer, *numbers, address, port)
    write_row(board, row)
    assert read_row(board, peer) == row
    assert [read_row(board, other) for other in range(1, 5) if other != peer] == [None] * 3


@given(st.binary(min_size=ROW_SIZE, max_size=ROW_SIZE))
def test_whatever_a_domain_writes_reading_is_safe(untrusted: bytes) -> None:
    row = read_row(memoryview(bytearray(untrusted)), 1)
    assert row is None or (row.peer == 1 and len(row.address) in (0, 4, 16))


def test_a_row_beyond_the_board_is_left_out() -> None:
    board = memoryview(bytearray(ROW_SIZE))
    write_row(board, PeerRow(2, 1, 2, 3, b"", 0))
    assert bytes(board) == bytes(ROW_SIZE)
