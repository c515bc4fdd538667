"""Settings of keymgr: our private key and the peers, as a WireGuard user writes them.

    private_key = "base64"
    [[peers]]
    public_key = "base64"
    preshared_key = "base64"            # optional
    allowed_ips = ["10.0.0.2/32"]
    endpoint = "192.0.2.1:51820"        # optional; "[2001:db8::1]:51820" for IPv6
    keepalive = 25                      # seconds; optional, 0 is off

A peer's number on the channels is its place in the list, from 1. Where the box is configured from elsewhere there is,
instead of peers, whose signature is believed (appliance/signed/trust.py):

    trust = { box = "hexadecimal", console = "hexadecimal" }
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from appliance.guest.secret import Secret
from appliance.guest.settings import SettingsError, Table
from appliance.signed.trust import Trust, read_trust
from components.keymgr.constants import KEY

MAX_PEERS: Final = 16_384  # a third of the sessions that decrypt has the memory for: a peer has up to three
MAX_PREFIXES: Final = 1024  # of one peer; the bound of `allowed_ips` in the schemas
MAX_PREFIXES_IN_ALL: Final = 65_536  # what encrypt and decrypt have the memory for
MAX_PORT: Final = 65535
_LABEL: Final = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST_NAME: Final = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(\.{_LABEL})*\.?")


class Prefix(NamedTuple):
    """An IP prefix: 4 or 16 bytes of network address, and how many bits of it count."""

    address: bytes
    bits: int

    def __str__(self) -> str:
        return f"{ipaddress.ip_address(self.address)}/{self.bits}"


class Endpoint(NamedTuple):
    """Where a peer is reached by UDP. ``host`` is an address, or a name that somebody else must resolve first."""

    host: str
    port: int

    def is_numeric(self) -> bool:
        try:
            return bool(self.address())
        except ValueError:
            return False

    def address(self) -> bytes:
        """The address, 4 or 16 bytes in network order. Errors: ValueError if ``host`` is a name."""
        return ipaddress.ip_address(self.host).packed


@dataclass(frozen=True)
class PeerSettings:
    """One peer, checked. Only secrets are hidden from repr."""

    public_key: bytes
    preshared_key: Secret | None
    allowed_ips: tuple[Prefix, ...]
    endpoint: Endpoint | None
    keepalive: int  # seconds; 0: none
    name: str = ""  # what people call it, if they told us


@dataclass(frozen=True)
class Settings:
    """All settings, checked. With a ``trust`` there are no peers yet: they come with a signed configuration."""

    private_key: Secret
    peers: tuple[PeerSettings, ...]
    trust: Trust | None = None


def _key(table: Table, name: str) -> bytes:
    text = table.text(name)
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    # Encoding it again finds what decoders let pass: stray bits in the last character
    if len(key) != KEY or base64.b64encode(key).decode() != text:
        raise SettingsError(table.where(name), f"must be a key: {KEY} bytes in base64, as `wg genkey` prints")
    return key


def _prefix(path: str, text: str) -> Prefix:
    if "%" in text:
        raise SettingsError(path, "must have no zone: inside the tunnel there are no interfaces")
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise SettingsError(path, f"must be an IP prefix like 10.0.0.0/8: {error}") from None
    return Prefix(network.network_address.packed, network.prefixlen)


def _is_host(text: str, bracketed: bool) -> bool:
    if bracketed:
        try:
            return ipaddress.IPv6Address(text).scope_id is None
        except ValueError:
            return False
    if re.fullmatch(r"[0-9.]*", text):  # digits and dots are an address or nothing
        try:
            return bool(ipaddress.IPv4Address(text))
        except ValueError:
            return False
    return _HOST_NAME.fullmatch(text) is not None


def parse_endpoint(path: str, text: str) -> Endpoint:
    """``"192.0.2.1:51820"``, ``"[2001:db8::1]:51820"`` or ``"name:51820"``. Errors: SettingsError."""
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if bracketed:
        host = host[1:-1]
    if not colon or not re.fullmatch(r"[0-9]{1,5}", port) or not 1 <= int(port) <= MAX_PORT:
        raise SettingsError(path, f"must end in a port, like 192.0.2.1:51820, not {text!r}")
    if not _is_host(host, bracketed):
        raise SettingsError(path, f"must be address:port, [IPv6 address]:port or name:port, not {text!r}")
    return Endpoint(host, int(port))


def _peer(table: Table, taken: dict[Prefix, str]) -> PeerSettings:
    public_key = _key(table, "public_key")
    if public_key == bytes(KEY):
        raise SettingsError(table.where("public_key"), "must be the peer's public key, not zeros")
    preshared = Secret(_key(table, "preshared_key")) if table.text("preshared_key", "") else None
    prefixes = []
    for i, text in enumerate(table.texts("allowed_ips", MAX_PREFIXES, [])):
        path = f"{table.where('allowed_ips')}[{i}]"
        prefix = _prefix(path, text)
        if prefix in taken:
            raise SettingsError(path, f"{prefix} is already in {taken[prefix]}: a prefix belongs to one peer")
        if len(taken) == MAX_PREFIXES_IN_ALL:
            raise SettingsError(path, f"is one more than the {MAX_PREFIXES_IN_ALL} that all peers together may have")
        taken[prefix] = path
        prefixes.append(prefix)
    endpoint = table.text("endpoint", "")
    settings = PeerSettings(
        public_key=public_key,
        preshared_key=preshared,
        allowed_ips=tuple(prefixes),
        endpoint=parse_endpoint(table.where("endpoint"), endpoint) if endpoint else None,
        keepalive=table.integer("keepalive", 0, 65535, 0),
    )
    table.done()
    return settings


def parse(role: str, table: Mapping[str, object]) -> Settings:
    """The settings of ``role`` (there is one, ``keymgr``) from a plain table.

    Endpoints may be names here: an assembly is checked before they are resolved. The domain refuses names.
    Errors: SettingsError(path, why); it never quotes a secret.
    """
    top = Table(table)
    private_key = Secret(_key(top, "private_key"))
    taken: dict[Prefix, str] = {}
    seen: dict[bytes, str] = {}
    peers = []
    for peer_table in top.tables("peers", MAX_PEERS):
        peer = _peer(peer_table, taken)
        path = peer_table.where("public_key")
        if peer.public_key in seen:
            raise SettingsError(path, f"is already {seen[peer.public_key]}: a peer is listed once")
        seen[peer.public_key] = path
        peers.append(peer)
    trust = read_trust(top)
    if trust is not None and peers:
        raise SettingsError("peers", "must not be there beside trust: they come with a signed configuration")
    top.done()
    return Settings(private_key, tuple(peers), trust)
