"""The core's orders as messages of the schemas ``sending`` and ``receiving``."""

from __future__ import annotations

from septum.v1 import receiving, sending

from components.keymgr import events
from components.keymgr.noise import wipe


def send_order(order: events.EncryptOrder) -> sending.SendOrder:
    """An order for encrypt. A key is wiped here; the copy in the message is protobuf's, which frees without wiping."""
    match order:
        case events.SendPeer(peer, prefixes, public_key):
            allowed_ips = [sending.SendPrefix(address=address, bits=bits) for address, bits in prefixes]
            told = sending.SendPeer(peer=peer, allowed_ips=allowed_ips, public_key=public_key)
            return sending.SendOrder(peer=told)
        case events.SendOnly(_, peers):
            return sending.SendOrder(only=sending.SendOnly(peers=peers))
        case events.SendSession(peer, session, receiver, key, address, port, confirm):
            message = sending.SendOrder(
                session=sending.SendSession(
                    peer=peer,
                    session=session,
                    receiver=receiver,
                    key=bytes(key),
                    address=address,
                    port=port,
                    confirm=confirm,
                )
            )
            wipe(key)
            return message
        case events.SendEndpoint(peer, address, port):
            return sending.SendOrder(endpoint=sending.SendEndpoint(peer=peer, address=address, port=port))
        case events.SendKeepalive(peer):
            return sending.SendOrder(keepalive=sending.SendKeepalive(peer=peer))
        case events.SendForget(peer):
            return sending.SendOrder(forget=sending.SendForget(peer=peer))


def receive_order(order: events.DecryptOrder) -> receiving.ReceiveOrder:
    """An order for decrypt; of a key the same holds as above."""
    match order:
        case events.ReceivePeer(peer, prefixes, public_key):
            allowed_ips = [receiving.ReceivePrefix(address=address, bits=bits) for address, bits in prefixes]
            told = receiving.ReceivePeer(peer=peer, allowed_ips=allowed_ips, public_key=public_key)
            return receiving.ReceiveOrder(peer=told)
        case events.ReceiveOnly(_, peers):
            return receiving.ReceiveOrder(only=receiving.ReceiveOnly(peers=peers))
        case events.ReceiveSession(peer, session, key):
            message = receiving.ReceiveOrder(
                session=receiving.ReceiveSession(peer=peer, session=session, key=bytes(key))
            )
            wipe(key)
            return message
        case events.ReceiveForget(session):
            return receiving.ReceiveOrder(forget=receiving.ReceiveForget(session=session))
