"""What the channel's tests share: a wire within one process, peers that are processes, records of a wanted size."""

from __future__ import annotations

import os
import pickle
import select
import signal
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from septum.v1.records import Record

from appliance.vchan import layout
from appliance.vchan.codec import Codec
from appliance.vchan.endpoint import Endpoint
from appliance.vchan.frame import HEADER_BYTES
from appliance.vchan.layout import Orders
from appliance.vchan.ring import Side
from appliance.vchan.schema import Schema, schema
from appliance.vchan.wire import Wire
from tests.channel import transports

BACKSTOP_MS = 10_000  # far above any scheduling delay: whoever sleeps that long has missed a wake


class MemoryWire:
    """A Wire between two ends in one process, who take turns: notifications are only counted."""

    def __init__(self, memory: memoryview) -> None:
        self.memory = memory
        self.notified = 0

    @staticmethod
    def pair(orders: Orders) -> tuple[MemoryWire, MemoryWire]:
        memory = memoryview(bytearray(layout.size(orders)))
        return MemoryWire(memory), MemoryWire(memory)

    def fileno(self) -> int:
        raise AssertionError("nobody sleeps here")

    def notify(self) -> None:
        self.notified += 1

    def hear(self) -> None:
        pass


def small(name: str = "records", order: int = 10) -> Schema:
    """A schema with a ring that is soon full: of order 10, both rings lie within the one shared page."""
    shape = schema(name)
    return Schema(name, shape.kind, shape.when_full, order, shape.forward, shape.backward)


_pairs: dict[Orders, tuple[Wire, Wire]] = {}


def one_process_pair(orders: Orders) -> tuple[Wire, Wire]:
    """Two ends for one process: of the transport under test where that is Xen's, the same again for each who asks."""
    if transports.NAME == "memfd":
        return MemoryWire.pair(orders)
    if orders not in _pairs:
        _pairs[orders] = transports.transport().make_pair(orders)
    for wire in _pairs[orders]:
        wire.memory[:] = bytes(wire.memory.nbytes)
        wire.hear()
    return _pairs[orders]


def ends(shape: Schema, first: int = 0) -> tuple[Endpoint, Endpoint]:
    """Server and client in one process, open."""
    server_wire, client_wire = one_process_pair(shape.orders)
    server, client = Endpoint(server_wire, Side.SERVER, shape, first), Endpoint(client_wire, Side.CLIENT, shape, first)
    open_both(server, client)
    return server, client


def open_both(one: Endpoint, other: Endpoint) -> None:
    for _ in range(6):
        one.progress()
        other.progress()
    assert one.is_open
    assert other.is_open


def encoded_bytes(message: Record) -> int:
    return sum(map(len, Codec(schema("records").forward).encode(message)))


def record(frame_bytes: int) -> Record:
    """A record that takes exactly ``frame_bytes`` (11 to 589) in a ring."""
    left = frame_bytes - HEADER_BYTES
    event = min(left - 2, 64)
    if 0 < left - 2 - event < 3:  # the least that a text takes
        event -= 3
    text = left - 2 - event
    text -= 0 if not text else 2 if text < 130 else 3
    made = Record(event="e" * event, text="t" * text)
    if encoded_bytes(made) != left:  # a text of 128 bytes has a longer length than one of 127
        made = Record(event="e" * (event - 1), text="t" * (text + 1))
    assert encoded_bytes(made) == left
    return made


def drain(end: Endpoint | Wire) -> None:
    """Forgets the notifications so far: what an edge-triggered poll, or ``hear``, does by itself."""
    if transports.NAME != "memfd":
        for _ in range(2):  # an event that came behind the one to be read is read next
            (end._wire if isinstance(end, Endpoint) else end).hear()
        return
    with suppress(BlockingIOError):
        os.read(end.fileno(), 8)


def wait(endpoint: Endpoint, space: bool = False) -> bool:
    """Sleeps until woken, if there is nothing to do. True if only the backstop ended the sleep."""
    woken = True
    if endpoint.arm(space):
        poll = select.poll()
        poll.register(endpoint.fileno(), select.POLLIN)
        woken = bool(poll.poll(BACKSTOP_MS))
        drain(endpoint)
    endpoint.disarm()
    return not woken


class Child:
    """``function(*args)`` in a process of its own, with this one's memory as it is now; its result, or its death."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self._result, result = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            signal.alarm(120)
            try:
                answer = pickle.dumps((True, function(*args)))
            except BaseException:
                answer = pickle.dumps((False, traceback.format_exc()))
            os.write(result, answer)
            os._exit(0)
        os.close(result)

    def result(self) -> Any:
        """What the function returned. Raises if it raised."""
        with os.fdopen(self._result, "rb") as pipe:
            answer = pipe.read()
        os.waitpid(self.pid, 0)
        assert answer, "the child was killed"
        is_good, value = pickle.loads(answer)
        assert is_good, f"the child failed:\n{value}"
        return value

    def kill(self) -> None:
        """kill -9, and bury it."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self._result)
