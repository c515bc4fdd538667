"""The world in a box: two sites or three, each a gateway with a LAN host behind it, joined by a WAN.

    left.host ── lan0 ── left.gateway ── wan0 ──┐
                                                 bridge in the WAN namespace (captures are taken here)
    right.host ── lan0 ── right.gateway ── wan0 ─┘

IPv4 and IPv6 everywhere. Nothing of it is seen by the machine: every interface lives inside its namespaces.
"""

from __future__ import annotations

import abc
import contextlib
import os
import re
import secrets
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from .namespace import Namespace, run

PREFIX = "septumlab"
_NAME = re.compile(rf"{PREFIX}-(\d+)-[0-9a-f]+-\w+")
BRIDGE = "br0"
T = TypeVar("T")

# What a plain network card does for us is nothing: every packet crosses the veth on its own.
OFFLOADS = ("tso", "gso", "gro", "tx-udp-segmentation", "tx-gso-list", "rx-gro-list", "rx-udp-gro-forwarding")


@dataclass(frozen=True)
class Site:
    """One side of the tunnel: the gateway's namespace, its two interfaces, the host on its LAN, every address."""

    name: str
    number: int
    gateway: Namespace
    host: Namespace
    lan: str = "lan0"
    wan: str = "wan0"

    @property
    def wan4(self) -> str:
        return f"203.0.113.{self.number}"

    @property
    def wan6(self) -> str:
        return f"2001:db8:113::{self.number}"

    @property
    def lan4(self) -> str:
        """The gateway's address on the LAN."""
        return f"192.168.{self.number}.1"

    @property
    def lan6(self) -> str:
        return f"fd00:{self.number}::1"

    @property
    def host4(self) -> str:
        return f"192.168.{self.number}.2"

    @property
    def host6(self) -> str:
        return f"fd00:{self.number}::2"

    @property
    def tunnel4(self) -> str:
        return f"10.77.0.{self.number}"

    @property
    def tunnel6(self) -> str:
        return f"fd77::{self.number}"

    @property
    def networks(self) -> list[str]:
        """All that lies behind this site: what the other one routes into the tunnel."""
        return [f"192.168.{self.number}.0/24", f"fd00:{self.number}::/64", f"{self.tunnel4}/32", f"{self.tunnel6}/128"]


class World(abc.ABC):
    """Namespaces, built on entry and removed with all that runs in them on exit, whatever happened in between."""

    def __init__(self, plain_nic: bool = False) -> None:
        self.plain_nic = plain_nic
        self._id = f"{PREFIX}-{os.getpid()}-{secrets.token_hex(2)}"
        self._namespaces: list[Namespace] = []
        self._exits = contextlib.ExitStack()

    def __enter__(self) -> Self:
        remove_leftovers()
        try:
            self._build()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._exits.close()
        finally:
            self._remove()

    @abc.abstractmethod
    def _build(self) -> None: ...

    def enter(self, manager: contextlib.AbstractContextManager[T]) -> T:
        """Enters a context that ends before the world does: a tunnel end, a capture, a server."""
        return self._exits.enter_context(manager)

    def _namespace(self, role: str) -> Namespace:
        namespace = Namespace(f"{self._id}-{role}")
        run("ip", "netns", "add", namespace.name)
        self._namespaces.append(namespace)
        namespace.run("ip", "link", "set", "lo", "up")
        return namespace

    def _remove(self) -> None:
        for namespace in self._namespaces:
            remove(namespace)
        self._namespaces.clear()


class Lab(World):
    """Two sites or three, joined by a WAN.

    `plain_nic` switches the offloads of the WAN off: each datagram crosses it alone, as on a cheap network card. With
    them on, the WAN carries superpackets of many datagrams, and a capture shows only the first of each. The third of
    three `sites` is called far.
    """

    def __init__(self, plain_nic: bool = False, sites: int = 2) -> None:
        super().__init__(plain_nic)
        self._names = ("left", "right", "far")[:sites]

    def _build(self) -> None:
        self.wan = self._namespace("wan")
        self.wan.run("ip", "link", "add", BRIDGE, "type", "bridge", "mcast_snooping", "0")
        self.wan.run("ip", "link", "set", BRIDGE, "up")
        self.sites = [
            Site(name, number, self._namespace(f"{name}gw"), self._namespace(f"{name}host"))
            for number, name in enumerate(self._names, 1)
        ]
        self.left, self.right = self.sites[:2]
        for site in self.sites:
            self._plug(site)

    def _plug(self, site: Site) -> None:
        quiet = {"ipv6__conf__all__accept_dad": 0, "ipv6__conf__default__accept_dad": 0}
        site.host.sysctl(**quiet)
        site.gateway.sysctl(**quiet, ipv4__ip_forward=1, ipv6__conf__all__forwarding=1)
        port = f"to{site.name}"
        veth(site.gateway, site.wan, self.wan, port)
        veth(site.gateway, site.lan, site.host, "eth0")
        self.wan.run("ip", "link", "set", port, "master", BRIDGE)
        for namespace, interface, *addresses in (
            (site.gateway, site.wan, f"{site.wan4}/24", f"{site.wan6}/64"),
            (site.gateway, site.lan, f"{site.lan4}/24", f"{site.lan6}/64"),
            (site.host, "eth0", f"{site.host4}/24", f"{site.host6}/64"),
        ):
            for address in addresses:
                namespace.run("ip", "address", "add", address, "dev", interface, *(["nodad"] if ":" in address else []))
        site.host.run("ip", "route", "add", "default", "via", site.lan4)
        site.host.run("ip", "-6", "route", "add", "default", "via", site.lan6)
        if self.plain_nic:
            for namespace, interface in ((site.gateway, site.wan), (self.wan, port)):
                switch_offloads_off(namespace, interface)


def veth(a: Namespace, a_interface: str, b: Namespace, b_interface: str) -> None:
    run("ip", "link", "add", a_interface, "netns", a.name, "type", "veth", "peer", "name", b_interface, "netns", b.name)
    a.run("ip", "link", "set", a_interface, "up")
    b.run("ip", "link", "set", b_interface, "up")


def switch_offloads_off(namespace: Namespace, interface: str) -> None:
    """Features that this kernel's veth does not know are skipped; the one that matters must be off afterwards."""
    for feature in OFFLOADS:
        namespace.run("ethtool", "-K", interface, feature, "off", check=False)
    shown = namespace.run("ethtool", "-k", interface)
    for feature in ("generic-segmentation-offload", "tx-udp-segmentation"):
        if f"{feature}: off" not in shown:
            raise RuntimeError(f"{interface}: {feature} cannot be switched off")


def remove(namespace: Namespace) -> None:
    """Ends what still runs in a namespace of ours, then deletes it."""
    for pid in namespace.pids():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while namespace.pids() and time.monotonic() < deadline:
        time.sleep(0.01)
    run("ip", "netns", "delete", namespace.name, check=False)


def remove_leftovers() -> None:
    """Removes the worlds of runs that were killed: their names carry the process id of the run that made them."""
    for path in Path("/run/netns").glob(f"{PREFIX}-*"):
        match = _NAME.fullmatch(path.name)
        if match and not Path(f"/proc/{match[1]}").exists():
            remove(Namespace(path.name))
