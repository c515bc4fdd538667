"""`septumctl` from outside against a box on Xen: admin is a guest with an interface of its own.

Four guests of the managed gateway, its own images and its own policy, the monitor's own back end (interop/managed.py).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance.assembly.load import ASSEMBLIES, load
from appliance.image.build import build_roles
from tests.system.lab.ends.managed import CTL
from tests.xen.gateway import put_images
from tests.xen.machines import Machines, policy_of
from tests.xen.rig import Rig
from tests.xen.rig.nets import TAP
from tests.xen.rig.places import XEN, step

pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]  # the first build of a kernel, and of the machine

BOX, PORT = "some", 50051
OWN, ADMIN = "198.51.100.2/24", "198.51.100.1"
ROLES = ("admin", "config", "store", "log")
FOLDER = "/root/some"


class Managed:
    """The box, and who administers it, in the namespace at the other end of dom0's card."""

    def __init__(self, rig: Rig, folder: Path) -> None:
        self.rig = rig
        self.environment = {
            **os.environ,
            "SEPTUM_CONFIG": str(folder / "console"),
            "SEPTUM_STATE_DIR": str(folder / "state"),
            "NO_COLOR": "1",
        }

    def init(self, folder: Path) -> None:
        septum = [sys.executable, "-m", "appliance.cli.septum", "init", BOX, "--address", f"{ADMIN}:{PORT}"]
        subprocess.run(septum, env=self.environment, check=True)
        for file in (folder / "state" / BOX / "management").iterdir():
            self.rig.put(f"{FOLDER}/management/{file.name}", file.read_bytes(), 0o600)

    def ctl(self, *words: str, code: int = 0) -> Any:
        command = self.rig.lan.command(CTL, "--timeout", "120", *words, "--json")
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == code, f"{words}: {done.returncode} {done.stdout} {done.stderr}\n{self.said()}"
        return json.loads(done.stdout) if done.stdout.strip() else None

    def start(self) -> None:
        """In dom0, until ``end``."""
        words = f"/usr/bin/python3.11 -B /septum/tests/xen/interop/managed.py {FOLDER} {ADMIN} {PORT}"
        where = "PYTHONPATH=/septum:/septum/proto SEPTUM_PATIENCE=10 PYTHONUNBUFFERED=1"
        self.rig.run(f"{where} setsid {words} > {FOLDER}/said 2>&1 < /dev/null &", check=True)
        self.line(0, 1300)

    def line(self, number: int, seconds: float) -> dict[str, Any]:
        """The line of that number that it prints. Errors: AssertionError if it does not come, with all that it said."""
        over = time.monotonic() + seconds
        while True:
            _, said = self.rig.run(["cat", f"{FOLDER}/said"])
            lines = [line for line in said.splitlines() if line.startswith("{")]
            if len(lines) > number:
                return dict(json.loads(lines[number]))
            assert time.monotonic() < over and "Traceback" not in said, said + self.rig.run("xl list")[1]
            time.sleep(2)

    def said(self) -> str:
        """All that the monitor said, and what is left of its guests."""
        return self.rig.run(f"cat {FOLDER}/said; xl list")[1]

    def end(self) -> dict[str, Any]:
        self.rig.run(["touch", f"{FOLDER}/end"], check=True)
        return self.line(1, 120)


@pytest.fixture(scope="module")
def box(machines: Machines, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Managed]:
    assembly = load(ASSEMBLIES / "vpn-managed.toml")
    rig = machines.lend("managed", lambda: Rig(policy=policy_of(assembly), memory=2048))
    roles = {domain.role.name: domain.role for domain in assembly.domains}
    with step("images of a managed gateway"):
        images = build_roles(roles.values(), XEN / "images")
    put_images(rig, XEN / "images", [images[name] for name in ROLES])
    folder = tmp_path_factory.mktemp("managed")
    rig.lan.run("ip", "address", "replace", OWN, "dev", TAP)
    rig.lan.run("ip", "link", "set", TAP, "up")
    rig.run(f"ip addr add {ADMIN}/24 dev lan; ip link set lan up", check=True)
    managed = Managed(rig, folder)
    managed.init(folder)
    managed.start()
    try:
        yield managed
    finally:
        rig.run(["touch", f"{FOLDER}/end"])
        rig.lan.run("ip", "address", "flush", "dev", TAP, check=False)


def test_what_only_administrators_use_is_admins_and_nobody_elses(box: Managed, report: list[tuple[str, str]]) -> None:
    seen = box.line(0, 1)
    report.append(("xen: four guests of a managed box, all run after", f"{seen['all run after s']} s"))
    assert seen["admin is at"] == [f"{ADMIN}/24"]
    assert "inet" not in seen["dom0 has on it"]


def test_septumctl_is_told_of_the_box(box: Managed) -> None:
    status = box.ctl("status")
    assert [one["name"] for one in status["domains"]] == ["log", "store", "config", "admin"]
    assert status["backend"] == "xen"


def test_what_is_signed_is_kept(box: Managed) -> None:
    assert box.ctl("admins", "invite", "ann", "--role", "viewer")["token"]
    assert "ann" in json.dumps(box.ctl("admins", "list"))


def test_an_order_reaches_the_monitor(box: Managed) -> None:
    assert box.ctl("domains", "restart", "log", "--yes")["restarts"] == 1
    assert box.end()["ordered"] == ["log"]


def test_what_xen_enforces_is_what_the_channels_say(box: Managed) -> None:
    """With dom0 at the other end of store's disk and of what admin is told, and of nothing else's."""
    seen = box.line(0, 1)["policy"]
    assert seen["own"] == []
    assert sorted(line.partition(":")[0] for line in seen["without a channel"]) == [
        "admin on grants of config",
        "events of admin to config",
        "events of config to admin",
    ]
    assert sorted(line.partition(":")[0] for line in seen["without an interface"]) == [
        "admin on grants of dom0",
        "dom0 on grants of admin",
    ]


def test_xen_refused_nothing_that_the_box_needs(box: Managed) -> None:
    """With the control: what it refuses to dom0 stands in the same place."""
    code, said = box.rig.run(["xl", "setenforce", "0"])
    assert code != 0, said
    denied = [line for line in box.rig.console().splitlines() if "avc:" in line and "denied" in line]
    assert any("setenforce" in line for line in denied)
    assert [line for line in denied if "septum_" in line] == []
