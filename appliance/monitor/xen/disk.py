"""The monitor's side of a store's disk: starts who keeps it for the guest that is there (keeping.py), ends him with it,
starts another one if he ends first. The monitor itself maps and reads nothing of the store's.
"""

from __future__ import annotations

import json
import os
import select
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from appliance.monitor.notify import WARNING
from appliance.monitor.process import PATH, printable
from appliance.monitor.sandbox.plan import plan_for
from appliance.monitor.spawn import Child, last_words_pipe, spawn
from appliance.monitor.xen import ramdisk
from appliance.monitor.xen.keeping import IMAGE_FD, KEPT, SYSCALLS

PROGRAM: Final = Path(__file__).resolve().parent / "keeper.py"
_FIRST_REST: Final = 1.0  # seconds until the next one is started; doubled each time
_LONGEST_REST: Final = 60.0
_CALM: Final = 60.0  # seconds after which earlier ends are forgiven


class _Needs(NamedTuple):
    """As of a role in component.toml."""

    syscalls: tuple[str, ...] = SYSCALLS
    devices: tuple[str, ...] = ("store",)
    memory_mib: int = 192
    descriptors: int = 0


class Place(NamedTuple):
    """Where a guest offers its channel."""

    domid: int
    ring_ref: int
    port: int


NOWHERE: Final = Place(0, 0, 0)


class Disk(Protocol):
    """What the back end asks of it."""

    def tell(self, place: Place) -> None:
        """The store's guest offers its channel there now; NOWHERE: it is gone."""

    def turn(self, now: float) -> None:
        """Called at every look."""

    def describe(self) -> dict[str, Any]:
        """``pid`` of who keeps it, or None, and ``seal``, the plan of his: for `septum ps --seals`."""

    def close(self) -> None: ...


class _Life(NamedTuple):
    child: Child
    place: Place  # the one guest that it has met
    last_words: int
    began: float


class DiskProcess:
    """Keeps ``image``, the caller's descriptor, by a process with the ids ``outer_id``. ``log(priority, text)``."""

    def __init__(
        self, image: int, outer_id: int | None, log: Callable[[int, str], None], program: Path = PROGRAM
    ) -> None:
        self._image = image
        self._log = log
        self._program = program
        self._plan = plan_for(_Needs(), "disk", KEPT, outer_id=outer_id)
        self._null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        self._life: _Life | None = None
        self._place = NOWHERE
        self._not_before = 0.0
        self._rest = _FIRST_REST

    def tell(self, place: Place) -> None:
        """Nothing happens if it was told so already. Else whoever keeps it ends, and lets that guest's pages go."""
        if place != self._place:  # what an earlier guest has done to whoever kept it is not this one's fault
            self._place, self._not_before, self._rest = place, 0.0, _FIRST_REST
        if self._life is not None and self._life.place != place:
            self._life.child.kill()

    def turn(self, now: float) -> None:
        """Starts it if it is due; sees whether it has ended."""
        if self._life is not None and _has_ended(self._life.child.pidfd):
            self._bury(self._life, now)
        if self._life is None and self._place != NOWHERE and now >= self._not_before:
            try:
                self._life = self._start(self._place, now)
            except OSError as error:  # no memory, no process: that passes
                self._try_again(now)
                self._log(WARNING, f"who keeps the store's disk cannot be started: {error}")

    def _start(self, place: Place, now: float) -> _Life:
        described = {"path": PATH, "seal": self._plan.to_json(), "place": place}
        with ExitStack() as ours, ExitStack() as passed_on:
            last_words, end = last_words_pipe()
            ours.callback(os.close, last_words)
            passed_on.callback(os.close, end)
            description = ramdisk.sealed("septum-disk", json.dumps(described).encode())
            passed_on.callback(os.close, description)
            own = {0: self._null, 1: self._null, 2: end, 3: description, IMAGE_FD: self._image}
            life = _Life(spawn(own, self._program), place, last_words, now)
            ours.pop_all()
        return life

    def _bury(self, life: _Life, now: float) -> None:
        self._life = None
        words = self._end(life)
        if life.place != self._place:
            return  # its guest has gone, and it with it
        if now - life.began >= _CALM:
            self._rest = _FIRST_REST
        self._try_again(now)
        self._log(WARNING, f"who keeps the store's disk has ended: {words}; another one follows")

    def _try_again(self, now: float) -> None:
        self._not_before, self._rest = now + self._rest, min(_LONGEST_REST, 2 * self._rest)

    @staticmethod
    def _end(life: _Life) -> str:
        status, untrusted_words = life.child.bury(life.last_words)
        return " | ".join([f"status {status}", *printable(untrusted_words).splitlines()])

    def describe(self) -> dict[str, Any]:
        """As Disk has it."""
        return {"pid": None if self._life is None else self._life.child.pid, "seal": self._plan.to_json()}

    def close(self) -> None:
        """Ends it."""
        life, self._life = self._life, None
        if life is not None:
            life.child.kill()
            self._end(life)
        os.close(self._null)


def _has_ended(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def place_of(domid: int, offered: Sequence[int | None]) -> Place:
    """Where a guest that wrote these two numbers is to be met; NOWHERE if it has not written both."""
    ring_ref, port = offered
    return Place(domid, ring_ref, port) if ring_ref and port else NOWHERE
