"""The ways of a lone packet through each domain, as stories.py tells of them: what is usual there, what is odd, and
what may happen all of a sudden.
"""

from __future__ import annotations

import os
import socket
from abc import abstractmethod
from collections.abc import Callable, Iterator
from random import Random
from typing import Any, Final

from appliance.vchan.messages import Datagrams, Packets
from bench import trace
from components.crypto import constants, decrypt, encrypt
from components.filter import main
from components.filter.model import Action, Range, Rule, RuleSet, Side
from components.net import virtio
from tests.budgets.domain import Domain
from tests.fuzz.stories import CLOCK, FromDevice, Way
from tests.unit.crypto import wire
from tests.unit.short import orders, roles, traffic

KINDS: Final = 4096  # packets that are made once, each
KEYED: Final = 4  # sessions of one story at most
RULESETS: Final = (
    trace.RULES,
    trace.RULES,
    trace.RULES,
    RuleSet((Rule(Action.ALLOW, sides=Side.RED), Rule(Action.ALLOW, peers=(1,), sides=Side.TUNNEL))),
    RuleSet((Rule(Action.DROP, protocols=(17,), destination_ports=(Range(53, 5202),)), *trace.RULES.rules)),
    RuleSet((Rule(Action.DROP, protocols=(1, 58)), Rule(Action.ALLOW, log=True))),
    RuleSet(()),
)


def kept(module: Any, name: str) -> list[Any]:
    """All that ``module`` makes of its ``name`` from now on."""
    made: list[Any] = []
    kind = getattr(module, name)

    def make(*arguments: Any) -> Any:
        made.append(kind(*arguments))
        return made[-1]

    setattr(module, name, make)
    return made


def drawn(make: Callable[[Random], Any]) -> Callable[[Any], Any]:
    """One of the first KINDS things that ``make`` makes: what is done to them, and when, matters more."""
    made: dict[int, Any] = {}

    def draw(chance: Any) -> Any:
        number = chance.randrange(KINDS)
        if number not in made:
            made[number] = make(Random(number))
        return made[number]

    return draw


SENDERS, RECEIVERS, ENGINES = kept(encrypt, "Sender"), kept(decrypt, "Receiver"), kept(main, "Engine")
odd_out = drawn(lambda rng: traffic.packet(rng, True))
odd_in = drawn(lambda rng: traffic.packet(rng, False))


