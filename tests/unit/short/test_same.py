"""Whatever comes, what comes out is what the long way makes of it, and so is all that is counted and remembered."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from random import Random
from typing import Any, Final

import pytest

from appliance.vchan.messages import Datagrams, Packets
from bench import trace
from components.crypto import decrypt, encrypt
from components.crypto.receiving import Receiver
from components.crypto.sending import Sender
from components.filter import main
from components.filter.engine import Engine
from components.filter.model import Action, Quota, Range, Rule, RuleSet, Side, Tracking
from components.filter.ruleset import encode
from components.net import virtio
from tests.unit.crypto.wire import datagram
from tests.unit.short import orders as to
from tests.unit.short import traffic
from tests.unit.short.twins import Clock, Twins

STEPS: Final = 1000
SEEDS: Final = (1, 2)


def made_by(monkeypatch: pytest.MonkeyPatch, module: Any, kind: Any) -> list[Any]:
    """All of ``kind`` that ``module`` makes from now on."""
    made: list[Any] = []

    def make(*arguments: Any) -> Any:
        made.append(kind(*arguments))
        return made[-1]

    monkeypatch.setattr(module, kind.__name__, make)
    return made


@pytest.fixture
def twins(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Twins]:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)

    def make(*arguments: Any) -> Twins:
        made = Twins(*arguments)
        made.clock = clock
        return made

    return make


def grouped(rng: Random, packet: bytes, peer: int = 0) -> Packets:
    """A message with this packet, and now and then with several."""
    count = rng.choice((1,) * 12 + (2, 3, 7))
    last = packet[: rng.randrange(1, len(packet) + 1)] if count > 1 else b""
    return Packets(packet * min(count, 65535 // len(packet) or 1) + last * (rng.random() < 0.3), len(packet), peer)


def at_once(rng: Random) -> int:
    return rng.choice((1,) * 10 + (2, 3, 5, 10))


# encrypt --------------------------------------------------------------------------------------------------------------


def sending_order(rng: Random, fresh: Iterator[int]) -> Any:
    peer = rng.choice((1, 1, 2))
    return rng.choice(
        (
            lambda: to.send_session(peer, next(fresh), rng.choice(to.PLACES), rng.random() < 0.5),
            lambda: to.send_session(peer, next(fresh), rng.choice(to.PLACES), rng.random() < 0.5),
            lambda: to.send_session(peer, next(fresh), rng.choice(to.PLACES), rng.random() < 0.5),
            lambda: to.send_endpoint(peer, rng.choice(to.PLACES)),
            lambda: to.send_keepalive(peer),
            lambda: to.send_peer(peer, rng.choice((to.NETS, to.NETS[:1], to.NETS[1:]))),
            lambda: to.send_forget(peer),
            lambda: to.send_only(1),
            lambda: to.send_session(9, next(fresh)),  # of nobody
        )
    )()


@pytest.mark.parametrize("seed", SEEDS)
def test_encrypt(seed: int, twins: Callable[..., Twins], monkeypatch: pytest.MonkeyPatch) -> None:
    rng, fresh = Random(seed), iter(range(1, 9999))
    senders: list[Sender] = made_by(monkeypatch, encrypt, Sender)
    pair = twins("crypto", "encrypt")
    pair.run("orders", [to.send_peer(2, ()), to.send_peer(1), to.send_session(1, next(fresh))], ())
    nonces: set[tuple[bytes, bytes]] = set()
    out: list[Datagrams] = []
    latest = traffic.packet(rng, True)
    for _ in range(STEPS):
        if rng.random() < 0.03:
            pair.give("orders", *(sending_order(rng, fresh) for _ in range(at_once(rng))))
            if rng.random() < 0.6:
                pair.give("orders", to.send_peer(1), to.send_session(1, next(fresh)))
            if rng.random() < 0.7:
                pair.settle()
        if rng.random() < 0.5:
            latest = traffic.packet(rng, True)
        packets = [grouped(rng, latest, rng.choice((0,) * 20 + (1,)))]
        packets += [grouped(rng, traffic.packet(rng, True)) for _ in range(at_once(rng) - 1)]
        (sealed,) = pair.run("plain", packets, ("sealed",))
        out += sealed
    for group in out:
        blob = bytes(group.datagrams)
        for at in range(0, len(blob), group.size):
            nonce = blob[at + 4 : at + 8], blob[at + 8 : at + 16]
            assert nonce not in nonces, "a counter was used twice"
            nonces.add(nonce)
    assert pair.shortly("plain") == pair.shortly("sealed") > STEPS // 10
    short, long = senders
    assert short.counts == long.counts
    assert totals_sent(short) == totals_sent(long)
    pair.check_statistics()
    check_reports(pair)


def totals_sent(sender: Sender) -> list[Any]:
    return [
        (number, peer.address, peer.port, peer.session and sender._totals(peer, peer.session))
        for number, peer in sender._peers.items()
    ]


def check_reports(pair: Twins) -> None:
    """The last word about each session is the same, once all is reported."""
    told: list[dict[Any, Any]] = [{}, {}]
    until = time.monotonic() + 2
    while time.monotonic() < until:
        pair.settle()
        for domain, reports in zip(pair.both, told, strict=True):
            for report in domain.take("reports"):
                reports[report.peer, report.session] = report
        time.sleep(0.02)
        if told[0] == told[1] and time.monotonic() > until - 1.5:
            break
    assert told[0] and told[0] == told[1]


# decrypt --------------------------------------------------------------------------------------------------------------


class Sessions:
    """What a peer of the tunnel may send: datagrams of the sessions that there are or were."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._counters: dict[int, int] = {}
        self._fresh = iter(range(1, 9999))
        self._sent: list[Datagrams] = []
        self._place = to.PLACES[0]
        self._latest = traffic.packet(rng, False)

    def session(self, peer: int) -> Any:
        number = next(self._fresh)
        self._counters[number] = 0
        if peer == 1 or self._rng.random() < 0.2:
            self._current = number
        return to.receive_session(peer, number)

    def order(self) -> Any:
        rng = self._rng
        return rng.choice(
            (
                lambda: self.session(1),
                lambda: self.session(1),
                lambda: self.session(2),
                lambda: to.receive_peer(1, rng.choice((to.NETS, to.NETS[:1], to.NETS[1:]))),
                lambda: to.receive_forget(rng.choice(list(self._counters))),
                lambda: to.receive_only(1),
                lambda: self.session(9),
            )
        )()

    def datagrams(self) -> Datagrams:
        rng = self._rng
        odd = rng.random()
        if odd < 0.03:
            self._place = rng.choice(to.PLACES)
        if odd > 0.95 and self._sent:
            return rng.choice(self._sent[-20:])  # once more
        receiver = self._current if rng.random() < 0.95 else rng.choice(list(self._counters))
        counter = self._counters[receiver]
        if 0.9 < odd < 0.95:
            counter = max(0, counter + rng.choice((-9000, -3, -1, 1, 2, 64, 9000, 2**40)))
        self._counters[receiver] = max(self._counters[receiver], counter + 1)
        if rng.random() < 0.5:
            self._latest = traffic.packet(rng, False)
        plain = b"" if odd < 0.05 else self._latest
        padded = None if rng.random() < 0.9 else len(plain) + rng.randrange(20)
        one = datagram(plain, counter, receiver, to.key(receiver), padded)
        if 0.85 < odd < 0.9:
            at = rng.randrange(len(one))
            one = one[:at] + bytes((one[at] ^ 1 << rng.randrange(8),)) + one[at + 1 :]
        blob = one
        for _ in range(rng.choice((0,) * 12 + (1, 5))):
            counter = self._counters[receiver]
            self._counters[receiver] += 1
            blob += datagram(plain, counter, receiver, to.key(receiver), padded)
        made = Datagrams(blob, len(one), *self._place)
        self._sent.append(made)
        return made


