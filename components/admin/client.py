"""One connection of a caller: TLS, HTTP/2 and the calls in it. Bytes and the time in, bytes out; no I/O, no clock.

Who calls is settled by the connection (its certificate) and looked up anew at each call. Whoever lets the box wait is
not waited for: the handshake, the first byte of HTTP/2, a call, a reply that is not read, a
silence each have their time.
"""

from __future__ import annotations

import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, Final, NamedTuple, Protocol

from components.admin import grpcwire
from components.admin.ratelimit import Bucket
from components.admin.status import Code, RpcError
from components.admin.tasks import Clock, Due, Promise, Task
from components.admin.tls import Tls, TlsError


class Times(NamedTuple):
    """Seconds."""

    greeting: float = 10.0  # from the first byte to the first call
    call: float = 60.0  # a call whose caller does not say
    longest_call: float = 300.0  # unless it is one that goes on
    longest_deadline: float = 3600.0  # of one that goes on: what is later than that is as good as never
    idle: float = 600.0  # without a call
    unknown_idle: float = 20.0  # the same for who shows no certificate,
    unknown_life: float = 120.0  # ... and his connection as a whole
    unread: float = 30.0  # a reply that does not move
    ping: float = 45.0  # of silence in a call that goes on, after which the caller is asked
    answer: float = 20.0  # and has so long


TIMES: Final = Times()
MOST_OUTPUT: Final = 256 << 10  # bytes on their way; until they are, nothing more is read or made
_AT_ONCE: Final = 64 << 10  # bytes for one system call
MOST_PENDING: Final = 6 << 20  # bytes of replies that wait for the caller's windows
ENOUGH: Final = 64 << 10  # bytes of a stream's reply that wait, with which it is not given more
FRAMES: Final = (500.0, 2000.0)  # a second and at once, that carry no data
UNKNOWN_FRAMES: Final = (50.0, 300.0)  # the same of who shows no certificate
OPENINGS: Final = (200.0, 400.0)  # calls a second and at once, of one connection, before it is a flood


class Caller(NamedTuple):
    """Who calls: an administrator, or nobody (``name`` and ``key`` empty) from ``source``."""

    name: str
    role: int
    key: bytes
    source: str
    until: float  # seconds since 1970: the end of the certificate

    @property
    def is_known(self) -> bool:
        return bool(self.name)


Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]


class Method(NamedTuple):
    """One call of a service. ``run(caller, receive, send)``: a unary call is a stream of one message each way."""

    path: str
    run: Callable[[Caller, Receive, Send], Coroutine[Any, Any, None]]
    read: Callable[[bytes], Any]  # raises RpcError
    write: Callable[[Any], bytes]
    goes_on: bool  # until the caller ends it: the reply is a stream


class Service(Protocol):
    """What the connections stand before."""

    def identify(self, certificate: bytes | None, source: str) -> Caller:
        """Who shows this certificate. Errors: RpcError (UNAUTHENTICATED); the connection then ends."""

    def lapsed(self, caller: Caller) -> RpcError | None:
        """Why who was identified once is nobody any more; None if he still is who he was."""

    def admit(self, caller: Caller, path: str, now: float) -> Method:
        """The method of that path, if the caller may call it now. Errors: RpcError."""

    def failed(self, error: Exception) -> RpcError:
        """What a caller is told of an error that should not be."""


class _Call:
    """One call: what it was sent and has not taken, and what it waits for."""

    def __init__(self, method: Method) -> None:
        self.method = method
        self.waiting: deque[bytes] = deque()
        self.is_heard = True
        self.more: Promise[None] | None = None
        self.room: Promise[None] | None = None
        self.task: Task | None = None
        self.deadline: Due | None = None


