"""The loop of a domain: sources are given turns while they have work, and slept on when they have none.

One idea: a *source* is anything that can be given a turn (a stream's consumer end, a server, a device). A turn does a
bounded amount of work and says how it ended. A source without work is *armed*: its event wakes the loop, and until then
nobody looks at it, so that a wake costs what one source does, however many there are. Whatever a turn wrote is notified
right behind it, to peers that sleep.
"""

from __future__ import annotations

import gc
import select
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from enum import Enum, auto
from typing import Any, Final, Protocol, TypeVar

from appliance.guest import shortly
from appliance.guest.asking import Asker
from appliance.guest.log import Log
from appliance.guest.outside import OPERATOR
from appliance.guest.ports import BlockingOut, Client, DroppingOut, Patience, Port
from appliance.guest.status import Counter, PeerRow, State, StatusPage, clear_row, write_row
from appliance.vchan.endpoint import Endpoint
from appliance.vchan.ring import PeerViolation, Side

BURST: Final = 8  # messages of one source in one turn
HEARTBEAT: Final = 0.5  # seconds: the longest sleep; also the backstop behind a lost wake
LATCH: Final = 1.0  # seconds that an accusation stays up at least: the monitor looks four times a second
MOST_OPENINGS: Final = 20  # of one channel in a minute; a peer that keeps dying has fewer, one that flaps has more
OPENINGS_WINDOW: Final = 60.0  # seconds
LONGEST_SERVER_REST: Final = 2.0  # seconds that a caller with a share waits at most for its next turn
STALLED_LOOK: Final = 0.02  # seconds between two looks at a full ring: is its peer busy, or stuck?
CONTROL_FD: Final = 5
_NEVER: Final = float("inf")

Handler = Callable[..., Any]


class Turn(Enum):
    """How a turn ended."""

    MORE = auto()  # there may be more to do at once
    IDLE = auto()  # nothing is left
    HELD = auto()  # there may be more, but what it leads to is full


class Source(Protocol):
    """What can be given turns."""

    def turn(self, now: float) -> Turn:
        """Does a bounded amount of work."""

    def arm(self) -> bool:
        """True: nothing is left, and whatever comes from now on wakes the loop. False: there is something already."""


class Driven(Source, Protocol):
    """A source that has the end of a port to itself. ``kept`` are the descriptors that it goes on using."""

    @property
    def kept(self) -> tuple[int, ...]: ...

    def closed(self, now: float) -> None:
        """The peer is gone."""


Driver = TypeVar("Driver", bound=Driven)


class _In:
    """Consumer's end of a stream: messages go to the handler while every Out of ``into`` has room."""

    def __init__(self, guest: Guest, port: Port, handler: Handler, into: Sequence[DroppingOut]) -> None:
        self._guest = guest
        self._port = port
        self._handler = handler
        self._into = tuple(into)

    def turn(self, now: float) -> Turn:
        endpoint, handler, into = self._port.endpoint, self._handler, self._into
        for _ in range(BURST):
            for out in into:
                if not out.ready(now):
                    endpoint.flush()
                    return Turn.HELD
            try:
                message = endpoint.receive()
            except PeerViolation as violation:
                self._guest.accuse(self._port, violation)
                return Turn.IDLE
            if message is None:
                return Turn.IDLE
            handler(message, now)
            self._guest.has_worked = True
            if not endpoint.has_more():
                return Turn.IDLE
        endpoint.flush()
        return Turn.MORE

    def arm(self) -> bool:
        return self._guest.arm(self._port)


class _Gathering(_In):
    """The same for a handler that keeps something back to join it with what the next message brings: once there is no
    next message, and room for what was kept, ``done(now)`` lets it go.
    """

    def __init__(
        self, guest: Guest, port: Port, handler: Handler, into: Sequence[DroppingOut], done: Callable[[float], Any]
    ) -> None:
        super().__init__(guest, port, handler, into)
        self._done = done

    def turn(self, now: float) -> Turn:
        outcome = super().turn(now)
        if outcome is Turn.IDLE:
            for out in self._into:
                if not out.ready(now):
                    return Turn.HELD
            self._done(now)
        return outcome


