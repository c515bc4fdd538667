"""`septum init NAME`: a box's authority, its identity, and the console: the administrator that its own root user is.

In the box's state directory, for its owner alone:

    management/root.pem         the certificate of the box's authority: its SHA-256 is what the box is
    management/root.key         with which a new server certificate is made; in no domain, ever
    management/trust.json       what config, keymgr and filter are born with: the box, and the console's public key
    management/identity.json    what the admin domain shows callers, and certifies them with

The console's signing key goes to the context of `septumctl`, on the same machine, and nowhere else.
"""

from __future__ import annotations

import datetime
import json
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from appliance.management import authority
from appliance.management.files import put, sync, write
from appliance.management.trust import FOLDER
from appliance.signed.statements import SEED, public_key
from components.admin.certificates import Issuer

RENEW_AFTER: Final = datetime.timedelta(days=authority.SERVER_DAYS // 2)


class InitError(Exception):
    """The box cannot be made one that is administered from elsewhere; ``then``: what to do next."""

    def __init__(self, why: str, then: str = "") -> None:
        super().__init__(why)
        self.then = then


class Console(NamedTuple):
    """What the console's `septumctl` needs: its signing key (seed), its TLS key and certificate, PEM."""

    box: str
    public: str
    seed: bytes
    tls_key: str
    chain: str
    root: str


def initialise(state: Path, name: str, now: datetime.datetime, *, replace: bool = False) -> Console:
    """Makes box ``name``'s folder in ``state``, whole or not at all. With ``replace`` a box that there was becomes
    another one: no administrator of it, and nothing that they signed, is worth anything any more.

    Errors: InitError, OSError.
    """
    folder = state / FOLDER
    if folder.exists() and not replace:
        then = f"septumctl to use it; septum init {name} --replace makes another box of it, without its administrators"
        raise InitError(f"{name} has an authority already", then)
    made = authority.make(name, now)
    seed = secrets.token_bytes(SEED)
    public = public_key(seed)
    building = folder.with_name(f".{FOLDER}.{secrets.token_hex(4)}")
    try:
        building.mkdir(mode=0o700)
        write(building / "root.pem", made.root.certificate)
        write(building / "root.key", made.root.key)
        write(building / "trust.json", json.dumps({"box": made.box, "console": public.hex()}) + "\n")
        identity = {
            "name": name,
            "box": made.box,
            "console": public.hex(),
            "chain": made.server.certificate + made.root.certificate,
            "key": made.server.key,
            "issuing": made.issuing.certificate,
            "issuing_key": made.issuing.key,
            "root": made.root.certificate,
            "renew_at": int((now + RENEW_AFTER).timestamp()),
        }
        write(building / "identity.json", json.dumps(identity) + "\n")
        put(building, folder)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    key, chain = _certificate(identity, "console", public, now)
    return Console(made.box, public.hex(), seed, key, chain, made.root.certificate)


def console_again(state: Path, seed: bytes, now: datetime.datetime) -> tuple[str, str]:
    """A new TLS key and certificate for the console, which is on the same machine as the box: no call is needed.

    Errors: InitError if that is not the console's key; OSError, ValueError, KeyError.
    """
    identity = json.loads((state / FOLDER / "identity.json").read_bytes())
    public = public_key(seed)
    if public.hex() != identity["console"]:
        raise InitError("that key is not the console's", "septumctl enroll with an invitation")
    return _certificate(identity, "console", public, now)


def _certificate(identity: Mapping[str, Any], name: str, public: bytes, now: datetime.datetime) -> tuple[str, str]:
    key = authority.new_key()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    issuer = Issuer(identity["issuing"], identity["issuing_key"])
    der = request.public_bytes(serialization.Encoding.DER)
    issued = issuer.issue(der, name, public, now.timestamp(), int.from_bytes(secrets.token_bytes(20), "big"))
    return authority.key_pem(key), issued + identity["issuing"] + identity["root"]


def renew(state: Path, now: datetime.datetime) -> None:
    """New keys and certificates for the box's face and for its issuing authority; who the box is stays. What the
    issuing authority before it has certified is good for as long as such a certificate lives, and no longer.

    Errors: OSError, ValueError, KeyError.
    """
    folder = state / FOLDER
    identity = json.loads((folder / "identity.json").read_bytes())
    root = x509.load_pem_x509_certificate((folder / "root.pem").read_bytes())
    root_key = serialization.load_pem_private_key((folder / "root.key").read_bytes(), None)
    if not isinstance(root_key, ec.EllipticCurvePrivateKey):
        raise ValueError(f"{folder / 'root.key'} is not a key of P-256")
    key, issuing_key = authority.new_key(), authority.new_key()
    server = authority.serve(identity["name"], root, root_key, key, now)
    issuing = authority.appoint(identity["name"], root, root_key, issuing_key, now)
    identity |= {
        "chain": authority.pem(server) + authority.pem(root),
        "key": authority.key_pem(key),
        "before": identity["issuing"],
        "before_until": int((now + datetime.timedelta(days=authority.ADMINISTRATOR_DAYS)).timestamp()),
        "issuing": authority.pem(issuing),
        "issuing_key": authority.key_pem(issuing_key),
        "renew_at": int((now + RENEW_AFTER).timestamp()),
    }
    write(folder / "identity.json", json.dumps(identity) + "\n")
    sync(folder)
