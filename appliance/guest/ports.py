"""The ends of channels as a component sees them: Out, Client, and what the loop drives for In and Server.

A peer that is dead, slow or broken is a result here (False, PeerClosed, PeerStalled), never a hang.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from typing import Any, Final, Protocol

from appliance.vchan.endpoint import Endpoint

CALL_DEADLINE: Final = 1.0  # seconds
BLOCK_DEADLINE: Final = 1.0  # seconds a control message may wait for room
TURN_PATIENCE: Final = 2.0  # seconds that all waits of one turn may take together
FIRST_REST: Final = 1.0  # seconds in which a server that did not answer is not asked again; doubled each time,
LONGEST_REST: Final = 60.0  # ... up to this
STALL_REST: Final = 5.0  # seconds in which a stuck peer is not waited for
STALL_LIMIT: Final = 0.1  # seconds a full packet ring may hold up its producer before packets are dropped instead


class PeerClosed(Exception):
    """The other end is not there: it died, or is not up yet. It may come back."""


class PeerStalled(Exception):
    """The other end is there and did not answer within the deadline."""


class Patience:
    """How long a turn has waited for its peers. Shared by all ports of a domain.

    Without it, many short waits would add up to a loop that stands still, and the monitor would end the victim for what
    its peer did.
    """

    def __init__(self) -> None:
        self.spent = 0.0
        self.look_soon: Callable[[], None] = lambda: None
        """To be called by who has heard, in the midst of a turn, of what the loop must see to."""

    def renew(self) -> None:
        """A new turn."""
        self.spent = 0.0

    def until(self, now: float, seconds: float) -> float:
        """When a wait of at most ``seconds`` must end."""
        return now + min(seconds, max(0.0, TURN_PATIENCE - self.spent))


class _Waiting:
    """Sleeps on one endpoint alone, for the few places that may: calls, and control messages that find no room."""

    def __init__(self, endpoint: Endpoint, patience: Patience) -> None:
        self._endpoint = endpoint
        self._patience = patience
        self._epoll = select.epoll(1)
        # Edge-triggered: every notify is an edge, so nothing has to be read from the eventfd.
        self._epoll.register(endpoint.fileno(), select.EPOLLIN | select.EPOLLET)
        self.fd = self._epoll.fileno()

    def sleep(self, until: float, space: bool) -> bool:
        """Sleeps until the peer did something; False once ``until`` (monotonic seconds) has passed."""
        began = time.monotonic()
        if began >= until:
            return False
        if self._endpoint.arm(space):
            self._epoll.poll(until - began, 1)
        if not self._endpoint.disarm():
            self._patience.look_soon()
        self._patience.spent += time.monotonic() - began
        return True

    def until(self, seconds: float) -> float:
        return self._patience.until(time.monotonic(), seconds)


class Port:
    """What all ports have: a name, the peer's domain name, the endpoint under them."""

    def __init__(self, index: int, name: str, peer: str, endpoint: Endpoint, patience: Patience) -> None:
        self.index = index
        self.name = name
        self.peer = peer
        self.endpoint = endpoint


class Out(Protocol):
    """The producer's end of a stream."""

    def send(self, message: Any) -> bool:
        """Sends one message. False: no room or no peer, and the message is dropped and counted.

        Errors: ValueError if the message breaks its own schema (that is this component's fault, not the peer's).
        """

    def room(self) -> bool:
        """Whether a message of the largest size would fit now. True as well if there is no peer to wait for."""

    @property
    def is_open(self) -> bool: ...


