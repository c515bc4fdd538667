"""Landlock: a rule set that handles everything the kernel's version knows of, and allows nothing.

Source: Linux, Documentation/userspace-api/landlock.rst. It stands behind the empty root: a directory that came in by
accident would open nothing.
"""

from __future__ import annotations

import errno
import os
import struct
from typing import Final

from appliance.monitor.sandbox.kernel import call

# ABI 1 is Linux 5.13. It covers the file system, which is what the seal relies on; sockets and signals are refused by
# namespaces and seccomp as well, and by Landlock too where the kernel knows how (see `handled`).
LEAST_ABI: Final = 1

_VERSION_QUERY: Final = 1  # LANDLOCK_CREATE_RULESET_VERSION

# The first ABI that knows the right, the field of struct landlock_ruleset_attr, its bits, and what they are.
_RIGHTS: Final = (
    (1, "fs", 0x1FFF, "execute, read, write, list, remove and make files of every kind"),
    (2, "fs", 1 << 13, "link or rename across directories"),
    (3, "fs", 1 << 14, "truncate"),
    (4, "net", 0b11, "bind and connect TCP sockets"),
    (5, "fs", 1 << 15, "ioctl on devices"),
    (6, "scoped", 0b11, "connect to abstract unix sockets outside, signal processes outside"),
)
# The fields in their order, and the first ABI whose kernel takes the struct with that field in it.
_FIELDS: Final = (("fs", 1), ("net", 4), ("scoped", 6))


def abi() -> int:
    """The version of Landlock in this kernel. Errors: OSError ENOSYS if it has none, EOPNOTSUPP if it is turned off."""
    return call("landlock_create_ruleset", None, 0, _VERSION_QUERY)


def handled(version: int) -> tuple[str, ...]:
    """In words, what Landlock of this version refuses to a domain."""
    return tuple(words for since, _, _, words in _RIGHTS if since <= version)


def attributes(version: int) -> bytes:
    """struct landlock_ruleset_attr for this version: every right it knows, in as many fields as it takes."""
    masks = dict.fromkeys((name for name, since in _FIELDS if since <= version), 0)
    for since, name, bits, _ in _RIGHTS:
        if since <= version:
            masks[name] |= bits
    return struct.pack(f"={len(masks)}Q", *masks.values())


def restrict() -> int:
    """Confines the calling thread and returns the ABI in force. Needs no_new_privs.

    Errors: OSError of the step that failed, or EPERM if the kernel took the rules and a directory still opens.
    """
    version = abi()
    if version < LEAST_ABI:
        raise OSError(errno.EOPNOTSUPP, f"Landlock ABI {version} is older than {LEAST_ABI}")
    wanted = attributes(version)
    ruleset = call("landlock_create_ruleset", wanted, len(wanted), 0)
    try:
        call("landlock_restrict_self", ruleset, 0)
    finally:
        os.close(ruleset)
    try:
        os.close(os.open("/", os.O_RDONLY | os.O_DIRECTORY))
    except OSError as refusal:
        if refusal.errno == errno.EACCES:
            return version
        raise
    raise OSError(errno.EPERM, "Landlock is in force and the root still opens")
