"""What is told of the peers and of our keys to who may only ask."""

from __future__ import annotations

from typing import Final

from septum.v1.peers import Keys, PeersPage, PeersReply, PeersRequest, PeerState

from components.keymgr.events import ShowPeer
from components.keymgr.manager import Manager

PAGE: Final = 256  # the bound of the schema


def handshake_at(peer: ShowPeer, now: float, wall: float) -> int:
    """When the last handshake was completed, in seconds since 1970; 0 if none was."""
    return 0 if peer.handshake is None else max(0, int(wall - (now - peer.handshake)))


def answer(request: PeersRequest, manager: Manager, now: float, wall: float) -> PeersReply:
    """``request`` has passed its schema."""
    if request.WhichOneof("ask") == "keys":
        challenge = request.keys.challenge
        keys = Keys(
            public_key=manager.public_key,
            sealing_key=manager.sealing.public,
            next_public_key=manager.spare_key,
            proof=manager.prove_keys(challenge) if challenge else b"",
        )
        return PeersReply(keys=keys)
    page = [
        PeerState(
            number=state.peer,
            public_key=public,
            address=state.address,
            port=state.port,
            handshake=handshake_at(state, now, wall),
            received=state.received,
            sent=state.sent,
        )
        for public, state in manager.states(request.peers.start, PAGE)
    ]
    return PeersReply(peers=PeersPage(peers=manager.counters()["peers"], page=page))
