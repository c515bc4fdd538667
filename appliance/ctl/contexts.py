"""Contexts: the boxes that this machine's administrator knows, and the keys he has for each.

A context is a folder that only its owner reads, ``~/.config/septum/contexts/NAME`` (or under ``$SEPTUM_CONFIG``):

    context.json      where the box is, who it is, and as whom it is spoken to
    root.pem          the certificate of its authority; its SHA-256 is what the box is
    signing.key       Ed25519 seed, hexadecimal: what makes a configuration this administrator's
    tls.pem           whom the box talks to: a key of P-256, and the short-lived certificates for it that the box gave
    seen.json         the newest revision and roster that the box has shown: it may never show older ones
    candidate/        what is being edited (candidate.py)
    roster.json       the roster's statements
    sections/         what was downloaded of signed revisions, by digest

`septum init` makes the first one, for the console; `septumctl enroll` the others.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import ssl
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Final

from appliance.management.files import put, write

FORMAT: Final = 1
PORT: Final = 50051
SERVER_NAME: Final = "box.septum"
"""What every box's server certificate is for. Boxes are told apart by their authorities, and called by any address."""

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_HEX32: Final = re.compile(r"[0-9a-f]{64}")
_LARGEST: Final = 1 << 20  # of any of these files
_KEPT_SECTIONS: Final = 16
_CERTIFICATE: Final = "-----BEGIN CERTIFICATE-----"


class ContextError(Exception):
    """A context cannot be used. ``then``: what to do next."""

    def __init__(self, why: str, then: str = "") -> None:
        super().__init__(why)
        self.then = then


def home() -> Path:
    """Where contexts are kept."""
    if said := os.environ.get("SEPTUM_CONFIG"):
        return Path(said)
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "septum"


def fingerprint(root_pem: str) -> str:
    """Which box a root certificate is of: SHA-256 of its DER, hexadecimal. Errors: ValueError."""
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(root_pem.strip())).hexdigest()


def _is_host(host: str) -> bool:
    if re.fullmatch(r"[0-9.]+", host):  # an address, or a slip of the finger, and no name
        try:
            IPv4Address(host)
        except ValueError:
            return False
    return re.fullmatch(r"[A-Za-z0-9_.:-]{1,253}", host) is not None


def host_and_port(address: str) -> tuple[str, int]:
    """``192.0.2.1``, ``box.example:50051``, ``[2001:db8::1]:50051``. Errors: ValueError."""
    host, port = address, str(PORT)
    if match := re.fullmatch(r"\[([0-9A-Fa-f:.]+)\](?::([0-9]{1,5}))?", address):
        host, port = match[1], match[2] or port
    elif address.count(":") == 1:
        host, port = address.split(":")
    if not _is_host(host) or not re.fullmatch(r"[0-9]{1,5}", port):
        raise ValueError(f"{address!r} is not an address: 192.0.2.1:50051, box.example or [2001:db8::1]:50051")
    if not 0 < int(port) < 65536:
        raise ValueError(f"{address!r}: a port is a number from 1 to 65535")
    return host, int(port)


