"""The box's own keys, as they are used here: what preshared keys are sealed to, and what a new peer is told.

They come from the part of the box that nobody has to trust. So they are pinned when they are seen first. If they ever
change, nothing is sealed to them, and no peer is told of them, before somebody has looked: `septumctl keys --accept`.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any, NamedTuple

from septum.admin.v1 import admin_pb2 as pb

from appliance.ctl.trouble import Exit, Trouble


class BoxKeys(NamedTuple):
    """Base64, 32 bytes each."""

    public_key: str
    sealing_key: str


def shown(box: Any) -> BoxKeys:
    """The keys that the box shows now. Errors: Trouble."""
    found = box.ask(box.keys.GetKeys, pb.GetKeysRequest(), "the keys of the box")
    for key in (found.public_key, found.sealing_key):
        try:
            is_good = len(base64.b64decode(key, validate=True)) == 32
        except ValueError:
            is_good = False
        if not is_good:
            raise Trouble(Exit.NOT_BELIEVED, f"{box.context.address} shows keys that are none", "septumctl domains")
    return BoxKeys(found.public_key, found.sealing_key)


def pinned(box: Any) -> BoxKeys:
    """The keys of the box, the same as ever. Errors: Trouble."""
    now, before = shown(box), box.context.seen().get("keys")
    if before is None:
        accept(box, now)
    elif BoxKeys(*before) != now:
        why = f"{box.context.name} shows other keys than before: {now.public_key}, and had {before[0]}"
        then = "compare with `septum status` on the box itself; if it was given new keys: septumctl keys --accept"
        raise Trouble(Exit.NOT_BELIEVED, why, then, reason="KEYS_CHANGED")
    return now


def accept(box: Any, keys: BoxKeys) -> None:
    """These are the box's from now on."""
    box.context.remember(keys=list(keys))


def sealer(box: Any) -> Callable[[bytes], bytes]:
    """Seals a preshared key so that keymgr alone can read it (libsodium's sealed box). Errors of both: Trouble."""
    held: list[bytes] = []

    def seal(preshared: bytes) -> bytes:
        from nacl.public import PublicKey, SealedBox

        if not held:
            held.append(base64.b64decode(pinned(box).sealing_key))
        return bytes(SealedBox(PublicKey(held[0])).encrypt(preshared))

    return seal
