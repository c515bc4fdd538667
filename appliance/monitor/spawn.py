"""Starts one domain: a fresh interpreter, pid 1 of its own pid namespace, with exactly the descriptors it is given.

A fork of the warm monitor would be quicker (1 ms against 30), and would share the monitor's address-space layout and
whatever it has in memory with every domain; so each domain is executed anew.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple, NoReturn

from appliance.monitor.kernel import CLONE_NEWNET, CLONE_NEWPID, clone
from appliance.monitor.sandbox.kernel import PR_SET_PDEATHSIG, prctl

BOOT: Final = Path(__file__).resolve().parent.parent / "guest" / "boot.py"

# All that a domain finds in its environment. Groups of packets are buffers of 64 KB that come and go: without these
# glibc returns them to the kernel and faults them in again for every group (1.6 times slower, measured).
ENVIRONMENT: Final = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "33554432",  # glibc takes no more than HEAP_MAX_SIZE / 2
    "MALLOC_TRIM_THRESHOLD_": "67108864",
    "MALLOC_TOP_PAD_": "1048576",
}

_MOST_DESCRIPTORS: Final = 256
_LAST_WORDS_SIZE: Final = 4096


class Child(NamedTuple):
    """A running domain: its pid as the monitor sees it, and the pidfd that names this life of it and no later one."""

    pid: int
    pidfd: int

    def kill(self) -> None:
        """SIGKILL; nothing happens if it is dead already."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def reap(self) -> int:
        """Waits for the end of it and returns the exit status as ``-signal`` or code; closes the pidfd."""
        result = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED)
        os.close(self.pidfd)
        assert result is not None
        return result.si_status if result.si_code == os.CLD_EXITED else -result.si_status

    def bury(self, last_words: int) -> tuple[int, bytes]:
        """As ``reap``, and what it left in the pipe whose reading end is ``last_words``; closes that too."""
        status = self.reap()
        try:
            return status, os.read(last_words, _LAST_WORDS_SIZE)
        except BlockingIOError:
            return status, b""
        finally:
            os.close(last_words)


def last_words_pipe() -> tuple[int, int]:
    """The reading end, and a domain's fd 2: neither ever blocks, and what does not fit in is not said."""
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, _LAST_WORDS_SIZE)
    return reader, writer


def spawn(descriptors: Mapping[int, int], program: Path = BOOT) -> Child:
    """Starts ``program`` with ``descriptors``: its number in the domain -> the monitor's descriptor.

    The numbers must be 0 to n without a gap. The domain dies with the monitor. Errors: OSError from clone(2); what
    goes wrong later in the child is written to its fd 2 and ends it with status 127.
    """
    if sorted(descriptors) != list(range(len(descriptors))) or len(descriptors) > _MOST_DESCRIPTORS:
        raise ValueError("the descriptors of a domain are numbered from 0 without a gap")
    sys.stdout.flush()
    pid, pidfd = clone(CLONE_NEWPID | CLONE_NEWNET)
    if pid == 0:
        _child(descriptors, program)
    return Child(pid, pidfd)


def _child(descriptors: Mapping[int, int], program: Path) -> NoReturn:
    """In the child, a copy of the monitor: becomes the domain, or ends."""
    try:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        # Two steps, since a source may have the number of another one's target
        high = {fd: fcntl.fcntl(source, fcntl.F_DUPFD_CLOEXEC, _MOST_DESCRIPTORS) for fd, source in descriptors.items()}
        for fd, source in high.items():
            os.dup2(source, fd)
        # Python opens everything close-on-exec, but what the monitor inherited from its own parent may not be
        os.closerange(len(descriptors), os.sysconf("SC_OPEN_MAX"))
        python = os.path.realpath(sys.executable)
        os.execve(python, [python, "-I", "-S", "-B", str(program)], ENVIRONMENT)
    except BaseException as error:
        os.write(2, f"could not be executed: {error}\n".encode())
    os._exit(127)
