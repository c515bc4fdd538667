"""The box's own keys, as they are used here: what preshared keys are sealed to, and what a new peer is told.

They come from the part of the box that nobody has to trust. A key that the box was told to go over to is in the roster,
signed; before that, keys are pinned when they are seen first. If they ever change otherwise, nothing is sealed to them,
and no peer is told of them, before somebody has looked: `septumctl keys accept`.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from septum.admin.v1 import admin_pb2 as pb

from appliance.ctl import chain
from appliance.ctl.trouble import Exit, Trouble


class BoxKeys(NamedTuple):
    """Base64, 32 bytes each. ``spare``: the public key that the box would go over to; empty if it has none yet."""

    public_key: str
    sealing_key: str
    spare: str = ""


def shown(box: Any) -> BoxKeys:
    """The keys that the box shows now. Errors: Trouble."""
    found = box.ask(box.keys.GetKeys, pb.GetKeysRequest(), "the keys of the box")
    for key in filter(None, (found.public_key, found.sealing_key, found.next_public_key or None)):
        try:
            is_good = len(base64.b64decode(key, validate=True)) == 32
        except ValueError:
            is_good = False
        if not is_good:
            raise Trouble(Exit.NOT_BELIEVED, f"{box.context.address} shows keys that are none", "septumctl domains")
    return BoxKeys(found.public_key, found.sealing_key, found.next_public_key)


def pinned(box: Any) -> BoxKeys:
    """The keys of the box: those that the roster says, or the same as ever. Errors: Trouble."""
    now, before = shown(box), box.context.seen().get("keys")
    signed = chain.roster_of(box)[0].key
    if signed and base64.b64encode(signed).decode() != now.public_key:
        why = f"{box.context.name} shows another key than it was told to go over to, signed: {now.public_key}"
        raise Trouble(Exit.NOT_BELIEVED, why, _COMPARE, reason="KEYS_CHANGED")
    # A rotation is of the public key alone: preshared keys stay sealed to what they were
    if before is None or (signed and before[1] == now.sealing_key):
        accept(box, now)
    elif tuple(before) != now[:2]:
        why = f"{box.context.name} shows other keys than before: {now.public_key}, and had {before[0]}"
        raise Trouble(Exit.NOT_BELIEVED, why, _COMPARE, reason="KEYS_CHANGED")
    return now


_COMPARE: Final = "compare with `septum status` on the box itself; if it was made anew: septumctl keys accept"


def accept(box: Any, keys: BoxKeys) -> None:
    """These are the box's from now on."""
    box.context.remember(keys=list(keys[:2]))


def accept_all(box: Any) -> None:
    """What the box shows of itself is believed anew: its keys, and the tunnel's addresses. Errors: Trouble."""
    accept(box, shown(box))
    box.context.remember(addresses=None)


def sealer(box: Any) -> Callable[[bytes], bytes]:
    """Seals a preshared key so that keymgr alone can read it (libsodium's sealed box). Errors of both: Trouble."""
    held: list[bytes] = []

    def seal(preshared: bytes) -> bytes:
        from nacl.public import PublicKey, SealedBox

        if not held:
            held.append(base64.b64decode(pinned(box).sealing_key))
        return bytes(SealedBox(PublicKey(held[0])).encrypt(preshared))

    return seal
