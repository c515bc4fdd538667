"""Some domains of a box by the monitor's own back end, as far as a test of few guests needs a monitor. Runs in dom0."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from appliance.assembly.model import _PROOF, ValidatedAssembly
from appliance.guest.status import State
from appliance.monitor import control, devices
from appliance.monitor.control import ControlServer
from appliance.monitor.lending import Lending
from appliance.monitor.places import run_dir
from appliance.monitor.sandbox.plan import FIRST_OUTER_ID
from appliance.monitor.xen.backend import XenBackend
from appliance.monitor.xen.disk import DiskProcess
from appliance.monitor.xen.fit import see_room
from appliance.monitor.xen.images import Boot, boots_of
from appliance.monitor.xen.plan import Side
from tests.watching import Watching

BOX: Final = "some"
PATIENCE: Final = 600.0  # seconds: four guests that start share what dom0 leaves of the machine
CONF: Final = """[Interface]
PrivateKey = QEJOrY0UzBWGZ0bIcDmEnYxFu4DWN7sWAIvdPm4bYnw=
Address = 10.9.0.1/24
"""


def _images(built: ValidatedAssembly, names: Sequence[str]) -> dict[str, Boot]:
    """Of those that are started."""
    few = tuple(domain for domain in built.domains if domain.name in names)
    return boots_of(replace(built, domains=few, proof=_PROOF))


class Some:
    """The monitor of the domains ``names`` of ``built``; the others are never there.

    ``sides`` are the interfaces of those that have one; ``held`` descriptors of devices by name. ``directory`` is the
    box's: for as long as it is there, so is a box, to whoever asks on this machine.
    """

    def __init__(
        self,
        built: ValidatedAssembly,
        names: Sequence[str],
        folder: Path,
        sides: Mapping[str, Side] | None = None,
        held: Mapping[str, int] | None = None,
    ) -> None:
        see_room(built, BOX)
        self.names = tuple(names)
        self.lines: list[str] = []
        self.restarts: dict[str, int] = {}
        directory = run_dir(BOX)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        (directory / control.LOCK).touch()
        self.directory = directory
        self.channels = built.channels
        self.image = devices.open_store(folder)
        self.disk = DiskProcess(self.image, FIRST_OUTER_ID, self.log)
        self.journal = os.memfd_create("journal")
        self.backend = XenBackend(
            built,
            BOX,
            directory,
            _images(built, self.names),
            sides or {},
            self.journal,
            disk=self.disk,
            devices=held,
            log=self.log,
        )
        self._watching = Watching()
        self.lending = Lending(self.backend, self.log)
        status = {
            "name": BOX,
            "peers": [],
            "domains": [{"name": name, "component": name, "role": name} for name in self.names],
        }
        self.control = ControlServer(
            directory / control.SOCKET,
            {"status": lambda: status},
            self._watching.watch,
            self._watching.forget,
            self.lending,
        )

    def log(self, priority: int, text: str) -> None:
        self.lines.append(text)

    def turn(self) -> None:
        self.backend.turn()
        self._watching.turn(self.backend.pace.quick)  # each look is dom0's work, which those that start do without
        self.control.tick(time.monotonic())

    def until(self, what: str, look: Callable[[], Any]) -> Any:
        over = time.monotonic() + PATIENCE
        while not (found := look()):
            self.turn()
            dead = [name for name in self.names if name in self.backend._guests and name not in self.backend.living]
            if dead or time.monotonic() > over:
                raise TimeoutError(f"{what}: {self._state(dead)} {self.lines} {self.backend._xl.run('list')}")
        return found

    def _state(self, dead: Sequence[str]) -> dict[str, Any]:
        """How each has come, and how the ``dead`` have ended."""
        living = {name: self.backend.report(name).untrusted_state for name in self.backend.living if name not in dead}
        return {**living, **{name: self.backend.bury(name) for name in dead}}

    def run(self, *names: str) -> float:
        """Starts them and lets them go on once they are sealed as planned. Seconds."""
        began = time.monotonic()
        for name in names:
            self.backend.start(name)

        def state(name: str, wanted: State) -> bool:
            return bool(self.backend.report(name).untrusted_state == wanted)

        self.until("not sealed", lambda: all(state(name, State.SEALED) for name in names))
        for name in names:
            if amiss := self.backend.check(name):
                raise RuntimeError(f"{name} is not sealed as planned: {amiss}")
            self.backend.release(name)
        self.until("does not run", lambda: all(state(name, State.RUNNING) for name in names))
        return time.monotonic() - began

    def destroy(self, name: str) -> None:
        """As by somebody's `xl destroy`; waits until the monitor has seen it, and what is left of it is gone."""
        domid = self.backend._guests[name].domid
        self.backend._xl.run("destroy", str(domid))
        over = time.monotonic() + PATIENCE
        while name in self.backend.living:
            self.turn()
            if time.monotonic() > over:
                raise TimeoutError(f"{name} does not die")
        self.backend.bury(name)
        self.backend.reset(name)
        over = time.monotonic() + 60
        while "(null)" in (said := self.backend._xl.run("list")):
            self.turn()
            if time.monotonic() > over:
                raise TimeoutError(f"a ghost of {name} is left: {said}")

    def command(self, *words: str) -> tuple[int, str]:
        """Exit code and output of `septum filter …` on this box, while the monitor goes on."""
        program = [sys.executable, "-c", "from appliance.cli.septum import main; main()"]
        output = os.memfd_create("output")
        child = subprocess.Popen([*program, "filter", *words, "--box", BOX], stdout=output, stderr=output)
        over = time.monotonic() + PATIENCE
        while child.poll() is None and time.monotonic() < over:
            self.turn()
        child.kill()
        child.wait()
        return child.returncode, os.pread(output, 1 << 20, 0).decode()

    def close(self) -> None:
        self.control.close()
        self.backend.close()
