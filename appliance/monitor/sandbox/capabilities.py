"""Capabilities: none in any set, none that could come back, and the rules that would give them back locked off.

Source: capabilities(7). A user namespace gave the domain every capability over what is its own; here they end.
"""

from __future__ import annotations

import ctypes
import errno
import struct
from typing import Final

from appliance.monitor.sandbox.kernel import (
    PR_CAP_AMBIENT,
    PR_CAPBSET_DROP,
    PR_CAPBSET_READ,
    PR_GET_SECUREBITS,
    PR_SET_SECUREBITS,
    call,
    prctl,
)

_MOST: Final = 64  # the sets are 64 bits wide; the kernel answers EINVAL for the bits it has no capability for
_AMBIENT_CLEAR_ALL: Final = 4

# <linux/securebits.h>: NOROOT, NO_SETUID_FIXUP and NO_CAP_AMBIENT_RAISE set and locked, KEEP_CAPS clear and locked.
SECUREBITS: Final = 0b11_10_11_11

_HEADER: Final = struct.pack("=Ii", 0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this thread
_NONE: Final = bytes(24)  # two times effective, permitted, inheritable


def drop() -> None:
    """Gives up every capability for good. Needs CAP_SETPCAP, which it gives up with the rest. Errors: OSError."""
    prctl(PR_SET_SECUREBITS, SECUREBITS)
    for capability in range(_MOST):
        try:
            prctl(PR_CAPBSET_DROP, capability)
        except OSError as beyond:
            if beyond.errno != errno.EINVAL or capability == 0:
                raise
            break
    prctl(PR_CAP_AMBIENT, _AMBIENT_CLEAR_ALL)
    call("capset", _HEADER, _NONE)


def left() -> list[str]:
    """What is still there of what ``drop`` ends, in words: empty once it has worked. Errors: OSError."""
    sets = ctypes.create_string_buffer(b"\xff" * len(_NONE), len(_NONE))
    call("capget", ctypes.create_string_buffer(_HEADER, len(_HEADER)), sets)
    found = [] if sets.raw == _NONE else ["a capability in the effective, permitted or inheritable set"]
    if prctl(PR_GET_SECUREBITS) != SECUREBITS:
        found.append("unlocked securebits")
    for capability in range(_MOST):
        try:
            if prctl(PR_CAPBSET_READ, capability):
                found.append(f"capability {capability} in the bounding set")
        except OSError:
            break
    return found
