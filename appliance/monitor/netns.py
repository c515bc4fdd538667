"""Network namespaces: made, entered for a moment, and bound to a name so that they outlive the monitor."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from appliance.monitor.kernel import CLONE_NEWNET, bind_mount, setns, unmount, unshare


def current() -> int:
    """A descriptor of the namespace that the caller is in."""
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def identity(fd: int) -> int:
    """The number by which the kernel knows a namespace (as in ``net:[4026531840]``)."""
    return os.fstat(fd).st_ino


@contextmanager
def inside(fd: int) -> Iterator[None]:
    """In the block, the calling thread is in the namespace behind ``fd``: what it opens belongs there for life."""
    home = current()
    try:
        setns(fd, CLONE_NEWNET)
        try:
            yield
        finally:
            setns(home, CLONE_NEWNET)
    finally:
        os.close(home)


def create() -> int:
    """A descriptor of a new, empty namespace."""
    home = current()
    try:
        unshare(CLONE_NEWNET)
        try:
            return current()
        finally:
            setns(home, CLONE_NEWNET)
    finally:
        os.close(home)


def bind(fd: int, path: Path) -> None:
    """Gives a namespace a name in the file system: it now lives until ``unbind``, whoever dies. Errors: OSError."""
    path.touch(mode=0o400)
    try:
        bind_mount(f"/proc/self/fd/{fd}", str(path))
    except OSError:
        path.unlink()
        raise


def unbind(path: Path) -> None:
    """Takes the name away again; nothing happens if there is none."""
    with suppress(OSError):  # a name that was made and not bound, or lost in a reboot
        unmount(str(path))
    path.unlink(missing_ok=True)
