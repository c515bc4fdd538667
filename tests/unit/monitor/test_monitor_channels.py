"""The rings as the monitor holds them: what one that dies can leave behind in them."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator

import pytest

from appliance.monitor.channels import Attachment, Channels
from appliance.vchan import memfd
from appliance.vchan.endpoint import Endpoint
from appliance.vchan.ring import Side
from appliance.vchan.schema import schema
from tests.channel.support import open_both, record
from tests.system.standin_box import assembly

FULL = (2**64 - 2).to_bytes(8, "little")  # as much as an eventfd holds


@pytest.fixture
def channels() -> Iterator[Channels]:
    """Two in a ring: each sends to the other."""
    made = Channels(assembly({"nodes": {"one": "steady", "two": "steady"}, "network": {"tunnel": "t"}}))
    yield made
    made.close()


def to_two(channels: Channels, domain: str) -> Attachment:
    """The end that ``domain`` has of the channel from one to two."""
    return next(a for a in channels.attachments(domain) if a.port == {"one": "out", "two": "in"}[domain])


def attach(attachment: Attachment) -> Endpoint:
    shape = schema(attachment.schema)
    side = Side.CLIENT if attachment.end == "out" else Side.SERVER
    return Endpoint(memfd.attach(*attachment.descriptors, shape.orders), side, shape)


def edges(endpoint: Endpoint) -> select.epoll:
    """What the loop of a domain sleeps on."""
    poll = select.epoll(1)
    poll.register(endpoint.fileno(), select.EPOLLIN | select.EPOLLET)
    poll.poll(0)
    return poll


@pytest.mark.parametrize("hostile", ["one", "two"])
def test_events_that_the_dead_has_filled_wake_again(channels: Channels, hostile: str) -> None:
    ends = {name: attach(to_two(channels, name)) for name in ("one", "two")}
    open_both(*ends.values())
    survivor = ends["two" if hostile == "one" else "one"]
    with edges(survivor) as poll:
        for event in to_two(channels, hostile).descriptors[1:]:
            os.set_blocking(event, False)
            os.read(event, 8)
            os.write(event, FULL)
        poll.poll(0)

        channels.reset(hostile)
        assert poll.poll(1), "the survivor is not told of the death"
        assert survivor.progress() == "closed"

        channels.zero(hostile)
        ends[hostile] = attach(to_two(channels, hostile))
        open_both(*ends.values())
        poll.poll(0)
        with edges(ends[hostile]) as other:
            sender, receiver = ends["one"], ends["two"]
            receiver.arm(space=False)
            assert sender.send(record(50))
            sender.flush()
            assert (poll if receiver is survivor else other).poll(1), "the consumer is not woken by data"
            sender.arm(space=True)
            assert receiver.receive() == record(50)
            receiver.flush()
            assert (other if receiver is survivor else poll).poll(1), "the producer is not woken by room"
