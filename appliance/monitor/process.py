"""The process back end: a domain is a Linux process that has sealed itself, started anew for each of its lives.

What a domain needs to be built - rings, devices, its boot description - is made once and kept; what belongs to one
life - process, status page, control event, pipe of last words - is made for each.
"""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import json
import os
import signal
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import septum

import appliance
from appliance.assembly.model import Domain, ValidatedAssembly
from appliance.assembly.settings import to_json
from appliance.guest.status import ROW_SIZE, PeerRow
from appliance.guest.status import SIZE as STATUS_SIZE
from appliance.monitor import replaced
from appliance.monitor.backend import Lent, Pace
from appliance.monitor.channels import Attachment, Channels
from appliance.monitor.sandbox import evidence
from appliance.monitor.sandbox.plan import SealPlan, plan_for
from appliance.monitor.spawn import BOOT, Child, last_words_pipe, spawn
from appliance.monitor.status import Report, StatusMemory
from appliance.monitor.supervisor import LIMITS

# docs/architecture.md, "File descriptors of a domain"
_NULL_IN, _NULL_OUT, _LAST_WORDS, _DESCRIPTION, _STATUS, _CONTROL, _FIRST_PORT = range(7)

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_SEALED: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL

PATH: Final = tuple(
    dict.fromkeys(
        [
            str(Path(appliance.__file__).resolve().parent.parent),
            str(Path(septum.__file__).resolve().parent.parent),
            *(entry for entry in sys.path if entry.endswith(("site-packages", "dist-packages"))),
        ]
    )
)


@dataclass
class _Life:
    """One life of a domain. ``last_words`` is the reading end of its fd 2, which goes with the child."""

    child: Child
    status: StatusMemory
    control: int
    last_words: int
    started: float

    def close(self) -> None:
        self.status.close()
        os.close(self.control)


@dataclass(frozen=True)
class _Blueprint:
    """What all lives of a domain have in common. ``description`` is the sealed memfd with its secrets, unmapped."""

    domain: Domain
    attachments: tuple[Attachment, ...]
    descriptors: Mapping[int, int]
    description: int
    description_bytes: int  # of it, the JSON
    plan: SealPlan


