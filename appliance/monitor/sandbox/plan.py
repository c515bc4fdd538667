"""The plan of one domain's seal: what the monitor decides, and the domain carries out on itself."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Any, Final, NamedTuple, Protocol, Self

from appliance.monitor.sandbox.allowlist import rules

_MIB: Final = 1 << 20
_HOSTNAME: Final = re.compile(r"[a-z][a-z0-9-]{0,62}")  # as the assembly names domains; fits the 64 bytes of utsname
_LARGEST_ID: Final = (1 << 32) - 2

# User and group ids for domains of a monitor that is root: FIRST_OUTER_ID + n. They lie above every range that
# distributions, directory services and container managers hand out, so that no process but this domain has the id.
FIRST_OUTER_ID: Final = 1_880_000_000

MOST_DESCRIPTORS: Final = 4096

# How large a regular file behind a device may grow, in bytes; a domain without such a device can write to none.
_FILE_BYTES: Final = {"store": 1 << 30, "journal": 1 << 30}

# The namespaces that must not be the monitor's, by their names in /proc/PID/ns.
NAMESPACES: Final = ("pid", "net", "user", "mnt", "ipc", "uts", "cgroup")


class Needs(Protocol):
    """What a role's component.toml declares, as far as the seal has to know it."""

    @property
    def syscalls(self) -> tuple[str, ...]: ...
    @property
    def devices(self) -> tuple[str, ...]: ...
    @property
    def memory_mib(self) -> int: ...
    @property
    def descriptors(self) -> int: ...


class _Fields(NamedTuple):
    domain: str
    syscalls: tuple[str, ...]
    memory_bytes: int
    file_bytes: int
    keep_fds: tuple[int, ...]
    outer_uid: int | None
    outer_gid: int | None
    foreign: tuple[tuple[str, int], ...]
    descriptors: int = 0


class SealPlan(_Fields):
    """What ``seal`` does to a domain.

    ``syscalls`` are those its role declares, beyond what every domain may. ``memory_bytes`` bounds the whole address
    space: code, rings and data. ``file_bytes`` bounds any regular file it writes. Every descriptor but ``keep_fds`` is
    closed. ``outer_uid`` and ``outer_gid`` are the unprivileged ids it becomes, or None where the monitor runs in a
    user namespace that has only one. ``foreign`` are the inode numbers of the monitor's namespaces: it may be in none.
    ``descriptors`` are the numbers above those kept that it may give to what it accepts: 0, but for who faces callers.

    Errors: ValueError for values that no seal can have.
    """

    __slots__ = ()

    def __new__(cls, *values: Any, **named: Any) -> Self:
        plan = super().__new__(cls, *values, **named)
        plan._check()
        return plan

    def _replace(self, **named: Any) -> Self:
        return type(self)(**{**self._asdict(), **named})

    def _check(self) -> None:
        if not _HOSTNAME.fullmatch(self.domain):
            raise ValueError(f"{self.domain!r} is no name for a domain")
        rules(self.syscalls)
        if self.memory_bytes <= 0 or self.file_bytes < 0:
            raise ValueError("a domain needs memory, and a file cannot be shorter than nothing")
        if not 0 <= self.descriptors <= MOST_DESCRIPTORS:
            raise ValueError(f"a domain accepts at most {MOST_DESCRIPTORS} connections")
        if any(fd < 0 for fd in self.keep_fds) or len(set(self.keep_fds)) != len(self.keep_fds):
            raise ValueError("keep_fds are file descriptors, each named once")
        if (self.outer_uid is None) != (self.outer_gid is None):
            raise ValueError("outer_uid and outer_gid are given together or not at all")
        for outer in (self.outer_uid, self.outer_gid):
            if outer is not None and not 0 < outer <= _LARGEST_ID:
                raise ValueError(f"{outer} is no unprivileged id")
        if {name for name, _ in self.foreign} != set(NAMESPACES):
            raise ValueError(f"foreign must name each of the namespaces {', '.join(NAMESPACES)}")

    def to_json(self) -> dict[str, Any]:
        """The plan as an object for ``json.dumps``."""
        return self._asdict()

    @classmethod
    def from_json(cls, plan: dict[str, Any]) -> SealPlan:
        """What ``to_json`` gave, after a trip through JSON. Errors: TypeError, ValueError, KeyError."""
        return cls(
            **{
                **plan,
                "syscalls": tuple(plan["syscalls"]),
                "keep_fds": tuple(plan["keep_fds"]),
                "foreign": tuple((name, inode) for name, inode in plan["foreign"]),
            }
        )


def own_namespaces() -> tuple[tuple[str, int], ...]:
    """The inode numbers of the caller's namespaces, by name. Errors: OSError without /proc."""
    return tuple((name, os.stat(f"/proc/self/ns/{name}").st_ino) for name in NAMESPACES)


def plan_for(
    needs: Needs,
    domain: str,
    keep_fds: Iterable[int],
    *,
    outer_id: int | None,
    shared_bytes: int = 0,
    memory_mib: int | None = None,
) -> SealPlan:
    """The seal of ``domain`` in a role that ``needs`` this, made by the monitor in its own namespaces.

    ``outer_id`` is the user and group id to become: one that no other process has if the monitor is root, or None in a
    user namespace with a single id. ``shared_bytes`` are the rings that will be mapped, on top of the role's own memory
    (``memory_mib``, if the assembly gives this domain another size). Errors: ValueError, OSError.
    """
    return SealPlan(
        domain=domain,
        syscalls=tuple(needs.syscalls),
        memory_bytes=(memory_mib or needs.memory_mib) * _MIB + shared_bytes,
        file_bytes=max((_FILE_BYTES.get(device, 0) for device in needs.devices), default=0),
        keep_fds=tuple(keep_fds),
        outer_uid=outer_id,
        outer_gid=outer_id,
        foreign=own_namespaces(),
        descriptors=needs.descriptors,
    )