class Client:
    """A connection from ``source``. ``reading`` says whether more of what it sends is wanted; once ``is_over`` and
    ``output`` is empty it is to be closed, and ``close()`` is due however it ended. ``offence`` says why it ended, if
    that was the peer's fault. ``must_be_known``: without a certificate it ends with the handshake.
    """

    def __init__(
        self,
        shared: ssl.SSLContext,
        source: str,
        service: Service,
        clock: Clock,
        times: Times = TIMES,
        *,
        must_be_known: bool = False,
    ) -> None:
        self._tls = Tls(shared)
        self._wire = grpcwire.Connection()
        self._service = service
        self._clock = clock
        self._times = times
        self._must_be_known = must_be_known
        self._calls: dict[int, _Call] = {}
        self._openings = Bucket(*OPENINGS, clock.now)
        self._frames = Bucket(*UNKNOWN_FRAMES, clock.now)
        self._output = bytearray()
        self._born = clock.now
        self._heard = clock.now  # anything
        self._moved = clock.now  # something of ours was taken
        self._idle_since = clock.now
        self._asked: float | None = None  # when it was pinged, and has not spoken since
        self._has_called = False
        self.source = source
        self.is_over = False
        self.offence = ""
        self.caller: Caller | None = None

    # bytes --------------------------------------------------------------------------------------------------------

    @property
    def reading(self) -> bool:
        return not self.is_over and len(self._output) < MOST_OUTPUT and self._wire.pending < MOST_PENDING

    @property
    def is_established(self) -> bool:
        return self._tls.is_established

    @property
    def is_unknown(self) -> bool:
        """Whether it shows no certificate, or none yet."""
        return self._tls.certificate is None

    @property
    def waiting(self) -> int:
        """Bytes that wait to be taken by the peer."""
        return len(self._output) + self._wire.pending

    @property
    def calls(self) -> int:
        return len(self._calls)

    def received(self, untrusted: bytes) -> None:
        """What the peer sent; empty: it sends no more."""
        if self.is_over:
            return
        self._heard, self._asked = self._clock.now, None
        if not untrusted:
            self._end("" if self.is_established else "it went away in the handshake")
            return
        was_unknown = self.is_unknown
        try:
            plain = self._tls.received(untrusted)
            if was_unknown and not self.is_unknown:
                self._wire.widen()
                self._frames = Bucket(*FRAMES, self._clock.now)
            if self._must_be_known and self.is_established and self.is_unknown:
                self._end("")
            elif plain:
                events = self._wire.received(plain, self._frames.tokens(self._clock.now))
                self._frames.spend(self._wire.frames)
                for event in events:
                    self._happened(event)
        except TlsError as error:
            self._end(f"TLS: {error}")
        except grpcwire.Broken as error:
            self._pump()
            self._end(f"HTTP/2: {error}")
        if self._tls.is_closed or self._wire.is_ending:
            self._end("")
        self._pump()

    def output(self) -> memoryview:
        """What is to be sent now; ``sent`` says how much was."""
        return memoryview(bytes(self._output[:_AT_ONCE]))

    def sent(self, count: int) -> None:
        if count:
            del self._output[:count]
            self._moved = self._clock.now
            self._pump()

    def _pump(self) -> None:
        """Moves what there is towards the socket, as far as there is room, and resumes who waited for that."""
        try:
            if self._tls.is_established and len(self._output) < MOST_OUTPUT:
                self._tls.send(self._wire.output())
            self._output += self._tls.output()
        except TlsError as error:
            self._end(f"TLS: {error}")
        for number, call in list(self._calls.items()):
            if call.room is not None and self._has_room(number):
                call.room.keep(None)

    def _has_room(self, number: int) -> bool:
        return self._wire.waits(number) < ENOUGH and len(self._output) < MOST_OUTPUT

    # calls --------------------------------------------------------------------------------------------------------

    def _happened(self, event: grpcwire.Event) -> None:
        match event:
            case grpcwire.Opened():
                self._opened(event)
            case grpcwire.Message(number, data):
                if (call := self._calls.get(number)) is not None:
                    call.waiting.append(data)
                    self._resume(call)
            case grpcwire.HalfClosed(number):
                if (call := self._calls.get(number)) is not None:
                    call.is_heard = False
                    self._resume(call)
            case grpcwire.Ended(number):
                self._forget(number, cancel=True)

    @staticmethod
    def _resume(call: _Call) -> None:
        if call.more is not None:
            more, call.more = call.more, None
            more.keep(None)

    def _opened(self, event: grpcwire.Opened) -> None:
        self._has_called = True
        if not self._openings.take(self._clock.now):
            self._wire.go_away(is_flood=True)
            self._end("a flood of calls")
            return
        number = event.stream
        try:
            self.caller = caller = self._service.identify(self._tls.certificate, self.source)
        except RpcError as error:
            self._wire.finish(number, error)
            if error.code is Code.UNAUTHENTICATED:
                self._wire.go_away()
                self._end(f"it is nobody: {error}")
            return
        try:
            if self._wire.pending >= MOST_PENDING:
                raise RpcError(Code.RESOURCE_EXHAUSTED, "read the replies that wait first")
            method = self._service.admit(caller, event.path, self._clock.now)
        except RpcError as error:
            self._wire.finish(number, error)
            return
        call = self._calls[number] = _Call(method)
        seconds = event.timeout
        if not method.goes_on:
            seconds = min(self._times.call if seconds is None else seconds, self._times.longest_call)
        elif seconds is not None and seconds > self._times.longest_deadline:
            seconds = None  # the clock keeps what is due until its time, cancelled or not
        if seconds is not None:
            call.deadline = self._clock.at(self._clock.now + seconds, lambda: self._late(number))

        async def receive() -> Any:
            while not call.waiting:
                if not call.is_heard:
                    return None
                call.more = Promise()
                await call.more
            message = method.read(call.waiting.popleft())
            self._wire.taken(number)
            return message

        async def send(message: Any) -> None:
            self._wire.reply(number, method.write(message))
            if not method.goes_on:
                return
            self._pump_later()
            while not self._has_room(number):
                call.room = Promise()
                await call.room

        if method.goes_on:
            self._wire.begin(number)
        call.task = Task(method.run(caller, receive, send), lambda error: self._done(number, error))
        call.task.step()

    def _pump_later(self) -> None:
        """A reply made outside of a turn of this connection goes out in the next."""
        self._clock.at(self._clock.now, self._pump)

    def _done(self, number: int, error: Exception | None) -> None:
        self._forget(number, cancel=False)
        if error is not None and not isinstance(error, RpcError):
            error = self._service.failed(error)
        self._wire.finish(number, error)
        self._pump_later()

    def _late(self, number: int) -> None:
        self._forget(number, cancel=True)
        self._wire.finish(number, RpcError(Code.DEADLINE_EXCEEDED, "not done in the time given"))
        self._pump()

    def _forget(self, number: int, *, cancel: bool) -> None:
        call = self._calls.pop(number, None)
        if call is None:
            return
        if call.deadline is not None:
            call.deadline.cancel()
        if cancel and call.task is not None:
            call.task.cancel()
        self._idle_since = self._clock.now

    # the end ------------------------------------------------------------------------------------------------------

    def look(self, now: float) -> None:
        """A few times a second: has it let us wait too long?"""
        times = self._times
        if self.is_over:
            if self.waiting and now - self._moved > times.unread:
                self._output.clear()
            return
        if not self._has_called and now - self._born > times.greeting:
            # Who looks at the box's certificate and goes, as tools do that find out what is wrong, does no wrong
            self._end("" if self.is_established else "it says nothing")
        elif self.waiting and now - self._moved > times.unread and now - self._heard > times.unread:
            self._output.clear()
            self._end("it reads nothing")
        elif self._has_stayed(now):
            self.dismiss()
        elif self.caller is not None and (lapsed := self._service.lapsed(self.caller)) is not None:
            self.dismiss(lapsed)
        elif self._asked is not None and now - self._asked > times.answer:
            self._output.clear()
            self._end("it does not answer")
        elif self._calls and self._asked is None and now - self._heard > times.ping:
            self._asked = now
            self._wire.ping()
            self._pump()
        if not self.waiting:
            self._moved = now

    def _has_stayed(self, now: float) -> bool:
        """Whether it is here for no reason any more."""
        idle = self._times.unknown_idle if self.is_unknown else self._times.idle
        is_old = self.is_unknown and now - self._born > self._times.unknown_life
        return is_old or (not self._calls and now - self._idle_since > idle)

    def dismiss(self, error: RpcError | None = None) -> None:
        """Ends it in order; its calls with ``error``."""
        for number in list(self._calls):
            self._forget(number, cancel=True)
            self._wire.finish(number, error or RpcError(Code.UNAVAILABLE, "the connection is ended: call again"))
        self._wire.go_away()
        self._end("")
        self._pump()

    def _end(self, offence: str) -> None:
        if self.is_over:
            return
        self.is_over = True
        self.offence = offence
        for number in list(self._calls):
            self._forget(number, cancel=True)
        if self._tls.is_established:
            with suppress(TlsError):
                self._tls.send(self._wire.output())
            self._tls.close()
        self._output += self._tls.output()

    def close(self) -> None:
        """The socket is gone."""
        self._output.clear()
        self._end("")
        self._output.clear()
