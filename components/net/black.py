"""The shell of `black`: the UDP sockets on one side; decrypt, encrypt and the key manager on the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from septum.v1.handshakes import Handshake
from septum.v1.identity import Identity
from septum.v1.nonces import NonceReply, NonceRequest

from appliance.guest import shortly
from appliance.guest.loop import Guest
from appliance.guest.ports import PeerClosed, PeerStalled
from appliance.vchan.messages import Datagrams
from appliance.vchan.ring import PeerViolation
from components.net.doorman import RANDOM_BYTES, Doorman, Verdict, is_transport
from components.net.settings import BlackSettings, parse
from components.net.shards import by_receiver
from components.net.udp import Arrival, UdpSocket

READS: Final = 16  # groups in one turn
RETRY: Final = 1.0  # seconds until the next try for randomness
COUNTERS: Final = (
    "datagrams_in datagrams_out bytes_in bytes_out groups_in groups_out "
    "malformed bad_mac1 rate_limited cookies_sent sink_full send_errors"
).split()


def build(guest: Guest) -> None:
    """Joins the sockets and ports of `black` to its doorman."""
    settings = parse("black", guest.settings)
    assert isinstance(settings, BlackSettings)
    black = Black(guest, Doorman(settings.public_key))
    for device in ("udp4", "udp6"):
        if device in guest.devices:
            black.attach(device)
    guest.receive("departing", black.on_departing)
    guest.receive("handshakes_departing", black.on_handshake)
    guest.on_open("nonces", black.on_rng)
    if guest.is_joined("identity"):
        guest.receive("identity", black.on_identity)
    black.shorten()
    guest.timer(black.on_time)


class Black:
    """Datagrams in, sorted by the doorman; datagrams out."""

    def __init__(self, guest: Guest, doorman: Doorman) -> None:
        self._guest = guest
        self._doorman = doorman
        self._sockets: dict[int, UdpSocket] = {}  # by the bytes of an address
        self._decrypts = guest.spread("arrived")
        # A box of one decrypt pays nothing for what several need
        self._pass_on: Callable[[Datagrams], None] = self._pass_to_one if len(self._decrypts) == 1 else self._share_out
        self._handshakes = guest.out("handshakes_arrived")
        self._nonces = guest.client("nonces")
        self._count = {name: guest.counter(name).add for name in COUNTERS}
        self._retry = float("-inf")
        self._told_single = False

    def attach(self, device: str) -> None:
        udp = UdpSocket(self._guest.devices[device])
        self._sockets[udp.address_bytes] = udp

        def on_readable(now: float) -> bool:
            for _ in range(READS):
                arrival = udp.receive()
                if arrival is None:
                    return False
                self._on_arrival(arrival, now)
                # Not before the first: the loop knows when a ring is full because its reader is stuck, and then what
                # is in the socket must go on moving, handshakes above all
                for decrypt in self._decrypts:
                    if not decrypt.room():
                        return True
                if udp.is_drained:
                    return False
            return True

        self._guest.readable(device, on_readable, into=self._decrypts)

    def shorten(self) -> None:
        """A lone datagram goes the short way, where there is one."""
        guest, short = self._guest, shortly.module("components.net.short")
        departing = guest.short_end("departing")
        if short is None or departing is None:
            return
        counters = [guest.counter(name) for name in ("groups_out", "datagrams_out", "bytes_out")]
        fds = [self._sockets[length].fd if length in self._sockets else -1 for length in (4, 16)]
        guest.shorten(short.ToUdp(*fds, departing, counters))
        if len(self._decrypts) == 1:
            counters = [guest.counter(name) for name in ("groups_in", "datagrams_in", "bytes_in")]
            for udp in self._sockets.values():
                guest.shorten(short.FromUdp(udp, guest.short_end("arrived"), counters))

    # in ---------------------------------------------------------------------------------------------------------------

    def _on_arrival(self, arrival: Arrival, now: float) -> None:
        untrusted, size, address, port = arrival
        if not untrusted or not port:  # port 0 means "no reply" (RFC 768); nothing that WireGuard sends
            self._count["malformed"]()
            return
        self._count["groups_in"]()
        self._count["datagrams_in"](-(-len(untrusted) // size))
        self._count["bytes_in"](len(untrusted))
        if is_transport(untrusted, size):
            self._pass_on(Datagrams(untrusted, size, address, port))
            return
        for start in range(0, len(untrusted), size):
            self._on_single(untrusted[start : start + size], address, port, now)

    def _on_single(self, untrusted: memoryview, address: bytes, port: int, now: float) -> None:
        is_pressed = not self._handshakes.room()
        verdict, reply = self._doorman.judge(untrusted, address, port, now, is_pressed)
        if verdict is Verdict.TRANSPORT:
            self._pass_on(Datagrams(untrusted, len(untrusted), address, port))
        elif verdict is Verdict.HANDSHAKE:
            if not self._handshakes.send(Handshake(datagram=bytes(untrusted), address=address, port=port)):
                self._count["sink_full"]()
        else:
            self._count[verdict.value]()
            if reply:
                self._send(memoryview(reply), len(reply), address, port)

    def _pass_to_one(self, datagrams: Datagrams, to: int = 0) -> None:
        if not self._decrypts[to].send(datagrams):
            self._count["sink_full"]()

    def _share_out(self, datagrams: Datagrams) -> None:
        untrusted, size, address, port = datagrams
        for to, part in by_receiver(memoryview(untrusted), size, len(self._decrypts)):
            self._pass_to_one(Datagrams(part, min(size, len(part)), address, port), to)

    # out --------------------------------------------------------------------------------------------------------------

    def on_departing(self, group: Datagrams, now: float) -> None:
        self._send(memoryview(group.datagrams), group.size, group.address, group.port)

    def on_handshake(self, handshake: Handshake, now: float) -> None:
        self._send(memoryview(handshake.datagram), len(handshake.datagram), handshake.address, handshake.port)

    def on_identity(self, identity: Identity, now: float) -> None:
        self._doorman.rekey(identity.public_key)

    def _send(self, datagrams: memoryview, size: int, address: bytes, port: int) -> None:
        count = -(-len(datagrams) // size)
        udp = self._sockets.get(len(address))
        sent = udp.send(datagrams, size, address, port) if udp is not None else 0
        if sent < count:
            self._count["send_errors"](count - sent)
        if sent:
            self._count["groups_out"]()
            self._count["datagrams_out"](sent)
            self._count["bytes_out"](len(datagrams) if sent == count else sent * size)

    # time -------------------------------------------------------------------------------------------------------------

    def on_rng(self, now: float) -> None:
        """Randomness can be had (again): whoever waits to ask for it need not."""
        self._retry = min(self._retry, now)

    def on_time(self, now: float) -> float:
        if now >= max(self._doorman.secret_due(), self._retry):
            self._renew(now)
        if not self._told_single and not all(udp.segments for udp in self._sockets.values()):
            self._told_single = True
            self._guest.log.warning(
                "no-segmentation", "the WAN device takes one datagram at a time: slower from here on"
            )
        return max(self._doorman.secret_due(), self._retry)

    def _renew(self, now: float) -> None:
        try:
            reply: NonceReply = self._nonces.call(NonceRequest(length=RANDOM_BYTES))
            self._doorman.renew(reply.random, now)
        except (PeerClosed, PeerStalled, PeerViolation, ValueError) as error:
            if isinstance(error, PeerViolation):
                self._guest.accuse(self._nonces, error)
            # The secret in use stays; without any, a flood finds the door shut. Told once, tried on
            if self._retry == float("-inf"):
                self._guest.log.warning("no-cookie-secret", str(error))
            self._retry = now + RETRY
