"""The configuration protocol of WireGuard's userspace implementations: what `wg` says over a socket, and is told.

Source: https://www.wireguard.com/xplatform/. Lines ``key=value``, an empty one ends a message; keys in hexadecimal. No
I/O here: bytes to a ``Change``, a ``Change`` and a configuration to another configuration, peers to bytes.

Nobody but keymgr has the private key, and preshared keys are sealed to it: neither is ever told. What is about the box
itself and not its peers (private key, port, mark) may be set to what it is, and to nothing else.
"""

from __future__ import annotations

import errno
import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from appliance.ctl.configuration import Configuration
from appliance.guest.settings import SettingsError
from appliance.signed import peers as section
from appliance.signed.peers import PeerEntry

LARGEST: Final = 16 << 20
"""Bytes of a message: the prefixes of all peers that a box takes."""

KEY: Final = 32
_HEX_KEY: Final = re.compile(r"[0-9a-fA-F]{64}")
_NUMBER: Final = re.compile(r"[0-9]{1,10}")


class UapiError(Exception):
    """Answered with ``number``, an errno; the text is for the log."""

    def __init__(self, number: int, why: str) -> None:
        super().__init__(why)
        self.number = number


class Standing(NamedTuple):
    """What of the box may be said again and not changed. ``public_key``: 32 bytes."""

    public_key: bytes
    listen_port: int
    fwmark: int = 0


@dataclass
class PeerEdit:
    """What one peer is to become. None: as it is. ``preshared_key`` of zeros is none."""

    public_key: bytes
    is_removed: bool = False
    only_if_there: bool = False
    replaces_prefixes: bool = False
    prefixes: list[tuple[str, bool]] = field(default_factory=list)  # and whether it is taken away
    endpoint: str | None = None
    keepalive: int | None = None
    preshared_key: bytes | None = field(default=None, repr=False)


@dataclass
class Change:
    """What a ``set`` asks for. ``private_key`` is wanted to be this, and cannot be looked up."""

    replaces_peers: bool = False
    private_key: bytes | None = field(default=None, repr=False)
    listen_port: int | None = None
    fwmark: int | None = None
    peers: list[PeerEdit] = field(default_factory=list)


# reading --------------------------------------------------------------------------------------------------------------


def is_whole(received: bytes | bytearray) -> bool:
    """Whether a message has come to its end."""
    return received.endswith(b"\n\n")


def read(untrusted: bytes) -> Change | None:
    """The change that a message asks for; None if it asks how things are. Errors: UapiError."""
    try:
        lines = untrusted.decode("ascii").split("\n")
    except UnicodeDecodeError:
        raise UapiError(errno.EINVAL, "what came is not text") from None
    operation, rest = lines[0], lines[1:-2]
    if operation == "get=1" and not rest:
        return None
    if operation != "set=1":
        raise UapiError(errno.EINVAL, f"neither get=1 nor set=1: {operation[:40]!r}")
    reader = _Reader()
    for line in rest:
        key, equals, value = line.partition("=")
        if not equals:
            raise UapiError(errno.EINVAL, f"not key=value: {line[:40]!r}")
        reader.take(key, value)
    return reader.change


class _Reader:
    def __init__(self) -> None:
        self.change = Change()
        self._peer: PeerEdit | None = None

    def take(self, key: str, value: str) -> None:
        if key == "public_key":
            self._peer = PeerEdit(_key(key, value))
            self.change.peers.append(self._peer)
        elif self._peer is None:
            self._of_device(key, value)
        else:
            self._of_peer(self._peer, key, value)

    def _of_device(self, key: str, value: str) -> None:
        match key:
            case "private_key":
                self.change.private_key = _key(key, value)
            case "listen_port":
                self.change.listen_port = _number(key, value, 65535)
            case "fwmark":
                self.change.fwmark = _number(key, value, (1 << 32) - 1)
            case "replace_peers":
                self.change.replaces_peers = _true(key, value)
            case _:
                raise UapiError(errno.EINVAL, f"{key[:40]!r} is nothing that a device has")

    def _of_peer(self, peer: PeerEdit, key: str, value: str) -> None:
        match key:
            case "remove":
                peer.is_removed = _true(key, value)
            case "update_only":
                peer.only_if_there = _true(key, value)
            case "replace_allowed_ips":
                peer.replaces_prefixes = _true(key, value)
                peer.prefixes.clear()
            case "allowed_ip":
                peer.prefixes.append((_prefix(value.removeprefix("-")), value.startswith("-")))
            case "endpoint":
                peer.endpoint = _endpoint(value)
            case "persistent_keepalive_interval":
                peer.keepalive = _number(key, value, 65535)
            case "preshared_key":
                peer.preshared_key = _key(key, value)
            case "protocol_version":
                if value != "1":
                    raise UapiError(errno.EPROTONOSUPPORT, f"protocol version {value[:8]!r}")
            case _:
                raise UapiError(errno.EINVAL, f"{key[:40]!r} is nothing that a peer has")


