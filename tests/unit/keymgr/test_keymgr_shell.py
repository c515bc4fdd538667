"""The shell on a guest made of dictionaries: every message passes the real codec of its schema, both ways."""

from __future__ import annotations

import base64
import functools
import random
import subprocess
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest
from septum.v1.blobs import BLOB_ABSENT, BLOB_OK, BLOB_STALE, BlobReply
from septum.v1.handshakes import Handshake
from septum.v1.random import RandomReply
from septum.v1.received import ReceiveReport
from septum.v1.sent import SendReport

from appliance.guest.ports import PeerClosed, PeerStalled
from appliance.guest.settings import SettingsError
from appliance.guest.status import PeerRow
from appliance.vchan.codec import Codec
from appliance.vchan.schema import schema
from components.keymgr.floor import Floor
from components.keymgr.main import build
from components.keymgr.noise import PrivateKey
from components.keymgr.shared import Shared
from tests.unit.keymgr.world import LEFT, LEFT_KEY, RIGHT, RIGHT_KEY, START

ROOT = Path(__file__).resolve().parents[3]


def through(name: str, message: Any, backward: bool = False) -> Any:
    """What arrives at the other end of a channel of schema ``name``."""
    shape = schema(name)
    codec = Codec(shape.backward if backward and shape.backward else shape.forward)
    return codec.decode(b"".join(bytes(part) for part in codec.encode(message)))


class Out:
    def __init__(self, name: str, peer: str = "") -> None:
        self.name = name
        self.peer = peer
        self.sent: list[Any] = []
        self.is_open = True
        self.is_full = False

    def room(self) -> bool:
        return not self.is_full

    def send(self, message: Any) -> bool:
        assert self.is_open
        if not self.is_full:
            self.sent.append(through(self.name, message))
        return not self.is_full

    def orders(self, kind: str) -> list[Any]:
        return [getattr(order, kind) for order in self.sent if order.WhichOneof("order") == kind]


class Client:
    def __init__(self, name: str, answer: Callable[[Any], Any]) -> None:
        self.name = name
        self.answer = answer
        self.is_open = True
        self.calls: list[Any] = []

    def call(self, request: Any) -> Any:
        request = through(self.name, request)
        self.calls.append(request)
        return through(self.name, self.answer(request), backward=True)


class Store:
    def __init__(self) -> None:
        self.blobs: dict[str, tuple[int, bytes]] = {}

    def answer(self, request: Any) -> BlobReply:
        version, blob = self.blobs.get(request.name, (0, b""))
        if not request.blob:
            return BlobReply(status=BLOB_OK if version else BLOB_ABSENT, version=version, blob=blob)
        if request.version != version + 1:
            return BlobReply(status=BLOB_STALE, version=version)
        self.blobs[request.name] = (request.version, request.blob)
        return BlobReply(status=BLOB_OK, version=request.version)


class FakeCounter:
    def __init__(self) -> None:
        self.value = 0

    def set(self, value: int) -> None:
        self.value = value


