"""The netlink work behind network.py: moves interfaces, sets addresses, routes and rules, and undoes it all.

Runs in a helper process. Whatever has to be undone is on record, in a file and on disk, before it is done; ``undo``
can be run at any time after that, as often as one likes.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from ipaddress import ip_interface
from pathlib import Path
from typing import Any, Final, NamedTuple

from appliance.assembly.model import OUTER_MTU, Interface, Network, Prefix
from appliance.monitor import links, netns, routes
from appliance.monitor.devices import OUTER_TUN, SO_MARK
from appliance.monitor.inline import bridged, outer
from appliance.monitor.links import AF_INET, AF_INET6, Json, LinkError
from appliance.monitor.rtnetlink import IPRoute, NetlinkError

# A group of packets is sealed packet by packet and sent in one UDP_SEGMENT call: 44 datagrams of 1420 + 32 bytes fit
# into the 65507 bytes of an IPv4 UDP payload with room to spare for IPv6.
MOST_SEGMENTS: Final = 44
_LARGEST: Final = 65535
_TRANSPORT_OVERHEAD: Final = 32 + 8 + 40  # WireGuard's header and tag, UDP, IPv6
_TCP_HEADERS: Final = 40  # IPv4 and TCP without options: the largest segment that TCP makes of a given MTU

_QUEUE: Final = 1000  # packets
_FIRST_TABLE: Final = 51820  # as wg-quick has it
_TABLE_MAIN: Final = 254
_FIB_RULE_INVERT: Final = 2
_RULE_PRIORITY: Final = 32000
_SYSCTLS: Final = Path("/proc/sys/net")
_FORWARDING: Final = ("ipv4/ip_forward", "ipv6/conf/all/forwarding")


class Job(NamedTuple):
    """What is to be done, with descriptors of the namespaces (``home``: the caller's) and of the devices, by name.

    ``port`` is that of the UDP sockets.
    """

    network: Network
    record: Path
    home: int
    red: int | None
    black: int | None
    devices: Mapping[str, int]
    port: int


def largest_group(mtu: int) -> int:
    """gso_max_size in bytes: at most MOST_SEGMENTS full segments of this MTU, no more than one UDP_SEGMENT sends."""
    segments = max(1, min(MOST_SEGMENTS, (_LARGEST - _TRANSPORT_OVERHEAD) // (mtu + 32)))
    return min(_LARGEST, segments * (mtu - _TCP_HEADERS) + _TCP_HEADERS)


class Plumber:
    """Does one job. ``notes`` are lines for the user about what was not to be had."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._network = job.network
        self._record: Json = {"home": netns.identity(job.home), "links": [], "rules": [], "sysctls": []}
        self._mark = job.network.fwmark
        self._states: list[Json] = []
        self.notes: list[str] = []

    def work(self) -> None:
        """Errors: LinkError, NetlinkError, OSError; then ``undo`` is due."""
        network, job = self._network, self._job
        sides = ((network.lan, job.red, self._lan), (network.wan, job.black, self._wan))
        inline = [(name, fd, furnish) for name, fd, furnish in sides if name is not None and fd is not None]
        with IPRoute() as netlink:
            states = [links.snapshot(netlink, name) for name, _, _ in inline]
            self._record["links"] = states
            if states:
                self._save()
            for state, (_, fd, _) in zip(states, inline, strict=True):
                links.move(netlink, state["name"], fd)
        self._states = states
        for state, (_, fd, furnish) in zip(states, inline, strict=True):
            with netns.inside(fd), IPRoute() as netlink:
                furnish(netlink, state)
        if "tun" not in job.devices:
            return
        home = job.home if job.red is None else job.red
        with _alone(job.record.parent.parent), netns.inside(home), IPRoute() as netlink:
            self._tun(netlink)

    def _save(self) -> None:
        """On disk, or the old one: never half a record."""
        new = self._job.record.with_suffix(".new")
        with open(new, "w", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            json.dump(self._record, file)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._job.record)

    # the two sides --------------------------------------------------------------------------------------------------

    def _lan(self, netlink: IPRoute, state: Json) -> None:
        """Red's namespace is a router between the LAN and the tunnel, and nothing else is in it; or a bridge's port."""
        if "red_link" in self._job.devices:
            return bridged(netlink, state, self._job.devices["red_link"])
        netlink.link("set", index=links.index_of(netlink, "lo"), state="up")
        # What the LAN sends is merged by GRO here, not by TCP: what is too large for one group is not made
        wanted = links.assigned(state, self._network.lan_addresses, (), largest_group(self._network.mtu))
        links.restore(netlink, wanted, checked=True)
        for path in _FORWARDING:
            try:
                (_SYSCTLS / path).write_text("1")
            except FileNotFoundError:
                continue  # a kernel without IPv6
            except OSError as error:
                why = f"{_SYSCTLS / path}: {error.strerror}: forwarding must be on; is /proc/sys read-only?"
                raise LinkError(why) from None

    def _wan(self, netlink: IPRoute, state: Json) -> None:
        network, job = self._network, self._job
        if "black_link" in job.devices:
            return bridged(netlink, state, job.devices["black_link"])
        netlink.link("set", index=links.index_of(netlink, "lo"), state="up")
        wanted = links.assigned(state, network.wan_addresses, network.wan_gateways, None)
        links.restore(netlink, wanted, checked=True)
        if "outer_tun" in job.devices:
            self.notes += outer(netlink, wanted, OUTER_TUN, self._behind(), job.port, largest_group(OUTER_MTU))

    def _behind(self) -> list[str]:
        """The networks of the LAN interface."""
        lan = next((state for state in self._states if state["name"] == self._network.lan), None)
        if lan is None:
            return []
        wanted = links.assigned(lan, self._network.lan_addresses, (), None)
        networks = (ip_interface(f"{one['address']}/{one['prefixlen']}").network for one in wanted["addresses"])
        return [str(network) for network in networks if not network.is_link_local]

    # the tunnel -----------------------------------------------------------------------------------------------------

    def _tun(self, netlink: IPRoute) -> None:
        network = self._network
        index = links.index_of(netlink, network.tunnel)
        if index is None:
            raise LinkError(f"{network.tunnel} is gone")
        # As in-kernel WireGuard: no link-local address; no redirects to hosts that had reason to send to the tunnel
        self._sysctl(f"ipv6/conf/{network.tunnel}/addr_gen_mode", "1", None)
        self._sysctl(f"ipv4/conf/{network.tunnel}/send_redirects", "0", None)
        # TCP of this host makes smaller groups then. Groups that are forwarded would be cut into single packets by it
        own = {"gso_max_size": largest_group(network.mtu), "gso_max_segs": MOST_SEGMENTS}
        netlink.link("set", index=index, mtu=network.mtu, txqlen=_QUEUE, **(own if self._job.red is None else {}))
        for address in network.addresses:
            netlink.addr("add", index=index, **links.as_address(address))
        netlink.link("set", index=index, state="up")
        if network.table == "off":
            return
        # Longest first, as wg-quick
        prefixes = sorted(set(network.routes), key=lambda one: -one.prefixlen)
        if network.table == "auto":
            prefixes = [prefix for prefix in prefixes if not _covered(prefix, network.addresses)]
        routes.add(index, [(prefix, self._table(netlink, prefix)) for prefix in prefixes])

    def _table(self, netlink: IPRoute, prefix: Prefix) -> int:
        """The table that the route to ``prefix`` goes into."""
        if isinstance(self._network.table, int):
            return self._network.table
        return self._default_route(netlink, links.family(prefix)) if prefix.prefixlen == 0 else _TABLE_MAIN

    def _default_route(self, netlink: IPRoute, family: int) -> int:
        """As wg-quick: marked packets take the host's default route, all others the tunnel's, in a table of its own.

        The second rule has the main table looked up for everything but its default route. Returns the table.
        """
        mark = self._mark = self._mark or _free_table(netlink)
        priority = _free_priority(netlink, family)
        rules: list[Json] = [
            {"family": family, "priority": priority, "table": mark, "fwmark": mark, "flags": _FIB_RULE_INVERT},
            {"family": family, "priority": priority - 1, "table": _TABLE_MAIN, "FRA_SUPPRESS_PREFIXLEN": 0},
        ]
        valid_mark = "ipv4/conf/all/src_valid_mark"
        if self._job.red is None:  # elsewhere all of this goes with the namespace
            self._record["rules"] += rules
            if family == AF_INET and _read_sysctl(valid_mark) == "0":
                self._record["sysctls"].append([valid_mark, "0"])
            self._save()
        for fd in (self._job.devices[name] for name in ("udp4", "udp6") if name in self._job.devices):
            with socket.socket(fileno=os.dup(fd)) as shared:
                shared.setsockopt(socket.SOL_SOCKET, SO_MARK, mark)
        if family == AF_INET:
            self._sysctl(valid_mark, "1", "replies to the tunnel's own packets may be dropped")
        for rule in rules:
            netlink.rule("add", **rule)
        return mark

    def _sysctl(self, path: str, value: str, loss: str | None) -> None:
        """Sets a switch that is good to have; ``loss`` says what is lost without it, None if the default will do."""
        try:
            _write_sysctl(path, value)
        except OSError as error:
            if loss is not None:
                self.notes.append(f"{_SYSCTLS / path}: {error.strerror}: {loss}")


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Between the look for a table that is free and the first route in it, no other box may look."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _covered(prefix: Prefix, addresses: Iterable[Interface]) -> bool:
    """Whether the kernel has made the route with an address of the tunnel's own."""
    own = (address.network for address in addresses)
    return any(
        net.version == prefix.version and net.prefixlen <= prefix.prefixlen and prefix.network_address in net
        for net in own
    )


def _free_table(netlink: IPRoute) -> int:
    families = (AF_INET, AF_INET6)
    used = {route.get_attr("RTA_TABLE") for family in families for route in netlink.get_routes(family=family)}
    return next(table for table in range(_FIRST_TABLE, _FIRST_TABLE + 1000) if table not in used)


def _free_priority(netlink: IPRoute, family: int) -> int:
    used = {rule.get_attr("FRA_PRIORITY") for rule in netlink.get_rules(family=family)}
    return next(n for n in range(_RULE_PRIORITY, 1, -2) if n not in used and n - 1 not in used)


def _read_sysctl(path: str) -> str | None:
    try:
        return (_SYSCTLS / path).read_text().strip()
    except OSError:
        return None


def _write_sysctl(path: str, value: str) -> None:
    if _read_sysctl(path) != value:
        (_SYSCTLS / path).write_text(value)


def undo(record: Path, home: int, namespaces: dict[str, int]) -> Json:
    """Takes back what is on record: interfaces come home with what they had, rules and switches go.

    ``namespaces`` are descriptors by side, of those that are still there. Goes on after an error; returns all of them
    as ``{"errors": [...]}``. An interface that the kernel has brought home by itself is found there.
    """
    found = json.loads(record.read_text())
    if found["home"] != netns.identity(home):
        return {"errors": ["the interfaces belong to another network namespace: run this where the box was started"]}
    errors: list[str] = []
    if "bridges" in found:
        from appliance.monitor.xen import bridging

        with IPRoute() as netlink:
            bridging.undo(netlink, found, errors)
    for state in found["links"]:
        try:
            _bring_home(state, home, namespaces.values())
        except (LinkError, NetlinkError, OSError) as error:
            errors.append(f"{state['name']}: {error}")
    with IPRoute() as netlink:
        for rule in found["rules"]:
            try:
                links.tolerate(netlink.rule, errno.ENOENT, command="del", **rule)
            except NetlinkError as error:
                errors.append(f"policy rule {rule['priority']}: {error}")
    for path, value in found["sysctls"]:
        try:
            _write_sysctl(path, value)
        except OSError as error:
            errors.append(f"{_SYSCTLS / path}: {error.strerror}")
    return {"errors": errors}


def _bring_home(state: Json, home: int, namespaces: Any) -> None:
    for away in namespaces:
        with netns.inside(away), IPRoute() as netlink:
            # A LAN and a WAN of the same name cannot have come from one host; the tunnel's name is no interface's
            if links.index_of(netlink, state["name"]) is not None:
                links.move(netlink, state["name"], home)
    with IPRoute() as netlink:
        links.restore(netlink, state)
