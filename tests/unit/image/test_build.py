"""An image waits for its own kernel and no other, and the index has all that were asked for or none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from appliance.assembly.load import VPN, load
from appliance.assembly.model import Role
from appliance.image import build, kernel, manifest
from appliance.image.build import BuildError
from appliance.image.manifest import Image

ROLES = [domain.role for domain in load(VPN).domains if domain.role.name in ("rng", "log", "red")]
PATIENCE = 20.0


@pytest.fixture(autouse=True)
def nothing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """An image is there when its kernel is."""

    def image(role: Role, booted: Future[kernel.Kernel], source: Any, out: Path, *rest: object) -> Image:
        folder = out / role.name
        folder.mkdir(parents=True)
        (folder / manifest.KERNEL).write_text(booted.result().flavour)
        (folder / manifest.RAMDISK).write_text(role.name)
        digests = [build.store.digest(folder / name) for name in (manifest.KERNEL, manifest.RAMDISK)]
        return Image(
            folder / manifest.KERNEL, folder / manifest.RAMDISK, folder / manifest.MANIFEST, *digests, 48, "quiet"
        )

    monkeypatch.setattr(build, "_image", image)
    monkeypatch.setattr(kernel, "source", lambda: None)


def _kernel(flavour: kernel.Flavour) -> kernel.Kernel:
    return kernel.Kernel(Path("kernel"), 1, flavour, "6.1", "0" * 64, "0" * 64)


def test_an_image_waits_for_its_own_kernel_and_no_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    compiled = Event()

    def kernels(of: Any, wanted: Any, out: Path, progress: Any) -> Iterator[kernel.Kernel]:
        assert {*wanted} == {*kernel.FLAVOURS}
        yield _kernel("plain")
        assert compiled.wait(PATIENCE)
        yield _kernel("net")

    monkeypatch.setattr(kernel, "build", kernels)
    with build.underway(ROLES, tmp_path) as images:
        try:
            for name in ("rng", "log"):
                assert images[name].result(PATIENCE).kernel.read_text() == "plain"
            assert not images["red"].done()
            assert not (tmp_path / manifest.INDEX).exists()
        finally:
            compiled.set()
        assert images["red"].result(PATIENCE).kernel.read_text() == "net"
    assert {"rng/rng", "log/log", "net/red"} == {*json.loads((tmp_path / manifest.INDEX).read_text())}


def test_a_kernel_that_fails_is_said_and_no_image_is_listed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def kernels(of: Any, wanted: Any, out: Path, progress: Any) -> Iterator[kernel.Kernel]:
        yield _kernel("plain")
        raise kernel.KernelError("the kernel does not compile: no room")

    monkeypatch.setattr(kernel, "build", kernels)
    with pytest.raises(BuildError, match="does not compile: no room"):
        build.build_roles(ROLES, tmp_path)
    assert not (tmp_path / manifest.INDEX).exists()


def test_an_error_of_who_waits_is_no_error_of_building(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(kernel, "build", lambda *_: iter([_kernel("plain"), _kernel("net")]))
    with pytest.raises(FileNotFoundError, match="its own"), build.underway(ROLES, tmp_path):
        raise FileNotFoundError("its own")
    assert not (tmp_path / manifest.INDEX).exists()


def test_who_wants_no_network_has_no_kernel_with_one_built(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[set[str]] = []

    def kernels(of: Any, wanted: Any, out: Path, progress: Any) -> Iterator[kernel.Kernel]:
        asked.append({*wanted})
        return iter([_kernel("plain")])

    monkeypatch.setattr(kernel, "build", kernels)
    assert {*build.build_roles([role for role in ROLES if role.name != "red"], tmp_path)} == {"rng", "log"}
    assert asked == [{"plain"}]
