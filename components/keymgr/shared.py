"""What all peers of one manager share: our key, the tables of indices, the timers, and the events not yet taken."""

from __future__ import annotations

from collections import deque
from typing import Final

from components.keymgr.constants import RETIRED_TIME
from components.keymgr.events import Event, Log, ReceiveForget
from components.keymgr.floor import Floor
from components.keymgr.noise import PrivateKey
from components.keymgr.sessions import Session
from components.keymgr.timers import DELAYS, Timer, Timers

# RFC 5424 section 6.2.1
ERROR: Final = 3
WARNING: Final = 4
INFO: Final = 6

COUNTERS: Final = (
    "initiations_sent",
    "initiations_received",
    "responses_sent",
    "responses_received",
    "handshakes",
    "refused",
    "cookies_received",
)

LOG_BURST: Final = 20.0  # lines of one event at once
LOG_RATE: Final = 2.0  # lines of one event a second, in the long run


class _Allowance:
    """A token bucket for the lines of one event."""

    __slots__ = ("hidden", "last", "left")

    def __init__(self, now: float) -> None:
        self.left = LOG_BURST
        self.last = now
        self.hidden = 0


class Shared:
    """Shared state of one manager and its peers; it decides nothing."""

    def __init__(self, static: PrivateKey, floor: Floor, pairs: int = 1) -> None:
        self.static = static
        self.pairs = pairs
        self.floor = floor
        self.timers = Timers()
        self.sessions: dict[int, Session] = {}  # by our index
        self.pending: dict[int, int] = {}  # our index of an unanswered initiation -> number of the peer
        self.counts = dict.fromkeys(COUNTERS, 0)
        self._events: list[Event] = []
        self._allowances: dict[str, _Allowance] = {}
        self._retired: dict[int, float] = {}
        self._retiring: deque[tuple[float, int]] = deque()

    # events ---------------------------------------------------------------------------------------------------------

    def emit(self, event: Event) -> None:
        self._events.append(event)

    def take(self) -> list[Event]:
        """The events since the last call."""
        events, self._events = self._events, []
        return events

    def log(self, now: float, severity: int, event: str, text: str) -> None:
        """A line for the audit log, unless ``event`` had too many of late: the next one says how many were hidden."""
        allowance = self._allowances.get(event)
        if allowance is None:
            allowance = self._allowances[event] = _Allowance(now)
        allowance.left = min(LOG_BURST, allowance.left + (now - allowance.last) * LOG_RATE)
        allowance.last = now
        if allowance.left < 1.0:
            allowance.hidden += 1
            return
        allowance.left -= 1.0
        if allowance.hidden:
            text = f"{text} ({allowance.hidden} more lines like this were not written)"
            allowance.hidden = 0
        self.emit(Log(severity, event, text))

    # indices --------------------------------------------------------------------------------------------------------

    def pair_of(self, peer: int) -> int:
        """The pair of crypto domains that the peer of that number belongs to."""
        return (peer - 1) % self.pairs

    def new_index(self, random: bytes, peer: int) -> int:
        """An index that names nothing yet (5.4.2: "generated randomly"). ``random``: 4 bytes.

        Divided by the number of pairs it leaves the peer's own, so that black knows whom a datagram is for.
        """
        pair = self.pair_of(peer)
        index = int.from_bytes(random, "little")
        index += (pair - index) % self.pairs
        while index >= 2**32 or index in self.sessions or index in self.pending or index in self._retired:
            index = pair if index >= 2**32 else index + self.pairs
        return index

    def add(self, session: Session) -> None:
        """``session`` has an index and a lifetime from now on."""
        self.sessions[session.index] = session
        self.timers.start((Timer.EXPIRE, session.index), session.created + DELAYS[Timer.EXPIRE])

    def retire(self, session: Session, now: float) -> None:
        """The end of a session: wiped here and in decrypt. Reports that are still under way may name it for a while."""
        session.wipe()
        del self.sessions[session.index]
        self.timers.stop((Timer.EXPIRE, session.index))
        self.emit(ReceiveForget(session.index))
        while self._retiring and self._retiring[0][0] <= now:
            del self._retired[self._retiring.popleft()[1]]
        self._retired[session.index] = now + RETIRED_TIME
        self._retiring.append((now + RETIRED_TIME, session.index))

    def is_retired(self, index: int) -> bool:
        return index in self._retired
