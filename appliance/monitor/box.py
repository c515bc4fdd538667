"""The shell around the supervisor: one thread, one epoll over the domains' ends, the control socket and signals.

It builds the box all or nothing, then does what the supervisor decides until it is told to stop.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final

from appliance.assembly.model import ValidatedAssembly
from appliance.monitor import control, notify, peers, privileges, telling
from appliance.monitor.backend import Backend, Maker, Place
from appliance.monitor.lending import Lending
from appliance.monitor.network import NetworkError
from appliance.monitor.notify import CRITICAL, INFO, NOTICE, WARNING
from appliance.monitor.supervisor import Action, Alarm, Go, HangUp, Kill, Phase, Reset, Start, Supervisor

_TOLD: Final = frozenset(
    "name component role state restarts pss_kib cpu_seconds heartbeat_age counters last_death rebuild_ms".split()
)
_STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class BuildError(Exception):
    """The box cannot be built; everything has been taken down again. The text says why."""


class Box:
    """One box, from ``build()`` to ``close()``. ``directory`` is its run directory, whose lock the caller holds.

    ``place`` and ``make`` are what the network and the domains are built of, both the box's own from here on.
    ``devices`` are further descriptors by name (store, journal), the caller's. ``log(priority, text)`` gets lines.
    """

    def __init__(
        self,
        assembly: ValidatedAssembly,
        name: str,
        directory: Path,
        place: Place,
        make: Maker,
        *,
        devices: dict[str, int],
        log: Callable[[int, str], None],
    ) -> None:
        if assembly.network is None:
            raise BuildError(f"{assembly.name} has no [network]: it can be checked and drawn, not run")
        self._assembly = assembly
        self._name = name
        self._directory = directory
        self._devices = devices
        self._make = make
        self._log = log
        self._born = time.monotonic()
        self._marks: dict[str, float] = {}
        self._network = place
        self._backend: Backend | None = None
        self._poll = select.epoll()
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._supervisor = Supervisor({domain.name: () for domain in assembly.domains}, self._born)
        self._control: control.ControlServer | None = None
        self._lending: Lending | None = None
        self._telling: telling.Telling | None = None
        self._exits = ExitStack()
        self._stopping = False
        self._held: list[str] | None = []  # those sealed before all are; None once the box runs
        self._events: list[Action] = []
        self._gone: dict[str, int] = {}
        self._death: dict[str, str] = {}
        self._died_at: dict[str, float] = {}
        self._started_at: dict[str, float] = {}
        self._start_ms: dict[str, float] = {}
        self._rebuild_ms: dict[str, float] = {}
        self._fed = 0.0

    # building -------------------------------------------------------------------------------------------------------

    def build(self) -> None:
        """Everything, or nothing and BuildError."""
        try:
            self._catch_signals()
            self._build()
        except BaseException as error:
            try:
                self.close()
            except NetworkError as worse:
                raise BuildError(f"{error}; and then: {worse}") from error
            if isinstance(error, BuildError):
                raise
            if isinstance(error, NetworkError | OSError | ValueError):
                raise BuildError(str(error)) from error
            raise

    def _build(self) -> None:
        self._network.open()
        self._mark("devices")
        if telling.DEVICES & self._assembly.devices:
            self._telling = telling.Telling([domain.name for domain in self._assembly.domains], self._told)
            self._exits.callback(self._telling.close)
            self._devices = {**self._devices, **self._telling.devices}
        self._backend = self._make({**self._devices, **self._network.devices})
        if self._backend.news is not None:
            self._watch(self._backend.news, lambda: None)
        self._mark("rings")
        # The helper imports pyroute2 while the domains import theirs
        self._network.begin()
        self._supervisor = Supervisor(self._backend.neighbours, time.monotonic(), self._backend.pace.limits)
        for domain in self._assembly.domains:
            self._start(domain.name)
        self._mark("spawned")
        while self._held is not None:
            self.turn()
            if self._stopping:
                raise BuildError("it was told to stop while it was being built")
        while not self._supervisor.is_settled:
            self.turn()
        self._mark("running")
        self._lending = Lending(self._backend, self._log)
        self._control = control.ControlServer(
            self._directory / control.SOCKET,
            {"status": self.status, "down": self._down},
            self._watch,
            self._forget,
            self._lending,
        )
        for note in self._network.notes:
            self._log(WARNING, note)

    def _mark(self, step: str) -> None:
        self._marks[step] = (time.monotonic() - self._born) * 1e3

    def _all_sealed(self) -> None:
        """The last domain is sealed: nothing can fail any more but the network."""
        assert self._backend is not None and self._held is not None
        self._mark("sealed")
        self._network.finish()
        self._mark("network")
        held, self._held = self._held, None
        for name in held:
            self._backend.release(name)

    # the loop -------------------------------------------------------------------------------------------------------

    def run(self, chore: Callable[[], None] | None = None) -> None:
        """Until a signal or the control socket says stop. ``chore`` is called once a turn."""
        while not self._stopping:
            self.turn()
            if chore is not None:
                chore()

    def turn(self) -> None:
        """Waits for the next event or the next look, and does what is due."""
        assert self._backend is not None
        pace = self._backend.pace
        self._backend.turn()
        for fd, _ in self._poll.poll(pace.slow if self._supervisor.is_settled else pace.quick):
            callback = self._callbacks.get(fd)
            if callback is not None:  # an earlier event of this turn may have closed it
                callback()
        now = time.monotonic()
        backend, supervisor = self._backend, self._supervisor
        starting = [name for name in backend.living if supervisor.phase(name) is not Phase.RUNNING]
        reports = {name: backend.report(name) for name in backend.living}
        dead = (name for name in backend.neighbours if supervisor.phase(name) is Phase.RESETTING)
        waiting = [name for name in dead if backend.all_wait(name, supervisor.survivors(name))]
        self._do(supervisor.look(reports, waiting, now))
        for name in starting:
            if supervisor.phase(name) is Phase.RUNNING:
                self._is_running(name, now)
        if self._telling is not None and self._held is None:
            ordered = self._telling.turn(now)
            if ordered is not None:
                self._do(supervisor.ordered(ordered, now))
        if self._control is not None:
            self._control.tick(now)
            self._feed_watchdog(now)

    def _feed_watchdog(self, now: float) -> None:
        interval = notify.watchdog_interval()
        if interval is not None and now - self._fed >= interval:
            self._fed = now
            notify.notify("WATCHDOG=1")

    def _do(self, actions: Sequence[Action]) -> None:
        assert self._backend is not None
        for action in actions:
            match action:
                case Kill(name, why):
                    if self._held is not None:
                        raise BuildError(f"{name}: {why}")
                    self._log(WARNING, f"{name} is ended: {why}")
                    self._backend.kill(name)
                case Reset(name):
                    self._backend.reset(name)
                case Start(name):
                    self._start(name)
                case Go(name):
                    self._go(name)
                case HangUp(name):
                    self._hang_up(name)
                case Alarm(name, deaths, delay):
                    self._log(CRITICAL, f"{name} has died {deaths} times in a row: the next attempt is in {delay:g} s")
                    notify.notify(f"STATUS={name} keeps dying ({deaths} times in a row)")

    def _start(self, name: str) -> None:
        assert self._backend is not None
        now = self._started_at[name] = time.monotonic()
        try:
            gone = self._backend.start(name)
        except OSError as error:
            if self._held is not None:
                raise
            # No memory, no process: that passes. Until then what this domain guards stays shut
            self._log(CRITICAL, f"{name} cannot be started: {error}")
            self._do(self._supervisor.died(name, now))
            return
        self._gone[name] = gone
        self._watch(gone, lambda: self._died(name))

    def _hang_up(self, name: str) -> None:
        if self._control is None or self._lending is None:
            return  # nothing is lent before the box runs
        for port in self._lending.ports_to(name):
            self._log(WARNING, f"operator.{port} is taken back: {name} says that who holds it broke the protocol")
            self._control.hang_up(port)

    def _go(self, name: str) -> None:
        assert self._backend is not None
        amiss = self._backend.check(name)
        if amiss:
            self._log(CRITICAL, f"{name} is not sealed as planned: {'; '.join(amiss)}")
            if self._held is not None:
                raise BuildError(f"{name} is not sealed as planned: {'; '.join(amiss)}")
            self._backend.kill(name)
        elif self._held is None:
            self._backend.release(name)
        else:
            self._held.append(name)
            if len(self._held) == len(self._assembly.domains):
                self._all_sealed()

    def _died(self, name: str) -> None:
        assert self._backend is not None
        now = time.monotonic()
        self._forget(self._gone.pop(name))
        self._death[name] = self._backend.bury(name)
        if self._held is not None:
            raise BuildError(f"{name} {self._death[name]}")
        self._log(WARNING, f"{name} {self._death[name]}")
        self._died_at[name] = now
        self._do(self._supervisor.died(name, now))

    def _is_running(self, name: str, now: float) -> None:
        self._start_ms[name] = (now - self._started_at[name]) * 1e3
        if name in self._died_at:
            self._rebuild_ms[name] = (now - self._died_at.pop(name)) * 1e3
            self._log(NOTICE, f"{name} is back after {self._rebuild_ms[name]:.0f} ms")

    # what is watched ------------------------------------------------------------------------------------------------

    def _watch(self, fd: int, callback: Callable[[], None], events: int = select.EPOLLIN) -> None:
        self._callbacks[fd] = callback
        self._poll.register(fd, events)

    def _forget(self, fd: int) -> None:
        del self._callbacks[fd]
        with suppress(OSError):  # closed already, and so gone from the epoll
            self._poll.unregister(fd)

    def _catch_signals(self) -> None:
        reader, writer = socket.socketpair()
        for end in (reader, writer):
            self._exits.callback(end.close)
            end.setblocking(False)
        self._exits.callback(signal.set_wakeup_fd, signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False))
        for number in _STOP_SIGNALS:
            self._exits.callback(signal.signal, number, signal.signal(number, self._on_signal))
        self._watch(reader.fileno(), lambda: None)

    def _on_signal(self, *_: Any) -> None:
        self._stopping = True

    # what can be asked ----------------------------------------------------------------------------------------------

    def _down(self) -> dict[str, Any]:
        self._stopping = True
        return {"ok": True}

    def status(self) -> dict[str, Any]:
        """Everything that `septum ps` and `septum status` show."""
        assert self._backend is not None and self._assembly.network is not None
        net = self._assembly.network
        return {
            "name": self._name,
            "assembly": self._assembly.name,
            "source": str(self._assembly.source),
            "backend": self._backend.name,
            "pid": os.getpid(),
            "uptime": time.monotonic() - self._born,
            "start_ms": {step: round(at, 1) for step, at in self._marks.items()},
            "network": {
                "inline": net.lan is not None or net.wan is not None,
                "tunnel": net.tunnel if "tun" in self._assembly.devices else None,
                "lan": net.lan,
                "wan": net.wan,
                "addresses": [str(address) for address in net.addresses],
                "mtu": net.mtu,
                "listen_port": self._network.port,
                "notes": self._network.notes,
            },
            "bypasses": [{"port": str(bypass.port), "reason": bypass.reason} for bypass in self._assembly.bypasses],
            "replaced": {
                name: time.monotonic() - since
                for name, since in (self._lending.replaced if self._lending is not None else {}).items()
            },
            "peers": peers.of(self._assembly, self._backend),
            "domains": [self._describe(domain.name) for domain in self._assembly.domains],
            "channels": [
                {"client": str(channel.client), "server": str(channel.server), "schema": channel.schema}
                for channel in self._assembly.channels
            ],
        }

    def _describe(self, name: str) -> dict[str, Any]:
        assert self._backend is not None
        return {
            **self._backend.describe(name),
            "state": self._supervisor.phase(name).value,
            "restarts": self._supervisor.rebuilt(name),
            "heartbeat_age": round(self._supervisor.heartbeat_age(name), 3),
            "start_ms": round(self._start_ms.get(name, 0.0), 1),
            "rebuild_ms": round(self._rebuild_ms[name], 1) if name in self._rebuild_ms else None,
            "last_death": self._death.get(name),
        }

    def _told(self) -> dict[str, Any]:
        """What an administrator may see of it from elsewhere: no more than `septum ps` shows."""
        assert self._assembly.network is not None
        net = self._assembly.network
        return {
            "name": self._name,
            "assembly": self._assembly.name,
            "backend": self._backend.name if self._backend is not None else "",
            "uptime": round(time.monotonic() - self._born, 3),
            "tunnel": net.tunnel if "tun" in self._assembly.devices else "",
            "listen_port": self._network.port,
            "addresses": [str(address) for address in net.addresses],
            "domains": [
                {key: value for key, value in self._describe(domain.name).items() if key in _TOLD}
                for domain in self._assembly.domains
            ],
            "channels": [[str(one.client), str(one.server), one.schema] for one in self._assembly.channels],
        }

    # the end --------------------------------------------------------------------------------------------------------

    def drop_privileges(self) -> None:
        """Errors: BuildError; then ``close()`` is due."""
        try:
            privileges.drop()
        except OSError as error:
            raise BuildError(f"the monitor's privileges cannot be given up: {error}") from None
        self._log(INFO, f"up after {self._marks['running']:.0f} ms: {len(self._assembly.domains)} sealed domains")

    def close(self) -> None:
        """Ends every domain, then gives the host its network back. Errors: NetworkError if that fails in part."""
        if self._control is not None:
            self._control.close()
            self._control = None
        backend, self._backend = self._backend, None
        with ExitStack() as stack:  # each step, whatever becomes of those before it
            stack.callback(self._poll.close)
            stack.callback(self._exits.close)
            stack.callback(self._network.close)
            if backend is not None:
                backend.close()