class FakeGuest:
    """As much of a guest as keymgr uses."""

    def __init__(
        self,
        private: bytes,
        *peers: dict[str, Any],
        store: Store | None = None,
        pairs: int = 1,
        trust: dict[str, str] | None = None,
        joined: Collection[str] = (),
    ) -> None:
        self.settings = {"private_key": base64.b64encode(private).decode(), "peers": list(peers)}
        if trust is not None:
            self.settings["trust"] = trust
        self.joined = joined
        self.asked: dict[str, Callable[[Any], Any]] = {}
        self.store = store or Store()
        self.members = {
            "handshakes_out": [Out("handshakes")],
            "encrypt_orders": [Out("sending", name) for name in self._names("encrypt", pairs)],
            "decrypt_orders": [Out("receiving", name) for name in self._names("decrypt", pairs)],
            "identity": [Out("identity", "black")],
        }
        self.outs = {port: members[0] for port, members in self.members.items()}
        source = random.Random(private)
        self.clients = {
            "random": Client("random", lambda request: RandomReply(random=source.randbytes(request.length))),
            "blobs": Client("blobs", self.store.answer),
        }
        self.handlers: dict[str, Callable[[Any, float], Any]] = {}
        self.opened: dict[str, Callable[[float], Any]] = {}  # of a later member by "port.number"
        self.closed: dict[str, Callable[[float], Any]] = {}
        self.counters: dict[str, FakeCounter] = {}
        self.rows: list[PeerRow] = []
        self.beats = 0
        self.lines: list[tuple[str, str, str]] = []
        self.log = self
        self.now = 100.0
        build(self)  # type: ignore[arg-type]

    def out(self, port: str) -> Out:
        return self.outs[port]

    def client(self, port: str) -> Client:
        return self.clients[port]

    @staticmethod
    def _names(side: str, pairs: int) -> list[str]:
        return [f"{side}{number}" for number in range(1, pairs + 1)]

    def spread(self, port: str) -> list[Out]:
        return self.members[port]

    def senders(self, port: str) -> list[str]:
        return [out.peer for out in self.members[port.replace("reports", "orders")]]

    def receive(self, port: str, handler: Callable[[Any, float], Any]) -> None:
        self.handlers[port] = handler

    def receive_many(self, port: str, handler: Callable[[str, Any, float], Any]) -> None:
        for number, sender in enumerate(self.senders(port)):
            self.handlers[f"{port}.{number}" if number else port] = functools.partial(handler, sender)

    def on_open(self, port: str, handler: Callable[[float], Any], member: int = 0) -> None:
        self.opened[f"{port}.{member}" if member else port] = handler

    def on_close(self, port: str, handler: Callable[[float], Any], member: int = 0) -> None:
        self.closed[f"{port}.{member}" if member else port] = handler

    def timer(self, handler: Callable[[float], float | None]) -> None:
        self._timer = handler

    def counter(self, name: str) -> FakeCounter:
        return self.counters.setdefault(name, FakeCounter())

    def show_peer(self, row: PeerRow) -> None:
        self.rows.append(row)

    def hide_peer(self, peer: int) -> None:
        self.rows = [row for row in self.rows if row.peer != peer]

    def beat(self) -> None:
        self.beats += 1

    def is_joined(self, port: str) -> bool:
        return port in self.joined

    def serve(self, port: str, handler: Callable[[str, Any], Any], share: float = 1.0) -> None:
        if port in self.joined:
            schema_of = {"commits": "applying", "peers": "peers"}[port]
            self.asked[port] = lambda ask: through(schema_of, handler("other", through(schema_of, ask)), backward=True)

    def wall(self) -> float:
        return START + self.now

    def info(self, event: str, text: str = "") -> None:
        self.lines.append(("info", event, text))

    def warning(self, event: str, text: str = "") -> None:
        self.lines.append(("warning", event, text))

    def error(self, event: str, text: str = "") -> None:
        self.lines.append(("error", event, text))

    # what the tests do ----------------------------------------------------------------------------------------------

    def turn(self) -> float | None:
        return self._timer(self.now)

    def start(self) -> FakeGuest:
        for handler in self.opened.values():
            handler(self.now)
        self.turn()
        return self

    def take(self, port: str, message: Any) -> None:
        schemas = {"handshakes_in": "handshakes", "encrypt_reports": "sent", "decrypt_reports": "received"}
        self.handlers[port](through(schemas[port.partition(".")[0]], message), self.now)
        self.turn()

    def events(self) -> list[str]:
        return [event for _, event, _ in self.lines]


def settings_of(private: bytes, endpoint: tuple[bytes, int]) -> dict[str, Any]:
    return {
        "public_key": base64.b64encode(PrivateKey(private).public).decode(),
        "allowed_ips": ["10.1.0.0/16", "fd00::/8"],
        "endpoint": f"{'.'.join(map(str, endpoint[0]))}:{endpoint[1]}",
    }


