"""One life of a domain as a Xen guest, from its creation to its burial."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from enum import Enum

from appliance.monitor.xen.console import Console
from appliance.monitor.xen.pages import StatusPages
from appliance.monitor.xen.xl import Job


class Stage(Enum):
    """How far the monitor has come with it. What the guest itself has come to, its status page says."""

    CREATING = "creating"  # xl is at it
    PAUSED = "paused"  # built and wired; it has not run yet
    LET_GO = "let go"


@dataclass
class Guest:
    """``gone`` is an eventfd, readable once the guest is dead. ``why`` says more of its death than Xen does."""

    uuid: str
    status: StatusPages
    gone: int
    job: Job | None = None  # the xl that is at it
    started: float = field(default_factory=time.monotonic)
    stage: Stage = Stage.CREATING
    domid: int | None = None
    console: Console | None = None
    ask_again: float = 0.0  # when the xenstore may next be asked where its status page is
    memory_mib: int = 0
    image_sha256: str = ""
    has_offered_disk: bool = False  # the store's: whoever keeps its disk was told where
    is_dead: bool = False
    why: str = ""

    def dies(self, why: str) -> None:
        """Marks it dead, once: whoever watches ``gone`` is told."""
        if not self.is_dead:
            self.is_dead, self.why = True, why
            os.eventfd_write(self.gone, 1)

    def close(self) -> None:
        if self.console is not None:
            self.console.close()
        os.close(self.gone)
