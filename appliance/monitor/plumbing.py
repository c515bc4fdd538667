"""The netlink work behind network.py: moves interfaces, sets addresses, routes and rules, and undoes it all.

Runs in a helper process. Whatever has to be undone is on record, in a file and on disk, before it is done; ``undo`` can be
run at any time after that, as often as one likes.
"""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any, Final, NamedTuple

from pyroute2.iproute.linux import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from appliance.assembly.model import Network, Prefix
from appliance.monitor import links, netns
from appliance.monitor.links import AF_INET, AF_INET6, LinkError

Json = dict[str, Any]

# A group of packets is sealed packet by packet and sent in one UDP_SEGMENT call: 44 datagrams of 1420 + 32 bytes are the
# most that fit into the 65507 bytes of an IPv4 UDP payload with room to spare for IPv6.
MOST_SEGMENTS: Final = 44
_LARGEST: Final = 65535
_TRANSPORT_OVERHEAD: Final = 32 + 8 + 40  # WireGuard's header and tag, UDP, IPv6
_TCP_HEADERS: Final = 40  # IPv4 and TCP without options: the largest segment that TCP makes of a given MTU

_QUEUE: Final = 1000  # packets
_FIRST_TABLE: Final = 51820  # as wg-quick has it
_TABLE_MAIN: Final = 254
_FIB_RULE_INVERT: Final = 2
_RULE_PRIORITY: Final = 32000


class Job(NamedTuple):
    """What is to be done, with descriptors of the namespaces (``home``: the caller's) and of what was opened in them."""

    network: Network
    record: Path
    home: int
    red: int | None
    black: int | None
    sockets: tuple[int, ...]