@pytest.mark.parametrize("seed", SEEDS)
def test_decrypt(seed: int, twins: Callable[..., Twins], monkeypatch: pytest.MonkeyPatch) -> None:
    rng = Random(seed)
    sessions = Sessions(rng)
    receivers: list[Receiver] = made_by(monkeypatch, decrypt, Receiver)
    pair = twins("crypto", "decrypt")
    pair.run("orders", [to.receive_peer(2, ()), to.receive_peer(1), sessions.session(1)], ())
    for _ in range(STEPS):
        if rng.random() < 0.03:
            pair.give("orders", *(sessions.order() for _ in range(at_once(rng))))
            if rng.random() < 0.7:
                pair.give("orders", to.receive_peer(1), sessions.session(1))
            if rng.random() < 0.7:
                pair.settle()
        messages = [sessions.datagrams() for _ in range(at_once(rng))]
        if rng.random() < 0.1:
            rng.shuffle(messages)
        pair.run("sealed", messages, ("plain",))
    assert pair.shortly("sealed") == pair.shortly("plain") > STEPS // 10
    short, long = receivers
    assert short.counts == long.counts
    assert all(short.counts[name] for name in short.counts)
    assert totals_received(short) == totals_received(long)
    pair.check_statistics()
    check_reports(pair)


