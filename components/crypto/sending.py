"""The core of `encrypt`: plaintext packets in, WireGuard transport datagrams out (WireGuard paper, section 5.4.6).

Bytes and time in, bytes out. The one way for plaintext to leave the box is `Sender.seal`, and all it can do with a
packet is to seal it for the peer that the packet's destination belongs to.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from septum.v1.sending import SendEndpoint, SendForget, SendKeepalive, SendOnly, SendOrder, SendPeer, SendSession
from septum.v1.sent import SendReport

from appliance.vchan.messages import Datagrams
from components.crypto import twin
from components.crypto.constants import (
    GROUP_DATAGRAM_BYTES,
    GROUP_PACKET_BYTES,
    KEY_BYTES,
    OVERHEAD,
    PADDING,
    REJECT_AFTER_MESSAGES,
    REJECT_AFTER_TIME,
    REPORT_INTERVAL,
    STAGED_BYTES,
    STAGED_BYTES_IN_ALL,
    STAGED_PACKETS,
    URGENT_INTERVAL,
)
from components.crypto.groups import Grouping
from components.crypto.ip import DESTINATION, IPV4_HEADER, look
from components.crypto.once import Once
from components.crypto.pacing import Pacing
from components.crypto.refused import Refused
from components.crypto.routing import CryptokeyRouting, absent

# A group that is still open, and the most that one call can lay down behind it: the smallest packets grow the most, and
# a full stage grows by its overhead
_OUT_BYTES: Final = GROUP_DATAGRAM_BYTES + max(
    GROUP_PACKET_BYTES // IPV4_HEADER * (IPV4_HEADER + PADDING + OVERHEAD),
    STAGED_BYTES + STAGED_PACKETS * (PADDING + OVERHEAD),
)
_LARGEST_PACKET: Final = GROUP_DATAGRAM_BYTES - OVERHEAD
_LAST_REPORTS: Final = 1024


class _Session:
    """A send key and its counter."""

    __slots__ = ("born", "bytes", "data_packets", "number", "receiver", "seal", "sealer")

    def __init__(self, order: SendSession, now: float) -> None:
        self.number = order.session
        self.receiver = order.receiver
        self.sealer = twin.Sealer(order.key)
        self.seal = self.sealer.seal
        self.born = now
        self.data_packets = 0
        self.bytes = 0

    @property
    def counter(self) -> int:
        """The next one under this key."""
        return self.sealer.counter

    @counter.setter
    def counter(self, value: int) -> None:
        self.sealer.counter = value

    def allows(self, count: int, now: float) -> bool:
        """Whether ``count`` more messages may be sent (section 6.1)."""
        return now - self.born < REJECT_AFTER_TIME and self.counter + count <= REJECT_AFTER_MESSAGES


class _Peer:
    """A peer: where it is, the session to it, and what waits for one."""

    __slots__ = ("address", "number", "port", "public_key", "session", "staged", "staged_bytes", "wanted")

    def __init__(self, number: int, public_key: bytes) -> None:
        self.number = number
        self.public_key = public_key
        self.address = b""
        self.port = 0
        self.session: _Session | None = None
        self.staged: deque[bytes] = deque()
        self.staged_bytes = 0
        self.wanted = False


def _check_endpoint(address: bytes, port: int) -> None:
    if len(address) not in (4, 16) or not 0 < port < 65536:
        raise Refused("an endpoint that is none")


class Sender:
    """Seals packets for the peers that the orders name.

    The groups that a call returns point into one buffer, which the next call overwrites.
    """

    def __init__(self, mtu: int) -> None:
        """``mtu``: no packet is padded beyond that many bytes."""
        self._mtu = mtu
        self._peers: dict[int, _Peer] = {}
        self._routing = CryptokeyRouting()
        self._once = Once()
        self._pacing = Pacing()
        self._ended: deque[SendReport] = deque(maxlen=_LAST_REPORTS)
        self._births: dict[int, float] = {}  # peer -> when its session began, oldest first
        self._staged_bytes = 0
        self._grouping: Grouping[_Peer] = Grouping(GROUP_DATAGRAM_BYTES)
        self._out = memoryview(bytearray(_OUT_BYTES))
        self.shorter: Any = None
        """The short way that packets may be leased to (short.pyx), if there is one."""
        self.counts = dict.fromkeys(("packets", "bytes", "groups", "no_peer", "no_session", "queued", "malformed"), 0)

    # packets ----------------------------------------------------------------------------------------------------------

    def seal(self, packets: memoryview, size: int, now: float) -> list[Datagrams]:
        """Seals a group: IP packets of ``size`` bytes back to back, of which the last may be shorter.

        Returns the groups that are full; what the next call's packets may still join waits for it, or for ``rest``.
        What has no session yet waits; what has no peer, or is no IP packet of just that length, is dropped and counted.
        """
        total = len(packets)
        if size < IPV4_HEADER or total > GROUP_PACKET_BYTES:
            self.counts["malformed"] += 1
            return []
        self._grouping.begin(self._out)
        start = 0
        while start < total:
            item = min(size, total - start)
            stop = start + item
            looked = look(packets, start, item, DESTINATION)
            if looked is None or looked[2] != item or item > _LARGEST_PACKET:
                self.counts["malformed"] += 1
            else:
                # A run: packets in succession that differ in nothing that matters here
                shape, head, _ = looked
                if total > stop:
                    stop = start + item * twin.alike(packets, start, item, total // item, *shape[1:])
                self._send(self._routing.owner(head), packets, range(start, stop, item), now)
            start = stop
        return self._made(self._grouping.take_full())

    def rest(self) -> list[Datagrams]:
        """What was sealed and not yet returned: nothing more is there to join it."""
        return self._made(self._grouping.take())

    def _send(self, number: int, packets: memoryview, starts: range, now: float) -> None:
        peer = self._peers.get(number)
        if peer is None:
            self.counts["no_peer"] += len(starts)
            return
        session = peer.session
        if session is not None and not session.allows(len(starts), now):
            self._end(peer)
            session = None
        if session is None:
            self._stage(peer, packets, starts)
            self._want(peer, now)
        else:
            self._seal_run(peer, session, packets, starts.start, starts.step, len(starts))
            self._pacing.note(number, now)
            if self.shorter is not None and starts.step == len(packets):
                self._lease(peer, session, packets)

    def _seal_run(self, peer: _Peer, session: _Session, packets: memoryview, start: int, size: int, count: int) -> None:
        """Lays down the datagrams of the ``count`` packets of ``size`` bytes from ``start`` on."""
        # Padded to 16 bytes, so that lengths tell less, but never beyond what the tunnel carries (section 5.4.6)
        padded = size + -size % PADDING
        if padded > self._mtu:
            padded = max(size, self._mtu)
        stride = padded + OVERHEAD
        counter = session.counter
        session.counter += count  # first: whatever happens below, no counter is ever used twice
        session.data_packets += count if size else 0
        session.bytes += count * stride
        self.counts["packets"] += count
        self.counts["bytes"] += count * stride
        session.seal(
            packets, start, size, count, padded - size, session.receiver, counter, self._out, self._grouping.end
        )
        self._grouping.add(peer, stride, count)

    # the short way ----------------------------------------------------------------------------------------------------

    def _lease(self, peer: _Peer, session: _Session, packet: memoryview) -> None:
        """The next lone packets to where this one goes need not come by here, until there is something to report."""
        until = min(session.born + REJECT_AFTER_TIME, self._pacing.when(peer.number))
        shape = DESTINATION.v4 if packet[0] >> 4 == 4 else DESTINATION.v6
        destination = packet[shape.address : shape.address + shape.width]
        self.shorter.lease(destination, session, session.sealer, session.receiver, peer.address, peer.port, until)

    def _revoke(self) -> None:
        if self.shorter is not None:
            self.shorter.revoke()

    def went(self, session: _Session, packets: int, octets: int) -> None:
        """So much of ``session`` went the short way."""
        session.data_packets += packets
        session.bytes += octets
        self.counts["packets"] += packets
        self.counts["bytes"] += octets
        self.counts["groups"] += packets

    def _made(self, groups: list[tuple[_Peer, int, int, int]]) -> list[Datagrams]:
        out = self._out
        self.counts["groups"] += len(groups)
        return [Datagrams(out[start:stop], size, peer.address, peer.port) for peer, start, stop, size in groups]

    # waiting for a session --------------------------------------------------------------------------------------------

    def _stage(self, peer: _Peer, packets: memoryview, starts: range) -> None:
        size = starts.step
        for at in starts:
            if self._staged_bytes + size > STAGED_BYTES_IN_ALL:
                self.counts["no_session"] += 1
                continue
            peer.staged.append(bytes(packets[at : at + size]))
            peer.staged_bytes += size
            self._staged_bytes += size
            self.counts["queued"] += 1
            while len(peer.staged) > STAGED_PACKETS or peer.staged_bytes > STAGED_BYTES:
                self._unstage(peer)
                self.counts["no_session"] += 1

    def _unstage(self, peer: _Peer) -> bytes:
        packet = peer.staged.popleft()
        peer.staged_bytes -= len(packet)
        self._staged_bytes -= len(packet)
        return packet

    def _want(self, peer: _Peer, now: float) -> None:
        self._pacing.note(peer.number, now, REPORT_INTERVAL if peer.wanted else URGENT_INTERVAL)
        peer.wanted = True

    # orders -----------------------------------------------------------------------------------------------------------

    def order(self, order: SendOrder, now: float) -> list[Datagrams]:
        """Obeys one order of the key manager; returns what can be sent now because of it.

        Errors: Refused, with nothing of the order done.
        """
        self._revoke()
        self._grouping.begin(self._out)
        match order.WhichOneof("order"):
            case "peer":
                self._order_peer(order.peer)
            case "session":
                self._order_session(order.session, now)
            case "endpoint":
                self._order_endpoint(order.endpoint)
            case "keepalive":
                self._order_keepalive(order.keepalive, now)
            case "forget":
                self._order_forget(order.forget)
            case "only":
                self._order_only(order.only)
            case _:
                raise Refused("an order that orders nothing")
        return self.rest()

    def _known(self, number: int) -> _Peer:
        peer = self._peers.get(number)
        if peer is None:
            raise Refused(f"peer {number} is not known")
        return peer

    def _order_peer(self, order: SendPeer) -> None:
        if not order.peer:
            raise Refused("0 is no peer")
        if len(order.public_key) != KEY_BYTES:
            raise Refused("a public key that is none")
        self._routing.replace(order.peer, ((prefix.address, prefix.bits) for prefix in order.allowed_ips))
        peer = self._peers.get(order.peer)
        if peer is not None and peer.public_key == order.public_key:
            return
        if peer is not None:  # its key must never seal what is meant for the one that has its number now
            self._drop(peer)
        self._peers[order.peer] = _Peer(order.peer, order.public_key)

    def _order_session(self, order: SendSession, now: float) -> None:
        peer = self._known(order.peer)
        _check_endpoint(order.address, order.port)
        if len(order.key) != KEY_BYTES:
            raise Refused("a key that is none")
        if not self._once.is_first(order.session):
            raise Refused(f"session {order.session} was handed out before")
        self._end(peer)
        session = peer.session = _Session(order, now)
        peer.address, peer.port = order.address, order.port
        peer.wanted = False
        self._births[peer.number] = now
        if order.confirm and not peer.staged:
            self._keepalive(peer, session, now)
        while peer.staged:
            packet = self._unstage(peer)
            self._seal_run(peer, session, memoryview(packet), 0, len(packet), 1)
            self._pacing.note(peer.number, now)

    def _order_endpoint(self, order: SendEndpoint) -> None:
        peer = self._known(order.peer)
        _check_endpoint(order.address, order.port)
        peer.address, peer.port = order.address, order.port

    def _order_keepalive(self, order: SendKeepalive, now: float) -> None:
        peer = self._known(order.peer)
        if peer.session is not None and not peer.session.allows(1, now):
            self._end(peer)
        if peer.session is None:
            self._want(peer, now)
        else:
            self._keepalive(peer, peer.session, now)

    def _order_forget(self, order: SendForget) -> None:
        self._forget(self._known(order.peer))

    def _order_only(self, order: SendOnly) -> None:
        for number in absent(self._peers, order.peers):
            self._drop(self._peers.pop(number))
            self._routing.replace(number, ())

    def _drop(self, peer: _Peer) -> None:
        """It is no peer any more."""
        self._forget(peer)
        self._pacing.forget(peer.number)

    def _forget(self, peer: _Peer) -> None:
        self._end(peer)
        peer.wanted = False
        self.counts["no_session"] += len(peer.staged)
        while peer.staged:
            self._unstage(peer)

    def _keepalive(self, peer: _Peer, session: _Session, now: float) -> None:
        """An empty packet: 32 bytes on the wire (section 6.5)."""
        self._seal_run(peer, session, memoryview(b""), 0, 0, 1)
        self._pacing.note(peer.number, now)

    def _end(self, peer: _Peer) -> None:
        """Drops the session and its key; its totals go out once more."""
        session = peer.session
        if session is None:
            return
        self._revoke()
        if self._pacing.pending(peer.number):
            self._ended.append(self._totals(peer, session))
        peer.session = None
        del self._births[peer.number]

    # time and reports -------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Ends the sessions whose time is over."""
        births = self._births
        while births and now - births[oldest := next(iter(births))] >= REJECT_AFTER_TIME:
            self._end(self._peers[oldest])

    def due(self) -> float | None:
        """When ``tick`` or ``report`` have something to do, at the earliest; None for never."""
        if self._ended:
            return 0.0
        when = self._pacing.due()
        if self._births:
            expiry = next(iter(self._births.values())) + REJECT_AFTER_TIME
            return expiry if when is None else min(when, expiry)
        return when

    def report(self, now: float) -> SendReport | None:
        """The next report that is due; None if there is none."""
        if self._ended:
            return self._ended.popleft()
        while (number := self._pacing.pop(now)) is not None:
            peer = self._peers[number]
            if peer.session is not None:
                return self._totals(peer, peer.session)
            if peer.wanted:
                return SendReport(peer=number, wanted=True)
        return None

    @staticmethod
    def _totals(peer: _Peer, session: _Session) -> SendReport:
        return SendReport(
            peer=peer.number,
            session=session.number,
            packets=session.counter,
            data_packets=session.data_packets,
            bytes=session.bytes,
        )
