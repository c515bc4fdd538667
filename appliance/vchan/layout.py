"""Where everything lies in a vchan's shared pages: ``struct vchan_interface`` of Xen's ``xen/io/libxenvchan.h``.

One header page, then the pages of the left ring, then those of the right. *Left* is what the client writes and the
server reads, *right* the other way round. A ring of order 10 or 11 (1 or 2 KiB) lies inside the header page instead.
All integers are little-endian as on x86. Offsets and sizes are in bytes. Data only: nothing here touches memory.
"""

from __future__ import annotations

from typing import Final, NamedTuple

PAGE: Final = 4096

# struct vchan_interface
LEFT_CONS: Final = 0  # uint32: next byte of the left ring that the server will read
LEFT_PROD: Final = 4  # uint32: next byte of the left ring that the client will write
RIGHT_CONS: Final = 8
RIGHT_PROD: Final = 12
LEFT_ORDER: Final = 16  # uint16: log2 of the left ring's bytes
RIGHT_ORDER: Final = 18
CLI_LIVE: Final = 20  # uint8, written by the client
SRV_LIVE: Final = 21  # uint8, written by the server
CLI_NOTIFY: Final = 22  # uint8: what the *server* wants to be woken for (the client looks here before it notifies)
SRV_NOTIFY: Final = 23  # uint8: what the *client* wants to be woken for
GRANTS: Final = 24  # uint32 a page of the rings; all zero where memory is not granted but passed as a descriptor

# Bits of the notify bytes.
NOTIFY_WRITE: Final = 1  # wake me when you have written
NOTIFY_READ: Final = 2  # wake me when you have read

# Values of the live bytes.
CLOSED: Final = 0
LIVE: Final = 1
WAITING: Final = 2

SMALL_ORDER: Final = 10
LARGE_ORDER: Final = 11
MAX_ORDER: Final = 20  # libxenvchan's limit: the grants of two larger rings would not fit into the header page
IN_PAGE: Final = {SMALL_ORDER: 1024, LARGE_ORDER: 2048}  # order -> offset in the header page


class Orders(NamedTuple):
    """log2 of the bytes of both rings. ``left`` carries client to server, ``right`` server to client."""

    left: int
    right: int


class Span(NamedTuple):
    """A ring's place: ``offset`` into the shared memory and ``size``, a power of two."""

    offset: int
    size: int


def check(orders: Orders) -> None:
    """Errors: ValueError if libxenvchan could not lay out rings of these orders."""
    for name, order in zip(Orders._fields, orders, strict=True):
        if not SMALL_ORDER <= order <= MAX_ORDER:
            raise ValueError(f"{name} ring of order {order}: must be {SMALL_ORDER} to {MAX_ORDER}")
    if orders.left == orders.right and orders.left in IN_PAGE:
        raise ValueError(f"two rings of order {orders.left} would lie on top of each other")


def _outside(order: int) -> int:
    """Bytes that a ring takes after the header page."""
    return 0 if order in IN_PAGE else 1 << order


def left(orders: Orders) -> Span:
    """The ring that the client writes."""
    return Span(IN_PAGE.get(orders.left, PAGE), 1 << orders.left)


def right(orders: Orders) -> Span:
    """The ring that the server writes."""
    return Span(IN_PAGE.get(orders.right, PAGE + _outside(orders.left)), 1 << orders.right)


def size(orders: Orders) -> int:
    """Bytes of shared memory that a vchan takes, header page included."""
    check(orders)
    return PAGE + _outside(orders.left) + _outside(orders.right)