def totals_received(receiver: Receiver) -> list[Any]:
    return [
        (number, one.window.next, seen(one.window), one.endpoint, receiver._totals(one))
        for number, one in receiver._sessions.items()
    ]


def seen(window: Any) -> list[bool]:
    """Of each counter that matters, whether it would be taken."""
    return [window.is_fresh(counter) for counter in range(max(0, window.next - 8200), window.next + 3)]


# filter ---------------------------------------------------------------------------------------------------------------

_KNOWN = Rule(Action.ALLOW, tracking=Tracking.ESTABLISHED | Tracking.RELATED)
RULESETS: Final = (
    trace.RULES,
    RuleSet((_KNOWN, Rule(Action.DROP, protocols=(17,), destination_ports=(Range(53, 53),)), *trace.RULES.rules[1:])),
    RuleSet((Rule(Action.ALLOW, sides=Side.RED), Rule(Action.ALLOW, peers=(1,), sides=Side.TUNNEL))),
    RuleSet((Rule(Action.DROP, protocols=(1, 58)), Rule(Action.ALLOW, log=True))),
    RuleSet((Rule(Action.ALLOW, quota=Quota(40, 0)), Rule(Action.ALLOW, quota=Quota(0, 40_000)), Rule(Action.DROP))),
    RuleSet((Rule(Action.ALLOW, sides=Side.RED), _KNOWN)),
    RuleSet(()),
)


