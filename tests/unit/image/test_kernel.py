"""What the kernels' source is changed by: it fits line by line, once, or there is no kernel."""

from __future__ import annotations

from collections.abc import Iterator
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


@pytest.mark.parametrize("flavour", kernel.FLAVOURS)
def test_a_kernel_is_found_by_its_patches(flavour: kernel.Flavour, monkeypatch: pytest.MonkeyPatch) -> None:
    key = kernel.key(SOURCE, flavour)
    monkeypatch.setattr(kernel, "PATCHES", ())
    assert kernel.key(SOURCE, flavour) != key


def test_a_kernel_is_found_by_its_own_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {flavour: kernel.key(SOURCE, flavour) for flavour in kernel.FLAVOURS}
    configuration = kernel.configuration
    monkeypatch.setattr(
        kernel,
        "configuration",
        lambda flavour: configuration(flavour) + ("CONFIG_MORE=y\n" if flavour == "net" else ""),
    )
    assert kernel.key(SOURCE, "plain") == keys["plain"]
    assert kernel.key(SOURCE, "net") != keys["net"] != keys["plain"]


class Compiler:
    """In the place of what takes minutes: keeps which tree it was asked to build what in."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.built: list[tuple[str, list[str]]] = []
        self.fails: str | None = None
        monkeypatch.setattr(kernel, "_fetch", lambda of, out: out / "package.deb")
        monkeypatch.setattr(kernel, "_unpack", lambda package, into: into.mkdir())
        monkeypatch.setattr(kernel, "_patch", lambda work, of: None)
        monkeypatch.setattr(kernel, "_build", self.build)

    def build(self, flavour: str, work: Path, into: Path) -> Iterator[str]:
        self.built.append((flavour, sorted(file.name for file in work.iterdir())))
        (work / flavour).touch()
        yield "CC one.o"
        if flavour == self.fails:
            raise KernelError("does not compile")
        for name in ("kernel", "kernel.zst", "config"):
            (into / name).write_text(flavour)
        (into / "sha256").write_text(store.digest(into / "kernel"))


def _silent(doing: str, share: float) -> None:
    assert 0 <= share <= 1


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Compiler:
    return Compiler(monkeypatch)


def test_one_kernel_is_there_before_the_next_is_built_in_its_tree(compiler: Compiler, tmp_path: Path) -> None:
    coming = kernel.build(SOURCE, ("net", "plain"), tmp_path, _silent)
    assert next(coming).file.read_text() == "plain"
    assert compiler.built == [("plain", [])]
    assert next(coming).file.read_text() == "net"
    assert compiler.built == [("plain", []), ("net", ["plain"])]
    assert list(coming) == []
    assert not list(tmp_path.glob("*tree*"))


def test_a_kernel_that_nobody_wants_is_not_built(compiler: Compiler, tmp_path: Path) -> None:
    for _ in range(2):
        assert [each.flavour for each in kernel.build(SOURCE, ["net"], tmp_path, _silent)] == ["net"]
    assert compiler.built == [("net", [])]


def test_a_kernel_is_kept_when_the_next_one_fails(compiler: Compiler, tmp_path: Path) -> None:
    compiler.fails = "net"
    with pytest.raises(KernelError, match="does not compile"):
        list(kernel.build(SOURCE, kernel.FLAVOURS, tmp_path, _silent))
    assert (tmp_path / kernel.key(SOURCE, "plain")).is_dir()
    assert not (tmp_path / kernel.key(SOURCE, "net")).exists()
    assert not list(tmp_path.glob("*tree*"))


def test_what_a_killed_build_left_is_not_built_in(compiler: Compiler, tmp_path: Path) -> None:
    (tmp_path / ".kernels.tree").mkdir()
    (tmp_path / ".kernels.tree/half.o").touch()
    list(kernel.build(SOURCE, ["plain"], tmp_path, _silent))
    assert compiler.built == [("plain", [])]


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
