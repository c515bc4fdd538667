"""The status page: one shared page that a domain writes and the monitor reads, trusting nothing in it.

Layout: docs/architecture.md, "The status page". Every word has one writer, so nothing here needs a lock.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final, NamedTuple

MAGIC: Final = 0x4D55545045530001
SIZE: Final = 4096
WORD_MAGIC, WORD_STATE, WORD_HEARTBEAT, WORD_VIOLATIONS, WORD_SEALED_AT, WORD_LANDLOCK, WORD_EXEC_GAIN = range(7)
FIRST_COUNTER: Final = 16
MOST_COUNTERS: Final = SIZE // 8 - FIRST_COUNTER


class State(IntEnum):
    """How far a domain has come. Only RUNNING has read a byte of input."""

    STARTING = 1
    BUILT = 2
    SEALED = 3
    RUNNING = 4
    FAILED = 5


class Counter:
    """One number on the status page. ``add`` and ``set`` take whole numbers below 2**64."""

    __slots__ = ("index", "words")

    def __init__(self, words: memoryview, index: int) -> None:
        self.words = words
        self.index = index

    def add(self, count: int = 1) -> None:
        self.words[self.index] += count

    def set(self, value: int) -> None:
        self.words[self.index] = value

    @property
    def value(self) -> int:
        number: int = self.words[self.index]
        return number


class PeerRow(NamedTuple):
    """What ``septum status`` shows of one tunnel peer. Rows lie behind the status page, one slot of 64 bytes a peer."""

    peer: int  # 1..65535; the slot is peer - 1
    handshake: int  # seconds since 1970 of the latest one; 0: none yet
    received: int  # bytes
    sent: int  # bytes
    address: bytes  # 4 or 16 bytes, or empty
    port: int


_ROW: Final = struct.Struct("<IIQQQ16sHB")
ROW_SIZE: Final = 64


def write_row(board: memoryview, row: PeerRow) -> None:
    """Writes ``row`` into its slot; a board that is too small leaves it out.

    The first word is odd while the slot is being written (a seqlock): the reader tries again, or gives up.
    """
    offset = (row.peer - 1) * ROW_SIZE
    if offset + ROW_SIZE > len(board):
        return
    words = board[offset : offset + ROW_SIZE].cast("I")
    sequence = (words[0] + 1) | 1
    words[0] = sequence & 0xFFFFFFFF
    address = row.address.ljust(16, b"\0")
    packed = _ROW.pack(0, row.peer, row.handshake, row.received, row.sent, address, row.port, len(row.address))
    board[offset + 4 : offset + _ROW.size] = packed[4:]
    words[0] = (sequence + 1) & 0xFFFFFFFF


def clear_row(board: memoryview, peer: int) -> None:
    """The slot of ``peer`` is as if it had never been written."""
    offset = (peer - 1) * ROW_SIZE
    if offset + ROW_SIZE <= len(board) and board[offset : offset + 4] != bytes(4):
        write_row(board, PeerRow(peer, 0, 0, 0, b"", 0))
        board[offset : offset + 4] = bytes(4)


def read_row(board: memoryview, peer: int) -> PeerRow | None:
    """The row of ``peer``, copied out and checked; None if it was never written or is being written over and over."""
    offset = (peer - 1) * ROW_SIZE
    for _ in range(8):
        before = bytes(board[offset : offset + _ROW.size])
        if before == bytes(board[offset : offset + _ROW.size]):
            sequence, number, handshake, received, sent, address, port, length = _ROW.unpack(before)
            if sequence == 0 or sequence & 1 or number != peer or length not in (0, 4, 16):
                return None
            return PeerRow(peer, handshake, received, sent, address[:length], port)
    return None


class StatusPage:
    """The domain's side of its status page. ``memory`` is shared with the monitor: 4096 bytes, then the board."""

    def __init__(self, memory: memoryview, counters: list[str]) -> None:
        if len(counters) > MOST_COUNTERS:
            raise ValueError(f"{len(counters)} counters do not fit on a status page; it holds {MOST_COUNTERS}")
        self.words = memory[:SIZE].cast("Q")
        self.board = memory[SIZE:]
        self.words[WORD_MAGIC] = MAGIC
        self.words[WORD_VIOLATIONS] = 0
        self._counters = {name: Counter(self.words, FIRST_COUNTER + i) for i, name in enumerate(counters)}
        for counter in self._counters.values():
            counter.set(0)

    def counter(self, name: str) -> Counter:
        """The counter of that name. KeyError if component.toml does not declare it."""
        return self._counters[name]

    def state(self, state: State) -> None:
        self.words[WORD_STATE] = state

    def sealed(self, nanoseconds: int, landlock_abi: int, refuses_exec_gain: bool) -> None:
        """The seal is on, since ``nanoseconds`` of the monotonic clock; and what nobody can read of it from outside."""
        self.words[WORD_SEALED_AT] = nanoseconds
        self.words[WORD_LANDLOCK] = landlock_abi
        self.words[WORD_EXEC_GAIN] = refuses_exec_gain
        self.state(State.SEALED)

    def beat(self) -> None:
        self.words[WORD_HEARTBEAT] += 1

    def accuse(self, port: int) -> None:
        """Says that the peer of port number ``port`` broke the protocol; the monitor decides what becomes of it."""
        self.words[WORD_VIOLATIONS] |= 1 << port

    def pardon(self, port: int) -> None:
        """The port has a new peer."""
        self.words[WORD_VIOLATIONS] &= ~(1 << port)
