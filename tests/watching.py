"""What the box's loop is to the control socket: descriptors with what is to be done when they are ready."""

from __future__ import annotations

import select
from collections.abc import Callable


class Watching:
    """``watch`` and ``forget`` are for a ControlServer."""

    def __init__(self) -> None:
        self._poll = select.epoll()
        self._callbacks: dict[int, Callable[[], None]] = {}

    def watch(self, fd: int, callback: Callable[[], None], events: int = select.EPOLLIN) -> None:
        self._callbacks[fd] = callback
        self._poll.register(fd, events)

    def forget(self, fd: int) -> None:
        del self._callbacks[fd]
        self._poll.unregister(fd)

    def __len__(self) -> int:
        return len(self._callbacks)

    def turn(self, seconds: float) -> int:
        """Waits so long at most, and does what is due. How many descriptors were ready."""
        ready = self._poll.poll(seconds)
        for fd, _ in ready:
            if fd in self._callbacks:  # an earlier one may have closed it
                self._callbacks[fd]()
        return len(ready)

    def close(self) -> None:
        self._poll.close()
