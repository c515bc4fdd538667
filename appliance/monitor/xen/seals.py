"""A guest's seal in Xen's terms, read from outside it: what it was to get, and what Xen and the xenstore say it has."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any, Final, NamedTuple, Protocol

from appliance.monitor.sandbox.evidence import Row
from appliance.monitor.xen import cpus, wiring
from appliance.monitor.xen.plan import Plan
from appliance.monitor.xen.xl import Xl, XlError

_MIB_KIB: Final = 1024


class Permissions(Protocol):
    """What is asked of the xenstore."""

    def home(self, domid: int) -> str: ...
    def directory(self, path: str) -> list[str]: ...
    def permissions(self, path: str) -> list[str]: ...


def wanted(plan: Plan, memory_mib: int) -> dict[str, str]:
    """Every attribute of ``plan``'s seal, as texts. Of CPUs nothing is planned unless the assembly names some."""
    pinned = {"cpus": cpus.ranges(cpus.numbers(plan.cpus))} if plan.cpus else {}
    return {
        "type": plan.type,
        "label": plan.label or "none (xsm = absent)",
        "memory": f"{memory_mib} MiB",
        "vcpus": "1",
        **pinned,
        "grant frames": f"{plan.max_grant_frames}",
        "maptrack frames": f"{plan.max_maptrack_frames}",
        "event channels": f"{plan.max_event_channels}",
        "devices": "1 vif" if plan.side else "none",
        "migration": "refused",
        "xenstore": writable(plan),
    }


def writable(plan: Plan) -> str:
    """How many nodes of its home it may write."""
    leaves = (
        1
        + bool(plan.told_pages)
        + 2 * sum(link.is_server for link in plan.links)
        + (len(wiring.NETFRONT) if plan.side else 0)
    )
    return f"dom0's; writes {leaves} leaves"


class _Listed(NamedTuple):
    """What Xen itself says of a guest, by ``xl list -Z``. ``memory`` in MiB."""

    memory: int
    vcpus: int
    label: str


class Survey:
    """What Xen and xl know of many guests, asked of xl at once: it takes as long for one as for all."""

    def __init__(self, xl: Xl) -> None:
        self._xl = xl
        self._found: dict[int, tuple[Mapping[str, Any], _Listed]] = {}

    def seen(self, domid: int, store: Permissions, whole: Collection[int] = ()) -> dict[str, str]:
        """The same as ``wanted``, as Xen has it.

        ``whole`` are guests that xl is done with: what it says of those is kept until they are asked for; of another it
        may be only half true yet. Errors: OSError, ValueError for an answer that is none.
        """
        if domid not in self._found:
            self._found = self._ask({domid, *whole})
        if domid not in self._found:
            raise XlError(f"xl does not know domain {domid}")
        configuration, listed = self._found.pop(domid)  # the next look at it is a new one
        return _recorded(configuration, listed) | {
            "cpus": cpus.ranges(self._xl.cpus(domid)),
            "xenstore": _writable(domid, store),
        }

    def _ask(self, domids: Collection[int]) -> dict[int, tuple[Mapping[str, Any], _Listed]]:
        answer = json.loads(self._xl.run("list", "-l"))
        if not isinstance(answer, list):
            raise XlError("xl has no list of its guests")
        listed = _listed(self._xl.run("list", "-Z"))
        return {
            one["domid"]: (one["config"], listed[one["domid"]])
            for one in answer
            if one.get("domid") in domids and one["domid"] in listed and "config" in one
        }


def _recorded(said: Mapping[str, Any], listed: _Listed) -> dict[str, str]:
    """What xl recorded when it made the guest, or what Xen says it has if that is more.

    It has less where it maps pages of others: a PV guest gives some of its own for the room.
    """
    create, build = said.get("c_info", {}), said.get("b_info", {})  # what is not said is not as planned
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
        "label": listed.label,
        "memory": f"{max(listed.memory, build.get('max_memkb', 0) // _MIB_KIB)} MiB",
        "vcpus": str(max(listed.vcpus, build.get("max_vcpus", 1))),
        "grant frames": str(build.get("max_grant_frames")),
        "maptrack frames": str(build.get("max_maptrack_frames")),
        "event channels": str(build.get("event_channels")),
        "devices": ", ".join([*own, *others]) or "none",
        "migration": "refused" if str(build.get("disable_migrate")) == "True" else "possible",
    }


def _listed(said: str) -> dict[int, _Listed]:
    rows = (line.split() for line in said.splitlines())
    return {
        int(words[1]): _Listed(int(words[2]), int(words[3]), words[-1] if ":" in words[-1] else "none (xsm = absent)")
        for words in rows
        if len(words) >= 5 and all(word.isdecimal() for word in words[1:4])  # else no guest of ours
    }


def _writable(domid: int, store: Permissions) -> str:
    home = store.home(domid)
    own, leaves, open_to_all, foreign = 0, 0, 0, 0
    pending = [home]
    while pending:
        path = pending.pop()
        owner, *others = store.permissions(path)
        own += owner[1:] == str(domid)
        open_to_all += owner[0] != "n"  # the owner's letter is what everybody else may
        writers = {entry[1:] for entry in others if entry[0] in "bw"} - {"0"}
        leaves += str(domid) in writers
        foreign += bool(writers - {str(domid)})
        pending += [f"{path}/{entry}" for entry in store.directory(path)]
    if own:
        return f"{own} nodes are the guest's own"
    if open_to_all:
        return f"{open_to_all} nodes are open to everybody"
    if foreign:
        return f"{foreign} nodes are another guest's to write"
    return f"dom0's; writes {leaves} leaves"


def compare(plan: Mapping[str, str], found: Mapping[str, str]) -> list[Row]:
    """One row an attribute."""
    return [Row(name, value, found.get(name, "?"), found.get(name) == value) for name, value in plan.items()]


__all__ = ["Row", "Survey", "compare", "wanted", "wiring"]
