"""`septum check --backend xen` and `septum policy`, where there is no Xen."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from appliance.assembly.load import VPN, load
from appliance.assembly.model import _PROOF, Network
from appliance.cli.commands import app
from appliance.monitor import main
from appliance.monitor.notify import Logger
from appliance.monitor.xen import bridges, fit
from appliance.monitor.xen import xl as tools


def ran(*words: str) -> tuple[int, str]:
    ended = CliRunner().invoke(app, list(words))
    return ended.exit_code, " ".join(ended.output.split())


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of images for all roles, each of the same two files."""
    files = {"kernel": tmp_path / "kernel", "ramdisk": tmp_path / "ramdisk"}
    entry: dict[str, Any] = {"kernel_args": "console=hvc0", "memory_mib": 48}
    for kind, file in files.items():
        file.write_bytes(kind.encode())
        entry |= {kind: kind, f"{kind}_sha256": hashlib.sha256(kind.encode()).hexdigest()}
    index = {f"{domain.role.component}/{domain.role.name}": entry for domain in load(VPN).domains}
    (tmp_path / "images.json").write_text(json.dumps(index))
    monkeypatch.setenv("SEPTUM_IMAGE_DIR", str(tmp_path))
    monkeypatch.setattr(tools.shutil, "which", lambda name, **other: f"/usr/sbin/{name}")
    return tmp_path


def test_without_images_there_is_nothing_to_boot(images: Path) -> None:
    (images / "images.json").unlink()
    code, said = ran("check", "vpn", "--backend", "xen")
    assert code == 1 and "septum image build" in said


def test_what_is_no_dom0_is_told_so(images: Path) -> None:
    code, said = ran("check", "vpn", "--backend", "xen")
    assert code == 1 and "does not run on Xen" in said


def test_a_xen_that_fits(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "see_fit", lambda assembly, xl: None)
    code, said = ran("check", "vpn", "--backend", "xen")
    assert code == 0 and "9 guests (pvh) of 432 MiB in all" in said and "Xen enforces its policy" in said
    code, said = ran("check", "vpn", "--backend", "xen", "--json")
    assert json.loads(said)["xen"] == {"guests": 9, "memory_mib": 432, "type": "pvh", "xsm": "enforcing"}
    (images / "ramdisk").write_bytes(b"another")
    code, said = ran("check", "vpn", "--backend", "xen")
    assert code == 1 and "is not what was built" in said


def test_up_looks_at_xen_before_it_takes_an_interface(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[object] = []
    monkeypatch.setattr(bridges, "Bridges", lambda *what: taken.append(what))
    built = replace(load(VPN), network=Network("wg0", lan="eth1", wan="eth2"), proof=_PROOF)
    with pytest.raises(fit.XenError, match="does not run on Xen"):
        main._on_xen(built, "wg0", tmp_path, None, Logger("wg0", 2))
    assert taken == []
    monkeypatch.setattr(fit, "see_room", lambda assembly, box: None)
    main._on_xen(built, "wg0", tmp_path, None, Logger("wg0", 2))
    assert len(taken) == 1


def test_a_policy_is_made_of_xens_sources_alone(tmp_path: Path) -> None:
    code, said = ran("policy", "vpn", "--xen", str(tmp_path), "-o", str(tmp_path / "policy"))
    assert code == 1 and "apt-get source xen" in said and not (tmp_path / "policy").exists()
