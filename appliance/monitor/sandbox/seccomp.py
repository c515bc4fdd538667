"""The seccomp filter: an allow-list compiled to classic BPF, which kills the process for everything else.

Source: Linux, Documentation/userspace-api/seccomp_filter.rst. The program sees ``struct seccomp_data``: the number, the
architecture and six 64-bit arguments. It never follows a pointer, so no argument rule here is about memory.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from appliance.monitor.sandbox.allowlist import Alternative, Match, Rule, rules
from appliance.monitor.sandbox.kernel import call
from appliance.monitor.sandbox.syscalls import Architecture, this_architecture

# <linux/bpf_common.h>: load a word, and with a constant, jump if equal, jump if not less, return
LOAD: Final = 0x20
AND: Final = 0x54
JUMP_EQUAL: Final = 0x15
JUMP_NOT_LESS: Final = 0x35
RETURN: Final = 0x06

# <linux/seccomp.h>
KILL_PROCESS: Final = 0x8000_0000
ALLOW: Final = 0x7FFF_0000
_SET_MODE_FILTER: Final = 1

# offsets in struct seccomp_data, little-endian
_NUMBER: Final = 0
_ARCHITECTURE: Final = 4
_ARGUMENTS: Final = 16

# The x32 calls of an x86_64 kernel carry this bit and the same AUDIT_ARCH as the others.
_X32_BIT: Final = 0x4000_0000

INSTRUCTION: Final = struct.Struct("<HBBI")  # struct sock_filter: code, jump if true, jump if false, constant
_LONGEST_PROGRAM: Final = 4096  # BPF_MAXINSNS
_LONGEST_JUMP: Final = 255

Code = list[bytes]


def _op(code: int, constant: int, if_true: int = 0, if_false: int = 0) -> bytes:
    if max(if_true, if_false) > _LONGEST_JUMP:
        raise ValueError("a rule is too long for a BPF jump")
    return INSTRUCTION.pack(code, if_true, if_false, constant)


def _load(offset: int, mask: int) -> Code:
    return [_op(LOAD, offset), *([_op(AND, mask)] if mask != 0xFFFF_FFFF else [])]


def _match(match: Match, beyond: int) -> Code:
    """Falls through if ``match`` holds, else skips ``beyond`` instructions behind its own end."""
    low, high = match.mask & 0xFFFF_FFFF, match.mask >> 32
    offset = _ARGUMENTS + 8 * match.argument
    # Any of the values: each but the last jumps to the end if equal; the last jumps out if it is not.
    count = len(match.values)
    compare = [_op(JUMP_EQUAL, value, count - 1 - i, 0) for i, value in enumerate(match.values[:-1])]
    code = [*_load(offset, low), *compare, _op(JUMP_EQUAL, match.values[-1], 0, beyond)]
    if high:
        code = [*_load(offset + 4, high), _op(JUMP_EQUAL, 0, 0, len(code) + beyond), *code]
    return code


def _alternative(alternative: Alternative) -> Code:
    """Returns ALLOW if every match holds, else falls through."""
    code = [_op(RETURN, ALLOW)]
    for match in reversed(alternative):
        code = [*_match(match, len(code)), *code]
    return code


def _rule(number: int, rule: Rule) -> Code:
    """Decides system call ``number``; for another number falls through with the number still loaded."""
    code = [op for alternative in rule for op in _alternative(alternative)]
    if rule[-1]:  # the last alternative can fail; the accumulator no longer holds the number
        code.append(_op(RETURN, KILL_PROCESS))
    return [_op(JUMP_EQUAL, number, 0, len(code)), *code]


def program(
    declared: Iterable[str], architecture: Architecture | None = None, further: Mapping[str, Rule] | None = None
) -> bytes:
    """The filter of a role that declares these system calls, as an array of ``struct sock_filter``.

    ``further``: as ``allowlist.rules``.
    Errors: ValueError for a call that no role may declare, LookupError for one that the architecture lacks.
    """
    on = architecture or this_architecture()
    kill = _op(RETURN, KILL_PROCESS)
    code = [_op(LOAD, _ARCHITECTURE), _op(JUMP_EQUAL, on.audit, 1, 0), kill, _op(LOAD, _NUMBER)]
    if on.name == "x86_64":
        code += [_op(JUMP_NOT_LESS, _X32_BIT, 0, 1), kill]
    for name, rule in rules(declared, further).items():
        code += _rule(on.number(name), rule)
    code.append(kill)
    if len(code) > _LONGEST_PROGRAM:
        raise ValueError(f"{len(code)} instructions are more than a BPF program may have")
    return b"".join(code)


def digest(code: bytes) -> str:
    """SHA-256 of a program in hexadecimal: what the plan wants and what the kernel runs are compared by it."""
    import hashlib  # not needed, and so not loaded, inside a domain

    return hashlib.sha256(code).hexdigest()


def instructions(code: bytes) -> Iterator[tuple[int, int, int, int]]:
    """The program as (code, jump if true, jump if false, constant)."""
    return INSTRUCTION.iter_unpack(code)


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def install(code: bytes) -> None:
    """Puts the calling thread under ``code`` for the rest of its life. Needs no_new_privs. Errors: OSError."""
    wanted = _Program(len(code) // INSTRUCTION.size, code)
    call("seccomp", _SET_MODE_FILTER, 0, ctypes.byref(wanted))
