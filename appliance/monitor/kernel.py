"""The Linux calls of the monitor that Python 3.11 does not have. Each raises OSError with the call's name."""

from __future__ import annotations

import ctypes
import os
import signal
from typing import Final

from appliance.monitor.sandbox.kernel import call
from appliance.monitor.sandbox.syscalls import this_architecture

# <linux/sched.h>
CLONE_PIDFD: Final = 0x00001000
CLONE_NEWPID: Final = 0x20000000
CLONE_NEWNET: Final = 0x40000000

# <sys/mount.h>
_MS_BIND: Final = 4096
_MNT_DETACH: Final = 2

# PyDLL keeps the interpreter's lock across the call: the child must not find it held by a thread it does not have.
_libc: Final = ctypes.PyDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def clone(flags: int) -> tuple[int, int]:
    """fork(2) into new namespaces: ``(pid, pidfd)`` in the parent, ``(0, -1)`` in the child.

    ``flags`` are CLONE_NEW*. The child is a copy of a single-threaded caller and must do nothing but end in exec or
    ``os._exit``: none of Python's own fork hooks has run in it.
    """
    number = this_architecture().number("clone")
    pidfd = ctypes.c_int(-1)
    zero = ctypes.c_ulong(0)
    made = ctypes.c_ulong(flags | CLONE_PIDFD | signal.SIGCHLD)
    # clone(flags, stack, parent_tid, ...): the pidfd comes where parent_tid points; the order of the rest differs
    # between architectures, and all of it is zero here.
    pid = _libc.syscall(ctypes.c_long(number), made, zero, ctypes.byref(pidfd), zero, zero)
    if pid < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"clone: {os.strerror(error)}")
    return pid, pidfd.value


def unshare(flags: int) -> None:
    """unshare(2)."""
    call("unshare", flags)


def setns(fd: int, kind: int) -> None:
    """setns(2): enters the namespace behind ``fd``, of kind CLONE_NEW*."""
    call("setns", fd, kind)


def bind_mount(source: str, target: str) -> None:
    """mount(2) with MS_BIND."""
    call("mount", source.encode(), target.encode(), None, _MS_BIND, None)


def unmount(target: str) -> None:
    """umount2(2), detached: gone from the tree now, from the kernel when nobody holds it any more."""
    call("umount2", target.encode(), _MNT_DETACH)
