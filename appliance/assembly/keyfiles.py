"""Keys: how they are written (base64, as ``wg`` prints them), and where an assembly may keep them (in files of their
own).
"""

from __future__ import annotations

import base64
import binascii
import stat
from pathlib import Path
from typing import Final

from nacl.bindings import crypto_scalarmult_base

from appliance.assembly.document import Document
from appliance.assembly.findings import show
from appliance.assembly.lines import Path as Way
from appliance.guest.secret import Secret

KEY_BYTES: Final = 32
SECRETS: Final = (
    "secrets",
    "A key is never written into an assembly: `private_key_file` and `preshared_key_file` name files, "
    "relative to the assembly, that hold one base64 key each.",
)

_NAMES: Final = ("private_key", "preshared_key")


def key(text: str) -> bytes:
    """The 32 bytes of a base64 key, which must be the one spelling of them (as ``wg`` insists). ValueError shows
    nothing of it.
    """
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != KEY_BYTES or base64.b64encode(raw).decode() != text:
        raise ValueError("is not a WireGuard key: 32 bytes in base64, 44 characters")
    if not any(raw):
        raise ValueError("is all zeros, which is no key")
    return raw


def encode(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def public_key(private: Secret) -> bytes:
    """The X25519 public key (RFC 7748 section 6.1) of a private key."""
    found: bytes = crypto_scalarmult_base(private.reveal())
    return found


def warning(file: Path) -> str | None:
    """What wg-quick says of a file of secrets that everybody can read: the file and its folder let them."""
    mode = file.stat().st_mode & file.resolve().parent.stat().st_mode & stat.S_IRWXO
    return f"Warning: `{file}' is world accessible; chmod go-rwx it" if mode else None


def load(document: Document, way: Way, table: object, warnings: list[str]) -> object:
    """``table`` with every ``…_key_file`` replaced by the ``Secret`` in it; a key written in place is refused."""
    if isinstance(table, list):
        return [load(document, (*way, i), item, warnings) for i, item in enumerate(table)]
    if not isinstance(table, dict):
        return table
    loaded: dict[str, object] = {}
    for name, value in table.items():
        bare = name.removesuffix("_file")
        if name in _NAMES and not isinstance(value, Secret):
            why = f'{name} is written into the assembly; put it into a file of its own, and write {name}_file = "…"'
            document.refuse(SECRETS, (*way, name), why)
        elif bare in _NAMES and name != bare:
            document.places[(*way, bare)] = document.place((*way, name))
            secret = _from_file(document, (*way, name), value, warnings)
            if secret is not None:
                loaded[bare] = secret
        else:
            loaded[name] = load(document, (*way, name), value, warnings)
    return loaded


def _from_file(document: Document, way: Way, name: object, warnings: list[str]) -> Secret | None:
    if not isinstance(name, str) or not name or "\0" in name:
        document.refuse(SECRETS, way, f"{way[-1]} must be the name of a file, not {show(name)}")
        return None
    file = document.file.parent / name
    if file.exists() and not file.is_file():
        document.refuse(SECRETS, way, f"{show(name)} is not a file")
        return None
    try:
        with file.open("rb") as opened:
            text = opened.read(256)
        said = warning(file)
    except OSError as error:
        document.refuse(SECRETS, way, f"the file {show(name)} cannot be read: {error.strerror}")
        return None
    if said:
        warnings.append(said)
    try:
        return Secret(key(text.strip().decode("ascii", "replace")))
    except ValueError as error:
        document.refuse(SECRETS, way, f"what is in the file {show(name)} {error}")
        return None
