"""All peers: sorts what arrives to the peer it concerns, in constant time, and says when to be called again.

Sans-IO: datagrams, reports, ``now`` (monotonic seconds), ``wall`` (seconds since 1970) and random bytes go in, a list
of events comes out. See peer.py for what happens when, floor.py for what outlives a restart.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from enum import Enum
from itertools import islice
from typing import Final, NamedTuple

from appliance.guest.settings import SettingsError
from appliance.signed.keyproof import prove
from components.keymgr.constants import KEY, RETIRED_TIME
from components.keymgr.cookie import CookieError, mac1_is_right, mac1_key
from components.keymgr.events import (
    Event,
    Identify,
    PersistFloor,
    ReceiveOnly,
    ReceiveReport,
    SendOnly,
    SendReport,
    ShowPeer,
)
from components.keymgr.floor import NONCE, Floor, FloorError
from components.keymgr.messages import CookieReply, Initiation, MalformedMessage, Response, parse
from components.keymgr.noise import HandshakeError, PrivateKey, Responder, wipe
from components.keymgr.ownkeys import OwnKeys
from components.keymgr.peer import RANDOM_PER_HANDSHAKE, Peer, Random, where
from components.keymgr.sealing import SealingKey
from components.keymgr.settings import PeerSettings, Settings
from components.keymgr.shared import ERROR, INFO, WARNING, Shared
from components.keymgr.timers import Timer

ADDRESS_SIZES: Final = (4, 16)  # IPv4, IPv6
# Of one call, so that ten thousand peers at once do not make it a long one
HANDSHAKES_PER_TICK: Final = 32
ORDERS_PER_TICK: Final = 256
WRITES_PER_TICK: Final = 4
TIMERS_PER_TICK: Final = 1024
_NOT_READY: Final = "not ready: encrypt, decrypt or store is away"
# What ``random`` must be good for in one call
RANDOM_PER_CALL: Final = HANDSHAKES_PER_TICK * RANDOM_PER_HANDSHAKE + WRITES_PER_TICK * NONCE + KEY + NONCE


class Side(Enum):
    """The two domains that use the keys."""

    ENCRYPT = "encrypt"
    DECRYPT = "decrypt"


class Followed(NamedTuple):
    """What another list of peers leads to; ``kept`` and ``ended`` count sessions."""

    todo: list[Event]
    kept: int
    ended: int


def _bits(peers: Iterable[int]) -> bytes:
    """Bit n, counted from the lowest of the first byte, is set if n is one of ``peers``."""
    bits = bytearray()
    for peer in peers:
        if peer >> 3 >= len(bits):
            bits.extend(bytes((peer >> 3) + 1 - len(bits)))
        bits[peer >> 3] |= 1 << (peer & 7)
    return bytes(bits)


def _check(path: str, peer: PeerSettings, own: bytes) -> None:
    if peer.public_key == own:
        raise SettingsError(f"{path}.public_key", "is our own public key")
    if peer.endpoint is not None and not peer.endpoint.is_numeric():
        raise SettingsError(f"{path}.endpoint", f"{peer.endpoint.host!r} must be resolved to an address")


class Manager:
    """The handshakes and timers of every peer in the settings. Every method returns what is to be done, in order.

    Nothing is begun or answered before both crypto domains are there to take keys and know the peers, and the timestamp
    floor was loaded; with a ``trust`` in the settings, before it was told by ``follow`` who the peers are. There may be
    several pairs of crypto domains: peer n belongs to pair (n - 1) mod ``pairs`` for good, and nothing of it is told to
    another. ``random(n)`` returns n fresh random bytes; it must not fail for RANDOM_PER_CALL
    bytes in a call.
    """

    def __init__(self, settings: Settings, pairs: int = 1, rotates: bool = False) -> None:
        """Takes over ``settings.private_key`` and wipes it there. ``rotates``: there will be a spare key to go over to,
        and somebody to be told of it.

        Errors: SettingsError if an endpoint is a name (this domain has nobody to ask), or a peer is ourselves.
        """
        static = PrivateKey(settings.private_key.reveal())
        grows = settings.trust is not None
        keys = [peer.public_key for peer in settings.peers]
        floor = Floor(settings.private_key.reveal(), static.public, keys, grows)
        self.sealing = SealingKey(settings.private_key.reveal())
        self._first = static
        self._wanted = static.public  # the key that we are to be known by
        self._own_keys = OwnKeys(settings.private_key.reveal(), static.public) if rotates else None
        settings.private_key.wipe()
        for i, given in enumerate(settings.peers):
            _check(f"peers[{i}]", given, static.public)
        self.public_key = static.public
        self._mac1_key = mac1_key(static.public)
        self._shared = Shared(static, floor, pairs)
        self._peers = {n: Peer(n, given, self._shared) for n, given in enumerate(settings.peers, start=1)}
        self._by_public = {peer.public: peer for peer in self._peers.values()}
        self._members: list[list[Peer]] = []
        self._sort()
        self._is_told = not grows  # who the peers are
        self._former: dict[int, float] = {}  # numbers that reports may still name -> until when
        self._up: set[tuple[Side, int]] = set()
        self._to_announce: list[deque[tuple[Side, Peer]]] = [deque() for _ in range(pairs)]
        self._unsettled = set(range(pairs))  # those whose owed handshakes are to be begun once they are ready

    def _sort(self) -> None:
        """Each peer to its pair, and their numbers in order."""
        self._numbers = sorted(self._peers)
        self._members = [[] for _ in range(self._shared.pairs)]
        for peer in self._peers.values():
            self._members[self.pair_of(peer.number)].append(peer)

    def is_ready(self, pair: int = 0) -> bool:
        """Whether handshakes are done with the peers of ``pair``."""
        is_up = (Side.ENCRYPT, pair) in self._up and (Side.DECRYPT, pair) in self._up
        is_told = self._is_told and not self._to_announce[pair] and self._wanted == self.public_key
        return is_up and is_told and self._shared.floor.is_loaded

    def pair_of(self, peer: int) -> int:
        """The pair of crypto domains that the peer of that number belongs to."""
        return self._shared.pair_of(peer)

    def counters(self) -> dict[str, int]:
        """Totals since the start, and how many peers and sessions there are."""
        return {**self._shared.counts, "peers": len(self._peers), "sessions": len(self._shared.sessions)}

    def states(self, start: int, most: int) -> list[tuple[bytes, ShowPeer]]:
        """Public key and state of at most ``most`` peers from number ``start`` on, in the order of their numbers."""
        numbers = islice((number for number in self._numbers if number >= start), most)
        return [(peer.public, peer.state()) for peer in map(self._peers.__getitem__, numbers)]

    # who the peers are --------------------------------------------------------------------------------------------

    def follow(self, peers: Mapping[int, PeerSettings], now: float) -> Followed:
        """These are the peers from now on, by their numbers; none of them is ourselves, or at a name. Who was one
        before, with the same number and public key, does not notice; of who is none any more nothing is left."""
        kept = {n: peer for n, peer in self._peers.items() if n in peers and peers[n].public_key == peer.public}
        gone = [peer for n, peer in self._peers.items() if n not in kept]
        changed = [peer for n, peer in kept.items() if peers[n] != peer.settings]
        moved = [peer for peer in changed if peers[peer.number].allowed_ips != peer.settings.allowed_ips]
        # Who gets fewer prefixes is told first, so that there never are more of them than before or after
        moved.sort(key=lambda peer: len(peers[peer.number].allowed_ips) - len(peer.settings.allowed_ips))
        ended = self._remove(gone, now)
        for peer in changed:
            peer.change(peers[peer.number], now)
        new = [Peer(number, peers[number], self._shared) for number in sorted(peers.keys() - kept.keys())]
        for peer in new:
            self._shared.floor.add(peer.public)
            self._former.pop(peer.number, None)
        self._peers = {**kept, **{peer.number: peer for peer in new}}
        self._by_public = {peer.public: peer for peer in self._peers.values()}
        self._sort()
        was_told, self._is_told = self._is_told, True
        if not was_told:
            self._shared.emit(Identify(self.public_key))
        for side, pair in self._up:
            if was_told and not any(waiting is side for waiting, _ in self._to_announce[pair]):
                if any(self.pair_of(peer.number) == pair for peer in gone):
                    self._tell_who_stays(side, pair, kept)
                told = [peer for peer in (*moved, *new) if self.pair_of(peer.number) == pair]
                self._to_announce[pair].extend((side, peer) for peer in told)
            else:
                self._announce_all(side, pair, kept if was_told else self._peers)
        self._unsettled.update(range(self._shared.pairs))
        self._announce(now)
        return Followed(self._shared.take(), len(self._shared.sessions), ended)

    def _remove(self, gone: list[Peer], now: float) -> int:
        self._former = {number: until for number, until in self._former.items() if until > now}
        for peer in gone:
            self._shared.floor.remove(peer.public)
            self._former[peer.number] = now + RETIRED_TIME
        return sum(peer.remove(now) for peer in gone)

    def _announce_all(self, side: Side, pair: int, known: Iterable[int]) -> None:
        """``side`` of ``pair`` is to be told of all its peers; those that it may know already are among ``known``."""
        waiting = [entry for entry in self._to_announce[pair] if entry[0] is not side]
        self._to_announce[pair] = deque(waiting)
        self._tell_who_stays(side, pair, known)
        self._to_announce[pair].extend((side, peer) for peer in self._members[pair])

    def _tell_who_stays(self, side: Side, pair: int, peers: Iterable[int]) -> None:
        """Whoever is not among ``peers`` is forgotten there, whatever is known of them from before."""
        only = SendOnly if side is Side.ENCRYPT else ReceiveOnly
        self._shared.emit(only(pair, _bits(number for number in peers if self.pair_of(number) == pair)))

    # who we are ---------------------------------------------------------------------------------------------------

    @property
    def is_told(self) -> bool:
        """Whether we know who the peers are, and so whom we are to be to them."""
        return self._is_told

    @property
    def spare_key(self) -> bytes:
        """The public half of the key that we could go over to; empty if there is none."""
        return self._own_keys.spare(self.public_key) if self._own_keys is not None else b""

    def has_key(self, public: bytes) -> bool:
        """Whether ``rekey`` to it would do."""
        made = self._own_keys is not None and self._own_keys.find(public) is not None
        return made or public == self._first.public

    def prove_keys(self, challenge: bytes) -> bytes:
        """That our keys are what is shown (appliance/signed/keyproof.py); nothing to a bad ``challenge``."""
        try:
            shared = self._shared.static.dh(challenge)
        except (HandshakeError, ValueError):
            return b""
        proof = prove(shared, challenge, self.public_key, self.sealing.public, self.spare_key)
        wipe(shared)
        return proof

    def rekey(self, public: bytes, now: float) -> list[Event]:
        """We are to be known by this key: that of the settings, or one that was made here."""
        self._wanted = public
        self._go_over(now)
        return self._shared.take()

    def _go_over(self, now: float) -> None:
        if self._wanted == self.public_key:
            return
        key = (
            self._first if self._wanted == self._first.public else self._own_keys and self._own_keys.find(self._wanted)
        )
        if not key:
            if self._own_keys is None or self._own_keys.is_loaded:
                text = (
                    "there is no private key to the public key that was signed: no handshakes until it is another one"
                )
                self._shared.log(now, ERROR, "key-missing", text)
            return
        self._shared.static, self.public_key = key, key.public
        self._mac1_key = mac1_key(key.public)
        for peer in self._peers.values():
            peer.rekeyed(now)
        self._unsettled.update(range(self._shared.pairs))
        if self._is_told:
            self._shared.emit(Identify(key.public))
        self._shared.log(now, INFO, "rekeyed", "another private key is in force: peers need its public key")

    def _spare_due(self) -> float | None:
        if self._own_keys is None or not self._is_told or self._wanted != self.public_key:
            return None
        return self._own_keys.due(self.public_key)

    # the crypto domains -------------------------------------------------------------------------------------------

    def opened(self, side: Side, now: float, pair: int = 0) -> list[Event]:
        """``side`` of ``pair`` is there, and knows nothing: it is told of all its peers, and every one that had a
        session gets a new one at once. Also to be called if it is not known whether an order reached it."""
        self.closed(side, now, pair)
        self._up.add((side, pair))
        if self._is_told:
            self._announce_all(side, pair, self._peers)
        return self._shared.take()

    def closed(self, side: Side, now: float, pair: int = 0) -> list[Event]:
        """``side`` of ``pair`` is gone, and whatever it was given."""
        self._unsettled.add(pair)
        self._up.discard((side, pair))
        self._to_announce[pair] = deque(entry for entry in self._to_announce[pair] if entry[0] is not side)
        for peer in self._members[pair]:
            if side is Side.ENCRYPT:
                peer.lost_encrypt()
            else:
                peer.lost_decrypt(now)
        return self._shared.take()

    def _own(self, untrusted_peer: int, pair: int) -> Peer | None:
        """The peer of that number, if ``pair`` may speak of it."""
        return self._peers.get(untrusted_peer) if self.pair_of(untrusted_peer) == pair else None

    def send_report(self, untrusted: SendReport, now: float, pair: int = 0) -> list[Event]:
        """What the encrypt of ``pair`` says about a session, or that packets wait for one."""
        peer = self._own(untrusted.peer, pair)
        session = self._shared.sessions.get(untrusted.session)
        if peer is None:
            self._no_peer("encrypt", untrusted.peer, now)
        elif untrusted.wanted:
            peer.begin(now)
        elif session is None:
            if not self._shared.is_retired(untrusted.session):
                peer.unknown_session(untrusted.session, now)
        elif session.peer != peer.number:
            self._refuse_report("encrypt", f"session {session.index:#010x} is not one of {peer.name}", now)
        else:
            peer.sent(session, untrusted, now)
        return self._shared.take()

    def receive_report(self, untrusted: ReceiveReport, now: float, pair: int = 0) -> list[Event]:
        """What the decrypt of ``pair`` says about a session."""
        peer = self._own(untrusted.peer, pair)
        session = self._shared.sessions.get(untrusted.session)
        if peer is None:
            self._no_peer("decrypt", untrusted.peer, now)
        elif len(untrusted.address) not in ADDRESS_SIZES:
            self._refuse_report("decrypt", f"an address of {len(untrusted.address)} bytes", now)
        elif session is None:
            if not self._shared.is_retired(untrusted.session):
                peer.unknown_received(untrusted, now)
        elif session.peer != peer.number:
            self._refuse_report("decrypt", f"session {session.index:#010x} is not one of {peer.name}", now)
        else:
            peer.received(session, untrusted, now)
        return self._shared.take()

    def _no_peer(self, who: str, untrusted_peer: int, now: float) -> None:
        """A report of nobody. It may have been under way when its peer was removed, or be from before our time, when
        there were others; it is of no use then, and nothing is wrong with it."""
        if self._is_told and self._former.get(untrusted_peer, 0.0) <= now:
            self._refuse_report(who, f"no peer {untrusted_peer}", now)

    def _refuse_report(self, who: str, why: str, now: float) -> None:
        self._shared.log(now, WARNING, "report-refused", f"from {who}: {why}")

    # the world ----------------------------------------------------------------------------------------------------

    def handshake_datagram(
        self, untrusted_datagram: bytes, address: bytes, port: int, now: float, random: Random
    ) -> list[Event]:
        """A handshake message that arrived from ``address`` (4 or 16 bytes) and ``port``. A bad one changes nothing."""
        kind = "datagram"
        if len(address) not in ADDRESS_SIZES:
            self._shared.counts["refused"] += 1
            self._shared.log(now, WARNING, "handshake-refused", f"from an address of {len(address)} bytes")
            return self._shared.take()
        try:
            message = parse(untrusted_datagram)
            kind = type(message).__name__
            if not any(map(self.is_ready, range(self._shared.pairs))):
                raise HandshakeError(_NOT_READY)
            if isinstance(message, CookieReply):
                self._cookie_reply(message, address, port, now)
            elif not mac1_is_right(self._mac1_key, untrusted_datagram):
                raise HandshakeError("its mac1 is wrong")
            elif isinstance(message, Initiation):
                self._initiation(message, address, port, now, random)
            else:
                self._response(message, address, port, now)
        except (MalformedMessage, HandshakeError, CookieError) as refused:
            self._shared.counts["refused"] += 1
            text = f"{kind} from {where(address, port)}: {refused}"
            self._shared.log(now, WARNING, "handshake-refused", text)
        return self._shared.take()

    def _initiation(self, message: Initiation, address: bytes, port: int, now: float, random: Random) -> None:
        responder = Responder(self._shared.static, message)
        try:
            peer = self._by_public.get(responder.untrusted_peer)
            if peer is None:
                raise HandshakeError("from a peer that is not in the settings")
            if not self.is_ready(self.pair_of(peer.number)):
                raise HandshakeError(_NOT_READY)
            peer.answer(responder, address, port, now, random)
        finally:
            responder.wipe()
        self._shared.counts["initiations_received"] += 1
        self._shared.log(now, INFO, "initiation-answered", f"of {peer.name} at {where(address, port)}")

    def _response(self, message: Response, address: bytes, port: int, now: float) -> None:
        number = self._shared.pending.get(message.receiver)
        if number is None:
            raise HandshakeError("answers no initiation of ours")
        peer = self._peers[number]
        if not self.is_ready(self.pair_of(number)):
            raise HandshakeError(_NOT_READY)
        peer.finish(message, address, port, now)
        self._shared.counts["responses_received"] += 1
        self._shared.log(now, INFO, "handshake-completed", f"with {peer.name} at {where(address, port)}")

    def _cookie_reply(self, message: CookieReply, address: bytes, port: int, now: float) -> None:
        number = self._shared.pending.get(message.receiver)
        if number is None:
            session = self._shared.sessions.get(message.receiver)
            if session is None:
                raise CookieError("answers no message of ours")
            number = session.peer
        peer = self._peers[number]
        peer.cookie(message, now)
        self._shared.counts["cookies_received"] += 1
        self._shared.log(now, INFO, "cookie-received", f"from {peer.name} at {where(address, port)}: it is under load")

    # time ---------------------------------------------------------------------------------------------------------

    def next_tick(self) -> float | None:
        """When ``tick`` must be called at the latest; None if nothing is to come."""
        if any(self._to_announce) or any(map(self.is_ready, self._unsettled)):
            return float("-inf")
        times = (self._shared.timers.next(), self._shared.floor.due(), self._spare_due())
        return min((when for when in times if when is not None), default=None)

    def tick(self, now: float, wall: float, random: Random) -> list[Event]:
        """Does what is due, a bounded amount of it: call again until ``next_tick`` lies in the future."""
        self._announce(now)
        handshakes = 0
        for timer, number in islice(self._shared.timers.due(now), TIMERS_PER_TICK):
            if timer is Timer.EXPIRE:
                session = self._shared.sessions[number]
                self._peers[session.peer].expire(session, now)
                continue
            peer = self._peers[number]
            match timer:
                case Timer.RETRY if self.is_ready(self.pair_of(number)):
                    peer.retry(now, wall, random)
                    handshakes += 1
                case Timer.RETRY:
                    peer.postpone()
                case Timer.KEEPALIVE:
                    peer.keepalive()
                case Timer.PERSISTENT:
                    peer.persistent_keepalive(now)
                case Timer.NEW_HANDSHAKE:
                    peer.not_answered(now)
                case Timer.ZERO:
                    peer.zero(now)
            if handshakes == HANDSHAKES_PER_TICK:
                break
        for _ in range(WRITES_PER_TICK):
            due = self._shared.floor.due()
            if due is None or due > now:
                break
            self._shared.emit(self._shared.floor.write(now, random(NONCE)))
        due = self._spare_due()
        if self._own_keys is not None and due is not None and due <= now:
            self._shared.emit(self._own_keys.make(self.public_key, random(KEY), random(NONCE)))
        return self._shared.take()

    def _announce(self, now: float) -> None:
        left = ORDERS_PER_TICK
        for waiting in self._to_announce:
            for _ in range(min(left, len(waiting))):
                side, peer = waiting.popleft()
                left -= 1
                if side is Side.ENCRYPT:
                    peer.announce_to_encrypt()
                else:
                    peer.announce_to_decrypt()
        for pair in [pair for pair in self._unsettled if self.is_ready(pair)]:
            self._unsettled.discard(pair)
            for peer in self._members[pair]:
                if peer.owed:
                    peer.begin(now, urgent=True)

    # the timestamp floor ------------------------------------------------------------------------------------------

    def missing_floors(self) -> list[str]:
        """Names of the blobs to fetch before anything else; each answer goes to ``floor_loaded``."""
        if self._own_keys is None or self._own_keys.is_loaded:
            return self._shared.floor.missing()
        return [self._own_keys.name, *self._shared.floor.missing()]

    def floor_loaded(self, name: str, version: int, untrusted_blob: bytes, now: float) -> list[Event]:
        """A blob as stored; version 0 and no bytes if there is none."""
        if self._own_keys is not None and name == self._own_keys.name:
            self._keys_loaded(self._own_keys, version, untrusted_blob, now)
            return self._shared.take()
        try:
            self._shared.floor.load(name, version, untrusted_blob)
        except FloorError as refused:
            text = f"{name} {refused}: initiations recorded before now could be replayed once"
            self._shared.log(now, ERROR, "floor-lost", text)
        return self._shared.take()

    def _keys_loaded(self, own: OwnKeys, version: int, untrusted_blob: bytes, now: float) -> None:
        try:
            own.load(version, untrusted_blob)
        except FloorError as refused:
            self._shared.log(now, ERROR, "keys-lost", f"{own.name} {refused}: a key that was made here is gone")
        self._go_over(now)

    def floor_stored(self, put: PersistFloor) -> None:
        """The store took ``put``."""
        if self._own_keys is not None and put.name == self._own_keys.name:
            self._own_keys.stored(put)
            return
        self._shared.floor.stored(put)

    def floor_failed(self, put: PersistFloor, now: float) -> list[Event]:
        """The store did not take ``put``. It is tried again in a while, with what is known by then."""
        if self._own_keys is not None and put.name == self._own_keys.name:
            self._own_keys.failed(now)
        else:
            self._shared.floor.failed(put, now)
        self._shared.log(now, WARNING, "floor-not-stored", f"{put.name}: the store did not take version {put.version}")
        return self._shared.take()
