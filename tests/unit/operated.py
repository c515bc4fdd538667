"""A box of one domain, as the operator sees it: the monitor's socket and rings are real, the domain is a function."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Any

from appliance.assembly import model
from appliance.assembly.model import Channel, Domain, End, Network, Port, ValidatedAssembly
from appliance.monitor import control
from appliance.monitor.backend import Away, Lent
from appliance.monitor.channels import Channels
from appliance.monitor.control import ControlServer
from appliance.monitor.lending import Lending
from appliance.vchan import memfd
from appliance.vchan.endpoint import Endpoint
from appliance.vchan.ring import Side
from appliance.vchan.schema import schema
from tests.system.standin_box import role
from tests.watching import Watching

NAME = "box"


def assembly(joined: bool = True) -> ValidatedAssembly:
    """One domain that is called filter, and the operator's line to it."""
    ports = {"control": Port("control", "filtering", "server", optional=True)}
    domain = Domain("filter", dataclasses.replace(role("steady"), ports=ports), MappingProxyType({"ruleset": {}}), 192)
    line = Channel(End("operator", "filter"), End("filter", "control"), "filtering")
    return ValidatedAssembly(
        name="operated",
        summary="",
        domains=(domain,),
        channels=(line,) if joined else (),
        network=Network("t"),
        source=Path(__file__),
        proof=model._PROOF,
    )


class Backend:
    """The channels, and what was to be kept."""

    def __init__(self, joined: bool = True) -> None:
        self.channels = Channels(assembly(joined))
        self.kept: list[tuple[str, str, int]] = []
        self.refuses: Exception | None = None
        self.away = ""
        self.place: tuple[int, int] | None = None  # as of a Xen guest

    def lend(self, port: str) -> Lent | None:
        if self.away:
            raise Away(self.away)
        found = self.channels.outside(port)
        if found is None or self.place is None:
            return None if found is None else Lent(found.peer, found.schema, found.descriptors)
        return Lent(found.peer, found.schema, place=self.place)

    def hang_up(self, port: str) -> None:
        self.channels.hang_up(port)

    def replace_setting(self, domain: str, name: str, untrusted_fd: int) -> None:
        if self.refuses is not None:
            raise self.refuses
        self.kept.append((domain, name, untrusted_fd))


class Box:
    """A thread that is the monitor; ``end`` is the domain's end of the line."""

    def __init__(self, directory: Path, joined: bool = True) -> None:
        (directory / NAME).mkdir()
        (directory / NAME / control.LOCK).touch()
        self.backend = Backend(joined)
        self.lines: list[str] = []
        self.lending = Lending(self.backend, lambda priority, text: self.lines.append(text))
        self._watching = Watching()
        self.server = ControlServer(
            directory / NAME / control.SOCKET,
            {"status": dict},
            self._watching.watch,
            self._watching.forget,
            self.lending,
        )
        self.todo: list[Callable[[], None]] = []
        self._stop = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop:
            self._watching.turn(0.01)
            self.server.tick(time.monotonic())
            while self.todo:
                self.todo.pop()()

    def hang_up(self, port: str = "filter") -> None:
        self.todo.append(lambda: self.server.hang_up(port))

    def attach(self) -> Endpoint:
        """The domain's end."""
        (own,) = self.backend.channels.attachments("filter")
        shape = schema(own.schema)
        memory, wait, notify = own.descriptors
        return Endpoint(memfd.attach(memory, wait, notify, shape.orders), Side.SERVER, shape)

    def close(self) -> None:
        self._stop = True
        self._thread.join(5)
        self.server.close()
        self.backend.channels.close()
        self._watching.close()


@contextlib.contextmanager
def answering(end: Endpoint, answer: Callable[[Any], Any]) -> Iterator[list[Any]]:
    """The domain answers each request in a thread of its own; what was asked."""
    asked: list[Any] = []
    stop = threading.Event()

    def run() -> None:
        while not stop.is_set():
            end.progress()
            request = end.receive() if end.is_open else None
            if request is not None:
                asked.append(request)
                reply = answer(request)
                if reply is None:
                    return  # it has died of it
                end.send(reply)
                end.flush()
            else:
                time.sleep(0.001)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield asked
    finally:
        stop.set()
        thread.join(5)


def until(condition: Callable[[], Any], seconds: float = 5) -> Any:
    """What ``condition`` says once it is true."""
    limit = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < limit, "it did not come true"
        time.sleep(0.005)
    return found
