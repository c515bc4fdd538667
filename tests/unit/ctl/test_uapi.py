"""WireGuard's userspace protocol as `wg` speaks it: changes read, made, and told."""

from __future__ import annotations

import base64
import errno
from hashlib import blake2s
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from septum.admin.v1 import admin_pb2 as pb

from appliance.ctl import uapi
from appliance.ctl.configuration import Configuration
from appliance.ctl.uapi import Standing, UapiError
from appliance.signed import peers as section
from appliance.signed.peers import PeerEntry

OURS = bytes(range(32))
STANDING = Standing(OURS, 51820)


def key(n: int) -> bytes:
    return blake2s(b"%d" % n).digest()


ALICE = PeerEntry(1, "alice", key(1), ("10.0.0.1/32", "10.1.0.0/16"), "192.0.2.1:51820", 25, bytes(80))
BOB = PeerEntry(3, "bob", key(3), ("10.0.0.3/32",))
BEFORE = Configuration((ALICE, BOB), "drop")


def seal(preshared: bytes) -> bytes:
    return b"sealed" + preshared.ljust(74, b"\0")


def after(*lines: str, before: Configuration = BEFORE) -> Configuration:
    change = uapi.read("".join(f"{line}\n" for line in ("set=1", *lines, "")).encode())
    assert change is not None
    made = uapi.applied(change, before, STANDING, lambda private: private[::-1], seal)
    section.encode(made.peers)  # a box would take it
    return made


def refused(*lines: str) -> int:
    with pytest.raises(UapiError) as error:
        after(*lines)
    return error.value.number


def peer(n: int) -> str:
    return f"public_key={key(n).hex()}"


def test_asking_is_told_from_changing() -> None:
    assert uapi.read(b"get=1\n\n") is None
    assert uapi.is_whole(b"get=1\n\n") and not uapi.is_whole(b"get=1\n")


def test_a_new_peer_gets_the_lowest_free_number_and_a_name() -> None:
    made = after(peer(9), "allowed_ip=10.0.0.9/32", "endpoint=[2001:db8::1]:7", "persistent_keepalive_interval=5")
    new = PeerEntry(2, f"wg-{key(9).hex()[:8]}", key(9), ("10.0.0.9/32",), "[2001:db8::1]:7", 5)
    assert made == Configuration((ALICE, new, BOB), "drop")


def test_a_prefix_that_is_given_to_one_is_taken_from_another() -> None:
    made = after(peer(3), "allowed_ip=10.1.0.0/16")
    assert made.peers[0].allowed_ips == ("10.0.0.1/32",)
    assert made.peers[1].allowed_ips == ("10.0.0.3/32", "10.1.0.0/16")


def test_prefixes_are_added_replaced_and_taken_away() -> None:
    assert after(peer(3), "allowed_ip=10.9.0.5/16").peers[1].allowed_ips == ("10.0.0.3/32", "10.9.0.0/16")
    assert after(peer(3), "replace_allowed_ips=true", "allowed_ip=::/0").peers[1].allowed_ips == ("::/0",)
    assert after(peer(3), "replace_allowed_ips=true").peers[1].allowed_ips == ()
    assert after(peer(1), "allowed_ip=-10.1.0.0/16").peers[0].allowed_ips == ("10.0.0.1/32",)


def test_peers_are_removed_alone_or_all() -> None:
    assert after(peer(1), "remove=true").peers == (BOB,)
    assert after(peer(8), "remove=true") == BEFORE
    assert after("replace_peers=true").peers == ()


def test_who_is_said_anew_keeps_number_and_name() -> None:
    made = after("replace_peers=true", peer(3), "allowed_ip=10.0.0.4/32")
    assert made.peers == (PeerEntry(3, "bob", key(3), ("10.0.0.4/32",)),)


def test_only_those_who_are_there_are_updated() -> None:
    assert after(peer(8), "update_only=true", "allowed_ip=10.0.0.8/32") == BEFORE


def test_preshared_keys_are_sealed_and_zeros_take_them_away() -> None:
    assert after(peer(3), f"preshared_key={key(7).hex()}").peers[1].preshared_key == seal(key(7))
    assert after(peer(1), f"preshared_key={'0' * 64}").peers[0].preshared_key == b""
    assert after(peer(1), "persistent_keepalive_interval=0").peers[0] == ALICE._replace(keepalive=0)


def test_mapped_endpoints_are_ipv4() -> None:
    assert after(peer(3), "endpoint=[::ffff:192.0.2.9]:7").peers[1].endpoint == "192.0.2.9:7"


def test_what_is_the_boxs_may_be_said_and_not_changed() -> None:
    assert after("private_key=" + OURS[::-1].hex(), "listen_port=51820", "fwmark=0") == BEFORE
    assert refused("private_key=" + key(5).hex()) == errno.EPERM
    assert refused("private_key=" + "0" * 64) == errno.EPERM
    assert refused("listen_port=51821") == errno.EPERM
    assert refused("fwmark=7") == errno.EPERM


