"""A thousand peers in one thread: each shakes hands by the project's own Noise, and sends back what it gets.

peers = FarPeers(keys, box_public, socket, box_address)
peers.shake()           # a session for each, at a pace that black's doorman takes for no flood
peers.start(); ...; peers.stop()
"""

from __future__ import annotations

import base64
import os
import socket
import struct
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from components.keymgr import tai64n
from components.keymgr.cookie import CookieJar
from components.keymgr.messages import Response, parse
from components.keymgr.noise import NO_PSK, HandshakeError, Initiator, PrivateKey
from tests.system.lab import Keys, LabError

PACE: Final = 200  # handshakes a second
ATTEMPTS: Final = 5
PATIENCE: Final = 0.5  # seconds for the last answers to an attempt
RESPONSE_BYTES: Final = 92
_TRANSPORT: Final = struct.Struct("<IIQ")
_NONCE: Final = struct.Struct("<4xQ")
_ADDRESSES: Final = slice(12, 20)  # of an IPv4 header
_PORTS: Final = slice(20, 24)


class _Peer:
    """One peer's session: made by it, so that it may send first."""

    def __init__(self, index: int, private: bytes, box: bytes) -> None:
        self._index = index
        self._box = box
        self._static = PrivateKey(private)
        self._static_static = self._static.dh(box)
        self._jar = CookieJar(box)
        self.receiver: int | None = None
        self.counter = 0

    def initiation(self) -> bytes:
        """A new one: what answers an earlier one is refused from now on."""
        self._initiator = Initiator(
            self._static,
            self._box,
            self._static_static,
            psk=NO_PSK,
            ephemeral=os.urandom(32),
            index=self._index,
            timestamp=tai64n.stamp(time.time()),
        )
        return self._jar.sign(self._initiator.body, time.monotonic())

    def take(self, response: Response) -> None:
        """Errors: HandshakeError."""
        keys = self._initiator.finish(response)
        self.seal, self.open = ChaCha20Poly1305(keys.send), ChaCha20Poly1305(keys.receive)
        self.receiver = response.sender

    def datagram(self, plain: bytes) -> bytes:
        assert self.receiver is not None
        header = _TRANSPORT.pack(4, self.receiver, self.counter)
        sealed = self.seal.encrypt(_NONCE.pack(self.counter), plain, None)
        self.counter += 1
        return header + sealed


def _returned(packet: bytes) -> bytes:
    """A UDP packet over IPv4 the other way: both checksums are sums of what only changes places."""
    back = bytearray(packet)
    for field in (_ADDRESSES, _PORTS):
        one = packet[field]
        half = len(one) // 2
        back[field] = one[half:] + one[:half]
    return bytes(back)


class FarPeers:
    """The peers with these keys, at one UDP socket."""

    def __init__(self, keys: Sequence[Keys], box: Keys, outside: socket.socket, where: tuple[str, int]) -> None:
        public = base64.b64decode(box.public)
        self._peers = [_Peer(index, base64.b64decode(one.private), public) for index, one in enumerate(keys)]
        self._socket = outside
        self._socket.settimeout(0.05)
        self._where = where
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._stopped = threading.Event()
        self.returned = 0

    def shake(self) -> None:
        """Errors: LabError if a peer has no session after ATTEMPTS initiations."""
        self._socket.settimeout(1 / PACE)
        for _ in range(ATTEMPTS):
            for peer in self._without_session():
                self._socket.sendto(peer.initiation(), self._where)
                self._answers(time.monotonic() + 1 / PACE)
            self._answers(time.monotonic() + PATIENCE)
        self._socket.settimeout(0.05)
        if missing := self._without_session():
            raise LabError(f"{len(missing)} of {len(self._peers)} peers have no session")

    def _without_session(self) -> list[_Peer]:
        return [peer for peer in self._peers if peer.receiver is None]

    def _answers(self, until: float) -> None:
        while time.monotonic() < until:
            try:
                untrusted = self._socket.recv(2048)
            except TimeoutError:
                continue
            if len(untrusted) != RESPONSE_BYTES or not isinstance(response := parse(untrusted), Response):
                continue
            peer = self._peers[response.receiver]
            with suppress(HandshakeError):
                peer.take(response)
                self._socket.sendto(peer.datagram(b""), self._where)  # confirms it: the box may send now

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()
        self._socket.close()

    def _work(self) -> None:
        while not self._stopped.is_set():
            try:
                untrusted = self._socket.recv(2048)
            except TimeoutError:
                continue
            kind, index, counter = _TRANSPORT.unpack_from(untrusted)
            if kind != 4 or index >= len(self._peers) or len(untrusted) <= 32:
                continue
            peer = self._peers[index]
            packet = peer.open.decrypt(_NONCE.pack(counter), untrusted[16:], None)
            length = int.from_bytes(packet[2:4], "big")
            self._socket.sendto(peer.datagram(_returned(packet[:length])), self._where)
            self.returned += 1
