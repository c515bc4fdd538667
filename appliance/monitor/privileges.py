"""What the monitor gives up once its box is built.

It stays root (or the root of a user namespace), since it must still be able to build a domain anew and to take its
network down; docs/decisions/0010-what-the-monitor-keeps.md says what for. Everything else goes: other capabilities,
from the bounding set too, so that no child regains them; new privileges by execve; and the system calls that such a
process never makes and an intruder would like to.
"""

from __future__ import annotations

import ctypes
import errno
import struct
from collections.abc import Iterable
from typing import Final

from appliance.monitor.places import is_system
from appliance.monitor.sandbox import seccomp
from appliance.monitor.sandbox.kernel import PR_CAP_AMBIENT, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, call, prctl
from appliance.monitor.sandbox.syscalls import Architecture, this_architecture

# <linux/capability.h>
KEPT: Final = {
    "CAP_DAC_READ_SEARCH": 2,  # a rebuilt domain reads its code, which may lie in a directory of a user's
    "CAP_KILL": 5,  # domains have user ids of their own
    "CAP_SETGID": 6,  # which they take themselves, as the monitor's children
    "CAP_SETUID": 7,
    "CAP_NET_ADMIN": 12,  # interfaces go home
    "CAP_SYS_PTRACE": 19,  # the memory of a domain that is not dumpable is counted; ptrace itself is refused below
    "CAP_SYS_ADMIN": 21,  # clone into new namespaces, enter those of the network, unmount their names
}
# Without ids of their own domains map the only id there is, the 0 of the user namespace (user_namespaces(7))
KEPT_BY_A_USER: Final = {**KEPT, "CAP_SETFCAP": 31}
_MOST_CAPABILITIES: Final = 64
_AMBIENT_CLEAR_ALL: Final = 4
_CAPABILITY_VERSION_3: Final = 0x20080522

# What a domain's own seal needs (mount, pivot_root, seccomp, keyctl, ...) cannot be here: children inherit the filter.
REFUSED: Final = tuple(
    """ptrace process_vm_readv process_vm_writev process_madvise kcmp pidfd_getfd
    init_module finit_module delete_module kexec_load kexec_file_load bpf perf_event_open userfaultfd
    io_uring_setup io_uring_enter io_uring_register add_key request_key open_by_handle_at name_to_handle_at
    reboot swapon swapoff acct quotactl settimeofday clock_settime clock_adjtime adjtimex syslog vhangup
    fsopen fsmount open_tree move_mount mount_setattr lookup_dcookie move_pages migrate_pages personality
    iopl ioperm modify_ldt mknod mknodat""".split()
)
_ERRNO: Final = 0x0005_0000  # SECCOMP_RET_ERRNO


def program(refused: Iterable[str] = REFUSED, architecture: Architecture | None = None) -> bytes:
    """A filter that allows everything but these calls, which fail with EPERM, and other architectures, which kill."""
    on = architecture or this_architecture()
    numbers = sorted(on.numbers[name] for name in refused if name in on.numbers)
    pack = seccomp.INSTRUCTION.pack
    code = [
        pack(seccomp.LOAD, 0, 0, 4),  # arch
        pack(seccomp.JUMP_EQUAL, 1, 0, on.audit),
        pack(seccomp.RETURN, 0, 0, seccomp.KILL_PROCESS),
        pack(seccomp.LOAD, 0, 0, 0),  # nr
    ]
    if on.name == "x86_64":
        # The x32 numbers of the same calls
        code += [pack(seccomp.JUMP_NOT_LESS, 0, 1, 1 << 30), pack(seccomp.RETURN, 0, 0, seccomp.KILL_PROCESS)]
    for left, number in zip(range(len(numbers), 0, -1), numbers, strict=True):
        code.append(pack(seccomp.JUMP_EQUAL, left, 0, number))
    code += [
        pack(seccomp.RETURN, 0, 0, seccomp.ALLOW),
        pack(seccomp.RETURN, 0, 0, _ERRNO | errno.EPERM),
    ]
    return b"".join(code)


def drop() -> None:
    """Gives it all up, for this process and its children. Errors: OSError; then the box must not stay up."""
    kept = (KEPT if is_system() else KEPT_BY_A_USER).values()
    for capability in range(_MOST_CAPABILITIES):
        if capability in kept:
            continue
        try:
            prctl(PR_CAPBSET_DROP, capability)
        except OSError as error:
            if error.errno != errno.EINVAL or capability == 0:
                raise
            break  # beyond the last that this kernel knows
    prctl(PR_CAP_AMBIENT, _AMBIENT_CLEAR_ALL)
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    have = ctypes.create_string_buffer(24)
    call("capget", ctypes.create_string_buffer(header, len(header)), have)
    _, permitted, _, *_ = struct.unpack("=6I", have.raw)
    # Surroundings that gave less than this (a container) are no reason to stop: the box has been built with it
    low = sum(1 << number for number in kept) & permitted
    call("capset", header, struct.pack("=6I", low, low, 0, 0, 0, 0))
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    seccomp.install(program())
