"""The manifest: what was written is what is checked, and a byte that changed is seen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from appliance.image import manifest, store


@pytest.fixture
def made(tmp_path: Path) -> manifest.Image:
    (tmp_path / manifest.KERNEL).write_bytes(b"kernel")
    (tmp_path / manifest.RAMDISK).write_bytes(b"ramdisk")
    contents = {
        "role": "rng",
        "kernel": {"sha256": store.digest_of(b"kernel")},
        "ramdisk": {"sha256": store.digest_of(b"ramdisk")},
        "memory_mib": 48,
        "kernel_args": "console=hvc0",
    }
    manifest.write(tmp_path, contents)
    return manifest.image(tmp_path)


def test_an_untouched_image_is_good(made: manifest.Image) -> None:
    made.check()
    assert made.contents()["role"] == "rng"


@pytest.mark.parametrize("which", [manifest.KERNEL, manifest.RAMDISK])
def test_one_changed_byte_is_refused_and_said_where(made: manifest.Image, which: str) -> None:
    file = made.manifest.parent / which
    file.write_bytes(file.read_bytes()[:-1] + b"X")
    with pytest.raises(manifest.ImageError, match=f"{which} has the hash"):
        made.check()


def test_a_file_that_is_gone_is_refused(made: manifest.Image) -> None:
    made.ramdisk.unlink()
    with pytest.raises(manifest.ImageError, match="septum image build"):
        made.check()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 2}', '{"version": 1}', '{"version": 1, "kernel": 5}'])
def test_a_manifest_that_leaves_a_doubt_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / manifest.MANIFEST).write_text(text)
    with pytest.raises(manifest.ImageError, match="septum image build"):
        manifest.image(tmp_path)


def test_the_index_keeps_what_it_knows_and_has_relative_paths(made: manifest.Image) -> None:
    out = made.manifest.parent.parent
    manifest.index(out, {"rng/rng": made})
    manifest.index(out, {"log/log": made})
    found = json.loads((out / manifest.INDEX).read_text())
    assert set(found) == {"rng/rng", "log/log"}
    entry = found["rng/rng"]
    assert store.digest(out / entry["kernel"]) == entry["kernel_sha256"]
    assert store.digest(out / entry["ramdisk"]) == entry["ramdisk_sha256"]
    assert (entry["memory_mib"], entry["kernel_args"]) == (48, "console=hvc0")


def test_no_index_names_an_image_that_was_changed(made: manifest.Image) -> None:
    made.ramdisk.write_bytes(b"another")
    out = made.manifest.parent
    with pytest.raises(manifest.ImageError):
        manifest.index(out, {"rng/rng": made})
    assert not (out / manifest.INDEX).exists()
