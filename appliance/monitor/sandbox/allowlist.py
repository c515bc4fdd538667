"""Which system calls a sealed domain may make, and with which arguments: data, and what it takes to read it.

A rule is a tuple of alternatives, an alternative a tuple of ``Match``es that must all hold. ``ANY`` is the rule that
holds always. What no rule allows kills the domain.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

# How much of an argument the kernel looks at: an int's upper half is never read, and libraries leave it to chance.
INT: Final = 0xFFFF_FFFF
LONG: Final = 0xFFFF_FFFF_FFFF_FFFF


class Match(NamedTuple):
    """Argument number ``argument`` (0 to 5), masked with ``mask`` (64 bits), is one of ``values`` (each 32 bits)."""

    argument: int
    mask: int
    values: tuple[int, ...]


Alternative = tuple[Match, ...]
Rule = tuple[Alternative, ...]

ANY: Final[Rule] = ((),)

_PROT_READ_WRITE: Final = mmap.PROT_READ | mmap.PROT_WRITE
_MAP_NORESERVE: Final = 0x4000
_MAP_STACK: Final = 0x20000
_MREMAP_MAYMOVE: Final = 1
_FUTEX_WAIT_WAKE_WAITBITSET: Final = (0, 1, 9)
_FUTEX_PRIVATE_AND_REALTIME: Final = 128 | 256
_EVENT: Final = 8  # bytes in the counter of an eventfd
_LAST_WORDS_FD: Final = 2
_SOCK_NONBLOCK_CLOEXEC: Final = 0o4000 | 0o2000000  # <linux/net.h>, as on all architectures but a few old ones

# What every domain needs to live: measured with strace over the guest's loop, the cryptography and protobuf in use, and
# memory taken and given back. The most frequent first, since the filter compares from the top.
BASE: Final[dict[str, Rule]] = {
    # The loop waits here. Descriptors are registered before the seal; epoll_ctl turns interest in writing on and off.
    "epoll_wait": ANY,
    # An eventfd is read and written 8 bytes at a time. A domain that declares no read or write gets exactly that, and
    # its last words.
    "read": ((Match(2, LONG, (_EVENT,)),),),
    "write": ((Match(2, LONG, (_EVENT,)),), (Match(0, INT, (_LAST_WORDS_FD,)),)),
    "epoll_ctl": ANY,
    # The vDSO answers without a system call, unless the clock source is one it cannot read (HPET, some hypervisors).
    # Clocks 0 to 7; what lies above are other processes' CPU clocks and clock devices.
    "clock_gettime": ((Match(0, INT & ~7, (0,)),),),
    # Wait and wake, as sem_t, pthread_once and OpenSSL's and Rust's locks use them. None of the operations that requeue
    # or inherit priorities, where the kernel's bugs were.
    "futex": ((Match(1, INT & ~_FUTEX_PRIVATE_AND_REALTIME, _FUTEX_WAIT_WAKE_WAITBITSET),),),
    # malloc and CPython's arenas: private, anonymous, never executable, never at a fixed address, never shared (shared
    # memory would not be counted as the domain's own). There is no mprotect to change any of it later.
    "mmap": (
        (
            Match(2, LONG & ~_PROT_READ_WRITE, (0,)),
            Match(3, LONG & ~(_MAP_NORESERVE | _MAP_STACK), (mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS,)),
            Match(4, INT, (INT,)),
        ),
    ),
    "munmap": ANY,
    "brk": ANY,
    "mremap": ((Match(3, LONG, (0, _MREMAP_MAYMOVE)),),),
    # How the kernel resumes a timed futex wait that SIGSTOP and SIGCONT, or a debugger reading the seal, interrupted.
    "restart_syscall": ANY,
    # A domain may always lose what it has: objects that hold a descriptor close it when they are collected.
    "close": ANY,
    "exit_group": ANY,
}
# Not here, though other sandboxes have them: mprotect and madvise, which malloc needs for a second arena only, and
# domains are started with MALLOC_ARENA_MAX=1; rt_sigreturn, since the seal leaves no signal handler to return from, and
# a forged return is a way to set every register at once; exit, since there is no thread to end alone.

# What a role may ask for in component.toml: traffic on descriptors it was given, and random numbers. No call in it
# makes a descriptor, a mapping, a process or a name. `read` and `write` here lift the limits they have above.
DECLARABLE: Final = frozenset(
    """read readv write writev pread64 preadv pwrite64 pwritev lseek fstat fsync fdatasync ftruncate fallocate
    recvfrom recvmsg recvmmsg sendto sendmsg sendmmsg shutdown getrandom""".split()
)

# What a role may ask for besides, and gets with these arguments alone.
LIMITED: Final[dict[str, Rule]] = {
    # SIOCGIFNAME: CPython names the interface that a packet socket received by (socketmodule.c, makesockaddr), whoever
    # wants to know it. The kernel tells a name that the domain has no other use for, and changes nothing.
    "ioctl": ((Match(1, INT, (0x8910,)),),),
    # OpenSSL asks before each random number whether it was forked; in its own pid namespace a domain is always 1.
    "getpid": ANY,
    # An allocator gives back pages that it holds on to: MADV_DONTNEED, MADV_FREE. They are empty after that.
    "madvise": ((Match(2, INT, (4, 8)),),),
    # A caller's connection, never one that blocks. The one call here that makes a descriptor: of a listening socket
    # that the monitor has bound, and as many as RLIMIT_NOFILE leaves (`descriptors` in component.toml).
    "accept4": ((Match(3, INT, (_SOCK_NONBLOCK_CLOEXEC,)),),),
}


def rules(declared: Iterable[str], further: Mapping[str, Rule] | None = None) -> dict[str, Rule]:
    """The allow-list of a role that declares these system calls: name -> rule, in the order of comparison.

    ``further`` are more alternatives of what the surroundings need, by name. Errors: ValueError, naming the calls, if
    one is not declarable.
    """
    wanted = tuple(declared)
    if refused := sorted(set(wanted) - DECLARABLE - set(LIMITED)):
        raise ValueError(f"no role may declare the system calls {', '.join(refused)}")
    base = {**BASE, **{name: (*BASE.get(name, ()), *rule) for name, rule in (further or {}).items()}}
    return {**base, **{name: LIMITED.get(name, ANY) for name in wanted}}