@pytest.mark.parametrize("seed", SEEDS)
def test_filter(seed: int, twins: Callable[..., Twins], monkeypatch: pytest.MonkeyPatch) -> None:
    rng = Random(seed)
    engines: list[Engine] = made_by(monkeypatch, main, Engine)
    pair = twins("filter", "filter", {"ruleset": encode(trace.RULES)})
    latest = {outward: traffic.packet(rng, outward) for outward in (False, True)}
    for _ in range(STEPS):
        if rng.random() < 0.02:
            now, rules = time.monotonic(), rng.choice(RULESETS if rng.random() < 0.2 else RULESETS[:2])
            assert engines[0].replace(rules, now, 1.7e9) == engines[1].replace(rules, now, 1.7e9)
        if rng.random() < 0.01 and engines[0].flows.by_key:
            key = rng.choice(list(engines[0].flows.by_key))
            for engine in engines:
                engine.flows.forget(engine.flows.by_key[key])
        outward = rng.random() < 0.5
        peer = 0 if outward else rng.choice((1,) * 30 + (2, 0))
        if rng.random() < 0.5:
            latest[outward] = traffic.packet(rng, outward)
        messages = [grouped(rng, latest[outward], peer)]
        messages += [grouped(rng, traffic.packet(rng, outward), peer) for _ in range(at_once(rng) - 1)]
        pair.run("red_in" if outward else "tunnel_in", messages, ("tunnel_out", "red_out"))
    assert pair.shortly("red_in") + pair.shortly("tunnel_in") > STEPS // 10
    assert pair.shortly("red_in") == pair.shortly("tunnel_out") and pair.shortly("tunnel_in") == pair.shortly("red_out")
    short, long = engines
    assert (short.passed, short.rejected, short.denied) == (long.passed, long.rejected, long.denied)
    assert (short.records.packets, short.records.octets) == (long.records.packets, long.records.octets)
    assert short.records.last == pytest.approx(long.records.last, abs=1)
    assert list(short.flows.by_key) == list(long.flows.by_key)
    for one, other in zip(short.flows.by_key.values(), long.flows.by_key.values(), strict=True):
        names = ("state", "peer", "packets", "octets", "is_answered", "near_rule", "far_rule", "rule", "fins", "syn")
        assert [getattr(one, name) for name in names] == [getattr(other, name) for name in names]
        assert one.expires == pytest.approx(other.expires, abs=1)
    pair.check_statistics()


# red ------------------------------------------------------------------------------------------------------------------


def read_of(rng: Random) -> bytes:
    """What one read of a TUN gives."""
    packet, odd = traffic.packet(rng, True), rng.random()
    if odd < 0.05:
        return rng.choice((trace.superpacket(), rng.randbytes(rng.randrange(1, 60))))
    start = 40 if packet[0] >> 4 == 6 else 20
    if odd < 0.4:
        field = {17: 6, 6: 16, 58: 2}.get(packet[6] if start == 40 else packet[9], 2)
        if odd < 0.1:
            start, field = rng.randrange(len(packet) + 9), rng.randrange(20)
        return virtio.HEADER.pack(virtio.NEEDS_CSUM, virtio.GSO_NONE, 0, 0, start, field) + packet
    if odd < 0.45:
        return virtio.HEADER.pack(rng.randrange(4), rng.randrange(6), 0, rng.randrange(99), start, 6) + packet
    return virtio.PLAIN + packet


def packets_of(groups: list[Packets]) -> list[bytes]:
    blobs = [(bytes(group.packets), group.size, group.peer) for group in groups]
    assert all(peer == 0 for _, _, peer in blobs)
    return [blob[at : at + size] for blob, size, _ in blobs for at in range(0, len(blob), size)]


def waiting(end: socket.socket) -> list[bytes]:
    found = []
    while True:
        try:
            found.append(end.recv(1 << 17, socket.MSG_DONTWAIT))
        except BlockingIOError:
            return found


def tuns() -> tuple[list[socket.socket], list[socket.socket]]:
    """The outer and the inner ends of two, which keep the bounds of what is written into them as a TUN does."""
    pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(2)]
    for end in (end for pair in pairs for end in pair):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


@pytest.mark.parametrize("seed", SEEDS)
def test_red(seed: int, twins: Callable[..., Twins]) -> None:
    rng = Random(seed)
    lans, inner = tuns()
    pair = twins("net", "red", {}, tuple({"tun": end.detach()} for end in inner))
    for _ in range(STEPS):
        if rng.random() < 0.5:
            for read in [read_of(rng) for _ in range(at_once(rng))]:
                for lan in lans:
                    lan.send(read)
            pair.settle()
            pair.same(lambda domain: packets_of(domain.take("plain_out")))
        else:
            messages = [grouped(rng, traffic.packet(rng, False), rng.choice((0, 1, 500))) for _ in range(at_once(rng))]
            pair.run("plain_in", messages, ())
            found, expected = map(waiting, lans)
            assert found == expected
    assert pair.shortly("plain_in") > STEPS // 10 and pair.shortly("plain_out") > STEPS // 10
    pair.check_counters()


