"""The box's place in the network where red and black (and admin) are guests: a bridge for each, and dom0 on none.

A side's interface of the host loses its addresses, as it does where it moves into a namespace of red's or black's; the
guest gets them. It becomes a port of a bridge that has no address itself, neither given nor made up by IPv6, and whose
only other port is the guest's interface. So dom0 carries frames between the two and has no part in what they say.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import socket
from collections.abc import Collection
from pathlib import Path
from typing import Any, Final

from appliance.assembly.model import Interface, Network
from appliance.guest import rtnl
from appliance.monitor import netns, network
from appliance.monitor.helper import Helper, HelperError
from appliance.monitor.network import NetworkError
from appliance.monitor.xen.plan import Side

SYSCTLS: Final = Path("/proc/sys/net/ipv6/conf")
INTERFACES: Final = Path("/sys/class/net")
# 01:80:c2:00:00:00 to 0f, a bit each, but 01: a PAUSE frame ends at the interface anyway
_RESERVED: Final = "0xfffd"
# Of the 15 characters of an interface's name; the suffix takes the rest
_BOX_PART: Final = 9
# Xen's own range, of which the last three bytes are to be had by anybody
_MAC: Final = "00:16:3e"
_FIRST_PORT: Final = 49152  # RFC 6335, section 6: dynamic ports


def bridge_name(box: str, side: str) -> str:
    return f"{box[:_BOX_PART]}.{side}"


def mac(box: str, side: str) -> str:
    """The same for every life of the guest: its neighbours keep what they know of it."""
    digest = hashlib.sha256(f"{box}/{side}".encode()).digest()
    return ":".join([_MAC, f"{digest[0] & 0x7F:02x}", f"{digest[1]:02x}", f"{digest[2]:02x}"])


class Bridges:
    """As network.BoxNetwork: ``open``, ``begin``, ``finish``, ``close``. ``sides`` are known once it is open.

    ``wanted`` are the devices of all domains.
    """

    def __init__(self, net: Network, box: str, directory: Path, wanted: Collection[str]) -> None:
        if net.lan is None or net.wan is None:
            missing = " and ".join(f"--{side}" for side in ("lan", "wan") if getattr(net, side) is None)
            raise NetworkError(
                f"on Xen a box stands between two interfaces of dom0: give {missing} too (or lan and wan in [network])"
            )
        self._is_managed = "management" in wanted
        if self._is_managed and net.admin is None:
            raise NetworkError(
                "on Xen administrators call a guest, not dom0: give the address at which they do, of an interface that "
                "only they use: --admin, or admin in [network]"
            )
        self._network = net
        self._box = box
        self._directory = directory
        self._home = netns.current()
        self.devices: dict[str, int] = {}
        # Any will do where none is named: in black's guest nobody else has one. A new life of black gets it again
        self.port = net.listen_port or _FIRST_PORT + secrets.randbelow(1 << 14)
        self.notes: list[str] = []
        self.sides: dict[str, Side] = {}

    def open(self) -> None:
        """Makes the bridges: the guests are configured with them. Errors: NetworkError."""
        interfaces = {"red": str(self._network.lan), "black": str(self._network.wan)}
        sides = [*interfaces, *(["admin"] if self._is_managed else [])]
        bridges = {side: bridge_name(self._box, side) for side in sides}

        def make() -> Any:
            from appliance.monitor.plumbing import largest_group
            from appliance.monitor.xen import bridging

            if self._is_managed:
                assert self._network.admin is not None
                interfaces["admin"] = bridging.holder(self._network.admin[0], interfaces)
            seen = bridging.make(interfaces, bridges, self._record, self._home)
            seen["red"]["largest_group"] = largest_group(self._network.mtu)
            return seen

        try:
            found = Helper(make).result()
        except HelperError as error:
            raise NetworkError(str(error)) from None
        self.sides = {side: self._side(side, found[side]) for side in sides}

    @property
    def _record(self) -> Path:
        return self._directory / network.RECORD

    def _side(self, side: str, seen: dict[str, Any]) -> Side:
        net = self._network
        given, ways = {
            "red": (net.lan_addresses, ()),
            "black": (net.wan_addresses, net.wan_gateways),
            "admin": ((), ()),
        }[side]
        settings: dict[str, Any] = {
            "interface": "eth0",
            "addresses": [str(one) for one in given] or seen["addresses"],
            "gateways": [str(way) for way in ways] if given or ways else seen["gateways"],
            "forward": side == "red",
            "listen_port": self.port,
            "fwmark": net.fwmark,
        }
        if side == "red":
            settings["largest_group"] = seen["largest_group"]
            settings["tunnel"] = {
                "name": net.tunnel,
                "addresses": [str(one) for one in net.addresses],
                "mtu": net.mtu,
                "routes": [str(one) for one in _routes(net)],
            }
        if side == "admin":
            settings["management"] = net.admin
        return Side(side, bridge_name(self._box, side), mac(self._box, side), settings)

    def begin(self) -> None:
        """Nothing is left to do meanwhile."""

    def finish(self) -> None:
        """Nothing is left to wait for."""

    def close(self) -> None:
        """Takes the bridges away and gives the interfaces back what they had. Errors: NetworkError."""
        try:
            network._undo(self._directory, self._home, {})
        finally:
            os.close(self._home)


def _routes(net: Network) -> list[Any]:
    """Into the tunnel, those that the kernel does not make by itself of the tunnel's addresses."""
    if net.table == "off":
        return []
    own: list[Interface] = list(net.addresses)
    return [route for route in dict.fromkeys(net.routes) if all(route != address.network for address in own)]


def join(bridge: str, domid: int) -> None:
    """Puts the other end of a guest's interface into its bridge. Errors: NetworkError.

    By the monitor itself, in one message: the helper that made the bridges has a library to import, which takes longer
    than all else that is done for a guest that is built anew.
    """
    name = f"vif{domid}.0"
    try:
        index, master = socket.if_nametoindex(name), socket.if_nametoindex(bridge)
    except OSError:
        raise NetworkError(f"there is no {name}, or no {bridge}: is the module xen-netback loaded?") from None
    silence(name)
    netlink = rtnl.Rtnetlink()
    try:
        netlink.tell(rtnl.link_up(index, {rtnl.MASTER: master}))
        forward_all(name)
    except OSError as error:
        raise NetworkError(f"{name} cannot be put into {bridge}: {error}") from None
    finally:
        netlink.close()


def silence(name: str) -> None:
    """No address of dom0's own making: not even a link-local one, by which it could be spoken to."""
    try:
        (SYSCTLS / name / "disable_ipv6").write_text("1")
    except FileNotFoundError:
        return  # a kernel without IPv6


def forward_all(name: str) -> None:
    """Frames that 802.1D has for bridges alone go through like any other: else the port ``name`` would hand them to
    dom0. Errors: OSError.
    """
    (INTERFACES / name / "brport" / "group_fwd_mask").write_text(_RESERVED)
