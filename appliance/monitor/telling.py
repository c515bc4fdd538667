"""What the monitor tells the domain that speaks for the box, and the one thing that this domain may ask of it.

Once a second the state of the box is written where the domain can read it. The domain can ask for one of the domains to
be built anew, by its number: few times an hour, and none again soon, so that a hostile one can keep nobody away. It
says nothing else, and the monitor parses nothing of it.
"""

from __future__ import annotations

import fcntl
import json
import mmap
import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from appliance.guest import boxpage

DEVICES: Final = frozenset({"box", "orders"})
PERIOD: Final = 1.0  # seconds
MOST_ORDERS: Final = 6  # in `WINDOW`
WINDOW: Final = 3600.0  # seconds
AGAIN: Final = 600.0  # seconds between two orders for one domain
_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
_FUTURE_WRITE: Final = 0x10  # F_SEAL_FUTURE_WRITE, linux/fcntl.h: Linux 5.1


class Telling:
    """The two pages. ``devices`` are what the domain is handed: one that can only be read, one to write to.

    ``tell`` makes what is told; ``names`` are the domains in the order in which it lists them.
    """

    def __init__(self, names: Sequence[str], tell: Callable[[], Mapping[str, Any]]) -> None:
        self._names = tuple(names)
        self._tell = tell
        self._orders_given = 0
        self._obeyed: deque[float] = deque(maxlen=MOST_ORDERS)
        self._last: dict[str, float] = {}
        self._due = 0.0
        box, self._box = _shared("septum-box", boxpage.BOX_BYTES)
        orders, self._orders = _shared("septum-orders", boxpage.ORDERS_BYTES)
        try:
            # Another open file: the domain's end of it cannot be written, whoever holds it. Nor can what is opened by
            # way of it: the mapping that was made already is the last one to write to
            fcntl.fcntl(box, fcntl.F_ADD_SEALS, _FUTURE_WRITE)
            readable = os.open(f"/proc/self/fd/{box}", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            os.close(box)
        self.devices = {"box": readable, "orders": orders}

    def turn(self, now: float) -> str | None:
        """Tells what there is to tell, a second after the last time; the domain that is to be built anew, if any."""
        if now >= self._due:
            self._due = now + PERIOD
            boxpage.write(self._box, json.dumps(self._tell(), separators=(",", ":")).encode())
        untrusted_count, untrusted_number = boxpage.ordered(self._orders)
        if untrusted_count == self._orders_given:
            return None
        self._orders_given = untrusted_count
        if untrusted_number >= len(self._names):
            return None
        if len(self._obeyed) == MOST_ORDERS and now - self._obeyed[0] < WINDOW:
            return None
        name = self._names[untrusted_number]
        if name in self._last and now - self._last[name] < AGAIN:
            return None
        self._obeyed.append(now)
        self._last[name] = now
        return name

    def close(self) -> None:
        for fd in self.devices.values():
            os.close(fd)
        self.devices.clear()


def _shared(name: str, size: int) -> tuple[int, memoryview]:
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    return fd, memoryview(mmap.mmap(fd, size))
