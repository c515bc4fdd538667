"""A box in line: a network that is cut in two, and the two ends of the cut in a namespace of their own.

    inside.eth0 ── lan0 [ box ] wan0 ── outside.eth0

IPv4 and IPv6, one prefix on both sides. The box itself has no address.
"""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self, TypeVar

from .capture import read_pcap
from .conf import Conf, Keys
from .ends.end import wait_for
from .ends.septum import REPOSITORY, Septum
from .namespace import Namespace, stop
from .topology import Site, World, switch_offloads_off, veth

T = TypeVar("T")


class Line(World):
    """The two halves, and the namespace of the box between them."""

    inside4, outside4 = "192.168.9.2", "192.168.9.1"
    inside6, outside6 = "fd00:9::2", "fd00:9::1"

    def _namespace(self, role: str) -> Namespace:
        namespace = super()._namespace(role)
        namespace.sysctl(ipv6__conf__all__accept_dad=0, ipv6__conf__default__accept_dad=0)
        return namespace

    def _build(self) -> None:
        self.inside, self.box, self.outside = map(self._namespace, ("inside", "box", "outside"))
        for end, face, addresses in (
            (self.inside, "lan0", (f"{self.inside4}/24", f"{self.inside6}/64")),
            (self.outside, "wan0", (f"{self.outside4}/24", f"{self.outside6}/64")),
        ):
            veth(self.box, face, end, "eth0")
            for address in addresses:
                end.run("ip", "address", "add", address, "dev", "eth0", *(["nodad"] if ":" in address else []))
            if self.plain_nic:
                for namespace, interface in ((self.box, face), (end, "eth0")):
                    switch_offloads_off(namespace, interface)


class Bridge(Septum):
    """The transparent filter in a line, by `septum up filter.toml`; with rules of its own if any are given."""

    kind = "bridge"

    def __init__(self, line: Line, rules: str = "") -> None:
        site = Site("line", 9, line.box, line.inside)
        super().__init__(site, Conf(Keys("", ""), [], []))
        self._rules = rules

    def start(self) -> None:
        more: tuple[str, ...] = ()
        if self._rules:
            file = self.directory / "own.rules"
            file.write_text(self._rules)
            more = ("--rules", str(file))
        assembly = str(REPOSITORY / "assemblies" / "filter.toml")
        self.up(assembly, "--lan", self.site.lan, "--wan", self.site.wan, *more)


class KernelBridge:
    """What a bridge of Linux makes of the same line, to compare with."""

    def __init__(self, line: Line) -> None:
        self._box = line.box

    def __enter__(self) -> Self:
        self._box.run("ip", "link", "add", "br0", "type", "bridge", "mcast_snooping", "0")
        for face in ("lan0", "wan0"):
            self._box.run("ip", "link", "set", face, "master", "br0", "up")
        self._box.run("ip", "link", "set", "br0", "up")
        return self

    def __exit__(self, *why: object) -> None:
        self._box.run("ip", "link", "delete", "br0")


@contextlib.contextmanager
def listening(namespace: Namespace, interface: str = "eth0", length: int = 256) -> Iterator[Heard]:
    """All frames that come in at an interface, VLAN tags and all: ask when the block has ended."""
    with tempfile.TemporaryDirectory(prefix="septum-heard-") as directory:
        path = Path(directory) / "heard.pcap"
        command = ["dumpcap", "-P", "-i", interface, "-w", str(path), "-s", str(length), "-q"]
        process = namespace.start(*command, stderr=subprocess.DEVNULL)
        heard = Heard()
        try:
            wait_for("dumpcap to open its file", lambda: path.exists() and path.stat().st_size >= 24)
            yield heard
            heard.settle(path)
        finally:
            stop(process)
        heard.timed = list(read_pcap(path.read_bytes()))


class Heard:
    """Frames as they were on the wire."""

    def __init__(self) -> None:
        self.timed: list[tuple[float, bytes]] = []

    @property
    def frames(self) -> list[bytes]:
        return [frame for _, frame in self.timed]

    @staticmethod
    def settle(path: Path) -> None:
        size = -1
        while size != (size := path.stat().st_size):
            time.sleep(0.6)  # dumpcap looks every quarter of a second

    def count(self, marker: bytes) -> int:
        """In how many frames the marker can be read."""
        return sum(marker in frame for frame in self.frames)
