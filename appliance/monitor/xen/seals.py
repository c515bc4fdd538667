"""A guest's seal in Xen's terms, read from outside it: what it was to get, and what Xen and the xenstore say it has."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, Protocol

from appliance.monitor.sandbox.evidence import Row
from appliance.monitor.xen import wiring
from appliance.monitor.xen.plan import Plan
from appliance.monitor.xen.xl import Xl, XlError

_MIB_KIB: Final = 1024


class Permissions(Protocol):
    """What is asked of the xenstore."""

    def home(self, domid: int) -> str: ...
    def directory(self, path: str) -> list[str]: ...
    def permissions(self, path: str) -> list[str]: ...


def wanted(plan: Plan, memory_mib: int) -> dict[str, str]:
    """Every attribute of ``plan``'s seal, as texts."""
    return {
        "type": plan.type,
        "label": plan.label or "none (xsm = absent)",
        "memory": f"{memory_mib} MiB",
        "vcpus": "1",
        "grant frames": f"{plan.max_grant_frames}",
        "maptrack frames": f"{plan.max_maptrack_frames}",
        "event channels": f"{plan.max_event_channels}",
        "devices": "1 vif" if plan.side else "none",
        "migration": "refused",
        "xenstore": writable(plan),
    }


def writable(plan: Plan) -> str:
    """How many nodes of its home it may write."""
    leaves = 1 + 2 * sum(link.is_server for link in plan.links) + (len(wiring.NETFRONT) if plan.side else 0)
    return f"dom0's; writes {leaves} leaves"


def seen(domid: int, xl: Xl, store: Permissions) -> dict[str, str]:
    """The same as Xen has it. Errors: OSError, ValueError for an answer that is none."""
    answer = json.loads(xl.run("list", "-l", str(domid)))
    if not isinstance(answer, list) or len(answer) != 1 or answer[0].get("domid") != domid:
        raise XlError(f"xl does not know domain {domid}")
    said: Mapping[str, Any] = answer[0].get("config", {})
    if not {"c_info", "b_info"} <= set(said):
        raise XlError(f"xl does not say how domain {domid} was configured")
    create, build = said["c_info"], said["b_info"]
    devices = {
        kind: len(said[kind])
        for kind in ("disks", "nics", "pcidevs", "vfbs", "vkbs", "vtpms", "usbctrls", "usbdevs", "p9s", "channels")
        if said.get(kind)
    }
    vifs = devices.pop("nics", 0)
    others = [f"{count} {kind}" for kind, count in devices.items()]
    own = [f"{vifs} vif"] if vifs else []
    return {
        "type": str(create.get("type")),
        "label": _label(domid, xl),
        "memory": f"{build.get('max_memkb', 0) // _MIB_KIB} MiB",
        "vcpus": str(build.get("max_vcpus", 1)),
        "grant frames": str(build.get("max_grant_frames")),
        "maptrack frames": str(build.get("max_maptrack_frames")),
        "event channels": str(build.get("event_channels")),
        "devices": ", ".join([*own, *others]) or "none",
        "migration": "refused" if str(build.get("disable_migrate")) == "True" else "possible",
        "xenstore": _writable(domid, store),
    }


def _label(domid: int, xl: Xl) -> str:
    for line in xl.run("list", "-Z", str(domid)).splitlines():
        words = line.split()
        if len(words) >= 3 and words[1] == str(domid):
            return words[-1] if ":" in words[-1] else "none (xsm = absent)"
    return "unknown"


def _writable(domid: int, store: Permissions) -> str:
    home = store.home(domid)
    own, leaves, open_to_all = 0, 0, 0
    pending = [home]
    while pending:
        path = pending.pop()
        owner, *others = store.permissions(path)
        own += owner[1:] == str(domid)
        open_to_all += owner[0] != "n"  # the owner's letter is what everybody else may
        leaves += any(entry in (f"b{domid}", f"w{domid}") for entry in others)
        pending += [f"{path}/{entry}" for entry in store.directory(path)]
    if own:
        return f"{own} nodes are the guest's own"
    if open_to_all:
        return f"{open_to_all} nodes are open to everybody"
    return f"dom0's; writes {leaves} leaves"


def compare(plan: Mapping[str, str], found: Mapping[str, str]) -> list[Row]:
    """One row an attribute."""
    return [Row(name, value, found.get(name, "?"), found.get(name) == value) for name, value in plan.items()]


__all__ = ["Row", "compare", "seen", "wanted", "wiring"]
