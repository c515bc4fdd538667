"""One end of a channel: whole, checked messages in and out of a vchan. What the guest's ports are made of.

Nothing here sleeps or reads a clock. The loop above calls ``progress`` each turn, sends and receives, ``flush``es once,
and sleeps on ``fileno`` only between ``arm`` and ``disarm``.

Closing: an end that closes, dies or is shut out is seen at the next ``progress`` as "closed"; what was sent and not
yet received is lost with the session, and the next one starts from serial 0. A session opens by itself ("opened") as
soon as both ends agree that the last one is over.

Back-pressure: ``send`` returns False when the message does not fit, and nothing of it is written; ``room`` says whether
the largest would; ``arm(space=True)`` has the peer wake us when it has read. Only the caller knows whether to drop or
to wait, and how long.

A peer that is dead is "closed". One that is stalled looks like a full or an empty ring for as long as the caller cares
to wait: that is the caller's deadline. One that breaks the rules is PeerViolation, raised by ``receive`` and
``progress`` only; the endpoint has then closed itself until that peer has died and its replacement attached. ``send``,
``room`` and ``arm`` may find a violation too (the peer's index is theirs to read): they say no, and the next
``progress`` raises it, so that a component in the midst of something else is never interrupted by its peer's fault.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from appliance.vchan.codec import Codec
from appliance.vchan.frame import HEADER, HEADER_BYTES, frame_bytes
from appliance.vchan.layout import NOTIFY_READ, NOTIFY_WRITE
from appliance.vchan.live import Event, State
from appliance.vchan.reach import Serials, quick
from appliance.vchan.ring import MASK, PeerViolation, SecretVchan, Side, Vchan, fence
from appliance.vchan.schema import Kind, Schema
from appliance.vchan.wire import Wire
from appliance.vchan.wireformat import Violation

_OPEN: Final = State.OPEN
# by (space, data)
_WANTS: Final = {
    (False, False): 0,
    (False, True): int(NOTIFY_WRITE),
    (True, False): int(NOTIFY_READ),
    (True, True): NOTIFY_WRITE | NOTIFY_READ,
}


class Statistics(NamedTuple):
    """What one end did since it attached. Messages, and their bytes without frame headers."""

    sent: int
    received: int
    sent_bytes: int
    received_bytes: int
    dropped: int
    """``send`` returned False: no room, or nobody there."""
    stale: int
    """Replies to requests that were given up."""


class Endpoint(Serials):
    """``side``'s end of a channel of ``schema`` over ``wire``.

    CLIENT is the producer of a stream or the caller, SERVER the consumer or the callee. Both begin closed. ``first`` is
    where ring indices start, for tests.
    """

    __slots__ = (
        "_decode",
        "_dropped",
        "_encode",
        "_has_read",
        "_has_written",
        "_hear",
        "_is_callee",
        "_is_caller",
        "_largest_in",
        "_largest_out",
        "_quick",
        "_stale",
        "_unanswered",
        "_vchan",
        "_violation",
        "_wire",
        "schema",
        "side",
        "unflushed",
    )

    def __init__(self, wire: Wire, side: Side, schema: Schema, first: int = 0) -> None:
        self.schema = schema
        self.side = side
        self._wire = wire
        self._hear = wire.hear
        kind = SecretVchan if "KEY" in schema.labels else Vchan
        self._vchan = kind(wire.memory, side, schema.orders, first)
        into, out = (schema.forward, schema.backward) if side is Side.SERVER else (schema.backward, schema.forward)
        coming = Codec(into) if into is not None else None
        going = Codec(out) if out is not None else None
        self._decode = coming.decode if coming else None
        self._largest_in = into.max_bytes if into is not None else 0
        self._encode = going.encode if going else None
        self._largest_out = frame_bytes(out.max_bytes) if out is not None else 0
        flats = (coming.flat if coming else None, going.flat if going else None)
        self._quick = quick(self, *flats) if any(flats) and schema.kind is Kind.STREAM and kind is Vchan else None
        """Is asked first, and does what is plain (short.pyx); None where it was not compiled. The two hold each other:
        who makes many ends leaves them to the garbage collector."""
        self._is_caller = schema.kind is Kind.CALL and side is Side.CLIENT
        self._is_callee = schema.kind is Kind.CALL and side is Side.SERVER
        self._violation: PeerViolation | None = None
        self.unflushed: list[Endpoint] = []
        """Whoever flushes may put a list of its own here: an end appends itself when it has written."""
        self._sent = self._received = self._sent_bytes = self._received_bytes = self._dropped = self._stale = 0
        self._begin()
        wire.notify()

    def _begin(self) -> None:
        """A new session."""
        self._next_out = 0  # serial of the next frame we number: a stream's, or a request
        self._next_in = 0  # serial of the next frame the peer numbers; a caller: of the first reply not yet seen
        self._unanswered: int | None = None  # a callee's: serial of the request that send() will answer
        self._has_written = self._has_read = False

    # the session

    @property
    def is_open(self) -> bool:
        """Whether messages can pass, as of the last ``progress``."""
        return self._vchan.state is _OPEN

    @property
    def is_wronged(self) -> bool:
        """Whether the next ``progress`` raises what was found since the last."""
        return self._violation is not None

    @property
    def is_settled(self) -> bool:
        """Whether ``progress`` has nothing to do."""
        return self._violation is None and self._vchan.is_settled()

    @property
    def peer_is_live(self) -> bool:
        """Whether the peer says now that it is there: what ``progress`` would go by."""
        return self._vchan.peer_is_live

    def progress(self) -> Event | None:
        """Follows the peer's opening and closing, up to the next event that the component should hear of, if any.

        Errors: PeerViolation, after which this end is closed.
        """
        vchan = self._vchan
        if self._violation is not None:
            violation, self._violation = self._violation, None
            raise violation
        before = vchan.state
        try:
            event = vchan.progress()
            if self._decode is None and vchan.state is _OPEN:
                self._hear_nothing()
        except PeerViolation:
            self._shut()
            raise
        if vchan.state is not before:
            self._wire.notify()
            if event == "opened":
                self._begin()
        return event

    def close(self) -> None:
        """Ends the session and tells the peer. ``progress`` opens the next one when the peer has noticed."""
        self._vchan.close()
        self._wire.notify()

    def _shut(self) -> None:
        self._vchan.shut()
        self._wire.notify()

    def _accuse(self, violation: PeerViolation) -> None:
        """Keeps for ``progress`` what was found where it may not be raised."""
        self._shut()
        self._violation = violation
        self.unflushed.append(self)

    def _hear_nothing(self) -> None:
        if not self._vchan.is_silent():
            raise PeerViolation("wrote into the back ring of a stream")

    # sending

    def send(self, message: Any) -> bool:
        """Writes one message: a stream's, a request, or the reply to the request last received.

        False: it was dropped (and counted) because the peer is not there, or there is no room, or the request came in
        an earlier session; nothing of it was written. The peer is woken by ``flush``.

        Errors: Violation (a ValueError) naming the field if our own message breaks the schema; TypeError if it is
        another message; RuntimeError if this end is a stream's consumer and has nothing to say.
        """
        if self._quick is not None and self._quick.send(message):
            if not self._has_written:
                self._has_written = True
                self.unflushed.append(self)
            return True
        if self._encode is None:
            raise RuntimeError(f"{self.schema.name} is a stream, and this is its consumer")
        chunks = self._encode(message)
        total = HEADER_BYTES
        for chunk in chunks:
            total += len(chunk)
        vchan = self._vchan
        serial: int | None = self._next_out
        if self._is_callee:
            serial, self._unanswered = self._unanswered, None
        try:
            if serial is None or vchan.state is not _OPEN or not vchan.fits(total):
                self._dropped += 1
                return False
        except PeerViolation as violation:
            self._accuse(violation)
            self._dropped += 1
            return False
        if not self._is_callee:
            self._next_out = (serial + 1) & MASK
        vchan.write((HEADER.pack(total - HEADER_BYTES, serial) + chunks[0], *chunks[1:]), total)
        if not self._has_written:
            self._has_written = True
            self.unflushed.append(self)
        self._sent += 1
        self._sent_bytes += total - HEADER_BYTES
        return True

    def room(self) -> bool:
        """Whether a message of the largest size would be sent now."""
        if self._quick is not None and self._quick.room():
            return True
        vchan = self._vchan
        try:
            return self._encode is not None and vchan.state is _OPEN and vchan.fits(self._largest_out)
        except PeerViolation as violation:
            self._accuse(violation)
            return False

    # receiving

    def receive(self) -> Any:
        """The next whole message, or None if there is none yet. A caller gets the reply to its last request only.

        Flat messages hold a view of their own copy, others are protobuf objects; the peer can change neither any more.

        Errors: PeerViolation for whatever the peer did wrong, after which this end is closed.
        """
        if self._quick is not None and (message := self._quick.receive()) is not None:
            self._has_read = True
            return message
        vchan = self._vchan
        if vchan.state is not _OPEN:
            return None
        try:
            if self._decode is None:
                self._hear_nothing()
                return None
            while True:
                frame = vchan.take_frame(self._largest_in, None if self._is_caller else self._next_in)
                if frame is None:
                    return None
                serial, untrusted = frame
                if self._is_caller:
                    self._check_reply(serial)
                self._has_read = True
                self._next_in = (serial + 1) & MASK
                message = self._decode(untrusted)
                if self._is_caller and self._next_in != self._next_out:
                    self._stale += 1  # the reply to a request that was given up: it must not be taken for the next's
                    continue
                self._unanswered = serial
                self._received += 1
                self._received_bytes += len(untrusted)
                return message
        except PeerViolation:
            self._shut()
            raise
        except Violation as violation:
            self._shut()
            raise PeerViolation(f"sent a bad message: {violation}") from violation

    def has_more(self) -> bool:
        """Whether there is something behind the message last received."""
        return not self._vchan.is_empty

    def _check_reply(self, untrusted_serial: int) -> None:
        """Replies may be missing but come in order, each once, and only to what was asked."""
        outstanding = (self._next_out - self._next_in) & MASK
        if (untrusted_serial - self._next_in) & MASK >= outstanding:
            raise PeerViolation(f"reply {untrusted_serial} answers no request")

    # sleeping and waking

    def flush(self) -> None:
        """Wakes the peer if it asked for it and anything was written or read since the last ``flush``."""
        bits = (NOTIFY_WRITE if self._has_written else 0) | (NOTIFY_READ if self._has_read else 0)
        if bits:
            fence()
            self._wake(bits)

    def _wake(self, bits: int) -> None:
        """Wakes the peer if it asked for one of ``bits``; a fence lies behind what was written and read."""
        self._has_written = self._has_read = False
        if self._vchan.is_wanted(bits):
            self._wire.notify()

    def arm(self, space: bool, data: bool = True) -> bool:
        """About to sleep on ``fileno``: asks to be woken for a change of the session, for ``data`` and for ``space``.

        True: nothing is left to do, and whatever comes from now on makes ``fileno`` readable. False: there is something
        already (a message if ``data``, room for the largest one if ``space``, a step for ``progress``): do not sleep.
        Without ``data`` messages stay where they are: whoever cannot pass them on yet sleeps until there is room.
        Flushes what was read on the way, for the fence that it needs anyway.
        """
        vchan = self._vchan
        vchan.want(_WANTS[space, data])
        if self._has_read and not self._has_written:
            self._wake(NOTIFY_READ)
        if not self.is_settled:
            return False
        if vchan.state is not _OPEN:
            return True
        try:
            if self._decode is None:
                self._hear_nothing()
            elif data and vchan.has(vchan.needed):
                return False
            return not (space and self._encode is not None and vchan.fits(self._largest_out))
        except PeerViolation as violation:
            self._accuse(violation)
            return False

    def disarm(self) -> bool:
        """Awake: the peer need not notify. Returns whether the session is open and well; else ``progress`` is due."""
        self._hear()
        self._vchan.want(0)
        return self._violation is None and self._vchan.is_live

    def fileno(self) -> int:
        """The event to sleep on, edge-triggered."""
        return self._wire.fileno()

    @property
    def notify_fd(self) -> int | None:
        """The descriptor whose writing wakes the peer, if the wire has one."""
        return getattr(self._wire, "notify_fd", None)

    @property
    def statistics(self) -> Statistics:
        """A snapshot."""
        return Statistics(
            self._sent,
            self._received,
            self._sent_bytes,
            self._received_bytes,
            self._dropped,
            self._stale,
        )