class ProcessBackend:
    """Builds and ends the domains of ``assembly``. ``devices``: descriptors by name, the caller's to close.

    ``first_id`` is the user id of the first domain, the next has the next; None in a user namespace with a single id.
    This decides nothing: see supervisor.py. Errors of the constructor: OSError, ValueError.
    """

    name: Final = "process"
    pace: Final = Pace(quick=0.002, slow=0.25, limits=LIMITS)
    news: Final = None

    def __init__(
        self,
        assembly: ValidatedAssembly,
        devices: Mapping[str, int],
        first_id: int | None,
        program: Path = BOOT,
    ) -> None:
        self._program = program
        self._channels = Channels(assembly)
        self._null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        self._lives: dict[str, _Life] = {}
        self._blueprints = {
            domain.name: self._draw(domain, devices, None if first_id is None else first_id + number)
            for number, domain in enumerate(assembly.domains)
        }
        self.neighbours = {name: tuple(a.peer for a in self._blueprints[name].attachments) for name in self._blueprints}

    def _draw(self, domain: Domain, devices: Mapping[str, int], outer_id: int | None) -> _Blueprint:
        attachments = tuple(self._channels.attachments(domain.name))
        descriptors: dict[int, int] = {}
        ports = []
        for attachment in attachments:
            first = _FIRST_PORT + len(descriptors)
            descriptors.update(enumerate(attachment.descriptors, first))
            entry = {name: getattr(attachment, name) for name in ("port", "peer", "schema", "end")}
            ports.append({**entry, "memory": first, "wait": first + 1, "notify": first + 2})
        held = {}
        for name in domain.role.devices:
            if name in devices:
                held[name] = _FIRST_PORT + len(descriptors)
                descriptors[held[name]] = devices[name]
        events = [port[end] for port in ports for end in ("wait", "notify")]
        plan = plan_for(
            domain.role,
            domain.name,
            sorted([_LAST_WORDS, _CONTROL, *events, *held.values()]),
            outer_id=outer_id,
            shared_bytes=STATUS_SIZE
            + domain.role.board * ROW_SIZE
            + sum(attachment.bytes for attachment in attachments),
            memory_mib=domain.memory_mib,
        )
        description = {
            "domain": domain.name,
            "role": domain.role.name,
            "component": domain.role.component,
            "main": domain.role.main,
            "path": PATH,
            "imports": domain.role.imports,
            "ports": ports,
            "devices": held,
            "counters": domain.role.counters,
            "seal": plan.to_json(),
        }
        fd, size = _description(description, to_json(domain))
        return _Blueprint(domain, attachments, descriptors, fd, size, plan)

    # who is outside -------------------------------------------------------------------------------------------------

    def lend(self, port: str) -> Lent | None:
        """The operator's end of that name, for whoever is to hold it next; None if this box has none."""
        found = self._channels.outside(port)
        return None if found is None else Lent(found.peer, found.schema, found.descriptors)

    def hang_up(self, port: str) -> None:
        """Nobody holds the operator's end of that name any more."""
        self._channels.hang_up(port)

    def replace_setting(self, domain: str, name: str, untrusted_fd: int) -> None:
        """Later lives of ``domain`` get what is in this memfd as the JSON of setting ``name``. It is copied unread.

        Errors: ValueError saying what is wrong with it; OSError.
        """
        size = replaced.size_of(untrusted_fd, replaced.MOST)
        blueprint = self._blueprints[domain]
        fd = _memfd()
        try:
            _copy(fd, blueprint.description, blueprint.description_bytes)
            os.write(fd, replaced.mark(name))
            _copy(fd, untrusted_fd, size)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALED)
        except BaseException:
            os.close(fd)
            raise
        self._blueprints[domain] = dataclasses.replace(blueprint, description=fd)
        os.close(blueprint.description)

    # one life -------------------------------------------------------------------------------------------------------

    def start(self, name: str) -> int:
        """Clears the dead one's rings and starts ``name``; returns the pidfd, which the back end goes on owning."""
        blueprint = self._blueprints[name]
        self._channels.zero(name)
        status = StatusMemory(blueprint.domain.role.board)
        control = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        last_words, end = last_words_pipe()
        own = {
            _NULL_IN: self._null,
            _NULL_OUT: self._null,
            _LAST_WORDS: end,
            _DESCRIPTION: blueprint.description,
            _STATUS: status.fd,
            _CONTROL: control,
        }
        started = time.monotonic()
        try:
            child = spawn({**own, **blueprint.descriptors}, self._program)
        except OSError:
            status.close()
            os.close(control)
            os.close(last_words)
            raise
        finally:
            os.close(end)
        self._lives[name] = _Life(child, status, control, last_words, started)
        return child.pidfd

    def turn(self) -> None:
        """Nothing: the kernel tells of every end."""

    def check(self, name: str) -> list[str]:
        """Looks from outside whether ``name`` is sealed as planned; what is amiss, if anything."""
        life = self._lives[name]
        try:
            rows = evidence.read_seals(life.child.pid).as_rows(self._blueprints[name].plan, life.status.sealed())
        except (OSError, LookupError, ValueError, StopIteration) as error:  # it may be dying while we look
            return [f"its seal cannot be read: {error!r}"]
        return [f"{row.attribute}: {row.seen}, not {row.wanted}" for row in rows if not row.ok]

    def release(self, name: str) -> None:
        """GO: from here on it reads input."""
        os.eventfd_write(self._lives[name].control, 1)

    def kill(self, name: str) -> None:
        self._lives[name].child.kill()

    def bury(self, name: str) -> str:
        """After the end of ``name``: how it ended and its last words, in one line or more of printable ASCII."""
        life = self._lives.pop(name)
        status, untrusted_words = life.child.bury(life.last_words)
        life.close()
        return "\n  ".join([_how(status), *printable(untrusted_words).splitlines()])

    def reset(self, name: str) -> None:
        """Tells the peers of the dead ``name``."""
        self._channels.reset(name)

    def all_wait(self, name: str, survivors: Iterable[str]) -> bool:
        """Whether these peers of the dead ``name`` are ready for its next life."""
        return self._channels.all_wait(name, survivors)

    # looking --------------------------------------------------------------------------------------------------------

    @property
    def living(self) -> tuple[str, ...]:
        return tuple(self._lives)

    def report(self, name: str) -> Report:
        return self._lives[name].status.report()

    def describe(self, name: str) -> dict[str, Any]:
        """What can be said of a domain, alive or not, for `septum status`. Counters are the domain's own word."""
        blueprint, life = self._blueprints[name], self._lives.get(name)
        role = blueprint.domain.role
        found: dict[str, Any] = {
            "name": name,
            "component": role.component,
            "role": role.name,
            "summary": role.summary,
            "clearance": sorted(role.clearance),
            "memory_mib": blueprint.domain.memory_mib,
            "seal": blueprint.plan.to_json(),
            "pid": None,
            "uptime": None,
            "counters": {},
            "pss_kib": None,
            "cpu_seconds": None,
            "sealed": None,
        }
        if life is not None:
            found["pid"] = life.child.pid
            found["uptime"] = time.monotonic() - life.started
            found["counters"] = life.status.counters(role.counters)
            found["pss_kib"] = _pss(life.child.pid)
            found["cpu_seconds"] = _cpu(life.child.pid)
            found["sealed"] = life.status.sealed()._asdict()
        return found

    def peers(self, name: str, count: int) -> list[PeerRow | None]:
        """The first ``count`` rows of the board of ``name``: its own word."""
        life = self._lives.get(name)
        return [None] * count if life is None else life.status.rows(count)

    def close(self) -> None:
        """Ends every domain and lets go of everything that is theirs."""
        for life in self._lives.values():
            life.child.kill()
        for name in self.living:
            self.bury(name)
        self._channels.close()
        for blueprint in self._blueprints.values():
            os.close(blueprint.description)
        self._blueprints.clear()
        os.close(self._null)


