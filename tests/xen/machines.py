"""Which emulated machine is up: one at a time, for two processors carry one."""

from __future__ import annotations

from collections.abc import Callable

from .rig import Rig


class Machines:
    """One machine at a time. ``lend`` gives the one of that kind, booted by ``make`` unless it is the one that runs."""

    def __init__(self) -> None:
        self._kind: str | None = None
        self._machine: Rig | None = None

    def lend(self, kind: str, make: Callable[[], Rig]) -> Rig:
        if self._machine is None or kind != self._kind or not self._machine.alive():
            self.end()
            machine = make()
            self._machine, self._kind = machine.__enter__(), kind
        return self._machine

    def end(self) -> None:
        machine, self._machine = self._machine, None
        if machine is not None:
            machine.close()
