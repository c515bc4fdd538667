"""The section ``peers``: a table of peers as canonical bytes, checked whole wherever it is read.

    {"peers": [{"number": 1, "name": "alice", "public_key": base64, "allowed_ips": ["10.0.0.2/32"],
                "endpoint": "192.0.2.1:51820", "keepalive": 25, "preshared_key": base64 of a sealed box}, …]}

The last three are there only where they say something. ``number`` names the peer on the box's channels and in its
rules; it stays the same as long as the peer does. A preshared key is sealed to keymgr (libsodium's sealed box): of all
who carry or keep the section, it alone can read it. An endpoint is an address: names are resolved by who signs.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple

from appliance.guest.settings import SettingsError, Table
from appliance.signed import canonical
from appliance.signed.refusal import Refusal

LARGEST: Final = 4 << 20  # bytes of the section
MOST_PEERS: Final = 16_384
MOST_PREFIXES: Final = 1024  # of one peer
MOST_PREFIXES_IN_ALL: Final = 65_536
KEY: Final = 32
SEALED_KEY: Final = 80  # bytes: a key in a sealed box
EMPTY: Final = b'{"peers":[]}'

_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@+-]{0,62}")
_PORT: Final = re.compile(r"[1-9][0-9]{0,4}")


class PeerEntry(NamedTuple):
    """One peer. ``allowed_ips`` are prefixes as ``ipaddress`` writes them; ``endpoint`` and ``preshared_key`` (sealed)
    may be empty; ``keepalive`` in seconds, 0 is off.
    """

    number: int
    name: str
    public_key: bytes
    allowed_ips: tuple[str, ...]
    endpoint: str = ""
    keepalive: int = 0
    preshared_key: bytes = b""


def encode(peers: Iterable[PeerEntry]) -> bytes:
    """The section. Errors: SettingsError if it is none that could be read."""
    section = _encode(sorted(peers))
    parse(section)
    return section


def _encode(peers: Iterable[PeerEntry]) -> bytes:
    rows = []
    for peer in peers:
        row: dict[str, Any] = {
            "number": peer.number,
            "name": peer.name,
            "public_key": base64.b64encode(peer.public_key).decode(),
            "allowed_ips": list(peer.allowed_ips),
        }
        if peer.endpoint:
            row["endpoint"] = peer.endpoint
        if peer.keepalive:
            row["keepalive"] = peer.keepalive
        if peer.preshared_key:
            row["preshared_key"] = base64.b64encode(peer.preshared_key).decode()
        rows.append(row)
    return canonical.encode({"peers": rows})


def parse(untrusted: bytes, beat: Callable[[], None] = lambda: None) -> tuple[PeerEntry, ...]:
    """The peers, in the order of their numbers. ``beat`` is called often: ten thousand take a while.

    Errors: SettingsError with the path of what is wrong.
    """
    try:
        table = canonical.decode(untrusted, LARGEST)
    except Refusal as refusal:
        raise SettingsError("", refusal.text) from None
    beat()
    peers = _Reader(beat).read(Table(table))
    if _encode(peers) != untrusted:
        raise SettingsError("peers", "must leave out what says nothing: an empty endpoint, a keepalive of 0")
    return peers


class _Reader:
    """Reads peers one by one, and remembers what two of them must not share."""

    def __init__(self, beat: Callable[[], None]) -> None:
        self._beat = beat
        self._names: dict[str, str] = {}
        self._keys: dict[bytes, str] = {}
        self._prefixes: dict[str, str] = {}
        self._last = 0

    def read(self, top: Table) -> tuple[PeerEntry, ...]:
        peers = tuple(self._peer(table) for table in top.tables("peers", MOST_PEERS))
        top.done()
        return peers

    def _peer(self, table: Table) -> PeerEntry:
        self._beat()
        number = table.integer("number", 1, MOST_PEERS)
        if number <= self._last:
            raise SettingsError(table.where("number"), f"must be above {self._last}: peers are sorted by their numbers")
        self._last = number
        name = table.text("name")
        if not _NAME.fullmatch(name):
            why = "must be 1 to 63 letters, digits or of '._@+-', and begin with a letter, a digit or '_'"
            raise SettingsError(table.where("name"), why)
        _alone(self._names, name, table.where("name"))
        public_key = _binary(table, "public_key", KEY)
        if public_key == bytes(KEY):
            raise SettingsError(table.where("public_key"), "must be the peer's public key, not zeros")
        _alone(self._keys, public_key, table.where("public_key"))
        endpoint = table.text("endpoint", "")
        if endpoint:
            address_of(endpoint, table.where("endpoint"))
        peer = PeerEntry(
            number,
            name,
            public_key,
            tuple(self._allowed_ips(table)),
            endpoint,
            table.integer("keepalive", 0, 65535, 0),
            _binary(table, "preshared_key", SEALED_KEY) if table.text("preshared_key", "") else b"",
        )
        table.done()
        return peer

    def _allowed_ips(self, table: Table) -> Iterable[str]:
        for i, text in enumerate(table.texts("allowed_ips", MOST_PREFIXES)):
            path = f"{table.where('allowed_ips')}[{i}]"
            if prefix(text, path) != text:
                raise SettingsError(path, f"must be written {prefix(text, path)}")
            if len(self._prefixes) == MOST_PREFIXES_IN_ALL:
                raise SettingsError(path, f"is one more than the {MOST_PREFIXES_IN_ALL} that all peers together have")
            _alone(self._prefixes, text, path)
            yield text


def _alone(seen: dict[Any, str], value: Any, path: str) -> None:
    if value in seen:
        raise SettingsError(path, f"is the same as {seen[value]}")
    seen[value] = path


def _binary(table: Table, key: str, size: int) -> bytes:
    text = table.text(key)
    try:
        value = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        value = b""
    # Encoding it again finds what decoders let pass: stray bits in the last character
    if len(value) != size or base64.b64encode(value).decode() != text:
        raise SettingsError(table.where(key), f"must be {size} bytes in base64")
    return value


class Network(NamedTuple):
    """An IP prefix: as it is written here, and its 4 or 16 bytes and how many bits of them count."""

    text: str
    address: bytes
    bits: int


@lru_cache(MOST_PREFIXES_IN_ALL)  # a section has most of them in common with the one before
def network(text: str) -> Network:
    """The prefix of ``text``; host bits are cleared. Errors: ValueError."""
    found = ipaddress.ip_network(text, strict=False)
    return Network(str(found), found.network_address.packed, found.prefixlen)


def prefix(text: str, path: str = "") -> str:
    """``text``, an IP prefix, as it is written here: 10.0.0.1/8 becomes 10.0.0.0/8. Errors: SettingsError."""
    if "%" in text:
        raise SettingsError(path, "must have no zone: inside the tunnel there are no interfaces")
    try:
        return network(text).text
    except ValueError as error:
        raise SettingsError(path, f"must be an IP prefix like 10.0.0.0/8: {error}") from None


def address_of(endpoint: str, path: str = "") -> tuple[str, int]:
    """Address and port of ``192.0.2.1:51820`` or ``[2001:db8::1]:51820``. Errors: SettingsError."""
    try:
        return _address_of(endpoint)
    except ValueError as error:
        raise SettingsError(path, f"must be address:port or [IPv6 address]:port: {error}") from None


@lru_cache(MOST_PEERS)  # as above
def _address_of(endpoint: str) -> tuple[str, int]:
    host, _, port = endpoint.rpartition(":")
    if not _PORT.fullmatch(port) or int(port) > 65535:
        raise ValueError("must end in a port")
    if host.startswith("[") and host.endswith("]"):
        address = ipaddress.IPv6Address(host[1:-1])
        if address.scope_id is not None:
            raise ValueError("must have no zone")
        return str(address), int(port)
    return str(ipaddress.IPv4Address(host)), int(port)


def names(peers: Iterable[PeerEntry]) -> Mapping[str, int]:
    """What rules call the peers: name -> number."""
    return {peer.name: peer.number for peer in peers}
