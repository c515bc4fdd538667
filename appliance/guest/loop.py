"""The loop of a domain: sources are polled in turn while there is work, and slept on when there is none.

One idea: a *source* is anything that can be given a turn (a stream's consumer end, a server, a device). A turn does a
bounded amount of work and says whether there may be more. Notifications go out once a turn, so a busy box neither
sleeps nor wakes anybody.
"""

from __future__ import annotations

import gc
import select
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from appliance.guest.log import Log
from appliance.guest.ports import BlockingOut, Client, DroppingOut, Patience, Port
from appliance.guest.status import Counter, PeerRow, State, StatusPage, write_row
from appliance.vchan.endpoint import Endpoint
from appliance.vchan.ring import PeerViolation, Side

BURST: Final = 8  # messages of one source in one turn
HEARTBEAT: Final = 0.5  # seconds: the longest sleep; also the backstop behind a lost wake
LATCH: Final = 1.0  # seconds that an accusation stays up at least: the monitor looks four times a second
MOST_OPENINGS: Final = 20  # of one channel in a minute; a peer that keeps dying has fewer, one that flaps has more
OPENINGS_WINDOW: Final = 60.0  # seconds
STALLED_LOOK: Final = 0.02  # seconds between two looks at a full ring: is its peer busy, or stuck?
CONTROL_FD: Final = 5

Handler = Callable[..., Any]


class Source(Protocol):
    def turn(self, now: float) -> bool:
        """Does a bounded amount of work; True if there may be more at once."""


class _In:
    """Consumer's end of a stream: messages go to the handler while every Out of ``into`` has room."""

    def __init__(self, guest: Guest, port: Port, handler: Handler, into: Sequence[DroppingOut]) -> None:
        self._guest = guest
        self._port = port
        self._receive = port.endpoint.receive
        self._handler = handler
        self._into = tuple(into)

    def turn(self, now: float) -> bool:
        self._port.listens = True
        for _ in range(BURST):
            for out in self._into:
                if not out.ready(now):
                    self._port.listens = False
                    return False
            try:
                message = self._receive()
            except PeerViolation as violation:
                self._guest.accuse(self._port, violation)
                return False
            if message is None:
                return False
            self._handler(message, now)
        return True


class _Server:
    """Server's end of a call."""

    def __init__(self, guest: Guest, port: Port, handler: Handler) -> None:
        self._guest = guest
        self._port = port
        self._handler = handler
        port.listens = True

    def turn(self, now: float) -> bool:
        endpoint = self._port.endpoint
        try:
            request = endpoint.receive()
        except PeerViolation as violation:
            self._guest.accuse(self._port, violation)
            return False
        if request is None:
            return False
        # A reply always has room: the ring holds the largest one, and a caller has one call outstanding. A caller that
        # does not take its replies finds the next one dropped, which is its own deadline to meet.
        endpoint.send(self._handler(self._port.peer, request))
        return True


class _Device:
    """A readable file descriptor. Edge-triggered, so that a device waiting for room elsewhere does not spin."""

    def __init__(self, fd: int, handler: Callable[[float], bool], into: Sequence[DroppingOut]) -> None:
        self.fd = fd
        self._handler = handler
        self._into = tuple(into)
        self.is_ready = True

    def turn(self, now: float) -> bool:
        if not self.is_ready:
            return False
        for out in self._into:
            if not out.ready(now):
                return False
        self.is_ready = self._handler(now)
        return self.is_ready


@dataclass
class _Accusation:
    """That the peer of ``port`` broke the protocol, as the monitor sees it: a bit that is up, or not, until a time.

    ``again`` if it happened once more while the bit was up: the bit must go down, and up again, to say so.
    """

    port: Port
    until: float
    is_up: bool = True
    again: bool = False


