"""The textbook's way to make packets and datagrams, one at a time, for the tests to compare with."""

from __future__ import annotations

import struct
from collections.abc import Iterable

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from septum.v1.receiving import (
    ReceiveForget,
    ReceiveOnly,
    ReceiveOrder,
    ReceivePeer,
    ReceivePrefix,
    ReceiveSession,
)
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

from appliance.vchan.messages import Datagrams, Packets
from components.crypto.receiving import Receiver
from components.crypto.sending import Sender

KEY = bytes(range(32))
PLACE = (bytes((192, 0, 2, 7)), 51820)
NET4 = (bytes((10, 0, 0, 0)), 8)
NET6 = (bytes.fromhex("fd000000000000000000000000000000"), 8)


def ipv4(length: int, source: str = "10.0.0.1", destination: str = "10.0.0.2", fill: int = 0) -> bytes:
    """An IPv4 packet of ``length`` bytes in all."""
    addresses = [bytes(map(int, address.split("."))) for address in (source, destination)]
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, length, 1, 0, 64, 17, 0, *addresses)
    return head + bytes((fill,)) * (length - 20)


def ipv6(length: int, source: bytes = NET6[0], destination: bytes = NET6[0], fill: int = 0) -> bytes:
    """An IPv6 packet of ``length`` bytes in all."""
    return struct.pack("!IHBB16s16s", 6 << 28, length - 40, 17, 64, source, destination) + bytes((fill,)) * (
        length - 40
    )


def datagram(plain: bytes, counter: int, receiver: int = 77, key: bytes = KEY, padded: int | None = None) -> bytes:
    """A transport datagram, by the paper's section 5.4.6."""
    whole = plain.ljust(-(-len(plain) // 16) * 16 if padded is None else padded, b"\0")
    nonce = bytes(4) + counter.to_bytes(8, "little")
    head = b"\x04\0\0\0" + receiver.to_bytes(4, "little") + counter.to_bytes(8, "little")
    return head + ChaCha20Poly1305(key).encrypt(nonce, whole, b"")


def undo(one: bytes, key: bytes = KEY) -> tuple[int, int, bytes]:
    """(receiver, counter, padded plaintext) of a datagram; InvalidTag if it is none."""
    assert one[:4] == b"\x04\0\0\0"
    plain = ChaCha20Poly1305(key).decrypt(bytes(4) + one[8:16], one[16:], b"")
    return int.from_bytes(one[4:8], "little"), int.from_bytes(one[8:16], "little"), plain


def cut(groups: Iterable[Datagrams | Packets]) -> list[bytes]:
    """The items of groups, one by one; copied, because the next call overwrites them."""
    return [bytes(group[0][at : at + group.size]) for group in groups for at in range(0, len(group[0]), group.size)]


def public_key(peer: int) -> bytes:
    return peer.to_bytes(32, "big")


def send_peer(peer: int, *prefixes: tuple[bytes, int], public: bytes | None = None) -> SendOrder:
    allowed = [SendPrefix(address=a, bits=b) for a, b in prefixes]
    return SendOrder(peer=SendPeer(peer=peer, allowed_ips=allowed, public_key=public or public_key(peer)))


def among(peers: Iterable[int]) -> bytes:
    """The bits of ``peers``."""
    return sum(1 << peer for peer in peers).to_bytes(8192, "little").rstrip(b"\0")


def send_only(*peers: int) -> SendOrder:
    return SendOrder(only=SendOnly(peers=among(peers)))


def send_session(
    *,
    peer: int = 1,
    session: int = 5,
    receiver: int = 77,
    key: bytes = KEY,
    place: tuple[bytes, int] = PLACE,
    confirm: bool = False,
) -> SendOrder:
    address, port = place
    order = SendSession(
        peer=peer, session=session, receiver=receiver, key=key, address=address, port=port, confirm=confirm
    )
    return SendOrder(session=order)


def send_endpoint(peer: int, address: bytes, port: int) -> SendOrder:
    return SendOrder(endpoint=SendEndpoint(peer=peer, address=address, port=port))


def send_keepalive(peer: int = 1) -> SendOrder:
    return SendOrder(keepalive=SendKeepalive(peer=peer))


def send_forget(peer: int = 1) -> SendOrder:
    return SendOrder(forget=SendForget(peer=peer))


def receive_peer(peer: int, *prefixes: tuple[bytes, int], public: bytes | None = None) -> ReceiveOrder:
    allowed = [ReceivePrefix(address=a, bits=b) for a, b in prefixes]
    return ReceiveOrder(peer=ReceivePeer(peer=peer, allowed_ips=allowed, public_key=public or public_key(peer)))


def receive_only(*peers: int) -> ReceiveOrder:
    return ReceiveOrder(only=ReceiveOnly(peers=among(peers)))


def receive_session(peer: int = 1, session: int = 77, key: bytes = KEY) -> ReceiveOrder:
    return ReceiveOrder(session=ReceiveSession(peer=peer, session=session, key=key))


def receive_forget(session: int = 77) -> ReceiveOrder:
    return ReceiveOrder(forget=ReceiveForget(session=session))


def seal_whole(core: Sender, packets: bytes, size: int, now: float = 1.0) -> list[Datagrams]:
    """All that becomes of a group that no other follows. Copies."""
    made = [*core.seal(memoryview(packets), size, now), *core.rest()]
    return [one._replace(datagrams=bytes(one.datagrams)) for one in made]


def sender(mtu: int = 1420, session: bool = True) -> Sender:
    """A sender that knows peer 1, with everything in NET4 and NET6, and at time 0 perhaps a session."""
    made = Sender(mtu)
    made.order(send_peer(1, NET4, NET6), 0.0)
    if session:
        made.order(send_session(), 0.0)
    return made


def receiver(session: bool = True) -> Receiver:
    """A receiver that knows peer 1, with everything in NET4 and NET6, and at time 0 perhaps a session."""
    made = Receiver()
    made.order(receive_peer(1, NET4, NET6), 0.0)
    if session:
        made.order(receive_session(), 0.0)
    return made
