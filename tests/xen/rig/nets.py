"""Two namespaces on the host, lan and wan. In each, the interface tap0 is the far end of one of the machine's network
cards."""

from __future__ import annotations

import ctypes
import fcntl
import os
import re
import struct
import threading
from pathlib import Path
from typing import Final

from tests.system.lab.namespace import CLONE_NEWNET, Namespace, run

PREFIX: Final = "septumxen"
TAP: Final = "tap0"
_NAME: Final = re.compile(rf"{PREFIX}-(\d+)-\w+")
_TUNSETIFF: Final = 0x400454CA
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR = 0x0002, 0x1000, 0x4000  # linux/if_tun.h
_libc = ctypes.CDLL(None, use_errno=True)


def make(side: str) -> Namespace:
    """A namespace of this process, with its loopback up. Those of processes that are gone go too."""
    for line in run("ip", "netns", "list").splitlines():
        found = _NAME.match(line)
        if found and not Path(f"/proc/{found[1]}").exists():
            remove(Namespace(found[0]))
    space = Namespace(f"{PREFIX}-{os.getpid()}-{side}")
    run("ip", "netns", "add", space.name)
    space.run("ip", "link", "set", "lo", "up")
    return space


def remove(space: Namespace) -> None:
    run("ip", "netns", "del", space.name, check=False)


def tap(space: Namespace) -> int:
    """A descriptor of a new TAP interface inside ``space``, up; the interface lives as long as somebody holds it.

    Errors: OSError.
    """
    made: list[int | OSError] = []

    def enter() -> None:
        try:
            with open(space.path, "rb") as file:
                if _libc.setns(file.fileno(), CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), f"setns {space.name}")
            device = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
            flags = _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR
            fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", TAP.encode(), flags))
            made.append(device)
        except OSError as error:
            made.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    (result,) = made
    if isinstance(result, OSError):
        raise result
    space.run("ip", "link", "set", TAP, "up")
    return result
