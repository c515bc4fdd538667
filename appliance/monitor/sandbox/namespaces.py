"""Namespaces of its own: users, mounts, IPC, host name, cgroups. Into those of pids and network a domain is born.

Sources: user_namespaces(7), mount_namespaces(7), pivot_root(2).
"""

from __future__ import annotations

import errno
import os
from typing import Final

from appliance.monitor.sandbox.kernel import call

_CLONE_NEWNS: Final = 0x0002_0000
_CLONE_NEWCGROUP: Final = 0x0200_0000
_CLONE_NEWUTS: Final = 0x0400_0000
_CLONE_NEWIPC: Final = 0x0800_0000
_CLONE_NEWUSER: Final = 0x1000_0000

_MS_RDONLY: Final = 1
_MS_NOSUID: Final = 2
_MS_NODEV: Final = 4
_MS_NOEXEC: Final = 8
_MS_REMOUNT: Final = 32
_MS_REC: Final = 0x4000
_MS_PRIVATE: Final = 1 << 18
BARE: Final = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC  # flags of a mount with nothing in it to run
REMOUNT_READ_ONLY: Final = _MS_REMOUNT | _MS_RDONLY | BARE
_MNT_DETACH: Final = 2

# The only id of the user namespace. Not 0: nothing that looks for root shall find it.
INNER_ID: Final = 1

_KEYCTL_JOIN_SESSION_KEYRING: Final = 1

ROOT_FLAGS: Final = os.ST_RDONLY | os.ST_NOSUID | os.ST_NODEV | os.ST_NOEXEC


def _write(path: str, text: str) -> None:
    # Bytes, since a text file may import its codec late, from files that the domain's user may not read.
    with open(path, "wb", buffering=0) as file:
        file.write(text.encode())


def enter(hostname: str) -> None:
    """Moves the process into new namespaces, in which it is user INNER_ID on host ``hostname``. Errors: OSError."""
    uid, gid = os.geteuid(), os.getegid()
    call("unshare", _CLONE_NEWUSER | _CLONE_NEWNS | _CLONE_NEWIPC | _CLONE_NEWUTS | _CLONE_NEWCGROUP)
    _write("/proc/self/setgroups", "deny")  # without it an unprivileged process may write no gid_map
    _write("/proc/self/uid_map", f"{INNER_ID} {uid} 1")
    _write("/proc/self/gid_map", f"{INNER_ID} {gid} 1")
    name = hostname.encode()
    call("sethostname", name, len(name))


def leave_keyring() -> None:
    """A new, empty session keyring in place of the monitor's. Errors: OSError."""
    try:
        call("keyctl", _KEYCTL_JOIN_SESSION_KEYRING, None)
    except OSError as missing:
        if missing.errno != errno.ENOSYS:  # a kernel without keyrings has none to leave
            raise


def empty_root() -> None:
    """Makes an empty, read-only directory all that there is of a file system. Errors: OSError.

    A tmpfs is mounted over /proc, the one directory that is there for certain, becomes the root, and the old tree is
    let go. In it the process is confined to a directory once more by chroot(2), since a process whose root is not its
    mount namespace's may not create user namespaces: that ends them even if the seccomp filter should not.
    """
    call("mount", b"none", b"/", None, _MS_REC | _MS_PRIVATE, None)
    call("mount", b"septum", b"/proc", b"tmpfs", BARE, b"size=4k,nr_inodes=2,mode=0555")
    os.chdir("/proc")
    os.mkdir("empty", 0o555)
    call("pivot_root", b".", b".")
    call("umount2", b".", _MNT_DETACH)
    os.chdir("/")
    call("mount", None, b"/", None, REMOUNT_READ_ONLY, None)
    os.chroot("/empty")
    os.chdir("/")
