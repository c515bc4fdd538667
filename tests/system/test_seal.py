"""The seal from outside and from inside: what a sealed domain attempts, what holds if one layer should not, what it can
still do, and that it does not run where it cannot be sealed.

Each attempt is one system call in a process of its own, made twice: sealed, where it must end in SIGSYS, and unsealed
as the control, where it must reach the kernel, so that a broken seal would be seen.
"""

from __future__ import annotations

import errno
import json
import os
import platform
import signal
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from appliance.monitor import spawn as spawn_module
from appliance.monitor.kernel import CLONE_NEWPID, clone
from appliance.monitor.sandbox import evidence, filters, landlock, seccomp
from appliance.monitor.sandbox.evidence import read_seals
from appliance.monitor.sandbox.plan import FIRST_OUTER_ID, SealPlan, plan_for
from appliance.monitor.sandbox.seal import STEPS, Sealed
from appliance.monitor.spawn import Child, spawn

pytestmark = pytest.mark.root

ROOT = Path(__file__).resolve().parents[2]
CHILD = Path(__file__).with_name("seal_child.py")
PATH = [str(ROOT), str(ROOT / "proto"), *(path for path in sys.path if path.endswith("site-packages"))]
DESCRIPTORS = (0, 1, 2, 9)
SEALING_BUDGET = 0.010  # seconds

_MAP = Path("/proc/self/uid_map").read_text().split()
IS_ROOT = _MAP[0] == "0" and int(_MAP[2]) > FIRST_OUTER_ID


@dataclass(frozen=True)
class Needs:
    syscalls: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    memory_mib: int = 192
    descriptors: int = 0


class End(NamedTuple):
    """How a child ended: exit status, or minus the signal that killed it, and what it said."""

    status: int
    said: str


def plan(needs: Needs, as_user: bool) -> SealPlan:
    return plan_for(needs, "keymgr", DESCRIPTORS, outer_id=FIRST_OUTER_ID if IS_ROOT and not as_user else None)


def sealing(needs: Needs = Needs(), without: tuple[str, ...] = (), as_user: bool = False) -> dict[str, Any]:
    return {"plan": plan(needs, as_user).to_json(), "without": without}


@contextmanager
def started(attempt: str, seal: dict[str, Any] | None, **orders: Any) -> Iterator[tuple[Child, int]]:
    """A child as the monitor starts a domain, and the reading end of its last words."""
    orders = {"path": PATH, "attempt": attempt, "seal": seal, "as_user": False, **orders}
    null, memory, (reading, writing) = os.open("/dev/null", os.O_RDWR), os.memfd_create("orders"), os.pipe()
    os.write(memory, json.dumps(orders).encode())
    child = spawn({0: null, 1: null, 2: writing, 3: memory}, CHILD)
    for fd in (null, memory, writing):
        os.close(fd)
    try:
        yield child, reading
    finally:
        os.close(reading)


def run(attempt: str, seal: dict[str, Any] | None, **orders: Any) -> End:
    with started(attempt, seal, **orders) as (child, reading):
        said = b""
        while part := os.read(reading, 65536):
            said += part
        status = child.reap()
    return End(status if status <= 128 else 128 - status, said.decode().strip())


def attempts() -> list[str]:
    """The names in seal_child.py's table, without running it: it is a program and no module."""
    table = CHILD.read_text().partition("ATTEMPTS: dict")[2].partition("\n}\n")[0]
    names = [line.split('"')[1] for line in table.splitlines() if line.startswith('    "')]
    elsewhere = {
        "open",
        "fork",
        "vfork",
        "iopl",
        "modify_ldt",
        "a call by its 32-bit number",
        "a call by its x32 number",
    }
    return [name for name in names if platform.machine() == "x86_64" or name not in elsewhere]


ATTEMPTS = attempts()
HARMLESS = "close of nothing"

