"""No key stays in a ring: neither what was read nor what a session has left, whichever of the two ends it."""

from __future__ import annotations

from typing import Any

import pytest
from septum.v1.random import RandomReply, RandomRequest
from septum.v1.receiving import ReceiveOrder, ReceiveSession
from septum.v1.sending import SendOrder, SendSession

from appliance.vchan import layout, memfd
from appliance.vchan.endpoint import Endpoint
from appliance.vchan.generate import schema_names
from appliance.vchan.ring import SecretVchan, Side
from appliance.vchan.schema import schema
from tests.channel.support import ends, open_both

SECRET = bytes(range(0x60, 0x80))  # 32 bytes that nothing else in a ring is like

SEND = SendOrder(
    session=SendSession(peer=1, session=2, receiver=3, key=SECRET, address=b"\x7f\x00\x00\x01", port=9, confirm=True)
)
RECEIVE = ReceiveOrder(session=ReceiveSession(peer=1, session=2, key=SECRET))


def secrets_in(end: Endpoint) -> int:
    return bytes(end._wire.memory).count(SECRET[1:])


def test_it_is_the_rings_of_keys_that_forget() -> None:
    forgetful = {name for name in schema_names() if isinstance(ends(schema(name))[0]._vchan, SecretVchan)}
    assert forgetful == {"sending", "receiving", "random"}


@pytest.mark.parametrize(("name", "order"), [("sending", SEND), ("receiving", RECEIVE)])
def test_keys_that_were_read_are_gone(name: str, order: Any) -> None:
    server, client = ends(schema(name), 2**32 - 100_000)
    for _ in range(40):  # several times round the ring
        assert all(client.send(order) for _ in range(300))
        for unread in (200, 100, 0):
            assert all(server.receive() == order for _ in range(100))
            assert unread - 1 <= secrets_in(server) <= unread  # one may lie half at the end, half at the beginning
        assert not any(server._wire.memory[layout.PAGE :])


def test_randomness_that_was_read_is_gone_even_if_its_call_was_given_up() -> None:
    server, client = ends(schema("random"))
    for is_given_up in (False, True) * 200:
        assert client.send(RandomRequest(length=32))
        assert server.receive() is not None
        if is_given_up:
            assert client.receive() is None
            assert client.send(RandomRequest(length=1))
        assert server.send(RandomReply(random=SECRET))
        assert secrets_in(server) == 1
        assert (client.receive() is None) is is_given_up
        assert secrets_in(server) == 0
        if is_given_up:
            assert server.receive() is not None
            assert server.send(RandomReply(random=b"x"))
            assert client.receive() is not None


def unread(shape: str) -> tuple[Endpoint, Endpoint]:
    """Server and client with keys between them that nobody has read."""
    server, client = ends(schema(shape))
    if shape == "sending":
        for _ in range(20):
            assert client.send(SEND)
    else:
        assert client.send(RandomRequest(length=32))
        assert server.receive() is not None
        assert server.send(RandomReply(random=SECRET))
    assert secrets_in(server)
    return server, client


@pytest.mark.parametrize("shape", ["sending", "random"])
@pytest.mark.parametrize("dead", list(Side))
def test_keys_that_nobody_read_are_gone_once_the_survivor_waits(shape: str, dead: Side) -> None:
    server, client = unread(shape)
    memory, survivor = server._wire.memory, client if dead is Side.SERVER else server
    memfd.mark_dead(memory, dead)
    assert survivor.progress() == "closed"
    assert memfd.survivor_waits(memory, dead)
    assert secrets_in(survivor) == 0


@pytest.mark.parametrize("shape", ["sending", "random"])
def test_keys_of_two_that_died_are_gone_before_their_replacements_read(shape: str) -> None:
    server, client = unread(shape)
    memory = server._wire.memory
    for side in Side:
        memfd.mark_dead(memory, side)
        memfd.zero_dead(memory, side)
    reborn = [Endpoint(end._wire, end.side, end.schema) for end in (server, client)]
    open_both(*reborn)
    assert secrets_in(server) == 0
    assert not any(memory[layout.PAGE :])
