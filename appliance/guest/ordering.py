"""Calls the wrong way round: the caller asks what to do next, and says with it what became of the last order.

For a domain that must be the server of a channel, since it grants the memory, and yet wants something of its peer. One
order at a time, and it is waited for: who gives it has nothing else to do meanwhile, and its heart goes on beating.
"""

from __future__ import annotations

import select
import time
from typing import TYPE_CHECKING, Any, Final

from appliance.guest.ports import PeerClosed, PeerStalled, Port
from appliance.vchan.ring import PeerViolation

if TYPE_CHECKING:
    from appliance.guest.loop import Guest

DEADLINE: Final = 30.0  # seconds that an order may take: a disk that syncs is slow at times
_BEAT: Final = 0.5


class Orderer:
    """The server's end of ``port``. One of the sources of the loop: ``guest.drive(port, Orderer)``."""

    def __init__(self, guest: Guest, port: Port) -> None:
        self._guest = guest
        self._port = port
        self._is_asked = False
        self.sessions = 0
        """How often somebody has come to ask: what an earlier one did not finish is finished by nobody."""
        self._epoll = select.epoll(1)
        self._epoll.register(port.endpoint.fileno(), select.EPOLLIN | select.EPOLLET)
        self.kept = (self._epoll.fileno(),)

    @property
    def is_ready(self) -> bool:
        """Whether somebody waits for an order, and has not gone since."""
        return self._is_asked and self._port.endpoint.peer_is_live

    def turn(self, now: float) -> Any:
        """Hears the first question of a session; the others come with what became of an order."""
        from appliance.guest.loop import Turn

        try:
            if self._port.endpoint.receive() is not None:
                if self._is_asked:
                    raise PeerViolation("asks again before it was told anything")
                self._is_asked = self._guest.has_worked = True
                self.sessions += 1
        except PeerViolation as violation:
            self._guest.accuse(self._port, violation)
        return Turn.IDLE

    def arm(self) -> bool:
        return self._guest.arm(self._port)

    def closed(self, now: float) -> None:
        """Whoever asked is gone."""
        self._is_asked = False

    def order(self, order: Any, seconds: float = DEADLINE) -> Any:
        """What became of ``order``. Errors: PeerClosed; PeerStalled; PeerViolation. It is then not known whether it was
        carried out.
        """
        endpoint = self._port.endpoint
        is_asked, self._is_asked = self._is_asked, False
        if not is_asked or not endpoint.send(order):
            raise PeerClosed(f"{self._port.name}: {self._port.peer} is not there")
        endpoint.flush()
        until = time.monotonic() + seconds
        while (done := endpoint.receive()) is None:
            left = until - time.monotonic()
            if not endpoint.peer_is_live:
                raise PeerClosed(f"{self._port.name}: {self._port.peer} went away with an order")
            if left <= 0:
                raise PeerStalled(f"{self._port.name}: {self._port.peer} was not done within {seconds:g} s")
            self._guest.beat()
            if endpoint.arm(space=False):
                self._epoll.poll(min(left, _BEAT), 1)
            endpoint.disarm()
        self._is_asked = True
        return done
