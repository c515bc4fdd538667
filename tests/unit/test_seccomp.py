"""The seal as data: the filter run in an interpreter against an oracle, the tables against the kernel's own headers."""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.guest import lastwords
from appliance.monitor.sandbox import capabilities, landlock
from appliance.monitor.sandbox.allowlist import BASE, DECLARABLE, rules
from appliance.monitor.sandbox.plan import NAMESPACES, SealPlan
from appliance.monitor.sandbox.seccomp import (
    ALLOW,
    AND,
    JUMP_EQUAL,
    JUMP_NOT_LESS,
    KILL_PROCESS,
    LOAD,
    RETURN,
    instructions,
    program,
)
from appliance.monitor.sandbox.syscalls import ARCHITECTURES, Architecture

X86, ARM = ARCHITECTURES["x86_64"], ARCHITECTURES["aarch64"]
AUDIT_ARCH_I386 = 0x40000003
MASK32, MASK64 = (1 << 32) - 1, (1 << 64) - 1


def run(code: bytes, number: int, arguments: tuple[int, ...] = (), audit: int = X86.audit) -> int:
    """A classic BPF interpreter: what the kernel returns for one system call."""
    words = [argument & MASK64 for argument in (*arguments, *(0,) * 6)[:6]]
    data = struct.pack("<IIQ6Q", number & MASK32, audit, 0x7F00_0000_1234, *words)
    ops = list(instructions(code))
    accumulator = pc = 0
    for _ in range(len(ops)):  # every jump is forward: no run is longer than the program
        code_, if_true, if_false, constant = ops[pc]
        pc += 1
        match code_:
            case _ if code_ == LOAD:
                (accumulator,) = struct.unpack_from("<I", data, constant)
            case _ if code_ == AND:
                accumulator &= constant
            case _ if code_ == JUMP_EQUAL:
                pc += if_true if accumulator == constant else if_false
            case _ if code_ == JUMP_NOT_LESS:
                pc += if_true if accumulator >= constant else if_false
            case _ if code_ == RETURN:
                return constant
            case _:
                raise AssertionError(f"instruction {code_:#x} is not of this compiler")
    raise AssertionError("the program fell off its end")


def allowed(code: bytes, name: str, *arguments: int, on: Architecture = X86) -> bool:
    return run(code, on.number(name), arguments, on.audit) == ALLOW


def oracle(declared: frozenset[str], name: str, a: tuple[int, ...]) -> bool:
    """What a domain may do, said a second time and in other words than the allow-list."""
    if name in declared:
        return True
    low = [value & MASK32 for value in a]
    match name:
        case "read":
            return a[2] == 8
        case "write":
            return a[2] == 8 or low[0] == 2
        case "mmap":
            return a[2] in range(4) and a[3] in (0x22, 0x4022, 0x20022, 0x24022) and low[4] == MASK32
        case "mremap":
            return a[3] in (0, 1)
        case "futex":
            return low[1] in {op | flags for op in (0, 1, 9) for flags in (0, 128, 256, 384)}
        case "clock_gettime":
            return low[0] < 8
    return name in {"epoll_wait", "epoll_ctl", "munmap", "brk", "restart_syscall", "close", "exit_group"}


ROLES = [frozenset[str](), frozenset({"read", "readv", "write", "writev"}), frozenset({"getrandom"}), DECLARABLE]

# Values around every limit of every rule, with garbage in the upper half too.
WORDS = sorted(
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0x21, 0x22, 0x23, 0x32, 0x4022, 0x20022, 0x24022, 0x100022, 128, 129, 137, 256, 385}
    | {MASK32, MASK64, 1 << 32, (1 << 32) | 8, (1 << 32) | 3, (1 << 63) | 0x22, 0x7FFF_0000, 11, 12, 13}
)


@pytest.mark.parametrize("declared", ROLES, ids=lambda role: f"{len(role)} declared")
@pytest.mark.parametrize("on", [X86, ARM], ids=lambda on: on.name)
def test_every_number_and_every_argument_case_is_decided_as_the_oracle_says(
    declared: frozenset[str], on: Architecture
) -> None:
    names = {number: name for name, number in on.numbers.items()}
    stand_ins = {"epoll_pwait": "epoll_wait"} if on is ARM else {}
    code = program(sorted(declared), on)
    verdicts = set()
    for number in range(601):
        name = names.get(number, "")
        name = stand_ins.get(name, name)
        words = WORDS if name in BASE else (0, 8, MASK64)
        for position in range(6):
            for word in words:
                arguments = tuple(word if i == position else 0 for i in range(6))
                verdict = run(code, number, arguments, on.audit)
                assert verdict in (ALLOW, KILL_PROCESS)
                assert (verdict == ALLOW) == oracle(declared, name, arguments), (number, name, arguments)
                verdicts.add(verdict)
    assert verdicts == {ALLOW, KILL_PROCESS}


