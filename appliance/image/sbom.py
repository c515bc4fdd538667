"""What an image is made of, for machines: CycloneDX 1.5 in JSON, without a time or a number drawn at random.

Each package is a component that holds its files; a file has the hash of what is in the image, and where bytecode or a
stripped library was made of it, that of the source. Wheels that say what they were linked with are believed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from appliance.image import store
from appliance.image.kernel import PACKAGE, PATCHES, Kernel
from appliance.image.tree import Part
from appliance.image.vouch import Package

_Json = dict[str, Any]


def _file(part: Part) -> _Json:
    found: _Json = {
        "type": "file",
        "name": part.path,
        "hashes": [{"alg": "SHA-256", "content": store.digest_of(part.data)}],
    }
    if part.source_sha256 is not None:
        found["properties"] = [{"name": "septum:source-sha256", "value": part.source_sha256}]
    return found


def _linked(package: Package, site: Path) -> list[_Json]:
    """What a wheel says that its libraries hold (PEP 770: <name>.dist-info/sboms/)."""
    pattern = f"{package.name.replace('-', '_')}-{package.version}.dist-info/sboms/*.json"
    found: list[_Json] = []
    for file in sorted(site.glob(pattern)):
        components = json.loads(file.read_bytes()).get("components", [])
        found += [{key: each[key] for key in ("type", "name", "version", "purl") if key in each} for each in components]
    return found


def _package(package: Package, parts: Iterable[Part], site: Path) -> _Json:
    linked = _linked(package, site) if package.kind == "pypi" else []
    return {
        "type": "library",
        "name": package.name,
        "version": package.version,
        "purl": package.purl,
        "bom-ref": package.purl,
        "components": [*(_file(part) for part in parts), *linked],
    }


def bom(role: str, version: str, kernel: Kernel, parts: list[Part], site: Path) -> bytes:
    """The bill of materials of ``role``'s image."""
    packages = sorted({part.package for part in parts})
    inside = [_package(each, [part for part in parts if part.package == each], site) for each in packages]
    source = Package("deb", PACKAGE, kernel.version)
    inside.append(
        {
            "type": "operating-system",
            "name": PACKAGE,
            "version": kernel.version,
            "purl": source.purl,
            "bom-ref": source.purl,
            "hashes": [{"alg": "SHA-256", "content": store.digest(kernel.file)}],
            "properties": [
                {"name": "septum:package-sha256", "value": kernel.source_sha256},
                {"name": "septum:config-sha256", "value": kernel.config_sha256},
            ],
            "pedigree": {
                "patches": [
                    {"type": "unofficial", "diff": {"text": {"contentType": "text/plain", "content": each.read_text()}}}
                    for each in PATCHES
                ]
            },
        }
    )
    whole = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {"type": "firmware", "name": f"septum-{role}", "version": version}},
        "components": inside,
    }
    return (json.dumps(whole, indent=1, sort_keys=True) + "\n").encode()