@dataclass(frozen=True)
class Context:
    """A box, and as whom it is spoken to. Errors of everything that reads or writes: ContextError."""

    folder: Path
    address: str
    box: str  # SHA-256 of the DER of its root certificate, hexadecimal
    console: str  # the Ed25519 public key that its roster begins with, hexadecimal
    administrator: str

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def root_pem(self) -> str:
        text = self._read("root.pem")
        try:
            is_good = fingerprint(text) == self.box
        except ValueError:
            is_good = False
        if not is_good:
            raise ContextError(f"{self.folder / 'root.pem'} is not the certificate of this box", _AGAIN)
        return text

    @property
    def chain_pem(self) -> str:
        """The administrator's certificate, and those that lead to the root."""
        return self._tls()[1]

    @property
    def tls_key_pem(self) -> str:
        return self._tls()[0]

    def _tls(self) -> tuple[str, str]:
        """Key and certificates, in one file: a renewal replaces both at once or neither."""
        text = self._read("tls.pem")
        begin = text.find(_CERTIFICATE)
        return text[:begin] if begin >= 0 else text, text[begin:] if begin >= 0 else ""

    def seed(self) -> bytes:
        """The key that signs: 32 bytes."""
        text = self._read("signing.key").strip()
        if not _HEX32.fullmatch(text):
            raise ContextError(f"{self.folder / 'signing.key'} is not a key", _AGAIN)
        return bytes.fromhex(text)

    def certify(self, chain_pem: str, tls_key_pem: str) -> None:
        """A new certificate from the box, and the key that it is for."""
        write(self.folder / "tls.pem", f"{tls_key_pem.strip()}\n{chain_pem}")

    def moved(self, address: str) -> Context:
        """The same box at another address, written."""
        return _save(Context(self.folder, address, self.box, self.console, self.administrator))

    def seen(self) -> Mapping[str, Any]:
        """What the box has shown last; empty: nothing yet."""
        try:
            found = json.loads(self._read("seen.json")) if (self.folder / "seen.json").exists() else {}
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise ContextError(f"{self.folder / 'seen.json'} is damaged", f"rm {self.folder / 'seen.json'}")
        return found

    def remember_newest(self, shown: Mapping[str, Any]) -> None:
        """What the box has shown now: revision and serial with their digests; each counts if it is above what was."""
        with self._seen() as seen:
            for number, digest in (("revision", "digest"), ("serial", "roster_digest")):
                if shown[number] >= seen.get(number, 0):
                    seen.update({number: shown[number], digest: shown[digest]})

    def remember(self, **what: Any) -> None:
        """Something else about the box."""
        with self._seen() as seen:
            seen.update(what)

    @contextlib.contextmanager
    def _seen(self) -> Iterator[dict[str, Any]]:
        """What was seen, to be changed by one of our commands at a time."""
        lock = os.open(self.folder / ".seen.lock", os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            before = self.seen()
            seen = dict(before)
            yield seen
            if seen != before:
                write(self.folder / "seen.json", json.dumps(seen, sort_keys=True) + "\n")
        finally:
            os.close(lock)

    def roster(self) -> list[tuple[bytes, bytes]]:
        """The statements of the roster, each with its signature, as they were kept. The caller looks at them again."""
        try:
            rows = json.loads((self.folder / "roster.json").read_bytes())
            return [(str(statement).encode(), bytes.fromhex(signature)) for statement, signature in rows]
        except (OSError, ValueError, TypeError):
            return []  # they are read anew

    def keep_roster(self, statements: Sequence[tuple[bytes, bytes]]) -> None:
        """Kept for later. That they cannot be is no error."""
        with contextlib.suppress(OSError):
            rows = [(statement.decode(), signature.hex()) for statement, signature in statements]
            write(self.folder / "roster.json", json.dumps(rows))

    def section(self, digest: str) -> bytes | None:
        """What is known to have that digest, if it was downloaded before. The caller checks that it has."""
        try:
            return (self.folder / "sections" / digest).read_bytes() if _HEX32.fullmatch(digest) else None
        except OSError:
            return None

    def keep_section(self, digest: str, content: bytes) -> None:
        """Kept for later; the oldest go. That it cannot be kept is no error."""
        with contextlib.suppress(OSError):
            folder = self.folder / "sections"
            folder.mkdir(mode=0o700, exist_ok=True)
            write(folder / digest, content)
            kept = sorted(folder.iterdir(), key=lambda file: file.stat().st_mtime)
            for file in kept[:-_KEPT_SECTIONS]:
                file.unlink(missing_ok=True)

    def _read(self, name: str) -> str:
        file = self.folder / name
        try:
            with file.open("rb") as opened:
                return opened.read(_LARGEST).decode()
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "is not text"
            raise ContextError(f"{file}: {why}", _AGAIN) from None


_AGAIN: Final = "septumctl enroll TOKEN --replace, with a new invitation"


def _save(context: Context) -> Context:
    said = {
        "format": FORMAT,
        "address": context.address,
        "box": context.box,
        "console": context.console,
        "administrator": context.administrator,
    }
    write(context.folder / "context.json", json.dumps(said, indent=2) + "\n")
    return context


def create(
    name: str,
    *,
    address: str,
    root_pem: str,
    console: str,
    administrator: str,
    seed: bytes,
    tls_key_pem: str,
    chain_pem: str,
    replace: bool = False,
    base: Path | None = None,
) -> Context:
    """A new context, whole or not at all; it becomes the current one if there is none.

    ``console``: the public key, hexadecimal. ``base``: where contexts are kept, if not ``home()``.
    Errors: ContextError.
    """
    if not _NAME.fullmatch(name):
        raise ContextError(f"a context cannot be called {name!r}", "letters, digits, '.', '_' and '-', at most 63")
    try:
        host_and_port(address)
        box = fingerprint(root_pem)
    except ValueError as error:
        raise ContextError(str(error)) from None
    if not _HEX32.fullmatch(console) or len(seed) != 32:
        raise ContextError("a key has 32 bytes")
    base = base if base is not None else home()
    folder = base / "contexts" / name
    if folder.exists() and not replace:
        raise ContextError(f"there is a context {name} already", f"another name, or septumctl contexts remove {name}")
    building = folder.with_name(f".{name}.{secrets.token_hex(4)}")
    try:
        building.mkdir(mode=0o700, parents=True)
        write(building / "root.pem", root_pem)
        write(building / "signing.key", seed.hex() + "\n")
        write(building / "tls.pem", f"{tls_key_pem.strip()}\n{chain_pem}")
        _save(Context(building, address, box, console, administrator))
        put(building, folder)
        if not (base / "current").exists():
            write(base / "current", name + "\n")
    except OSError as error:
        shutil.rmtree(building, ignore_errors=True)
        raise ContextError(f"{error.filename or folder}: {error.strerror}") from None
    return Context(folder, address, box, console, administrator)


def names() -> list[str]:
    """The contexts that there are."""
    folder = home() / "contexts"
    found = folder.iterdir() if folder.is_dir() else iter(())
    return sorted(one.name for one in found if _NAME.fullmatch(one.name) and (one / "context.json").exists())


def current() -> str:
    """The one that is meant where none is named; empty: none is."""
    if said := os.environ.get("SEPTUM_CONTEXT"):
        return said
    try:
        return (home() / "current").read_text().strip()
    except OSError:
        return ""


def use(name: str) -> None:
    """``name`` is meant where none is named. Errors: ContextError."""
    load(name)
    write(home() / "current", name + "\n")


def remove(name: str) -> None:
    """Forgets a box and the keys for it. Errors: ContextError."""
    context = load(name)
    shutil.rmtree(context.folder)
    if current() == name:
        (home() / "current").unlink(missing_ok=True)


def load(name: str = "") -> Context:
    """The context of that name, the current one, or the only one. Errors: ContextError."""
    there = names()
    chosen = name or current() or (there[0] if len(there) == 1 else "")
    if not there:
        raise ContextError("this machine knows no box", "septumctl enroll TOKEN; on the box itself: septum init NAME")
    if not chosen:
        raise ContextError("more than one box is known", f"septumctl --context NAME, of: {', '.join(there)}")
    if chosen not in there:
        raise ContextError(f"there is no context {chosen}", f"one of: {', '.join(there)}")
    folder = home() / "contexts" / chosen
    try:
        said = json.loads((folder / "context.json").read_bytes())
        fields = [str(said[key]) for key in ("address", "box", "console", "administrator")]
        host_and_port(fields[0])
        is_good = said["format"] == FORMAT and all(_HEX32.fullmatch(one) for one in fields[1:3])
    except (OSError, ValueError, KeyError, TypeError):
        is_good = False
    if not is_good:
        raise ContextError(f"{folder / 'context.json'} is damaged, or of a newer septumctl", _AGAIN)
    return Context(folder, *fields)


__all__ = ["SERVER_NAME", "Context", "ContextError", "create", "fingerprint", "load", "names"]
