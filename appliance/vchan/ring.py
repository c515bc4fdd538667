"""One end of a vchan: two byte rings in memory that is shared with a peer who may do anything to it.

What is trusted is local: this end's two indices, the sizes and places of the rings, the state. The shared copies of our
own indices are only ever stored. The peer's index is loaded once per use into a local and must leave between 0 and
``size`` bytes in the ring. Data is copied out before anyone looks at it.

Indices count bytes modulo 2**32 and are stored by ``memoryview.cast("I")[i] = v``: one 32-bit store, which a reader
never sees in halves (``struct.pack_into`` goes byte by byte). Between the data and the index that publishes it no fence
is needed on x86-64, whose stores appear in order and whose loads do too; between "I sleep" and "is there more?" one is.
"""

from __future__ import annotations

import _thread
import os
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Final

from appliance.vchan import layout
from appliance.vchan.frame import HEADER, HEADER_BYTES
from appliance.vchan.layout import Orders
from appliance.vchan.live import SHOWN, TABLE, Event, State
from appliance.vchan.reach import Indices

MASK: Final = 0xFFFFFFFF
_MACHINE: Final = os.uname().machine  # asked once: who is sealed may not ask any more, and yet meet somebody new
_OPEN: Final = State.OPEN  # here and below: a member of an enumeration takes two look-ups each time
_LIVE: Final = layout.LIVE
_SMALL: Final = 2048  # bytes: to that many, joining the pieces costs less than writing each


class Side(Enum):
    """One end: The server (consumer, callee) reads left and writes right, the client the reverse."""

    SERVER = "server"
    CLIENT = "client"

    @property
    def other(self) -> Side:
        return Side.CLIENT if self is Side.SERVER else Side.SERVER

    @property
    def live(self) -> int:
        """Offset of the byte in which this side shows its state."""
        return layout.SRV_LIVE if self is Side.SERVER else layout.CLI_LIVE

    @property
    def wants(self) -> int:
        """Offset of the byte in which this side asks to be woken: libxenvchan's server asks in ``cli_notify``."""
        return layout.CLI_NOTIFY if self is Side.SERVER else layout.SRV_NOTIFY

    @property
    def cons(self) -> int:
        """Offset of the index up to which this side has read."""
        return layout.LEFT_CONS if self is Side.SERVER else layout.RIGHT_CONS

    @property
    def prod(self) -> int:
        """Offset of the index up to which this side has written."""
        return layout.RIGHT_PROD if self is Side.SERVER else layout.LEFT_PROD


class PeerViolation(Exception):
    """The peer broke the rules of the channel; the message says which. The channel to it is closed."""


_lock = _thread.allocate_lock()  # `threading` is much besides, and there is one thread
_acquire, _release = _lock.acquire, _lock.release


def fence() -> None:
    """A full memory barrier: what was stored before is visible before anything after is loaded.

    Acquiring a lock is a locked read-modify-write, which on x86-64 orders everything around it. Nobody else holds it.
    """
    _acquire()
    _release()