def test_what_a_file_leaves_out_stays() -> None:
    """`wg syncconf` sends zeros for the keys that a file does not have."""
    nothing = ("private_key=" + "0" * 64, "listen_port=0", "fwmark=0")
    assert after(*nothing) == BEFORE
    assert after(*nothing, "replace_peers=true").peers == ()
    assert refused("private_key=" + key(5).hex(), "listen_port=0", "fwmark=0") == errno.EPERM


def test_we_are_no_peer_of_ours() -> None:
    assert after(f"public_key={OURS.hex()}", "allowed_ip=10.0.0.0/8") == BEFORE


@pytest.mark.parametrize(
    "line",
    [
        "public_key=xyz",
        "nothing",
        "allowed_ip=10.0.0.1/32",
        "remove=true",
        "colour=red",
        "replace_peers=false",
        "listen_port=65536",
        "listen_port=-1",
        "listen_port=",
    ],
)
def test_nonsense_about_a_device_is_refused(line: str) -> None:
    assert refused(line) == errno.EINVAL


@pytest.mark.parametrize(
    "line",
    [
        "remove=yes",
        "allowed_ip=10.0.0.1/33",
        "allowed_ip=fe80::1%1/64",
        "endpoint=host:1",
        "endpoint=192.0.2.1:0",
        "persistent_keepalive_interval=65536",
        "preshared_key=00",
        "listen_port=1",
        "update_only=1",
    ],
)
def test_nonsense_about_a_peer_is_refused(line: str) -> None:
    assert refused(peer(1), line) == errno.EINVAL


def test_another_protocol_version_is_refused() -> None:
    assert after(peer(1), "protocol_version=1") == BEFORE
    assert refused(peer(1), "protocol_version=2") == errno.EPROTONOSUPPORT


@given(st.binary(max_size=200))
def test_whatever_comes_is_a_change_or_an_error(untrusted: bytes) -> None:
    for message in (untrusted, b"set=1\n" + untrusted + b"\n\n"):
        try:
            uapi.read(message)
        except UapiError as error:
            assert error.number in (errno.EINVAL, errno.EPROTONOSUPPORT)


def test_ten_thousand_peers_are_taken_one_by_one() -> None:
    lines = []
    for n in range(10_000):
        lines += [peer(n), "replace_allowed_ips=true", f"allowed_ip=10.{n >> 8}.{n & 255}.0/24"]
    made = after("replace_peers=true", *lines)
    assert len(made.peers) == 10_000
    assert {one.number for one in made.peers if one.name in ("alice", "bob")} == {1, 3}


def shown(**other: Any) -> pb.Peer:
    given = {
        "public_key": base64.b64encode(key(1)).decode(),
        "allowed_ips": ["10.0.0.1/32", "2001:db8::/64"],
        "endpoint": "192.0.2.7:9",
        "configured_endpoint": "192.0.2.1:51820",
        "keepalive": 25,
        "handshake": 1_700_000_000,
        "received": 7,
        "sent": 8,
        "has_preshared_key": True,
    }
    return pb.Peer(**{**given, **other})


def test_what_is_told_holds_no_secret() -> None:
    told = uapi.told(STANDING, [shown(), shown(public_key=base64.b64encode(key(3)).decode(), endpoint="")])
    assert told.decode().split("\n") == [
        "listen_port=51820",
        f"public_key={key(1).hex()}",
        "endpoint=192.0.2.7:9",
        "last_handshake_time_sec=1700000000",
        "last_handshake_time_nsec=0",
        "tx_bytes=8",
        "rx_bytes=7",
        "persistent_keepalive_interval=25",
        "allowed_ip=10.0.0.1/32",
        "allowed_ip=2001:db8::/64",
        f"public_key={key(3).hex()}",
        "endpoint=192.0.2.1:51820",
        *"last_handshake_time_sec=1700000000 last_handshake_time_nsec=0 tx_bytes=8 rx_bytes=7".split(),
        *"persistent_keepalive_interval=25 allowed_ip=10.0.0.1/32 allowed_ip=2001:db8::/64 errno=0".split(),
        "",
        "",
    ]


@pytest.mark.parametrize(
    "other",
    [
        {"public_key": "x"},
        {"public_key": "AAAA"},
        {"allowed_ips": ["x\nerrno=0"]},
        {"endpoint": "192.0.2.1:1\nrx_bytes=1"},
    ],
)
def test_a_box_that_shows_nonsense_is_not_believed(other: dict[str, Any]) -> None:
    with pytest.raises(UapiError) as error:
        uapi.told(STANDING, [shown(**other)])
    assert error.value.number == errno.EPROTO
