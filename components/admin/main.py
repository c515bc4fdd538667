"""The shell: the listening socket and its connections, the other domains, the box's pages. What is said to callers, and
by whom, is the core's to decide.
"""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Coroutine
from typing import Any, Final

from appliance.guest import boxpage
from appliance.guest.loop import Guest, Turn
from appliance.signed.roster import Trust
from components.admin import accepting, tls
from components.admin.asking import Other
from components.admin.certificates import Issuer
from components.admin.client import Client
from components.admin.holding import Holding
from components.admin.people import People
from components.admin.service import AdminService
from components.admin.sources import Offences, Present, Source, has_room, source_of, to_go
from components.admin.status import Code, RpcError
from components.admin.tasks import Clock, Task
from components.admin.trail import Trail
from components.admin.world import Identity, Pages, World

READ: Final = 16 << 10  # bytes in one turn
READ_UNKNOWN: Final = 4 << 10
ROSTER_PERIOD: Final = 2.0  # seconds
LOOK: Final = 0.5  # seconds
LOGGED: Final = 20  # lines a minute of what strangers do wrong
_GONE: Final = frozenset({errno.ECONNRESET, errno.EPIPE, errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH})


class _Connection:
    """One socket, and what is said over it. One of the sources of the loop."""

    def __init__(self, server: Server, fd: int, source: Source, client: Client) -> None:
        self._server = server
        self.fd = fd
        self.source = source
        self.client = client
        self.is_gone = False

    def turn(self, now: float) -> Turn:
        """Writes what is to be said, reads a bounded amount, writes again."""
        if self.is_gone:
            return Turn.IDLE
        self._server.clock.now = now
        self._server.guest.beat()  # there may be hundreds in one turn of the loop
        client = self.client
        size = READ_UNKNOWN if client.is_unknown else READ
        outcome = Turn.IDLE
        try:
            self._write()
            if client.reading:
                try:
                    client.received(data := os.read(self.fd, size))
                    outcome = Turn.MORE if len(data) == size else Turn.IDLE
                except BlockingIOError:
                    pass
                self._write()
        except OSError as error:
            if error.errno not in _GONE:
                raise
            client.close()
        self._server.guest.soon()
        if client.is_over and not client.waiting:
            self._server.drop(self)
        return outcome

    def _write(self) -> None:
        while data := self.client.output():
            try:
                self.client.sent(os.write(self.fd, data))
            except BlockingIOError:
                return

    def arm(self) -> bool:
        return True  # the next edge comes by itself


