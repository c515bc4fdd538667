"""The network of a Xen guest that has one: red's interface and its TUN, black's and admin's interface and sockets.

Made before the seal, from ``network`` in the boot description, and never touched again: the loop gets descriptors. The
guest's own kernel is all that routes here. In red it joins the interface and the TUN, as red's namespace does on the
process back end, and nothing else is in it.
"""

from __future__ import annotations

import _socket
import time
from collections.abc import Iterable
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any, Final

from appliance.guest import rtnl
from appliance.monitor import devices

_PATIENCE: Final = 60.0  # seconds until the interface must be there: its back end is one of a busy dom0's
_PAUSE: Final = 0.02
_QUEUE: Final = 1000  # packets
_FORWARDING: Final = ("ipv4/ip_forward", "ipv6/conf/all/forwarding")


class NetworkError(Exception):
    """The network of the guest cannot be had; the text says what to do."""


def _index(name: str) -> int:
    """Of an interface, for which the back end in dom0 or the driver domain may be waited for."""
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            return int(_socket.if_nametoindex(name))
        except OSError:
            if time.monotonic() > until:
                raise NetworkError(f"{name} did not appear in {_PATIENCE:g} s: is its back end up?") from None
            time.sleep(_PAUSE)


def _sysctl(path: str, value: str) -> None:
    try:
        with open(f"/proc/sys/net/{path}", "wb", buffering=0) as file:
            file.write(value.encode())
    except FileNotFoundError:
        return  # a kernel without IPv6


def _furnish(netlink: rtnl.Rtnetlink, index: int, addresses: Iterable[str], limits: dict[int, int]) -> None:
    netlink.tell(rtnl.link_up(index, limits))
    for address in addresses:
        netlink.tell(rtnl.address(index, ip_interface(address)))


def _tunnel(netlink: rtnl.Rtnetlink, tunnel: dict[str, Any]) -> int:
    tun = devices.open_tun(tunnel["name"])
    _sysctl(f"ipv6/conf/{tunnel['name']}/addr_gen_mode", "1")
    _sysctl(f"ipv4/conf/{tunnel['name']}/send_redirects", "0")
    index = _index(tunnel["name"])
    _furnish(netlink, index, tunnel["addresses"], {rtnl.MTU: tunnel["mtu"], rtnl.TXQLEN: _QUEUE})
    for prefix in sorted(map(ip_network, tunnel["routes"]), key=lambda one: -one.prefixlen):
        netlink.tell(rtnl.route(index, prefix))
    return tun.fd


def open_devices(network: dict[str, Any], wanted: Iterable[str]) -> dict[str, int]:
    """Sets the guest's network up and returns the descriptors of ``wanted``: tun, udp4, udp6, management.

    Errors: NetworkError, DeviceError, OSError.
    """
    held: dict[str, int] = {}
    netlink = rtnl.Rtnetlink()
    try:
        _furnish(netlink, _index("lo"), (), {})
        index = _index(network["interface"])
        limit = network.get("largest_group")  # what is too large for one group is not made by GRO
        _furnish(netlink, index, network["addresses"], {rtnl.GRO_MAX_SIZE: limit} if limit else {})
        for gateway in map(ip_address, network["gateways"]):
            netlink.tell(rtnl.route(index, ip_network("0.0.0.0/0" if gateway.version == 4 else "::/0"), gateway))
        if network["forward"]:
            for path in _FORWARDING:
                _sysctl(path, "1")
        if "tun" in wanted:
            held["tun"] = _tunnel(netlink, network["tunnel"])
        if "udp4" in wanted:
            udp = devices.open_udp(network["listen_port"], network["fwmark"])
            held["udp4"] = udp.udp4
            if udp.udp6 is not None:
                held["udp6"] = udp.udp6
        if "management" in wanted:
            held["management"] = devices.open_management(*network["management"])
    finally:
        netlink.close()
    return held
