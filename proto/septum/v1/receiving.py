"""Generated from receiving.proto by `make proto`. Do not edit."""

from typing import Final

from appliance.vchan.message import Message
from appliance.vchan.schema import FieldRule, Kind, MessageRule, Schema, Type, WhenFull


class ReceivePrefix(Message):
    __slots__ = ("address", "bits")

    def __init__(
        self,
        *,
        address: bytes = b"",
        bits: int = 0,
    ) -> None:
        self.address = address
        self.bits = bits


_RECEIVEPREFIX: Final = MessageRule(
    "septum.v1.ReceivePrefix",
    ReceivePrefix,
    (
        FieldRule(1, "address", Type.BYTES, "CONTROL", 4, 16),
        FieldRule(2, "bits", Type.UINT32, "CONTROL", 0, 128),
    ),
)


class ReceivePeer(Message):
    __slots__ = ("peer", "allowed_ips", "public_key")

    def __init__(
        self,
        *,
        peer: int = 0,
        allowed_ips: list[ReceivePrefix] | None = None,
        public_key: bytes = b"",
    ) -> None:
        self.peer = peer
        self.allowed_ips: list[ReceivePrefix] = [] if allowed_ips is None else allowed_ips
        self.public_key = public_key


_RECEIVEPEER: Final = MessageRule(
    "septum.v1.ReceivePeer",
    ReceivePeer,
    (
        FieldRule(1, "peer", Type.UINT32, "CONTROL", 1, 65535),
        FieldRule(2, "allowed_ips", Type.MESSAGE, None, 0, 0, max_items=1024, message=_RECEIVEPREFIX),
        FieldRule(3, "public_key", Type.BYTES, "CONTROL", 32, 32),
    ),
)


class ReceiveSession(Message):
    __slots__ = ("peer", "session", "key")

    def __init__(
        self,
        *,
        peer: int = 0,
        session: int = 0,
        key: bytes = b"",
    ) -> None:
        self.peer = peer
        self.session = session
        self.key = key


_RECEIVESESSION: Final = MessageRule(
    "septum.v1.ReceiveSession",
    ReceiveSession,
    (
        FieldRule(1, "peer", Type.UINT32, "CONTROL", 1, 65535),
        FieldRule(2, "session", Type.UINT32, "CONTROL", 0, 4294967295),
        FieldRule(3, "key", Type.BYTES, "KEY", 32, 32),
    ),
)


class ReceiveForget(Message):
    __slots__ = ("session",)

    def __init__(
        self,
        *,
        session: int = 0,
    ) -> None:
        self.session = session


_RECEIVEFORGET: Final = MessageRule(
    "septum.v1.ReceiveForget",
    ReceiveForget,
    (
        FieldRule(1, "session", Type.UINT32, "CONTROL", 0, 4294967295),
    ),
)


class ReceiveOnly(Message):
    __slots__ = ("peers",)

    def __init__(
        self,
        *,
        peers: bytes = b"",
    ) -> None:
        self.peers = peers


_RECEIVEONLY: Final = MessageRule(
    "septum.v1.ReceiveOnly",
    ReceiveOnly,
    (
        FieldRule(1, "peers", Type.BYTES, "CONTROL", 0, 8192),
    ),
)


class ReceiveOrder(Message):
    __slots__ = ("peer", "session", "forget", "only")
    ONEOFS = {"order": ("peer", "session", "forget", "only")}

    def __init__(
        self,
        *,
        peer: ReceivePeer | None = None,
        session: ReceiveSession | None = None,
        forget: ReceiveForget | None = None,
        only: ReceiveOnly | None = None,
    ) -> None:
        if peer is not None:
            self.peer: ReceivePeer = peer
        if session is not None:
            self.session: ReceiveSession = session
        if forget is not None:
            self.forget: ReceiveForget = forget
        if only is not None:
            self.only: ReceiveOnly = only


_RECEIVEORDER: Final = MessageRule(
    "septum.v1.ReceiveOrder",
    ReceiveOrder,
    (
        FieldRule(1, "peer", Type.MESSAGE, None, 0, 0, has_presence=True, message=_RECEIVEPEER),
        FieldRule(2, "session", Type.MESSAGE, None, 0, 0, has_presence=True, message=_RECEIVESESSION),
        FieldRule(3, "forget", Type.MESSAGE, None, 0, 0, has_presence=True, message=_RECEIVEFORGET),
        FieldRule(4, "only", Type.MESSAGE, None, 0, 0, has_presence=True, message=_RECEIVEONLY),
    ),
)


SCHEMA: Final = Schema("receiving", Kind.STREAM, WhenFull.BLOCK, 18, _RECEIVEORDER)
