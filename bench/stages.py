"""`make bench-stages`: what a boundary between two domains costs, and how long a packet stays in each domain's core.

Crossings are real ones: two processes, the rings and events of a channel. For the cores see cores.py.
"""

from __future__ import annotations

import json
import os
import select
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from rich.console import Console

from appliance.vchan import memfd
from appliance.vchan.endpoint import Endpoint
from appliance.vchan.messages import Packets
from appliance.vchan.ring import Side
from appliance.vchan.schema import schema
from bench import machine
from bench.report import beside, figure, spread, table, where

SIZES: Final = {"64 bytes": 64, "1420 bytes": 1420, "62 KB": 62_000}
SECONDS: Final = 0.4  # for each figure of a crossing
SLEEP: Final = 0.5  # seconds at the most: the backstop of a domain's loop


# Crossings ----------------------------------------------------------------------------------------------------------


class End:
    """One end of a channel that waits: asleep until it is woken, or ``busy``, looking again and again."""

    def __init__(self, fds: memfd.Fds, side: Side, busy: bool) -> None:
        shape = schema("packets")
        events = (fds.server_event_fd, fds.client_event_fd)
        own, other = events if side is Side.SERVER else events[::-1]
        self.endpoint = Endpoint(memfd.attach(fds.memory_fd, own, other, shape.orders), side, shape)
        self._busy = busy
        self._epoll = select.epoll(1)
        self._epoll.register(own, select.EPOLLIN | select.EPOLLET)

    def _rest(self, space: bool) -> None:
        self.endpoint.flush()
        if not self._busy:
            if self.endpoint.arm(space):
                self._epoll.poll(SLEEP)
            self.endpoint.disarm()
        self.endpoint.progress()

    def receive(self) -> Any:
        while (message := self.endpoint.receive()) is None:
            self._rest(space=False)
        return message

    def send(self, message: Packets) -> None:
        while not self.endpoint.send(message):
            self._rest(space=True)


@contextmanager
def across(cpus: tuple[int, int], busy: bool, work: Callable[[End, End], object]) -> Iterator[tuple[End, End]]:
    """A channel each way to a process on another CPU that does ``work`` with its (in, out); here are our (out, in)."""
    there, back = (memfd.create(schema("packets").orders) for _ in range(2))
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpus[0]})
    pid = os.fork()
    if pid == 0:
        try:
            os.sched_setaffinity(0, {cpus[1]})
            work(End(there, Side.SERVER, busy), End(back, Side.CLIENT, busy))
        finally:
            os._exit(1)
    try:
        yield End(there, Side.CLIENT, busy), End(back, Side.SERVER, busy)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.sched_setaffinity(0, allowed)


def echo(inward: End, outward: End) -> None:
    while True:
        outward.send(inward.receive())
        outward.endpoint.flush()


def swallow(inward: End, outward: End) -> None:
    """Takes what comes, and answers what has a ``peer``."""
    while True:
        message = inward.receive()
        if message.peer:
            outward.send(message)
            outward.endpoint.flush()


def round_trip(size: int, cpus: tuple[int, int], busy: bool) -> float:
    """Microseconds from one message to its echo, the median of many."""
    message, took = Packets(bytes(size), size), []
    with across(cpus, busy, echo) as (out, back):
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            began = time.perf_counter_ns()
            out.send(message)
            out.endpoint.flush()
            back.receive()
            took.append(time.perf_counter_ns() - began)
    return statistics.median(took) / 1000


def one_way(size: int, cpus: tuple[int, int], busy: bool) -> float:
    """Microseconds a message where many follow each other, until the last one was taken."""
    message, last, count = Packets(bytes(size), size), Packets(bytes(size), size, 1), 0
    with across(cpus, busy, swallow) as (out, back):
        out.send(last)
        back.receive()
        began = time.monotonic()
        while (now := time.monotonic()) < began + SECONDS:
            for _ in range(8):
                out.send(message)
            out.endpoint.flush()
            count += 8
        out.send(last)
        out.endpoint.flush()
        back.receive()
        now = time.monotonic()
    return (now - began) / count * 1e6


def crossings() -> tuple[list[str], list[list[str]]]:
    """Heads and rows of the table."""
    cpus = sorted(os.sched_getaffinity(0))
    places: list[tuple[str, tuple[int, int], bool]] = [("same CPU, woken", (cpus[0], cpus[0]), False)]
    if len(cpus) > 1:
        pair = (cpus[0], cpus[1])
        places += [("other CPU, woken", pair, False), ("other CPU, busy", pair, True)]
    rows = [
        [f"{what}, {name}", *(figure(take(size, pair, busy)) for _, pair, busy in places)]
        for what, take in (("there and back", round_trip), ("one way, in a row", one_way))
        for name, size in SIZES.items()
    ]
    return ["µs a message", *(place for place, _, _ in places)], rows


# Cores --------------------------------------------------------------------------------------------------------------

# Before anything is imported: what is None there cannot be
MEASURE: Final = "from bench.cores import main; main()"
LOOKED_FOR: Final = {
    "compiled": "",
    "python": "import sys; from pathlib import Path; "
    "sys.modules.update({'.'.join(path.with_suffix('').parts): None for path in Path('components').glob('*/*.pyx')}); ",
}
TWINS: Final = tuple(LOOKED_FOR)


def both_twins() -> tuple[list[str], list[list[str]]]:
    """Heads and rows of the table: each twin in an interpreter of its own."""
    found = {}
    for twin in TWINS:
        found[twin] = json.loads(subprocess.check_output([sys.executable, "-c", LOOKED_FOR[twin] + MEASURE]))
    rows = []
    for kind in ("bulk", "lone"):
        total = dict.fromkeys(TWINS, 0.0)
        for name in found[TWINS[0]]:
            row = [f"{name}, {kind}"]
            for twin in TWINS:
                values = sorted(found[twin][name][kind])
                total[twin] += statistics.median(values)
                middle, range_ = spread(values[: len(values) * 9 // 10])
                row.append(f"[bold]{middle}[/]  [dim]{range_}[/]")
            rows.append(row)
        rows.append([f"all of them, {kind}", *(f"[bold]{figure(total[twin])}[/]" for twin in TWINS)])
    return ["µs a packet", *TWINS], rows


def main() -> None:
    console = Console(highlight=False)
    before = machine.before()
    table(
        console, "From domain to domain", *crossings(),
        "Medians. A message is checked and copied; woken: the reader sleeps until told; busy: both look on and on.",
    )  # fmt: skip
    table(
        console, "Inside of the domains", *both_twins(),
        "Medians, and from the fastest to the ninth tenth. Bulk: groups of 43 packets of 1420 bytes. Lone: one of 92.",
    )  # fmt: skip
    about = machine.describe({})
    console.print(where(about))
    console.print(beside({"before": before}))


if __name__ == "__main__":
    main()