# Attempts that nothing but the seal stands in the way of, for root in namespaces of its own.
SUCCEED_UNSEALED = {
    *("open", "openat", "openat the root", "openat2", "stat", "chdir", "memfd_create", "pipe2", "dup", "fcntl"),
    *("inotify_init1", "name_to_handle_at"),
    *("socket inet", "socket unix", "socket netlink", "socket packet", "socketpair", "bind"),
    *("fork", "clone", "clone3", "personality", "prctl", "prctl dumpable", "setrlimit", "setresuid", "setgid"),
    *("sched_setaffinity", "getrandom"),
    *("mmap executable", "mmap writable and executable", "mmap shared", "mprotect executable", "pkey_mprotect"),
    *("userfaultfd", "mlock"),
    *("kill", "tkill", "tgkill", "ptrace", "process_vm_readv", "process_vm_writev", "pidfd_open", "kcmp"),
    *("get_robust_list", "shmget", "msgget", "semget", "mq_open"),
    *("unshare", "mount", "chroot", "fsopen", "open_tree", "sethostname", "uname", "bpf", "io_uring_setup", "keyctl"),
    *("add_key", "seccomp", "capset", "landlock_create_ruleset", "syslog", "modify_ldt"),
    "a call by its 32-bit number",
}


def test_there_are_attempts_of_every_kind() -> None:
    elsewhere = {"open", "fork", "modify_ldt", "a call by its 32-bit number"}
    assert len(ATTEMPTS) > 80 and SUCCEED_UNSEALED - elsewhere <= set(ATTEMPTS)


@pytest.mark.parametrize("name", ATTEMPTS)
def test_a_sealed_domain_dies_of_the_attempt(name: str) -> None:
    assert run(name, sealing()) == End(-signal.SIGSYS, "")


@pytest.mark.parametrize("name", ATTEMPTS)
def test_the_same_attempt_unsealed_reaches_the_kernel(name: str) -> None:
    end = run(name, None)
    if name in ("execve", "execveat"):
        assert end == End(0, "")  # /bin/true ran in its place
    elif name in SUCCEED_UNSEALED and IS_ROOT:
        assert end == End(0, "succeeded")
    else:
        assert end.status == 0 and (end.said == "succeeded" or end.said.startswith("errno "))


def test_the_way_to_an_attempt_does_not_kill() -> None:
    assert run(HARMLESS, sealing()) == run(HARMLESS, None) == End(0, "errno 9")


@pytest.mark.parametrize("name", ["getrandom", "sendmsg", "recvmsg"])
def test_what_the_role_declares_reaches_the_kernel(name: str) -> None:
    end = run(name, sealing(Needs(syscalls=(name,))))
    assert end.status == 0 and (end.said == "succeeded" or end.said.startswith("errno "))


# Without the seccomp filter, and further steps where one hides another: what the layer behind still answers.
NO_FILTER = ("seccomp",)
NO_LIMITS = ("seccomp", "limits", "verify")
NO_LANDLOCK = ("seccomp", "limits", "verify", "landlock")
BEHIND = [
    ("openat the root", NO_FILTER, "EMFILE"),  # limits
    ("openat the root", NO_LIMITS, "EACCES"),  # Landlock
    ("openat", NO_LANDLOCK, "ENOENT"),  # the empty root
    ("stat", NO_FILTER, "ENOENT"),
    ("chdir", NO_FILTER, "ENOENT"),
    ("mkdir", NO_LANDLOCK, "EROFS"),
    ("open_by_handle_at", NO_LIMITS, "EPERM"),
    ("socket inet", NO_FILTER, "EMFILE"),
    ("socketpair", NO_FILTER, "EMFILE"),
    ("socket packet", NO_LIMITS, "EPERM"),  # capabilities
    ("connect", NO_LANDLOCK, "ENETUNREACH"),  # a network namespace without a network
    ("fork", NO_FILTER, "EAGAIN"),
    ("clone3", NO_FILTER, "EAGAIN"),
    ("execve", NO_FILTER, "ENOENT"),
    ("memfd_create", NO_FILTER, "EMFILE"),
    ("pipe2", NO_FILTER, "EMFILE"),
    ("kill all", NO_FILTER, "ESRCH"),
    ("setrlimit", NO_FILTER, "EPERM"),
    ("setresuid", NO_FILTER, "EINVAL"),
    ("setgid", NO_FILTER, "EINVAL"),
    ("mlock", NO_FILTER, "EPERM"),
    ("mq_open", NO_FILTER, "EMFILE"),
    ("unshare", NO_FILTER, "EPERM"),
    ("mount", NO_FILTER, "EPERM"),
    ("umount2", NO_FILTER, "ENOENT"),
    ("chroot", NO_FILTER, "EPERM"),
    ("fsopen", NO_FILTER, "EPERM"),
    ("sethostname", NO_FILTER, "EPERM"),
    ("bpf", NO_LIMITS, "EPERM"),
    ("userfaultfd", NO_FILTER, "EMFILE"),
    ("io_uring_setup", NO_FILTER, "ENOMEM"),
    ("reboot", NO_FILTER, "EPERM"),
    ("syslog", NO_FILTER, "EPERM"),
]
if landlock.abi() >= 4:
    BEHIND += [("connect", NO_FILTER, "EACCES"), ("bind", NO_FILTER, "EACCES")]
