"""What an interface has - addresses, routes, up or down - read from one namespace and set in another.

The kernel drops all of it when an interface changes namespace. Written with pyroute2 over rtnetlink(7), for the short
life of a helper process (helper.py): importing pyroute2 takes 100 ms and 20 MiB that the monitor need not keep.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from typing import Any, Final

from appliance.assembly.model import Address, Interface, Prefix
from appliance.monitor.rtnetlink import IPRoute, NetlinkError

Json = dict[str, Any]

# <linux/if.h>, <linux/if_addr.h>, <linux/rtnetlink.h>
_IFF_UP: Final = 0x01
_IFF_LOOPBACK: Final = 0x08
_IFF_NOARP: Final = 0x80
_IFA_F_TEMPORARY: Final = 0x01
_IFA_F_NODAD: Final = 0x02
# NODAD, OPTIMISTIC, HOMEADDRESS, MANAGETEMPADDR, NOPREFIXROUTE, MCAUTOJOIN: what somebody asked for, not what the
# kernel found out about the address
_IFA_F_KEPT: Final = 0x02 | 0x04 | 0x10 | 0x100 | 0x200 | 0x400
_FOREVER: Final = 0xFFFF_FFFF
_RT_TABLE_LOCAL: Final = 255
_RTPROT_KERNEL: Final = 2
_RTPROT_RA: Final = 9
_RTM_F_CLONED: Final = 0x200
_RTNH_F_ONLINK: Final = 4

AF_INET: Final = 2
AF_INET6: Final = 10


class LinkError(Exception):
    """An interface cannot be used as asked; the text says what to do."""


def index_of(netlink: IPRoute, name: str) -> int | None:
    """The interface's number, None if there is no such interface here."""
    found = list(netlink.link_lookup(ifname=name))
    return found[0] if found else None


def tolerate(call: Any, *numbers: int, **arguments: Any) -> None:
    """Calls, and passes over a NetlinkError with one of these errno ``numbers``."""
    try:
        call(**arguments)
    except NetlinkError as error:
        if error.code not in numbers:
            raise


def snapshot(netlink: IPRoute, name: str) -> Json:
    """Everything that a move of ``name`` to another namespace would lose, as JSON. Errors: LinkError."""
    index = index_of(netlink, name)
    if index is None:
        raise LinkError(f"there is no interface {name!r} here: ip link lists those there are")
    link = next(iter(netlink.get_links(index)))
    if link["flags"] & _IFF_LOOPBACK:  # every namespace has one of that name: what is put back would be the other
        raise LinkError(f"{name} leads nowhere: name the interface of the LAN or the WAN (ip link lists them)")
    if link.get_attr("IFLA_MASTER"):
        raise LinkError(f"{name} belongs to a bridge or bond: take it out first (ip link set {name} nomaster)")
    return {
        "name": name,
        "up": bool(link["flags"] & _IFF_UP),
        "arp": not link["flags"] & _IFF_NOARP,
        "gro_max_size": link.get_attr("IFLA_GRO_MAX_SIZE"),
        "addresses": [_address(a) for a in netlink.get_addr(index=index) if not _is_temporary(a)],
        "routes": [_route(r, name) for f in (AF_INET, AF_INET6) for r in _routes(netlink, f, index)],
    }


def _is_temporary(address: Any) -> bool:
    """A privacy address of IPv6, which the kernel makes anew. For IPv4 the same bit means secondary."""
    return bool(address["family"] == AF_INET6 and address["flags"] & _IFA_F_TEMPORARY)


def _address(message: Any) -> Json:
    cache = message.get_attr("IFA_CACHEINFO") or {}
    found = {
        "family": message["family"],
        "address": message.get_attr("IFA_ADDRESS"),
        "local": message.get_attr("IFA_LOCAL"),
        "broadcast": message.get_attr("IFA_BROADCAST"),
        "label": message.get_attr("IFA_LABEL"),
        "prefixlen": message["prefixlen"],
        "scope": message["scope"],
        "flags": (message.get_attr("IFA_FLAGS") or 0) & _IFA_F_KEPT,
        "proto": message.get_attr("IFA_PROTO"),
        "preferred": cache.get("ifa_preferred", _FOREVER),
        "valid": cache.get("ifa_valid", _FOREVER),
    }
    return {key: value for key, value in found.items() if value is not None}


def _routes(netlink: IPRoute, family: int, index: int) -> Iterable[Any]:
    """The routes that somebody set: not those that the kernel makes of addresses, or learns from advertisements."""
    for message in netlink.get_routes(family=family):
        hops = message.get_attr("RTA_MULTIPATH") or ()
        if any(hop["oif"] == index for hop in hops):
            raise LinkError("a multipath route leads over the interface: it cannot be moved; remove that route first")
        if message.get_attr("RTA_OIF") != index or message["flags"] & _RTM_F_CLONED:
            continue
        if message["proto"] in (_RTPROT_KERNEL, _RTPROT_RA) or message.get_attr("RTA_TABLE") == _RT_TABLE_LOCAL:
            continue
        yield message


