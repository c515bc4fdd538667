"""nftables as the oracle: one network namespace that forwards between TUN devices, one for each side of the filter.

What is written to one device, the kernel routes, judges by the rules of its forward chain and has put into another
device by the time that the write returns: no waiting, no doubt about which packet an answer belongs to.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
import threading
from collections.abc import Sequence
from typing import Final, NamedTuple

from tests.system.lab.namespace import CLONE_NEWNET, Namespace, run, tool

TUNSETIFF: Final = 0x400454CA  # linux/if_tun.h
IFF_TUN: Final = 0x1
IFF_NO_PI: Final = 0x1000


class Way(NamedTuple):
    """One interface of the oracle: its name, the networks behind it, its own addresses."""

    name: str
    networks: tuple[str, ...]
    addresses: tuple[str, ...]


WAYS: Final = (
    Way("red", ("10.1.0.0/16", "fd01::/64"), ("10.1.255.254/32", "fd01::fffe/128")),
    Way("peer1", ("10.2.0.0/16", "fd02::/64"), ("10.2.255.254/32", "fd02::fffe/128")),
    Way("peer2", ("10.3.0.0/16", "fd03::/64"), ("10.3.255.254/32", "fd03::fffe/128")),
)

_SYSCTLS: Final = (
    "net/ipv4/ip_forward=1",
    "net/ipv6/conf/all/forwarding=1",
    "net/ipv4/conf/all/rp_filter=0",
    "net/ipv4/conf/default/rp_filter=0",
    "net/ipv4/conf/all/send_redirects=0",
    "net/ipv4/conf/default/send_redirects=0",
    "net/ipv4/icmp_ratemask=0",
    "net/ipv6/icmp/ratelimit=0",
    "net/ipv6/conf/default/router_solicitations=0",
    "net/ipv6/conf/default/accept_dad=0",
)


class Seen(NamedTuple):
    """What came out: the interface, and the packet."""

    way: str
    packet: bytes


class Oracle:
    """The namespace, made and removed by ``with``."""

    def __init__(self, name: str = "septum-oracle") -> None:
        self._namespace = Namespace(f"{name}-{os.getpid()}")
        self._fds: dict[str, int] = {}

    def __enter__(self) -> Oracle:
        run("ip", "netns", "add", self._namespace.name)
        try:
            self._build()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _build(self) -> None:
        for pair in _SYSCTLS:
            key, value = pair.split("=")
            self._namespace.run("sh", "-c", f"echo {value} > /proc/sys/{key}")
        for way in WAYS:
            self._fds[way.name] = self._tun(way.name)
            self._namespace.run("ip", "link", "set", way.name, "addrgenmode", "none", "mtu", "65535", "up")
            for address in way.addresses:
                self._namespace.run("ip", "address", "add", address, "dev", way.name)
            for network in way.networks:
                self._namespace.run("ip", "route", "add", network, "dev", way.name)
        self.load("")

    def __exit__(self, *_: object) -> None:
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()
        run("ip", "netns", "delete", self._namespace.name)

    def _tun(self, name: str) -> int:
        """A TUN device of this namespace: opened by a thread that entered it."""
        made: list[int | OSError] = []

        def make() -> None:
            try:
                with open(self._namespace.path, "rb") as file:
                    if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), CLONE_NEWNET):
                        raise OSError(ctypes.get_errno(), "setns")
                fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
                fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
                made.append(fd)
            except OSError as error:
                made.append(error)

        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        if isinstance(made[0], OSError):
            raise made[0]
        return made[0]

    def load(self, script: str) -> None:
        """Replaces all rules and forgets all flows. Errors: LabError if nft refuses the script."""
        self._namespace.run(
            "sh", "-c", f"{tool('nft')} -f - && {tool('conntrack')} -F 2>/dev/null", stdin=f"flush ruleset\n{script}"
        )
        for fd in self._fds.values():
            self._drain(fd)

    @staticmethod
    def _drain(fd: int) -> list[bytes]:
        packets = []
        while True:
            try:
                packets.append(os.read(fd, 65535))
            except BlockingIOError:
                return packets

    def pass_through(self, way: str, packets: Sequence[bytes]) -> list[Seen]:
        """What comes out, where, when ``packets`` come in by ``way``. What the kernel says by itself is left out."""
        for packet in packets:
            os.write(self._fds[way], packet)
        return [
            Seen(name, packet)
            for name, fd in self._fds.items()
            for packet in self._drain(fd)
            if not _is_housekeeping(packet)
        ]


def _is_housekeeping(packet: bytes) -> bool:
    """Multicast listener reports and the like, which the kernel sends to multicast groups."""
    return packet[0] >> 4 == 6 and packet[24] == 0xFF
