"""keymgr, the shell: ports in, ports out. What it decides is decided in manager.py."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any, Final

from septum.v1.blobs import BLOB_ABSENT, BLOB_OK, BLOB_STALE, BlobReply, BlobRequest
from septum.v1.handshakes import Handshake
from septum.v1.identity import Identity
from septum.v1.peers import PeersReply, PeersRequest
from septum.v1.random import RandomRequest
from septum.v1.received import ReceiveReport
from septum.v1.sent import SendReport

from appliance.guest.loop import Guest
from appliance.guest.ports import Client, PeerClosed, PeerStalled
from appliance.guest.settings import SettingsError
from appliance.guest.status import PeerRow
from appliance.vchan.ring import PeerViolation
from components.keymgr import events
from components.keymgr.listing import answer, handshake_at
from components.keymgr.manager import RANDOM_PER_CALL, Followed, Manager, Side
from components.keymgr.orders import receive_order, send_order
from components.keymgr.settings import PeerSettings, parse
from components.keymgr.shared import ERROR, WARNING

RANDOM_REQUEST: Final = 4096  # bytes, the most that one call gives
FIRST_REST: Final = 0.25  # seconds until one that lost an order is told anew; doubled each time,
LONGEST_REST: Final = 60.0  # ... up to this, as long as it lives
RETRY: Final = 0.5  # seconds until rng or store are asked again
TICKS_PER_TURN: Final = 4
LISTING_SHARE: Final = 0.25  # of our time, that questions about peers may take


class _Random:
    """Random bytes in stock, so that the core can draw as much as one call of it needs. None is given out twice."""

    def __init__(self, shell: _Shell, client: Client) -> None:
        self._shell = shell
        self._client = client
        self._stock = bytearray()

    def is_stocked(self) -> bool:
        """Whether ``draw`` is good for RANDOM_PER_CALL bytes; asks rng for more if it is not."""
        if len(self._stock) < RANDOM_PER_CALL:
            reply = self._shell.ask(self._client, RandomRequest(length=RANDOM_REQUEST))
            if reply is None or len(reply.random) != RANDOM_REQUEST:
                return False
            self._stock = bytearray(reply.random)  # what was left is dropped: no byte is worth a seam
        return True

    def draw(self, count: int) -> bytes:
        drawn = bytes(self._stock[-count:])
        self._stock[-count:] = bytes(count)
        del self._stock[-count:]
        return drawn


class _Shell:
    """Carries out what the core wants done."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest
        self._orders = {Side.ENCRYPT: guest.spread("encrypt_orders"), Side.DECRYPT: guest.spread("decrypt_orders")}
        self._pairs = len(self._orders[Side.ENCRYPT])
        settings = parse("keymgr", guest.settings)
        guest.settings.clear()  # the private key was in there as text
        self._identity = guest.out("identity") if guest.is_joined("identity") else None
        self._manager = Manager(settings, self._pairs, rotates=self._identity is not None)
        self._random = _Random(self, guest.client("random"))
        self._blobs = guest.client("blobs")
        self._handshakes = guest.out("handshakes_out")
        # An order was lost, and nobody knows what that one knows: when it is told anew, at the earliest. Each time it
        # happens it rests longer, or one that takes an order now and then could keep us waiting for it all the time
        self._uncertain: dict[tuple[Side, int], float] = {}
        self._rests: dict[tuple[Side, int], float] = {}
        self._next_load = 0.0
        self._counters = {name: guest.counter(name) for name in self._manager.counters()}
        # Who reports speaks for the peers of its own pair only
        self._numbers = {
            name: number for side in Side for number, name in enumerate(guest.senders(f"{side.value}_reports"))
        }
        for side in Side:
            for pair in range(self._pairs):
                self._watch(f"{side.value}_orders", side, pair)
        guest.on_open("blobs", self._store_opened)
        guest.receive("handshakes_in", self._handshake)
        guest.receive_many("encrypt_reports", self._send_report)
        guest.receive_many("decrypt_reports", self._receive_report)
        guest.timer(self._timer)
        if self._identity is not None:
            guest.on_open("identity", self._identify)
        guest.serve("peers", self._list, share=LISTING_SHARE)
        if (settings.trust is not None) is not guest.is_joined("commits"):
            raise SettingsError("trust", "must be there if config is joined to `commits`, and only then")
        if settings.trust is not None:
            from components.keymgr import managed

            managed.serve(guest, settings.trust, self._manager, self._follow, self._rekey)

    # in ---------------------------------------------------------------------------------------------------------------

    def _watch(self, port: str, side: Side, pair: int) -> None:
        def opened(now: float) -> None:
            self._rests.pop((side, pair), None)
            self._uncertain.pop((side, pair), None)
            self._carry_out(self._manager.opened(side, now, pair), now)

        def closed(now: float) -> None:
            self._uncertain.pop((side, pair), None)
            self._carry_out(self._manager.closed(side, now, pair), now)

        self._guest.on_open(port, opened, pair)
        self._guest.on_close(port, closed, pair)

    def _store_opened(self, now: float) -> None:
        """The floors are read as soon as they can be: nothing is answered before."""
        self._next_load = now

    def _handshake(self, message: Handshake, now: float) -> None:
        if self._random.is_stocked():
            todo = self._manager.handshake_datagram(
                message.datagram, message.address, message.port, now, self._random.draw
            )
            self._carry_out(todo, now)

    def _send_report(self, sender: str, report: SendReport, now: float) -> None:
        untrusted = events.SendReport(
            report.peer, report.session, report.packets, report.data_packets, report.bytes, report.wanted
        )
        self._carry_out(self._manager.send_report(untrusted, now, self._numbers[sender]), now)

    def _receive_report(self, sender: str, report: ReceiveReport, now: float) -> None:
        untrusted = events.ReceiveReport(
            report.peer, report.session, report.packets, report.data_packets, report.bytes, report.address, report.port
        )
        self._carry_out(self._manager.receive_report(untrusted, now, self._numbers[sender]), now)

    def _rekey(self, public: bytes) -> None:
        now = time.monotonic()
        self._carry_out(self._manager.rekey(public, now), now)

    def _identify(self, now: float) -> None:
        """black is there, and knows the key that the box was made with."""
        if self._identity is not None and self._manager.is_told:
            self._identity.send(Identity(public_key=self._manager.public_key))

    def _list(self, _: str, request: PeersRequest) -> PeersReply:
        return answer(request, self._manager, time.monotonic(), self._guest.wall())

    def _follow(self, peers: Mapping[int, PeerSettings]) -> Followed:
        """These are the peers from now on."""
        now = time.monotonic()
        followed = self._manager.follow(peers, now)
        self._carry_out(followed.todo, now)
        return followed

    def _timer(self, now: float) -> float | None:
        manager = self._manager
        for (side, pair), rested in list(self._uncertain.items()):
            if now >= rested and self._orders[side][pair].room():
                del self._uncertain[side, pair]
                self._carry_out(manager.opened(side, now, pair), now)
        self._load_floors(now)
        when = manager.next_tick()
        for _ in range(TICKS_PER_TURN):
            if when is None or when > now:
                break
            if not self._random.is_stocked():
                when = now + RETRY
                break
            self._carry_out(manager.tick(now, self._guest.wall(), self._random.draw), now)
            when = manager.next_tick()
        for name, value in manager.counters().items():
            self._counters[name].set(value)
        return when

    # out --------------------------------------------------------------------------------------------------------------

    def _carry_out(self, todo: Iterable[events.Event], now: float) -> None:
        for event in todo:
            match event:
                case events.SendHandshake(datagram, address, port):
                    self._handshakes.send(Handshake(datagram=datagram, address=address, port=port))
                case events.Log(severity, name, text):
                    say = {ERROR: self._guest.log.error, WARNING: self._guest.log.warning}
                    say.get(severity, self._guest.log.info)(name, text)
                case events.PersistFloor():
                    self._persist(event, now)
                case events.ShowPeer():
                    self._show(event, now)
                case events.Identify():
                    self._identify(now)
                case events.HidePeer(number):
                    self._guest.hide_peer(number)
                case events.SendOnly(pair):
                    self._order(Side.ENCRYPT, pair, send_order(event), now)
                case events.ReceiveOnly(pair):
                    self._order(Side.DECRYPT, pair, receive_order(event), now)
                case events.ReceivePeer() | events.ReceiveSession():
                    self._order(Side.DECRYPT, self._manager.pair_of(event.peer), receive_order(event), now)
                case events.ReceiveForget():  # an index leaves the pair it was chosen for
                    self._order(Side.DECRYPT, event.session % self._pairs, receive_order(event), now)
                case _:
                    self._order(Side.ENCRYPT, self._manager.pair_of(event.peer), send_order(event), now)

    def _order(self, side: Side, pair: int, order: Any, now: float) -> None:
        """Sends ``order``. If it gets lost, that one is told everything anew once it listens again and has rested."""
        out = self._orders[side][pair]
        if (side, pair) not in self._uncertain and out.is_open and not out.send(order):
            rest = self._rests[side, pair] = min(LONGEST_REST, 2 * self._rests.get((side, pair), FIRST_REST / 2))
            self._uncertain[side, pair] = now + rest
            self._guest.log.error("order-lost", f"{out.peer} takes no orders: it gets new sessions when it does")

    def _show(self, peer: events.ShowPeer, now: float) -> None:
        handshake = handshake_at(peer, now, self._guest.wall())
        self._guest.show_peer(PeerRow(peer.peer, handshake, peer.received, peer.sent, peer.address, peer.port))

    # calls ------------------------------------------------------------------------------------------------------------

    def ask(self, client: Client, request: Any) -> Any:
        """The reply; None if there is none. A service that is away is asked again later, and never waited for."""
        if not client.is_open:
            return None
        try:
            return client.call(request)
        except (PeerClosed, PeerStalled) as failure:
            self._guest.log.warning("service-away", str(failure))
        except PeerViolation as violation:
            self._guest.accuse(client, violation)
        return None

    def _load_floors(self, now: float) -> None:
        missing = self._manager.missing_floors() if now >= self._next_load else []
        for name in missing:
            if not self._load_floor(name, now):
                self._next_load = now + RETRY
                return

    def _load_floor(self, name: str, now: float) -> bool:
        reply: BlobReply | None = self.ask(self._blobs, BlobRequest(name=name))
        if reply is None or reply.status not in (BLOB_OK, BLOB_ABSENT):
            return False
        version, blob = (reply.version, reply.blob) if reply.status == BLOB_OK else (0, b"")
        self._carry_out(self._manager.floor_loaded(name, version, blob, now), now)
        return True

    def _persist(self, put: events.PersistFloor, now: float) -> None:
        reply = self.ask(self._blobs, BlobRequest(name=put.name, version=put.version, blob=put.blob))
        if reply is not None and reply.status == BLOB_OK:
            self._manager.floor_stored(put)
            return
        if reply is not None and reply.status == BLOB_STALE:
            self._load_floor(put.name, now)  # learns the version that the store has
        self._carry_out(self._manager.floor_failed(put, now), now)


def build(guest: Guest) -> None:
    """Registers the handlers; nothing is read before the loop runs. Errors: SettingsError."""
    _Shell(guest)
