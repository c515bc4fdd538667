"""What the kernels' source is changed by: it fits line by line, once, or there is no kernel."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.image import kernel
from appliance.image.kernel import KernelError, Source

SOURCE = Source("linux-source-6.1_6.1.192-2_all.deb", "6.1.192-2", "0" * 64)


def tree(folder: Path, change: str = "") -> Path:
    """The lines that the patches stand on, as they are before, each file after a line that is not named."""
    for patch in kernel.PATCHES:
        place = None
        for line in patch.read_text().splitlines():
            if line.startswith("--- a/"):
                place = folder / line.removeprefix("--- a/")
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_text("/* before */\n")
            elif place is not None and line[:1] in (" ", "-") and not line.startswith("---"):
                place.write_text(place.read_text() + line[1:] + change + "\n")
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