if tuple(map(int, platform.release().split(".")[:2])) >= (6, 3):
    BEHIND += [(name, NO_FILTER, "EACCES") for name in ("mmap writable and executable", "mprotect executable")]


@pytest.mark.parametrize(("name", "without", "expected"), BEHIND)
def test_the_layers_behind_the_filter_refuse_alone(name: str, without: tuple[str, ...], expected: str) -> None:
    end = run(name, sealing(without=without))
    said = end.said.removeprefix("errno ")
    assert end.status == 0 and (errno.errorcode[int(said)] if said.isdigit() else said) == expected


USER_ATTEMPTS = ["openat", "socket inet", "clone", "execve", "mmap executable", "kill", "ptrace", "unshare", "prctl"]


@pytest.mark.parametrize("name", [HARMLESS, *USER_ATTEMPTS])
def test_an_ordinary_users_domain_is_sealed_as_well(name: str) -> None:
    expected = End(0, "errno 9") if name == HARMLESS else End(-signal.SIGSYS, "")
    assert run(name, sealing(as_user=True), as_user=IS_ROOT) == expected


# Where the seal cannot be had, the domain does not run.

REFUSALS = [
    ("close_range", errno.ENOSYS, "descriptors"),
    ("unshare", errno.EPERM, "namespaces"),
    ("unshare", errno.ENOSPC, "namespaces"),
    ("sethostname", errno.EPERM, "namespaces"),
    ("keyctl", errno.EPERM, "keyring"),
    ("mount", errno.EPERM, "root"),
    ("pivot_root", errno.EPERM, "root"),
    ("chroot", errno.EPERM, "root"),
    ("capset", errno.EPERM, "capabilities"),
    ("landlock_create_ruleset", errno.ENOSYS, "landlock"),
    ("landlock_create_ruleset", errno.EOPNOTSUPP, "landlock"),
    ("landlock_restrict_self", errno.EPERM, "landlock"),
    ("prlimit64", errno.EACCES, "limits"),
    ("seccomp", errno.ENOSYS, "seccomp"),
    # surroundings that answer "done" and do nothing
    ("unshare", 0, "namespaces"),
    ("setsid", 0, "verify"),
    ("chroot", 0, "root"),
    ("capset", 0, "verify"),
    ("landlock_restrict_self", 0, "landlock"),
    ("prlimit64", 0, "verify"),
]
if IS_ROOT:
    REFUSALS += [("setresuid", errno.EINVAL, "identity"), ("setgroups", errno.EPERM, "identity")]


@pytest.mark.parametrize(("call", "number", "step"), REFUSALS)
def test_where_a_step_cannot_be_had_the_domain_does_not_run(call: str, number: int, step: str) -> None:
    end = run("failing surroundings", sealing(), refused=call, errno=number)
    assert end.status == 3
    failure = json.loads(end.said)
    assert failure["step"] == step
    if number:
        assert failure["errno"] == number and os.strerror(number) in failure["said"]
    assert next(each.remedy for each in STEPS if each.name == step) in failure["said"]


def refusal(end: End) -> tuple[str, str]:
    assert end.status == 3, end
    failure = json.loads(end.said)
    return failure["step"], failure["said"]


