"""The transports that the channel's tests run over: memfd everywhere, grants and event channels inside Xen.

The environment's SEPTUM_TRANSPORT chooses; `make xen-test` runs these same tests in dom0 with ``grants``, where both
ends are of one domain: what it lends to itself, it maps again through gntdev.
"""

from __future__ import annotations

import gc
import os
import weakref
from functools import cache
from typing import Final

from appliance.vchan import memfd
from appliance.vchan.grants import ClientWire, Meeting, ServerWire
from appliance.vchan.layout import Orders
from appliance.vchan.wire import Wire
from appliance.xen import gntalloc, gntdev

NAME: Final = os.environ.get("SEPTUM_TRANSPORT", "memfd")
OWN_DOMID: Final = 0
PACE: Final = {"memfd": 1, "grants": 60}.get(NAME, 1)
"""How many times less is done of what is done thousands of times: an emulated machine is that much slower."""
_MOST_PAIRS: Final = 32


class MemfdTransport:
    def make_pair(self, orders: Orders) -> tuple[Wire, Wire]:
        fds = memfd.create(orders)
        server = memfd.attach(fds.memory_fd, fds.server_event_fd, fds.client_event_fd, orders)
        client = memfd.attach(fds.memory_fd, fds.client_event_fd, fds.server_event_fd, orders)
        return server, client


class ForkedClientWire(ClientWire):
    """A client's end that its process's forks have too: what gntdev maps is not inherited, and is mapped again."""

    _domid = 0
    _pages: tuple[int, ...] = ()

    def accept(self, domid: int, meeting: Meeting) -> None:
        self._domid = domid
        super().accept(domid, meeting)

    def _references(self, domid: int, ring_ref: int) -> tuple[int, ...]:
        self._pages = super()._references(domid, ring_ref)
        return self._pages

    def after_fork(self) -> None:
        if self.is_attached:
            fd = gntdev.open_device()
            self._window.show(fd, gntdev.borrow(fd, self._domid, self._pages).offset)
        else:
            self._window.blank()


class GrantTransport:
    """Both ends in one domain. Pairs that nobody uses any more are taken apart, the oldest first."""

    def __init__(self) -> None:
        self._lending, self._borrowing = gntalloc.open_device(), gntdev.open_device()
        self._pairs: list[tuple[ServerWire, ForkedClientWire]] = []
        self._clients: weakref.WeakSet[ForkedClientWire] = weakref.WeakSet()
        os.register_at_fork(after_in_child=self._after_fork)

    def _after_fork(self) -> None:
        for client in list(self._clients):
            client.after_fork()

    def make_pair(self, orders: Orders) -> tuple[Wire, Wire]:
        while len(self._pairs) >= _MOST_PAIRS:
            gc.collect()
            for wire in reversed(self._pairs.pop(0)):
                wire.detach()
                wire.close()
        server, client = ServerWire(self._lending, orders), ForkedClientWire(self._borrowing, orders)
        client.accept(OWN_DOMID, server.offer(OWN_DOMID))
        self._pairs.append((server, client))
        self._clients.add(client)
        client.hear()  # Xen fires a port when it is bound
        return server, client


@cache
def transport() -> MemfdTransport | GrantTransport:
    """The one chosen. Errors: KeyError for a name that is none."""
    return {"memfd": MemfdTransport, "grants": GrantTransport}[NAME]()
