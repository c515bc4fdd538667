"""What the core wants done, and what it is told. Field by field as in the schemas sending, receiving, sent, received.

An event with a key owns it: whoever carries the event out wipes the key afterwards, whatever came of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from components.keymgr.settings import Prefix


@dataclass(frozen=True, slots=True)
class SendHandshake:
    """A datagram for the world."""

    datagram: bytes
    address: bytes  # 4 or 16 bytes, network order
    port: int


@dataclass(frozen=True, slots=True)
class SendPeer:
    peer: int
    allowed_ips: tuple[Prefix, ...]
    public_key: bytes


@dataclass(frozen=True, slots=True)
class SendOnly:
    """For the encrypt of ``pair``: none but ``peers`` are peers. Bits, as in the schema."""

    pair: int
    peers: bytes


@dataclass(frozen=True, slots=True)
class SendSession:
    peer: int
    session: int
    receiver: int
    key: bytearray = field(repr=False)
    address: bytes
    port: int
    confirm: bool


@dataclass(frozen=True, slots=True)
class SendEndpoint:
    peer: int
    address: bytes
    port: int


@dataclass(frozen=True, slots=True)
class SendKeepalive:
    peer: int


@dataclass(frozen=True, slots=True)
class SendForget:
    peer: int


@dataclass(frozen=True, slots=True)
class ReceivePeer:
    peer: int
    allowed_ips: tuple[Prefix, ...]
    public_key: bytes


@dataclass(frozen=True, slots=True)
class ReceiveOnly:
    """The same for the decrypt of ``pair``."""

    pair: int
    peers: bytes


@dataclass(frozen=True, slots=True)
class ReceiveSession:
    peer: int
    session: int
    key: bytearray = field(repr=False)


@dataclass(frozen=True, slots=True)
class ReceiveForget:
    session: int


@dataclass(frozen=True, slots=True)
class Log:
    """One line for the audit log; ``severity`` as in RFC 5424 section 6.2.1."""

    severity: int
    event: str
    text: str


@dataclass(frozen=True, slots=True)
class PersistFloor:
    """A put for the store: ``version`` is one above the stored one."""

    name: str
    version: int
    blob: bytes


@dataclass(frozen=True, slots=True)
class Identify:
    """Handshakes with us are made for this public key from now on."""

    public_key: bytes


@dataclass(frozen=True, slots=True)
class ShowPeer:
    """What is known of a peer, for whoever watches."""

    peer: int
    handshake: float | None  # monotonic seconds of the last one that was completed
    received: int  # bytes
    sent: int  # bytes
    address: bytes  # empty if not known
    port: int


@dataclass(frozen=True, slots=True)
class HidePeer:
    """There is no such peer any more."""

    peer: int


EncryptOrder = SendPeer | SendOnly | SendSession | SendEndpoint | SendKeepalive | SendForget
DecryptOrder = ReceivePeer | ReceiveOnly | ReceiveSession | ReceiveForget
Event = SendHandshake | EncryptOrder | DecryptOrder | Log | PersistFloor | Identify | ShowPeer | HidePeer


class SendReport(NamedTuple):
    """From encrypt: totals of one session, or that packets wait for one."""

    peer: int
    session: int
    packets: int
    data_packets: int
    octets: int
    wanted: bool


class ReceiveReport(NamedTuple):
    """From decrypt: totals of one session, and where its newest authenticated packet came from."""

    peer: int
    session: int
    packets: int
    data_packets: int
    octets: int
    address: bytes
    port: int
