"""Raw system calls by name, for what Python 3.11 has no function for. Used before the seal and never after it."""

from __future__ import annotations

import ctypes
import os
from typing import Any, Final

from appliance.monitor.sandbox.syscalls import this_architecture

_libc: Final = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def _word(value: Any) -> Any:
    # syscall(2) is variadic: an int without a type would be passed as 32 bits and leave the upper half to chance.
    if value is None:
        return ctypes.c_long(0)
    return ctypes.c_long(value) if isinstance(value, int) else value


def call(name: str, *arguments: Any) -> int:
    """Makes system call ``name`` with ints, bytes, None (a null pointer) or ctypes references.

    Errors: OSError with the call's errno and name; LookupError for a name the architecture lacks.
    """
    result = _libc.syscall(ctypes.c_long(this_architecture().number(name)), *(_word(value) for value in arguments))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return int(result)


# <linux/prctl.h>
PR_SET_PDEATHSIG: Final = 1
PR_GET_PDEATHSIG: Final = 2
PR_GET_DUMPABLE: Final = 3
PR_SET_DUMPABLE: Final = 4
PR_SET_NAME: Final = 15
PR_CAPBSET_READ: Final = 23
PR_CAPBSET_DROP: Final = 24
PR_GET_SECUREBITS: Final = 27
PR_SET_SECUREBITS: Final = 28
PR_SET_NO_NEW_PRIVS: Final = 38
PR_GET_NO_NEW_PRIVS: Final = 39
PR_CAP_AMBIENT: Final = 47
PR_SET_MDWE: Final = 65


def prctl(option: int, *arguments: Any) -> int:
    """prctl(2), the arguments not given being 0, as most options demand."""
    return call("prctl", option, *(*arguments, 0, 0, 0, 0)[:4])