class Server:
    """All connections of callers."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self.clock = Clock()
        identity = Identity.read(_content(guest.devices["identity"]))
        self._tls = tls.context(identity.chain, identity.key, identity.root + identity.issuing + identity.before)
        holding = Holding(self._other("config"), self.clock)
        self._people = People(Trust(identity.box, identity.console), holding)
        world = World(
            identity=identity,
            issuer=Issuer(identity.issuing, identity.issuing_key, identity.before, identity.before_until),
            clock=self.clock,
            pages=Pages(_mapped(guest.devices["box"], boxpage.BOX_BYTES, mmap.PROT_READ), _mapped_to_write(guest)),
            holding=holding,
            people=self._people,
            keymgr=self._other("keymgr"),
            filter=self._other("filter"),
            trail=Trail(self._other("tail", "log")),
            wall=guest.wall,
            random=os.urandom,
            say=guest.log.info,
        )
        self._service = AdminService(world, self._roster_changed)
        self._listener = guest.devices["management"]
        self._connections: dict[int, _Connection] = {}
        self._offences = Offences()
        self._logged: list[float] = []
        self._counters = {
            name: guest.counter(name) for name in ("connections", "failed_handshakes", "locked_out", "ended")
        }
        self._calls, self._refused = guest.counter("calls"), guest.counter("refused")
        self._next_look = 0.0
        self._tasks: list[Task] = []

    def _other(self, port: str, name: str = "") -> Other:
        return Other(name or port, self.guest.asker(port) if self.guest.is_joined(port) else None)

    # connections ------------------------------------------------------------------------------------------------------

    def accept(self, now: float) -> bool:
        """Takes the next connection, if there is one; whether there may be more."""
        self.clock.now = now
        try:
            found = accepting.accept(self._listener)
        except OSError as error:
            # What else there is: one ended before we came to it. accept(2) says so of network errors as well
            return error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)
        if found is None:
            return False
        source = source_of(found.address)
        present = [Present(one.source, one.client.is_unknown) for one in self._connections.values()]
        if self._offences.is_locked(source, now) or not has_room(present, source):
            os.close(found.fd)
            self._counters["locked_out"].add(1)
            return True
        if (index := to_go(present, source)) is not None:
            self.drop(list(self._connections.values())[index])
        is_suspect = self._offences.is_suspect(source, now)
        client = Client(self._tls, source.network, self._service, self.clock, must_be_known=is_suspect)
        connection = _Connection(self, found.fd, source, client)
        self._connections[found.fd] = connection
        self._counters["connections"].set(len(self._connections))
        self.guest.watch(found.fd, connection)
        return True

    def drop(self, connection: _Connection) -> None:
        """The end of a connection: everything that is its."""
        if connection.is_gone:
            return
        connection.is_gone = True
        client = connection.client
        client.close()
        self.guest.unwatch(connection.fd)
        os.close(connection.fd)
        del self._connections[connection.fd]
        self._counters["connections"].set(len(self._connections))
        self._counters["ended"].add(1)
        if client.offence:
            self._offence(connection.source, client)

    def _offence(self, source: Source, client: Client) -> None:
        now = self.clock.now
        if not client.is_established:
            self._counters["failed_handshakes"].add(1)
        locked = self._offences.offend(source, now)
        self._logged = [when for when in self._logged if now - when < 60.0]
        if len(self._logged) < LOGGED:
            self._logged.append(now)
            self.guest.log.warning("caller", f"{source.address}: {client.offence}")
            for name in locked:
                self.guest.log.warning("lock-out", f"{name} is not heard for a minute")

    # time -------------------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> float | None:
        """What is due; connections that something is to be said to; those that let us wait."""
        due = self.clock.turn(now)
        if not self._tasks and self._people.is_known is False:
            self._begin(self._follow_roster())
        for connection in list(self._connections.values()):
            client = connection.client
            if now >= self._next_look:
                client.look(now)
            if client.waiting or client.is_over:
                connection.turn(now)
        if now >= self._next_look:
            self._next_look = now + LOOK
            self._calls.set(self._service.calls)
            self._refused.set(self._service.refused)
        return min(self._next_look, due) if due is not None else self._next_look

    def _begin(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = Task(coroutine, self._ended)
        self._tasks.append(task)
        task.step()

    def _ended(self, error: Exception | None) -> None:
        raise RuntimeError(f"what should go on for good has ended: {error!r}")

    async def _follow_roster(self) -> None:
        """Reads the roster again and again: a statement may be taken when nobody waits for it any more."""
        while True:
            serial = self._people.roster.serial
            try:
                await self._people.refresh()
                if self._people.roster.serial != serial:
                    self._roster_changed()
            except RpcError as error:
                if error.code is Code.DATA_LOSS:
                    self.guest.log.error("roster", str(error))
            await self.clock.sleep(ROSTER_PERIOD)

    def _roster_changed(self) -> None:
        """Who was revoked is not heard any more, from this moment on."""
        for connection in list(self._connections.values()):
            caller = connection.client.caller
            if caller is not None and caller.is_known and self._people.find(caller.key) is None:
                revoked = RpcError(Code.UNAUTHENTICATED, "your certificate was revoked", reason="REVOKED")
                connection.client.dismiss(revoked)


def _content(fd: int) -> bytes:
    with mmap.mmap(fd, 0, prot=mmap.PROT_READ) as whole:
        return bytes(whole)


def _mapped(fd: int, size: int, protection: int) -> memoryview:
    return memoryview(mmap.mmap(fd, size, prot=protection))


def _mapped_to_write(guest: Guest) -> memoryview:
    return _mapped(guest.devices["orders"], boxpage.ORDERS_BYTES, mmap.PROT_READ | mmap.PROT_WRITE)


def build(guest: Guest) -> None:
    """Everything is made here; the first caller is heard after the seal."""
    server = Server(guest)
    guest.readable("management", server.accept)
    guest.timer(server.tick)