class DroppingOut(Port):
    """An Out whose full ring drops (packets, log records)."""

    def __init__(self, index: int, name: str, peer: str, endpoint: Endpoint, patience: Patience) -> None:
        super().__init__(index, name, peer, endpoint, patience)
        self._full_since: float | None = None
        self._not_waited_for = 0.0  # until then: it was found stuck
        self.wants_space = False

    @property
    def is_open(self) -> bool:
        return self.endpoint.is_open

    def room(self) -> bool:
        return not self.endpoint.is_open or self.endpoint.room()

    def send(self, message: Any) -> bool:
        return self.endpoint.send(message)

    def ready(self, now: float) -> bool:
        """Whether a source may be read whose output goes here.

        Back-pressure runs to the device at the edge, whose own queue is the one place where a busy box loses packets.
        A peer that stays full for STALL_LIMIT is not busy but stuck: then reading goes on, and what has no room drops.
        It is not waited for again in the next STALL_REST seconds, or one that frees a little room each time could hold
        up its producer, and all that the producer serves, for good.
        """
        endpoint = self.endpoint
        if endpoint.room() or not endpoint.is_open:
            self._full_since = None
            return True
        if now < self._not_waited_for:
            return True
        if self._full_since is None:
            self._full_since = now
        self.wants_space = True
        if now - self._full_since <= STALL_LIMIT:
            return False
        self._not_waited_for = now + STALL_REST
        return True


class BlockingOut(DroppingOut):
    """An Out whose full ring holds the producer up, for BLOCK_DEADLINE at most (orders, keys)."""

    def __init__(self, index: int, name: str, peer: str, endpoint: Endpoint, patience: Patience) -> None:
        super().__init__(index, name, peer, endpoint, patience)
        self._waiting = _Waiting(endpoint, patience)
        self.fd = self._waiting.fd

    def send(self, message: Any) -> bool:
        if self.endpoint.send(message):
            return True
        until = self._waiting.until(BLOCK_DEADLINE)
        while self.endpoint.is_open and self.endpoint.peer_is_live:
            self.endpoint.flush()
            if not self._waiting.sleep(until, space=True):
                return False
            # progress() is left to the loop: it must see a close and tell the component of it
            if self.endpoint.send(message):
                return True
        return False


class Client(Port):
    """The caller's end: one request, one reply, one at a time.

    A server that did not answer in time is left alone for a while, longer each time, and calls fail at once meanwhile:
    who depends on it must not stand still with it.
    """

    def __init__(self, index: int, name: str, peer: str, endpoint: Endpoint, patience: Patience) -> None:
        super().__init__(index, name, peer, endpoint, patience)
        self._waiting = _Waiting(endpoint, patience)
        self._rest = 0.0  # seconds; 0 while it answers
        self._asked_again = 0.0  # not before
        self.fd = self._waiting.fd

    @property
    def is_open(self) -> bool:
        return self.endpoint.is_open

    def call(self, request: Any, deadline: float = CALL_DEADLINE) -> Any:
        """Sends ``request`` and returns the reply.

        Errors: PeerClosed if the server is not there; PeerStalled if no reply came within ``deadline`` seconds (should
        it come later, it is not taken for the next one's) or if that is what happened lately; PeerViolation if the
        reply breaks the schema.
        """
        if time.monotonic() < self._asked_again:
            raise PeerStalled(f"{self.name}: {self.peer} did not answer lately")
        self.begin(request)
        until = self._waiting.until(deadline)
        while (reply := self.look()) is None:
            if not self._waiting.sleep(until, space=False):
                self._rest = min(LONGEST_REST, 2 * self._rest or FIRST_REST)
                self._asked_again = time.monotonic() + self._rest
                raise PeerStalled(f"{self.name}: {self.peer} did not answer within {deadline} s")
        self._rest = 0.0
        return reply

    def begin(self, request: Any) -> None:
        """Sends ``request``, for who goes on with other things until ``look`` has the reply. Errors: PeerClosed."""
        if not self.endpoint.send(request):
            raise PeerClosed(f"{self.name}: {self.peer} is not there")
        self.endpoint.flush()

    def look(self) -> Any:
        """The reply to what was asked last; None if there is none yet. Errors: PeerClosed, PeerViolation."""
        reply = self.endpoint.receive()
        if reply is None and not self.endpoint.peer_is_live:
            raise PeerClosed(f"{self.name}: {self.peer} went away during a call")
        return reply

    def doze(self, seconds: float) -> None:
        """Sleeps until there may be a reply, ``seconds`` at most."""
        self._waiting.sleep(self._waiting.until(seconds), space=False)

    def forgive(self) -> None:
        """The server is a new one."""
        self._rest = self._asked_again = 0.0
