"""The seal of a Xen guest: the steps of a domain's that make sense where nothing else runs.

Xen is the wall here, and it stands before the first instruction of the guest. The seal is what whoever breaks into the
component finds next: the guest's own kernel, of which it can use what its role needs and nothing else. There is no
monitor in the guest whose namespaces, ids or files could be shared, so nothing is left of those; the rest is the same.

    start, root, identity, seccomp    of a guest
    descriptors, session, capabilities, privileges, landlock, limits, process, verify    as seal.py has them
"""

from __future__ import annotations

import mmap
import os
import resource
from collections.abc import Iterable, Mapping
from typing import Final

from appliance.monitor.sandbox import namespaces, seal
from appliance.monitor.sandbox.allowlist import INT, LONG, Match, Rule
from appliance.monitor.sandbox.kernel import PR_SET_DUMPABLE, PR_SET_SECUREBITS, call, prctl
from appliance.monitor.sandbox.plan import NAMESPACES, SealPlan
from appliance.monitor.sandbox.seal import Sealed, Step
from appliance.xen import evtchn, gntalloc, gntdev

_SECBIT_NO_SETUID_FIXUP: Final = 1 << 2
_READ_WRITE: Final = mmap.PROT_READ | mmap.PROT_WRITE
_MAP_FIXED: Final = 0x10
_EMPTY: Final = "/proc"  # the one directory that is there for certain

_IOCTLS: Final = (
    evtchn.NOTIFY,
    evtchn.BIND_UNBOUND,
    evtchn.BIND_INTERDOMAIN,
    evtchn.UNBIND,
    evtchn.RESET,
    gntalloc.ALLOC,
    gntalloc.DEALLOC,
    gntalloc.SET_UNMAP_NOTIFY,
    gntdev.MAP,
    gntdev.UNMAP,
)  # gntdev's SET_UNMAP_NOTIFY has gntalloc's number


def channel_rules(xenstore_fd: int, page_fds: Iterable[int]) -> dict[str, Rule]:
    """What a guest needs of the kernel to meet its peers: the calls of appliance.xen on descriptors that are open.

    ``page_fds`` are those of gntalloc and gntdev, the only ones of which a mapping can be made, and never an executable
    one. A window that is blanked is one of the guest's own, at a place that is mapped already.
    """
    no_exec = Match(2, LONG & ~_READ_WRITE, (0,))
    own = Match(3, LONG, (mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_FIXED,))
    granted = Match(3, LONG, (mmap.MAP_SHARED | _MAP_FIXED,))
    port = Match(2, LONG, (evtchn.PORT.size,))
    store = Match(0, INT, (xenstore_fd,))
    return {
        "ioctl": ((Match(1, INT, _IOCTLS),),),
        "mmap": ((no_exec, granted, Match(4, INT, tuple(page_fds))), (no_exec, own, Match(4, INT, (INT,)))),
        "read": ((port,), (store,)),
        "write": ((port,), (store,)),
    }


def plan_for(domain: str, syscalls: Iterable[str], keep_fds: Iterable[int], descriptors: int = 0) -> SealPlan:
    """The plan of a guest's seal, made in the guest. ``descriptors``: connections that it may accept.

    The address space is bounded by what is mapped now and what memory there is. Errors: ValueError, OSError.
    """
    return SealPlan(
        domain=domain,
        syscalls=tuple(syscalls),
        memory_bytes=_mapped() + _available(),
        file_bytes=0,
        keep_fds=tuple(keep_fds),
        outer_uid=namespaces.INNER_ID,
        outer_gid=namespaces.INNER_ID,
        foreign=tuple((name, 0) for name in NAMESPACES),
        descriptors=descriptors,
    )


def _mapped() -> int:
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def _available() -> int:
    with open("/proc/meminfo", "rb") as file:
        for line in file:
            if line.startswith(b"MemAvailable:"):
                return int(line.split()[1]) << 10
    raise OSError(0, "the kernel does not say what memory is available")


def _fail(what: str) -> OSError:
    return OSError(0, what)


def _start(plan: SealPlan, progress: object) -> None:
    if os.getpid() != 1:
        raise _fail("this is not the first process of the guest")
    if os.listdir("/proc/self/task") != [os.readlink("/proc/self")]:
        raise _fail("more than one thread runs, and only this one would be sealed")
    others = sorted(int(name) for name in os.listdir("/proc") if name.isdecimal())
    if programs := [pid for pid in others if pid != 1 and os.path.exists(f"/proc/{pid}/exe")]:
        raise _fail(f"other programs run in this guest: processes {programs}")


def _root(plan: SealPlan, progress: object) -> None:
    """An empty, read-only directory for a root. Of the image nothing is left but what is mapped: its memory is free."""
    _unlink_everything()
    call("mount", b"septum", _EMPTY.encode(), b"ramfs", namespaces.BARE, b"mode=0555")
    call("mount", None, _EMPTY.encode(), None, namespaces.REMOUNT_READ_ONLY, None)
    os.chdir(_EMPTY)
    os.chroot(".")
    os.chdir("/")
    if os.listdir("/"):
        raise _fail("the new root is not empty")


def _unlink_everything() -> None:
    """Removes the files of the first file system, the image; what is mounted over it is left."""
    with open("/proc/self/mounts", "rb") as file:
        if file.readline().split()[1:3] != [b"/", b"rootfs"]:
            raise _fail("the root is not the image that the kernel was started with, and nothing of it is removed")
    device = os.stat("/").st_dev
    waiting = ["/"]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in list(entries):
                if entry.stat(follow_symlinks=False).st_dev != device:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                else:
                    os.unlink(entry.path)


def _identity(plan: SealPlan, progress: object) -> None:
    """No longer root; capabilities stay, since the next step needs some to give up all of them."""
    name = plan.domain.encode()
    call("sethostname", name, len(name))
    prctl(PR_SET_SECUREBITS, _SECBIT_NO_SETUID_FIXUP)
    os.setgroups([])
    os.setresgid(namespaces.INNER_ID, namespaces.INNER_ID, namespaces.INNER_ID)
    os.setresuid(namespaces.INNER_ID, namespaces.INNER_ID, namespaces.INNER_ID)
    prctl(PR_SET_DUMPABLE, 0)


_OF_A_GUEST: Final = {
    "start": Step("start", _start, "the kernel must start the domain as its first program, and nothing beside it"),
    "root": Step("root", _root, "the kernel must have ramfs, and the image an empty directory /proc"),
    "identity": Step("identity", _identity, "the kernel must have CONFIG_MULTIUSER"),
}
_LEFT_OUT: Final = frozenset({"namespaces", "keyring"})  # the images' kernels have neither


def steps(rules: Mapping[str, Rule]) -> tuple[Step, ...]:
    """The steps of a guest's seal, in their order; ``rules`` are those of ``channel_rules``."""
    widened = seal.widened(seal.STEPS, rules)
    by_name = {step.name: step for step in widened if step.name not in _LEFT_OUT} | _OF_A_GUEST
    order = [step.name for step in seal.STEPS if step.name not in _LEFT_OUT]
    order.insert(order.index("identity"), order.pop(order.index("root")))  # mounting and chroot are root's
    return tuple(by_name[name] for name in order)


def seal_guest(plan: SealPlan, rules: Mapping[str, Rule]) -> Sealed:
    """Seals PID 1 of a guest for good. Errors: SealError; the guest is then half sealed and must end at once."""
    return seal.take(steps(rules), plan)
