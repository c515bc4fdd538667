"""Two guests as a box has them, and dom0 in the place of a third domain: they meet, and outlive each other."""

from __future__ import annotations

import json
import os
import shlex
import tomllib
from collections.abc import Mapping
from typing import Any, Final

import pytest

from appliance.image import cpio
from appliance.image.manifest import Image
from tests.xen.rig import Rig
from tests.xen.rig.places import ROOT

pytestmark = pytest.mark.timeout(1800)  # the first build of a kernel, and of the machine

TYPE: Final = os.environ.get("SEPTUM_XEN_TYPE", "pv")
PORTS: Final[dict[str, list[dict[str, Any]]]] = {
    "rng": [
        {"port": "keys", "peer": "keymgr", "schema": "random", "end": "server", "channel": 0},
        {"port": "log", "peer": "log", "schema": "records", "end": "out", "channel": 1},
    ],
    "log": [{"port": "records", "peer": "rng", "schema": "records", "end": "in", "channel": 1}],
}


def description(component: str) -> bytes:
    """The segment that says what the guest is, for a box of these two."""
    declared = tomllib.loads((ROOT / f"components/{component}/component.toml").read_text())["roles"][component]
    said = {
        "domain": component,
        "role": component,
        "component": component,
        "main": declared["main"],
        "imports": declared.get("imports", []),
        "ports": PORTS[component],
        "devices": declared.get("devices", []),
        "counters": declared["counters"],
        "status_pages": 1,
        "seal": {"syscalls": declared.get("syscalls", [])},
        "settings": {},
    }
    return cpio.archive([cpio.file("description.json", json.dumps(said).encode(), 0o400)])


def test_two_guests_and_dom0(rig: Rig, images: Mapping[str, Image]) -> None:
    """The real PID 1: seals itself, meets its peers, outlives one of them."""
    image = images["rng"]
    rig.put("/g/kernel", image.kernel.read_bytes())
    for component in PORTS:
        rig.put(f"/g/{component}", description(component) + images[component].ramdisk.read_bytes())
    words = ["/septum/tests/xen/interop/pair.py", TYPE, "/g/kernel", "/g/rng", "/g/log", str(image.memory_mib)]
    command = f"PYTHONPATH=/septum:/septum/proto /usr/bin/python3.11 -B {shlex.join([*words, image.kernel_args])}"
    try:
        seen = json.loads(rig.run(command, 600, check=True)[1].splitlines()[-1])
    finally:
        rig.run("for name in rng log; do xl destroy $name; done; rm -rf /g")
    assert seen["random"]
    assert all(seen["landlock"])
    assert seen["records at log"] >= 1
    assert seen["records at the other log"] >= 1
    assert seen["rng accuses"]
    assert seen["rng answers its offender's next life"]
    assert seen["rng answers while log is gone"]
    assert seen["another log"]
    assert seen["no ghost"], seen["list"]
    assert seen["a dead server's pages stay"]
    assert seen["a ghost while they are mapped"]
    assert seen["closed"]
