"""/dev/xen/evtchn: one event channel a descriptor, so that each can be slept on alone.

Source: Linux, include/uapi/xen/evtchn.h and drivers/xen/evtchn.c. A port that has fired is masked, and its number can
be read; it fires again once the number has been written back. The other end may be closed, or its domain gone: then a
notification goes nowhere, and no error comes of it.
"""

from __future__ import annotations

import fcntl
import os
import struct
from typing import Final

from appliance.xen.ioctl import request

DEVICE: Final = "/dev/xen/evtchn"

BIND_INTERDOMAIN: Final = request("E", 1, 8)
BIND_UNBOUND: Final = request("E", 2, 4)
UNBIND: Final = request("E", 3, 4)
NOTIFY: Final = request("E", 4, 4)
RESET: Final = request("E", 5, 0)

PORT: Final = struct.Struct("=I")
_PAIR: Final = struct.Struct("=II")


class EventChannel:
    """A descriptor for one port at a time. Errors of all methods: OSError, as the kernel or Xen refuses."""

    def __init__(self) -> None:
        self.fd = os.open(DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        # In the machine's order, as all calls want it; Python tries an ioctl's argument as something writable first,
        # and makes and drops an exception for what is not, at every notification
        self._port: bytearray | None = None

    @property
    def port(self) -> int | None:
        """The port of this domain, if one is bound."""
        return None if self._port is None else int(PORT.unpack(self._port)[0])

    def offer(self, domid: int) -> int:
        """A new port that only ``domid`` can bind to; returns its number."""
        return self._bind(BIND_UNBOUND, PORT.pack(domid))

    def accept(self, domid: int, port: int) -> int:
        """Binds to what ``domid`` offered to us as ``port``; returns the number of our own end."""
        return self._bind(BIND_INTERDOMAIN, _PAIR.pack(domid, port))

    def _bind(self, code: int, argument: bytes) -> int:
        self.unbind()
        # Of a bytearray, what comes back is the call's result, not the argument's bytes
        port: int = fcntl.ioctl(self.fd, code, bytearray(argument))
        self._port = bytearray(PORT.pack(port))
        return port

    def notify(self) -> None:
        """Wakes the other end, if there is one."""
        if self._port is not None:
            fcntl.ioctl(self.fd, NOTIFY, self._port)

    def hear(self) -> bool:
        """Takes what has fired, so that it can fire anew; False if nothing had."""
        try:
            port = os.read(self.fd, PORT.size)
        except BlockingIOError:
            return False
        os.write(self.fd, port)
        return True

    def unbind(self) -> None:
        """Gives the port up, and what had fired with it."""
        if self._port is not None:
            port, self._port = self._port, None
            fcntl.ioctl(self.fd, UNBIND, port)
            fcntl.ioctl(self.fd, RESET)

    def close(self) -> None:
        os.close(self.fd)
