"""keymgr's core alone against stock `wireguard-go`: a plain UDP socket, no domains, no TUN on our side.

Both roles, with and without a pre-shared key, both IP versions outside; the cookie of a peer put under load.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from components.keymgr import events as ev
from components.keymgr.cookie import mac, mac1_key
from components.keymgr.manager import Manager, Side
from components.keymgr.settings import parse
from tests.system.lab import Lab, WireguardGo, pair
from tests.system.lab.conf import PORT, Conf
from tests.system.lab.namespace import family_of

pytestmark = pytest.mark.root

TRANSPORT = struct.Struct("<IIQ")


class Bare:
    """A manager on a UDP socket, with just enough of encrypt and decrypt to send and open keepalives."""

    def __init__(self, lab: Lab, conf: Conf, outer: int) -> None:
        (remote,) = conf.peers
        table = {"public_key": remote.public_key, "allowed_ips": remote.allowed_ips}
        table |= {"endpoint": remote.endpoint} if remote.endpoint else {}
        table |= {"preshared_key": remote.preshared_key} if remote.preshared_key else {}
        self.manager = Manager(parse("keymgr", {"private_key": conf.keys.private, "peers": [table]}))
        own = lab.right.wan4 if outer == 4 else lab.right.wan6
        self.family = family_of(own)
        self.socket = lab.right.gateway.socket(self.family, socket.SOCK_DGRAM)
        self.socket.bind((own, PORT))
        self.socket.settimeout(0.02)
        self.sending: tuple[ev.SendSession, bytes] | None = None
        self.receiving: dict[int, tuple[int, bytes]] = {}
        self.counter = 0
        self.opened = 0
        self.log: list[str] = []
        self.sent: list[bytes] = []  # handshake messages
        now = time.monotonic()
        for name in self.manager.missing_floors():
            self.manager.floor_loaded(name, 0, b"", now)
        for side in Side:
            self.manager.opened(side, now)

    def _send(self, datagram: bytes, address: bytes, port: int) -> None:
        self.socket.sendto(datagram, (socket.inet_ntop(self.family, address), port))

    def _do(self, todo: list[ev.Event]) -> None:
        for event in todo:
            match event:
                case ev.SendHandshake(datagram, address, port):
                    self.sent.append(datagram)
                    self._send(datagram, address, port)
                case ev.SendSession(key=key, confirm=confirm):
                    self.sending, self.counter = (event, bytes(key)), 0
                    if confirm:
                        self.keepalive()
                case ev.SendKeepalive():
                    self.keepalive()
                case ev.ReceiveSession(peer, session, key):
                    self.receiving[session] = (peer, bytes(key))
                case ev.Log(_, name, text):
                    self.log.append(f"{name}: {text}")
                case ev.PersistFloor():
                    self.manager.floor_stored(event)

    def keepalive(self) -> None:
        assert self.sending is not None
        session, key = self.sending
        header = TRANSPORT.pack(4, session.receiver, self.counter)
        sealed = ChaCha20Poly1305(key).encrypt(struct.pack("<4xQ", self.counter), b"", None)
        self.counter += 1
        self._send(header + sealed, session.address, session.port)

    def _open(self, datagram: bytes, address: bytes, port: int, now: float) -> None:
        _, index, counter = TRANSPORT.unpack_from(datagram)
        peer, key = self.receiving[index]
        plain = ChaCha20Poly1305(key).decrypt(struct.pack("<4xQ", counter), datagram[16:], None)
        self.opened += 1
        report = ev.ReceiveReport(peer, index, self.opened, 1 if plain else 0, len(datagram), address, port)
        self._do(self.manager.receive_report(report, now))

    def turn(self) -> None:
        now = time.monotonic()
        self._do(self.manager.tick(now, time.time(), os.urandom))
        try:
            datagram, source = self.socket.recvfrom(2048)
        except TimeoutError:
            return
        now = time.monotonic()
        address = socket.inet_pton(self.family, source[0])
        if datagram[0] == 4:
            self._open(datagram, address, source[1], now)
        else:
            self._do(self.manager.handshake_datagram(datagram, address, source[1], now, os.urandom))

    def until(self, what: str, condition: Callable[[], object], seconds: float = 12.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"waited {seconds} s in vain for {what}: {self.log}"
            self.turn()

    def want(self) -> None:
        self._do(self.manager.send_report(ev.SendReport(1, 0, 0, 0, 0, True), time.monotonic()))


@pytest.mark.parametrize("outer", [4, 6])
@pytest.mark.parametrize("psk", [False, True], ids=["no psk", "psk"])
def test_we_begin(lab: Lab, outer: int, psk: bool) -> None:
    theirs, ours = pair(lab.left, lab.right, outer, psk, calls="right")
    stock = lab.enter(WireguardGo(lab.left, theirs))
    bare = Bare(lab, ours, outer)
    bare.want()
    bare.until("a response", lambda: bare.manager.counters()["handshakes"])
    # The stock peer counts a handshake once our first packet opened: it has the same keys
    bare.until("the peer's confirmation", lambda: stock.handshakes()[ours.keys.public] > 0)
    assert bare.manager.counters()["refused"] == 0


@pytest.mark.parametrize("outer", [4, 6])
@pytest.mark.parametrize("psk", [False, True], ids=["no psk", "psk"])
def test_they_begin(lab: Lab, outer: int, psk: bool) -> None:
    theirs, ours = pair(lab.left, lab.right, outer, psk, calls="left")
    bare = Bare(lab, ours, outer)
    stock = lab.enter(WireguardGo(lab.left, theirs.with_peer(keepalive=1)))
    bare.until("an initiation that was answered, and confirmed", lambda: bare.manager.counters()["handshakes"])
    assert stock.handshakes()[ours.keys.public] > 0
    assert bare.sending is not None and bare.opened >= 1
    # We send under our key now, and the peer opens it
    before = int(stock.show("transfer")[0][1])
    bare.keepalive()
    bare.until("our packet to be counted", lambda: int(stock.show("transfer")[0][1]) > before)
    assert bare.manager.counters()["refused"] == 0


def test_a_wrong_preshared_key_gets_nowhere(lab: Lab) -> None:
    theirs, ours = pair(lab.left, lab.right, psk=True, calls="right")
    other, _ = pair(lab.left, lab.right, psk=True)
    stock = lab.enter(WireguardGo(lab.left, theirs))
    bare = Bare(lab, ours.with_peer(preshared_key=other.peers[0].preshared_key), 4)
    bare.want()
    bare.until("a response that is refused", lambda: bare.manager.counters()["refused"])
    assert bare.manager.counters()["handshakes"] == 0 and bare.sending is None
    assert stock.handshakes()[ours.keys.public] == 0


def test_a_peer_under_load_gives_a_cookie_and_takes_it(lab: Lab) -> None:
    theirs, ours = pair(lab.left, lab.right, calls="right")
    stock = lab.enter(WireguardGo(lab.left, theirs))
    bare = Bare(lab, ours, 4)
    target = (lab.left.wan4, PORT)
    key = mac1_key(bare.manager._peers[1].public)

    def press() -> None:
        """A few hundred initiations that cost the peer a DH each: mac1 is right, the rest is noise."""
        for _ in range(400):
            body = b"\x01\0\0\0" + os.urandom(112)
            bare.socket.sendto(body + mac(key, body) + bytes(16), target)

    def press_until(counter: str) -> None:
        before = bare.manager.counters()[counter]
        for _ in range(20):
            press()
            bare.manager._peers[1].begin(time.monotonic(), urgent=True)
            end = time.monotonic() + 0.5
            while time.monotonic() < end:
                bare.turn()
                if bare.manager.counters()[counter] > before:
                    return
        raise AssertionError(f"{counter} stays {before}: {bare.log}")

    press_until("cookies_received")
    # Still under load, the peer answers one who proves his address with mac2
    press_until("handshakes")
    assert bare.sent[-1][:4] == b"\x01\0\0\0" and bare.sent[-1][-16:] != bytes(16)
    bare.until("the peer's confirmation", lambda: stock.handshakes()[ours.keys.public] > 0)