def left(store: Store | None = None) -> FakeGuest:
    return FakeGuest(LEFT_KEY, settings_of(RIGHT_KEY, RIGHT), store=store)


def right(store: Store | None = None) -> FakeGuest:
    return FakeGuest(RIGHT_KEY, settings_of(LEFT_KEY, LEFT), store=store)


def carry(source: FakeGuest, target: FakeGuest, origin: tuple[bytes, int]) -> None:
    datagram = source.outs["handshakes_out"].sent[-1].datagram
    target.take("handshakes_in", Handshake(datagram=datagram, address=origin[0], port=origin[1]))


def test_a_handshake_from_wanted_to_both_keys() -> None:
    a, b = left().start(), right().start()
    assert a.outs["encrypt_orders"].orders("peer")[0].allowed_ips[0].bits == 16
    assert len(a.outs["decrypt_orders"].orders("peer")) == 1
    a.take("encrypt_reports", SendReport(peer=1, wanted=True))
    carry(a, b, LEFT)
    carry(b, a, RIGHT)
    (send_a,), (receive_a,) = a.outs["encrypt_orders"].orders("session"), a.outs["decrypt_orders"].orders("session")
    assert send_a.confirm and (send_a.address, send_a.port) == RIGHT
    (receive_b,) = b.outs["decrypt_orders"].orders("session")
    assert not b.outs["encrypt_orders"].orders("session")  # not before left was heard
    b.take(
        "decrypt_reports",
        ReceiveReport(peer=1, session=receive_b.session, packets=1, bytes=32, address=LEFT[0], port=LEFT[1]),
    )
    (send_b,) = b.outs["encrypt_orders"].orders("session")
    assert not send_b.confirm
    assert (send_a.key, send_b.key) == (receive_b.key, receive_a.key) and send_a.key != send_b.key
    assert (send_a.receiver, send_b.receiver) == (receive_b.session, receive_a.session)
    assert (send_a.session, send_b.session) == (receive_a.session, receive_b.session)
    assert a.counters["handshakes"].value == b.counters["handshakes"].value == 1
    assert a.rows[-1] == PeerRow(1, int(START + 100), 0, 0, *RIGHT)
    assert b.rows[-1] == PeerRow(1, int(START + 100), 32, 0, *LEFT)
    assert {"initiation-sent", "handshake-completed"} <= set(a.events())
    assert {"initiation-answered", "session-confirmed"} <= set(b.events())
    assert a.store.blobs and b.store.blobs  # the timestamp floors


def test_the_settings_are_gone_once_they_are_read() -> None:
    assert left().settings == {}
    with pytest.raises(SettingsError):
        FakeGuest(LEFT_KEY, {**settings_of(RIGHT_KEY, RIGHT), "endpoint": "vpn.example.net:51820"})


def test_a_replay_across_a_restart_is_refused() -> None:
    a, b = left().start(), right().start()
    a.take("encrypt_reports", SendReport(peer=1, wanted=True))
    carry(a, b, LEFT)
    again = right(b.store).start()
    carry(a, again, LEFT)
    assert again.counters["refused"].value == 1
    assert not again.outs["handshakes_out"].sent


def test_without_random_bytes_nothing_is_done_and_nothing_dies() -> None:
    a = left()

    def away(request: Any) -> Any:
        raise PeerClosed("rng is not there")

    answer, a.clients["random"].answer = a.clients["random"].answer, away
    a.start()
    a.take("encrypt_reports", SendReport(peer=1, wanted=True))
    a.take("handshakes_in", Handshake(datagram=bytes(148), address=RIGHT[0], port=1))
    assert not a.outs["handshakes_out"].sent and "service-away" in a.events()
    assert a.turn() == a.now + 0.5
    a.clients["random"].answer = answer
    a.now += 0.5
    a.turn()
    assert len(a.outs["handshakes_out"].sent) == 1


