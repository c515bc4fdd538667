"""``xl``, run with bounds: so many bytes of answer, so many seconds, and an error that quotes what it said."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Container, Sequence
from contextlib import ExitStack
from typing import Final, NamedTuple

from appliance.monitor.process import printable
from appliance.xen.xenctrl import Control

PATIENCE: Final = 300.0  # seconds; xl waits for netback and for other toolstacks, and is never left half way
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


class Job:
    """One run of xl that goes on by itself. ``fds`` are handed down; they may be closed once this is made."""

    def __init__(self, program: str, arguments: Sequence[str], fds: Sequence[int] = ()) -> None:
        self.arguments = tuple(arguments)
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

    def wait(self, seconds: float = PATIENCE, good: Container[int] = (0,)) -> str:
        """What it printed. Errors: XlError if its exit code is not ``good``, or it is not done in time and ended."""
        try:
            status = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise XlError(f"`xl {self.arguments[0]}` was not done after {seconds:g} s") from None
        else:
            said = os.pread(self._output, _MOST, 0)
            if status not in good:
                words = printable((os.pread(self._complaints, _MOST, 0) + said)[-_QUOTED:]).split()
                quoted = " ".join(words) or "it said nothing"
                raise XlError(f"`xl {' '.join(self.arguments[:2])}` failed ({status}): {quoted}")
            return said.decode("ascii", "replace")
        finally:
            for fd in (self._output, self._complaints, self._end):
                os.close(fd)


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

    def start(self, *arguments: str, fds: Sequence[int] = ()) -> Job:
        return Job(self._program, arguments, fds)

    def run(self, *arguments: str) -> str:
        return self.start(*arguments).wait()

    def create(self, configuration: int, fds: Sequence[int]) -> Job:
        """Begins to create a guest, paused, from descriptors: nobody waits for its death but the monitor."""
        return self.start("create", "-p", "-e", "-q", f"/proc/self/fd/{configuration}", fds=(configuration, *fds))

    def unpause(self, domid: int) -> None:
        """Lets a guest run. A single order to Xen: a program for that is most of what letting go costs."""
        if self._control is None:
            self._control = Control()
        self._control.unpause(domid)

    def close(self) -> None:
        if self._control is not None:
            control, self._control = self._control, None
            control.close()

    def list(self) -> list[Row]:
        """All guests. A line that is not as expected is no guest of ours."""
        rows = map(_ROW.fullmatch, self.run("list").splitlines()[:4096])
        return [
            Row(row["name"], int(row["id"]), int(row["memory"]), bool(set(row["state"]) & set("scd")))
            for row in rows
            if row
        ]

    def enforces(self) -> bool:
        """Whether an XSM policy is enforced. One that cannot tell does not."""
        try:
            return self.start("getenforce").wait(good=(0, 1)).strip() == "Enforcing"  # the exit code is the mode
        except XlError:
            return False
