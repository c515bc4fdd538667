"""One end is killed at any instruction, over and over, and the channel opens again for its replacement."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest
from septum.v1.random import RandomReply, RandomRequest

from appliance.vchan import layout, memfd
from appliance.vchan.endpoint import Endpoint
from appliance.vchan.memfd import Fds
from appliance.vchan.ring import Side
from appliance.vchan.schema import Schema, schema
from tests.channel.conformance import numbered, opened
from tests.channel.support import Child, ends, small, wait

SECONDS = 10.0


def end(fds: Fds, side: Side, shape: Schema) -> Endpoint:
    memory, server, client = fds
    events = (server, client) if side is Side.SERVER else (client, server)
    return Endpoint(memfd.attach(memory, *events, shape.orders), side, shape)


def until(condition: Any, *turns: Any) -> None:
    """Takes turns until the condition holds; fails after SECONDS."""
    limit = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < limit
        for turn in turns:
            turn()


def _produce_forever(fds: Fds, shape: Schema) -> None:
    client = opened(end(fds, Side.CLIENT, shape))
    number = 0
    while True:
        while not client.send(numbered(number, 18 + number % 570)):
            client.flush()
            wait(client, space=True)
            client.progress()
        number += 1
        client.flush()


def _consume_forever(fds: Fds, shape: Schema) -> None:
    server = opened(end(fds, Side.SERVER, shape))
    while True:
        while server.receive() is not None:
            server.flush()
        server.flush()
        wait(server)
        server.progress()


def _answer_forever(fds: Fds, shape: Schema) -> None:
    server = opened(end(fds, Side.SERVER, shape))
    while True:
        while (request := server.receive()) is None:
            wait(server)
        server.send(RandomReply(random=b"r" * request.length))
        server.flush()


@pytest.mark.parametrize("is_patient", [True, False], ids=["survivor waited for", "replaced at once"])
def test_a_producer_is_killed_again_and_again(is_patient: bool) -> None:
    """Each life of it is heard from its first message on, in order, and never blamed for the way the last one ended."""
    shape = small()
    fds = memfd.create(shape.orders)
    memory = memfd.map_memory(fds.memory_fd, shape.orders)
    server = end(fds, Side.SERVER, shape)
    dice = random.Random(7)
    events: list[str] = []

    def progress() -> None:
        event = server.progress()
        if event is not None:
            events.append(event)

    for life in range(40):
        child = Child(_produce_forever, fds, shape)
        until(lambda: "opened" in events, progress)
        assert events == (["opened"] if is_patient or not life else ["closed", "opened"])
        expected = 0
        stop = time.monotonic() + dice.random() * 0.02
        while expected < 5 or time.monotonic() < stop:
            message = server.receive()
            if message is None:
                server.flush()
                assert not wait(server)
                continue
            assert message == numbered(expected, 18 + expected % 570)
            expected += 1
        events.clear()
        child.kill()
        memfd.mark_dead(memory, Side.CLIENT)
        if is_patient:
            until(lambda: memfd.survivor_waits(memory, Side.CLIENT), progress)
            assert events == ["closed"]
            events.clear()
        memfd.zero_dead(memory, Side.CLIENT)
        if not is_patient:
            server.receive()  # what was whole before the death, or nothing, and no violation


def test_a_consumer_is_killed_again_and_again() -> None:
    shape = small()
    fds = memfd.create(shape.orders)
    memory = memfd.map_memory(fds.memory_fd, shape.orders)
    client = end(fds, Side.CLIENT, shape)
    for _ in range(40):
        child = Child(_consume_forever, fds, shape)
        until(lambda: client.is_open, client.progress)
        sent = 0
        while sent < 60:
            if client.send(numbered(sent, 300)):
                sent += 1
            else:
                client.flush()
                assert not wait(client, space=True)
        child.kill()
        memfd.mark_dead(memory, Side.SERVER)
        assert client.progress() == "closed"
        assert not client.send(numbered(0, 50))
        assert memfd.survivor_waits(memory, Side.SERVER)
        memfd.zero_dead(memory, Side.SERVER)


def test_a_server_is_killed_in_the_middle_of_calls() -> None:
    shape = schema("random")
    fds = memfd.create(shape.orders)
    memory = memfd.map_memory(fds.memory_fd, shape.orders)
    client = end(fds, Side.CLIENT, shape)
    for life in range(40):
        child = Child(_answer_forever, fds, shape)
        until(lambda: client.is_open, client.progress)
        for number in range(10):
            assert client.send(RandomRequest(length=number + 1))
            client.flush()
            while (reply := client.receive()) is None:
                assert not wait(client)
            assert len(reply.random) == number + 1
        assert client.send(RandomRequest(length=4096))
        if life % 2:
            client.flush()
        child.kill()
        memfd.mark_dead(memory, Side.SERVER)
        assert client.progress() == "closed"
        assert client.receive() is None
        memfd.zero_dead(memory, Side.SERVER)


@pytest.mark.parametrize("dead", list(Side))
def test_what_the_dead_one_scribbled_over_the_survivor_is_mended(dead: Side) -> None:
    """Or its next life would find it there, and accuse the survivor of it."""
    server, client = ends(small())
    survivor = server if dead is Side.CLIENT else client
    memory = survivor._wire.memory
    memory[dead.live] = layout.CLOSED
    assert survivor.progress() == "closed"
    words = memory[: layout.GRANTS].cast("I")
    memory[dead.other.live] = 92
    words[dead.other.cons // 4] = words[dead.other.prod // 4] = 0xDEAD_BEEF
    memfd.mark_dead(memory, dead)
    assert not survivor.disarm()
    survivor.progress()
    assert memfd.survivor_waits(memory, dead)
    assert words[dead.other.cons // 4] == words[dead.other.prod // 4] == 0
