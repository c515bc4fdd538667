"""sd_notify(3) and log lines as journald likes them, without libsystemd."""

from __future__ import annotations

import fcntl
import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import Final

# <syslog.h>
CRITICAL: Final = 2
ERROR: Final = 3
WARNING: Final = 4
NOTICE: Final = 5
INFO: Final = 6


def notify(state: str) -> None:
    """Tells the service manager, if there is one: ``READY=1``, ``WATCHDOG=1``, ``STOPPING=1``, ``STATUS=...``."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
        out.connect(address)
        out.send(state.encode())


def watchdog_interval() -> float | None:
    """Seconds between two ``WATCHDOG=1``: half of what the service manager allows; None if it does not watch us."""
    allowed = os.environ.get("WATCHDOG_USEC", "")
    if not allowed.isdigit() or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(allowed) / 2e6


def open_log() -> int:
    """Standard error, opened anew where that can be done, so that it can be made not to wait.

    The flag belongs to the open file and not to the descriptor: set on standard error itself, it would be set for the
    user's terminal and everybody on it. What cannot be opened anew is a socket: journald's, which takes what it gets.
    """
    try:
        flags = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        return os.open("/proc/self/fd/2", flags)
    except OSError:
        return fcntl.fcntl(2, fcntl.F_DUPFD_CLOEXEC, 3)


class Logger:
    """Writes lines to ``fd``: with ``<priority>`` for journald, with the box's name for everybody else."""

    def __init__(self, box: str, fd: int) -> None:
        self._fd = fd
        self._prefix = "" if "JOURNAL_STREAM" in os.environ else f"septum {box}: "

    def __call__(self, priority: int, text: str) -> None:
        prefix = self._prefix or f"<{priority}>"
        # A log that is full, or that nobody reads any more, must neither stop the box nor end it
        with suppress(OSError):
            os.write(self._fd, "".join(f"{prefix}{line}\n" for line in text.splitlines()).encode())


class LogFile:
    """The log of a box in the background: standard error, in a file that is cut when it has become too large."""

    MOST: Final = 8 << 20  # bytes; the file before it is kept as well

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        os.dup2(self._fd, 2)

    def trim(self) -> None:
        """Keeps the end of it as ``log.1`` and begins anew, if it is time. The file stays: others have it open too.

        They may have written any amount since the last look; the monitor has other things to do than to copy that.
        """
        size = os.fstat(self._fd).st_size
        if size < self.MOST:
            return
        with suppress(OSError):  # a full disk: then what was written so far is lost, and what comes next is not
            self._path.with_suffix(".1").write_bytes(os.pread(self._fd, self.MOST, size - self.MOST))
        os.ftruncate(self._fd, 0)
