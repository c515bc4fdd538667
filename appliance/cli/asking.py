"""The operator's end of a channel, for one command: borrowed from the monitor, used as any hostile peer's is.

Whoever is at the other end may be dead, stuck or bent: every wait has its end, every reply is checked against the
schema before it is looked at, and what goes wrong is an error that says what to do next.
"""

from __future__ import annotations

import select
import time
from types import TracebackType
from typing import Any, Final, Self

from appliance.cli.guestline import Line, meet
from appliance.guest.outside import OPERATOR
from appliance.monitor import control
from appliance.monitor.control import Away, Busy, ControlError, Loan, Unjoined
from appliance.vchan import memfd
from appliance.vchan.endpoint import Endpoint
from appliance.vchan.ring import PeerViolation, Side
from appliance.vchan.schema import Schema, SchemaError, schema
from appliance.vchan.wire import Wire

BORROW: Final = 5.0  # seconds that another one's turn is waited for
OPEN: Final = 5.0  # ... that a domain may take to be there: a rebuild is over in less than one
REPLY: Final = 10.0  # ... for an answer: the monitor ends a domain that stands still for five
_RETRY: Final = 0.1
_LOOK: Final = 0.25  # the longest sleep: the backstop behind a lost wake


class AskError(Exception):
    """The question was not answered. ``then``: what to do next."""

    def __init__(self, why: str, then: str = "") -> None:
        super().__init__(why)
        self.then = then


class Call:
    """The operator's end ``port`` of the box called ``box``, open for questions: a context manager.

    Errors of everything: AskError.
    """

    def __init__(self, box: str, port: str, waiting: Any = None) -> None:
        self._box = box
        self._port = port
        self._waiting = waiting or (lambda why: None)
        self._loan: Loan | None = None
        self._line: Line | None = None
        self._poll = select.epoll()

    def __enter__(self) -> Self:
        loan = self._loan = self._borrow()
        try:
            until = time.monotonic() + OPEN
            shape = schema(loan.schema)
            wire = self._wire(loan, shape, until)
            self._endpoint = Endpoint(wire, Side.CLIENT, shape)
            self._poll.register(wire.fileno(), select.EPOLLIN | select.EPOLLET)
            self._poll.register(loan.fileno(), select.EPOLLIN)
            self._open(until)
        except (SchemaError, ValueError, OSError) as error:
            self._close()
            raise AskError(f"{self._box} lends what this program cannot use: {error}", _RESTART) from None
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._endpoint.close()
        self._close()

    def _wire(self, loan: Loan, shape: Schema, until: float) -> Wire:
        if loan.place is None:
            memory, wait, notify = loan.descriptors
            return memfd.attach(memory, wait, notify, shape.orders)
        line = self._line = meet(*loan.place, shape.orders)
        while not line.is_met():
            if time.monotonic() >= until or loan.is_over():
                raise self._nobody()
            time.sleep(_RETRY)
        return line.wire

    def _close(self) -> None:
        self._poll.close()
        if self._line is not None:
            self._line.close()
        if self._loan is not None:
            self._loan.close()

    @property
    def domain(self) -> str:
        """The domain at the other end."""
        return self._loan.domain if self._loan is not None else self._port

    def _borrow(self) -> Loan:
        began = time.monotonic()
        until = began + BORROW
        while True:
            try:
                return control.borrow(self._box, self._port)
            except Away as away:
                if time.monotonic() >= began + OPEN:
                    raise self._nobody() from None
                self._waiting(str(away))
                time.sleep(_RETRY)
            except Busy as busy:
                if time.monotonic() >= until:
                    raise AskError(str(busy), "wait for it to end, or end that process") from None
                self._waiting(str(busy))
                time.sleep(_RETRY)
            except Unjoined as error:
                line = f'"{OPERATOR}.{self._port}" = "{self._port}.control"'
                then = f"add {line} to [channels] of the assembly, then septum down and up"
                raise AskError(str(error), then) from None
            except ControlError as error:
                raise AskError(str(error), f"septum ps {self._box}") from None

    def _open(self, until: float) -> None:
        while not self._endpoint.is_open:
            self._progress()
            if not self._endpoint.is_open and not self._sleep(until):
                raise self._nobody()

    def _nobody(self) -> AskError:
        why = f"{self.domain} of {self._box} is not there: it was waited for {OPEN:g} s; nothing passes meanwhile"
        return AskError(why, f"septum ps {self._box}")

    def _progress(self) -> Any:
        try:
            return self._endpoint.progress()
        except PeerViolation as violation:
            raise self._bent(violation) from None

    def _bent(self, violation: PeerViolation) -> AskError:
        why = f"{self.domain} of {self._box} broke the protocol, and nothing it says is believed: {violation}"
        return AskError(why, f"septum ps {self._box}; {_RESTART}")

    def _sleep(self, until: float) -> bool:
        """Until something happens; False once ``until`` has passed."""
        left = until - time.monotonic()
        if left <= 0:
            return False
        if self._endpoint.arm(space=False) and not self._poll.poll(min(left, _LOOK)):
            self._see_alive()
        self._endpoint.disarm()
        if self._loan is None or self._loan.is_over():
            raise AskError(f"{self._box} took the line to {self.domain} back, or went down", f"septum ps {self._box}")
        return True

    def _see_alive(self) -> None:
        """A guest that is gone says so to nobody, and its pages stay as they were for as long as they are mapped."""
        if self._line is not None and not self._line.is_there():
            self._line.detach()
            self._progress()

    def ask(self, request: Any, seconds: float = REPLY) -> Any:
        """The reply to ``request``."""
        until = time.monotonic() + seconds
        endpoint = self._endpoint
        if not endpoint.send(request):
            raise AskError(f"{self.domain} of {self._box} is gone", f"septum ps {self._box}")
        endpoint.flush()
        while True:
            try:
                reply = endpoint.receive()
            except PeerViolation as violation:
                raise self._bent(violation) from None
            if reply is not None:
                endpoint.flush()
                return reply
            if self._progress() == "closed" or not endpoint.is_open:
                why = f"{self.domain} of {self._box} ended while it was asked; it is rebuilt by itself"
                raise AskError(why, "the same again")
            if not self._sleep(until):
                why = f"{self.domain} of {self._box} did not answer within {seconds:g} s"
                raise AskError(why, f"septum ps {self._box}")

    def keep(self, fd: int) -> None:
        """Later lives of the domain get what this sealed memfd holds."""
        assert self._loan is not None
        try:
            self._loan.keep(fd)
        except ControlError as error:
            raise AskError(str(error)) from None


_RESTART: Final = "septum down, then up"

__all__ = ["AskError", "Call"]