def _route(message: Any, name: str) -> Json:
    if message.get_attr("RTA_VIA") or message.get_attr("RTA_ENCAP") or message.get_attr("RTA_NH_ID"):
        raise LinkError(f"{name} has a route of a kind that cannot be moved (via, encap, nexthop id): remove it first")
    metrics = message.get_attr("RTA_METRICS")
    found = {
        "family": message["family"],
        "dst": message.get_attr("RTA_DST"),
        "dst_len": message["dst_len"],
        "gateway": message.get_attr("RTA_GATEWAY"),
        "prefsrc": message.get_attr("RTA_PREFSRC"),
        "priority": message.get_attr("RTA_PRIORITY"),
        "table": message.get_attr("RTA_TABLE"),
        "metrics": {key: value for key, value in metrics["attrs"] if isinstance(value, int)} if metrics else None,
        "tos": message["tos"],
        "scope": message["scope"],
        "type": message["type"],
        "proto": message["proto"],
        "flags": message["flags"] & _RTNH_F_ONLINK,
    }
    return {key: value for key, value in found.items() if value is not None}


def move(netlink: IPRoute, name: str, namespace: int) -> None:
    """Sends interface ``name`` to the namespace behind a descriptor. Errors: LinkError."""
    try:
        netlink.link("set", index=index_of(netlink, name), net_ns_fd=namespace)
    except NetlinkError as error:
        then = "; a network card, a VLAN or an end of a veth can" if error.code == errno.EINVAL else ""
        raise LinkError(f"{name} cannot change its namespace: {os.strerror(error.code)}{then}") from None


def restore(netlink: IPRoute, state: Json, *, checked: bool = False) -> None:
    """Gives the interface what ``snapshot`` saw; what it has already stays.

    ``checked``: its IPv6 addresses were in use on this link a moment ago, and need no duplicate address detection.
    """
    index = index_of(netlink, state["name"])
    if index is None:
        raise LinkError(f"there is no interface {state['name']!r} here")
    if "arp" in state:
        netlink.link("set", index=index, arp=state["arp"])
    for address in state["addresses"]:
        _add_address(netlink, index, address, checked)
    if state["gro_max_size"]:  # Linux 5.19
        netlink.link("set", index=index, gro_max_size=state["gro_max_size"])
    netlink.link("set", index=index, state="up" if state["up"] else "down")
    if state["up"]:
        # A route over a gateway needs the route to that gateway: those without one first
        for route in sorted(state["routes"], key=lambda one: "gateway" in one):
            _add_route(netlink, index, route)


def _add_address(netlink: IPRoute, index: int, state: Json, checked: bool) -> None:
    found = dict(state)
    preferred, valid = found.pop("preferred", _FOREVER), found.pop("valid", _FOREVER)
    flags = found.pop("flags", 0) | (_IFA_F_NODAD if found["family"] == AF_INET6 and checked else 0)
    if flags:
        found["flags"] = flags
    if valid != _FOREVER:
        found["IFA_CACHEINFO"] = {"ifa_preferred": preferred, "ifa_valid": valid, "cstamp": 0, "tstamp": 0}
    _add(netlink.addr, f"address {state['address']}/{state['prefixlen']}", index=index, **found)


def _add_route(netlink: IPRoute, index: int, state: Json) -> None:
    found = dict(state)
    found["dst"] = f"{found['dst']}/{found.pop('dst_len')}" if "dst" in found else "default"
    found.pop("dst_len", None)
    _add(netlink.route, f"route {found['dst']}", oif=index, **found)


def _add(call: Any, what: str, **arguments: Any) -> None:
    """Adds something, unless it is there already."""
    try:
        tolerate(call, errno.EEXIST, command="add", **arguments)
    except NetlinkError as error:
        raise LinkError(f"{what} cannot be set: {os.strerror(error.code)}") from None


def assigned(
    state: Json, addresses: Iterable[Interface], gateways: Iterable[Address], largest_group: int | None
) -> Json:
    """``state`` with the interface up, these addresses and default routes instead of its own if any are given, and GRO
    limited to ``largest_group`` bytes.
    """
    given = [as_address(address) for address in addresses]
    ways = [{"family": family(way), "gateway": str(way)} for way in gateways]
    limits = [size for size in (state["gro_max_size"], largest_group) if size]
    return {
        "name": state["name"],
        "up": True,
        "gro_max_size": min(limits) if state["gro_max_size"] else None,
        "addresses": given or state["addresses"],
        "routes": [*([] if given else state["routes"]), *ways],
    }


def family(value: Address | Interface | Prefix) -> int:
    """The address family's number."""
    return AF_INET if value.version == 4 else AF_INET6


def as_address(address: Interface) -> Json:
    """What netlink needs to add ``address``."""
    return {"family": family(address), "address": str(address.ip), "prefixlen": address.network.prefixlen}
