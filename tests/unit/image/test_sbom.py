"""The bill of materials: every file of the image is in it once, below the package that brought it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from appliance.image import sbom, store
from appliance.image.kernel import Kernel
from appliance.image.tree import Part
from appliance.image.vouch import Package

LIBC = Package("deb", "libc6", "2.36-9+deb12u10")
RUST = Package("pypi", "cryptography", "50.0.2")
OURS = Package("septum", "septum", "0.1.0")
PARTS = [
    Part("a.so", b"a", 0o555, LIBC, store.digest_of(b"a")),
    Part("b.so", b"b", 0o555, RUST, store.digest_of(b"whole b")),
    Part("c.pyc", b"c", 0o444, OURS, store.digest_of(b"text of c")),
    Part("init", b"d", 0o555, OURS),
]


@pytest.fixture
def bill(tmp_path: Path) -> bytes:
    (tmp_path / "kernel").write_bytes(b"kernel")
    kernel = Kernel(tmp_path / "kernel", 3, "plain", "6.1.192-2", "ab" * 32, "cd" * 32)
    linked = tmp_path / "cryptography-50.0.2.dist-info/sboms"
    linked.mkdir(parents=True)
    component = {"type": "library", "name": "openssl", "version": "3.5", "purl": "pkg:generic/openssl", "bom-ref": "x"}
    (linked / "rust.cyclonedx.json").write_text(json.dumps({"components": [component]}))
    return sbom.bom("rng", "0.1.0", kernel, PARTS, tmp_path)


def test_every_file_is_in_it_once_with_its_hash_and_package(bill: bytes) -> None:
    whole = json.loads(bill)
    assert (whole["bomFormat"], whole["specVersion"]) == ("CycloneDX", "1.5")
    files = {
        each["name"]: (each["hashes"][0]["content"], package["purl"])
        for package in whole["components"]
        for each in package.get("components", [])
        if each["type"] == "file"
    }
    assert files == {part.path: (store.digest_of(part.data), part.package.purl) for part in PARTS}


def test_the_kernel_and_what_wheels_were_linked_with_are_in_it(bill: bytes) -> None:
    packages = {each["name"]: each for each in json.loads(bill)["components"]}
    assert packages["linux-source-6.1"]["version"] == "6.1.192-2"
    assert packages["linux-source-6.1"]["hashes"][0]["content"] == store.digest_of(b"kernel")
    assert [each["name"] for each in packages["cryptography"]["components"]] == ["b.so", "openssl"]


def test_what_linux_is_changed_by_is_in_it_whole(bill: bytes) -> None:
    (found,) = [one for one in json.loads(bill)["components"] if one["name"] == "linux-source-6.1"]
    (patch,) = found["pedigree"]["patches"]
    assert "+\tx86_platform.calibrate_cpu = xen_tsc_khz;" in patch["diff"]["text"]["content"]


def test_references_are_unique_and_nothing_tells_of_time(bill: bytes) -> None:
    references = [each["bom-ref"] for each in json.loads(bill)["components"]]
    assert len(set(references)) == len(references)
    assert b"timestamp" not in bill
    assert b"serialNumber" not in bill
