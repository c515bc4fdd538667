"""The seal: a process shuts every door behind itself and then gives up the means of opening one.

``seal`` runs in the domain, in the single thread of it, when everything is imported and attached and before the first
byte of input. It works as root, and as the root of a user namespace that has a single id of an ordinary user. Each step
works or the domain does not run; there is no weaker mode.

The order is argued for here and is data in ``STEPS``:

start         what the monitor must have done is checked while /proc can still be read: pid 1 of a pid namespace of its
              own, a network namespace of its own, one thread, memory to spare.
descriptors   nothing but the ports and devices, before anything else, so that no later step can be led through one.
session       kill(0, …) reaches a process group across pid namespaces, and a session shares a terminal: leave both.
              No signal keeps a handler: the first process of a pid namespace then hears SIGKILL and SIGSTOP only.
identity      root changes its ids while it still may. After this, no file or process of the host is its own.
namespaces    the user namespace gives back the capabilities that the next steps need, over nothing of the host's.
keyring       the session keyring is the monitor's until another one is joined.
root          mounting needs CAP_SYS_ADMIN in the user namespace, and is refused once Landlock is in force.
capabilities  no step below needs one. Securebits first, since capset takes away the right to set them.
privileges    no_new_privs, which Landlock and seccomp ask of a process without capabilities; no gain of execute
              permission, where the kernel knows that (Linux 6.3).
landlock      needs a descriptor for its rule set, so it comes before the limit on descriptors.
limits        no new descriptor, process, file size, locked memory, message queue, core.
process       not dumpable, killed with its parent, named. A change of ids or capabilities undoes the first two.
verify        the kernel is asked what is now in force; it is the last time that these questions can be asked.
seccomp       the filter forbids all the calls above, so it can only be last.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import signal
import stat
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from appliance.monitor.sandbox import capabilities, landlock, namespaces, seccomp
from appliance.monitor.sandbox.allowlist import Rule
from appliance.monitor.sandbox.kernel import (
    PR_GET_DUMPABLE,
    PR_GET_NO_NEW_PRIVS,
    PR_GET_PDEATHSIG,
    PR_SET_DUMPABLE,
    PR_SET_MDWE,
    PR_SET_NAME,
    PR_SET_NO_NEW_PRIVS,
    PR_SET_PDEATHSIG,
    call,
    prctl,
)
from appliance.monitor.sandbox.plan import SealPlan

_HIGHEST_FD: Final = 0x7FFF_FFFF
_MDWE_REFUSE_EXEC_GAIN: Final = 1

# No number that a domain begins with is above that: spawn.py hands out at most as many
_KEPT_BELOW: Final = 256

# A domain whose imports and rings leave it less than this would die of the first large message.
_LEAST_FREE_BYTES: Final = 16 << 20


class SealError(Exception):
    """A step of the seal cannot be had: ``step``, ``errno`` (0 if no system call failed), and what to do about it."""

    def __init__(self, step: str, number: int, what: str, remedy: str) -> None:
        super().__init__(f"the seal cannot be had: {step}: {what}; {remedy}")
        self.step = step
        self.errno = number
        self.remedy = remedy


class Sealed(NamedTuple):
    """What the domain reports of a seal that cannot be read from outside: the Landlock ABI in force, and MDWE."""

    landlock_abi: int
    refuses_exec_gain: bool


class _Progress:
    def __init__(self) -> None:
        self.landlock_abi = 0
        self.refuses_exec_gain = False


def limits(plan: SealPlan) -> dict[str, int]:
    """The hard and soft limits of a domain, by the names of resource(3)."""
    return {
        "RLIMIT_AS": plan.memory_bytes,
        "RLIMIT_FSIZE": plan.file_bytes,
        # What is open stays open; nothing new gets a number, but for connections where the role accepts them
        "RLIMIT_NOFILE": _KEPT_BELOW + plan.descriptors if plan.descriptors else 0,
        "RLIMIT_NPROC": 0,
        "RLIMIT_CORE": 0,
        "RLIMIT_MEMLOCK": 0,
        "RLIMIT_MSGQUEUE": 0,
        "RLIMIT_NICE": 0,
        "RLIMIT_RTPRIO": 0,
    }


def _fail(what: str) -> OSError:
    return OSError(0, what)


def _start(plan: SealPlan, progress: _Progress) -> None:
    if os.getpid() != 1:
        raise _fail("this is not the first process of a pid namespace")
    if os.listdir("/proc/self/task") != [os.readlink("/proc/self")]:
        raise _fail("more than one thread runs, and only this one would be sealed")
    with open("/proc/self/statm", "rb") as file:
        mapped = int(file.read().split()[0]) * resource.getpagesize()
    if mapped + _LEAST_FREE_BYTES > plan.memory_bytes:
        raise _fail(f"{mapped >> 20} MiB are mapped already, of {plan.memory_bytes >> 20} MiB that the domain may have")
    _foreign(plan, ("pid", "net"))


def _foreign(plan: SealPlan, names: tuple[str, ...]) -> None:
    foreign = dict(plan.foreign)
    for name in names:
        if os.stat(f"/proc/self/ns/{name}").st_ino == foreign[name]:
            raise _fail(f"the {name} namespace is the monitor's")


def _descriptors(plan: SealPlan, progress: _Progress) -> None:
    for fd in plan.keep_fds:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise _fail(f"descriptor {fd} is a directory, through which files could be opened")
    first = 0
    for fd in (*sorted(plan.keep_fds), _HIGHEST_FD + 1):
        if first < fd:
            call("close_range", first, fd - 1, 0)
        first = fd + 1


def _session(plan: SealPlan, progress: _Progress) -> None:
    if os.getsid(0) != os.getpid():
        os.setsid()
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)


def _identity(plan: SealPlan, progress: _Progress) -> None:
    if plan.outer_uid is not None and plan.outer_gid is not None:
        os.setgroups([])
        os.setresgid(plan.outer_gid, plan.outer_gid, plan.outer_gid)
        os.setresuid(plan.outer_uid, plan.outer_uid, plan.outer_uid)
    else:
        with open("/proc/self/uid_map", "rb") as file:
            _, outer, count = file.read().split()[:3]
        if count != b"1" or outer == b"0":
            raise _fail("the plan gives no id to become, and this process has more to lose than one ordinary user's id")
    # A change of ids makes a process undumpable, and then its own uid_map is root's file and not its own.
    prctl(PR_SET_DUMPABLE, 1)


def _namespaces(plan: SealPlan, progress: _Progress) -> None:
    namespaces.enter(plan.domain)
    _foreign(plan, ("user", "mnt", "ipc", "uts", "cgroup"))


def _keyring(plan: SealPlan, progress: _Progress) -> None:
    namespaces.leave_keyring()


def _root(plan: SealPlan, progress: _Progress) -> None:
    namespaces.empty_root()
    if os.listdir("/"):
        raise _fail("the new root is not empty")


def _capabilities(plan: SealPlan, progress: _Progress) -> None:
    capabilities.drop()


def _privileges(plan: SealPlan, progress: _Progress) -> None:
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    try:
        prctl(PR_SET_MDWE, _MDWE_REFUSE_EXEC_GAIN)
        progress.refuses_exec_gain = True
    except OSError as unknown:
        # Before Linux 6.3 there is no such thing, and some architectures lack it; the filter refuses the same.
        if unknown.errno != errno.EINVAL:
            raise


def _landlock(plan: SealPlan, progress: _Progress) -> None:
    progress.landlock_abi = landlock.restrict()


def _limits(plan: SealPlan, progress: _Progress) -> None:
    for name, value in limits(plan).items():
        resource.setrlimit(getattr(resource, name), (value, value))


def _process(plan: SealPlan, progress: _Progress) -> None:
    prctl(PR_SET_DUMPABLE, 0)
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    prctl(PR_SET_NAME, plan.domain.encode())


def _read_pdeathsig() -> int:
    value = ctypes.c_int(0)
    prctl(PR_GET_PDEATHSIG, ctypes.byref(value))
    return value.value


def _verify(plan: SealPlan, progress: _Progress) -> None:
    ids = (namespaces.INNER_ID,) * 3
    facts = {
        "no_new_privs": prctl(PR_GET_NO_NEW_PRIVS) == 1,
        "not dumpable": prctl(PR_GET_DUMPABLE) == 0,
        "killed with its parent": _read_pdeathsig() == signal.SIGKILL,
        "one user and group": os.getresuid() == ids and os.getresgid() == ids,
        "a session of its own": os.getsid(0) == os.getpgid(0) == os.getpid() == 1,
        "its own host name": os.uname().nodename == plan.domain,
        "a bare, read-only root": os.statvfs("/").f_flag & namespaces.ROOT_FLAGS == namespaces.ROOT_FLAGS,
    }
    for name, value in limits(plan).items():
        facts[name] = resource.getrlimit(getattr(resource, name)) == (value, value)
    missing = [fact for fact, holds in facts.items() if not holds] + capabilities.left()
    if missing:
        raise _fail(f"the kernel took every step and does not have in force: {', '.join(missing)}")
    try:
        os.open("/", os.O_RDONLY)
    except OSError:
        return
    raise _fail("the root still opens")


def _seccomp(plan: SealPlan, progress: _Progress) -> None:
    seccomp.install(seccomp.program(plan.syscalls))


class Step(NamedTuple):
    """One step: its name, what it does, and what to do where it cannot be had."""

    name: str
    take: Callable[[SealPlan, _Progress], None]
    remedy: str


STEPS: Final = (
    Step(
        "start", _start, "the monitor starts a domain by clone(2) with CLONE_NEWPID | CLONE_NEWNET, with memory enough"
    ),
    Step("descriptors", _descriptors, "give the domain only descriptors that are open; Linux 5.9 or later is needed"),
    Step("session", _session, "the monitor must not have made the domain leader of a foreign process group"),
    Step("identity", _identity, "run the monitor as root, or as a normal user in `unshare --user --map-root-user`"),
    Step(
        "namespaces",
        _namespaces,
        "allow user namespaces: sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone and "
        "kernel.apparmor_restrict_unprivileged_userns; in a container, its seccomp profile; /proc must be mounted",
    ),
    Step("keyring", _keyring, "in a container, let its seccomp profile allow keyctl"),
    Step(
        "root", _root, "the kernel must let a user namespace mount a tmpfs; in a container, allow mount and pivot_root"
    ),
    Step("capabilities", _capabilities, "no filter of the surroundings may refuse prctl and capset"),
    Step("privileges", _privileges, "no filter of the surroundings may refuse prctl"),
    Step(
        "landlock",
        _landlock,
        "Linux 5.13 or later with CONFIG_SECURITY_LANDLOCK, and landlock in the kernel's list of security modules "
        "(lsm=…,landlock on its command line)",
    ),
    Step("limits", _limits, "the limits of the monitor itself may be too low: see ulimit -H -a"),
    Step("process", _process, "no filter of the surroundings may refuse prctl"),
    Step("verify", _verify, "something around the domain pretends to carry out system calls; do not run it there"),
    Step("seccomp", _seccomp, "Linux with CONFIG_SECCOMP_FILTER, on x86_64 or aarch64"),
)


def take(steps: tuple[Step, ...], plan: SealPlan) -> Sealed:
    """Takes ``steps`` in their order. Errors: SealError of the first that cannot be had; the process must then end."""
    progress = _Progress()
    for step in steps:
        try:
            step.take(plan, progress)
        except (OSError, ValueError, LookupError) as error:
            number = error.errno or 0 if isinstance(error, OSError) else 0
            what = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise SealError(step.name, number, what, step.remedy) from error
    return Sealed(progress.landlock_abi, progress.refuses_exec_gain)


def seal(plan: SealPlan, further: Mapping[str, Rule] | None = None) -> Sealed:
    """Seals the calling process for good. ``further`` system calls: as ``allowlist.rules``.

    Errors: SealError; the process is then half sealed and must end at once.
    """
    return take(STEPS if further is None else widened(STEPS, further), plan)


def widened(steps: tuple[Step, ...], further: Mapping[str, Rule]) -> tuple[Step, ...]:
    """``steps``, but for a filter that allows ``further`` calls."""

    def install(plan: SealPlan, progress: _Progress) -> None:
        seccomp.install(seccomp.program(plan.syscalls, further=further))

    return tuple(step._replace(take=install) if step.name == "seccomp" else step for step in steps)
