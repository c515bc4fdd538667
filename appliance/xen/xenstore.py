"""The xenstore of this domain, over /dev/xen/xenbus: a few dozen lines of shell around xswire.py.

Requests are made one at a time and answered within a deadline; events that come meanwhile wait in ``events``. Paths
that do not begin with a slash are below the domain's own home. In a guest it is all that comes from dom0, which may do
as it likes with us anyway: values are bounded here and checked by whoever reads them, since what stands in a peer's
``data/`` is the peer's.
"""

from __future__ import annotations

import errno
import os
import select
import time
from collections import deque
from collections.abc import Sequence
from typing import Final

from appliance.xen.xswire import Conversation, Event, Kind, XenstoreFault, message

DEVICE: Final = "/dev/xen/xenbus"
# dom0 may be busy; whoever must not stand still for so long has a monitor that sees to it
DEADLINE: Final = 60.0  # seconds
_READ: Final = 4096
_PIECES: Final = 16  # at one go: whoever else writes must not keep us reading


class Xenstore:
    """A connection of its own: its watches end with it. ``fileno`` is readable when events may have come.

    Errors of all methods: OSError as the xenstore names it (ENOENT, EACCES, EQUOTA as ENOSPC…), TimeoutError, which is
    one; XenstoreFault.
    """

    def __init__(self, device: str = DEVICE, deadline: float = DEADLINE) -> None:
        self._fd = os.open(device, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._deadline = deadline
        self._number = 0
        self._talk = Conversation()
        self._epoll = select.epoll(1)
        self._epoll.register(self._fd, select.EPOLLIN)

    def fileno(self) -> int:
        return self._fd

    def file_descriptors(self) -> tuple[int, int]:
        """Both that it goes on using, for a seal to keep."""
        return self._fd, self._epoll.fileno()

    def close(self) -> None:
        self._epoll.close()
        os.close(self._fd)

    @property
    def events(self) -> deque[Event]:
        """What the watches said so far. Whoever looks takes them."""
        return self._talk.events

    def hear(self) -> bool:
        """Reads what has come, without waiting. True: so much has come that there may be more."""
        for _ in range(_PIECES):
            try:
                data = os.read(self._fd, _READ)
            except BlockingIOError:
                return False
            if not data:
                raise XenstoreFault("the connection has ended")
            self._talk.feed(data)
        return True

    def _ask(self, kind: Kind, *parts: str, tail: str | None = None) -> bytes:
        self._number = self._number % 0xFFFF_FFFE + 1  # events have 0
        number = self._number
        request = message(kind, number, *parts, tail=tail)
        until = time.monotonic() + self._deadline
        self._talk.expect(number)
        try:
            os.write(self._fd, request)
            while True:
                self.hear()
                reply = self._talk.reply(kind, number)
                if reply is not None:
                    return reply
                left = until - time.monotonic()
                if left <= 0.0:
                    raise TimeoutError(errno.ETIMEDOUT, f"xenstore: no answer within {self._deadline:g} s")
                self._epoll.poll(left, 1)
        finally:
            self._talk.give_up(number)

    # what is asked --------------------------------------------------------------------------------------------------

    def read(self, path: str) -> str | None:
        """The value, or None if there is no such path. A value is bytes; these are shown as latin-1."""
        try:
            return self._ask(Kind.READ, path).decode("latin-1")
        except FileNotFoundError:
            return None

    def write(self, path: str, value: str) -> None:
        self._ask(Kind.WRITE, path, tail=value)

    def mkdir(self, path: str) -> None:
        self._ask(Kind.MKDIR, path)

    def remove(self, path: str) -> None:
        """Removes the path and all below it; one that is not there is removed already."""
        try:
            self._ask(Kind.RM, path)
        except FileNotFoundError:
            return

    def directory(self, path: str) -> list[str]:
        """The names below ``path``. Errors: OSError E2BIG for more than one message holds."""
        return [name for name in self._ask(Kind.DIRECTORY, path).decode("latin-1").split("\0") if name]

    def permissions(self, path: str) -> list[str]:
        """As ``set_permissions`` takes them."""
        return [entry for entry in self._ask(Kind.GET_PERMS, path).decode("latin-1").split("\0") if entry]

    def set_permissions(self, path: str, entries: Sequence[str]) -> None:
        """``entries`` are a letter (n, r, w, b) and a domain: the owner first, with what all others may; then some."""
        self._ask(Kind.SET_PERMS, path, *entries)

    def watch(self, path: str, token: str) -> None:
        """From now on, and once at once, ``events`` tells of ``path`` and all below it that this domain may read."""
        self._ask(Kind.WATCH, path, token)

    def unwatch(self, path: str, token: str) -> None:
        """Events that came before stay. A watch that is not there is ended already."""
        try:
            self._ask(Kind.UNWATCH, path, token)
        except FileNotFoundError:
            return

    def is_introduced(self, domid: int) -> bool:
        """Whether the xenstore knows the domain: from its building to its end."""
        return self._ask(Kind.IS_DOMAIN_INTRODUCED, str(domid)).startswith(b"T")

    def home(self, domid: int) -> str:
        """The path of a domain's home, whether or not there is such a domain."""
        return self._ask(Kind.GET_DOMAIN_PATH, str(domid)).rstrip(b"\0").decode("latin-1")
