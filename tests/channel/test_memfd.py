"""What is the process transport's own."""

from __future__ import annotations

import fcntl
import os

import pytest

from appliance.vchan import layout, memfd
from appliance.vchan.layout import Orders
from appliance.vchan.ring import Side

ORDERS = Orders(14, 10)


def test_the_size_of_the_memory_is_sealed() -> None:
    fd = memfd.create(ORDERS).memory_fd
    for size in (0, layout.size(ORDERS) - layout.PAGE, layout.size(ORDERS) + layout.PAGE):
        with pytest.raises(PermissionError):
            os.ftruncate(fd, size)
    with pytest.raises(PermissionError):
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)


def test_descriptors_do_not_survive_exec() -> None:
    assert not any(os.get_inheritable(fd) for fd in memfd.create(ORDERS))


def test_a_new_channel_is_zero_but_for_the_orders() -> None:
    fds = memfd.create(ORDERS)
    pages = os.pread(fds.memory_fd, layout.size(ORDERS), 0)
    assert len(pages) == layout.size(ORDERS)
    assert pages[layout.LEFT_ORDER : layout.CLI_LIVE] == bytes([14, 0, 10, 0])
    assert not any(pages[: layout.LEFT_ORDER] + pages[layout.CLI_LIVE :])


def test_memory_of_another_size_is_refused() -> None:
    fds = memfd.create(ORDERS)
    with pytest.raises(ValueError, match="the memory has"):
        memfd.attach(*fds, Orders(15, 10))


def test_memory_that_can_shrink_is_refused() -> None:
    fd = os.memfd_create("x", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, layout.size(ORDERS))
    with pytest.raises(ValueError, match="seals"):
        memfd.attach(fd, 0, 0, ORDERS)


def test_a_peer_that_never_reads_its_event_cannot_block_us() -> None:
    fds = memfd.create(ORDERS)
    wire = memfd.attach(*fds, ORDERS)
    os.write(fds.client_event_fd, (2**64 - 2).to_bytes(8, "little"))  # as full as an eventfd gets
    wire.notify()


@pytest.mark.parametrize("dead", list(Side))
def test_the_monitors_hooks(dead: Side) -> None:
    memory = memoryview(bytearray(b"\xff" * layout.size(ORDERS)))
    before = bytes(memory)
    memfd.mark_dead(memory, dead)
    assert [i for i, byte in enumerate(memory) if byte != before[i]] == [dead.live]
    assert memory[dead.live] == layout.CLOSED
    assert not memfd.survivor_waits(memory, dead)
    memory[dead.other.live] = layout.WAITING
    assert memfd.survivor_waits(memory, dead)
    memfd.zero_dead(memory, dead)
    # Of the survivor's nothing is touched: its own indices, its wish, its live byte.
    assert [i for i, byte in enumerate(memory) if not byte] == sorted(
        {*range(dead.cons, dead.cons + 4), *range(dead.prod, dead.prod + 4), dead.live, dead.wants}
    )
