"""sd_notify(3) and log lines as journald likes them, without libsystemd."""

from __future__ import annotations

import os
import socket
import sys
from contextlib import suppress
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


class Logger:
    """One line an event on standard error: with ``<priority>`` for journald, with the box's name for everybody else."""

    def __init__(self, box: str) -> None:
        self._box = box
        self._journal = "JOURNAL_STREAM" in os.environ

    def __call__(self, priority: int, text: str) -> None:
        prefix = f"<{priority}>" if self._journal else f"septum {self._box}: "
        with suppress(OSError):  # a log that nobody reads any more must not end the box
            for line in text.splitlines():
                sys.stderr.write(f"{prefix}{line}\n")
            sys.stderr.flush()