class Filter(Way):
    def __init__(self, outward: bool) -> None:
        self.is_outward = outward
        self.inward, self.outward = ("red_in", "tunnel_out") if outward else ("tunnel_in", "red_out")
        self.back, self.aside = ("tunnel_in", ("red_out",)) if outward else ("red_in", ("tunnel_out",))
        super().__init__(roles.make_filter(outward))
        self.engines = ENGINES[-2:]
        self.rules = 0

    def begin(self, chance: Any, number: int) -> None:
        for engine in self.engines:
            for flow in list(engine.flows.by_key.values()):
                engine.flows.forget(flow)
        self.replace(chance.randrange(len(RULESETS)))
        if chance.random() < 0.5:
            self.answer()

    def replace(self, rules: int) -> None:
        if RULESETS[rules] is not RULESETS[self.rules]:
            for engine in self.engines:
                engine.replace(RULESETS[rules], CLOCK(), 1.7e9)
        self.rules = rules

    def answer(self) -> None:
        """A packet of the same flow from the other side."""
        for domain in self.pair.both:
            domain.give(self.back, [roles.lone(not self.is_outward)])
            domain.settle(1)

    def good(self, chance: Any) -> Any:
        return roles.lone(self.is_outward, chance.choice((20, 64, 64, chance.randrange(1900))))

    def odd(self, chance: Any) -> Any:
        packet = (odd_out if self.is_outward else odd_in)(chance)
        times = chance.choice((1, 1, 1, 2, 9, 30))
        peer = chance.choice((0, 2)) if chance.random() < 0.1 else 0 if self.is_outward else 1
        return Packets(packet * min(times, 0xFFFF // len(packet)), len(packet), peer)

    def sudden(self, chance: Any) -> Callable[[int], object]:
        match chance.randrange(3):
            case 0:
                rules = chance.randrange(len(RULESETS))
                is_other = RULESETS[rules] is not RULESETS[self.rules]
                self.rules = rules
                return lambda which: is_other and self.engines[which].replace(RULESETS[rules], CLOCK(), 1.7e9)
            case 1:
                return lambda which: [
                    self.engines[which].flows.forget(flow) for flow in list(self.engines[which].flows.by_key.values())
                ]
            case _:
                return lambda which: self.pair.both[which].give(self.back, [roles.lone(not self.is_outward)])

    def remembered(self, which: int) -> Any:
        engine = self.engines[which]
        names = "state peer packets octets is_answered near_rule far_rule rule expires".split()
        flows = [[getattr(flow, name) for name in names] for flow in engine.flows.by_key.values()]
        return [
            engine.passed, engine.rejected, engine.denied, engine.records.packets, engine.records.octets,
            list(engine.flows.by_key), flows,
        ]  # fmt: skip


class Crypto(Way):
    """``encrypt`` and ``decrypt`` have sessions, which a number is never handed out for twice."""

    aside = ("reports",)

    def begin(self, chance: Any, number: int) -> None:
        first = 2 + KEYED * (number % 1_000_000_000)  # the first of all is that of the role as it was made
        self.numbers = iter(range(first, first + KEYED))
        self.peer, self.somewhere = 1, chance.choice(orders.PLACES)
        self.command(self.only(), self.enlist(orders.NETS), self.session())

    def command(self, *given: Any) -> None:
        for domain in self.pair.both:
            domain.give("orders", given)
            domain.settle(2)
            for port in (*self.aside, self.outward):
                domain.take(port)

    @abstractmethod
    def only(self) -> Any:
        """An order after which there is no peer."""

    @abstractmethod
    def enlist(self, nets: tuple[tuple[bytes, int], ...]) -> Any:
        """An order that makes the peer known, with the networks that are behind it."""

    @abstractmethod
    def session(self) -> Any:
        """A new one; none if there were enough in this story."""

    @abstractmethod
    def order(self, chance: Any) -> Any:
        """One that could come at any time."""

    def sudden(self, chance: Any) -> Callable[[int], object]:
        if chance.random() < 0.2:
            return self.nearly_used_up(chance)
        given = self.order(chance)
        self.told.append(str(given))
        return lambda which: self.pair.both[which].give("orders", [given])

    @abstractmethod
    def nearly_used_up(self, chance: Any) -> Callable[[int], object]:
        """The last counters of a session are near."""

    @staticmethod
    def key(number: int) -> bytes:
        return number.to_bytes(8, "big") * 4


class Encrypt(Crypto):
    inward, outward = "plain", "sealed"

    def __init__(self) -> None:
        super().__init__(roles.make_encrypt())
        self.senders = SENDERS[-2:]

    def only(self) -> Any:
        return wire.send_only()

    def enlist(self, nets: tuple[tuple[bytes, int], ...]) -> Any:
        return wire.send_peer(self.peer, *nets)

    def session(self) -> Any:
        number = next(self.numbers, 0)
        if not number:
            return wire.send_keepalive(1)
        return wire.send_session(peer=1, session=number, receiver=number, key=self.key(number), place=self.somewhere)

    def order(self, chance: Any) -> Any:
        match chance.randrange(8):
            case 0:
                return wire.send_keepalive(1)
            case 1:
                return wire.send_endpoint(1, *chance.choice(orders.PLACES))
            case 2:
                return self.enlist(chance.choice((orders.NETS, orders.NETS[:1], orders.NETS[1:])))
            case 3:
                return wire.send_peer(2, (traffic.FAR4, 32))
            case 4:
                return chance.choice((wire.send_forget(1), wire.send_forget(9), wire.send_only(), wire.send_only(1)))
            case _:
                self.somewhere = chance.choice(orders.PLACES)
                return self.session()

    def nearly_used_up(self, chance: Any) -> Callable[[int], object]:
        last = constants.REJECT_AFTER_MESSAGES - chance.randrange(3)

        def use(which: int) -> None:
            for peer in self.senders[which]._peers.values():
                if peer.session is not None:
                    peer.session.counter = last

        return use

    def good(self, chance: Any) -> Any:
        return roles.lone(True, chance.choice((20, 64, chance.randrange(1900))))

    def odd(self, chance: Any) -> Any:
        packet = odd_out(chance)
        return Packets(packet * chance.choice((1, 1, 1, 2)), len(packet), chance.choice((0, 0, 0, 1)))

    def remembered(self, which: int) -> Any:
        sender = self.senders[which]
        return sender.counts, [
            (
                number,
                peer.address,
                peer.port,
                peer.session and (peer.session.counter, sender._totals(peer, peer.session)),
            )
            for number, peer in sender._peers.items()
        ]


class Decrypt(Crypto):
    inward, outward = "sealed", "plain"

    def __init__(self) -> None:
        super().__init__(roles.make_decrypt())
        self.receivers = RECEIVERS[-2:]

    def begin(self, chance: Any, number: int) -> None:
        self.sent: list[Datagrams] = []
        super().begin(chance, number)

    def only(self) -> Any:
        return wire.receive_only()

    def enlist(self, nets: tuple[tuple[bytes, int], ...]) -> Any:
        return wire.receive_peer(self.peer, *nets)

    def session(self) -> Any:
        number = next(self.numbers, 0)
        if not number:
            return wire.receive_only(1)
        self.receiver, self.counter = number, 0
        return wire.receive_session(1, number, self.key(number))

    def order(self, chance: Any) -> Any:
        match chance.randrange(6):
            case 0:
                return self.enlist(chance.choice((orders.NETS, orders.NETS[:1], orders.NETS[1:])))
            case 1:
                return wire.receive_peer(2, (traffic.FAR4, 32))
            case 2:
                return wire.receive_forget(self.receiver)
            case 3:
                return chance.choice((wire.receive_only(), wire.receive_only(1), wire.receive_forget(9)))
            case _:
                return self.session()

    def nearly_used_up(self, chance: Any) -> Callable[[int], object]:
        self.counter = constants.REJECT_AFTER_MESSAGES - chance.randrange(3)
        return lambda which: None

    def sealed(self, packet: bytes, chance: Any) -> bytes:
        if self.counter >= 1 << 64:
            self.counter = 0
        self.counter += 1
        padded = None if chance.random() < 0.9 else len(packet) + chance.randrange(20)
        return wire.datagram(packet, self.counter - 1, self.receiver, self.key(self.receiver), padded)

    def good(self, chance: Any) -> Any:
        packet = roles.udp_packet(False, chance.choice((20, 64, chance.randrange(1900))))
        one = self.sealed(packet, chance)
        self.sent.append(Datagrams(one, len(one), *self.somewhere))
        return self.sent[-1]

    def odd(self, chance: Any) -> Any:
        luck = chance.random()
        if luck < 0.2:
            return chance.choice(self.sent)  # once more
        if luck < 0.4:
            self.counter = max(0, self.counter + chance.choice((-9000, -3, -1, 1, 2, 64, 9000, 2**40)))
        if luck < 0.5:
            self.somewhere = chance.choice(orders.PLACES)
        if luck < 0.7:
            return self.good(chance)
        packet = b"" if luck < 0.75 else odd_in(chance)
        one = self.sealed(packet, chance)
        more = self.sealed(packet, chance)[: len(one)] if luck > 0.95 else b""
        return Datagrams(one + more, len(one), *self.somewhere)

    def remembered(self, which: int) -> Any:
        receiver = self.receivers[which]
        return receiver.counts, [
            (number, *seen(one.window), one.endpoint, receiver._totals(one))
            for number, one in receiver._sessions.items()
        ]


def seen(window: Any) -> tuple[int, list[bool]]:
    """The next counter, and of those around it which would be taken."""
    return window.next, [window.is_fresh(counter) for counter in range(max(0, window.next - 70), window.next + 3)]


class Counting(Way):
    """A face counts on its status page alone."""

    counters: tuple[str, ...] = ()

    def begin(self, chance: Any, number: int) -> None:
        """It knows of no packet but the one at hand."""

    def remembered(self, which: int) -> Any:
        page = self.pair.both[which].page
        return [page.counter(name).value for name in self.counters]


def emptied(device: socket.socket) -> Iterator[Any]:
    while True:
        try:
            yield device.recvfrom(1 << 16, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return


class ToTun(Counting):
    inward = "plain_in"
    counters = ("packets_out", "bytes_out")

    def __init__(self) -> None:
        super().__init__(roles.make_red())

    def good(self, chance: Any) -> Any:
        return roles.lone(False, chance.choice((20, 64, chance.randrange(1900))))

    def odd(self, chance: Any) -> Any:
        packet = odd_in(chance)
        return Packets(packet * chance.choice((1, 1, 1, 2)), len(packet), chance.choice((0, 1, 500)))

    def left(self, which: int) -> list[Any]:
        return [data for data, _ in emptied(self.devices[which])]


class FromTun(Counting, FromDevice):
    outward = "plain_out"
    counters = ("packets_in", "bytes_in", "malformed")

    def __init__(self) -> None:
        super().__init__(roles.make_red())

    def good(self, chance: Any) -> Any:
        packet = roles.udp_packet(True, chance.choice((20, 64, chance.randrange(1392))))
        if chance.random() < 0.5:
            return virtio.PLAIN + packet
        return virtio.HEADER.pack(virtio.NEEDS_CSUM, virtio.GSO_NONE, 0, 0, 20, 6) + packet

    def odd(self, chance: Any) -> Any:
        read = bytearray(self.good(chance) if chance.random() < 0.4 else virtio.PLAIN + odd_out(chance))
        if chance.random() < 0.5:
            fields = (
                chance.randrange(4),
                chance.randrange(6),
                0,
                chance.randrange(99),
                chance.randrange(80),
                chance.randrange(40),
            )
            read[:10] = virtio.HEADER.pack(*fields)  # fmt: skip
        for _ in range(chance.randrange(3)):
            at = chance.randrange(min(len(read), 80))
            read[at] = chance.choice((read[at] ^ 1 << chance.randrange(8), 0, 0xFF))
        if chance.random() < 0.2:
            del read[chance.randrange(len(read)) + 1 :]
        return bytes(read)

    def arrive(self, which: int, one: bytes) -> None:
        self.devices[which].send(one)


def bound(domain: Domain) -> Any:
    """Where the socket of a `black` is."""
    with socket.socket(fileno=os.dup(domain._guest.devices["udp4"])) as end:
        return end.getsockname()


class ToUdp(Counting):
    inward = "departing"
    counters = ("datagrams_out", "bytes_out", "send_errors")

    def __init__(self) -> None:
        super().__init__(roles.make_black())
        self.wan = self.devices[0]
        self.places = [bound(domain) for domain in self.pair.both]
        self.heard: list[list[bytes]] = [[], []]

    def good(self, chance: Any) -> Any:
        one = b"\4\0\0\0" + bytes(28 + chance.choice((20, 64, chance.randrange(1900))))
        return Datagrams(one, len(one), socket.inet_aton("127.0.0.1"), self.wan.getsockname()[1])

    def odd(self, chance: Any) -> Any:
        message = self.good(chance)
        match chance.randrange(3):
            case 0:
                return message._replace(datagrams=bytes(message.datagrams) * 2)
            case 1:  # the box has no such socket
                return message._replace(address=socket.inet_pton(socket.AF_INET6, "::1"))
            case _:  # where nothing may be sent
                return message._replace(address=socket.inet_aton("255.255.255.255"))

    def left(self, which: int) -> list[Any]:
        for data, source in emptied(self.wan):
            self.heard[self.places.index(source)].append(data)
        found, self.heard[which] = self.heard[which], []
        return found


class FromUdp(Counting, FromDevice):
    outward = "arrived"
    aside = ("handshakes_arrived",)
    counters = ("datagrams_in", "bytes_in", "malformed", "bad_mac1")

    def __init__(self) -> None:
        super().__init__(roles.make_black())
        self.wan = self.devices[0]
        self.places = [bound(domain) for domain in self.pair.both]

    def good(self, chance: Any) -> Any:
        return b"\4\0\0\0" + bytes(28 + chance.choice((0, 20, 64, chance.randrange(1953), chance.randrange(3000))))

    def odd(self, chance: Any) -> Any:
        one = bytearray(self.good(chance))
        match chance.randrange(4):
            case 0:
                # Whether black looks at the other three depends on what is in the group with it; decrypt always does
                one[chance.randrange(1 if self.is_parted else 4)] ^= 1 << chance.randrange(8)
            case 1:
                del one[chance.randrange(40) :]
            case 2:
                one[:4] = bytes((chance.choice((1, 2, 3)), 0, 0, 0))
                del one[chance.choice((148, 92, 64, 32)) :]
        return bytes(one)

    def arrive(self, which: int, one: bytes) -> None:
        self.wan.sendto(one, self.places[which])


WAYS: Final[dict[str, Callable[[], Way]]] = {
    "short_filter_out": lambda: Filter(True),
    "short_filter_in": lambda: Filter(False),
    "short_encrypt": Encrypt,
    "short_decrypt": Decrypt,
    "short_from_tun": FromTun,
    "short_to_tun": ToTun,
    "short_from_udp": FromUdp,
    "short_to_udp": ToUdp,
}
