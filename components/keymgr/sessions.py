"""Sessions and the three places a peer keeps them in: the old, the present, and the one yet to be confirmed."""

from __future__ import annotations

from dataclasses import dataclass, field

from components.keymgr.noise import wipe


@dataclass(slots=True, eq=False)
class Session:
    """What is known of one pair of transport keys once the keys themselves are gone."""

    peer: int  # number
    index: int  # ours
    receiver: int  # the peer's
    is_initiator: bool
    created: float
    send_key: bytearray | None = field(default=None, repr=False)  # only until it is handed out
    sends: bool = False  # encrypt was given the send key, and lives
    sent: int = 0  # packets, by encrypt's last report
    sent_data: int = 0
    sent_bytes: int = 0
    received: int = 0  # packets, by decrypt's last report
    received_data: int = 0
    received_bytes: int = 0

    @property
    def jitter(self) -> float:
        """A number in 0 to 1 that the two ends of a session do not share; the index is random already."""
        return self.index % 2**16 / 2**16

    def take_send_key(self) -> bytearray:
        """The send key, once. It is the caller's to wipe."""
        key = self.send_key
        if key is None:
            raise ValueError("a send key is handed out once in its life")
        self.send_key = None
        self.sends = True
        return key

    def wipe(self) -> None:
        if self.send_key is not None:
            wipe(self.send_key)
            self.send_key = None


class Keyring:
    """``current`` is sent with; all three are received with. Each method returns the sessions it pushed out.

        event                previous          current   next
        began (initiator)    next or current   new       -
        answered (responder) previous          current   new
        confirmed            current           next      -

    An initiator knows that its peer has the keys, since the response proves it. A responder learns so by the first
    packet that arrives under them (5.4.6), and must not send before that. Until then ``previous`` stays as well: after
    two handshakes at once it is what the peer still sends with.
    """

    __slots__ = ("current", "next", "previous")

    def __init__(self) -> None:
        self.previous: Session | None = None
        self.current: Session | None = None
        self.next: Session | None = None

    def all(self) -> list[Session]:
        return [session for session in (self.previous, self.current, self.next) if session is not None]

    def _set(self, previous: Session | None, current: Session | None, next_: Session | None) -> list[Session]:
        before = self.all()
        self.previous, self.current, self.next = previous, current, next_
        return [session for session in before if session not in self.all()]

    def began(self, new: Session) -> list[Session]:
        return self._set(self.next or self.current, new, None)

    def answered(self, new: Session) -> list[Session]:
        return self._set(self.previous, self.current, new)

    def confirmed(self) -> list[Session]:
        return self._set(self.current, self.next, None)

    def remove(self, session: Session) -> list[Session]:
        keep = (None if held is session else held for held in (self.previous, self.current, self.next))
        return self._set(*keep)

    def clear(self) -> list[Session]:
        return self._set(None, None, None)
