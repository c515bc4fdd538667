"""Generated from sending.proto by `make proto`. Do not edit."""

from typing import Final

from appliance.vchan.message import Message
from appliance.vchan.schema import FieldRule, Kind, MessageRule, Schema, Type, WhenFull


class SendPrefix(Message):
    __slots__ = ("address", "bits")

    def __init__(
        self,
        *,
        address: bytes = b"",
        bits: int = 0,
    ) -> None:
        self.address = address
        self.bits = bits


_SENDPREFIX: Final = MessageRule(
    "septum.v1.SendPrefix",
    SendPrefix,
    (
        FieldRule(1, "address", Type.BYTES, "CONTROL", 4, 16),
        FieldRule(2, "bits", Type.UINT32, "CONTROL", 0, 128),
    ),
)


class SendPeer(Message):
    __slots__ = ("peer", "allowed_ips", "public_key")

    def __init__(
        self,
        *,
        peer: int = 0,
        allowed_ips: list[SendPrefix] | None = None,
        public_key: bytes = b"",
    ) -> None:
        self.peer = peer
        self.allowed_ips: list[SendPrefix] = [] if allowed_ips is None else allowed_ips
        self.public_key = public_key


_SENDPEER: Final = MessageRule(
    "septum.v1.SendPeer",
    SendPeer,
    (
        FieldRule(1, "peer", Type.UINT32, "CONTROL", 1, 65535),
        FieldRule(2, "allowed_ips", Type.MESSAGE, None, 0, 0, max_items=1024, message=_SENDPREFIX),
        FieldRule(3, "public_key", Type.BYTES, "CONTROL", 32, 32),
    ),
)


class SendSession(Message):
    __slots__ = ("peer", "session", "receiver", "key", "address", "port", "confirm")

    def __init__(
        self,
        *,
        peer: int = 0,
        session: int = 0,
        receiver: int = 0,
        key: bytes = b"",
        address: bytes = b"",
        port: int = 0,
        confirm: bool = False,
    ) -> None:
        self.peer = peer
        self.session = session
        self.receiver = receiver
        self.key = key
        self.address = address
        self.port = port
        self.confirm = confirm


_SENDSESSION: Final = MessageRule(
    "septum.v1.SendSession",
    SendSession,
    (
        FieldRule(1, "peer", Type.UINT32, "CONTROL", 1, 65535),
        FieldRule(2, "session", Type.UINT32, "CONTROL", 0, 4294967295),
        FieldRule(3, "receiver", Type.UINT32, "BLACK", 0, 4294967295),
        FieldRule(4, "key", Type.BYTES, "KEY", 32, 32),
        FieldRule(5, "address", Type.BYTES, "BLACK", 4, 16),
        FieldRule(6, "port", Type.UINT32, "BLACK", 1, 65535),
        FieldRule(7, "confirm", Type.BOOL, "CONTROL", 0, 1),
    ),
)


class SendEndpoint(Message):
    __slots__ = ("peer", "address", "port")

    def __init__(
        self,
        *,
        peer: int = 0,
        address: bytes = b"",
        port: int = 0,
    ) -> None:
        self.peer = peer
        self.address = address
        self.port = port


_SENDENDPOINT: Final = MessageRule(
    "septum.v1.SendEndpoint",
    SendEndpoint,
    (
        FieldRule(1, "peer", Type.UINT32, "CONTROL", 1, 65535),
        FieldRule(2, "address", Type.BYTES, "BLACK", 4, 16),
        FieldRule(3, "port", Type.UINT32, "BLACK", 1, 65535),
    ),
)


class SendKeepalive(Message):
    __slots__ = ("peer",)

    def __init__(
        self,
        *,
        peer: int = 0,
    ) -> None:
        self.peer = peer


_SENDKEEPALIVE: Final = MessageRule(
    "septum.v1.SendKeepalive",
    SendKeepalive,
    (
        FieldRule(1, "peer", Type.UINT32, "CONTROL", 1, 65535),
    ),
)


class SendForget(Message):
    __slots__ = ("peer",)

    def __init__(
        self,
        *,
        peer: int = 0,
    ) -> None:
        self.peer = peer


_SENDFORGET: Final = MessageRule(
    "septum.v1.SendForget",
    SendForget,
    (
        FieldRule(1, "peer", Type.UINT32, "CONTROL", 1, 65535),
    ),
)


class SendOnly(Message):
    __slots__ = ("peers",)

    def __init__(
        self,
        *,
        peers: bytes = b"",
    ) -> None:
        self.peers = peers


_SENDONLY: Final = MessageRule(
    "septum.v1.SendOnly",
    SendOnly,
    (
        FieldRule(1, "peers", Type.BYTES, "CONTROL", 0, 8192),
    ),
)


class SendOrder(Message):
    __slots__ = ("peer", "session", "endpoint", "keepalive", "forget", "only")
    ONEOFS = {"order": ("peer", "session", "endpoint", "keepalive", "forget", "only")}

    def __init__(
        self,
        *,
        peer: SendPeer | None = None,
        session: SendSession | None = None,
        endpoint: SendEndpoint | None = None,
        keepalive: SendKeepalive | None = None,
        forget: SendForget | None = None,
        only: SendOnly | None = None,
    ) -> None:
        if peer is not None:
            self.peer: SendPeer = peer
        if session is not None:
            self.session: SendSession = session
        if endpoint is not None:
            self.endpoint: SendEndpoint = endpoint
        if keepalive is not None:
            self.keepalive: SendKeepalive = keepalive
        if forget is not None:
            self.forget: SendForget = forget
        if only is not None:
            self.only: SendOnly = only


_SENDORDER: Final = MessageRule(
    "septum.v1.SendOrder",
    SendOrder,
    (
        FieldRule(1, "peer", Type.MESSAGE, None, 0, 0, has_presence=True, message=_SENDPEER),
        FieldRule(2, "session", Type.MESSAGE, None, 0, 0, has_presence=True, message=_SENDSESSION),
        FieldRule(3, "endpoint", Type.MESSAGE, None, 0, 0, has_presence=True, message=_SENDENDPOINT),
        FieldRule(4, "keepalive", Type.MESSAGE, None, 0, 0, has_presence=True, message=_SENDKEEPALIVE),
        FieldRule(5, "forget", Type.MESSAGE, None, 0, 0, has_presence=True, message=_SENDFORGET),
        FieldRule(6, "only", Type.MESSAGE, None, 0, 0, has_presence=True, message=_SENDONLY),
    ),
)


SCHEMA: Final = Schema("sending", Kind.STREAM, WhenFull.BLOCK, 18, _SENDORDER)
