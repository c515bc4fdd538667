"""Settings as people get them wrong."""

from __future__ import annotations

import base64
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.guest.settings import SettingsError
from components.keymgr.settings import (
    MAX_PEERS,
    MAX_PREFIXES,
    MAX_PREFIXES_IN_ALL,
    Endpoint,
    Prefix,
    parse,
    parse_endpoint,
)

KEY = base64.b64encode(bytes(range(32))).decode()
OTHER = base64.b64encode(bytes(range(1, 33))).decode()
PSK = base64.b64encode(bytes(range(2, 34))).decode()


def table(**peer: Any) -> dict[str, Any]:
    return {"private_key": KEY, "peers": [{"public_key": OTHER, **peer}]}


def test_everything() -> None:
    settings = parse(
        "keymgr",
        table(
            preshared_key=PSK,
            allowed_ips=["10.0.0.1/8", "::/0", "192.0.2.7"],
            endpoint="[2001:db8::1]:51820",
            keepalive=25,
        ),
    )
    assert settings.private_key.reveal() == bytes(range(32))
    (peer,) = settings.peers
    assert peer.public_key == bytes(range(1, 33))
    assert peer.preshared_key is not None and peer.preshared_key.reveal() == bytes(range(2, 34))
    assert peer.allowed_ips == (
        Prefix(b"\x0a\0\0\0", 8),
        Prefix(bytes(16), 0),
        Prefix(b"\xc0\0\x02\x07", 32),
    )
    assert peer.endpoint == Endpoint("2001:db8::1", 51820)
    assert peer.endpoint.address() == bytes.fromhex("20010db8000000000000000000000001")
    assert peer.keepalive == 25
    assert (
        KEY not in repr(settings) and PSK not in repr(settings) and repr(bytes(range(32)))[2:-1] not in repr(settings)
    )


def test_the_least() -> None:
    (peer,) = parse("keymgr", table()).peers
    assert (peer.preshared_key, peer.allowed_ips, peer.endpoint, peer.keepalive) == (None, (), None, 0)
    assert parse("keymgr", {"private_key": KEY}).peers == ()


WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, "private_key"),
    ({"private_key": 5}, "private_key"),
    ({"private_key": KEY[:-4]}, "private_key"),
    ({"private_key": KEY + "\n"}, "private_key"),
    ({"private_key": KEY[:-2] + "9="}, "private_key"),  # stray bits
    ({"private_key": KEY, "pears": []}, "pears"),
    ({"private_key": KEY, "peers": [5]}, "peers[0]"),
    ({"private_key": KEY, "peers": [{}]}, "peers[0].public_key"),
    (table(public_key=base64.b64encode(bytes(32)).decode()), "peers[0].public_key"),
    ({"private_key": KEY, "peers": [{"public_key": OTHER}, {"public_key": OTHER}]}, "peers[1].public_key"),
    (table(preshared_key="secret"), "peers[0].preshared_key"),
    (table(allowed_ips="10.0.0.0/8"), "peers[0].allowed_ips"),
    (table(allowed_ips=["10.0.0.0/8", "10.0.0.0/33"]), "peers[0].allowed_ips[1]"),
    (table(allowed_ips=["10.0.0.0/8", "10.1.2.3/8"]), "peers[0].allowed_ips[1]"),
    (table(allowed_ips=["example.net"]), "peers[0].allowed_ips[0]"),
    (table(allowed_ips=["fe80::1%eth0/64"]), "peers[0].allowed_ips[0]"),
    (table(allowed_ips=["10.0.0.0/8"] * 1025), "peers[0].allowed_ips"),
    (table(endpoint="192.0.2.1"), "peers[0].endpoint"),
    (table(endpoint="2001:db8::1:51820"), "peers[0].endpoint"),
    (table(keepalive=-1), "peers[0].keepalive"),
    (table(keepalive=65536), "peers[0].keepalive"),
    (table(keepalive=True), "peers[0].keepalive"),
    (table(persistent_keepalive=25), "peers[0].persistent_keepalive"),
]


@pytest.mark.parametrize(("settings", "path"), WRONG, ids=[path for _, path in WRONG])
def test_what_is_wrong_is_named(settings: dict[str, Any], path: str) -> None:
    with pytest.raises(SettingsError) as error:
        parse("keymgr", settings)
    assert error.value.path == path
    assert error.value.why and KEY[:-2] not in str(error.value) and "secret" not in error.value.why


def test_peers_and_prefixes_are_bounded_by_the_memory_of_others() -> None:
    peers = [{"public_key": base64.b64encode(n.to_bytes(32, "big")).decode()} for n in range(1, MAX_PEERS + 2)]
    assert len(parse("keymgr", {"private_key": KEY, "peers": peers[:-1]}).peers) == MAX_PEERS
    with pytest.raises(SettingsError) as error:
        parse("keymgr", {"private_key": KEY, "peers": peers})
    assert error.value.path == "peers" and str(MAX_PEERS) in error.value.why
    full = [
        {**one, "allowed_ips": [f"fd00:{n:x}:{i:x}::/48" for i in range(MAX_PREFIXES)]}
        for n, one in enumerate(peers[: MAX_PREFIXES_IN_ALL // MAX_PREFIXES])
    ]
    parse("keymgr", {"private_key": KEY, "peers": full})
    full.append({**peers[-1], "allowed_ips": ["10.0.0.0/8"]})
    with pytest.raises(SettingsError) as error:
        parse("keymgr", {"private_key": KEY, "peers": full})
    assert error.value.path == f"peers[{len(full) - 1}].allowed_ips[0]" and "65536" in error.value.why


def test_the_board_has_a_row_for_every_peer() -> None:
    declared = tomllib.loads((Path(__file__).parents[3] / "components/keymgr/component.toml").read_text())
    assert declared["roles"]["keymgr"]["board"] == MAX_PEERS


@pytest.mark.parametrize(
    "text", ["vpn.example.net:1", "a:65535", "1.2.3.4:51820", "[::]:1", "[2001:db8::1]:80", "xn--bcher-kva.example:9"]
)
def test_endpoints(text: str) -> None:
    endpoint = parse_endpoint("e", text)
    assert f"{endpoint.port}" == text.rpartition(":")[2]
    assert endpoint.is_numeric() == (text[0] in "1[")


NO_ENDPOINT = """: :1 a: a:0 a:65536 a:1x a:+1 1.2.3:4 1.2.3.256:4 [1.2.3.4]:5 [::1:5 ::1]:5 [fe80::1%eth0]:5 -a:1 a-:1
a..b:1 .a:1 a:\u0661 \u00e4:1 []:1 http://a:1""".split()


@pytest.mark.parametrize("text", [*NO_ENDPOINT, "", "a b:1", "x" * 64 + ":1", "x." * 127 + ":1", "a\n:1", "a:1\n"])
def test_what_is_no_endpoint(text: str) -> None:
    with pytest.raises(SettingsError):
        parse_endpoint("e", text)


@given(st.text(max_size=40))
def test_an_endpoint_is_one_or_is_refused(text: str) -> None:
    try:
        endpoint = parse_endpoint("e", text)
    except SettingsError:
        return
    assert 1 <= endpoint.port <= 65535 and endpoint.host
    assert not endpoint.is_numeric() or len(endpoint.address()) in (4, 16)
