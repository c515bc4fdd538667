"""What a transport gives a vchan: memory shared with the peer, an event to sleep on, and a way to wake the peer."""

from __future__ import annotations

from typing import Protocol


class Wire(Protocol):
    """One end's attachment. Closed with the process that holds it."""

    @property
    def memory(self) -> memoryview:
        """The shared pages: writable bytes, ``layout.size(orders)`` of them, the same at both ends."""

    def fileno(self) -> int:
        """To be waited for edge-triggered (EPOLLET), and never read but by ``hear``."""

    def notify(self) -> None:
        """Wakes the peer. Never blocks; notifying a peer that is awake, or gone, does nothing.

        May take down in ``memory`` what the peer asked to be woken for: who sleeps again asks again (decision 2).
        """

    def hear(self) -> None:
        """Awake: takes note of the notifications so far. Each one behind it makes ``fileno`` readable anew."""
