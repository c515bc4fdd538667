"""Many administrators at once: those who watch, those who commit, and one who looks how long an answer takes.

``python -m tests.system.crowd`` reads what to do as JSON on standard input, and writes what came of it as JSON. It
stands in for so many machines, so each watcher has a stream of its own and each writer a connection.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
from collections import Counter
from typing import Any

import grpc
from septum.admin.v1 import admin_pb2 as pb
from septum.admin.v1 import admin_pb2_grpc as services

from appliance.ctl import candidate, chain, changing, contexts
from appliance.ctl.connection import Box
from appliance.ctl.contexts import SERVER_NAME, Context
from appliance.ctl.trouble import Trouble
from appliance.signed.peers import PeerEntry

STREAMS = 8  # of one connection
PERIOD = 1000  # milliseconds
PATIENCE = 30.0  # seconds for one answer, on a machine that does all of this at once


def as_whom(home: str) -> Context:
    """The only context of a home of septumctl."""
    os.environ["SEPTUM_CONFIG"] = home
    return contexts.load()


# those who watch ------------------------------------------------------------------------------------------------------


async def watch(context: Context, count: int, begin: Begin) -> list[int]:
    """How many statuses each of ``count`` watchers saw, from when all had seen their first."""
    credentials = grpc.ssl_channel_credentials(
        context.root_pem.encode(), context.tls_key_pem.encode(), context.chain_pem.encode()
    )
    # Without a pool of its own each would share the connection of the others
    options = (("grpc.ssl_target_name_override", SERVER_NAME), ("grpc.use_local_subchannel_pool", 1))
    channels = [grpc.aio.secure_channel(context.address, credentials, options) for _ in range(-(-count // STREAMS))]
    seen = [0] * count

    async def one(number: int) -> None:
        stub = services.BoxStub(channels[number // STREAMS])
        async for status in stub.WatchStatus(pb.WatchStatusRequest(period_ms=PERIOD)):
            assert status.name
            seen[number] += 1

    for channel in channels:  # one after the other: to the box all of us are one address
        await channel.channel_ready()
    watchers = [asyncio.create_task(one(number)) for number in range(count)]
    while not all(seen):
        if ended := [watcher for watcher in watchers if watcher.done()]:
            ended[0].result()
            raise AssertionError("the box ended a stream")
        await asyncio.sleep(0.05)
    first = list(seen)
    await asyncio.sleep(begin.now() - time.monotonic())
    for watcher in watchers:
        watcher.cancel()
    await asyncio.gather(*watchers, return_exceptions=True)
    for channel in channels:
        await channel.close()
    return [last - before for last, before in zip(seen, first, strict=True)]


class Begin:
    """When all are there, it begins, and ends ``seconds`` later."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._begun = threading.Event()
        self._until = 0.0

    def now(self) -> float:
        self._until = time.monotonic() + self._seconds
        self._begun.set()
        return self._until

    def is_on(self) -> bool:
        """Waits for the beginning; False once it has ended."""
        self._begun.wait(10 * PATIENCE)
        return time.monotonic() < self._until


# those who commit -----------------------------------------------------------------------------------------------------


_DOOR = threading.Semaphore(8)  # who is still shaking hands with the box, of one address


class Writer(threading.Thread):
    """Commits again and again that its own peer has another keepalive, on top of whatever is in force."""

    def __init__(self, number: int, context: Context, begin: Begin) -> None:
        super().__init__(daemon=True)
        self.number = number
        self.accepted: list[int] = []  # revisions
        self.last = 0  # keepalive that was acknowledged last
        self.refused: Counter[str] = Counter()
        self.broken = ""
        self._missed = 0  # times in a row that somebody was faster
        self._context = context
        self._begin = begin

    def run(self) -> None:
        try:
            with Box(self._context, PATIENCE) as box:
                with _DOOR:
                    box.ask(box.enrollment.WhoAmI, pb.WhoAmIRequest(), "a word")
                while self._begin.is_on():
                    self._once(box)
        except Exception as error:
            self.broken = f"{type(error).__name__}: {error}"

    def _once(self, box: Box) -> None:
        try:
            known = chain.look(box)
            before = candidate.fetch(box, known.in_force)
            own = {one.number: one for one in before.peers}
            wanted = own[self.number].keepalive + 1 if self.number in own else 1
            own[self.number] = PeerEntry(
                self.number, f"writer-{self.number}", bytes([self.number]) * 32, (), keepalive=wanted
            )
            made = before._replace(peers=tuple(sorted(own.values())))
            done = changing.commit(box, known, made, f"writer {self.number}: {wanted}")
        except Trouble as trouble:
            self.refused[trouble.reason] += 1
            if trouble.reason not in ("STALE", "PENDING", "RATE"):
                raise
            changing.rest(self._missed)
            self._missed += 1
            return
        self._missed = max(0, self._missed - 1)  # the others are still there
        self.accepted.append(done.revision)
        self.last = wanted


# one who looks --------------------------------------------------------------------------------------------------------


def probe(context: Context, begin: Begin) -> list[float]:
    """Seconds that each answer took, of ten questions a second."""
    took = []
    with Box(context, PATIENCE) as box:
        while begin.is_on():
            asked = time.monotonic()
            box.ask(box.box.GetStatus, pb.GetStatusRequest(), "the state of the box")
            took.append(time.monotonic() - asked)
            time.sleep(max(0.0, 0.1 - took[-1]))
    return took


def main() -> None:
    told: dict[str, Any] = json.load(sys.stdin)
    people = [as_whom(home) for home in told["writers_homes"]]
    viewer = as_whom(told["viewer_home"])
    begin = Begin(told["seconds"])
    writers = [Writer(number + 1, people[number % len(people)], begin) for number in range(told["writers"])]
    took: list[float] = []
    looker = threading.Thread(target=lambda: took.extend(probe(viewer, begin)), daemon=True)
    for thread in (*writers, looker):
        thread.start()
    seen = asyncio.run(watch(viewer, told["watchers"], begin))
    for thread in (*writers, looker):
        thread.join(4 * PATIENCE)
    print(
        json.dumps(
            {
                "seen": seen,
                "took": took,
                "accepted": {writer.number: writer.accepted for writer in writers},
                "last": {writer.number: writer.last for writer in writers},
                "refused": sum((writer.refused for writer in writers), Counter()),
                "broken": [writer.broken for writer in writers if writer.broken],
                "stuck": [writer.number for writer in writers if writer.is_alive()],
            }
        )
    )


if __name__ == "__main__":
    main()
