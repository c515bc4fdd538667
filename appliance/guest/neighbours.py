"""The neighbours of a Xen guest: who is at the other end of each channel, as the xenstore says, and meeting them.

The monitor writes the domain id of a channel's peer to ``septum/channel/N/peer`` of our own home, and nothing while it
is down. A new id is a new domain: the last meeting is over, whatever its pages look like. The server of a channel then
offers new pages and says how in its ``data/channel/N``; the client follows what stands there. The peer may write there
what it likes, as often as it likes: it is read only for who the monitor says the peer is, checked, tried at most a few
times a second, and a failure is the same as not being there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from appliance.guest.loop import Guest, Turn
from appliance.guest.ports import Port
from appliance.vchan.grants import ClientWire, GrantError, Meeting, ServerWire
from appliance.xen.xenstore import Xenstore
from appliance.xen.xswire import number

HOME: Final = "septum"
GO: Final = "septum/go"
_FIRST_RESERVED: Final = 0x7FF0  # DOMID_FIRST_RESERVED: no domain has this id or a higher one
_BURST: Final = 64  # events taken in one turn
_REST: Final = 0.1  # seconds between two looks at one channel
_AHEAD: Final = 0.5  # of them, how many seconds' worth may follow each other at once: to meet takes three or four


class Neighbour:
    """The channel of ``port`` over ``wire``, which has the number ``channel`` in the assembly."""

    def __init__(self, channel: int, port: Port, wire: ServerWire | ClientWire) -> None:
        self.channel = channel
        self.port = port
        self.wire = wire
        self.domid: int | None = None
        self.meeting: Meeting | None = None  # the one attached, or last tried
        self.is_pending = True  # the xenstore has news of it that were not seen to
        self.not_before = 0.0

    @property
    def place(self) -> str:
        """Where the server says how to meet, below its home."""
        return f"data/channel/{self.channel}"


class Neighbours:
    """A source of the loop: meets and leaves the peers of ``neighbours`` as the xenstore says.

    Errors of all methods: OSError, XenstoreFault if the xenstore is of no more use; the domain then ends.
    """

    def __init__(self, store: Xenstore, guest: Guest, neighbours: Sequence[Neighbour]) -> None:
        self._store = store
        self._guest = guest
        self._by_token = {str(neighbour.channel): neighbour for neighbour in neighbours}
        store.watch(HOME, HOME)

    def is_go(self) -> bool:
        """Whether the monitor says that the whole box is built."""
        return self._store.read(GO) == "1"

    # a source ---------------------------------------------------------------------------------------------------------

    def turn(self, now: float) -> Turn:
        """Takes what events there are, and sees to the channels that they are about."""
        store = self._store
        is_more = store.hear()
        for _ in range(min(_BURST, len(store.events))):
            event = store.events.popleft()
            for neighbour in self._by_token.values() if event.token == HOME else [self._by_token.get(event.token)]:
                if neighbour is not None:
                    neighbour.is_pending = True
        for neighbour in self._by_token.values():
            if neighbour.is_pending and now >= neighbour.not_before:
                # Whatever comes of it: a peer that changes its word all the time has us look no more often
                neighbour.not_before = max(neighbour.not_before, now - _AHEAD) + _REST
                self._see_to(neighbour, now)
        return Turn.MORE if is_more or store.events else Turn.IDLE

    def arm(self) -> bool:
        """Whether nothing is left; a channel that was not met is tried again at the next look everywhere."""
        return not self._store.events

    # meeting ------------------------------------------------------------------------------------------------------

    def _see_to(self, neighbour: Neighbour, now: float) -> None:
        neighbour.is_pending = False
        domid = number(self._store.read(f"{HOME}/channel/{neighbour.channel}/peer"), _FIRST_RESERVED - 1)
        if domid != neighbour.domid:
            self._leave(neighbour)
            self._follow(neighbour, domid)
        if domid is None:
            return
        if isinstance(neighbour.wire, ServerWire):
            is_met = neighbour.wire.is_attached or self._offer(neighbour, neighbour.wire, domid)
        else:
            is_met = self._accept(neighbour, neighbour.wire, domid)
        if not is_met:
            neighbour.is_pending = True
            neighbour.not_before = now + _REST

    def _leave(self, neighbour: Neighbour) -> None:
        neighbour.wire.detach()
        neighbour.meeting = None
        self._guest.progress(neighbour.port)

    def _follow(self, neighbour: Neighbour, domid: int | None) -> None:
        """The peer is ``domid`` from now on."""
        is_client = isinstance(neighbour.wire, ClientWire)
        token = str(neighbour.channel)
        if is_client and neighbour.domid is not None:
            self._store.unwatch(f"/local/domain/{neighbour.domid}/{neighbour.place}", token)
        neighbour.domid = domid
        if is_client and domid is not None:
            self._store.watch(f"/local/domain/{domid}/{neighbour.place}", token)

    def _offer(self, neighbour: Neighbour, wire: ServerWire, domid: int) -> bool:
        try:
            meeting = wire.offer(domid)
        except OSError:
            return False  # what was lent to the last peer is not all free yet, or this one is gone already
        self._guest.progress(neighbour.port)  # writes our bytes into the new header before anyone is told of it
        # The port first: who finds the reference finds the port that belongs to it
        self._store.write(f"{neighbour.place}/event-channel", str(meeting.port))
        self._store.write(f"{neighbour.place}/ring-ref", str(meeting.ring_ref))
        neighbour.meeting = meeting
        return True

    def _accept(self, neighbour: Neighbour, wire: ClientWire, domid: int) -> bool:
        meeting = self._offered(domid, neighbour.place)
        if meeting == neighbour.meeting and wire.is_attached:
            return True
        self._leave(neighbour)
        if meeting is None:
            return True  # its watch will tell
        try:
            wire.accept(domid, meeting)
        except GrantError:
            return False
        neighbour.meeting = meeting
        self._guest.progress(neighbour.port)
        return True

    def _offered(self, domid: int, place: str) -> Meeting | None:
        found = []
        for name in ("ring-ref", "event-channel"):
            try:
                found.append(number(self._store.read(f"/local/domain/{domid}/{place}/{name}")))
            except PermissionError:
                found.append(None)  # not ours to read yet
        ring_ref, port = found
        return Meeting(ring_ref, port) if ring_ref and port else None
