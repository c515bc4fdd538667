"""The netlink work behind bridges.py. Runs in a helper process; plumbing.undo() takes it all back by the record."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from appliance.monitor import links, netns
from appliance.monitor.links import Json, LinkError
from appliance.monitor.rtnetlink import IPRoute
from appliance.monitor.xen.bridges import SYSCTLS, silence


def make(interfaces: Mapping[str, str], bridges: Mapping[str, str], record: Path, home: int) -> Json:
    """A bridge for each side with that side's interface in it; returns what each interface had.

    Errors: LinkError, NetlinkError, OSError; then ``plumbing.undo`` is due.
    """
    seen: Json = {}
    with IPRoute() as netlink:
        states = {side: links.snapshot(netlink, name) for side, name in interfaces.items()}
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
            netlink.link("add", ifname=bridge, kind="bridge", br_forward_delay=0, br_stp_state=0, br_mcast_snooping=0)
            index = links.index_of(netlink, state["name"])
            for name in (bridge, state["name"]):
                silence(name)
            netlink.flush_addr(index=index)
            netlink.link("set", index=index, master=links.index_of(netlink, bridge), state="up")
            netlink.link("set", index=links.index_of(netlink, bridge), state="up")
            seen[side] = {
                "addresses": [
                    f"{one.get('local', one['address'])}/{one['prefixlen']}"
                    for one in state["addresses"]
                    if one["scope"] == 0
                ],
                "gateways": [r["gateway"] for r in state["routes"] if "gateway" in r and not r.get("dst")],
            }
    return seen


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