def test_random_bytes_are_used_once() -> None:
    a = left().start()
    stock = a.handlers["handshakes_in"].__self__._random  # type: ignore[attr-defined]
    drawn = [stock.draw(32) for _ in range(300) if stock.is_stocked()]
    assert len(set(drawn)) == 300 and {len(one) for one in drawn} == {32}
    assert len(a.clients["random"].calls) > 300 * 32 // 4096


def test_without_the_store_no_handshake_until_it_is_there() -> None:
    a = left()
    a.clients["blobs"].is_open = False
    a.start()
    a.take("encrypt_reports", SendReport(peer=1, wanted=True))
    a.take("handshakes_in", Handshake(datagram=bytes([1, 0, 0, 0]) + bytes(144), address=RIGHT[0], port=1))
    assert not a.outs["handshakes_out"].sent and a.counters["refused"].value == 1
    a.clients["blobs"].is_open = True
    a.opened["blobs"](a.now)  # and then at once, not when it would have been tried again
    a.turn()
    assert len(a.outs["handshakes_out"].sent) == 1


def test_a_store_that_stalls_or_is_ahead_is_told_again() -> None:
    a = left()
    answer = a.clients["blobs"].answer
    a.start()

    def stalled(request: Any) -> Any:
        raise PeerStalled("no answer")

    a.clients["blobs"].answer = stalled
    a.take("encrypt_reports", SendReport(peer=1, wanted=True))
    assert not a.store.blobs and "floor-not-stored" in a.events()
    a.clients["blobs"].answer = answer
    (name,) = [call.name for call in a.clients["blobs"].calls if not call.blob]
    a.store.blobs[name] = (7, b"something else")
    a.now += 10.0
    a.turn()
    assert a.store.blobs[name][0] == 7 and "floor-lost" in a.events()
    a.now += 10.0
    a.turn()
    assert a.store.blobs[name][0] == 8


def test_a_lost_order_makes_everything_anew_once_there_is_room() -> None:
    a, b = left().start(), right().start()
    a.take("encrypt_reports", SendReport(peer=1, wanted=True))
    carry(a, b, LEFT)
    a.outs["encrypt_orders"].is_full = True
    carry(b, a, RIGHT)
    assert a.events().count("order-lost") == 1
    assert not a.outs["encrypt_orders"].orders("session")
    sent = len(a.outs["handshakes_out"].sent)
    a.turn()
    assert len(a.outs["handshakes_out"].sent) == sent  # nobody to give keys to
    a.outs["encrypt_orders"].is_full = False
    a.now += 0.3
    a.turn()
    assert len(a.outs["encrypt_orders"].orders("peer")) == 2
    assert len(a.outs["handshakes_out"].sent) == sent + 1
    b.now += 0.05
    carry(a, b, LEFT)
    carry(b, a, RIGHT)
    assert len(a.outs["encrypt_orders"].orders("session")) == 1


@pytest.mark.parametrize("side", ["encrypt_orders", "decrypt_orders"])
def test_a_reborn_domain_is_told_of_all_peers_and_gets_a_new_session(side: str) -> None:
    a, b = left().start(), right().start()
    a.take("encrypt_reports", SendReport(peer=1, wanted=True))
    carry(a, b, LEFT)
    carry(b, a, RIGHT)
    a.outs[side].is_open = False
    a.closed[side](a.now)
    a.now += 0.2
    a.turn()
    a.outs[side].is_open = True
    a.opened[side](a.now)
    a.turn()
    assert len(a.outs[side].orders("peer")) == 2
    assert len(a.outs["handshakes_out"].sent) == 2
    b.now += 0.2
    carry(a, b, LEFT)
    carry(b, a, RIGHT)
    sessions = a.outs[side].orders("session")
    assert len({session.key for session in sessions}) == len(sessions) == 2


THIRD_KEY, THIRD = b"\x33" * 32, (b"\x0a\x00\x00\x03", 51820)


