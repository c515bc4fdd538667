"""The seal as it can be seen from outside, held against the plan.

Every ``Row`` says where its knowledge comes from: *observed* in the kernel's own account of the process, or *reported*
by the domain itself, which is all there is for Landlock: the kernel shows its rules to nobody.
"""

from __future__ import annotations

import os
import resource
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from appliance.monitor.sandbox import filters, landlock, namespaces, seccomp
from appliance.monitor.sandbox.allowlist import Rule
from appliance.monitor.sandbox.plan import NAMESPACES, SealPlan
from appliance.monitor.sandbox.seal import Sealed, limits

OBSERVED: Final = "observed"
REPORTED: Final = "reported"

_CAPABILITY_SETS: Final = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
_FILTERING: Final = 2  # SECCOMP_MODE_FILTER

# What readlink says of a descriptor, by its beginning.
_KINDS: Final = (
    ("anon_inode:[eventfd]", "eventfd"),
    ("anon_inode:[eventpoll]", "epoll"),
    ("/memfd:", "memfd"),
    ("/dev/net/tun", "tun"),
    ("/dev/null", "null"),
    ("/dev/xen/evtchn", "evtchn"),
    ("socket:", "socket"),
    ("pipe:", "pipe"),
)

# What the limits are called in /proc/PID/limits, where resource(3) calls them otherwise.
_LIMIT_LINES: Final = {
    "RLIMIT_AS": "Max address space",
    "RLIMIT_FSIZE": "Max file size",
    "RLIMIT_NOFILE": "Max open files",
    "RLIMIT_NPROC": "Max processes",
    "RLIMIT_CORE": "Max core file size",
    "RLIMIT_MEMLOCK": "Max locked memory",
    "RLIMIT_MSGQUEUE": "Max msgqueue size",
    "RLIMIT_NICE": "Max nice priority",
    "RLIMIT_RTPRIO": "Max realtime priority",
}


class Row(NamedTuple):
    """One attribute of a seal: what the plan wants, what there is, whether that will do, and how it is known."""

    attribute: str
    wanted: str
    seen: str
    ok: bool
    source: str = OBSERVED


@dataclass(frozen=True)
class Seals:
    """What the kernel says of process ``pid``. None stands for what this caller may not see."""

    pid: int
    status: Mapping[str, str]
    namespaces: Mapping[str, int]
    foreign: Mapping[str, int]
    root: tuple[str, ...] | None
    root_flags: int | None
    limits: Mapping[str, tuple[int, int]]
    descriptors: Mapping[int, str] | None
    owner: int
    filters: tuple[bytes, ...] | None

    def number(self, field: str) -> int:
        """A field of /proc/PID/status that is one decimal number."""
        return int(self.status[field])

    def as_rows(
        self, plan: SealPlan, reported: Sealed | None = None, further: Mapping[str, Rule] | None = None
    ) -> list[Row]:
        """The table: every attribute of the seal that ``plan`` wants, and what the domain ``reported`` of the rest.

        ``further`` system calls: as ``seal`` was told of them.
        """
        wanted = seccomp.program(plan.syscalls, further=further)
        return [*self._process(plan), *self._names(), *self._reach(plan), *self._filter(wanted), *_said(reported)]

    def _process(self, plan: SealPlan) -> Iterator[Row]:
        uid, gid = plan.outer_uid, plan.outer_gid
        for name, field, wanted in (("user", "Uid", uid), ("group", "Gid", gid)):
            ids = set(self.status[field].split())
            # Without ids of its own the domain has the one that its monitor has, whatever that is out there.
            expected = str(os.geteuid() if wanted is None else wanted)
            yield Row(name, expected, " ".join(sorted(ids)), ids == {expected})
        if uid is not None:
            groups = self.status["Groups"].split()
            yield Row("further groups", "none", " ".join(groups) or "none", not groups)
        held = [name for name in _CAPABILITY_SETS if int(self.status[name], 16)]
        yield Row("capabilities", "none", ", ".join(held) or "none", not held)
        yield Row("no new privileges", "1", self.status["NoNewPrivs"], self.status["NoNewPrivs"] == "1")
        yield Row("threads", "1", self.status["Threads"], self.status["Threads"] == "1")
        name = plan.domain[:15]
        yield Row("name", name, self.status["Name"], self.status["Name"] == name)
        if uid is not None:  # the files of a process that cannot be dumped belong to root and not to its user
            yield Row("memory dump", "no", "no" if self.owner != uid else "yes", self.owner != uid)

    def _names(self) -> Iterator[Row]:
        innermost = self.status["NSpid"].split()[-1]
        yield Row("pid within", "1", innermost, innermost == "1")
        session = self.status["NSsid"].split()[-1]
        yield Row("session", "own", "own" if session == "1" else "shared", session == "1")
        for name in NAMESPACES:
            own = self.namespaces.get(name)
            seen = "not readable" if own is None else "the observer's" if own == self.foreign[name] else "own"
            yield Row(f"{name} namespace", "own", seen, seen == "own")

    def _reach(self, plan: SealPlan) -> Iterator[Row]:
        if self.root is None or self.root_flags is None:
            yield Row("files", "none", "not readable", False)
        else:
            yield Row("files", "none", ", ".join(self.root[:4]) or "none", not self.root)
            bare = self.root_flags & namespaces.ROOT_FLAGS == namespaces.ROOT_FLAGS
            yield Row("root", "ro, nosuid, nodev, noexec", "as wanted" if bare else f"flags {self.root_flags:#x}", bare)
        if self.descriptors is None:
            yield Row("descriptors", "as kept", "not readable", False)
        else:
            # An epoll of its own making reaches nothing but the descriptors it was given; a socket that was not given
            # it can only have accepted.
            harmless = ("epoll", "socket") if plan.descriptors else ("epoll",)
            unexpected = {fd for fd, kind in self.descriptors.items() if kind not in harmless} - set(plan.keep_fds)
            kinds = sorted(set(self.descriptors.values()))
            seen = ", ".join(f"{list(self.descriptors.values()).count(kind)} {kind}" for kind in kinds) or "none"
            yield Row("descriptors", f"{len(plan.keep_fds)} as kept", seen, not unexpected)
        for name, wanted in limits(plan).items():
            soft, hard = self.limits[name]
            yield Row(
                name.lower(), str(wanted), str(soft) if soft == hard else f"{soft} to {hard}", soft == hard == wanted
            )

    def _filter(self, program: bytes) -> Iterator[Row]:
        mode = self.number("Seccomp")
        yield Row("seccomp", "filter", "filter" if mode == _FILTERING else f"mode {mode}", mode == _FILTERING)
        count = self.number("Seccomp_filters")
        yield Row("filters", "1 or more", str(count), count >= 1)
        wanted = seccomp.digest(program)[:16]
        if self.filters is None:
            yield Row("filter program", wanted, "as the plan, says the domain", True, REPORTED)
        else:
            # Surroundings that filter too (a container) come before the domain's own, which is the last installed.
            seen = seccomp.digest(self.filters[0])[:16] if self.filters else "none"
            yield Row("filter program", wanted, seen, seen == wanted)


