"""Xen's control interface, for dom0: libxenctrl, which knows how to ask the Xen that it came with.

What needs more than a question or a single order is xl's work (appliance/monitor/xen/xl.py).
"""

from __future__ import annotations

import ctypes
import glob
import os
from typing import Any, Final

_PLACE: Final = "/usr/lib/x86_64-linux-gnu/libxenctrl.so.4.*"
_HARD: Final = 1  # XEN_VCPUAFFINITY_HARD (xen, include/public/domctl.h)


class Control:
    """An open interface. Errors of all methods: OSError; of the constructor too, if this is no dom0 of Xen."""

    def __init__(self) -> None:
        found = sorted(glob.glob(_PLACE))
        if not found:
            raise FileNotFoundError("libxenctrl is missing: apt-get install xen-utils")
        self.library: Any = ctypes.CDLL(found[-1], use_errno=True)
        self.library.xc_interface_open.restype = ctypes.c_void_p
        self.handle = ctypes.c_void_p(self.library.xc_interface_open(None, None, 0))
        if not self.handle:
            raise OSError(ctypes.get_errno(), "Xen's control interface cannot be opened: is this dom0, and root?")

    def close(self) -> None:
        self.library.xc_interface_close(self.handle)

    def unpause(self, domid: int) -> None:
        """Lets a guest run: all that libxl does for one without a device model (libxl_domain_unpause)."""
        self._order("unpause", domid)

    def pause(self, domid: int) -> None:
        """Stops a guest, at once and for as long as nobody lets it go."""
        self._order("pause", domid)

    def machine_cpus(self) -> int:
        """How many physical CPUs there are, from 0 on."""
        count = int(self.library.xc_get_max_cpus(self.handle))
        if count <= 0:
            number = ctypes.get_errno()
            raise OSError(number, f"Xen does not say how many CPUs it has: {os.strerror(number)}")
        return count

    def cpus(self, domid: int) -> frozenset[int]:
        """The physical CPUs that the first virtual one of a guest may run on: its hard affinity."""
        size = self.library.xc_get_cpumap_size(self.handle)
        hard, soft = (ctypes.create_string_buffer(max(size, 1)) for _ in range(2))
        if self.library.xc_vcpu_getaffinity(self.handle, ctypes.c_uint32(domid), 0, hard, soft, _HARD):
            number = ctypes.get_errno()
            raise OSError(number, f"Xen does not say where domain {domid} runs: {os.strerror(number)}")
        return frozenset(8 * at + bit for at, byte in enumerate(hard.raw) for bit in range(8) if byte >> bit & 1)

    def _order(self, what: str, domid: int) -> None:
        if getattr(self.library, f"xc_domain_{what}")(self.handle, ctypes.c_uint32(domid)):
            number = ctypes.get_errno()
            raise OSError(number, f"Xen does not {what} domain {domid}: {os.strerror(number)}")