def _memfd() -> int:
    return os.memfd_create("septum-boot", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)


def _copy(to: int, of: int, count: int) -> None:
    """Appends the first ``count`` bytes of one memfd to another, within the kernel."""
    done = 0
    while done < count:
        copied = os.sendfile(to, of, done, count - done)
        if not copied:
            raise OSError(errno.EIO, "a memfd is shorter than it was")
        done += copied


def _description(description: Mapping[str, Any], settings: bytes) -> tuple[int, int]:
    """A memfd with the boot description that nobody can write any more, and its bytes.

    The settings may hold secrets: they are put in as the bytes they are, so that no further copy is made.
    """
    fd = _memfd()
    head = json.dumps(description).encode()
    parts = [head[:-1], b', "settings": ', settings, b"}"]
    os.writev(fd, parts)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALED)
    return fd, sum(map(len, parts))


def _how(status: int) -> str:
    if status >= 0:
        return f"ended with status {status}"
    return f"was ended by {signal.Signals(-status).name}"


def printable(untrusted_text: bytes) -> str:
    """What a domain said, without what could do something to a terminal or a log."""
    return "".join(chr(b) if 32 <= b < 127 or b == 10 else "?" for b in untrusted_text)


def _cpu(pid: int) -> float | None:
    """Seconds of CPU that a process has had (proc(5): utime and stime of /proc/PID/stat)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS
    except OSError:
        return None


def _pss(pid: int) -> int | None:
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            for line in file:
                if line.startswith(b"Pss:"):
                    return int(line.split()[1])
    except OSError:
        pass  # it has just died, or we may not look
    return None
