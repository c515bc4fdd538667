"""Real TUNs in a network namespace of their own: the kernel as the oracle of what a packet should look like."""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import struct
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000
_TUNSETIFF = 0x400454CA
_TUNSETOFFLOAD = 0x400454D0
_IFF_TUN_NO_PI_VNET_HDR = 0x0001 | 0x1000 | 0x4000
OFFLOADS = 0x01 | 0x02 | 0x04 | 0x08 | 0x20 | 0x40  # checksum, TSO 4 and 6, ECN, USO 4 and 6

_libc = ctypes.CDLL(None, use_errno=True)


class Net:
    """A network namespace: it is where its one thread is. Sockets and TUNs made by ``do`` belong to it for life."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)
        self.do(self._unshare)
        self.ip("link set lo up")

    @staticmethod
    def _unshare() -> None:
        if _libc.unshare(_CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "unshare of the network")

    def do(self, function: Callable[[], T]) -> T:
        return self._thread.submit(function).result()

    def ip(self, arguments: str) -> None:
        path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
        self.do(lambda: subprocess.run(["ip", *arguments.split()], check=True, env={"PATH": path}))

    def sysctl(self, name: str, value: int) -> None:
        self.do(lambda: Path("/proc/sys/net", name).write_text(str(value)))

    def tun(self, name: str, offloads: int, *addresses: str, mtu: int = 1500) -> int:
        """A non-blocking TUN with IFF_VNET_HDR, up, with those addresses."""

        def make() -> int:
            fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN_NO_PI_VNET_HDR))
            fcntl.ioctl(fd, _TUNSETOFFLOAD, offloads)
            return fd

        fd = self.do(make)
        self.sysctl(f"ipv6/conf/{name}/router_solicitations", 0)
        self.sysctl(f"ipv6/conf/{name}/addr_gen_mode", 1)
        self.ip(f"link set dev {name} mtu {mtu} up")
        for address in addresses:
            self.ip(f"addr add {address} dev {name}" + (" nodad" if ":" in address else ""))
        return fd

    def close(self) -> None:
        self._thread.shutdown()


def read_all(fd: int, quiet: float = 0.05, most: float = 5.0) -> list[bytes]:
    """What comes out of a TUN until it has been quiet for a while."""
    reads = []
    until = time.monotonic() + most
    while time.monotonic() < until and select.select([fd], [], [], quiet)[0]:
        reads.append(os.read(fd, 65600))
    return reads
