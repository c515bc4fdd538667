"""The ends of channels as a component sees them: Out, Client, and what the loop drives for In and Server.

A peer that is dead, slow or broken is a result here (False, PeerClosed, PeerStalled), never a hang.
"""

from __future__ import annotations

import select
import time
from typing import Any, Final, Protocol

from appliance.vchan.endpoint import Endpoint

CALL_DEADLINE: Final = 1.0  # seconds
BLOCK_DEADLINE: Final = 1.0  # seconds a control message may wait for room
STALL_LIMIT: Final = 0.1  # seconds a full packet ring may hold up its producer before packets are dropped instead


class PeerClosed(Exception):
    """The other end is not there: it died, or is not up yet. It may come back."""


class PeerStalled(Exception):
    """The other end is there and did not answer within the deadline."""


class _Waiting:
    """Sleeps on one endpoint alone, for the few places that may: calls, and control messages that find no room."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._epoll = select.epoll(1)
        # Edge-triggered: every notify is an edge, so nothing has to be read from the eventfd.
        self._epoll.register(endpoint.fileno(), select.EPOLLIN | select.EPOLLET)
        self.fd = self._epoll.fileno()

    def sleep(self, until: float, space: bool) -> bool:
        """Sleeps until the peer did something; False once ``until`` (monotonic seconds) has passed."""
        left = until - time.monotonic()
        if left <= 0:
            return False
        if self._endpoint.arm(space):
            self._epoll.poll(left, 1)
        self._endpoint.disarm()
        return True


class Port:
    """What all ports have: a name, the peer's domain name, the endpoint under them."""

    def __init__(self, index: int, name: str, peer: str, endpoint: Endpoint) -> None:
        self.index = index
        self.name = name
        self.peer = peer
        self.endpoint = endpoint
        self.listens = False  # whether something here reads what arrives, and is not held up


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

    def __init__(self, index: int, name: str, peer: str, endpoint: Endpoint) -> None:
        super().__init__(index, name, peer, endpoint)
        self._full_since: float | None = None
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
        """
        if not self.endpoint.is_open or self.endpoint.room():
            self._full_since = None
            return True
        if self._full_since is None:
            self._full_since = now
        self.wants_space = True
        return now - self._full_since > STALL_LIMIT


class BlockingOut(DroppingOut):
    """An Out whose full ring holds the producer up, for BLOCK_DEADLINE at most (orders, keys)."""

    def __init__(self, index: int, name: str, peer: str, endpoint: Endpoint) -> None:
        super().__init__(index, name, peer, endpoint)
        self._waiting = _Waiting(endpoint)
        self.fd = self._waiting.fd

    def send(self, message: Any) -> bool:
        if self.endpoint.send(message):
            return True
        until = time.monotonic() + BLOCK_DEADLINE
        while self.endpoint.is_open:
            self.endpoint.flush()
            if not self._waiting.sleep(until, space=True):
                return False
            # progress() is left to the loop: it must see a close and tell the component of it
            if self.endpoint.send(message):
                return True
        return False


class Client(Port):
    """The caller's end: one request, one reply, one at a time."""

    def __init__(self, index: int, name: str, peer: str, endpoint: Endpoint) -> None:
        super().__init__(index, name, peer, endpoint)
        self._waiting = _Waiting(endpoint)
        self.fd = self._waiting.fd

    @property
    def is_open(self) -> bool:
        return self.endpoint.is_open

    def call(self, request: Any, deadline: float = CALL_DEADLINE) -> Any:
        """Sends ``request`` and returns the reply.

        Errors: PeerClosed if the server is not there; PeerStalled if no reply came within ``deadline`` seconds (should
        it come later, it is not taken for the next one's); PeerViolation if the reply breaks the schema.
        """
        if not self.endpoint.send(request):
            raise PeerClosed(f"{self.name}: {self.peer} is not there")
        self.endpoint.flush()
        until = time.monotonic() + deadline
        while True:
            reply = self.endpoint.receive()
            if reply is not None:
                return reply
            if not self.endpoint.peer_is_live:
                raise PeerClosed(f"{self.name}: {self.peer} went away during a call")
            if not self._waiting.sleep(until, space=False):
                raise PeerStalled(f"{self.name}: {self.peer} did not answer within {deadline} s")