def _key(key: str, value: str) -> bytes:
    if not _HEX_KEY.fullmatch(value):
        raise UapiError(errno.EINVAL, f"{key} is no key in hexadecimal")
    return bytes.fromhex(value)


def _number(key: str, value: str, most: int) -> int:
    if not _NUMBER.fullmatch(value) or int(value) > most:
        raise UapiError(errno.EINVAL, f"{key} is no number up to {most}: {value[:12]!r}")
    return int(value)


def _true(key: str, value: str) -> bool:
    if value != "true":
        raise UapiError(errno.EINVAL, f"{key} is {value[:8]!r}, and can only be true")
    return True


def _prefix(value: str) -> str:
    try:
        return section.prefix(value)
    except SettingsError as error:
        raise UapiError(errno.EINVAL, f"allowed_ip {error.why}") from None


def _endpoint(value: str) -> str:
    """As the section writes it: an IPv4 address in IPv6's clothes is IPv4."""
    try:
        host, port = section.address_of(value)
    except SettingsError as error:
        raise UapiError(errno.EINVAL, f"endpoint {error.why}") from None
    address = ipaddress.ip_address(host)
    if isinstance(address, ipaddress.IPv6Address):
        mapped = address.ipv4_mapped
        return f"{mapped}:{port}" if mapped is not None else f"[{address}]:{port}"
    return f"{address}:{port}"


# changing -------------------------------------------------------------------------------------------------------------


def applied(
    change: Change,
    before: Configuration,
    standing: Standing,
    public_of: Callable[[bytes], bytes],
    seal: Callable[[bytes], bytes],
) -> Configuration:
    """What ``before`` becomes. ``public_of(private_key)`` is X25519's, ``seal(preshared_key)`` for keymgr's eyes.

    As WireGuard has it: a peer that is not there is added, a prefix that is given to one is taken from another.
    Errors: UapiError.
    """
    _check_standing(change, standing, public_of)
    table = _Table(before.peers, change.replaces_peers, seal)
    for edit in change.peers:
        if edit.public_key != standing.public_key:  # wg(8) leaves out ourselves too
            table.edit(edit)
    return Configuration(tuple(sorted(table.peers.values())), before.rules)


def _check_standing(change: Change, standing: Standing, public_of: Callable[[bytes], bytes]) -> None:
    """A file, for `wg setconf` and `syncconf`, says all three; what is not written in it comes as zeros."""
    said = (change.private_key, change.listen_port, change.fwmark)
    is_file = all(one is not None for one in said)
    private, port, mark = (
        None if is_file and not (any(one) if isinstance(one, bytes) else one) else one for one in said
    )
    if isinstance(private, bytes) and public_of(private) != standing.public_key:
        raise UapiError(errno.EPERM, "the private key lives in keymgr, and is not changed from here")
    if port not in (None, standing.listen_port):
        raise UapiError(errno.EPERM, f"the port is {standing.listen_port}, and is changed where the box is brought up")
    if mark not in (None, standing.fwmark):
        raise UapiError(errno.EPERM, f"the mark is {standing.fwmark}, and is changed where the box is brought up")


