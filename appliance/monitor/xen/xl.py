"""``xl``, run with bounds: so many bytes of answer, so many seconds, and an error that quotes what it said."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Container, Sequence
from contextlib import ExitStack, suppress
from typing import Final, NamedTuple

from appliance.monitor.process import printable
from appliance.monitor.xen import patience
from appliance.xen.xenctrl import Control

# Seconds on a real machine, where each takes less than one. xl waits for netback and for other toolstacks, and may hang
_CREATE: Final = 60.0
_OTHER: Final = 10.0
_DYING: Final = 1.0  # seconds that one that was killed may take
_MOST: Final = 1 << 20  # bytes of an answer
_QUOTED: Final = 600  # bytes of what it said, in an error

# name, id, memory, vcpus, state, time. A name may hold anything but has no room for blanks here: ours have none
_ROW: Final = re.compile(r"(?P<name>\S+)\s+(?P<id>\d+)\s+(?P<memory>\d+)\s+\d+\s+(?P<state>[-a-z]{6})\s+[\d.]+\s*")


class XlError(OSError):
    """xl did not do what it was asked; the text has what it said."""


class Row(NamedTuple):
    """A domain as ``xl list`` has it. ``is_over``: it has shut down, crashed or is being torn down."""

    name: str
    domid: int
    memory_mib: int
    is_over: bool


def rows(said: str) -> list[Row]:
    """What `xl list` says. A line that is not as expected is no guest of ours."""
    found = map(_ROW.fullmatch, said.splitlines()[:4096])
    return [
        Row(row["name"], int(row["id"]), int(row["memory"]), bool(set(row["state"]) & set("scd")))
        for row in found
        if row
    ]


class Job:
    """One run of xl that goes on by itself, for so many ``seconds`` at most. ``fds`` are handed down, and may be closed
    once this is made.
    """

    def __init__(self, program: str, arguments: Sequence[str], fds: Sequence[int], seconds: float) -> None:
        self.arguments = tuple(arguments)
        self._seconds = seconds
        self._over = time.monotonic() + seconds
        with ExitStack() as stack:
            self._output, self._complaints = (_memory(stack) for _ in range(2))
            self._process = subprocess.Popen(
                [program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=self._complaints,
                pass_fds=fds,
                close_fds=True,
            )
            stack.callback(self._process.wait)
            stack.callback(self._process.kill)
            self._end = os.pidfd_open(self._process.pid)
            stack.pop_all()

    def fileno(self) -> int:
        """Readable once it is over."""
        return self._end

    @property
    def is_over(self) -> bool:
        return self._process.poll() is not None

    @property
    def is_late(self) -> bool:
        """It is not done and should be: it hangs, and is to be ended."""
        return not self.is_over and time.monotonic() >= self._over

    def hurry(self) -> None:
        """Nobody waits for what it does any more: it has as long as the shortest from now on."""
        self._over = min(self._over, time.monotonic() + min(self._seconds, _OTHER * patience.factor()))

    def end(self) -> None:
        """Ends it, done or not. Nobody waits for one that is stuck in the kernel."""
        self._process.kill()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_DYING)
        self._close()

    def _close(self) -> None:
        for fd in (self._output, self._complaints, self._end):
            os.close(fd)

    def wait(self, good: Container[int] = (0,)) -> str:
        """What it printed. Errors: XlError if its exit code is not ``good``, or it is not done in time and ended."""
        try:
            status = self._process.wait(max(0.0, self._over - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.end()
            raise XlError(f"`xl {self.arguments[0]}` was not done after {self._seconds:g} s") from None
        try:
            said = os.pread(self._output, _MOST, 0)
            if status not in good:
                words = printable((os.pread(self._complaints, _MOST, 0) + said)[-_QUOTED:]).split()
                quoted = " ".join(words) or "it said nothing"
                raise XlError(f"`xl {' '.join(self.arguments[:2])}` failed ({status}): {quoted}")
            return said.decode("ascii", "replace")
        finally:
            self._close()


def _memory(stack: ExitStack) -> int:
    fd = os.memfd_create("septum-xl", os.MFD_CLOEXEC)
    stack.callback(os.close, fd)
    return fd


class Xl:
    """The toolstack. Errors of all methods: XlError, OSError."""

    def __init__(self, program: str = "xl") -> None:
        found = shutil.which(program)
        if found is None:
            raise XlError(f"there is no {program} here: install the Xen tools (Debian: xen-utils) and boot under Xen")
        self._program = found
        self._control: Control | None = None

    def start(self, *arguments: str, fds: Sequence[int] = (), seconds: float | None = None) -> Job:
        return Job(self._program, arguments, fds, (seconds or _OTHER) * patience.factor())

    def run(self, *arguments: str) -> str:
        return self.start(*arguments).wait()

    def create(self, configuration: int, fds: Sequence[int]) -> Job:
        """Begins to create a guest, paused, from descriptors: nobody waits for its death but the monitor."""
        file = f"/proc/self/fd/{configuration}"
        return self.start("create", "-p", "-e", "-q", file, fds=(configuration, *fds), seconds=_CREATE)

    def destroy(self, domid: int) -> Job:
        """Begins to destroy a guest."""
        return self.start("destroy", str(domid))

    def unpause(self, domid: int) -> None:
        """Lets a guest run. A single order to Xen: a program for that is most of what letting go costs."""
        self._order().unpause(domid)

    def pause(self, domid: int) -> None:
        """Stops a guest where it is, whatever xl does."""
        self._order().pause(domid)

    def machine_cpus(self) -> int:
        """How many physical CPUs this machine has."""
        return self._order().machine_cpus()

    def cpus(self, domid: int) -> frozenset[int]:
        """The physical CPUs that a guest may run on."""
        return self._order().cpus(domid)

    def _order(self) -> Control:
        if self._control is None:
            self._control = Control()
        return self._control

    def close(self) -> None:
        if self._control is not None:
            control, self._control = self._control, None
            control.close()

    def listing(self) -> Job:
        """Begins to ask for all guests; ``rows`` reads what is said."""
        return self.start("list")

    def list(self) -> list[Row]:
        """All guests."""
        return rows(self.run("list"))

    def enforces(self) -> bool:
        """Whether an XSM policy is enforced. One that cannot tell does not."""
        try:
            return self.start("getenforce").wait(good=(0, 1)).strip() == "Enforcing"  # the exit code is the mode
        except XlError:
            return False
