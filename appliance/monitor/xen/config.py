"""A guest's configuration for xl (xl.cfg(5)): what it gets, and everything that it does not need turned off.

xl reads such a file as ``key = value`` lines; texts in double quotes know no escape for a quote. So no text that could
hold one is ever let in.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from appliance.monitor.xen.plan import Plan

_TEXT = re.compile(r"[\x20-\x7e]*")


def of(plan: Plan, *, uuid: str, kernel: str, ramdisk: str, extra: str, memory_mib: int) -> dict[str, Any]:
    """The configuration of one life of ``plan``'s domain, key by key in xl's words."""
    found: dict[str, Any] = {
        "name": plan.title,
        "uuid": uuid,
        "type": plan.type,
        "kernel": kernel,
        "ramdisk": ramdisk,
        "extra": extra,
        "memory": memory_mib,
        "maxmem": memory_mib,
        "vcpus": 1,
        "maxvcpus": 1,
        # dead is dead: the monitor builds it anew, from the checked image, and nobody else does
        "on_poweroff": "destroy",
        "on_reboot": "destroy",
        "on_crash": "destroy",
        "on_watchdog": "destroy",
        "on_soft_reset": "destroy",
        "nomigrate": 1,
        "tsc_mode": "native",  # what is emulated instead costs an exit each time, and can be told apart all the same
        "max_grant_version": 1,
        "max_grant_frames": plan.max_grant_frames,
        "max_maptrack_frames": plan.max_maptrack_frames,
        "max_event_channels": plan.max_event_channels,
        # no device but those below
        "vfb": [],
        "disk": [],
        "pci": [],
        "usbctrl": [],
        "usbdev": [],
        "vif": [_vif(plan)] if plan.side else [],
        "passthrough": "disabled",
        "driver_domain": 0,
    }
    if plan.type == "pvh":
        found["nestedhvm"] = 0  # no hypervisor within a guest
    if plan.cpus:
        found["cpus"] = plan.cpus
    if plan.label:
        found["seclabel"] = plan.label
    if plan.init_label:
        found["init_seclabel"] = plan.init_label
    return found


def _vif(plan: Plan) -> str:
    """One interface. Its script does nothing: the monitor puts the other end into the bridge itself (bridges.py)."""
    assert plan.side is not None
    return f"mac={plan.side.mac},bridge={plan.side.bridge},script=/bin/true"


def render(configuration: Mapping[str, Any]) -> bytes:
    """As xl reads it. Errors: ValueError for a text that its syntax cannot hold."""
    return "".join(f"{key} = {_value(value)}\n" for key, value in configuration.items()).encode()


def _value(value: Any) -> str:
    match value:
        case bool():
            raise ValueError("xl has no booleans: 0 or 1")
        case int():
            return str(value)
        case str() if _TEXT.fullmatch(value) and not set(value) & set("\"'\\"):
            return f'"{value}"'
        case list():
            return f"[{', '.join(map(_value, value))}]"
    raise ValueError(f"{value!r} cannot be said in xl's syntax")