def hub(pairs: int, peers: int) -> FakeGuest:
    """One with several peers over several pairs; the first two are RIGHT and THIRD."""
    known = [(RIGHT_KEY, RIGHT), (THIRD_KEY, THIRD)]
    known += [(bytes([100 + n]) * 32, (bytes([10, 0, 0, 100 + n]), 51820)) for n in range(2, peers)]
    tables = [
        {**settings_of(*one), "allowed_ips": [f"10.{number}.0.0/16"]} for number, one in enumerate(known[:peers], 1)
    ]
    return FakeGuest(LEFT_KEY, *tables, pairs=pairs)


@pytest.mark.parametrize("pairs", [2, 3])
def test_each_pair_is_told_of_its_own_peers_alone(pairs: int) -> None:
    a = hub(pairs, 7).start()
    for port in ("encrypt_orders", "decrypt_orders"):
        for number, out in enumerate(a.members[port]):
            assert [order.peer for order in out.orders("peer")] == list(range(1 + number, 8, pairs))
    for peer in range(1, 8):
        port = f"encrypt_reports.{(peer - 1) % pairs}".removesuffix(".0")
        a.take(port, SendReport(peer=peer, wanted=True))
    assert len(a.outs["handshakes_out"].sent) == 7


@pytest.mark.parametrize("pairs", [2, 3])
def test_keys_go_to_the_peers_own_pair_and_the_index_says_whose_it_is(pairs: int) -> None:
    a = hub(pairs, 2).start()
    b = FakeGuest(RIGHT_KEY, settings_of(LEFT_KEY, LEFT)).start()
    c = FakeGuest(THIRD_KEY, settings_of(LEFT_KEY, LEFT)).start()
    # One is called, the other calls
    a.take("encrypt_reports", SendReport(peer=1, wanted=True))
    carry(a, b, LEFT)
    carry(b, a, RIGHT)
    c.take("encrypt_reports", SendReport(peer=1, wanted=True))
    carry(c, a, THIRD)
    carry(a, c, LEFT)
    sessions = [[order.session for order in out.orders("session")] for out in a.members["decrypt_orders"]]
    assert [len(one) for one in sessions] == [1, 1, 0][:pairs]
    for number, ((session,), peer) in enumerate(zip(sessions, (1, 2), strict=False)):
        assert session % pairs == number
        a.take(
            f"decrypt_reports.{number}".removesuffix(".0"),
            ReceiveReport(peer=peer, session=session, packets=1, bytes=32, address=THIRD[0], port=THIRD[1]),
        )
    keys = [{order.key for order in out.orders("session")} for out in a.members["encrypt_orders"]]
    assert [len(one) for one in keys] == [1, 1, 0][:pairs]
    assert "report-refused" not in a.events()


def test_a_pair_is_not_believed_about_the_peers_of_another() -> None:
    a = hub(2, 2).start()
    a.take("encrypt_reports.1", SendReport(peer=1, wanted=True))
    a.take("encrypt_reports", SendReport(peer=2, wanted=True))
    a.take("decrypt_reports.1", ReceiveReport(peer=1, session=5, packets=1, bytes=32, address=THIRD[0], port=9))
    assert a.events().count("report-refused") == 3
    assert not a.outs["handshakes_out"].sent and "peer-moved" not in a.events()
    a.take("encrypt_reports.1", SendReport(peer=2, wanted=True))
    assert len(a.outs["handshakes_out"].sent) == 1


