"""The table of flows: who opened them, how far they have come, when they are forgotten.

Bounded: each side has its share, and a side that opens more than that loses its own flows. Of a side's share no peer of
the tunnel can take what another one needs: who has most loses first, and of that those that were never answered. So a
scan costs neither the other sides, nor other peers, nor the established connections of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import IntEnum, auto
from itertools import islice
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from components.filter.headers import TCP, UDP
from components.filter.model import Link, Side

if TYPE_CHECKING:
    from components.filter.nat import Rewriting
    from components.filter.tcp import End

# Whole numbers, not plain enumerations: those hash slowly, and these are looked up for every packet


class State(IntEnum):
    """How far a flow has come."""

    OPENING = auto()  # TCP, not yet answered
    ANSWERING = auto()  # a SYN was answered, and the opener has not said that it heard so
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
        State.ANSWERING: 240.0,
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

SHARES: Final = MappingProxyType({Side.RED: 102_400, Side.TUNNEL: 24_576, Side.BLACK: 24_576})
"""Flows that each side may have opened."""

_SWEEP: Final = 4096  # flows looked at in one sweep
_CANDIDATES: Final = 16  # flows compared when one has to go
UNKNOWN: Final = -1  # no rule is known that all packets of that direction go by


class Flow:
    """One flow. ``key`` names it as the red side sees it."""

    __slots__ = (
        "expires",
        "far",
        "far_end",
        "far_rule",
        "fins",
        "generation",
        "holder",
        "icmp",
        "is_answered",
        "key",
        "link",
        "nat",
        "near_end",
        "near_rule",
        "octets",
        "opener",
        "packets",
        "peer",
        "rule",
        "state",
        "syn",
    )

    def __init__(self, key: bytes, opener: Side, far: Side, state: State) -> None:
        self.key = key
        self.opener = opener
        self.far = far  # the side across from the red one
        self.state = state
        self.expires = 0.0
        self.fins = 0  # bits of sides
        self.is_answered = False  # by the side that did not open it
        self.peer = 0  # of the tunnel; 0 while none has spoken
        self.holder = 0  # the peer whose share it is charged to; 0: the side has no peers
        self.generation = 0  # of the rules that it was judged by
        self.icmp = -1  # type and code of the packet that opened it
        self.link: Link | None = None  # frame of the packet that opened it
        self.nat: Rewriting | None = None
        self.near_end: End | None = None  # sequence numbers; None: not followed
        self.far_end: End | None = None
        self.syn = -1  # sequence number after a SYN that was let through in the midst of the connection
        self.rule = UNKNOWN  # that let it open
        self.near_rule = UNKNOWN  # that all packets from the red side go by, as things stand
        self.far_rule = UNKNOWN
        self.packets = self.octets = 0


def first_state(protocol: int, echo: bool) -> State:
    """The state of a flow with its first packet."""
    if protocol == TCP:
        return State.OPENING
    if protocol == UDP:
        return State.ASKED
    return State.ECHO if echo else State.OTHER


class _Holder:
    """The flows of one opener, in the order of opening and of the first answer: dictionaries keep it."""

    __slots__ = ("answered", "unanswered")

    def __init__(self) -> None:
        self.unanswered: dict[bytes, Flow] = {}
        self.answered: dict[bytes, Flow] = {}

    def __len__(self) -> int:
        return len(self.unanswered) + len(self.answered)

    def weakest(self) -> Flow:
        """The flow that is missed least."""
        oldest = islice((self.unanswered or self.answered).values(), _CANDIDATES)
        return min(oldest, key=lambda flow: flow.expires)


class _Share:
    """The flows that one side has opened, by who holds them; and always known is who holds most."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._flows = 0
        self._holders: dict[int, _Holder] = {}
        self._levels: dict[int, dict[int, None]] = {}  # holders by how much they hold, which changes by one at a time
        self._highest = 0

    def holder(self, number: int) -> _Holder:
        return self._holders[number]

    def add(self, flow: Flow) -> None:
        holder = self._holders.get(flow.holder)
        if holder is None:
            holder = self._holders[flow.holder] = _Holder()
        holder.unanswered[flow.key] = flow
        self._flows += 1
        self._move(flow.holder, len(holder) - 1, len(holder))

    def remove(self, flow: Flow) -> None:
        holder = self._holders[flow.holder]
        if holder.unanswered.pop(flow.key, None) is None:
            del holder.answered[flow.key]
        self._flows -= 1
        self._move(flow.holder, len(holder) + 1, len(holder))
        if not holder:
            del self._holders[flow.holder]

    def surplus(self, number: int) -> Flow | None:
        """The flow that has to go before that holder may open another one, if one has to: of its own if nobody holds
        more than it does.
        """
        if self._flows < self._most:
            return None
        if number not in self._levels[self._highest]:
            number = next(iter(self._levels[self._highest]))
        return self._holders[number].weakest()

    def _move(self, number: int, before: int, after: int) -> None:
        if before:
            level = self._levels[before]
            del level[number]
            if not level:
                del self._levels[before]
        if after:
            self._levels.setdefault(after, {})[number] = None
        if after > self._highest or self._highest not in self._levels:
            self._highest = after


