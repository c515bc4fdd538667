"""The table of flows: who opened them, how far they have come, when they are forgotten.

Bounded: each side has its share, and a side that opens more than that loses its own flows, first those that were never
answered. So a scan from one side costs neither the other side nor established connections.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum, auto
from itertools import islice
from types import MappingProxyType
from typing import Final

from components.filter.headers import FIN, RST, SYN, TCP, UDP

# Whole numbers, not plain enumerations: those hash slowly, and these are looked up for every packet


class Side(IntEnum):
    """Where a packet comes from; a bit each."""

    RED = 1
    TUNNEL = 2


class State(IntEnum):
    """How far a flow has come."""

    OPENING = auto()  # TCP, not yet answered
    ESTABLISHED = auto()
    CLOSING = auto()  # both sides have sent FIN
    RESET = auto()
    ASKED = auto()  # UDP, not yet answered
    ANSWERED = auto()
    ECHO = auto()
    OTHER = auto()


TIMEOUTS: Final = MappingProxyType(
    {
        State.OPENING: 240.0,  # RFC 5382 REQ-5: transitory connections, 4 minutes
        State.ESTABLISHED: 7440.0,  # RFC 5382 REQ-5: 2 hours 4 minutes, so that keepalives keep
        State.CLOSING: 240.0,
        State.RESET: 10.0,
        State.ASKED: 120.0,  # RFC 4787 REQ-5: 2 minutes at the least
        State.ANSWERED: 300.0,  # RFC 4787 REQ-5: 5 minutes recommended
        State.ECHO: 60.0,  # RFC 5508 REQ-1
        State.OTHER: 300.0,
    }
)
"""Seconds without a packet after which a flow is forgotten."""

SHARES: Final = MappingProxyType({Side.RED: 49152, Side.TUNNEL: 16384})
"""Flows that each side may have opened: 65536 together."""

_SWEEP: Final = 2048  # flows looked at in one sweep
_CANDIDATES: Final = 16  # flows compared when one has to go


class Flow:
    """One flow. ``key`` names it as seen from the red side."""

    __slots__ = ("expires", "fins", "key", "opener", "state")

    def __init__(self, key: bytes, opener: Side, state: State) -> None:
        self.key = key
        self.opener = opener
        self.state = state
        self.fins = 0
        self.expires = 0.0


def first_state(protocol: int, echo: bool) -> State:
    """The state of a flow with its first packet."""
    if protocol == TCP:
        return State.OPENING
    if protocol == UDP:
        return State.ASKED
    return State.ECHO if echo else State.OTHER


class FlowTable:
    """Flows by key."""

    def __init__(self, shares: MappingProxyType[Side, int] = SHARES) -> None:
        self._shares = shares
        self._flows: dict[bytes, Flow] = {}
        # By opener, in the order of opening and of the first answer: dictionaries keep it
        self._unanswered: dict[Side, dict[bytes, Flow]] = {side: {} for side in Side}
        self._answered: dict[Side, dict[bytes, Flow]] = {side: {} for side in Side}
        self._sweeping: Iterator[bytes] = iter(())
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._flows)

    def get(self, key: bytes, now: float) -> Flow | None:
        """The living flow of that name."""
        flow = self._flows.get(key)
        if flow is None:
            return None
        if flow.expires <= now:
            self._forget(flow)
            return None
        return flow

    def open(self, key: bytes, opener: Side, state: State, now: float) -> Flow:
        """A new flow, in the place of one of the same name or, if the opener's share is used up, of one of its own."""
        old = self._flows.get(key)
        if old is not None:
            self._forget(old)
        unanswered, answered = self._unanswered[opener], self._answered[opener]
        if len(unanswered) + len(answered) >= self._shares[opener]:
            oldest = islice((unanswered or answered).values(), _CANDIDATES)
            self._forget(min(oldest, key=lambda flow: flow.expires))
            self.evicted += 1
        flow = Flow(key, opener, state)
        flow.expires = now + TIMEOUTS[state]
        self._flows[key] = unanswered[key] = flow
        return flow

    def seen(self, flow: Flow, side: Side, flags: int, now: float) -> None:
        """One more packet of ``flow``, from ``side``, with those TCP flags (0 for other protocols)."""
        state = flow.state
        if side is not flow.opener and state in _ANSWERED:
            state = _ANSWERED[state]
            if self._unanswered[flow.opener].pop(flow.key, None) is not None:
                self._answered[flow.opener][flow.key] = flow
        if flags & RST:
            state = State.RESET
        elif state is State.RESET:
            # Only the red side can say that a reset was none (RFC 5961: it answered a forged one with an ACK)
            if side is Side.TUNNEL:
                return
            state = State.ESTABLISHED
        if flags & SYN:
            flow.fins = 0
            if state is State.CLOSING:
                state = State.OPENING
        elif flags & FIN:
            flow.fins |= side
            if flow.fins == Side.RED | Side.TUNNEL:
                state = State.CLOSING
        flow.state = state
        flow.expires = now + TIMEOUTS[state]

    def sweep(self, now: float) -> None:
        """Forgets expired flows, a bounded number a call: the whole table is looked at every 32 calls."""
        keys = list(islice(self._sweeping, _SWEEP))
        if not keys:
            self._sweeping = iter(list(self._flows))
        for key in keys:
            self.get(key, now)

    def _forget(self, flow: Flow) -> None:
        del self._flows[flow.key]
        if self._unanswered[flow.opener].pop(flow.key, None) is None:
            del self._answered[flow.opener][flow.key]


_ANSWERED: Final = MappingProxyType(
    {
        State.OPENING: State.ESTABLISHED,
        State.ASKED: State.ANSWERED,
        State.ECHO: State.ECHO,
        State.OTHER: State.OTHER,
    }
)
"""What the first packet from the other side makes of a flow."""
