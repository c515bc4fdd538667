"""What a guest holds besides its channels: a disk that is not there, what it is known by, pages to be told by."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from appliance.guest import boot_xen, boxpage
from appliance.vchan.layout import PAGE
from appliance.xen.gntalloc import Lent


class Store:
    def __init__(self) -> None:
        self.written: list[tuple[str, str]] = []

    def write(self, path: str, value: str) -> None:
        self.written.append((path, value))


@pytest.fixture
def lent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, int]]:
    """(descriptor, to whom, pages) of each loan."""
    found: list[tuple[int, int, int]] = []

    def lend(fd: int, domid: int, count: int) -> Lent:
        found.append((fd, domid, count))
        return Lent(0, tuple(range(10 * len(found), 10 * len(found) + 2)))

    monkeypatch.setattr(boot_xen.gntalloc, "open_device", lambda: 100 + len(found))
    monkeypatch.setattr(boot_xen.gntalloc, "lend", lend)
    return found


def test_pages_to_be_told_by_are_lent_to_dom0_each_by_a_descriptor_of_its_own(
    lent: list[tuple[int, int, int]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(boot_xen, "_IDENTITY", str(tmp_path / "identity"))
    store = Store()
    wanted = ["box", "orders", "identity", "store"]
    description = {"devices": wanted, "identity": "a certificate"}
    held = boot_xen._devices(description, store)  # type: ignore[arg-type]
    assert lent == [(100, 0, boxpage.BOX_BYTES // PAGE), (101, 0, boxpage.ORDERS_BYTES // PAGE)]
    assert store.written == [("data/told", "10,11,20,21")]
    assert {name: fd for name, fd in held.items() if name != "identity"} == {"box": 100, "orders": 101}
    assert os.pread(held["identity"], 100, 0) == b"a certificate" and "identity" not in description
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.write(held["identity"], b"x")
    os.close(held["identity"])


def test_what_nobody_can_open_ends_the_guest() -> None:
    with pytest.raises(ValueError, match="red_link"):
        boot_xen._devices({"devices": ["red_link", "store"]}, Store())  # type: ignore[arg-type]
