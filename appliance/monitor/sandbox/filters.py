"""The seccomp filters that the kernel really runs for a process, read by ptrace(2).

PTRACE_SECCOMP_GET_FILTER gives back the program as it was installed. It needs CAP_SYS_ADMIN outside every user
namespace and a kernel with CONFIG_CHECKPOINT_RESTORE. The process stops for some tens of microseconds.
"""

from __future__ import annotations

import ctypes
import errno
import os
from typing import Final

from appliance.monitor.sandbox.kernel import call
from appliance.monitor.sandbox.seccomp import INSTRUCTION

# <linux/ptrace.h>
_DETACH: Final = 17
_SEIZE: Final = 0x4206
_INTERRUPT: Final = 0x4207
_SECCOMP_GET_FILTER: Final = 0x420C

_WALL: Final = 0x4000_0000
_MOST_FILTERS: Final = 16


def running(pid: int) -> tuple[bytes, ...]:
    """The programs of process ``pid``, the one installed last first.

    Errors: PermissionError for one who may not look, OSError EINVAL where the kernel cannot tell, ProcessLookupError.
    """
    call("ptrace", _SEIZE, pid, None, None)
    try:
        call("ptrace", _INTERRUPT, pid, None, None)
        # It may die instead of stopping: its end is left for the monitor to hear of, as every other
        os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT | _WALL)
        programs: list[bytes] = []
        while len(programs) < _MOST_FILTERS and (code := _program(pid, len(programs))) is not None:
            programs.append(code)
        return tuple(reversed(programs))  # the kernel counts from the oldest, whatever ptrace(2) says
    finally:
        call("ptrace", _DETACH, pid, None, None)


def _program(pid: int, index: int) -> bytes | None:
    try:
        length = call("ptrace", _SECCOMP_GET_FILTER, pid, index, None)
    except OSError as beyond:
        if beyond.errno == errno.ENOENT:
            return None
        raise
    code = ctypes.create_string_buffer(length * INSTRUCTION.size)
    call("ptrace", _SECCOMP_GET_FILTER, pid, index, code)
    return code.raw
