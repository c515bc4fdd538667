"""Calls that nobody waits for: a caller's end whose replies come to a handler, for a domain that serves many at once.

A channel of calls carries one question at a time; the others stand in a queue here. Whoever asks hears one of three
things, once: the reply, PeerClosed, or PeerStalled after the question's own deadline.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from appliance.guest.ports import Client, PeerClosed, PeerStalled
from appliance.vchan.ring import PeerViolation

if TYPE_CHECKING:
    from appliance.guest.loop import Guest

MOST_QUESTIONS: Final = 1024
DEADLINE: Final = 5.0  # seconds from the moment it is its turn

Answer = Any | PeerClosed | PeerStalled


class _Question(NamedTuple):
    request: Any
    then: Callable[[Answer], None]
    seconds: float


class Asker:
    """The caller's end of ``port``. One of the sources of the loop."""

    def __init__(self, guest: Guest, port: Client) -> None:
        self._guest = guest
        self._port = port
        self._questions: deque[_Question] = deque()
        self._asked: _Question | None = None
        self._until = 0.0
        self._now = 0.0
        self.fd = port.endpoint.fileno()

    def ask(self, request: Any, then: Callable[[Answer], None], seconds: float = DEADLINE) -> None:
        """``then(answer)`` once, never from within this call. Errors: ValueError if the request breaks its schema."""
        self._questions.append(_Question(request, then, seconds))
        self._guest.soon()

    def turn(self, now: float) -> Any:
        """A reply, if there is one, and the next question."""
        from appliance.guest.loop import Turn

        self._now = now
        try:
            reply = self._port.endpoint.receive()
        except PeerViolation as violation:
            self._guest.accuse(self._port, violation)  # which closes the port, and so answers
            return Turn.IDLE
        if reply is not None:
            self._guest.has_worked = True
            self._settle(reply)
        self.timer(now)
        return Turn.IDLE if reply is None else Turn.MORE

    def arm(self) -> bool:
        return self._guest.arm(self._port)

    def closed(self, now: float) -> None:
        """The peer is gone: who has asked hears so."""
        self._settle(PeerClosed(f"{self._port.name}: {self._port.peer} went away during a call"))

    def timer(self, now: float) -> float | None:
        """Asks the next question, gives up an old one."""
        self._now = now
        if self._asked is not None and now >= self._until:
            self._settle(PeerStalled(f"{self._port.name}: {self._port.peer} did not answer in time"))
        while self._asked is None and self._questions:
            question = self._questions.popleft()
            if len(self._questions) >= MOST_QUESTIONS:
                question.then(PeerStalled(f"{self._port.name}: too many questions wait for {self._port.peer}"))
            elif self._port.endpoint.send(question.request):
                self._asked, self._until = question, now + question.seconds
            else:
                question.then(PeerClosed(f"{self._port.name}: {self._port.peer} is not there"))
        return self._until if self._asked is not None else None

    def _settle(self, answer: Answer) -> None:
        asked, self._asked = self._asked, None
        if asked is not None:
            asked.then(answer)