def _said(reported: Sealed | None) -> Iterator[Row]:
    if reported is None:
        return
    version = reported.landlock_abi
    yield Row(
        "landlock", f"ABI {landlock.LEAST_ABI} or later", f"ABI {version}", version >= landlock.LEAST_ABI, REPORTED
    )
    for words in landlock.handled(version):
        yield Row("landlock refuses", words, words, True, REPORTED)
    yield Row(
        "gain of execute permission",
        "refused",
        "refused" if reported.refuses_exec_gain else "left to seccomp",
        True,
        REPORTED,
    )


def _status(pid: int) -> dict[str, str]:
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
        pairs = (line.partition(":") for line in file)
        return {name: value.strip() for name, _, value in pairs}


def _limits(pid: int) -> dict[str, tuple[int, int]]:
    with open(f"/proc/{pid}/limits", encoding="utf-8") as file:
        lines = file.read().splitlines()

    def value(text: str) -> int:
        return resource.RLIM_INFINITY if text == "unlimited" else int(text)

    found = {}
    for name, title in _LIMIT_LINES.items():
        soft, hard = next(line for line in lines if line.startswith(title))[len(title) :].split()[:2]
        found[name] = (value(soft), value(hard))
    return found


def _descriptors(pid: int) -> dict[int, str] | None:
    found = {}
    try:
        for fd in os.listdir(f"/proc/{pid}/fd"):
            try:
                target = os.readlink(f"/proc/{pid}/fd/{fd}")
            except FileNotFoundError:
                continue  # closed since it was listed
            found[int(fd)] = next((kind for prefix, kind in _KINDS if target.startswith(prefix)), "file")
    except PermissionError:
        return None
    return found


def _namespaces(pid: int) -> dict[str, int]:
    found = {}
    for name in NAMESPACES:
        try:
            found[name] = os.stat(f"/proc/{pid}/ns/{name}").st_ino
        except PermissionError:
            continue
    return found


def _root(pid: int) -> tuple[tuple[str, ...] | None, int | None]:
    try:
        return tuple(sorted(os.listdir(f"/proc/{pid}/root/"))), os.statvfs(f"/proc/{pid}/root/").f_flag
    except PermissionError:
        return None, None


def _filters(pid: int, mode: str) -> tuple[bytes, ...] | None:
    if mode != str(_FILTERING):
        return ()
    try:
        return filters.running(pid)
    except OSError:
        return None


def read_seals(pid: int) -> Seals:
    """Looks at process ``pid``, a domain, from outside. Stops it for some tens of microseconds to read its filter.

    Errors: FileNotFoundError or ProcessLookupError if there is no such process. What may not be read is None.
    """
    root, root_flags = _root(pid)
    status = _status(pid)
    return Seals(
        pid=pid,
        status=status,
        namespaces=_namespaces(pid),
        foreign={name: os.stat(f"/proc/self/ns/{name}").st_ino for name in NAMESPACES},
        root=root,
        root_flags=root_flags,
        limits=_limits(pid),
        descriptors=_descriptors(pid),
        owner=os.stat(f"/proc/{pid}/limits")[stat.ST_UID],
        filters=_filters(pid, status["Seccomp"]),
    )