def largest_group(mtu: int) -> int:
    """gso_max_size in bytes: no more than MOST_SEGMENTS full segments at this MTU, nor than one UDP_SEGMENT can send."""
    segments = max(1, min(MOST_SEGMENTS, (_LARGEST - _TRANSPORT_OVERHEAD) // (mtu + 32)))
    return min(_LARGEST, segments * (mtu - _TCP_HEADERS) + _TCP_HEADERS)


def apply(job: Job) -> Json:
    """Does it all. Returns ``{"notes": [...]}``. Errors: LinkError, NetlinkError, OSError; then ``undo`` is due."""
    notes: list[str] = []
    network = job.network
    record: Json = {"home": netns.identity(job.home), "links": [], "rules": [], "sysctls": []}
    with IPRoute() as netlink:
        for side, fd, name in (("red", job.red, network.lan), ("black", job.black, network.wan)):
            if fd is not None and name is not None:
                record["links"].append({"in": side, "state": links.snapshot(netlink, name)})
        _save(job.record, record)
        for link in record["links"]:
            fd = job.red if link["in"] == "red" else job.black
            netlink.link("set", index=links.index_of(netlink, link["state"]["name"]), net_ns_fd=fd)
    for link in record["links"]:
        inline = (job.red, network.lan_addresses, ()) if link["in"] == "red" else _wan(job)
        assert inline[0] is not None
        with netns.inside(inline[0]), IPRoute() as netlink:
            netlink.link("set", index=links.index_of(netlink, "lo"), state="up")
            links.restore(netlink, links.assigned(link["state"], inline[1], inline[2]), checked=True)
            if link["in"] == "red":
                _limit_gro(netlink, network, notes)
                _forward()
    with netns.inside(job.home if job.red is None else job.red), IPRoute() as netlink:
        _tun(netlink, job, record, notes)
    return {"notes": notes}


def _wan(job: Job) -> tuple[int | None, tuple[Any, ...], tuple[Any, ...]]:
    return job.black, job.network.wan_addresses, job.network.wan_gateways


def _forward() -> None:
    """Red's namespace is a router between the LAN and the tunnel, and nothing else is in it."""
    for path in ("/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding"):
        try:
            Path(path).write_text("1")
        except FileNotFoundError:
            continue  # a kernel without IPv6
        except OSError as error:
            raise LinkError(
                f"{path}: {error.strerror}: forwarding must be switched on; is /proc/sys read-only?"
            ) from None


def _limit_gro(netlink: IPRoute, network: Network, notes: list[str]) -> None:
    """Packets of the LAN reach the tunnel merged by GRO, not by TCP: what is too large for a group is not made."""
    index = links.index_of(netlink, str(network.lan))
    try:
        netlink.link("set", index=index, gro_max_size=largest_group(network.mtu))
    except NetlinkError as error:
        notes.append(f"{network.lan}: gro_max_size cannot be set ({error}); groups will be split")


def _tun(netlink: IPRoute, job: Job, record: Json, notes: list[str]) -> None:
    network = job.network
    index = links.index_of(netlink, network.tunnel)
    if index is None:
        raise LinkError(f"{network.tunnel} is gone")
    # As in-kernel WireGuard: no link-local address, and no redirects to hosts that sent through the tunnel for a reason
    _sysctl(f"ipv6/conf/{network.tunnel}/addr_gen_mode", "1", None, notes)
    _sysctl(f"ipv4/conf/{network.tunnel}/send_redirects", "0", None, notes)
    # Only where packets are made here does the limit make smaller groups; forwarded ones it would cut into single packets
    size = {"gso_max_size": largest_group(network.mtu), "gso_max_segs": MOST_SEGMENTS} if job.red is None else {}
    netlink.link("set", index=index, mtu=network.mtu, txqlen=_QUEUE, **size)
    for address in network.addresses:
        netlink.addr(
            "add",
            index=index,
            family=AF_INET if address.version == 4 else AF_INET6,
            address=str(address.ip),
            prefixlen=address.network.prefixlen,
        )
    netlink.link("set", index=index, state="up")
    if network.table == "off":
        return
    connected = [address.network for address in network.addresses]
    # Longest first, as wg-quick: a default route must not catch the lookup of the gateway of another
    for prefix in sorted(set(network.routes), key=lambda one: -one.prefixlen):
        _route(netlink, job, index, prefix, connected, record, notes)


def _route(
    netlink: IPRoute, job: Job, index: int, prefix: Prefix, connected: list[Any], record: Json, notes: list[str]
) -> None:
    table = job.network.table
    family = AF_INET if prefix.version == 4 else AF_INET6
    if table == "auto" and prefix.prefixlen == 0:
        table = _default_route(netlink, job, family, record, notes)
    elif table == "auto":
        table = _TABLE_MAIN
        if any(net.version == prefix.version and prefix.subnet_of(net) for net in connected):
            return  # the kernel made this route with the address
    try:
        netlink.route("add", family=family, dst=str(prefix), oif=index, table=table)
    except NetlinkError as error:
        if error.code == errno.EEXIST:
            raise LinkError(f"there is a route to {prefix} already; remove it, or set Table = off") from None
        raise


def _default_route(netlink: IPRoute, job: Job, family: int, record: Json, notes: list[str]) -> int:
    """As wg-quick: marked packets take the host's default route, all others the tunnel's, in a table of its own.

    The second rule has the main table looked up for everything but its default route.
    """
    mark = job.network.fwmark or record.get("mark") or _free_table(netlink)
    record["mark"] = mark
    priority = _free_priority(netlink, family)
    rules: list[Json] = [
        {"family": family, "priority": priority, "table": mark, "fwmark": mark, "flags": _FIB_RULE_INVERT},
        {"family": family, "priority": priority - 1, "table": _TABLE_MAIN, "FRA_SUPPRESS_PREFIXLEN": 0},
    ]
    if job.red is None:  # elsewhere all of this goes with the namespace
        record["rules"] += rules
        path = "ipv4/conf/all/src_valid_mark"
        if family == AF_INET and _read_sysctl(path) == "0":
            record["sysctls"].append([path, "0"])
        _save(job.record, record)
    for number in job.sockets:
        _mark(number, mark)
    if family == AF_INET:
        _sysctl("ipv4/conf/all/src_valid_mark", "1", "replies to the tunnel's own packets may be dropped", notes)
    for rule in rules:
        netlink.rule("add", **rule)
    return mark


def _mark(fd: int, mark: int) -> None:
    import socket

    from appliance.monitor.devices import SO_MARK

    with socket.socket(fileno=os.dup(fd)) as shared:
        shared.setsockopt(socket.SOL_SOCKET, SO_MARK, mark)


def _free_table(netlink: IPRoute) -> int:
    used = {
        route.get_attr("RTA_TABLE") for family in (AF_INET, AF_INET6) for route in netlink.get_routes(family=family)
    }
    return next(table for table in range(_FIRST_TABLE, _FIRST_TABLE + 1000) if table not in used)


def _free_priority(netlink: IPRoute, family: int) -> int:
    used = {rule.get_attr("FRA_PRIORITY") for rule in netlink.get_rules(family=family)}
    return next(n for n in range(_RULE_PRIORITY, 1, -2) if n not in used and n - 1 not in used)


def _read_sysctl(path: str) -> str | None:
    try:
        return Path("/proc/sys/net", path).read_text().strip()
    except OSError:
        return None


def _sysctl(path: str, value: str, loss: str | None, notes: list[str]) -> None:
    """Sets a switch that is good to have; ``loss`` says what is lost without it, None if the default will do."""
    if _read_sysctl(path) == value:
        return
    try:
        Path("/proc/sys/net", path).write_text(value)
    except OSError as error:
        if loss is not None:
            notes.append(f"/proc/sys/net/{path}: {error.strerror}: {loss}")


def _save(path: Path, record: Json) -> None:
    """On disk, or the old one: never half a record."""
    new = path.with_suffix(".new")
    with open(new, "w", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        json.dump(record, file)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def undo(record: Path, home: int, namespaces: dict[str, int]) -> Json:
    """Takes back what is on record: interfaces come home with what they had, rules and switches go.

    ``namespaces`` are descriptors by side, of those that are still there. Goes on after an error; returns all of them as
    ``{"errors": [...]}``. An interface that the kernel has brought home by itself is found there.
    """
    if not record.exists():
        return {"errors": []}
    found = json.loads(record.read_text())
    if found["home"] != netns.identity(home):
        return {"errors": ["the interfaces belong to another network namespace: run this where the box was started"]}
    errors: list[str] = []
    for link in found["links"]:
        try:
            _bring_home(link, home, namespaces.get(link["in"]))
        except (LinkError, NetlinkError, OSError) as error:
            errors.append(f"{link['state']['name']}: {error}")
    with IPRoute() as netlink:
        for rule in found["rules"]:
            try:
                links.tolerate(netlink.rule, errno.ENOENT, command="del", **rule)
            except NetlinkError as error:
                errors.append(f"policy rule {rule['priority']}: {error}")
    for path, value in found["sysctls"]:
        _sysctl(path, value, "it stays as it is", errors)
    return {"errors": errors}


def _bring_home(link: Json, home: int, away: int | None) -> None:
    name = link["state"]["name"]
    if away is not None:
        with netns.inside(away), IPRoute() as netlink:
            index = links.index_of(netlink, name)
            if index is not None:
                netlink.link("set", index=index, net_ns_fd=home)
    with IPRoute() as netlink:
        links.restore(netlink, link["state"])