def test_surroundings_that_refuse_nothing_let_it_be_sealed() -> None:
    assert run("failing surroundings", sealing(), refused="acct", errno=1) == End(0, "sealed")


@pytest.mark.parametrize(
    ("flags", "said"),
    [(0, "not the first process of a pid namespace"), (CLONE_NEWPID, "the net namespace is the monitor's")],
)
def test_a_domain_born_into_the_monitors_namespaces_does_not_run(
    flags: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spawn_module, "clone", lambda _: clone(flags))
    step, why = refusal(run("sealing or not", sealing()))
    assert step == "start" and said in why


def test_a_domain_with_a_second_thread_does_not_run() -> None:
    step, why = refusal(run("second thread", sealing()))
    assert step == "start" and "more than one thread" in why


def test_a_domain_without_memory_to_spare_does_not_run() -> None:
    step, why = refusal(run("sealing or not", sealing(Needs(memory_mib=30))))
    assert step == "start" and "of 30 MiB" in why


def test_a_directory_among_the_descriptors_stops_the_seal() -> None:
    step, why = refusal(run("kept directory", sealing()))
    assert step == "descriptors" and "is a directory" in why


def test_a_descriptor_that_is_not_there_stops_the_seal() -> None:
    seal = sealing()
    seal["plan"]["keep_fds"] += (77,)
    step, _ = refusal(run("sealing or not", seal))
    assert step == "descriptors"


def test_root_without_ids_to_become_is_not_sealed() -> None:
    end = run("sealing or not", sealing(as_user=True))
    assert (refusal(end)[0] == "identity") if IS_ROOT else (end == End(0, "sealed"))


# What a sealed domain can still do.


def test_cryptography_messages_memory_and_time_work_sealed(report: list[tuple[str, str]]) -> None:
    begin = time.monotonic()
    first, second = (run("work", sealing()) for _ in range(2))
    assert first.status == second.status == 0, (first, second)
    assert first.said.endswith(" worked") and second.said.endswith(" worked")
    assert first.said != second.said, "two processes hash alike: no hash randomisation"
    report.append(("a domain's day, sealed", f"{(time.monotonic() - begin) / 2:.1f} s"))


def test_memory_over_the_limit_is_a_memory_error_and_the_domain_lives() -> None:
    end = run("memory", sealing(Needs(memory_mib=128)), mebibytes=400)
    assert end.status == 0, end
    first, *rest = end.said.splitlines()
    assert first.startswith("refused after ") and 16 < int(first.split()[2]) < 128
    assert rest == ["refused small objects", "1048576"]
    assert run("memory", None, mebibytes=400).said.splitlines() == ["never refused", "1048576"]


def test_an_uncaught_exception_is_said_before_the_end() -> None:
    end = run("uncaught", sealing())
    assert end.status == 1
    assert end.said.startswith("RuntimeError: the end of this domain\n  File ") and ", in uncaught" in end.said


def test_without_last_words_the_interpreter_would_die_of_its_own_traceback() -> None:
    assert run("default hook", sealing()).status == -signal.SIGSYS


def test_warnings_and_exceptions_nobody_can_catch_do_not_kill() -> None:
    end = run("muttering", sealing())
    assert end.status == 0, end
    warning, ignored, last = end.said.splitlines()
    assert warning == "warning: an odd thing"
    assert ignored.startswith("ignored in ") and "ValueError('in a finaliser')" in ignored
    assert last == "still here"


def test_the_whole_seal_fits_its_budget(report: list[tuple[str, str]]) -> None:
    taken = [float(run("timed", sealing()).said) for _ in range(9)]
    report.append(("seal()", f"{min(taken) * 1e3:.1f} ms at best, {statistics.median(taken) * 1e3:.1f} ms median of 9"))
    assert min(taken) < SEALING_BUDGET


# What the seal looks like from outside.


@contextmanager
def held(seal: dict[str, Any] | None) -> Iterator[tuple[Child, Sealed | None]]:
    with started("hold", seal) as (child, reading):
        try:
            said = json.loads(os.read(reading, 4096))
            yield child, Sealed(**said) if said else None
        finally:
            child.kill()
            assert child.reap() == -signal.SIGKILL


