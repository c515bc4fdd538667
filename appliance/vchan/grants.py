"""The Xen transport: pages that the server grants and the client maps, and an event channel between the two.

Source: Xen, tools/libs/vchan/init.c, whose peer either end can be. The server lends header and rings to one domain,
and lists the grant references of the ring's pages in the header, the left ring's first; the reference of the header
itself and a port to bind to are what the client must be told (by the xenstore: whoever drives this does that).

A granted page is for one domain and dies with it, so pages cannot outlive an end here, as those of a memfd do: each
*meeting* of two ends has pages of its own. ``memory`` is a window that shows them, or zeros between two meetings. To
the ring a peer that is away is thus one whose live byte is 0, as a dead one's is when the monitor has stored it, and
nothing else had to change. Call ``progress`` of the endpoint after ``detach``, and before the next meeting: so it hears
of the end of the last one, and waits in order for the next.

Within a meeting the two may close and open again as often as they like (live.py).
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from appliance.vchan import layout
from appliance.vchan.layout import Orders
from appliance.vchan.ring import Side
from appliance.xen import gntalloc, gntdev
from appliance.xen.evtchn import EventChannel
from appliance.xen.window import Window

_ORDERS: Final = struct.Struct("=HH")


class Meeting(NamedTuple):
    """What the server must tell the client. Xenstore: ``ring-ref`` and ``event-channel``."""

    ring_ref: int
    port: int


class GrantError(Exception):
    """What the peer granted is no channel of this shape, or is not there (any more): it may offer another."""


class _GrantWire:
    """A Wire whose pages come and go. ``fd`` is the device's, and may be shared by many wires."""

    def __init__(self, fd: int, orders: Orders, side: Side) -> None:
        self._fd = fd
        self._orders = orders
        self._peer_wants = side.other.wants
        self._window = Window(layout.size(orders))
        self._event = EventChannel()
        self.memory = self._window.memory
        self.is_attached = False

    def fileno(self) -> int:
        return self._event.fd

    def notify(self) -> None:
        # One wish, one event: what is written until the peer is awake costs no further entry into Xen. What it wished
        # since we looked is taken down with it and answered by this event, which comes after (decision 2).
        self.memory[self._peer_wants] = 0
        self._event.notify()

    def hear(self) -> None:
        self._event.hear()

    def close(self) -> None:
        """The end of it, for who has many in turn. Detach first; ``memory`` stays good, and shows zeros."""
        self._event.close()

    def _part(self) -> None:
        """Shows zeros, and the peer is not heard of any more. The kernel stores our last byte for it and wakes it."""
        self._window.blank()
        self._event.unbind()
        self.is_attached = False


class ServerWire(_GrantWire):
    """The server's end. ``fd`` is of gntalloc.open_device."""

    def __init__(self, fd: int, orders: Orders) -> None:
        super().__init__(fd, orders, Side.SERVER)
        self._lent: gntalloc.Lent | None = None

    def offer(self, domid: int) -> Meeting:
        """New pages and a new port for ``domid`` alone, in place of those before.

        Errors: OSError; ENOSPC while too many pages that were lent before are still held by their borrowers.
        """
        self.detach()
        try:
            port = self._event.offer(domid)
            lent = self._lent = gntalloc.lend(self._fd, domid, layout.size(self._orders) // layout.PAGE)
            gntalloc.clear_at_end(self._fd, lent, Side.SERVER.live, port)
            self._window.show(self._fd, lent.offset)
        except OSError:
            self.detach()
            raise
        ring_ref, *pages = lent.references
        _ORDERS.pack_into(self.memory, layout.LEFT_ORDER, *self._orders)
        struct.pack_into(f"={len(pages)}I", self.memory, layout.GRANTS, *pages)
        self.is_attached = True
        return Meeting(ring_ref, port)

    def detach(self) -> None:
        """Ends the meeting, if there is one. What the client still maps stays allocated until it lets go."""
        self._part()
        if self._lent is not None:
            lent, self._lent = self._lent, None
            gntalloc.take_back(self._fd, lent)


class ClientWire(_GrantWire):
    """The client's end. ``fd`` is of gntdev.open_device."""

    def __init__(self, fd: int, orders: Orders) -> None:
        super().__init__(fd, orders, Side.CLIENT)
        self._borrowed: gntdev.Borrowed | None = None
        self._header = Window(layout.PAGE)

    def accept(self, domid: int, meeting: Meeting) -> None:
        """Maps what the server ``domid`` offered, in place of what was there before.

        Errors: GrantError if it is not there, or is of another shape: nothing is attached then.
        """
        self.detach()
        try:
            port = self._event.accept(domid, meeting.port)
            references = self._references(domid, meeting.ring_ref)
            borrowed = self._borrow(domid, references)
            gntdev.clear_at_end(self._fd, borrowed, Side.CLIENT.live, port)
            self._window.show(self._fd, borrowed.offset)
        except OSError as error:
            self.detach()
            raise GrantError(f"domain {domid} grants nothing by {meeting}: {error}") from None
        except GrantError:
            self.detach()
            raise
        self.is_attached = True

    def _borrow(self, domid: int, references: tuple[int, ...]) -> gntdev.Borrowed:
        self._borrowed = gntdev.borrow(self._fd, domid, references)
        return self._borrowed

    def _references(self, domid: int, ring_ref: int) -> tuple[int, ...]:
        """Of all pages, as the header says it: copied out once, and never looked at again."""
        pages = self.memory.nbytes // layout.PAGE
        borrowed = self._borrow(domid, (ring_ref,))
        self._header.show(self._fd, borrowed.offset)
        untrusted = bytes(self._header.memory[: layout.GRANTS + 4 * (pages - 1)])
        self._header.blank()
        gntdev.give_back(self._fd, borrowed)
        self._borrowed = None
        orders = Orders(*_ORDERS.unpack_from(untrusted, layout.LEFT_ORDER))
        if orders != self._orders:
            raise GrantError(f"rings of orders {tuple(orders)} where {tuple(self._orders)} are due")
        return (ring_ref, *struct.unpack_from(f"={pages - 1}I", untrusted, layout.GRANTS))

    def detach(self) -> None:
        """Ends the meeting, if there is one, and lets the server's pages go."""
        self._part()
        if self._borrowed is not None:
            borrowed, self._borrowed = self._borrowed, None
            gntdev.give_back(self._fd, borrowed)


__all__ = ["ClientWire", "GrantError", "Meeting", "ServerWire"]
