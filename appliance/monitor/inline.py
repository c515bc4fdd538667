"""What a box in line does to an interface that is not red's or black's alone: a port of a transparent bridge, and the
outside of a box that also lets packets pass in clear. Called by plumbing.py, in the namespace of the interface.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from appliance.assembly.model import OUTER_MTU
from appliance.monitor import devices, links
from appliance.monitor.links import AF_INET, AF_INET6, Json, LinkError
from appliance.monitor.rtnetlink import IPRoute

_SYSCTLS: Final = Path("/proc/sys/net")
_LARGEST: Final = 65535  # bytes of a superframe's IP packet: what a group, and struct virtio_net_hdr, can say
_QUEUE: Final = 1000  # packets

_TABLE_LOCAL: Final = 255
_TABLE_OUTER: Final = 51819
# By the number of the IP protocol: ICMP, TCP, UDP, GRE, ESP, AH, SCTP
_CARRIED: Final = (1, 6, 17, 47, 50, 51, 132)
_UDP: Final = 17
_LOCAL_FIRST: Final = 0
_TUNNEL_RULE, _CLEAR_RULE, _LOCAL_LATER = 10, 20, 100


def switch(path: str, value: str) -> None:
    """Sets ``path`` below /proc/sys/net; nothing happens where the kernel has no IPv6. Errors: LinkError."""
    try:
        if (_SYSCTLS / path).read_text().strip() != value:
            (_SYSCTLS / path).write_text(value)
    except FileNotFoundError:
        if not path.startswith("ipv6/"):
            raise LinkError(f"{_SYSCTLS / path}: there is no such switch in this kernel") from None
    except OSError as error:
        raise LinkError(f"{_SYSCTLS / path} cannot be {value}: {error.strerror}; is /proc/sys read-only?") from None


def bridged(netlink: IPRoute, state: Json, fd: int) -> None:
    """A port of the bridge: up, listened to by the packet socket ``fd``, and never spoken on by the kernel itself,
    which has no address here, answers no ARP, has no IPv6 and forwards nothing.

    Errors: LinkError, NetlinkError, OSError.
    """
    name = state["name"]
    index = links.index_of(netlink, name)
    if index is None:
        raise LinkError(f"there is no interface {name!r} here")
    for path in (f"ipv6/conf/{name}/disable_ipv6", "ipv6/conf/all/disable_ipv6"):
        switch(path, "1")
    for path in ("ipv4/ip_forward", f"ipv4/conf/{name}/forwarding", "ipv6/conf/all/forwarding"):
        switch(path, "0")
    groups = {"gro_max_size": min(state["gro_max_size"], _LARGEST)} if state["gro_max_size"] else {}
    netlink.link("set", index=index, arp=False, state="up", **groups)
    devices.bind_link(fd, index, name)


def outer(
    netlink: IPRoute, state: Json, tun: str, lan: Iterable[str], listen_port: int, largest_group: int
) -> list[str]:
    """The outside of a box that lets some packets pass in clear, and has one address there for both.

    What comes for the address of ``state``'s interface goes to ``tun``, and so to the filter, but for the tunnel's own
    UDP port; what comes for the prefixes ``lan`` goes there too. For that the rule that looks up local addresses moves
    behind those that say so, in this namespace. Returns notes. Errors: LinkError, NetlinkError, OSError.
    """
    wan, index = state["name"], links.index_of(netlink, tun)
    if index is None:
        raise LinkError(f"{tun} is gone")
    switch(f"ipv6/conf/{tun}/addr_gen_mode", "1")
    for path, value in (
        ("ipv4/ip_forward", "1"),
        (f"ipv4/conf/{tun}/accept_local", "1"),  # the filter has given them our own address as source
        (f"ipv4/conf/{tun}/rp_filter", "0"),
        ("ipv4/conf/all/rp_filter", "0"),
        (f"ipv4/conf/{tun}/send_redirects", "0"),
        (f"ipv6/conf/{wan}/accept_ra", "2"),  # a router, and yet told by routers where the world is
        ("ipv6/conf/all/forwarding", "1"),
    ):
        switch(path, value)
    netlink.link("set", index=index, mtu=OUTER_MTU, txqlen=_QUEUE, state="up")
    if state["gro_max_size"]:
        limit = min(state["gro_max_size"], largest_group)
        netlink.link("set", index=links.index_of(netlink, wan), gro_max_size=limit)
    netlink.route("add", family=AF_INET, dst="default", oif=index, table=_TABLE_OUTER)
    own = [one["address"] for one in state["addresses"] if one["family"] == AF_INET]
    for address in own:
        to = {"family": AF_INET, "iifname": wan, "dst": address, "dst_len": 32}
        port = {"FRA_DPORT_RANGE": f"{listen_port}:{listen_port}"}
        netlink.rule("add", priority=_TUNNEL_RULE, table=_TABLE_LOCAL, ip_proto=_UDP, **port, **to)
        for protocol in _CARRIED:
            netlink.rule("add", priority=_CLEAR_RULE, table=_TABLE_OUTER, ip_proto=protocol, **to)
    netlink.rule("add", family=AF_INET, priority=_LOCAL_LATER, table=_TABLE_LOCAL)
    netlink.rule("del", family=AF_INET, priority=_LOCAL_FIRST, table=_TABLE_LOCAL)
    for prefix in lan:
        netlink.route("add", family=AF_INET6 if ":" in prefix else AF_INET, dst=prefix, oif=index)
    return [] if own else [f"{wan} has no IPv4 address: nothing can be translated to it"]
