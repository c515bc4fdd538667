"""Peers as a text that people edit: TOML, a table a peer; and what was meant, read back with the line of each mistake.

A preshared key cannot be shown, it is sealed: it stands there as ``"sealed:…"``, which keeps it. A key in base64 in its
place is sealed anew, ``""`` (or nothing) is none. A table without a number is a new peer.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import socket
import tomllib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from appliance.assembly.findings import hint
from appliance.assembly.lines import lines
from appliance.ctl.configuration import Configuration, free_number
from appliance.ctl.trouble import Exit, Place, Trouble
from appliance.guest.settings import SettingsError
from appliance.signed import canonical, peers
from appliance.signed.peers import PeerEntry

Seal = Callable[[bytes], bytes]
"""Seals a preshared key to the box's keymgr. Errors: Trouble."""

FILE: Final = "peers.toml"
_SEALED: Final = "sealed:"
_KEYS: Final = ("number", "name", "public_key", "allowed_ips", "endpoint", "keepalive", "preshared_key")
_ERROR_LINE: Final = re.compile(r"\(at line (\d+), column \d+\)")

_HEAD: Final = """\
# The peers of {title}. Save and leave to make this the candidate; nothing is in force before `septumctl config commit`.
# A peer without a number is a new one. Optional: endpoint = "192.0.2.1:51820", keepalive = 25,
# preshared_key = "base64" (it is sealed to the box at once; "sealed:…" keeps the one that there is).
"""


def write(entries: Iterable[PeerEntry], title: str) -> str:
    """The text to be edited."""
    text = [_HEAD.format(title=title)]
    for peer in entries:
        text.append("\n[[peers]]\n")
        text.append(f"number = {peer.number}\n")
        text.append(f'name = "{peer.name}"\n')
        text.append(f'public_key = "{base64.b64encode(peer.public_key).decode()}"\n')
        text.append(f"allowed_ips = {json.dumps(peer.allowed_ips)}\n")
        if peer.endpoint:
            text.append(f'endpoint = "{peer.endpoint}"\n')
        if peer.keepalive:
            text.append(f"keepalive = {peer.keepalive}\n")
        if peer.preshared_key:
            text.append(f'preshared_key = "{sealed_word(peer.preshared_key)}"\n')
    return "".join(text)


def sealed_word(sealed: bytes) -> str:
    """What stands for a sealed key."""
    return f"{_SEALED}{canonical.digest(sealed).hex()[:16]}"


def read(text: str, known: Configuration, seal: Seal) -> tuple[PeerEntry, ...]:
    """The peers of an edited text; ``known`` is what it was written from.

    Errors: Trouble (INVALID) with every mistake.
    """
    try:
        tables = tomllib.loads(text)
        where = lines(text)
    except tomllib.TOMLDecodeError as error:
        line = match[1] if (match := _ERROR_LINE.search(str(error))) else "1"
        raise _refused([Place(f"{FILE}:{line}", _ERROR_LINE.sub("", str(error)).strip())]) from None
    reader = _Reader(where, known, seal)
    rows = tables.pop("peers", [])
    for key in tables:
        reader.refuse((key,), f"there is no {key!r} here; a peer begins with [[peers]]")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        reader.refuse(("peers",), "a peer begins with [[peers]]")
        rows = []
    found = [reader.peer(("peers", i), row) for i, row in enumerate(rows)]
    if reader.places:
        raise _refused(reader.places)
    numbered = [(peer, i) for i, peer in enumerate(found) if peer is not None]
    return _checked(_with_numbers(numbered, known), where)


def _refused(places: list[Place]) -> Trouble:
    count = len(places)
    return Trouble(
        Exit.INVALID, f"{count} mistake{'' if count == 1 else 's'} in the peers; nothing was changed", "", places
    )


class _Reader:
    def __init__(self, where: Mapping[tuple[str | int, ...], int], known: Configuration, seal: Seal) -> None:
        self.places: list[Place] = []
        self._where = where
        self._seal = seal
        self._sealed = {sealed_word(peer.preshared_key): peer.preshared_key for peer in known.peers}

    def refuse(self, way: tuple[str | int, ...], why: str) -> None:
        line = self._where.get(way) or self._where.get(way[:-1], 1)
        self.places.append(Place(f"{FILE}:{line}", why))

    def peer(self, way: tuple[str | int, ...], row: Mapping[str, Any]) -> PeerEntry | None:
        before = len(self.places)
        for key in row:
            if key not in _KEYS:
                self.refuse((*way, key), f"a peer has no {key!r}{hint(key, _KEYS)}")
        values = {key: self._value((*way, key), key, row) for key in _KEYS}
        if len(self.places) > before:
            return None
        return PeerEntry(**values)

    def _value(self, way: tuple[str | int, ...], key: str, row: Mapping[str, Any]) -> Any:
        value: Any = row.get(key, _DEFAULTS.get(key))
        if value is None:
            self.refuse(way, f"the peer has no {key}")
        elif not _is_of(value, _TYPES[key]):
            self.refuse(way, f"{key} must be {_WORDS[_TYPES[key]]}")
        else:
            try:
                match key:
                    case "public_key":
                        return key_of(value)
                    case "allowed_ips":
                        return prefixes(value)
                    case "endpoint":
                        return resolved(value)
                    case "preshared_key":
                        return self._preshared(value)
                    case _:
                        return value
            except ValueError as error:
                self.refuse(way, f"{key} {error}")
        return None

    def _preshared(self, text: str) -> bytes:
        if not text:
            return b""
        if not text.startswith(_SEALED):
            return self._seal(key_of(text))
        if text not in self._sealed:
            raise ValueError("is sealed, and not one that was here before: write the key itself")
        return self._sealed[text]