@given(
    number=st.one_of(st.sampled_from(sorted(X86.number(name) for name in BASE)), st.integers(0, MASK32)),
    arguments=st.tuples(*[st.one_of(st.sampled_from(WORDS), st.integers(0, MASK64))] * 6),
    role=st.sampled_from(ROLES),
)
def test_any_call_with_any_arguments_is_decided_as_the_oracle_says(
    number: int, arguments: tuple[int, ...], role: frozenset[str]
) -> None:
    names = {number: name for name, number in X86.numbers.items()}
    verdict = run(program(sorted(role), X86), number, arguments)
    assert (verdict == ALLOW) == oracle(role, names.get(number, ""), arguments)


@pytest.mark.parametrize("name", [*BASE, *sorted(DECLARABLE)])
def test_no_call_is_allowed_under_another_architecture_or_as_x32(name: str) -> None:
    code = program(sorted(DECLARABLE), X86)
    number = X86.number(name)
    for good in ((0, 0, 8), (0, 1, 4, 1), (0, 0, 3, 0x22, MASK32)):
        for audit in (AUDIT_ARCH_I386, ARM.audit, 0, MASK32):
            assert run(code, number, good, audit) == KILL_PROCESS
        assert run(code, number | 0x4000_0000, good) == KILL_PROCESS


def test_the_ways_around_w_xor_x_are_closed() -> None:
    code = program((), X86)
    assert allowed(code, "mmap", 0, 4096, 3, 0x22, MASK64, 0)
    for prot in (4, 5, 7, 0x0100_0000, 1 << 34, 3 | 1 << 32):  # executable, PROT_GROWSDOWN, and bits above an int
        assert not allowed(code, "mmap", 0, 4096, prot, 0x22, MASK64, 0)
    for flags in (
        0x21,
        0x01,
        0x02,
        0x32,
        0x40022,
        0x10_0022,
    ):  # shared, of a file, fixed, huge, fixed without replacing
        assert not allowed(code, "mmap", 0, 4096, 3, flags, MASK64, 0)
    assert not allowed(code, "mmap", 0, 4096, 3, 0x22, 4, 0)
    assert not any(allowed(code, "mprotect", 0x1000, 4096, prot) for prot in range(8))
    assert not allowed(code, "mremap", 0, 4096, 8192, 3, 0x1000)


def test_the_base_alone_reads_and_writes_nothing_but_events_and_last_words() -> None:
    code = program((), X86)
    assert allowed(code, "read", 9, 0x1000, 8) and allowed(code, "write", 9, 0x1000, 8)
    assert allowed(code, "write", 2, 0x1000, 4000)
    assert not allowed(code, "read", 9, 0x1000, 9) and not allowed(code, "read", 2, 0x1000, 4000)
    assert not allowed(code, "write", 9, 0x1000, 9) and not allowed(code, "write", 1, 0x1000, 4000)
    wide = program(("write",), X86)
    assert allowed(wide, "write", 9, 0x1000, 65536) and not allowed(wide, "read", 9, 0x1000, 65536)


