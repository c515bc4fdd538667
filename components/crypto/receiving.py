"""The core of `decrypt`: WireGuard transport datagrams in, plaintext packets out (WireGuard paper, section 5.4.6).

Bytes and time in, bytes out. Every datagram is hostile until its tag was checked, and its sender until the source of
the packet in it was: a peer may speak for its own AllowedIPs and for nobody else.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from septum.v1.received import ReceiveReport
from septum.v1.receiving import ReceiveForget, ReceiveOnly, ReceiveOrder, ReceivePeer, ReceiveSession

from appliance.vchan.codec import Buffer
from appliance.vchan.messages import Packets
from components.crypto import twin
from components.crypto.constants import (
    GROUP_PACKET_BYTES,
    HEADER,
    KEY_BYTES,
    MOST_SESSIONS,
    OVERHEAD,
    REJECT_AFTER_MESSAGES,
    REJECT_AFTER_TIME,
    REPORT_INTERVAL,
    TRANSPORT_DATA,
    URGENT_INTERVAL,
)
from components.crypto.groups import Grouping
from components.crypto.ip import SOURCE, look
from components.crypto.once import Once
from components.crypto.pacing import Pacing
from components.crypto.refused import Refused
from components.crypto.replay import ReplayWindow
from components.crypto.routing import NO_PEER, CryptokeyRouting, absent

_LAST_REPORTS: Final = 1024


class _Session:
    """A receive key and its window."""

    __slots__ = ("born", "bytes", "data_packets", "endpoint", "number", "open", "opener", "packets", "peer", "window")

    def __init__(self, order: ReceiveSession, now: float) -> None:
        self.peer = order.peer
        self.number = order.session
        self.opener = twin.Opener(order.key)
        self.open = self.opener.open
        self.window = ReplayWindow()
        self.born = now
        self.packets = 0
        self.data_packets = 0
        self.bytes = 0
        self.endpoint = (b"", 0)  # of the newest authentic datagram


class Receiver:
    """Opens datagrams with the sessions that the orders name.

    The groups that a call returns point into one buffer, which the next call overwrites.
    """

    def __init__(self) -> None:
        self._sessions: dict[int, _Session] = {}  # oldest first
        self._public_keys: dict[int, bytes] = {}  # of every peer that is known
        self._routing = CryptokeyRouting()
        self._once = Once()
        self._pacing = Pacing()
        self._ended: deque[ReceiveReport] = deque(maxlen=_LAST_REPORTS)
        self._grouping: Grouping[int] = Grouping(GROUP_PACKET_BYTES)
        self._out = memoryview(bytearray(GROUP_PACKET_BYTES))
        self.shorter: Any = None
        """The short way that datagrams may be leased to (short.pyx), if there is one."""
        self.counts = dict.fromkeys(
            "packets bytes groups keepalives unauthentic replayed unknown_session spoofed malformed".split(), 0
        )

    # datagrams --------------------------------------------------------------------------------------------------------

    def open(self, untrusted: memoryview, size: int, address: bytes, port: int, now: float) -> list[Packets]:
        """Opens a group: datagrams of ``size`` bytes back to back, of which the last may be shorter, from one endpoint.

        What is not authentic, was seen before, or speaks for others is dropped and counted. Never raises.
        """
        total = len(untrusted)
        is_endpoint = len(address) in (4, 16) and 0 < port < 65536
        if size < OVERHEAD or total > GROUP_PACKET_BYTES or not is_endpoint:
            self.counts["malformed"] += 1
            return []
        count, rest = divmod(total, size)
        endpoint = (address, port)
        self._open_run(untrusted, size, count, endpoint, now)
        if rest >= OVERHEAD:
            self._open_run(untrusted[total - rest :], rest, 1, endpoint, now)
        elif rest:
            self.counts["malformed"] += 1
        made = self._take()
        if self.shorter is not None and total == size and len(made) == 1:
            self._lease(untrusted, made[0].packets, endpoint)
        return made

    def _open_run(self, untrusted: memoryview, size: int, count: int, endpoint: tuple[bytes, int], now: float) -> None:
        """Opens the first ``count`` datagrams, of ``size`` bytes each, in runs.

        A run is of one session, and its counters go up by one: a bulk transfer is one run; a replay, a latecomer, a
        change of session is a run of its own.
        """
        counts, read_header = self.counts, HEADER.unpack_from
        end = size * count
        start = 0
        while start < end:
            stop = start + size
            kind, number, counter = read_header(untrusted, start)
            session = self._alive(number, now)
            if kind != TRANSPORT_DATA:
                counts["malformed"] += 1
            elif session is None:
                counts["unknown_session"] += 1
            # Before the key is used: a replay costs nothing. The window moves only for what was authentic
            elif counter >= REJECT_AFTER_MESSAGES or not session.window.is_fresh(counter):
                counts["replayed"] += 1
            else:
                length = 1
                if stop < end and counter >= session.window.next:  # then whatever follows it is new too
                    most = min((end - start) // size, REJECT_AFTER_MESSAGES - counter)
                    length = twin.succession(untrusted, start, size, most)
                    stop = start + length * size
                laid = self._open_some(session, untrusted, start, size, length, counter)
                counts["unauthentic"] += length - laid
                self._admit(session, size - OVERHEAD, laid, endpoint, now)
            start = stop

    def _open_some(
        self, session: _Session, untrusted: memoryview, start: int, size: int, count: int, counter: int
    ) -> int:
        """Lays down the plaintexts of the ``count`` datagrams from ``start`` on, whose counters go up; how many."""
        if self.shorter is not None:
            self.shorter.moved(session)
        authentic = session.open(untrusted, start, size, count, counter, self._out, self._grouping.end)
        laid = sum(authentic)
        if laid == count:
            session.window.commit_run(counter, count)
        elif laid:
            for i in range(count):
                if authentic[i]:
                    session.window.commit(counter + i)
        return laid

    def _alive(self, number: int, now: float) -> _Session | None:
        session = self._sessions.get(number)
        if session is not None and now - session.born >= REJECT_AFTER_TIME:
            self._end(session)
            return None
        return session

    def _admit(self, session: _Session, size: int, count: int, endpoint: tuple[bytes, int], now: float) -> None:
        """Of ``count`` authentic plaintexts of ``size`` bytes, keeps the packets that their sender may send."""
        if not count:
            return
        self._account(session, size, count, endpoint, now)
        if not size:
            self.counts["keepalives"] += count
            return
        out, grouping, counts = self._out, self._grouping, self.counts
        at = grouping.end
        stop = at + size * count
        while at < stop:
            until = at + size
            looked = look(out, at, size, SOURCE)
            if looked is None:
                counts["malformed"] += 1
            elif self._routing.owner(looked[1]) != session.peer:
                counts["spoofed"] += 1
            else:
                shape, _, length = looked
                if stop > until:
                    until = at + size * twin.alike(out, at, size, (stop - at) // size, *shape[1:])
                self._close_gaps(range(at, until, size), length)
                grouping.add(session.peer, length, (until - at) // size)
            at = until

    def _close_gaps(self, starts: range, length: int) -> None:
        """Moves packets of ``length`` bytes to where the grouping goes on: padding and refused packets leave gaps."""
        out, to = self._out, self._grouping.end
        if starts.start == to and starts.step == length:
            return
        for at in starts:
            out[to : to + length] = out[at : at + length]
            to += length

    def _account(self, session: _Session, size: int, count: int, endpoint: tuple[bytes, int], now: float) -> None:
        session.packets += count
        session.data_packets += count if size else 0
        session.bytes += count * (size + OVERHEAD)
        self.counts["packets"] += count
        self.counts["bytes"] += count * (size + OVERHEAD)
        # A peer is where its newest authentic packet came from (section 2.1), and the key manager must know at once
        moved = session.endpoint != endpoint
        session.endpoint = endpoint
        self._pacing.note(session.number, now, URGENT_INTERVAL if moved else REPORT_INTERVAL)

    def _take(self) -> list[Packets]:
        out = self._out
        groups = self._grouping.take()
        self.counts["groups"] += len(groups)
        return [Packets(out[start:stop], size, peer) for peer, start, stop, size in groups]

    # the short way ----------------------------------------------------------------------------------------------------

    def _lease(self, datagram: memoryview, packet: Buffer, endpoint: tuple[bytes, int]) -> None:
        """The next lone datagrams like this one need not come by here, as long as they come in succession, until there
        is something to report.
        """
        _, number, _ = HEADER.unpack_from(datagram)
        session = self._sessions[number]
        until = min(session.born + REJECT_AFTER_TIME, self._pacing.when(number))
        shape = SOURCE.v4 if packet[0] >> 4 == 4 else SOURCE.v6
        source = packet[shape.address : shape.address + shape.width]
        following = session.window.next
        self.shorter.lease(source, session, session.opener, number, session.peer, following, *endpoint, until)

    def _revoke(self) -> None:
        if self.shorter is not None:
            self.shorter.revoke()

    def went(self, session: _Session, packets: int, octets: int, first: int) -> None:
        """So much of ``session`` went the short way, under the counters from ``first`` on."""
        session.window.commit_run(first, packets)
        session.packets += packets
        session.data_packets += packets
        session.bytes += octets
        self.counts["packets"] += packets
        self.counts["bytes"] += octets
        self.counts["groups"] += packets

    # orders -----------------------------------------------------------------------------------------------------------

    def order(self, order: ReceiveOrder, now: float) -> None:
        """Obeys one order of the key manager. Errors: Refused, with nothing of the order done."""
        self._revoke()
        match order.WhichOneof("order"):
            case "peer":
                self._order_peer(order.peer)
            case "session":
                self._order_session(order.session, now)
            case "forget":
                self._order_forget(order.forget)
            case "only":
                self._order_only(order.only)
            case _:
                raise Refused("an order that orders nothing")

    def _order_peer(self, order: ReceivePeer) -> None:
        if order.peer == NO_PEER:
            raise Refused("0 is no peer")
        if len(order.public_key) != KEY_BYTES:
            raise Refused("a public key that is none")
        self._routing.replace(order.peer, ((prefix.address, prefix.bits) for prefix in order.allowed_ips))
        if self._public_keys.get(order.peer, order.public_key) != order.public_key:
            self._end_sessions({order.peer})  # they may not speak for the one that has their peer's number now
        self._public_keys[order.peer] = order.public_key

    def _order_session(self, order: ReceiveSession, now: float) -> None:
        if order.peer == NO_PEER:
            raise Refused("0 is no peer")
        if len(order.key) != KEY_BYTES:
            raise Refused("a key that is none")
        if not self._once.is_first(order.session):
            raise Refused(f"session {order.session} was handed out before")
        if len(self._sessions) >= MOST_SESSIONS:  # then a key manager died and left some behind: they are the oldest
            self._end(next(iter(self._sessions.values())))
        self._sessions[order.session] = _Session(order, now)

    def _order_forget(self, order: ReceiveForget) -> None:
        # It may have expired here just before: both sides count the same seconds
        session = self._sessions.get(order.session)
        if session is not None:
            self._end(session)

    def _order_only(self, order: ReceiveOnly) -> None:
        for number in absent(self._public_keys, order.peers):
            del self._public_keys[number]
            self._routing.replace(number, ())
        self._end_sessions(set(absent({session.peer for session in self._sessions.values()}, order.peers)))

    def _end_sessions(self, peers: set[int]) -> None:
        for session in [session for session in self._sessions.values() if session.peer in peers]:
            self._end(session)

    def _end(self, session: _Session) -> None:
        """Drops a session and its key; its totals go out once more."""
        self._revoke()
        del self._sessions[session.number]
        if self._pacing.pending(session.number):
            self._ended.append(self._totals(session))
        self._pacing.forget(session.number)

    # time and reports -------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Ends the sessions whose time is over."""
        sessions = self._sessions
        while sessions and now - (oldest := next(iter(sessions.values()))).born >= REJECT_AFTER_TIME:
            self._end(oldest)

    def due(self) -> float | None:
        """When ``tick`` or ``report`` have something to do, at the earliest; None for never."""
        if self._ended:
            return 0.0
        when = self._pacing.due()
        if self._sessions:
            expiry = next(iter(self._sessions.values())).born + REJECT_AFTER_TIME
            return expiry if when is None else min(when, expiry)
        return when

    def report(self, now: float) -> ReceiveReport | None:
        """The next report that is due; None if there is none."""
        if self._ended:
            return self._ended.popleft()
        number = self._pacing.pop(now)
        return None if number is None else self._totals(self._sessions[number])

    @staticmethod
    def _totals(session: _Session) -> ReceiveReport:
        address, port = session.endpoint
        return ReceiveReport(
            peer=session.peer,
            session=session.number,
            packets=session.packets,
            data_packets=session.data_packets,
            bytes=session.bytes,
            address=address,
            port=port,
        )
