"""One domain of the data path, unsealed, in the caller's hands: its own shell and loop, real rings and events, and the
far ends of its channels beside it in the same process. Nothing runs but what the caller gives a turn.
"""

from __future__ import annotations

import importlib
import os
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from appliance.guest.domain import SIDES, _port_kind
from appliance.guest.loop import Guest
from appliance.guest.ports import Patience, Port
from appliance.guest.status import SIZE, StatusPage
from appliance.vchan import memfd
from appliance.vchan.endpoint import Endpoint
from appliance.vchan.ring import Side
from appliance.vchan.schema import schema

COMPONENTS = Path(__file__).parents[2] / "components"


class Domain:
    """Role ``role`` of ``component``. ``far``: the other ends of its streams, by the name of the port; ``near``: its
    own ends, which are of ``kind``. Without ``short`` all that it does goes the long way.
    """

    def __init__(
        self,
        component: str,
        role: str,
        settings: dict[str, Any] | None = None,
        devices: dict[str, int] | None = None,
        short: bool = True,
        kind: type[Endpoint] = Endpoint,
    ) -> None:
        declared = tomllib.loads((COMPONENTS / component / "component.toml").read_text())["roles"][role]
        self.far: dict[str, Endpoint] = {}
        self.near: dict[str, Endpoint] = {}
        self._fds: list[int] = []
        ports: list[Port] = []
        patience = Patience()
        joined = {name: port for name, port in declared["ports"].items() if not port.get("optional")}
        for index, (name, port) in enumerate(joined.items()):
            shape, side = schema(port["schema"]), SIDES[port["end"]]
            fds = memfd.create(shape.orders)
            events = (fds.client_event_fd, fds.server_event_fd)
            mine, theirs = (events, events[::-1]) if side is Side.CLIENT else (events[::-1], events)
            self._fds += fds
            endpoint = self.near[name] = kind(memfd.attach(fds.memory_fd, *mine, shape.orders), side, shape)
            ports.append(_port_kind(port["end"], shape)(index, name, "far", endpoint, patience))
            if port["end"] in ("in", "out") and name != "log":
                self.far[name] = Endpoint(memfd.attach(fds.memory_fd, *theirs, shape.orders), side.other, shape)
        self.page = page = StatusPage(memoryview(bytearray(SIZE)), declared["counters"])
        self._control = os.eventfd(0, os.EFD_NONBLOCK)
        self._guest = Guest(role, settings or {}, devices or {}, ports, page, patience, control_fd=self._control)
        if not short:
            self._guest._shorter = None
            for endpoint in (*self.near.values(), *self.far.values()):
                endpoint._quick = None
        importlib.import_module(declared["main"]).build(self._guest)
        for _ in range(6):
            for far in self.far.values():
                far.progress()
            self.settle(1)
        assert all(far.is_open for far in self.far.values())

    def wake(self) -> None:
        """So that the next turn does not sleep at its end: it finds a word of the monitor's."""
        os.eventfd_write(self._control, 1)

    def turn(self) -> None:
        """One turn of the loop."""
        self._guest._turn()

    def settle(self, turns: int = 3) -> None:
        """So many turns, as if nothing happened meanwhile: it is asleep then, but for the word of the monitor's."""
        for _ in range(turns):
            self.wake()
            self.turn()

    def give(self, port: str, messages: Iterable[Any]) -> None:
        """Sends what arrives at ``port``, all at once, and wakes the domain if it asked for it."""
        far = self.far[port]
        for message in messages:
            assert far.send(message), f"{port} is full"
        far.flush()

    def take(self, port: str) -> list[Any]:
        """What came out of ``port``."""
        far = self.far[port]
        found = []
        while (message := far.receive()) is not None:
            found.append(message)
        far.flush()
        far.arm(space=False)  # asleep, so that the domain must wake it for the next
        return found

    def close(self) -> None:
        """It is not given another turn."""
        self._guest._epoll.close()
        for fd in (self._control, *self._fds):
            os.close(fd)
