"""Orders for encrypt and decrypt, and datagrams as a peer of the tunnel makes them."""

from __future__ import annotations

import socket
from typing import Final

from septum.v1.receiving import ReceiveForget, ReceiveOnly, ReceiveOrder, ReceivePeer, ReceivePrefix, ReceiveSession
from septum.v1.sending import (
    SendEndpoint,
    SendForget,
    SendKeepalive,
    SendOnly,
    SendOrder,
    SendPeer,
    SendPrefix,
    SendSession,
)

from tests.unit.crypto.wire import among

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
    prefixes = [SendPrefix(address=address, bits=bits) for address, bits in nets]
    return SendOrder(peer=SendPeer(peer=peer, allowed_ips=prefixes, public_key=bytes((peer,)) * 32))


def send_session(peer: int, session: int, place: tuple[bytes, int] = PLACES[0], confirm: bool = False) -> SendOrder:
    """The receiver of a session has its number."""
    order = SendSession(peer=peer, session=session, receiver=session, key=key(session), address=place[0], port=place[1])
    order.confirm = confirm
    return SendOrder(session=order)


def send_endpoint(peer: int, place: tuple[bytes, int]) -> SendOrder:
    return SendOrder(endpoint=SendEndpoint(peer=peer, address=place[0], port=place[1]))


def send_keepalive(peer: int) -> SendOrder:
    return SendOrder(keepalive=SendKeepalive(peer=peer))


def send_forget(peer: int) -> SendOrder:
    return SendOrder(forget=SendForget(peer=peer))


def send_only(*peers: int) -> SendOrder:
    return SendOrder(only=SendOnly(peers=among(peers)))


def receive_peer(peer: int, nets: tuple[tuple[bytes, int], ...] = NETS) -> ReceiveOrder:
    prefixes = [ReceivePrefix(address=address, bits=bits) for address, bits in nets]
    return ReceiveOrder(peer=ReceivePeer(peer=peer, allowed_ips=prefixes, public_key=bytes((peer,)) * 32))


def receive_session(peer: int, session: int) -> ReceiveOrder:
    return ReceiveOrder(session=ReceiveSession(peer=peer, session=session, key=key(session)))


def receive_forget(session: int) -> ReceiveOrder:
    return ReceiveOrder(forget=ReceiveForget(session=session))


def receive_only(*peers: int) -> ReceiveOrder:
    return ReceiveOrder(only=ReceiveOnly(peers=among(peers)))
