"""What the kernels' source is changed by: it fits line by line, once, or there is no kernel."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.image import kernel, store
from appliance.image.kernel import KernelError, Source

SOURCE = Source("linux-source-6.1_6.1.192-2_all.deb", "6.1.192-2", "0" * 64)


def tree(folder: Path, change: str = "") -> Path:
    """The lines that the patches stand on, as they are before, each file after a line that is not named. ``change``
    stands behind the first of them.
    """
    for patch in kernel.PATCHES:
        place = None
        for line in patch.read_text().splitlines():
            if line.startswith("--- a/"):
                place = folder / line.removeprefix("--- a/")
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_text("/* before */\n")
            elif place is not None and line[:1] in (" ", "-") and not line.startswith("---"):
                place.write_text(place.read_text() + line[1:] + change + "\n")
                change = ""
    return folder


def lines(folder: Path) -> int:
    return sum(len(file.read_text().splitlines()) for file in folder.rglob("*.[ch]"))


def test_a_patch_is_applied_once(tmp_path: Path) -> None:
    before = lines(tree(tmp_path))
    kernel._patch(tmp_path, SOURCE)
    assert lines(tmp_path) == before + 1
    assert "calibrate_cpu = xen_tsc_khz" in (tmp_path / "arch/x86/xen/time.c").read_text()
    with pytest.raises(KernelError, match=r"clock\.patch does not fit .* 6\.1\.192-2: does it need it still"):
        kernel._patch(tmp_path, SOURCE)


def test_a_source_that_has_changed_there_makes_no_kernel(tmp_path: Path) -> None:
    with pytest.raises(KernelError, match=r"clock\.patch does not fit"):
        kernel._patch(tree(tmp_path, " /* changed */"), SOURCE)


def test_kernels_are_found_by_their_patches(monkeypatch: pytest.MonkeyPatch) -> None:
    key = kernel.key(SOURCE)
    monkeypatch.setattr(kernel, "PATCHES", ())
    assert kernel.key(SOURCE) != key


def test_a_package_that_was_changed_in_the_store_makes_no_kernel(tmp_path: Path) -> None:
    (tmp_path / store.key("package", SOURCE.sha256)).mkdir()
    (tmp_path / store.key("package", SOURCE.sha256) / "package.deb").write_bytes(b"another")
    with pytest.raises(KernelError, match="apt's list says"):
        kernel._fetch(SOURCE, tmp_path)


def test_a_kernel_that_was_changed_in_the_store_is_none(tmp_path: Path) -> None:
    folder = tmp_path / "plain"
    folder.mkdir()
    for name in ("kernel", "kernel.zst", "config"):
        (folder / name).write_bytes(b"built")
    (folder / "sha256").write_text(store.digest_of(b"built"))
    assert kernel._kernel(folder, "plain", SOURCE).compressed == 5
    (folder / "kernel").write_bytes(b"")  # as a power cut leaves it
    with pytest.raises(KernelError, match="is not what was built"):
        kernel._kernel(folder, "plain", SOURCE)


@pytest.mark.parametrize("name", ["MITIGATION_TSA", "MITIGATION_NEW", "CPU_SRSO", "CPU_IBPB_ENTRY"])
def test_a_mitigation_that_is_left_out_is_seen(name: str) -> None:
    assert kernel._MITIGATION.findall(f"CONFIG_A=y\n# CONFIG_{name} is not set\n# CONFIG_B is not set\n") == [name]
    assert kernel._MITIGATION.findall(f"CONFIG_{name}=y\n# CONFIG_CPU_FREQ is not set\n") == []