class _Table:
    """Peers by their keys, and whose each prefix is."""

    def __init__(self, before: Sequence[PeerEntry], is_emptied: bool, seal: Callable[[bytes], bytes]) -> None:
        self.peers = {} if is_emptied else {peer.public_key: peer for peer in before}
        self._seal = seal
        self._owners = {prefix: peer.public_key for peer in self.peers.values() for prefix in peer.allowed_ips}
        self._known = {peer.public_key: peer for peer in before}
        self._names = {peer.name for peer in before}
        taken = {peer.number for peer in before}
        self._free = (number for number in range(1, section.MOST_PEERS + 1) if number not in taken)

    def edit(self, edit: PeerEdit) -> None:
        peer = self.peers.get(edit.public_key)
        if edit.is_removed:
            if peer is not None:
                self._put(peer._replace(allowed_ips=()))
                del self.peers[edit.public_key]
            return
        if peer is None:
            if edit.only_if_there:
                return
            peer = self._new(edit.public_key)
        if edit.endpoint is not None:
            peer = peer._replace(endpoint=edit.endpoint)
        if edit.keepalive is not None:
            peer = peer._replace(keepalive=edit.keepalive)
        if edit.preshared_key is not None:
            sealed = self._seal(edit.preshared_key) if any(edit.preshared_key) else b""
            peer = peer._replace(preshared_key=sealed)
        prefixes = dict.fromkeys(() if edit.replaces_prefixes else peer.allowed_ips)
        for prefix, is_taken_away in edit.prefixes:
            if is_taken_away:
                prefixes.pop(prefix, None)
            else:
                prefixes[prefix] = None
        self._put(peer._replace(allowed_ips=tuple(prefixes)))

    def _new(self, public_key: bytes) -> PeerEntry:
        """A peer with nothing but its name and number: those that it had, if the whole list is said anew."""
        known = self._known.get(public_key)
        if known is not None:
            return PeerEntry(known.number, known.name, public_key, ())
        number = next(self._free, 0)
        if not number:
            raise UapiError(errno.ENOSPC, f"there are {section.MOST_PEERS} peers, which is all that a box takes")
        text = public_key.hex()
        name = next(name for size in range(8, 61) if (name := f"wg-{text[:size]}") not in self._names)
        self._names.add(name)
        return PeerEntry(number, name, public_key, ())

    def _put(self, peer: PeerEntry) -> None:
        """``peer`` as it is now; what is given to it is taken from others."""
        before = self.peers.get(peer.public_key)
        for prefix in before.allowed_ips if before is not None else ():
            del self._owners[prefix]
        for prefix in peer.allowed_ips:
            owner = self._owners.get(prefix)
            if owner is not None:
                other = self.peers[owner]
                self.peers[owner] = other._replace(allowed_ips=tuple(one for one in other.allowed_ips if one != prefix))
            self._owners[prefix] = peer.public_key
        self.peers[peer.public_key] = peer


# telling --------------------------------------------------------------------------------------------------------------


def told(standing: Standing, peers: Iterable[Any]) -> bytes:
    """The answer to ``get``: ``peers`` are septum.admin.v1.Peer, not believed to be what they should be."""
    lines = [f"listen_port={standing.listen_port}", *([f"fwmark={standing.fwmark}"] if standing.fwmark else [])]
    for peer in peers:
        lines += _lines(peer)
    return ("\n".join(lines) + "\n" + answer(0).decode()).encode()


def _lines(untrusted: Any) -> list[str]:
    import base64

    try:
        key = base64.b64decode(untrusted.public_key, validate=True).hex()
        endpoint = untrusted.endpoint or untrusted.configured_endpoint
        found: Mapping[str, Any] = {
            "public_key": _key("public_key", key).hex(),
            "endpoint": _endpoint(endpoint) if endpoint else None,
            "last_handshake_time_sec": int(untrusted.handshake),
            "last_handshake_time_nsec": 0,
            "tx_bytes": int(untrusted.sent),
            "rx_bytes": int(untrusted.received),
            "persistent_keepalive_interval": int(untrusted.keepalive),
        }
        prefixes = [f"allowed_ip={_prefix(one)}" for one in untrusted.allowed_ips]
    except (ValueError, UapiError) as error:
        raise UapiError(errno.EPROTO, f"the box shows a peer that is none: {error}") from None
    return [*(f"{name}={value}" for name, value in found.items() if value is not None), *prefixes]


def answer(number: int) -> bytes:
    """The end of every answer: 0 for done, else an errno, told below zero as wireguard-go does."""
    return f"errno={-number}\n\n".encode()