class Vchan(Indices):
    """``side``'s end of the vchan in ``memory`` (writable bytes, ``layout.size(orders)`` of them).

    ``first`` is where indices start in each session, at both ends: 0 but for tests that want to see 2**32 soon.

    Errors: ValueError if the memory is not of that size; RuntimeError on a machine whose memory order is weaker than
    this code was written for.
    """

    # Nearly twice as fast as attributes of a class with a compiled base are without
    __slots__ = (
        "_cons_word",
        "_first",
        "_header",
        "_in",
        "_in_size",
        "_live",
        "_out",
        "_out_size",
        "_peer_cons_word",
        "_peer_live",
        "_peer_prod_word",
        "_peer_wants",
        "_prod_word",
        "_shared",
        "_wants",
        "_words",
        "state",
    )

    def __init__(self, memory: memoryview, side: Side, orders: Orders, first: int = 0) -> None:
        if _MACHINE != "x86_64":
            raise RuntimeError(f"the ring relies on the store order of x86-64, which {_MACHINE} does not promise")
        if memory.format != "B" or memory.nbytes != layout.size(orders):
            raise ValueError(f"rings {orders} take {layout.size(orders)} bytes, not {memory.nbytes} of {memory.format}")
        left, right = layout.left(orders), layout.right(orders)
        into, out = (left, right) if side is Side.SERVER else (right, left)
        peer = side.other
        self._shared = memory
        self._words = memory[: layout.GRANTS].cast("I")
        self._in = memory[into.offset : into.offset + into.size]
        self._out = memory[out.offset : out.offset + out.size]
        self._in_size, self._out_size = into.size, out.size
        self._cons_word, self._prod_word = side.cons // 4, side.prod // 4
        self._peer_cons_word, self._peer_prod_word = peer.cons // 4, peer.prod // 4
        self._live, self._peer_live = side.live, peer.live
        self._wants, self._peer_wants = side.wants, peer.wants
        self._first = first & MASK
        self._forget()
        self._enter(State.ABSENT)

    def _forget(self) -> None:
        self._cons = self._prod = self._first
        # What the peer's indices were when last looked at; they are looked at again only when that is not enough
        self._seen_cons = self._seen_prod = self._first
        self._header: tuple[int, int] | None = None  # of the frame that is not all there yet: length and serial
        self._is_partial = False  # whether there is one

    def _enter(self, state: State) -> None:
        self.state = state
        self._is_up = state is _OPEN
        if state is State.WAITING:
            # The peer is known not to be live, so nobody is looking at these.
            self._forget()
            self._leave()
            self._words[self._cons_word] = self._cons
            self._words[self._prod_word] = self._prod
            self._shared[self._wants] = 0
        self._shared[self._live] = SHOWN[state]

    def _leave(self) -> None:
        """The last session is over, at both ends: whatever is still in the rings is nobody's."""

    # opening and closing

    @property
    def peer_is_live(self) -> bool:
        """What the peer's live byte says now."""
        return self._shared[self._peer_live] == layout.LIVE

    @property
    def is_live(self) -> bool:
        """Whether the session is open, and the peer says so too."""
        return self.state is _OPEN and bool(self._shared[self._peer_live] == _LIVE)

    def is_settled(self) -> bool:
        """False if ``progress`` has something to do."""
        if self.is_live:
            return True  # nearly always
        untrusted_byte = self._shared[self._peer_live]
        row = TABLE.get((self.state, untrusted_byte))
        return self.state is State.SHUT if row is None else row[0] is self.state

    def progress(self) -> Event | None:
        """Takes the steps that the peer's live byte allows, up to the first that the component is told of.

        Errors: PeerViolation for a byte that is none of 0, 1, 2.
        """
        while True:
            untrusted_byte = self._shared[self._peer_live]
            row = TABLE.get((self.state, untrusted_byte))
            if row is None:
                if self.state is State.SHUT:
                    return None
                raise PeerViolation(f"live byte is {untrusted_byte}")
            state, event = row
            if state is self.state:
                if state is State.WAITING:
                    # Once more: what the peer scribbled over our bytes before it died is not ours for its next life
                    self._enter(state)
                return None
            self._enter(state)
            if event is not None or state is State.OFFERED:
                return event  # OFFERED ends the call too, or a peer that flips its byte could keep us in this loop

    def close(self) -> None:
        """Ends the session in good order. Once the peer has noticed, the next one may open."""
        if self.state is not State.SHUT:
            self._enter(State.ABSENT)

    def shut(self) -> None:
        """Ends the session because of what the peer did: none opens until it has died."""
        self._enter(State.SHUT)

    # reading

    def has(self, count: int) -> bool:
        """Whether ``count`` bytes can be read.

        Errors: PeerViolation if the peer's index is out of bounds.
        """
        return self._in_size >= (self._seen_prod - self._cons) & MASK >= count or self._look() >= count

    def _look(self) -> int:
        """How many bytes can be read by the peer's index as it is now. Errors: as ``has``."""
        untrusted_prod = self._words[self._peer_prod_word]
        ready = (untrusted_prod - self._cons) & MASK
        if ready > self._in_size:
            self._out_of_bounds(f"prod {untrusted_prod} with cons {self._cons} in a ring of {self._in_size}")
            return 0
        self._seen_prod = untrusted_prod
        return ready

    @property
    def is_empty(self) -> bool:
        """Whether the peer's index says that it has written nothing more."""
        return bool(self._words[self._peer_prod_word] == self._cons)

    def copy(self, count: int, skip: int = 0) -> bytes:
        """The ``count`` bytes after the next ``skip``, copied. The caller has made sure that the ring ``has`` them."""
        start = (self._cons + skip) & (self._in_size - 1)
        end = start + count
        if end <= self._in_size:
            return bytes(self._in[start:end])
        return b"".join((self._in[start:], self._in[: end - self._in_size]))

    def take_frame(self, largest: int, serial: int | None) -> tuple[int, bytes] | None:
        """The next whole frame (frame.py): its serial and its message; None if it is not all there yet.

        The header is read once, and the message only once it is all there: both are copies before they are looked at.
        Errors: PeerViolation, as ``has``, for a message of more than ``largest`` bytes, or another serial than
        ``serial`` if that is given.
        """
        cons, size = self._cons, self._in_size
        ready = (self._seen_prod - cons) & MASK
        header = self._header
        if header is None:
            if ready < HEADER_BYTES:
                ready = self._look()
                if ready < HEADER_BYTES:
                    return None
            start = cons & (size - 1)
            if start + HEADER_BYTES <= size:
                header = HEADER.unpack_from(self._in, start)
            else:
                header = HEADER.unpack(self.copy(HEADER_BYTES))
            if header[0] > largest:
                raise PeerViolation(f"frame of {header[0]} bytes, at most {largest} are legal")
            if serial is not None and header[1] != serial:
                raise PeerViolation(f"frame {header[1]} where {serial} is due")
        length = header[0]
        if ready < HEADER_BYTES + length:
            ready = self._look()
            if ready < HEADER_BYTES + length:
                self._header, self._is_partial = header, True
                return None
        if self._header is not None:
            self._header, self._is_partial = None, False
        start = (cons + HEADER_BYTES) & (size - 1)
        if start + length <= size:
            untrusted = bytes(self._in[start : start + length])
        else:
            untrusted = self.copy(length, HEADER_BYTES)
        self.consume(HEADER_BYTES + length)
        return header[1], untrusted

    @property
    def needed(self) -> int:
        """How many bytes the ring must have for ``take_frame`` to have anything to do."""
        return HEADER_BYTES if self._header is None else HEADER_BYTES + self._header[0]

    def consume(self, count: int) -> None:
        """Gives ``count`` bytes of the ring back to the peer."""
        self._cons = cons = (self._cons + count) & MASK
        self._words[self._cons_word] = cons

    def is_silent(self) -> bool:
        """Whether the peer has never written in this session."""
        return self._words[self._peer_prod_word] == self._first

    # writing

    def fits(self, count: int) -> bool:
        """Whether ``count`` bytes can be written.

        Errors: PeerViolation if the peer's index is out of bounds.
        """
        if self._out_size - ((self._prod - self._seen_cons) & MASK) >= count:
            return True
        untrusted_cons = self._words[self._peer_cons_word]
        used = (self._prod - untrusted_cons) & MASK
        if used > self._out_size:
            self._out_of_bounds(f"cons {untrusted_cons} with prod {self._prod} in a ring of {self._out_size}")
            return False
        self._seen_cons = untrusted_cons
        return self._out_size - used >= count

    def write(self, chunks: Iterable[bytes | bytearray | memoryview], count: int) -> None:
        """Writes ``chunks``, ``count`` bytes in all, as one. The caller has made sure that they fit."""
        out, size = self._out, self._out_size
        prod = self._prod
        at = prod & (size - 1)
        for chunk in chunks if count > _SMALL else (b"".join(chunks),):
            end = at + len(chunk)
            if end < size:
                out[at:end] = chunk
                at = end
            else:
                here = size - at
                out[at:] = chunk[:here]
                at = end - size
                out[:at] = chunk[here:]
        self._prod = prod = (prod + count) & MASK
        self._words[self._prod_word] = prod

    # waking

    def want(self, bits: int) -> None:
        """Asks to be woken for ``bits`` (layout.NOTIFY_*), in order before whatever is looked at next."""
        self._shared[self._wants] = bits
        if bits:
            _acquire()
            _release()

    def is_wanted(self, bits: int) -> bool:
        """Whether the peer asked to be woken for one of ``bits``; a ``fence`` lies behind what it would wake for."""
        return bool(self._shared[self._peer_wants] & bits)

    def _out_of_bounds(self, why: str) -> None:
        # An end that was rebuilt zeroes its indices while we may still believe in the last session. It stored its live
        # byte first, so whoever sees the zeroes sees that too, and it did nothing wrong.
        if self.peer_is_live:
            raise PeerViolation(why)


class SecretVchan(Vchan):
    """A vchan that forgets: what was read, and what a session leaves unread, is zeroed in the shared memory.

    Without this a ring keeps what has passed through it until it is written over, and whoever breaks into an end would
    read keys there that were used and wiped long ago. The reader does it, since it is the one who knows when it has
    read; a writer that is hostile has the secrets anyway.
    """

    __slots__ = ()

    def consume(self, count: int) -> None:
        start = self._cons & (self._in_size - 1)
        here = min(count, self._in_size - start)
        self._in[start : start + here] = bytes(here)
        self._in[: count - here] = bytes(count - here)
        super().consume(count)

    def _leave(self) -> None:
        self._in[:] = bytes(self._in_size)
        self._out[:] = bytes(self._out_size)


__all__: Sequence[str] = ["MASK", "PeerViolation", "SecretVchan", "Side", "Vchan", "fence"]
