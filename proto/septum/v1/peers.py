"""Generated from peers.proto by `make proto`. Do not edit."""

from typing import Final

from appliance.vchan.message import Message
from appliance.vchan.schema import FieldRule, Kind, MessageRule, Schema, Type, WhenFull


class AskPeers(Message):
    __slots__ = ("start",)

    def __init__(
        self,
        *,
        start: int = 0,
    ) -> None:
        self.start = start


_ASKPEERS: Final = MessageRule(
    "septum.v1.AskPeers",
    AskPeers,
    (
        FieldRule(1, "start", Type.UINT32, "CONTROL", 0, 65535),
    ),
)


class AskKeys(Message):
    __slots__ = ("challenge",)

    def __init__(
        self,
        *,
        challenge: bytes = b"",
    ) -> None:
        self.challenge = challenge


_ASKKEYS: Final = MessageRule(
    "septum.v1.AskKeys",
    AskKeys,
    (
        FieldRule(1, "challenge", Type.BYTES, "CONTROL", 0, 32),
    ),
)


class PeersRequest(Message):
    __slots__ = ("peers", "keys")
    ONEOFS = {"ask": ("peers", "keys")}

    def __init__(
        self,
        *,
        peers: AskPeers | None = None,
        keys: AskKeys | None = None,
    ) -> None:
        if peers is not None:
            self.peers: AskPeers = peers
        if keys is not None:
            self.keys: AskKeys = keys


_PEERSREQUEST: Final = MessageRule(
    "septum.v1.PeersRequest",
    PeersRequest,
    (
        FieldRule(1, "peers", Type.MESSAGE, None, 0, 0, has_presence=True, message=_ASKPEERS),
        FieldRule(2, "keys", Type.MESSAGE, None, 0, 0, has_presence=True, message=_ASKKEYS),
    ),
)


class PeerState(Message):
    __slots__ = ("number", "public_key", "address", "port", "handshake", "received", "sent")

    def __init__(
        self,
        *,
        number: int = 0,
        public_key: bytes = b"",
        address: bytes = b"",
        port: int = 0,
        handshake: int = 0,
        received: int = 0,
        sent: int = 0,
    ) -> None:
        self.number = number
        self.public_key = public_key
        self.address = address
        self.port = port
        self.handshake = handshake
        self.received = received
        self.sent = sent


_PEERSTATE: Final = MessageRule(
    "septum.v1.PeerState",
    PeerState,
    (
        FieldRule(1, "number", Type.UINT32, "CONTROL", 1, 65535),
        FieldRule(2, "public_key", Type.BYTES, "CONTROL", 32, 32),
        FieldRule(3, "address", Type.BYTES, "CONTROL", 0, 16),
        FieldRule(4, "port", Type.UINT32, "CONTROL", 0, 65535),
        FieldRule(5, "handshake", Type.UINT64, "CONTROL", 0, 18446744073709551615),
        FieldRule(6, "received", Type.UINT64, "CONTROL", 0, 18446744073709551615),
        FieldRule(7, "sent", Type.UINT64, "CONTROL", 0, 18446744073709551615),
    ),
)


class PeersPage(Message):
    __slots__ = ("peers", "page")

    def __init__(
        self,
        *,
        peers: int = 0,
        page: list[PeerState] | None = None,
    ) -> None:
        self.peers = peers
        self.page: list[PeerState] = [] if page is None else page


_PEERSPAGE: Final = MessageRule(
    "septum.v1.PeersPage",
    PeersPage,
    (
        FieldRule(1, "peers", Type.UINT32, "CONTROL", 0, 65535),
        FieldRule(2, "page", Type.MESSAGE, None, 0, 0, max_items=256, message=_PEERSTATE),
    ),
)


class Keys(Message):
    __slots__ = ("public_key", "sealing_key", "next_public_key", "proof")

    def __init__(
        self,
        *,
        public_key: bytes = b"",
        sealing_key: bytes = b"",
        next_public_key: bytes = b"",
        proof: bytes = b"",
    ) -> None:
        self.public_key = public_key
        self.sealing_key = sealing_key
        self.next_public_key = next_public_key
        self.proof = proof


_KEYS: Final = MessageRule(
    "septum.v1.Keys",
    Keys,
    (
        FieldRule(1, "public_key", Type.BYTES, "CONTROL", 32, 32),
        FieldRule(2, "sealing_key", Type.BYTES, "CONTROL", 32, 32),
        FieldRule(3, "next_public_key", Type.BYTES, "CONTROL", 0, 32),
        FieldRule(4, "proof", Type.BYTES, "CONTROL", 0, 32),
    ),
)


class PeersReply(Message):
    __slots__ = ("peers", "keys")
    ONEOFS = {"answer": ("peers", "keys")}

    def __init__(
        self,
        *,
        peers: PeersPage | None = None,
        keys: Keys | None = None,
    ) -> None:
        if peers is not None:
            self.peers: PeersPage = peers
        if keys is not None:
            self.keys: Keys = keys


_PEERSREPLY: Final = MessageRule(
    "septum.v1.PeersReply",
    PeersReply,
    (
        FieldRule(1, "peers", Type.MESSAGE, None, 0, 0, has_presence=True, message=_PEERSPAGE),
        FieldRule(2, "keys", Type.MESSAGE, None, 0, 0, has_presence=True, message=_KEYS),
    ),
)


SCHEMA: Final = Schema("peers", Kind.CALL, WhenFull.BLOCK, 16, _PEERSREQUEST, _PEERSREPLY)