def _is_of(value: Any, kind: type) -> bool:
    """True is no number here."""
    return isinstance(value, kind) and not isinstance(value, bool)


_DEFAULTS: Final[dict[str, Any]] = {"number": 0, "allowed_ips": [], "endpoint": "", "keepalive": 0, "preshared_key": ""}
_TYPES: Final[dict[str, type]] = {
    "number": int,
    "name": str,
    "public_key": str,
    "allowed_ips": list,
    "endpoint": str,
    "keepalive": int,
    "preshared_key": str,
}
_WORDS: Final = {int: "a whole number", str: "a text in quotes", list: "a list of texts"}


def key_of(text: str) -> bytes:
    """The 32 bytes of a WireGuard key. Errors: ValueError, which shows nothing of it."""
    try:
        raw = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != peers.KEY or base64.b64encode(raw).decode() != text.strip():
        raise ValueError("must be a key: 32 bytes in base64, which are 44 characters")
    return raw


def prefixes(texts: Iterable[Any]) -> tuple[str, ...]:
    """Prefixes, each written as it is signed; one that comes twice is there once. Errors: ValueError."""
    try:
        return tuple(dict.fromkeys(peers.prefix(str(text).strip()) for text in texts))
    except SettingsError as error:
        raise ValueError(f"{error.why}") from None


def resolved(endpoint: str) -> str:
    """``endpoint`` with an address in place of a name: names are resolved by who signs. Errors: ValueError."""
    if not endpoint:
        return ""
    try:
        peers.address_of(endpoint)
        return endpoint
    except SettingsError as error:
        host, colon, port = endpoint.rpartition(":")
        if not colon or not port.isdecimal() or not re.fullmatch(r"[A-Za-z0-9_.-]*[A-Za-z][A-Za-z0-9_.-]*", host):
            raise ValueError(error.why) from None
    try:
        family, _, _, _, found = socket.getaddrinfo(host, int(port), type=socket.SOCK_DGRAM)[0]
    except OSError as error:
        raise ValueError(f"the name {host} is not known here: {error.strerror or error}") from None
    return f"[{found[0]}]:{port}" if family == socket.AF_INET6 else f"{found[0]}:{port}"


def _with_numbers(found: list[tuple[PeerEntry, int]], known: Configuration) -> list[tuple[PeerEntry, int]]:
    """New peers get the lowest free numbers; a number goes with its key for good."""
    keys = {peer.number: peer.public_key for peer in known.peers}
    made: list[tuple[PeerEntry, int]] = []
    new = [
        (peer, i) for peer, i in found if not peer.number or keys.get(peer.number, peer.public_key) != peer.public_key
    ]
    kept = [(peer, i) for peer, i in found if (peer, i) not in new] if len(new) < len(found) else []
    taken = [peer for peer, _ in kept]
    for peer, i in new:
        numbered = peer._replace(number=free_number(taken, known.peers))
        taken.append(numbered)
        made.append((numbered, i))
    return kept + made


def _checked(found: list[tuple[PeerEntry, int]], where: Mapping[tuple[str | int, ...], int]) -> tuple[PeerEntry, ...]:
    ordered = sorted(found)
    entries = tuple(peer for peer, _ in ordered)
    try:
        peers.encode(entries)
    except SettingsError as error:
        match = re.match(r"peers\[(\d+)\](?:\.(\w+))?", error.path)
        way: tuple[str | int, ...] = ("peers", ordered[int(match[1])][1], match[2] or "") if match else ("peers",)
        line = where.get(way) or where.get(way[:2], 1)
        why = re.sub(r"peers\[(\d+)\]", lambda one: entries[int(one[1])].name, error.why)
        raise _refused([Place(f"{FILE}:{line}", f"{way[-1]} {why}")]) from None
    return entries
