"""The section of peers: one way to write it, and every way to be wrong has its place."""

from __future__ import annotations

import base64
import time
from hashlib import blake2s
from typing import Any

import pytest

from appliance.guest.settings import SettingsError
from appliance.signed import canonical, peers
from appliance.signed.peers import PeerEntry


def key(n: int) -> bytes:
    return blake2s(b"%d" % n).digest()


ALICE = PeerEntry(1, "alice", key(1), ("10.0.0.2/32", "2001:db8::/64"), "192.0.2.1:51820", 25, bytes(80))
BOB = PeerEntry(7, "bob", key(2), ())


def test_peers_are_written_and_read() -> None:
    section = peers.encode([BOB, ALICE])
    assert peers.parse(section) == (ALICE, BOB)
    assert peers.encode([]) == peers.EMPTY and peers.parse(peers.EMPTY) == ()
    assert peers.names([ALICE, BOB]) == {"alice": 1, "bob": 7}


def row(**other: Any) -> dict[str, Any]:
    given = {"number": 9, "name": "carol", "public_key": base64.b64encode(key(9)).decode(), "allowed_ips": []}
    return {**given, **other}


@pytest.mark.parametrize(
    ("other", "path"),
    [
        ({"number": 0}, "peers[1].number"),
        ({"number": 1}, "peers[1].number"),
        ({"number": 16385}, "peers[1].number"),
        ({"name": ""}, "peers[1].name"),
        ({"name": "alice"}, "peers[1].name"),
        ({"name": "a b"}, "peers[1].name"),
        ({"name": "x" * 64}, "peers[1].name"),
        ({"public_key": base64.b64encode(bytes(32)).decode()}, "peers[1].public_key"),
        ({"public_key": base64.b64encode(key(1)).decode()}, "peers[1].public_key"),
        ({"public_key": base64.b64encode(bytes(31)).decode()}, "peers[1].public_key"),
        ({"public_key": base64.b64encode(key(9)).decode()[:-2] + "f="}, "peers[1].public_key"),
        ({"allowed_ips": ["10.0.0.2/32"]}, "peers[1].allowed_ips[0]"),
        ({"allowed_ips": ["10.0.0.9"]}, "peers[1].allowed_ips[0]"),
        ({"allowed_ips": ["10.0.0.9/8"]}, "peers[1].allowed_ips[0]"),
        ({"allowed_ips": ["2001:DB8::/32"]}, "peers[1].allowed_ips[0]"),
        ({"allowed_ips": ["fe80::%1/64"]}, "peers[1].allowed_ips[0]"),
        ({"allowed_ips": [7]}, "peers[1].allowed_ips[0]"),
        ({"endpoint": "host:1"}, "peers[1].endpoint"),
        ({"endpoint": "192.0.2.1"}, "peers[1].endpoint"),
        ({"endpoint": "192.0.2.1:0"}, "peers[1].endpoint"),
        ({"endpoint": "192.0.2.1:65536"}, "peers[1].endpoint"),
        ({"endpoint": "[fe80::1%eth0]:1"}, "peers[1].endpoint"),
        ({"endpoint": ""}, "peers"),
        ({"keepalive": 0}, "peers"),
        ({"keepalive": 65536}, "peers[1].keepalive"),
        ({"keepalive": True}, "peers[1].keepalive"),
        ({"preshared_key": base64.b64encode(key(1)).decode()}, "peers[1].preshared_key"),
        ({"private_key": "x"}, "peers[1].private_key"),
    ],
)
def test_what_is_wrong_has_its_place(other: dict[str, Any], path: str) -> None:
    first = canonical.decode(peers.encode([ALICE]), 1 << 20)["peers"]
    section = canonical.encode({"peers": [*first, row(**other)]})
    with pytest.raises(SettingsError) as refused:
        peers.parse(section)
    assert refused.value.path == path
    peers.parse(canonical.encode({"peers": [*first, row()]}))  # all the rest of it is right


@pytest.mark.parametrize("section", [b"", b"{}x", b"[]", b'{"peers":1}', b'{"peers":[],"x":1}', b'{"peers": []}'])
def test_what_is_no_table_of_peers_is_refused(section: bytes) -> None:
    with pytest.raises(SettingsError):
        peers.parse(section)


def test_ten_thousand_peers_fit_and_are_read_in_a_moment() -> None:
    many = [PeerEntry(n, f"peer-{n}", key(n), (f"10.{n >> 8}.{n & 255}.0/24",)) for n in range(1, 10_001)]
    section = peers.encode(many)
    assert len(section) < peers.LARGEST // 2
    began = time.process_time()
    assert peers.parse(section) == tuple(many)
    assert time.process_time() - began < 5  # a tenth of that on a laptop; quadratic would be minutes
