"""The box's certificates, as OpenSSL's own command sees them; and what `septum init` leaves where."""

from __future__ import annotations

import datetime
import json
import math
import os
import stat
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from appliance.management import authority
from appliance.management.initialise import InitError, initialise, renew
from appliance.management.trust import is_due, trust
from appliance.signed.statements import public_key
from components.admin.certificates import DAYS, Issuer, shown
from components.admin.status import RpcError
from components.admin.world import Identity
from tests.unit.admin.box import request_for

NOW = datetime.datetime.now(datetime.UTC)


def verify(folder: Path, purpose: str, chain: str, root: str, at: datetime.datetime = NOW) -> bool:
    """Whether openssl takes the first of ``chain`` for ``purpose``, at that time."""
    for name, pem in (("root.pem", root), ("chain.pem", chain)):
        (folder / name).write_text(pem)
    command = [
        "openssl",
        "verify",
        "-attime",
        str(int(at.timestamp())),
        "-x509_strict",
        "-purpose",
        purpose,
        "-CAfile",
        folder / "root.pem",
    ]
    run = subprocess.run(
        [*command, "-untrusted", folder / "chain.pem", folder / "chain.pem"], capture_output=True, check=False
    )
    return run.returncode == 0


def test_openssl_finds_each_certificate_good_for_what_it_is_for_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "box").mkdir()
    console = initialise(tmp_path / "box", "t0", NOW)
    identity = json.loads((tmp_path / "box/management/identity.json").read_text())
    assert verify(tmp_path, "sslclient", console.chain, console.root)
    assert not verify(tmp_path, "sslserver", console.chain, console.root), "an administrator is no box"
    assert verify(tmp_path, "sslserver", identity["chain"], console.root)
    assert not verify(tmp_path, "sslclient", identity["chain"], console.root), "a box is no administrator"
    other = authority.make("t0", NOW)
    assert not verify(tmp_path, "sslclient", console.chain, other.root.certificate)


def test_the_issuing_authority_cannot_make_another_authority_or_a_box(tmp_path: Path) -> None:
    made = authority.make("t0", NOW)
    issuing = x509.load_pem_x509_certificate(made.issuing.certificate.encode())
    assert issuing.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 0
    usage = list(issuing.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    assert usage == [x509.ExtendedKeyUsageOID.CLIENT_AUTH] if hasattr(x509, "ExtendedKeyUsageOID") else len(usage) == 1


def test_what_init_makes_is_for_its_owner_alone_and_the_root_key_in_no_domain(tmp_path: Path) -> None:
    console = initialise(tmp_path, "t0", NOW)
    folder = tmp_path / "management"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in folder.iterdir())
    assert trust(tmp_path) == {"box": console.box, "console": public_key(console.seed).hex()}
    root_key = (folder / "root.key").read_text().split("\n")[1]
    assert root_key not in (folder / "identity.json").read_text()
    assert console.seed.hex() not in "".join(file.read_text() for file in folder.iterdir())
    root = x509.load_pem_x509_certificate(console.root.encode())
    assert authority.fingerprint(root) == console.box


def test_init_twice_is_refused_and_replacing_makes_another_box(tmp_path: Path) -> None:
    first = initialise(tmp_path, "t0", NOW)
    with pytest.raises(InitError) as refused:
        initialise(tmp_path, "t0", NOW)
    assert "--replace" in refused.value.then and trust(tmp_path) == {"box": first.box, "console": first.public}
    assert initialise(tmp_path, "t0", NOW, replace=True).box != first.box
    assert [file.name for file in tmp_path.iterdir()] == ["management"]


def test_files_and_their_folder_are_on_the_disk_before_init_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []

    def fsync(descriptor: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)

    monkeypatch.setattr("os.fsync", fsync)
    state = tmp_path / "t0"
    state.mkdir()
    initialise(state, "t0", NOW)
    files = {"root.pem", "root.key", "trust.json", "identity.json"}
    assert files == {name.removeprefix(".").rpartition(".")[0] for name in synced[:4]}
    assert synced[4].startswith(".management.") and synced[5] == "t0", "the folder, and the folder that it is in"
    assert [one.name for one in state.iterdir()] == ["management"]
    initialise(state, "t0", NOW, replace=True)
    assert [one.name for one in state.iterdir()] == ["management"]


