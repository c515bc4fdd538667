"""The netlink work behind bridges.py. Runs in a helper process; plumbing.undo() takes it all back by the record.

That dom0 has no address on a bridge does not make it deaf there: Linux takes a packet for any of its addresses on any
of its interfaces. So the bridges filter by VLAN, their ports have the one of untagged frames, and the bridge itself,
which is dom0's way in and out, has none: nothing is passed up and nothing comes down (linux, net/bridge/br_input.c:
br_pass_frame_up, br_device.c: br_dev_xmit). Frames to 802.1D's reserved addresses never get that far: the port passes
them up itself, but those that it is to forward (br_handle_frame).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from appliance.monitor import links, netns
from appliance.monitor.links import Json, LinkError
from appliance.monitor.rtnetlink import IPRoute
from appliance.monitor.xen.bridges import INTERFACES, SYSCTLS, forward_all, silence

_UNTAGGED: Final = 1  # the VLAN that bridge and ports are in from the start


def make(interfaces: Mapping[str, str], bridges: Mapping[str, str], record: Path, home: int) -> Json:
    """A bridge for each side with that side's interface in it; returns what each interface had.

    Errors: LinkError, NetlinkError, OSError; then ``plumbing.undo`` is due.
    """
    seen: Json = {}
    with IPRoute() as netlink:
        states = {side: links.snapshot(netlink, name) for side, name in interfaces.items()}
        for name in interfaces.values():
            _see_bare(name)
        taken = [name for name in bridges.values() if links.index_of(netlink, name) is not None]
        if taken:
            raise LinkError(f"there is an interface {taken[0]} already: another box, or one that was left behind")
        found = {
            "home": netns.identity(home),
            "links": list(states.values()),
            "rules": [],
            "sysctls": [],
            "bridges": list(bridges.values()),
            "switches": [[name, _mode(name)] for name in interfaces.values()],
        }
        _save(record, found)
        for side, state in states.items():
            bridge = bridges[side]
            # No learning of what nobody says: two ports, and frames go from one to the other. No multicast snooping:
            # IPv6 neighbour discovery would wait for a querier that is not there
            netlink.link(
                "add",
                ifname=bridge,
                kind="bridge",
                br_forward_delay=0,
                br_stp_state=0,
                br_mcast_snooping=0,
                br_vlan_filtering=1,
            )
            index, master = links.index_of(netlink, state["name"]), links.index_of(netlink, bridge)
            netlink.vlan_filter("del", index=master, vlan_info={"vid": _UNTAGGED}, vlan_flags="self")
            for name in (bridge, state["name"]):
                silence(name)
            netlink.flush_addr(index=index)
            netlink.link("set", index=index, master=master)
            forward_all(state["name"])
            netlink.link("set", index=index, state="up")
            netlink.link("set", index=master, state="up")
            seen[side] = {
                "addresses": [
                    f"{one.get('local', one['address'])}/{one['prefixlen']}"
                    for one in state["addresses"]
                    if one["scope"] == 0
                ],
                "gateways": [r["gateway"] for r in state["routes"] if "gateway" in r and not r.get("dst")],
            }
    return seen


def holder(address: str, taken: Mapping[str, str]) -> str:
    """The interface of dom0 that has this address, at which administrators are to call: it becomes admin's, as those
    ``taken`` are red's and black's. Errors: LinkError.
    """
    then = "name one of an interface that only administrators use: --admin, or admin in [network]"
    with IPRoute() as netlink:
        for found in netlink.get_addr():
            if str(found.get_attr("IFA_LOCAL") or found.get_attr("IFA_ADDRESS")) == address:
                (link,) = netlink.get_links(found["index"])
                name = str(link.get_attr("IFLA_IFNAME"))
                if name == "lo":
                    raise LinkError(f"{address} is dom0's loopback, where no guest can be called: {then}")
                if name in taken.values():
                    raise LinkError(f"{address} is on {name}, which has another side of the box: {then}")
                return name
    raise LinkError(f"no interface of dom0 has the address {address}, at which administrators are to call: {then}")


def _see_bare(name: str) -> None:
    """Errors: LinkError if dom0 has an interface on top of it, which takes its frames before a bridge sees them."""
    upper = sorted(found.name.removeprefix("upper_") for found in (INTERFACES / name).glob("upper_*"))
    if upper:
        raise LinkError(
            f"dom0 has {', '.join(upper)} on {name} (a VLAN, or the like), and would be reached by that: "
            f"ip link del {upper[0]}, or another interface for this side"
        )


def _mode(name: str) -> str:
    try:
        return (SYSCTLS / name / "disable_ipv6").read_text().strip()
    except OSError:
        return ""


def _save(record: Path, state: Json) -> None:
    new = record.with_suffix(".new")
    with open(new, "w", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        json.dump(state, file)
        file.flush()
        os.fsync(file.fileno())
    new.replace(record)


def undo(netlink: IPRoute, found: Any, errors: list[str]) -> None:
    """Of ``plumbing.undo``: bridges go, and the interfaces may have IPv6 again, before they get back what they had."""
    for name in found.get("bridges", ()):
        index = links.index_of(netlink, name)
        if index is not None:
            netlink.link("del", index=index)
    for name, mode in found.get("switches", ()):
        if mode:
            try:
                (SYSCTLS / name / "disable_ipv6").write_text(mode)
            except OSError as error:
                errors.append(f"{name}: {error.strerror}")
