"""The orders of tests/unit/crypto/wire.py for a few peers and places; a session's key and receiver follow from it."""

from __future__ import annotations

import socket
from typing import Final

from septum.v1.receiving import ReceiveOrder
from septum.v1.sending import SendOrder

from tests.unit.crypto import wire
from tests.unit.crypto.wire import (
    receive_forget,
    receive_only,
    send_forget,
    send_keepalive,
    send_only,
)

__all__ = [
    "NETS",
    "PLACES",
    "key",
    "receive_forget",
    "receive_only",
    "receive_peer",
    "receive_session",
    "send_endpoint",
    "send_forget",
    "send_keepalive",
    "send_only",
    "send_peer",
    "send_session",
]

PLACES: Final = (
    (socket.inet_aton("192.0.2.7"), 51820),
    (socket.inet_aton("192.0.2.8"), 7),
    (socket.inet_pton(socket.AF_INET6, "2001:db8::7"), 40000),
)
NETS: Final = (
    (socket.inet_aton("10.0.0.0"), 8),
    (socket.inet_pton(socket.AF_INET6, "fd00::"), 8),
)


def key(session: int) -> bytes:
    return session.to_bytes(2, "big") * 16


def send_peer(peer: int, nets: tuple[tuple[bytes, int], ...] = NETS) -> SendOrder:
    return wire.send_peer(peer, *nets)


def send_session(peer: int, session: int, place: tuple[bytes, int] = PLACES[0], confirm: bool = False) -> SendOrder:
    """The receiver of a session has its number."""
    return wire.send_session(
        peer=peer, session=session, receiver=session, key=key(session), place=place, confirm=confirm
    )


def send_endpoint(peer: int, place: tuple[bytes, int]) -> SendOrder:
    return wire.send_endpoint(peer, *place)


def receive_peer(peer: int, nets: tuple[tuple[bytes, int], ...] = NETS) -> ReceiveOrder:
    return wire.receive_peer(peer, *nets)


def receive_session(peer: int, session: int) -> ReceiveOrder:
    return wire.receive_session(peer, session, key(session))
