"""The same end of vchans as peer.c, by appliance.vchan.grants: same arguments, same bytes, same output."""

from __future__ import annotations

import select
import sys
import time
from collections.abc import Callable

from appliance.vchan.grants import ClientWire, GrantError, Meeting, ServerWire
from appliance.vchan.layout import NOTIFY_READ, NOTIFY_WRITE, Orders
from appliance.vchan.live import State
from appliance.vchan.ring import Side, Vchan, fence
from appliance.xen import gntalloc, gntdev
from appliance.xen.xenstore import Xenstore

PATIENCE = 60.0  # seconds
COUNT = bytes(range(256)) * 2


class End:
    """A byte stream over one meeting."""

    def __init__(self, wire: ServerWire | ClientWire, vchan: Vchan) -> None:
        self._wire, self._vchan = wire, vchan
        self._poll = select.poll()
        self._poll.register(wire.fileno(), select.POLLIN)

    def _sleep(self, bits: int, has_come: Callable[[int], bool], size: int) -> None:
        self._vchan.want(bits)
        if not has_come(size) and not self._poll.poll(PATIENCE * 1000):
            raise TimeoutError("the peer is silent")
        self._wire.hear()
        self._vchan.want(0)

    def open(self) -> None:
        while self._vchan.progress() != "opened":
            self._wire.notify()
            self._sleep(0, lambda _: not self._vchan.is_settled(), 0)
        self._wire.notify()

    def is_open(self) -> bool:
        if not self._vchan.is_live:
            self._vchan.progress()
        return self._vchan.state is State.OPEN

    def send(self, data: bytes | bytearray) -> None:
        while not self._vchan.fits(len(data)):
            self._sleep(NOTIFY_READ, self._vchan.fits, len(data))
            assert self.is_open()
        self._vchan.write((data,), len(data))
        self._wake(NOTIFY_WRITE)

    def receive(self, size: int) -> bytes:
        while not self._vchan.has(size):
            assert self.is_open(), "the peer has gone"
            self._sleep(NOTIFY_WRITE, self._vchan.has, size)
        data = self._vchan.copy(size)
        self._vchan.consume(size)
        self._wake(NOTIFY_READ)
        return data

    def _wake(self, bits: int) -> None:
        fence()
        if self._vchan.is_wanted(bits):
            self._wire.notify()

    def drained(self, size: int) -> None:
        """Waits until the peer has read everything, or is gone."""
        while self.is_open() and not self._vchan.fits(size):
            self._sleep(NOTIFY_READ, lambda size: self._vchan.fits(size) or not self._vchan.is_settled(), size)

    def close(self) -> None:
        self._vchan.close()
        self._wire.notify()
        self._wire.detach()
        self._wire.close()


def order(least: int) -> int:
    return max(12, (least - 1).bit_length())


def orders(left: int, right: int) -> Orders:
    """As libxenvchan_server_init chooses them."""
    if left <= 1024 and right <= 2048:
        return Orders(10, 11)
    if left <= 2048 and right <= 1024:
        return Orders(11, 10)
    if left <= 2048:
        return Orders(11, order(right))
    if right <= 2048:
        return Orders(order(left), 11)
    return Orders(order(left), order(right))


def meet(side: Side, domid: int, path: str, shape: Orders) -> End:
    store = Xenstore()
    if side is Side.SERVER:
        wire: ServerWire | ClientWire = ServerWire(gntalloc.open_device(), shape)
        vchan = Vchan(wire.memory, side, shape)
        vchan.progress()
        assert isinstance(wire, ServerWire)
        meeting = wire.offer(domid)
        vchan.progress()
        own = store.read("domid")
        for name, value in (("event-channel", meeting.port), ("ring-ref", meeting.ring_ref)):
            store.write(f"{path}/{name}", str(value))
            store.set_permissions(f"{path}/{name}", [f"n{own}", f"r{domid}"])
    else:
        wire = ClientWire(gntdev.open_device(), shape)
        vchan = Vchan(wire.memory, side, shape)
        vchan.progress()
        until = time.monotonic() + PATIENCE
        while not wire.is_attached:
            found = [store.read(f"{path}/{name}") for name in ("ring-ref", "event-channel")]
            try:
                assert isinstance(wire, ClientWire)
                if all(found):
                    wire.accept(domid, Meeting(*(int(value or 0) for value in found)))
            except GrantError:
                if time.monotonic() > until:
                    raise
            if not wire.is_attached:
                assert time.monotonic() < until, "nobody offers"
                time.sleep(0.05)
    end = End(wire, vchan)
    end.open()
    return end


def pattern(number: int, size: int) -> bytes:
    start = number & 0xFF
    return (COUNT[start : start + 256] * (size // 256 + 1))[:size]


def talk(end: End, rounds: int, length: int, what: str) -> None:
    trips = []
    data = bytearray(length)  # as in peer.c: one for all pieces
    began = time.perf_counter()
    for number in range(rounds):
        if what == "echo":
            end.send(end.receive(length))
        elif what == "ping":
            sending = pattern(number, length)
            sent = time.perf_counter()
            end.send(sending)
            back = end.receive(length)
            trips.append(time.perf_counter() - sent)
            assert back == sending
        elif what == "sink":
            back = end.receive(length)
            assert back[0] == number & 0xFF
            assert back[-1] == (number + length - 1) & 0xFF
        else:
            data[0] = number & 0xFF
            data[-1] = (number + length - 1) & 0xFF
            end.send(data)
    if what == "sink":
        end.send(b"!")
    elif what == "source":
        end.receive(1)
        print(f"{rounds * length / (time.perf_counter() - began) / (1 << 20):.3f}")
    elif what == "ping":
        print(f"{sorted(trips)[rounds // 2] * 1e6:.1f}")


def main(side: str, domid: str, path: str, left: str, right: str, count: str, size: str, *does: str) -> None:
    shape = orders(int(left), int(right))
    for number, what in enumerate(does):
        end = meet(Side(side), int(domid), f"{path}/{number}", shape)
        talk(end, int(count), int(size), what)
        if what in ("echo", "sink"):
            end.drained(1 << (shape.right if side == "server" else shape.left))
        end.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
