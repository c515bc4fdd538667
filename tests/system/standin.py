"""A component for tests of the monitor: nodes in a ring, each sends records to the next and behaves as it is told.

The domain is real: booted, sealed and supervised as every other. Only what it does is made up.
"""

from __future__ import annotations

import os
import signal

from septum.v1.records import Record

from appliance.guest.loop import Guest
from appliance.guest.ports import DroppingOut
from appliance.guest.status import WORD_VIOLATIONS

BEAT = 0.02  # seconds between two records
PATIENCE = 0.3  # seconds of good behaviour before a node shows what it is


class Node:
    """``build`` makes one of a guest; ``settings["behaviour"]`` names a method."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self.out: DroppingOut = guest.out("out")
        self.next = 0.0
        self.until: float | None = None
        self.misbehave = getattr(self, str(guest.settings["behaviour"]))
        for event in ("opened", "closed", "received", "sent"):
            setattr(self, event, guest.counter(event))
        guest.receive("in", lambda message, now: self.received.add())  # type: ignore[attr-defined]
        guest.on_open("in", lambda now: self.opened.add())  # type: ignore[attr-defined]
        guest.on_close("in", lambda now: self.closed.add())  # type: ignore[attr-defined]
        guest.timer(self.beat)

    def beat(self, now: float) -> float:
        if self.until is None:
            self.until = now + PATIENCE
        if now >= self.until:
            self.misbehave()
        if now >= self.next:
            self.next = now + BEAT
            if self.out.send(Record(severity=6, event="beat", text="")):
                self.sent.add()  # type: ignore[attr-defined]
        return self.next

    def steady(self) -> None:
        """As it should be."""

    def raises(self) -> None:
        raise RuntimeError("so \x1b[31mangry")

    def opens(self) -> None:
        os.open("/etc/passwd", os.O_RDONLY)

    def spins(self) -> None:
        while True:
            pass

    def accuses(self) -> None:
        """A weapon: says of its peer, which did nothing, that it broke the protocol. Again and again."""
        page = self.guest._page
        (page.pardon if page.words[WORD_VIOLATIONS] else page.accuse)(0)
        self.until = None  # the monitor looks more often than that, and sees both

    def nonsense(self) -> None:
        """Accuses a peer at a port that it does not have."""
        self.guest._page.accuse(40)

    def pretends(self) -> None:
        """A status page that says what no running domain says."""
        self.guest._page.words[1] = 77

    def scribbles(self) -> None:
        """More in the ring than the ring can hold: the peer must notice."""
        words = self.guest._ports["out"][0].endpoint._vchan._words  # type: ignore[attr-defined]
        words[1] = 0xDEAD_BEEF


def build(guest: Guest) -> None:
    if guest.settings["behaviour"] == "unborn":
        raise ValueError("this one is not to be")
    if guest.settings["behaviour"] == "stillborn":
        os.kill(os.getpid(), signal.SIGSTOP)
    Node(guest)