class _Server:
    """Server's end of a call. ``share``: of the domain's time, how much its caller may take. ``when()``: only then."""

    def __init__(
        self, guest: Guest, port: Port, handler: Handler, share: float, when: Callable[[], bool] | None
    ) -> None:
        self._guest = guest
        self._port = port
        self._handler = handler
        self._when = when
        self._rest = 1 / share - 1
        self._not_before = 0.0

    def turn(self, now: float) -> Turn:
        if now < self._not_before:
            self._guest.look_at(self._not_before)
            return Turn.HELD
        if self._when is not None and not self._when():
            return Turn.HELD
        endpoint = self._port.endpoint
        try:
            request = endpoint.receive()
        except PeerViolation as violation:
            self._guest.accuse(self._port, violation)
            return Turn.IDLE
        if request is None:
            return Turn.IDLE
        # A reply always has room: the ring holds the largest one, and a caller has one call outstanding. A caller that
        # does not take its replies finds the next one dropped, which is its own deadline to meet.
        if not self._rest:
            endpoint.send(self._handler(self._port.peer, request))
        else:
            began = time.monotonic()
            endpoint.send(self._handler(self._port.peer, request))
            ended = time.monotonic()
            self._not_before = ended + min((ended - began) * self._rest, LONGEST_SERVER_REST)
        self._guest.has_worked = True
        return Turn.MORE

    def arm(self) -> bool:
        return self._guest.arm(self._port)


class _Device:
    """A readable file descriptor. Edge-triggered, so that a device waiting for room elsewhere does not spin."""

    def __init__(self, guest: Guest, fd: int, handler: Callable[[float], bool], into: Sequence[DroppingOut]) -> None:
        self.fd = fd
        self._guest = guest
        self._handler = handler
        self._into = tuple(into)

    def turn(self, now: float) -> Turn:
        for out in self._into:
            if not out.ready(now):
                return Turn.HELD
        self._guest.has_worked = True
        return Turn.MORE if self._handler(now) else Turn.IDLE

    def arm(self) -> bool:
        return True  # the next edge comes by itself


