"""What every tunnel end can do, whatever it is made of."""

from __future__ import annotations

import abc
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from ..conf import Conf
from ..namespace import LabError
from ..topology import Site


def wait_for(what: str, condition: Callable[[], object], seconds: float = 10, every: float = 0.05) -> None:
    """Returns once the condition holds. Raises LabError, naming what was waited for, if it never does."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise LabError(f"waited {seconds} s in vain for {what}")
        time.sleep(every)


def pss_kib(pids: list[int]) -> int:
    """Proportional set size: what these processes cost, shared pages divided among those who share them."""
    return sum(_rollup(pid, "Pss") for pid in pids)


def own_kib(pid: int) -> int:
    """What this process alone has, and has written to: it does not change with who else maps the same libraries."""
    return _rollup(pid, "Private_Dirty")


def _rollup(pid: int, what: str) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(f"{what}:"))


def cpu_seconds(pid: int) -> float:
    """What a process and all its threads have used of the CPUs so far, the kernel's work for it included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class End(abc.ABC):
    """One end of a tunnel, running in the gateway namespace of a site from entry to exit."""

    kind: ClassVar[str]

    def __init__(self, site: Site, conf: Conf) -> None:
        self.site = site
        self.conf = conf

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @abc.abstractmethod
    def start(self) -> None:
        """Returns once this end is ready to send and receive."""

    @abc.abstractmethod
    def stop(self) -> None:
        """Leaves nothing behind; may be called twice, and after a start that failed."""

    @abc.abstractmethod
    def pids(self) -> list[int]:
        """Every process that this end is made of."""

    @classmethod
    @abc.abstractmethod
    def version(cls) -> str: ...

    def reconfigure(self, conf: Conf) -> None:
        """Stops, and starts again with another configuration: a restart in which everything is forgotten."""
        self.stop()
        self.conf = conf
        self.start()

    def restart(self) -> None:
        self.reconfigure(self.conf)

    def handshakes(self) -> dict[str, float]:
        """Unix time of the latest handshake with each peer, by public key; 0 for none yet."""
        raise LabError(f"{self.kind} has no handshakes to show")

    def shaken(self, since: float = 0) -> bool:
        """Whether some peer has completed a handshake since then."""
        return any(when and when >= since for when in self.handshakes().values())

    def wait_for_handshake(self, since: float = 0, seconds: float = 15) -> None:
        wait_for(f"a handshake at the {self.site.name} {self.kind}", lambda: self.shaken(since), seconds)
