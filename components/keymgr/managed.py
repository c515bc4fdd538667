"""keymgr in a box that is configured from elsewhere: who the peers are is what an administrator has signed.

Imported only there: what checks signatures would cost every other box memory and time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from septum.v1.applying import ApplyingReply, ApplyingRequest

from appliance.guest.loop import Guest
from appliance.signed.applier import Applied, Applier
from appliance.signed.refusal import Refusal, Why
from appliance.signed.statements import Rekey, RosterStatement
from appliance.signed.trust import Trust
from components.keymgr.manager import Followed, Manager
from components.keymgr.section import Sections
from components.keymgr.settings import PeerSettings

PORT: Final = "commits"
SHARE: Final = 0.25  # of our time, that config may take with whatever it hands over, again and again
Peers = Mapping[int, PeerSettings]


def serve(
    guest: Guest,
    trust: Trust,
    manager: Manager,
    follow: Callable[[Peers], Followed],
    rekey: Callable[[bytes], None],
) -> None:
    """Answers config: takes the roster, prepares peers, has ``follow`` put them in force and ``rekey`` go over to the
    key that the box is to be known by. ``manager`` is only asked what its keys are."""

    def go_over() -> None:
        # Not before there are peers: of the keys in a roster that is replayed, the last one counts
        if applier.commit is not None and applier.roster.key:
            rekey(applier.roster.key)

    def apply(peers: Peers) -> Applied:
        go_over()
        followed = follow(peers)
        commit = applier.commit
        whose = f"revision {commit.revision} by {commit.by}" if commit is not None else "no revision"
        ended = f"{followed.ended} sessions of others were ended"
        guest.log.info("peers-changed", f"{whose}: {len(peers)} peers; {followed.kept} sessions live on, {ended}")
        return Applied(followed.kept, followed.ended)

    def admit(statement: RosterStatement) -> None:
        if isinstance(statement, Rekey) and not manager.has_key(statement.key):
            raise Refusal(Why.UNKNOWN, "is not a key that this box has made", "key")

    nothing: Peers = {}
    applier: Applier[Peers] = Applier(
        trust, "peers", nothing, Sections(manager.public_key, manager.sealing, guest.beat).read, apply, admit
    )

    def answer(_: str, request: ApplyingRequest) -> ApplyingReply:
        reply = applier.answer(request)
        if request.WhichOneof("ask") == "enlist":
            go_over()
        return reply

    guest.serve(PORT, answer, share=SHARE)
    guest.on_close(PORT, lambda now: applier.forget())