# black ----------------------------------------------------------------------------------------------------------------


def udp(family: int, host: str) -> socket.socket:
    made = socket.socket(family, socket.SOCK_DGRAM)
    if family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    made.bind((host, 0))
    return made


def arriving(rng: Random) -> bytes:
    odd = rng.random()
    if odd < 0.85:
        return b"\4\0\0\0" + rng.randbytes(28 + traffic.size(rng))
    if odd < 0.9:
        return b"\4\0\0\0" + rng.randbytes(rng.randrange(40))
    return rng.randbytes(rng.choice((0, 1, 31, 32, 148, 2000)))


def by_family(groups: list[Datagrams]) -> list[list[tuple[Any, ...]]]:
    """Datagrams apart: of two sockets that can be read at once, either may be read first."""
    apart: dict[int, list[tuple[Any, ...]]] = {4: [], 16: []}
    for blob, size, address, port in groups:
        apart[len(address)] += [(bytes(blob[at : at + size]), address, port) for at in range(0, len(blob), size)]
    return list(apart.values())


@pytest.mark.parametrize("seed", SEEDS)
def test_black(seed: int, twins: Callable[..., Twins]) -> None:
    rng = Random(seed)
    families = {"udp4": (socket.AF_INET, "127.0.0.1"), "udp6": (socket.AF_INET6, "::1")}
    devices = [{name: udp(*of) for name, of in families.items()} for _ in range(2)]
    places = [{name: one.getsockname()[:2] for name, one in sockets.items()} for sockets in devices]
    # Two who speak, and hear, of either family
    outside = {name: [udp(*of) for _ in range(2)] for name, of in families.items()}
    for one in (one for ends in (*outside.values(), *(sockets.values() for sockets in devices)) for one in ends):
        one.setsockopt(socket.SOL_UDP, 104, 1)  # UDP_GRO
    fds = tuple({name: one.detach() for name, one in sockets.items()} for sockets in devices)
    pair = twins("net", "black", {"public_key": "A" * 43 + "="}, fds)
    for _ in range(STEPS):
        if rng.random() < 0.5:
            for _ in range(at_once(rng)):
                name = rng.choice(("udp4", "udp4", "udp6"))
                end, one = outside[name][rng.random() < 0.1], arriving(rng)
                for place in places:
                    end.sendto(one, place[name])
            pair.settle()
            pair.same(lambda domain: by_family(domain.take("arrived")))
            pair.take("handshakes_arrived")
        else:
            messages = [departing(rng, outside) for _ in range(at_once(rng))]
            pair.run("departing", messages, ())
            for name, ends in outside.items():
                for end in ends:
                    found = heard(end, [place[name] for place in places])
                    assert found[0] == found[1]
    assert pair.shortly("departing") > STEPS // 10 and pair.shortly("arrived") > STEPS // 10
    pair.check_counters()


def departing(rng: Random, outside: dict[str, list[socket.socket]]) -> Datagrams:
    name = rng.choice(("udp4", "udp4", "udp6"))
    host, port = outside[name][rng.random() < 0.2].getsockname()[:2]
    address = socket.inet_pton(socket.AF_INET if name == "udp4" else socket.AF_INET6, host)
    one = b"\4\0\0\0" + rng.randbytes(28 + traffic.size(rng))
    count = rng.choice((1,) * 12 + (2, 3))
    return Datagrams(one * count, len(one), address, port)


def heard(end: socket.socket, places: list[Any]) -> list[list[bytes]]:
    """What came from either of ``places``, datagrams apart."""
    found: list[list[bytes]] = [[], []]
    while True:
        try:
            blob, ancillary, _, source = end.recvmsg(1 << 17, 64, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return found
        size = int.from_bytes(ancillary[0][2], "little") if ancillary else len(blob) or 1
        found[places.index(source[:2])] += [blob[at : at + size] for at in range(0, len(blob), size)]
