"""Peers are called what the comments of a wg-quick file call them, in the ways that people and generators write it."""

from __future__ import annotations

import pytest

from appliance.assembly.peernames import names

INTERFACE = "# the office\n[Interface]\nPrivateKey = x\n\n"


@pytest.mark.parametrize(
    ("above", "behind", "inside", "name"),
    [
        ("# Name = alice\n", "", "", "alice"),
        ("", "", "# Name = Alice's laptop\n", "Alice's laptop"),
        ("#friendly_name=alice\n", "", "", "alice"),
        ("", "", "# friendly_name = alice\n", "alice"),
        ("\n# Client: alice (3a7c-88)\n", "", "", "alice"),
        ("### Client alice\n", "", "", "alice"),
        ("# BEGIN_PEER alice\n", "", "", "alice"),
        ("### begin alice ###\n", "", "", "alice"),
        ("### end bob ###\n### begin alice ###\n", "", "", "alice"),
        ("", " # alice", "", "alice"),
        ("# alice\n", "", "", "alice"),
        ("", "", "# alice\n", "alice"),
        ("# alice\n", "", "# Name = bob\n", "bob"),
        ("# alice\n\n", "", "", ""),
        ("# the one in the cellar\n", "", "", ""),
        ("", "", "#Endpoint\n", ""),
        ("", "", "# PersistentKeepalive = 25\n", ""),
        ("### end bob ###\n", "", "", ""),
        ("", "", "", ""),
        (f"# Name = {'a' * 65}\n", "", "", ""),
        ('# Name = a"b\n', "", "", ""),
    ],
)
def test_a_name(above: str, behind: str, inside: str, name: str) -> None:
    text = f"{INTERFACE}{above}[Peer]{behind}\n{inside}PublicKey = y\n"
    line = text.split("\n").index(f"[Peer]{behind}") + 1
    assert names(text) == ({line: name} if name else {})


def test_each_has_its_own() -> None:
    text = f"{INTERFACE}[Peer]\n# alice\nPublicKey = a\n# bob\n[Peer]\nPublicKey = b\n\n[Peer]\nPublicKey = c # carol\n"
    assert list(names(text).values()) == ["alice", "bob"]