@pytest.mark.parametrize("name", ["execve", "socket", "prctl", "clone", "mmap", "openat", "no_such_call"])
def test_what_no_role_may_declare_is_refused_by_name(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        rules(("getrandom", name))


def test_a_role_that_asks_for_ioctl_may_ask_for_the_name_of_an_interface_alone() -> None:
    siocgifname, siocgifhwaddr, tunsetiff = 0x8910, 0x8927, 0x400454CA
    assert not allowed(program((), X86), "ioctl", 9, siocgifname)
    for on in (X86, ARM):
        code = program(("ioctl",), on)
        assert allowed(code, "ioctl", 9, siocgifname, on=on)
        assert not any(allowed(code, "ioctl", 9, other, on=on) for other in (siocgifhwaddr, tunsetiff, 0, 0x5421))


def test_every_name_has_a_number_on_both_architectures() -> None:
    for on in (X86, ARM):
        for name in {*BASE, *DECLARABLE}:
            assert on.number(name) >= 0
    with pytest.raises(LookupError, match="no system call 'fork'"):
        ARM.number("fork")


def test_the_tables_are_those_of_the_kernels_headers() -> None:
    headers = [path for path in Path("/usr/include").glob("**/asm/unistd_64.h") if "powerpc" not in str(path)]
    generic = Path("/usr/include/asm-generic/unistd.h")
    assert headers and generic.exists(), "install linux-libc-dev, which the C compiler's library needs too"
    x86 = {name: int(number) for name, number in re.findall(r"#define __NR_(\w+) (\d+)", headers[0].read_text())}
    assert len(x86) > 300 and {name: x86.get(name) for name in X86.numbers} == X86.numbers
    arm = {name: int(number) for name, number in re.findall(r"#define __NR_(\w+) (\d+)", generic.read_text())}
    common = ARM.numbers.keys() & arm.keys()
    assert len(common) > 250 and {name: arm[name] for name in common} == {name: ARM.numbers[name] for name in common}


PLAN = SealPlan(
    domain="keymgr",
    syscalls=("getrandom",),
    memory_bytes=1 << 28,
    file_bytes=0,
    keep_fds=(2, 4, 5),
    outer_uid=1_880_000_000,
    outer_gid=1_880_000_000,
    foreign=tuple((name, 4026531836 + i) for i, name in enumerate(NAMESPACES)),
)


def test_a_plan_survives_json() -> None:
    assert SealPlan.from_json(json.loads(json.dumps(PLAN.to_json()))) == PLAN


@pytest.mark.parametrize(
    "wrong",
    [
        {"domain": ""},
        {"domain": "../etc"},
        {"domain": "a" * 64},
        {"syscalls": ("execve",)},
        {"memory_bytes": 0},
        {"file_bytes": -1},
        {"keep_fds": (3, 3)},
        {"keep_fds": (-1,)},
        {"outer_uid": 0},
        {"outer_gid": None},
        {"outer_uid": 1 << 32},
        {"foreign": ()},
    ],
    ids=str,
)
def test_a_plan_that_no_seal_can_have_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        PLAN._replace(**wrong)


@pytest.mark.parametrize(
    ("version", "fields"),
    [
        (1, (0x1FFF,)),
        (2, (0x3FFF,)),
        (3, (0x7FFF,)),
        (4, (0x7FFF, 3)),
        (5, (0xFFFF, 3)),
        (6, (0xFFFF, 3, 3)),
        (7, (0xFFFF, 3, 3)),
        (99, (0xFFFF, 3, 3)),
    ],
)
def test_landlock_handles_all_that_its_version_knows(version: int, fields: tuple[int, ...]) -> None:
    assert landlock.attributes(version) == struct.pack(f"={len(fields)}Q", *fields)


def test_securebits_are_set_and_locked_but_for_keep_caps_which_is_locked_clear() -> None:
    noroot, no_setuid_fixup, keep_caps, no_cap_ambient_raise = (1 << bit for bit in (0, 2, 4, 6))  # linux/securebits.h
    set_ = noroot | no_setuid_fixup | no_cap_ambient_raise
    assert set_ | (set_ | keep_caps) << 1 == capabilities.SECUREBITS


def _die(depth: int) -> None:
    if depth:
        _die(depth - 1)
    try:
        {}["key"]
    except KeyError as missing:
        raise RuntimeError("no\nnew\x1b[2Jlines") from missing


def test_last_words_say_what_where_and_why_in_printable_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    import linecache

    def refused(*_: object) -> None:
        raise AssertionError("a source line was looked up")

    monkeypatch.setattr(linecache, "getline", refused)
    monkeypatch.setattr(linecache, "checkcache", refused)
    with pytest.raises(RuntimeError) as caught:
        _die(50)
    said = lastwords.words(caught.value)
    assert said.startswith("RuntimeError: no\\nnew\\x1b[2Jlines\n")
    assert "because of KeyError: 'key'" in said and "in _die" in said and "more)" in said
    assert len(said.splitlines()) < 40 and said.isascii() and set(said) - {"\n"} == {c for c in said if c.isprintable()}
