"""A world of virtual time: managers with models of encrypt and decrypt, and a network that loses and reorders.

The models do what the real domains promise: a session is sent with from counter 0, reports come at once and then every
quarter of a second, sessions end by themselves after 180 s. What they seal is not sealed but named by its key, so that
the world can watch every (key, counter) there ever was.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from appliance.guest.secret import Secret
from appliance.signed.trust import Trust
from components.crypto.constants import REPORT_INTERVAL
from components.keymgr import events as ev
from components.keymgr.constants import REJECT_AFTER_TIME
from components.keymgr.manager import Manager, Side
from components.keymgr.noise import PrivateKey, wipe
from components.keymgr.settings import Endpoint, PeerSettings, Prefix, Settings

START = 1_700_000_000.0  # the wall clock when virtual time is 0
KEEPALIVE = ""  # what an empty packet carries


@dataclass(frozen=True)
class Transport:
    """A transport datagram: the key stands for the seal."""

    receiver: int
    key: bytes
    counter: int
    data: str


@dataclass
class World:
    """Time, the network, and everything that must be true of all keys."""

    seed: int = 0
    loss: float = 0.0
    delay: tuple[float, float] = (0.01, 0.02)
    report_delay: float = 0.0  # the most that a report takes beyond its interval
    now: float = 0.0
    boxes: dict[tuple[bytes, int], Box] = field(default_factory=dict)
    send_keys: set[bytes] = field(default_factory=set)
    receive_keys: set[bytes] = field(default_factory=set)
    used: set[tuple[bytes, int]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._serial = itertools.count()
        self.is_cut = False
        self.drop: Callable[[Any], bool] = lambda packet: False

    def at(self, when: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (max(when, self.now), next(self._serial), what))

    def every(self, period: float, what: Callable[[], None], until: float = float("inf")) -> None:
        def again() -> None:
            if self.now < until:
                what()
                self.at(self.now + period, again)

        self.at(self.now, again)

    def run(self, until: float) -> None:
        while self._queue and self._queue[0][0] <= until:
            self.now, _, what = heapq.heappop(self._queue)
            what()
        self.now = until

    def send(self, source: tuple[bytes, int], target: tuple[bytes, int], packet: bytes | Transport) -> None:
        if isinstance(packet, Transport):
            assert (packet.key, packet.counter) not in self.used, "a nonce was used twice"
            self.used.add((packet.key, packet.counter))
        if self.is_cut or self.random.random() < self.loss:
            return
        self.at(self.now + self.random.uniform(*self.delay), lambda: self._arrive(source, target, packet))

    def _arrive(self, source: tuple[bytes, int], target: tuple[bytes, int], packet: bytes | Transport) -> None:
        box = self.boxes.get(target)
        if box is not None and not self.drop(packet):
            box.arrive(packet, *source)


def gone(known: Iterable[int], bits: bytes) -> list[int]:
    """Those that are not among the bits of a SendOnly or ReceiveOnly."""
    stay = {8 * i + bit for i, byte in enumerate(bits) for bit in range(8) if byte >> bit & 1}
    return [peer for peer in known if peer not in stay]


@dataclass
class _Sending:
    index: int
    receiver: int
    key: bytes
    born: float
    counter: int = 0
    data: int = 0


class _Encrypt:
    def __init__(self, box: Box) -> None:
        self.box = box
        self.known: dict[int, bytes] = {}
        self.sessions: dict[int, _Sending] = {}
        self.endpoints: dict[int, tuple[bytes, int]] = {}
        self.staged: dict[int, list[str]] = {}
        self._reported: dict[int, float] = {}
        self._due: set[int] = set()

    def order(self, order: ev.EncryptOrder) -> None:
        world = self.box.world
        match order:
            case ev.SendPeer(peer, _, public_key):
                if self.known.setdefault(peer, public_key) != public_key:
                    self._forget(peer)
                    self.known[peer] = public_key
                return
            case ev.SendOnly(_, peers):
                for peer in gone(self.known, peers):
                    self._forget(peer)
                    del self.known[peer]
                return
            case ev.SendSession(peer, session, receiver, key, address, port, confirm):
                secret = bytes(key)
                wipe(key)
                assert secret not in world.send_keys, "a send key was handed out twice"
                world.send_keys.add(secret)
                self.sessions[peer] = _Sending(session, receiver, secret, world.now)
                self.endpoints[peer] = (address, port)
                waiting = self.staged.pop(peer, [])
                for data in waiting or ([KEEPALIVE] if confirm else []):
                    self._seal(peer, data)
            case ev.SendEndpoint(peer, address, port):
                self.endpoints[peer] = (address, port)
            case ev.SendKeepalive(peer):
                self.box.note("keepalive", peer)
                self._seal(peer, KEEPALIVE)
            case ev.SendForget(peer):
                self.box.note("send-forget", peer)
                self._forget(peer)
        assert order.peer in self.known, "an order for a peer that was not announced"

    def _forget(self, peer: int) -> None:
        self.sessions.pop(peer, None)
        self.staged.pop(peer, None)

    def send(self, peer: int, data: str) -> None:
        if peer not in self.known:
            return
        session = self.sessions.get(peer)
        if session is not None and self.box.world.now - session.born >= REJECT_AFTER_TIME:
            del self.sessions[peer]
            session = None
        if session is None:
            self.staged.setdefault(peer, []).append(data)
            self._report(peer)
        else:
            self._seal(peer, data)

    def _seal(self, peer: int, data: str) -> None:
        session = self.sessions.get(peer)
        if session is None:
            return
        packet = Transport(session.receiver, session.key, session.counter, data)
        session.counter += 1
        session.data += data != KEEPALIVE
        self.box.world.send(self.box.endpoint, self.endpoints[peer], packet)
        self._report(peer)

    def _report(self, peer: int) -> None:
        if peer not in self._due:
            self._due.add(peer)
            world = self.box.world
            when = max(world.now, self._reported.get(peer, -1.0) + REPORT_INTERVAL)
            world.at(when + world.random.uniform(0.0, world.report_delay), lambda: self._say(peer))

    def _say(self, peer: int) -> None:
        if self.box.encrypt is not self:
            return
        self._due.discard(peer)
        self._reported[peer] = self.box.world.now
        session = self.sessions.get(peer)
        if peer not in self.known:
            return
        if session is None:
            report = ev.SendReport(peer, 0, 0, 0, 0, True)
        else:
            report = ev.SendReport(peer, session.index, session.counter, session.data, 32 * session.counter, False)
        self.box.did(lambda manager, now: manager.send_report(report, now))


@dataclass
class _Receiving:
    peer: int
    key: bytes
    born: float
    packets: int = 0
    data: int = 0
    endpoint: tuple[bytes, int] = (b"", 0)
    seen: set[int] = field(default_factory=set)


class _Decrypt:
    def __init__(self, box: Box) -> None:
        self.box = box
        self.known: dict[int, bytes] = {}
        self.sessions: dict[int, _Receiving] = {}
        self._reported: dict[int, float] = {}
        self._due: set[int] = set()

    def order(self, order: ev.DecryptOrder) -> None:
        world = self.box.world
        match order:
            case ev.ReceivePeer(peer, _, public_key):
                if self.known.setdefault(peer, public_key) != public_key:
                    self._end({peer})
                    self.known[peer] = public_key
            case ev.ReceiveOnly(_, peers):
                for peer in gone(self.known, peers):
                    del self.known[peer]
                self._end({session.peer for session in self.sessions.values()} - self.known.keys())
            case ev.ReceiveSession(peer, session, key):
                secret = bytes(key)
                wipe(key)
                assert secret not in world.receive_keys, "a receive key was handed out twice"
                world.receive_keys.add(secret)
                assert session not in self.sessions
                self.sessions[session] = _Receiving(peer, secret, world.now)
            case ev.ReceiveForget(session):
                self.box.note("receive-forget", session)
                self.sessions.pop(session, None)

    def _end(self, peers: set[int]) -> None:
        self.sessions = {index: session for index, session in self.sessions.items() if session.peer not in peers}

    def alive(self) -> list[int]:
        """Indices of the sessions whose time is not over."""
        now = self.box.world.now
        return [index for index, session in self.sessions.items() if now - session.born < REJECT_AFTER_TIME]

    def arrive(self, packet: Transport, address: bytes, port: int) -> None:
        session = self.sessions.get(packet.receiver)
        if session is None or packet.receiver not in self.alive():
            self.box.unread += 1
            return
        if session.key != packet.key or packet.counter in session.seen:
            self.box.unread += 1
            return
        session.seen.add(packet.counter)
        session.packets += 1
        session.data += packet.data != KEEPALIVE
        session.endpoint = (address, port)
        if packet.data != KEEPALIVE:
            self.box.got.append((self.box.world.now, packet.data))
        if packet.receiver not in self._due:
            self._due.add(packet.receiver)
            world = self.box.world
            when = max(world.now, self._reported.get(packet.receiver, -1.0) + REPORT_INTERVAL)
            world.at(when + world.random.uniform(0.0, world.report_delay), lambda: self._say(packet.receiver))

    def _say(self, index: int) -> None:
        session = self.sessions.get(index)
        if self.box.decrypt is not self or session is None:
            return
        self._due.discard(index)
        self._reported[index] = self.box.world.now
        report = ev.ReceiveReport(
            session.peer, index, session.packets, session.data, 32 * session.packets, *session.endpoint
        )
        self.box.did(lambda manager, now: manager.receive_report(report, now))


class Box:
    """One gateway: a manager, the two models, a store, and a diary of what happened when."""

    def __init__(
        self,
        world: World,
        private: bytes,
        endpoint: tuple[bytes, int],
        peers: list[PeerSettings],
        trust: Trust | None = None,
    ) -> None:
        """With a ``trust`` it knows no ``peers`` before it is told of them by ``follow``."""
        self.identity = b""
        self.trust = trust
        self.world = world
        self.private = private
        self.peers = peers
        self.endpoint = endpoint
        self.store: dict[str, tuple[int, bytes]] = {}
        self.store_works = True
        self.diary: list[tuple[float, str, Any]] = []
        self.got: list[tuple[float, str]] = []
        self.unread = 0
        self.clock_error = 0.0
        self.encrypt = _Encrypt(self)
        self.decrypt = _Decrypt(self)
        self._tick_at = float("inf")
        world.boxes[endpoint] = self
        self.boot()

    # life and death -------------------------------------------------------------------------------------------------

    def boot(self) -> None:
        """A new keymgr, which finds encrypt, decrypt and the store as they are."""
        settings = Settings(Secret(self.private), tuple(self.peers), self.trust)
        self.manager = Manager(settings, rotates=self.trust is not None)
        for name in self.manager.missing_floors():
            version, blob = self.store.get(name, (0, b""))
            self.did(lambda manager, now, n=name, v=version, b=blob: manager.floor_loaded(n, v, b, now))
        self.did(lambda manager, now: manager.opened(Side.ENCRYPT, now))
        self.did(lambda manager, now: manager.opened(Side.DECRYPT, now))

    def kill(self, side: Side, gap: float = 0.05) -> None:
        """One crypto domain dies, and is back ``gap`` seconds later, knowing nothing."""
        if side is Side.ENCRYPT:
            self.encrypt = _Encrypt(self)
        else:
            self.decrypt = _Decrypt(self)
        self.did(lambda manager, now: manager.closed(side, now))
        self.world.at(self.world.now + gap, lambda: self.did(lambda manager, now: manager.opened(side, now)))

    def move(self, endpoint: tuple[bytes, int]) -> None:
        del self.world.boxes[self.endpoint]
        self.endpoint = endpoint
        self.world.boxes[endpoint] = self

    def follow(self, peers: Mapping[int, PeerSettings]) -> tuple[int, int]:
        """Tells the manager who its peers are from now on; sessions kept and ended."""
        followed = self.manager.follow(peers, self.world.now)
        self.did(lambda manager, now: followed.todo)
        return followed.kept, followed.ended

    # in and out -------------------------------------------------------------------------------------------------------

    def send(self, data: str, peer: int = 1) -> None:
        self.encrypt.send(peer, data)

    def arrive(self, packet: bytes | Transport, address: bytes, port: int) -> None:
        if isinstance(packet, Transport):
            self.decrypt.arrive(packet, address, port)
        else:
            self.did(
                lambda manager, now: manager.handshake_datagram(packet, address, port, now, self.world.random.randbytes)
            )

    def note(self, what: str, about: Any = None) -> None:
        self.diary.append((self.world.now, what, about))

    def times(self, *what: str) -> list[float]:
        return [when for when, event, _ in self.diary if event in what]

    def counts(self) -> Counter[str]:
        return Counter(event for _, event, _ in self.diary)

    def did(self, what: Callable[[Manager, float], list[ev.Event]]) -> None:
        """Calls the manager and carries out what it wants; then lets it tick if it must."""
        self._carry_out(what(self.manager, self.world.now))
        self._tick()

    def _tick(self) -> None:
        for _ in range(1000):
            when = self.manager.next_tick()
            if when is None or when > self.world.now:
                break
            wall = START + self.world.now + self.clock_error
            self._carry_out(self.manager.tick(self.world.now, wall, self.world.random.randbytes))
        else:
            raise AssertionError("the manager has always something to do")
        if when is not None and when < self._tick_at:
            self._tick_at = when
            self.world.at(when, self._wake)

    def _wake(self) -> None:
        self._tick_at = float("inf")
        self._tick()

    def _carry_out(self, todo: list[ev.Event]) -> None:
        for event in todo:
            match event:
                case ev.SendHandshake(datagram, address, port):
                    self.note({148: "initiation", 92: "response"}[len(datagram)], datagram)
                    self.world.send(self.endpoint, (address, port), datagram)
                case ev.ShowPeer():
                    self.shown = event
                case ev.Identify(public_key):
                    self.identity = public_key
                case ev.HidePeer(number):
                    self.note("hidden", number)
                case ev.Log(_, name, text):
                    self.note(name, text)
                case ev.PersistFloor(name, version, blob):
                    self._put(event, name, version, blob)
                case ev.ReceivePeer() | ev.ReceiveOnly() | ev.ReceiveSession() | ev.ReceiveForget():
                    self.note(type(event).__name__, event)
                    self.decrypt.order(event)
                case _:
                    self.note(type(event).__name__, event)
                    self.encrypt.order(event)

    def _put(self, put: ev.PersistFloor, name: str, version: int, blob: bytes) -> None:
        self.note("put", name)
        if self.store_works and version == self.store.get(name, (0, b""))[0] + 1:
            self.store[name] = (version, blob)
            self.manager.floor_stored(put)
        else:
            self._carry_out(self.manager.floor_failed(put, self.world.now))


LEFT, RIGHT = (b"\x0a\x00\x00\x01", 51820), (b"\x0a\x00\x00\x02", 51820)
LEFT_KEY, RIGHT_KEY = b"\x11" * 32, b"\x22" * 32


def peer(
    private: bytes, endpoint: tuple[bytes, int] | None = None, keepalive: int = 0, psk: bytes | None = None
) -> PeerSettings:
    """Settings of the peer with that private key."""
    host = ".".join(map(str, endpoint[0])) if endpoint else ""
    return PeerSettings(
        public_key=PrivateKey(private).public,
        preshared_key=Secret(psk) if psk else None,
        allowed_ips=(Prefix(b"\x0a\x01\x00\x00", 16),),
        endpoint=Endpoint(host, endpoint[1]) if endpoint else None,
        keepalive=keepalive,
    )


def pair(
    world: World,
    keepalive: int = 0,
    right_calls: bool = True,
    psk: bytes | None = None,
    right_psk: bytes | None = None,
) -> tuple[Box, Box]:
    """Two boxes that know each other; the right one need not know where the left one is."""
    left = Box(world, LEFT_KEY, LEFT, [peer(RIGHT_KEY, RIGHT, keepalive, psk)])
    right = Box(world, RIGHT_KEY, RIGHT, [peer(LEFT_KEY, LEFT if right_calls else None, 0, right_psk or psk)])
    return left, right


def gaps(times: list[float]) -> list[float]:
    """The time between each and the next."""
    return [b - a for a, b in itertools.pairwise(times)]
