"""Who keeps a store's disk, as the process that it is: sealed, and able to do all that it has to."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from septum.v1.disk import DISK_DONE, DISK_FULL, DISK_READ, DISK_SYNC, DISK_WRITE, DiskOrder

from appliance.cli import xenseals
from appliance.monitor.sandbox.plan import FIRST_OUTER_ID
from appliance.monitor.spawn import Child, spawn
from appliance.monitor.xen import disk as module
from appliance.monitor.xen.disk import DiskProcess, Place
from appliance.monitor.xen.keeping import KEPT, Image
from appliance.vchan import memfd
from appliance.vchan.endpoint import Endpoint
from appliance.vchan.ring import Side
from appliance.vchan.schema import schema
from components.store.disk import Disk
from components.store.slots import Store
from tests.unit.operated import until

STAND_IN = Path(__file__).with_name("keeper_standin.py")


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[DiskProcess, Endpoint, Path, list[str]]]:
    shape = schema("disk")
    fds = memfd.create(shape.orders)

    def started(descriptors: Mapping[int, int], program: Path) -> Child:
        more = {5: fds.client_event_fd, 6: fds.memory_fd, 7: fds.server_event_fd}
        return spawn({**descriptors, **more}, program)

    monkeypatch.setattr(module, "spawn", started)
    lines: list[str] = []
    image = os.open(tmp_path / "store", os.O_RDWR | os.O_CREAT, 0o600)
    disk = DiskProcess(image, FIRST_OUTER_ID + 200, lambda priority, text: lines.append(text), STAND_IN)
    wire = memfd.attach(fds.memory_fd, fds.server_event_fd, fds.client_event_fd, shape.orders)
    disk.tell(Place(7, 8, 9))
    disk.turn(0.0)
    yield disk, Endpoint(wire, Side.SERVER, shape), tmp_path / "store", lines
    disk.close()
    os.close(image)
    for fd in fds:
        os.close(fd)


def test_it_is_sealed_and_keeps_the_disk(kept: tuple[DiskProcess, Endpoint, Path, list[str]]) -> None:
    disk, end, path, lines = kept

    def opened() -> bool:
        end.progress()
        disk.turn(0.0)
        assert not lines, lines
        return end.is_open

    until(opened, 20)
    assert until(end.receive).size == 0

    def order(given: DiskOrder) -> object:
        assert end.send(given)
        end.flush()
        return until(end.receive)

    store = Store(Disk(order).image)  # type: ignore[arg-type]
    for version in (1, 2, 3):
        store.put("keymgr", "floor", version, bytes([version]) * 65535)
    assert Store(Disk(order).image).get("keymgr", "floor") == (3, b"\3" * 65535)  # type: ignore[arg-type]
    assert b"\3" * 65535 in path.read_bytes()
    for act in (DISK_READ, DISK_WRITE, DISK_SYNC):
        assert order(DiskOrder(act=act, length=4, count=1, data=b"")).outcome == DISK_DONE  # type: ignore[attr-defined]
    assert disk._life is not None
    status = Path(f"/proc/{disk._life.child.pid}/status").read_text()
    assert "Seccomp:\t2" in status and "CapEff:\t0000000000000000" in status and "NoNewPrivs:\t1" in status
    assert f"Uid:\t{FIRST_OUTER_ID + 200}\t" in status
    assert os.listdir(f"/proc/{disk._life.child.pid}/root") == []
    assert sorted(map(int, os.listdir(f"/proc/{disk._life.child.pid}/fd"))) == [*KEPT, 7]
    assert not lines
    _its_seal_is_shown(disk)


def _its_seal_is_shown(disk: DiskProcess) -> None:
    """As `septum ps --seals` has it, beside the guests'; what the stand-in holds besides is seen to be there."""

    def shown(disk: dict[str, Any]) -> list[dict[str, Any]]:
        return xenseals.processes({"domains": [{"name": "rng"}, {"name": "store", "disk": disk}]})

    def amiss(described: dict[str, Any]) -> set[str]:
        (entry,) = shown(described)
        wrong = {row["attribute"] for row in entry["attributes"] if not row["ok"]}
        assert entry["sealed"] is not bool(wrong)
        return wrong

    said = disk.describe()
    plan = said["seal"]
    as_it_is = {**said, "seal": {**plan, "keep_fds": [*plan["keep_fds"], 7]}}
    assert amiss(as_it_is) == set()
    (entry,) = shown(as_it_is)
    assert (entry["domain"], entry["pid"]) == ("disk of store", said["pid"])
    assert {"user", "capabilities", "files", "filter program", "descriptors"} <= {
        row["attribute"] for row in entry["attributes"]
    }
    assert amiss(said) == {"descriptors"}
    for change, attributes in (
        ({"syscalls": ["pread64"]}, {"filter program"}),
        ({"outer_uid": 5, "outer_gid": 5}, {"user", "group"}),
        ({"file_bytes": 0}, {"rlimit_fsize"}),
    ):
        assert amiss({**as_it_is, "seal": {**as_it_is["seal"], **change}}) == attributes
    assert shown({**said, "pid": None}) == []  # nobody keeps it while there is no guest


def test_a_full_disk_is_said() -> None:
    full = os.open("/dev/full", os.O_RDWR)
    assert Image(full).carry_out(DiskOrder(act=DISK_WRITE, data=b"x")).outcome == DISK_FULL
    os.close(full)
