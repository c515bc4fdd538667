"""Which emulated machine is up: one at a time, for two processors carry one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from appliance.assembly.load import VPN
from appliance.assembly.model import ValidatedAssembly
from appliance.xsm.policy import compiled_policy

from .rig import Rig, hypervisor


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


_FIT: Final = """
import sys
from contextlib import closing
from pathlib import Path
from appliance.assembly.load import load
from appliance.monitor.xen.fit import XenError, see_fit
from appliance.monitor.xen.xl import Xl
with closing(Xl()) as xl:
    try:
        see_fit(load(Path(sys.argv[1])), xl)
        print("fit")
    except XenError as error:
        print(error)
"""


def fit(rig: Rig, xsm: str) -> str:
    """What `septum up` says of this Xen, for the gateway with ``xsm`` in its assembly: why it refuses it, or "fit"."""
    box = "/septum/assemblies/box.toml"  # beside the rules that it names
    rig.put(box, f'{VPN.read_text()}\n[xen]\nxsm = "{xsm}"\n'.encode())
    return rig.python(_FIT, 120, box).strip()


def policy_of(assembly: ValidatedAssembly) -> bytes:
    """For the Xen that the rig boots."""
    return compiled_policy(assembly, hypervisor.with_xsm().flask)
