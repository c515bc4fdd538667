"""Carries out what a core yields: calls that nobody stands still for, rests, and the clock.

A call takes as long as it takes (a disk that is slow, ten thousand rules that are parsed): the loop goes on turning
meanwhile, and everything else is answered.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from appliance.guest.ports import Client, PeerClosed, PeerStalled
from appliance.vchan.ring import PeerViolation
from components.config.effects import Ask, Away, Now, Rest, Steps, Time

SLICE: Final = 0.05  # seconds of one turn
_DOZE: Final = 0.004  # seconds that a turn sleeps for a reply, which mostly is there much sooner
_NOTHING: Final = object()


class Runner:
    """One job at a time. ``done(outcome)`` is told what it returned or raised; ``accuse`` is the guest's."""

    def __init__(
        self,
        clients: Mapping[str, Client],
        accuse: Callable[[Any, PeerViolation], None],
        wall: Callable[[], float],
    ) -> None:
        self._clients = clients
        self._accuse = accuse
        self._wall = wall
        self._steps: Steps[Any] | None = None
        self._done: Callable[[Any], None] = lambda outcome: None
        self._asked: tuple[Ask, float] | None = None  # and until when
        self._asked_at = 0.0
        self._reply: Any = _NOTHING
        self._rest = 0.0
        self.asks = 0  # of this job
        self.took: dict[str, float] = {}  # seconds that its calls took, by port

    @property
    def is_busy(self) -> bool:
        """Whether a job is being done."""
        return self._steps is not None

    def start(self, steps: Steps[Any], done: Callable[[Any], None]) -> None:
        """Begins a job; there must be none."""
        assert self._steps is None
        self._steps, self._done = steps, done
        self.asks, self.took = 0, {}
        self._go(None)

    def closed(self, port: str) -> None:
        """The peer of ``port`` is gone, and with it what it was asked."""
        if self._asked is not None and self._asked[0].port == port:
            self._reply = Away(port)

    def turn(self, now: float) -> float | None:
        """Goes on for a while; when to be called again, None if there is nothing to do."""
        until = time.monotonic() + SLICE
        while self._steps is not None:
            if self._asked is not None:
                if self._reply is _NOTHING:
                    self._look(_DOZE)
                if self._reply is _NOTHING:
                    return time.monotonic()
                port = self._asked[0].port
                self.took[port] = self.took.get(port, 0.0) + time.monotonic() - self._asked_at
                reply, self._reply, self._asked = self._reply, _NOTHING, None
                self._go(reply)
            elif time.monotonic() < self._rest:
                return self._rest
            else:
                self._go(None)
            if time.monotonic() >= until:
                return time.monotonic()
        return None

    def call(self, port: str, request: Any) -> Any:
        """A call between the steps of a job, which stands still for it. Errors: Away."""
        until = time.monotonic() + 1.0
        while self._asked is not None and self._asked[0].port == port and self._reply is _NOTHING:
            self._look(_DOZE)  # its reply comes first, and is not lost
            if time.monotonic() >= until:
                raise Away(port)
        client = self._clients[port]
        try:
            return client.call(request)
        except PeerViolation as violation:
            self._accuse(client, violation)
        except (PeerClosed, PeerStalled):
            pass
        raise Away(port)

    def _look(self, seconds: float) -> None:
        assert self._asked is not None
        ask, until = self._asked
        client = self._clients[ask.port]
        try:
            reply = client.look()
            if reply is None and seconds:
                client.doze(seconds)
                reply = client.look()
        except PeerViolation as violation:
            self._accuse(client, violation)
            reply = Away(ask.port)
        except PeerClosed:
            reply = Away(ask.port)
        if reply is not None:
            self._reply = reply
        elif time.monotonic() >= until:
            self._reply = Away(ask.port)

    def _go(self, value: Any) -> None:
        """The next step, and whatever it yields is begun."""
        assert self._steps is not None
        try:
            effect = self._steps.throw(value) if isinstance(value, Away) else self._steps.send(value)
            while isinstance(effect, Time):
                effect = self._steps.send(Now(time.monotonic(), int(self._wall() * 1000)))
        except StopIteration as end:
            self._finish(end.value)
        except Exception as failure:
            self._finish(failure)
        else:
            self._begin(effect)

    def _begin(self, effect: Ask | Rest) -> None:
        if isinstance(effect, Rest):
            self._rest = time.monotonic() + effect.seconds
            return
        self.asks += 1
        self._asked_at = time.monotonic()
        self._asked = effect, self._asked_at + effect.patience
        try:
            self._clients[effect.port].begin(effect.request)
        except PeerClosed:
            self._reply = Away(effect.port)

    def _finish(self, outcome: Any) -> None:
        self._steps = None
        self._done(outcome)
