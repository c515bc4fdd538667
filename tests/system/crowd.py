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
from pathlib import Path
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


async def watch(context: Context, count: int, until: float) -> list[int]:
    """How many statuses each of ``count`` watchers saw."""
    credentials = grpc.ssl_channel_credentials(
        context.root_pem.encode(), context.tls_key_pem.encode(), context.chain_pem.encode()
    )
    # Without a pool of its own each would share the connection of the others
    options = (("grpc.ssl_target_name_override", SERVER_NAME), ("grpc.use_local_subchannel_pool", 1))
    channels = [grpc.aio.secure_channel(context.address, credentials, options) for _ in range(-(-count // STREAMS))]
    seen = [0] * count

    async def one(number: int) -> None:
        stub = services.BoxStub(channels[number // STREAMS])
        stream = stub.WatchStatus(pb.WatchStatusRequest(period_ms=PERIOD), timeout=max(1.0, until - time.monotonic()))
        try:
            async for status in stream:
                assert status.name
                seen[number] += 1
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
                raise

    await asyncio.gather(*(one(number) for number in range(count)))
    for channel in channels:
        await channel.close()
    return seen


# those who commit -----------------------------------------------------------------------------------------------------


class Writer(threading.Thread):
    """Commits again and again that its own peer has another keepalive, on top of whatever is in force."""

    def __init__(self, number: int, context: Context, until: float) -> None:
        super().__init__(daemon=True)
        self.number = number
        self.accepted: list[int] = []  # revisions
        self.last = 0  # keepalive that was acknowledged last
        self.refused: Counter[str] = Counter()
        self.broken = ""
        self._context = context
        self._until = until

    def run(self) -> None:
        try:
            with Box(self._context, PATIENCE) as box:
                while time.monotonic() < self._until:
                    self._once(box)
        except Exception as error:
            self.broken = f"{type(error).__name__}: {error}"

    def _once(self, box: Box) -> None:
        try:
            known = chain.look(box)
            before = candidate.fetch(box, known.in_force)
            wanted = self.last + 1
            others = tuple(one for one in before.peers if one.number != self.number)
            own = PeerEntry(self.number, f"writer-{self.number}", bytes([self.number]) * 32, (), keepalive=wanted)
            made = before._replace(peers=tuple(sorted((*others, own))))
            done = changing.commit(box, known, made, f"writer {self.number}: {wanted}")
        except Trouble as trouble:
            self.refused[trouble.reason] += 1
            if trouble.reason not in ("STALE", "PENDING", "RATE"):
                raise
            time.sleep(0.05 + 0.01 * (self.number % 10))
            return
        self.accepted.append(done.revision)
        self.last = wanted


# one who looks --------------------------------------------------------------------------------------------------------


def probe(context: Context, until: float) -> list[float]:
    """Seconds that each answer took, of ten questions a second."""
    took = []
    with Box(context, PATIENCE) as box:
        while time.monotonic() < until:
            begin = time.monotonic()
            box.ask(box.box.GetStatus, pb.GetStatusRequest(), "the state of the box")
            took.append(time.monotonic() - begin)
            time.sleep(max(0.0, 0.1 - took[-1]))
    return took


def main() -> None:
    told: dict[str, Any] = json.load(sys.stdin)
    people = [as_whom(home) for home in told["writers_homes"]]
    viewer = as_whom(told["viewer_home"])
    assert Path(told["viewer_home"]).exists()
    until = time.monotonic() + told["seconds"]
    writers = [Writer(number + 1, people[number % len(people)], until) for number in range(told["writers"])]
    took: list[float] = []
    looker = threading.Thread(target=lambda: took.extend(probe(people[0], until)), daemon=True)
    for thread in (*writers, looker):
        thread.start()
    seen = asyncio.run(watch(viewer, told["watchers"], until))
    for thread in (*writers, looker):
        thread.join(2 * PATIENCE)
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
