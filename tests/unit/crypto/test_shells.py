"""The shells of encrypt and decrypt, joined to a guest that is made of lists."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from typing import Any, cast

import pytest

import components.crypto.decrypt
import components.crypto.encrypt
from appliance.vchan.messages import Datagrams, Packets
from tests.unit.crypto.wire import (
    NET4,
    PLACE,
    datagram,
    ipv4,
    receive_peer,
    receive_session,
    send_keepalive,
    send_peer,
    send_session,
)
from tests.unit.fake_guest import ROOT, FakeGuest


def built(role: str) -> FakeGuest:
    guest = FakeGuest("crypto", role)
    {"encrypt": components.crypto.encrypt, "decrypt": components.crypto.decrypt}[role].build(cast(Any, guest))
    return guest


def test_encrypt() -> None:
    guest = built("encrypt")
    guest.handlers["orders"](send_peer(1, NET4), 0.0)
    guest.handlers["plain"](Packets(ipv4(100), 100), 0.5)
    guest.turn(0.5)
    assert [report.wanted for report in guest.outs["reports"].sent] == [True]
    guest.handlers["orders"](send_session(), 1.0)
    guest.handlers["plain"](Packets(memoryview(ipv4(100)), 100), 1.0)
    assert guest.outs["sealed"].sent == [
        Datagrams(datagram(ipv4(100), 0), 144, *PLACE),
        Datagrams(datagram(ipv4(100), 1), 144, *PLACE),
    ]
    assert guest.into["plain"] == [guest.outs["sealed"]]
    when = guest.turn(1.0)
    assert when is not None and when > 1.0
    assert guest.counters["packets"].value == 2
    assert guest.outs["reports"].sent[-1].packets == 2


def test_decrypt() -> None:
    guest = built("decrypt")
    guest.handlers["orders"](receive_peer(1, NET4), 0.0)
    guest.handlers["orders"](receive_session(), 0.0)
    guest.handlers["sealed"](Datagrams(datagram(ipv4(100), 0), 144, *PLACE), 1.0)
    assert guest.outs["plain"].sent == [Packets(ipv4(100), 100, 1)]
    assert guest.into["sealed"] == [guest.outs["plain"]]
    guest.turn(1.0)
    assert (guest.counters["packets"].value, guest.counters["groups"].value) == (1, 1)
    assert [(report.session, report.packets) for report in guest.outs["reports"].sent] == [(77, 1)]


@pytest.mark.parametrize(
    ("role", "port", "message"),
    [
        ("encrypt", "plain", Packets(ipv4(100), 100)),
        ("decrypt", "sealed", Datagrams(datagram(ipv4(100), 0), 144, *PLACE)),
    ],
)
def test_a_full_sink_drops_and_counts(role: str, port: str, message: Any) -> None:
    guest = built(role)
    orders: tuple[Any, ...] = (send_peer(1, NET4), send_session())
    if role == "decrypt":
        orders = (receive_peer(1, NET4), receive_session())
    for order in orders:
        guest.handlers["orders"](order, 0.0)
    guest.outs["sealed" if role == "encrypt" else "plain"].is_full = True
    guest.handlers[port](message, 1.0)
    assert guest.counters["sink_full"].value == 1


@pytest.mark.parametrize("role", ["encrypt", "decrypt"])
def test_a_refused_order_is_logged_and_survived(role: str) -> None:
    guest = built(role)
    guest.handlers["orders"](send_keepalive(9) if role == "encrypt" else receive_session(0), 1.0)
    assert [event for event, _ in guest.warnings] == ["order-refused"]


def test_reports_wait_for_room_without_spinning() -> None:
    guest = built("encrypt")
    guest.handlers["orders"](send_peer(1, NET4), 0.0)
    guest.handlers["orders"](send_session(confirm=True), 0.0)
    guest.outs["reports"].is_full = True
    when = guest.turn(1.0)
    assert when is not None and when > 1.0
    assert guest.outs["reports"].sent == []
    guest.outs["reports"].is_full = False
    guest.turn(when)
    assert [report.packets for report in guest.outs["reports"].sent] == [1]


@pytest.mark.parametrize("role", ["encrypt", "decrypt"])
def test_which_loops_run_is_said_at_the_start_and_shown(role: str) -> None:
    guest = built(role)
    guest.opened["log"](0.0)
    assert guest.infos == [("loops", "compiled")] and guest.counters["compiled"].value == 1


@pytest.mark.parametrize("role", ["encrypt", "decrypt"])
def test_nothing_is_imported_that_component_toml_does_not_declare(role: str) -> None:
    """In a fresh interpreter, behind the gate of a domain; and nothing more is imported by working."""
    declared = tomllib.loads((ROOT / "components/crypto/component.toml").read_text())["roles"][role]
    script = f"""
import sys
from appliance.guest.imports import close_gate
import appliance.guest.loop
close_gate("crypto", {declared["imports"]!r})
import importlib
main = importlib.import_module({declared["main"]!r})
loaded = set(sys.modules)
if {role!r} == "encrypt":
    from components.crypto.sending import Sender as Core
    from septum.v1.sending import SendOrder as Order, SendPeer as Peer, SendPrefix as Prefix, SendSession as Session
    core = Core(1420)
else:
    from components.crypto.receiving import Receiver as Core
    from septum.v1.receiving import ReceiveOrder as Order, ReceivePeer as Peer, ReceivePrefix as Prefix
    from septum.v1.receiving import ReceiveSession as Session
    core = Core()
core.order(Order(peer=Peer(peer=1, allowed_ips=[Prefix(address=bytes(4), bits=0)], public_key=bytes(32))), 0.0)
order = Order(session=Session(peer=1, key=bytes(32)))
if {role!r} == "encrypt":
    order.session.address = bytes(4)
    order.session.port = 1
    order.session.confirm = True
    assert core.order(order, 0.0)
else:
    core.order(order, 0.0)
    core.open(memoryview(b"\\4" + bytes(47)), 48, bytes(4), 1, 0.0)
    assert core.counts["unauthentic"] == 1
core.report(1.0)
core.tick(1000.0)
assert set(sys.modules) == loaded, set(sys.modules) - loaded
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