class Guest:
    """What a component sees of the world: its ports, devices, settings, counters and the clock's ``now``.

    ``build(guest)`` of the component registers handlers; nothing is read before ``run``. See docs/architecture.md.
    """

    def __init__(
        self,
        name: str,
        settings: dict[str, Any],
        devices: dict[str, int],
        ports: Sequence[Port],
        page: StatusPage,
        patience: Patience,
        control_fd: int = CONTROL_FD,
    ) -> None:
        self.name = name
        self.settings = settings
        self.devices = devices
        self._page = page
        self._patience = patience
        self._accused: dict[int, _Accusation] = {}
        self._openings: dict[int, deque[float]] = {port.index: deque(maxlen=MOST_OPENINGS + 1) for port in ports}
        self._ports: dict[str, list[Port]] = {}
        for port in ports:
            self._ports.setdefault(port.name, []).append(port)
        self._all = list(ports)
        self._outs = [port for port in ports if isinstance(port, DroppingOut)]
        self._sources: list[Source] = []
        self._device_sources: dict[int, _Device] = {}
        self._opened: dict[str, Handler] = {}
        self._closed: dict[str, Handler] = {}
        self._timers: list[Callable[[float], float | None]] = []
        self._deadline: float | None = None
        self._epoll = select.epoll(len(ports) + 8)
        self._control_fd = control_fd
        self._epoll.register(control_fd, select.EPOLLIN | select.EPOLLET)
        for port in ports:
            self._epoll.register(port.endpoint.fileno(), select.EPOLLIN | select.EPOLLET)
        logs = self._ports.get("log", [])
        self.log = Log(logs[0] if logs and isinstance(logs[0], DroppingOut) else None)

    # what a component calls in build() ------------------------------------------------------------------------------

    def _one(self, name: str, kind: type) -> Any:
        found = self._ports.get(name, [])
        if len(found) != 1 or not isinstance(found[0], kind):
            raise ValueError(f"{self.name} has no {kind.__name__} port {name!r}; its ports are {sorted(self._ports)}")
        return found[0]

    def out(self, port: str) -> DroppingOut:
        """The producer's end of stream ``port``."""
        out: DroppingOut = self._one(port, DroppingOut)
        return out

    def client(self, port: str) -> Client:
        """The caller's end of ``port``."""
        client: Client = self._one(port, Client)
        return client

    def receive(self, port: str, handler: Callable[[Any, float], Any], into: Sequence[DroppingOut] = ()) -> None:
        """``handler(message, now)`` for each message, while every Out of ``into`` has room."""
        self._sources.append(_In(self, self._one(port, Port), handler, into))

    def receive_many(self, port: str, handler: Callable[[str, Any, float], Any]) -> None:
        """``handler(sender, message, now)`` for each message of each sender joined to ``port``."""
        for one in self._ports.get(port, []):

            def bound(message: Any, now: float, sender: str = one.peer) -> Any:
                return handler(sender, message, now)

            self._sources.append(_In(self, one, bound, ()))

    def serve(self, port: str, handler: Callable[[str, Any], Any]) -> None:
        """``handler(consumer, request) -> reply`` for each request of each consumer joined to ``port``."""
        self._sources.extend(_Server(self, one, handler) for one in self._ports.get(port, []))

    def readable(self, device: str, handler: Callable[[float], bool], into: Sequence[DroppingOut] = ()) -> None:
        """``handler(now) -> bool`` when ``device`` can be read; True while there may be more without a new event."""
        source = _Device(self.devices[device], handler, into)
        self._epoll.register(source.fd, select.EPOLLIN | select.EPOLLET)
        self._device_sources[source.fd] = source
        self._sources.append(source)

    def on_open(self, port: str, handler: Callable[[float], Any]) -> None:
        """``handler(now)`` whenever the peer of ``port`` appears: at the start, and each time it was rebuilt."""
        self._one(port, Port)
        self._opened[port] = handler

    def on_close(self, port: str, handler: Callable[[float], Any]) -> None:
        """``handler(now)`` whenever the peer of ``port`` is gone."""
        self._one(port, Port)
        self._closed[port] = handler

    def timer(self, handler: Callable[[float], float | None]) -> None:
        """``handler(now) -> when`` is called after every turn that did something, and at ``when`` at the latest."""
        self._timers.append(handler)

    def counter(self, name: str) -> Counter:
        """The counter declared under that name in component.toml."""
        return self._page.counter(name)

    def show_peer(self, row: PeerRow) -> None:
        """Puts ``row`` where ``septum status`` reads it. Only for roles with ``board = N`` in component.toml."""
        write_row(self._page.board, row)

    @staticmethod
    def wall() -> float:
        """Seconds since 1970, for TAI64N; everything else uses ``now``."""
        return time.time()

    # what boot.py calls -----------------------------------------------------------------------------------------------

    def file_descriptors(self) -> list[int]:
        """Those that the loop goes on using, for the seal to keep."""
        waiting = [port.fd for port in self._all if isinstance(port, Client | BlockingOut)]
        return [self._epoll.fileno(), self._control_fd, *waiting, *self.devices.values()]

    def wait_for_go(self) -> None:
        """Sleeps until the monitor says that the whole box is built."""
        while not any(fd == self._control_fd for fd, _ in self._epoll.poll(HEARTBEAT)):
            self._page.beat()

    def run(self) -> None:
        """The loop. It returns never: a domain ends when the monitor or the kernel ends it."""
        gc.collect()
        gc.freeze()  # what the imports left behind is never garbage
        self._page.state(State.RUNNING)
        while True:
            self._turn()

    # the loop ---------------------------------------------------------------------------------------------------------

    def accuse(self, port: Port, violation: PeerViolation) -> None:
        """Closes ``port`` for good as far as this peer goes, and says so where the monitor looks."""
        now = time.monotonic()
        port.endpoint.close()
        if port.index in self._accused:
            self._accused[port.index].again = True
        else:
            self._page.accuse(port.index)
            self._accused[port.index] = _Accusation(port, now + LATCH)
        self.log.error("peer-violation", f"{port.name} from {port.peer}: {violation}")
        self._told_closed(port, now)

    def _pardon(self, now: float) -> None:
        """Takes back accusations that the monitor has surely seen, and makes those that waited for it."""
        for index, accusation in list(self._accused.items()):
            if now < accusation.until:
                continue
            accusation.until = now + LATCH
            if accusation.is_up and accusation.again:
                self._page.pardon(index)
                accusation.is_up = False
            elif accusation.again:  # the monitor has surely seen that it was down
                self._page.accuse(index)
                accusation.is_up, accusation.again = True, False
            elif accusation.port.endpoint.is_open:
                self._page.pardon(index)
                del self._accused[index]

    def _told_closed(self, port: Port, now: float) -> None:
        handler = self._closed.get(port.name)
        if handler is not None:
            handler(now)

    def _progress(self, port: Port, now: float) -> None:
        try:
            change = port.endpoint.progress()
        except PeerViolation as violation:
            self.accuse(port, violation)
            return
        if change == "opened":
            openings = self._openings[port.index]
            openings.append(now)
            if len(openings) > MOST_OPENINGS and now - openings[0] < OPENINGS_WINDOW:
                openings.clear()
                self.accuse(port, PeerViolation(f"opened and closed {MOST_OPENINGS} times in {OPENINGS_WINDOW:g} s"))
                return
            if isinstance(port, Client):
                port.forgive()
            if port.index in self._accused:
                # What an earlier life did again before it was ended is not for this one to answer
                self._accused[port.index].again = False
            handler = self._opened.get(port.name)
            if handler is not None:
                handler(now)
        elif change == "closed":
            self._told_closed(port, now)

    def _turn(self) -> None:
        now = time.monotonic()
        self._page.beat()
        self._patience.renew()
        if self._accused:
            self._pardon(now)
        busy = False
        for port in self._all:
            self._progress(port, now)
        for source in self._sources:
            if source.turn(now):
                busy = True
        self._deadline = None
        for timer in self._timers:
            when = timer(now)
            if when is not None and (self._deadline is None or when < self._deadline):
                self._deadline = when
        for port in self._all:
            port.endpoint.flush()
        if not busy:
            self._sleep()
        elif self._device_sources:
            self._wait(0.0)  # a busy ring must not hide a device

    def _sleep(self) -> None:
        stalled = False
        safe = True
        armed: list[Endpoint] = []
        for port in self._all:
            space = isinstance(port, DroppingOut) and port.wants_space
            stalled = stalled or space
            armed.append(port.endpoint)
            if not port.endpoint.arm(space, port.listens):
                safe = False
                break
        longest = 0.0
        if safe:
            longest = STALLED_LOOK if stalled else HEARTBEAT
            if self._deadline is not None:
                longest = min(longest, max(0.0, self._deadline - time.monotonic()))
        self._wait(longest)
        for endpoint in armed:
            endpoint.disarm()
        for out in self._outs:
            out.wants_space = False

    def _wait(self, longest: float) -> None:
        for fd, _ in self._epoll.poll(longest):
            device = self._device_sources.get(fd)
            if device is not None:
                device.is_ready = True


__all__ = ["Guest", "Side", "Source"]