class FlowTable:
    """Flows by key; translated ones have a second key, by which the far side knows them."""

    def __init__(self, shares: Mapping[Side, int] = SHARES) -> None:
        self._shares = {side: _Share(most) for side, most in shares.items()}
        self.by_key: dict[bytes, Flow] = {}
        self.by_alias: dict[bytes, Flow] = {}
        self._sweeping: Iterator[bytes] = iter(())
        self.evicted = 0
        self.changes = 0
        """Goes up whenever what is known of some flow holds no more: it has ended, or its packets go by other rules."""

    def __len__(self) -> int:
        return len(self.by_key)

    def near(self, key: bytes, now: float) -> Flow | None:
        """The living flow that the red side knows by that name."""
        flow = self.by_key.get(key)
        return flow if flow is not None and flow.expires > now else None

    def afar(self, key: bytes, now: float) -> Flow | None:
        """The living flow that a far side knows by that name."""
        flow = self.by_key.get(key)
        if flow is None or flow.nat is not None:
            flow = self.by_alias.get(key)
        return flow if flow is not None and flow.expires > now else None

    def open(self, flow: Flow, now: float) -> None:
        """A new flow, in the place of one of the same name or, if the opener's share is used up, of one that whoever
        holds most of it has.
        """
        if (old := self.by_key.get(flow.key)) is not None:
            self.forget(old)
        if flow.nat is not None and (old := self.by_alias.get(flow.nat.alias)) is not None:
            self.forget(old)
        share = self._shares[flow.opener]
        flow.holder = flow.peer
        surplus = share.surplus(flow.holder)
        if surplus is not None:
            self.forget(surplus)
            self.evicted += 1
        flow.expires = now + TIMEOUTS[flow.state]
        self.by_key[flow.key] = flow
        share.add(flow)
        if flow.nat is not None:
            self.by_alias[flow.nat.alias] = flow

    def has_come(self, flow: Flow, state: State, now: float) -> None:
        """The flow is in that state now."""
        if state is not flow.state:
            flow.state = state
            self._endures(flow)
        flow.expires = now + TIMEOUTS[state]

    def was_answered(self, flow: Flow) -> None:
        """The side that did not open it has spoken."""
        flow.is_answered = True
        self.forget_rules(flow)
        self._endures(flow)

    def _endures(self, flow: Flow) -> None:
        """Moves a flow that is more than a question to those that go last."""
        if flow.is_answered and flow.state not in _FRAIL:
            holder = self._shares[flow.opener].holder(flow.holder)
            if holder.unanswered.pop(flow.key, None) is not None:
                holder.answered[flow.key] = flow

    def sweep(self, now: float) -> None:
        """Forgets expired flows, a bounded number a call: the whole table is looked at every few dozen calls."""
        keys = list(islice(self._sweeping, _SWEEP))
        if not keys:
            self._sweeping = iter(list(self.by_key))
        for key in keys:
            flow = self.by_key.get(key)
            if flow is not None and flow.expires <= now:
                self.forget(flow)

    def forget_rules(self, flow: Flow) -> None:
        """What its packets go by has to be asked anew."""
        flow.near_rule = flow.far_rule = UNKNOWN
        self.changes += 1

    def forget(self, flow: Flow) -> None:
        self.changes += 1
        del self.by_key[flow.key]
        if flow.nat is not None:
            del self.by_alias[flow.nat.alias]
        self._shares[flow.opener].remove(flow)


_FRAIL: Final = frozenset({State.OPENING, State.ANSWERING})
"""States of a connection that a flood can make, and that go first."""