def test_the_servers_certificate_is_renewed_in_time_and_the_box_stays_who_it_is(tmp_path: Path) -> None:
    assert trust(tmp_path) is None and not is_due(tmp_path, NOW.timestamp())
    console = initialise(tmp_path, "t0", NOW)
    later = NOW + datetime.timedelta(days=authority.SERVER_DAYS // 2 + 1)
    assert not is_due(tmp_path, NOW.timestamp()) and is_due(tmp_path, later.timestamp())
    before = json.loads((tmp_path / "management/identity.json").read_text())
    renew(tmp_path, later)
    after = json.loads((tmp_path / "management/identity.json").read_text())
    assert not is_due(tmp_path, later.timestamp()) and after["key"] != before["key"] and after["box"] == console.box
    server = x509.load_pem_x509_certificates(after["chain"].encode())[0]
    assert server.not_valid_after_utc > later + datetime.timedelta(days=authority.SERVER_DAYS - 1)
    assert verify(tmp_path, "sslserver", after["chain"], console.root, later)


def test_who_had_the_issuing_key_once_is_nobody_after_two_renewals(tmp_path: Path) -> None:
    initialise(tmp_path, "t0", NOW)
    stolen = Identity.read((tmp_path / "management/identity.json").read_bytes())
    thief = Issuer(stolen.issuing, stolen.issuing_key)
    asked = request_for(authority.new_key())
    leaf = der(thief.issue(asked, "console", stolen.console, NOW.timestamp(), 7))
    assert thief.taken_until(leaf) == math.inf
    for renewed in range(2):
        renew(tmp_path, NOW)
        box = Identity.read((tmp_path / "management/identity.json").read_bytes())
        issuer = Issuer(box.issuing, box.issuing_key, box.before, box.before_until)
        expected = 0 if renewed else NOW.timestamp() + authority.ADMINISTRATOR_DAYS * 86400
        assert issuer.taken_until(leaf) == pytest.approx(expected, abs=2)
        good = issuer.issue(asked, "console", box.console, NOW.timestamp(), 7)
        assert issuer.taken_until(der(good)) == math.inf
        assert verify(tmp_path, "sslclient", good + box.issuing, box.root)
    other = authority.make("t0", NOW)
    foreign = Issuer(other.issuing.certificate, other.issuing.key)
    assert issuer.taken_until(der(foreign.issue(asked, "console", box.console, NOW.timestamp(), 7))) == 0.0


def test_the_issuing_authority_lives_no_longer_than_the_server(tmp_path: Path) -> None:
    made = authority.make("t0", NOW)
    issuing, server = (x509.load_pem_x509_certificate(one.certificate.encode()) for one in (made.issuing, made.server))
    assert issuing.not_valid_after_utc == server.not_valid_after_utc


def der(pem: str) -> bytes:
    return x509.load_pem_x509_certificate(pem.encode()).public_bytes(serialization.Encoding.DER)


def test_a_certificate_names_the_signing_key_and_lives_for_thirty_days(tmp_path: Path) -> None:
    console = initialise(tmp_path, "t0", NOW)
    certificate, issuing, root = x509.load_pem_x509_certificates(console.chain.encode())
    from cryptography.hazmat.primitives.serialization import Encoding

    said = shown(certificate.public_bytes(Encoding.DER))
    assert said.key == public_key(console.seed)
    assert said.until == pytest.approx(NOW.timestamp() + DAYS * 86400, abs=2)
    for other in (issuing.public_bytes(Encoding.DER), root.public_bytes(Encoding.DER), b"", b"\x30\x03\x02\x01\x01"):
        with pytest.raises(RpcError, match="no administrator's"):
            shown(other)