def wrong(rows: list[evidence.Row]) -> set[str]:
    return {row.attribute for row in rows if not row.ok}


def test_the_seal_can_be_read_from_outside() -> None:
    seal = sealing(Needs(syscalls=("sendmsg", "recvmsg")))
    with held(seal) as (child, reported):
        begin = time.monotonic()
        seals = read_seals(child.pid)
        assert time.monotonic() - begin < 0.5
        rows = seals.as_rows(SealPlan.from_json(seal["plan"]), reported)
        assert not wrong(rows), wrong(rows)
        assert reported is not None and reported.landlock_abi == landlock.abi()
        assert seals.descriptors is not None
        assert sorted(kind for fd, kind in seals.descriptors.items()) == ["epoll", "null", "null", "pipe", "socket"]
        by_name = {row.attribute: row for row in rows}
        assert by_name["landlock"].source == evidence.REPORTED and by_name["seccomp"].source == evidence.OBSERVED
        other = SealPlan.from_json({**seal["plan"], "syscalls": ["getrandom"]})
        if IS_ROOT:
            code = seccomp.program(("sendmsg", "recvmsg"))
            assert filters.running(child.pid) == (code,)
            assert wrong(seals.as_rows(other, reported)) == {"filter program"}
        os.kill(child.pid, 0)  # looking did no harm


def test_no_signal_but_kill_and_stop_is_heard() -> None:
    with held(sealing()) as (child, _):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGALRM, signal.SIGPIPE):
            os.kill(child.pid, number)
        time.sleep(0.05)
        assert read_seals(child.pid).status["State"].startswith("S")
        assert int(read_seals(child.pid).status["SigCgt"], 16) == 0


def test_a_wait_survives_being_stopped_and_continued() -> None:
    with started("interrupted", sealing()) as (child, reading):
        assert os.read(reading, 100) == b"waiting\n"
        for number in (signal.SIGSTOP, signal.SIGCONT):
            time.sleep(0.1)
            os.kill(child.pid, number)
        assert os.read(reading, 100) == b"False\n"
        assert child.reap() == 0


# A step left out must show in the table under the right name.
SEEN = [
    (("verify", "session"), {"session"}),
    (("root", "verify"), {"files", "root"}),
    (("capabilities", "verify"), {"capabilities"}),
    (("limits", "verify"), {"rlimit_as", "rlimit_fsize", "rlimit_nofile", "rlimit_nproc", "rlimit_msgqueue"}),
    (("seccomp",), {"seccomp", "filters", "filter program"}),
]


@pytest.mark.parametrize(("without", "attributes"), SEEN)
def test_a_step_left_out_is_seen(without: tuple[str, ...], attributes: set[str]) -> None:
    seal = sealing(without=without)
    with held(seal) as (child, reported):
        seen = wrong(read_seals(child.pid).as_rows(SealPlan.from_json(seal["plan"]), reported))
        assert attributes - ({"filter program"} if not IS_ROOT else set()) <= seen
        assert {row for row in seen if not row.startswith("rlimit")} <= attributes


def test_an_unsealed_domain_looks_unsealed() -> None:
    with held(None) as (child, _):
        seen = wrong(read_seals(child.pid).as_rows(plan(Needs(), as_user=False)))
        assert {"capabilities", "no new privileges", "files", "root", "seccomp", "user namespace"} <= seen
        assert "pid namespace" not in seen and "net namespace" not in seen


def test_an_ordinary_users_monitor_can_read_the_seal_too() -> None:
    if IS_ROOT:
        end = run("hold", sealing(as_user=True), as_user=True)
        assert end.status == -signal.SIGKILL, end
        rows = [evidence.Row(*row) for row in json.loads(end.said.splitlines()[-1])]
    else:
        seal = sealing()
        with held(seal) as (child, reported):
            rows = read_seals(child.pid).as_rows(SealPlan.from_json(seal["plan"]), reported)
    assert not wrong(rows), wrong(rows)
    program = next(row for row in rows if row.attribute == "filter program")
    assert program.source == evidence.REPORTED