class _Accusation:
    """That the peer of ``port`` broke the protocol, as the monitor sees it: a bit that is up, or not, until a time.

    ``again`` if it happened once more while the bit was up: the bit must go down, and up again, to say so.
    """

    def __init__(self, port: Port, until: float) -> None:
        self.port = port
        self.until = until
        self.is_up = True
        self.again = False


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
        patience.look_soon = self._look_soon
        self._accused: dict[int, _Accusation] = {}
        self._openings: dict[int, deque[float]] = {port.index: deque(maxlen=MOST_OPENINGS + 1) for port in ports}
        self._ports: dict[str, list[Port]] = {}
        for port in ports:
            self._ports.setdefault(port.name, []).append(port)
        self._all = list(ports)
        self._kept: tuple[int, ...] = ()
        self._outs = [port for port in ports if isinstance(port, DroppingOut)]
        self._sources: dict[int, Source] = {}  # by the descriptor that wakes them
        self._ready: dict[Source, None] = {}  # those to be given a turn: all but the armed ones
        self._unflushed: list[Endpoint] = []
        self._next_look = 0.0
        self._held_until = _NEVER
        self.has_worked = False  # whether anything happened since the timers were last asked
        self._busy = True
        self._opened: dict[int, Handler] = {}  # by the port's index
        self._closed: dict[int, Handler] = {}
        self._totals: list[tuple[Mapping[str, int], dict[str, Counter]]] = []
        self._timers: list[Callable[[float], float | None]] = []
        self._due = 0.0
        self._epoll = select.epoll(len(ports) + 8)
        self._control_fd = control_fd
        self._epoll.register(control_fd, select.EPOLLIN | select.EPOLLET)
        self._shorter = shortly.ways(self._epoll.fileno())
        self._by_fd = {port.endpoint.fileno(): port for port in ports}
        for fd, port in self._by_fd.items():
            self._epoll.register(fd, select.EPOLLIN | select.EPOLLET)
            port.endpoint.unflushed = self._unflushed
        logs = self._ports.get("log", [])
        self.log = Log(logs[0] if logs and isinstance(logs[0], DroppingOut) else None)

    # what a component calls in build() ------------------------------------------------------------------------------

    def _members(self, name: str, kind: type) -> list[Any]:
        found = self._ports.get(name, [])
        if not found or not all(isinstance(port, kind) for port in found):
            raise ValueError(f"{self.name} has no {kind.__name__} port {name!r}; its ports are {sorted(self._ports)}")
        return found

    def _one(self, name: str, kind: type) -> Any:
        found = self._members(name, kind)
        if len(found) != 1:
            raise ValueError(f"{self.name}.{name} is joined to {len(found)} domains, not to one")
        return found[0]

    def is_joined(self, port: str) -> bool:
        """Whether the assembly joins ``port`` to anybody; only an optional one may not be."""
        return port in self._ports

    def out(self, port: str) -> DroppingOut:
        """The producer's end of stream ``port``."""
        out: DroppingOut = self._one(port, DroppingOut)
        return out

    def spread(self, port: str) -> list[DroppingOut]:
        """The producer's ends of a stream that may be spread over several domains, in the assembly's order."""
        return list(self._members(port, DroppingOut))

    def senders(self, port: str) -> list[str]:
        """The domains joined to consumer's end ``port``, in the assembly's order."""
        return [one.peer for one in self._members(port, Port)]

    def client(self, port: str) -> Client:
        """The caller's end of ``port``."""
        client: Client = self._one(port, Client)
        return client

    def asker(self, port: str) -> Asker:
        """The caller's end of ``port``, for who cannot wait: replies come to a handler."""
        client: Client = self._one(port, Client)
        asker = Asker(self, client)
        self._add(asker.fd, asker)
        self._closed[client.index] = asker.closed
        self.timer(asker.timer)
        return asker

    def receive(
        self,
        port: str,
        handler: Callable[[Any, float], Any],
        into: Sequence[DroppingOut] = (),
        done: Callable[[float], Any] | None = None,
    ) -> None:
        """``handler(message, now)`` for each message, whoever of those joined to ``port`` it is from, while every Out
        of ``into`` has room; ``done(now)`` when no further one waits."""
        for one in self._members(port, Port):
            source = _In(self, one, handler, into) if done is None else _Gathering(self, one, handler, into, done)
            self._add(one.endpoint.fileno(), source)

    def _add(self, fd: int, source: Source) -> None:
        self._sources[fd] = source
        self._ready[source] = None

    def receive_many(
        self, port: str, handler: Callable[[str, Any, float], Any], into: Sequence[DroppingOut] = ()
    ) -> None:
        """The same, but ``handler(sender, message, now)``."""
        for one in self._ports.get(port, []):

            def bound(message: Any, now: float, sender: str = one.peer) -> Any:
                return handler(sender, message, now)

            self._add(one.endpoint.fileno(), _In(self, one, bound, into))

    def serve(
        self,
        port: str,
        handler: Callable[[str, Any], Any],
        share: float = 1.0,
        when: Callable[[], bool] | None = None,
    ) -> None:
        """``handler(consumer, request) -> reply`` for each request of each consumer joined to ``port``, which may be
        nobody. Answering one of them takes no more than ``share`` of the domain's time, whatever it asks. While
        ``when()`` is false they wait."""
        for one in self._ports.get(port, []):
            self._add(one.endpoint.fileno(), _Server(self, one, handler, share, when))

    def drive(self, port: str, kind: Callable[[Guest, Port], Driver]) -> Driver:
        """The end of ``port`` in the hands of a source of its own ``kind``."""
        one: Port = self._one(port, Port)
        driver = kind(self, one)
        self._kept += driver.kept
        self._closed[one.index] = driver.closed
        self._add(one.endpoint.fileno(), driver)
        return driver

    def readable(self, device: str, handler: Callable[[float], bool], into: Sequence[DroppingOut] = ()) -> None:
        """``handler(now) -> bool`` when ``device`` can be read; True while there may be more without a new event."""
        source = _Device(self, self.devices[device], handler, into)
        self._epoll.register(source.fd, select.EPOLLIN | select.EPOLLET)
        self._add(source.fd, source)

    def short_end(self, port: str) -> Any:
        """The short way through the end of ``port``, for who makes a way of it (appliance/guest/short.pyx). None where
        there is none: then every message goes the long way.
        """
        members = self._members(port, Port)
        return None if self._shorter is None or len(members) > 1 else shortly.end(members[0].endpoint)

    def shorten(self, way: Any) -> None:
        """``way`` is tried by whatever wakes the domain by its descriptor, before the handler that stands for that."""
        self._shorter.add(way)

    def watch(self, fd: int, source: Source) -> None:
        """Gives ``source`` a turn whenever something can be read from ``fd``, or written to it again. While the domain
        runs: for a role with ``descriptors`` in component.toml, which may accept connections."""
        self._epoll.register(fd, select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET)
        self._add(fd, source)

    def unwatch(self, fd: int) -> None:
        """To be called before ``fd`` is closed: its number comes again."""
        self._epoll.unregister(fd)
        self._ready.pop(self._sources.pop(fd), None)

    def soon(self) -> None:
        """The timers are to be asked again in this turn, or the next."""
        self._due = 0.0

    def on_open(self, port: str, handler: Callable[[float], Any], member: int = 0) -> None:
        """``handler(now)`` whenever the peer of ``port``, or its ``member``-th one, appears: at the start, and whenever
        it was rebuilt."""
        self._opened[self._members(port, Port)[member].index] = handler

    def on_close(self, port: str, handler: Callable[[float], Any], member: int = 0) -> None:
        """``handler(now)`` whenever the peer of ``port``, or its ``member``-th one, is gone."""
        self._closed[self._members(port, Port)[member].index] = handler

    def timer(self, handler: Callable[[float], float | None]) -> None:
        """``handler(now) -> when`` is called after every turn that did something, and at ``when`` at the latest."""
        self._timers.append(handler)

    def counter(self, name: str) -> Counter:
        """The counter declared under that name in component.toml."""
        return self._page.counter(name)

    def show(self, totals: Mapping[str, int]) -> None:
        """Shows what ``totals`` says of the counters it names from here on, twice a second."""
        self._totals.append((totals, {name: self._page.counter(name) for name in totals}))

    def show_peer(self, row: PeerRow) -> None:
        """Puts ``row`` where ``septum status`` reads it. Only for roles with ``board = N`` in component.toml."""
        write_row(self._page.board, row)

    def hide_peer(self, peer: int) -> None:
        """There is no such peer any more."""
        clear_row(self._page.board, peer)

    def beat(self) -> None:
        """Says that this domain is not stuck, in the midst of a piece of work that takes long but has an end."""
        self._page.beat()

    @staticmethod
    def wall() -> float:
        """Seconds since 1970, for TAI64N; everything else uses ``now``."""
        return time.time()

    # what boot.py calls -----------------------------------------------------------------------------------------------

    @property
    def ports(self) -> list[Port]:
        """All of them, in the order of the boot description."""
        return list(self._all)

    def file_descriptors(self) -> list[int]:
        """Those that the loop goes on using, for the seal to keep."""
        waiting = [port.fd for port in self._all if isinstance(port, Client | BlockingOut)]
        return [self._epoll.fileno(), self._control_fd, *waiting, *self._kept, *self.devices.values()]

    def attend(self, source: Source) -> None:
        """Gives ``source`` a turn whenever the monitor says something, and as often as every other source."""
        self._add(self._control_fd, source)

    def wait_for_go(self, is_go: Callable[[], bool] | None = None) -> None:
        """Sleeps until the monitor says that the box is built: by the control descriptor, or as ``is_go`` says."""
        while True:
            is_woken = any(fd == self._control_fd for fd, _ in self._epoll.poll(HEARTBEAT))
            if is_woken if is_go is None else is_go():
                return
            self._page.beat()

    def run(self) -> None:
        """The loop. It returns never: a domain ends when the monitor or the kernel ends it."""
        gc.collect()
        gc.freeze()  # what the imports left behind is never garbage
        self._page.state(State.RUNNING)
        while True:
            self._turn()

    # the loop ---------------------------------------------------------------------------------------------------------

    def arm(self, port: Port) -> bool:
        """Arms the end of ``port`` for data; a session that changed under our hands is looked at in the next turn."""
        if port.endpoint.arm(space=False):
            return True
        if not port.endpoint.is_settled:
            self._next_look = 0.0
        return False

    def look_at(self, when: float) -> None:
        """A source that holds itself back wants to be given a turn then."""
        self._held_until = min(self._held_until, when)

    def accuse(self, port: Port, violation: PeerViolation) -> None:
        """Closes ``port`` for good as far as this peer goes, and says so where the monitor looks."""
        now = time.monotonic()
        self.has_worked = True
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
            elif accusation.port.endpoint.is_open or accusation.port.peer == OPERATOR:
                # An operator need not come back for the bit to be free for the next one's fault
                self._page.pardon(index)
                del self._accused[index]

    def _told_closed(self, port: Port, now: float) -> None:
        handler = self._closed.get(port.index)
        if handler is not None:
            handler(now)

    def progress(self, port: Port) -> None:
        """Follows the opening and closing of ``port``, and tells the component."""
        try:
            change = port.endpoint.progress()
        except PeerViolation as violation:
            self.accuse(port, violation)
            return
        if change is None:
            return
        now = time.monotonic()
        self.has_worked = True
        if change == "opened":
            openings = self._openings[port.index]
            openings.append(now)
            # An operator comes and goes as often as somebody types a command
            if len(openings) > MOST_OPENINGS and now - openings[0] < OPENINGS_WINDOW and port.peer != OPERATOR:
                openings.clear()
                self.accuse(port, PeerViolation(f"opened and closed {MOST_OPENINGS} times in {OPENINGS_WINDOW:g} s"))
                return
            if isinstance(port, Client):
                port.forgive()
            if port.index in self._accused:
                # What an earlier life did again before it was ended is not for this one to answer
                self._accused[port.index].again = False
            handler = self._opened.get(port.index)
            if handler is not None:
                handler(now)
        elif change == "closed":
            self._told_closed(port, now)

    def _turn(self) -> None:
        self._wait()
        now = time.monotonic()
        self._page.beat()
        self._patience.renew()
        if now >= self._next_look:
            self._look_everywhere(now)
        self._busy = False
        for source in tuple(self._ready):
            outcome = source.turn(now)
            if outcome is Turn.MORE:
                self._busy = True
            elif outcome is Turn.IDLE:
                if source.arm():
                    self._ready.pop(source, None)  # one that ended in its own turn is not there any more
                else:
                    self._busy = True
            if self._unflushed:
                self._flush()
        if self.has_worked or now >= self._due:
            self.has_worked = False
            self._keep_time(now)

    def _look_soon(self) -> None:
        self._next_look = 0.0

    def _look_everywhere(self, now: float) -> None:
        """Twice a second: the counters, and, as the backstop behind a lost wake, every channel and every source."""
        self._next_look = now + HEARTBEAT
        if self._accused:
            self._pardon(now)
        for totals, counters in self._totals:
            for name, counter in counters.items():
                counter.set(totals[name])
        for port in self._all:
            self.progress(port)
        self._ready.update(dict.fromkeys(self._sources.values()))

    def _keep_time(self, now: float) -> None:
        self._due = now + HEARTBEAT
        for timer in self._timers:
            when = timer(now)
            if when is not None and when < self._due:
                self._due = when
        if self._unflushed:
            self._flush()

    def _flush(self) -> None:
        for endpoint in self._unflushed:
            endpoint.flush()
            if endpoint.is_wronged:
                self._next_look = 0.0
        self._unflushed.clear()

    def _wait(self) -> None:
        """Sleeps unless there is work, and makes the sources ready that an event is there for."""
        sources, ports = self._sources, self._by_fd
        longest = 0.0 if self._busy else self._longest_sleep()
        # The short way is for who is asleep altogether: it must overtake nothing
        asleep = self._epoll.poll if self._shorter is None or self._ready or self._busy else self._shorter.wait
        for fd, _ in asleep(longest):
            if fd in sources:
                self._ready[sources[fd]] = None
            if fd in ports:
                port = ports[fd]
                if not port.endpoint.disarm():
                    self.progress(port)

    def _longest_sleep(self) -> float:
        """Seconds to sleep at most, now that no source has work it can do; those still ready are held up."""
        longest = (self._due if self._due < self._next_look else self._next_look) - time.monotonic()
        if self._ready:
            longest = min(longest, STALLED_LOOK, self._held_until - time.monotonic())
            self._held_until = _NEVER
            for out in self._outs:
                if out.wants_space:
                    out.wants_space = False
                    if not out.endpoint.arm(space=True, data=False):
                        return 0.0
        return longest if longest > 0.0 else 0.0


__all__ = ["Guest", "Side", "Source", "Turn"]
