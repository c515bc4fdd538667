"""Deadlines by the ten thousand: a heap, not a scan. And the table of what makes each timer run or stop (section 6)."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from enum import IntEnum, StrEnum
from typing import Final

from components.keymgr.constants import KEEPALIVE_TIMEOUT, NEW_HANDSHAKE_TIME, REJECT_AFTER_TIME, ZERO_AFTER_TIME


class Timer(IntEnum):
    """What a deadline is for. All belong to a peer, but EXPIRE, which belongs to a session."""

    RETRY = 0  # 6.4: send an initiation, or give up
    KEEPALIVE = 1  # 6.5: something was received and nothing sent since
    PERSISTENT = 2  # the peer's own interval: nothing went either way for so long
    NEW_HANDSHAKE = 3  # 6.5: something was sent and nothing received since
    EXPIRE = 4  # 6.2: a session is too old to be used
    ZERO = 5  # 6.3: no session was derived for so long that everything ephemeral goes


OF_A_PEER: Final = tuple(timer for timer in Timer if timer is not Timer.EXPIRE)


class Happened(StrEnum):
    """What sets or stops a peer's timers."""

    DATA_SENT = "data sent"  # with something in it
    DATA_RECEIVED = "data received"
    SENT = "sent"  # anything authenticated: data, keepalive, handshake
    RECEIVED = "received"
    TRAVERSED = "traversed"  # either of the two
    DERIVED = "session derived"
    COMPLETED = "handshake completed"  # both ends have the session's keys and we know it


# Stops these
STOPS: Final[dict[Happened, tuple[Timer, ...]]] = {
    Happened.SENT: (Timer.KEEPALIVE,),
    Happened.RECEIVED: (Timer.NEW_HANDSHAKE,),
    Happened.COMPLETED: (Timer.RETRY,),
}
# Starts these, if they do not run already
STARTS: Final[dict[Happened, tuple[Timer, ...]]] = {
    Happened.DATA_SENT: (Timer.NEW_HANDSHAKE,),
    Happened.DATA_RECEIVED: (Timer.KEEPALIVE,),
}
# Starts these anew
RESTARTS: Final[dict[Happened, tuple[Timer, ...]]] = {
    Happened.TRAVERSED: (Timer.PERSISTENT,),
    Happened.DERIVED: (Timer.ZERO,),
}
# How long they run; RETRY has jitter and PERSISTENT is the peer's own
DELAYS: Final[dict[Timer, float]] = {
    Timer.KEEPALIVE: KEEPALIVE_TIMEOUT,
    Timer.NEW_HANDSHAKE: NEW_HANDSHAKE_TIME,
    Timer.EXPIRE: REJECT_AFTER_TIME,
    Timer.ZERO: ZERO_AFTER_TIME,
}

Key = tuple[Timer, int]  # and the number of the peer, or the index of the session


class Timers:
    """Running timers by key. Arming and stopping are O(1) in practice: a heap entry that comes up early is put back.

    A timer that is pushed further away all the time, as most are, keeps its one entry in the heap.
    """

    def __init__(self) -> None:
        self._due: dict[Key, float] = {}
        self._queued: dict[Key, float] = {}  # the earliest heap entry of each key
        self._heap: list[tuple[float, Key]] = []

    def __len__(self) -> int:
        return len(self._due)

    def start(self, key: Key, at: float) -> None:
        """Runs ``key`` until ``at``, whatever it was before."""
        self._due[key] = at
        if at < self._queued.get(key, float("inf")):
            self._queued[key] = at
            heapq.heappush(self._heap, (at, key))

    def stop(self, key: Key) -> None:
        self._due.pop(key, None)

    def runs(self, key: Key) -> bool:
        return key in self._due

    def _settle(self) -> None:
        """Brings a timer that really is the next one to the top of the heap."""
        while self._heap:
            at, key = self._heap[0]
            due = self._due.get(key)
            if self._queued.get(key) == at and due == at:
                return
            heapq.heappop(self._heap)
            if self._queued.get(key) != at:
                continue  # an earlier entry took over, and is gone
            del self._queued[key]
            if due is not None:
                self.start(key, due)

    def next(self) -> float | None:
        """When the next timer is due."""
        self._settle()
        return self._heap[0][0] if self._heap else None

    def due(self, now: float) -> Iterator[Key]:
        """The timers that are due, in order; each is stopped as it is handed out."""
        while True:
            self._settle()
            if not self._heap or self._heap[0][0] > now:
                return
            _, key = heapq.heappop(self._heap)
            del self._queued[key]
            del self._due[key]
            yield key