@pytest.mark.parametrize("side", ["encrypt_orders", "decrypt_orders"])
def test_the_death_of_one_renews_its_own_peers_and_stops_nobody_else(side: str) -> None:
    a = hub(2, 2).start()
    b = FakeGuest(RIGHT_KEY, settings_of(LEFT_KEY, LEFT)).start()
    c = FakeGuest(THIRD_KEY, settings_of(LEFT_KEY, LEFT)).start()
    for port, peer, other, where in (("encrypt_reports", 1, b, RIGHT), ("encrypt_reports.1", 2, c, THIRD)):
        a.take(port, SendReport(peer=peer, wanted=True))
        carry(a, other, LEFT)
        carry(other, a, where)
    sent = len(a.outs["handshakes_out"].sent)
    a.members[side][1].is_open = False
    a.closed[f"{side}.1"](a.now)
    a.now += 6.0
    a.turn()
    assert len(a.outs["handshakes_out"].sent) == sent
    # Its peer is not answered while it is away; the other one is, and may call
    c.now = b.now = a.now
    c.take("encrypt_reports", SendReport(peer=1, wanted=True))
    carry(c, a, THIRD)
    assert a.counters["refused"].value == 1 and len(a.outs["handshakes_out"].sent) == sent
    b.take("encrypt_reports", SendReport(peer=1, wanted=True))
    carry(b, a, RIGHT)
    assert a.counters["refused"].value == 1 and len(a.outs["handshakes_out"].sent) == sent + 1
    before = [len(out.sent) for port in ("encrypt_orders", "decrypt_orders") for out in a.members[port][:1]]
    a.members[side][1].is_open = True
    a.opened[f"{side}.1"](a.now)
    a.turn()
    assert [len(out.sent) for port in ("encrypt_orders", "decrypt_orders") for out in a.members[port][:1]] == before
    assert len(a.outs["handshakes_out"].sent) == sent + 2, "one new session, for its one peer"
    assert a.outs["handshakes_out"].sent[-1].address == THIRD[0]
    assert len(a.members[side][1].orders("peer")) == 2


def test_the_orders_that_one_lost_are_made_anew_for_it_alone() -> None:
    a = hub(2, 4).start()
    c = FakeGuest(THIRD_KEY, settings_of(LEFT_KEY, LEFT)).start()
    a.take("encrypt_reports.1", SendReport(peer=2, wanted=True))
    carry(a, c, LEFT)
    full = a.members["encrypt_orders"][1]
    full.is_full = True
    carry(c, a, THIRD)
    assert ("error", "order-lost", "encrypt2 takes no orders: it gets new sessions when it does") in a.lines
    full.is_full = False
    others = [len(out.sent) for port in ("encrypt_orders", "decrypt_orders") for out in a.members[port][:1]]
    a.now += 0.3
    a.turn()
    assert [order.peer for order in full.orders("peer")] == [2, 4, 2, 4]
    assert [len(out.sent) for port in ("encrypt_orders", "decrypt_orders") for out in a.members[port][:1]] == others


@pytest.mark.parametrize("pairs", [1, 2, 3, 8])
def test_an_index_leaves_the_number_of_the_peers_pair(pairs: int) -> None:
    shared = Shared(PrivateKey(LEFT_KEY), Floor(LEFT_KEY, bytes(32), []), pairs)
    for peer in (1, 2, 3, 9, 65535):
        for number in (0, 1, 2, 3, 5, 2**32 - 1, 2**32 - 2, 2**32 - 8, 0x01020304):
            seen = []
            for _ in range(3):
                index = shared.new_index(number.to_bytes(4, "little"), peer)
                assert 0 <= index < 2**32 and index % pairs == (peer - 1) % pairs
                seen.append(index)
                shared.pending[index] = peer
            assert len(set(seen)) == 3


def test_everything_it_imports_is_declared() -> None:
    """In a fresh interpreter, with the gate of a domain closed."""
    import tomllib

    declared = tomllib.loads((ROOT / "components/keymgr/component.toml").read_text())["roles"]["keymgr"]["imports"]
    site = next(path for path in sys.path if path.endswith("site-packages"))
    code = (
        f"import sys; sys.path[:0] = {[str(ROOT), str(ROOT / 'proto'), site]!r}\n"
        "import appliance.guest.loop\n"
        "from appliance.guest.imports import close_gate\n"
        f"close_gate('keymgr', {declared!r})\n"
        "import components.keymgr.main\n"
        "print('ok')\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-B", "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "ok\n", done.stderr
