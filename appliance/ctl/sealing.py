"""The box's own keys, as they are used here: what preshared keys are sealed to, and what a new peer is told.

They come from the part of the box that nobody has to trust. What the box's public key is, the roster says once it was
told to go over to another one; before that, it is pinned when it is seen first. Whoever holds it vouches for the other
keys (appliance/signed/keyproof.py). If that does not hold, nothing is sealed, and no peer is told of anything, before
somebody has looked: `septumctl keys accept`.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from septum.admin.v1 import admin_pb2 as pb

from appliance.ctl import chain
from appliance.ctl.trouble import Exit, Trouble
from appliance.signed.keyproof import Question


class BoxKeys(NamedTuple):
    """Base64, 32 bytes each. ``spare``: the public key that the box would go over to; empty if it has none yet."""

    public_key: str
    sealing_key: str
    spare: str = ""


def _ask(box: Any, known: bytes | None) -> BoxKeys:
    """The keys that the box shows, vouched for by the holder of its public key: of ``known``, or of the one shown.

    Errors: Trouble.
    """
    question = Question(os.urandom(32))
    found = box.ask(box.keys.GetKeys, pb.GetKeysRequest(challenge=question.challenge), "the keys of the box")
    public, sealing = _raw(box, found.public_key), _raw(box, found.sealing_key)
    spare = _raw(box, found.next_public_key) if found.next_public_key else b""
    if known is not None and public != known:
        before = base64.b64encode(known).decode()
        raise _changed(f"{box.context.name} shows another key than its own: {found.public_key}, not {before}")
    if not question.is_answered(public, sealing, spare, found.proof):
        raise _changed(f"{box.context.name} shows keys that the holder of {found.public_key} does not vouch for")
    return BoxKeys(found.public_key, found.sealing_key, found.next_public_key)


def _raw(box: Any, key: str) -> bytes:
    try:
        raw = base64.b64decode(key, validate=True)
    except ValueError:
        raw = b""
    if len(raw) != 32:
        raise Trouble(Exit.NOT_BELIEVED, f"{box.context.address} shows keys that are none", "septumctl domains")
    return raw


def _changed(why: str) -> Trouble:
    return Trouble(Exit.NOT_BELIEVED, why, _COMPARE, reason="KEYS_CHANGED")


_COMPARE: Final = (
    "compare with what `septum pubkey` makes of the PrivateKey in the box's own file; if the box was made anew: "
    "septumctl keys accept"
)


def pinned(box: Any) -> BoxKeys:
    """The keys of the box: of the public key that the roster says, or the same as ever. Errors: Trouble."""
    seen, signed = box.context.seen().get("public_key"), chain.roster_of(box)[0].key
    known = signed or (base64.b64decode(seen) if seen else None)
    now = _ask(box, known)
    box.context.remember(public_key=now.public_key)
    return now


def accept_all(box: Any) -> BoxKeys:
    """What the box shows of itself is believed anew: its keys, and the tunnel's addresses. Errors: Trouble."""
    signed = chain.roster_of(box)[0].key
    now = _ask(box, signed or None)
    box.context.remember(public_key=now.public_key, addresses=None)
    return now


def sealer(box: Any) -> Callable[[bytes], bytes]:
    """Seals a preshared key so that keymgr alone can read it (libsodium's sealed box). Errors of both: Trouble."""
    held: list[bytes] = []

    def seal(preshared: bytes) -> bytes:
        from nacl.public import PublicKey, SealedBox

        if not held:
            held.append(base64.b64decode(pinned(box).sealing_key))
        return bytes(SealedBox(PublicKey(held[0])).encrypt(preshared))

    return seal
