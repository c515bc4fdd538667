"""Cryptokey routing, against a list that is searched from end to end."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.crypto.constants import MOST_PREFIXES
from components.crypto.refused import Refused
from components.crypto.routing import _CACHED, NO_PEER, CryptokeyRouting, PrefixTable

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# Few distinct bits, so that prefixes nest and collide
v4_addresses = st.sampled_from([0, 1, 0x0A000000, 0x0A000001, 0x0A010000, 0x0AFFFFFF, 0xC0A80001, 2**32 - 1])
v6_addresses = st.sampled_from([0, 1, 0xFD << 120, 0xFD << 120 | 1, 0xFD01 << 112, 2**128 - 1, 0xFE80 << 112])
v4_prefixes = st.builds(
    lambda a, b: (a.to_bytes(4, "big"), b), v4_addresses, st.sampled_from([0, 1, 8, 15, 16, 24, 31, 32])
)
v6_prefixes = st.builds(
    lambda a, b: (a.to_bytes(16, "big"), b), v6_addresses, st.sampled_from([0, 1, 7, 8, 16, 64, 127, 128])
)
updates = st.lists(st.tuples(st.integers(1, 4), st.lists(v4_prefixes | v6_prefixes, max_size=6)), max_size=12)


class Naive:
    """Every prefix and its owner, in a list."""

    def __init__(self) -> None:
        self.prefixes: list[tuple[Network, int]] = []

    def replace(self, peer: int, allowed: list[tuple[bytes, int]]) -> None:
        networks = [ipaddress.ip_network((address, bits), strict=False) for address, bits in allowed]
        kept = [(n, p) for n, p in self.prefixes if p != peer and n not in networks]
        self.prefixes = kept + [(network, peer) for network in networks]

    def lookup(self, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> int:
        holding = [(n.prefixlen, p) for n, p in self.prefixes if n.version == address.version and address in n]
        return max(holding)[1] if holding else NO_PEER


@given(updates, st.lists(v4_addresses, min_size=1), st.lists(v6_addresses, min_size=1))
def test_longest_prefix_wins_and_the_last_writer_owns(
    changes: list[tuple[int, list[tuple[bytes, int]]]], v4: list[int], v6: list[int]
) -> None:
    routing, naive = CryptokeyRouting(), Naive()
    for peer, prefixes in changes:
        routing.replace(peer, prefixes)
        naive.replace(peer, prefixes)
        for address in v4 * 2:  # the second time comes from the cache
            assert routing.owner((0, address)) == naive.lookup(ipaddress.IPv4Address(address))
        for address in v6 * 2:
            head = (0, 0, address >> 64, address & (2**64 - 1))
            assert routing.owner(head) == naive.lookup(ipaddress.IPv6Address(address))


@pytest.mark.parametrize(
    "prefix", [(b"", 0), (b"\0" * 5, 8), (b"\0" * 15, 8), (b"\0" * 4, 33), (b"\0" * 16, 129), (b"\0" * 4, -1)]
)
def test_no_prefix_is_refused_and_changes_nothing(prefix: tuple[bytes, int]) -> None:
    routing = CryptokeyRouting()
    routing.replace(1, [(b"\x0a\0\0\0", 8)])
    with pytest.raises(Refused):
        routing.replace(1, [(b"\x0b\0\0\0", 8), prefix])
    assert routing.owner((0, 0x0A000001)) == 1
    assert routing.owner((0, 0x0B000001)) == NO_PEER


def test_the_table_is_bounded() -> None:
    routing = CryptokeyRouting()
    routing.replace(1, ((i.to_bytes(4, "big"), 32) for i in range(MOST_PREFIXES)))
    with pytest.raises(Refused):
        routing.replace(2, [(b"\xff" * 4, 32)])


def test_a_full_table_takes_what_a_peer_has_once_more() -> None:
    """A key manager that is reborn tells of all peers anew."""
    routing = CryptokeyRouting()
    all_of_it = [(i.to_bytes(4, "big"), 32) for i in range(MOST_PREFIXES)]
    routing.replace(1, all_of_it)
    routing.replace(1, all_of_it)
    with pytest.raises(Refused):
        routing.replace(2, [(b"\xff" * 4, 32)])
    routing.replace(1, all_of_it[1:])
    routing.replace(2, [(b"\xff" * 4, 32)])


def test_a_peer_costs_the_same_whatever_the_others_have() -> None:
    table = PrefixTable(32)
    table.replace(1, ((2**32 - 1, network) for network in range(60_000)))
    begun = time.process_time()
    for peer in range(2, 202):
        table.replace(peer, [(2**32 - 1, 70_000 + peer), (2**32 - 1, peer)])
    assert time.process_time() - begun < 0.5
    assert (len(table), table.count(1), table.count(2)) == (60_200, 59_800, 2)
    assert (table.lookup(2), table.lookup(1), table.lookup(70_201)) == (2, 1, 201)


def test_the_cache_is_bounded_and_forgets_nothing() -> None:
    table = PrefixTable(32)
    table.replace(1, [table.prefix(0x0A000000, 8)])
    for address in range(0x0A000000 - _CACHED, 0x0A000000 + _CACHED):
        assert table.lookup(address) == (1 if address >> 24 == 10 else NO_PEER)
    assert len(table._answers) <= _CACHED


def test_taking_all_prefixes_removes_only_what_is_still_owned() -> None:
    routing = CryptokeyRouting()
    routing.replace(1, [(b"\x0a\0\0\0", 8), (b"\x0b\0\0\0", 8)])
    routing.replace(2, [(b"\x0a\0\0\0", 8)])
    routing.replace(1, [])
    owner: Callable[[int], int] = lambda address: routing.owner((0, address))  # noqa: E731
    assert (owner(0x0A000001), owner(0x0B000001)) == (2, NO_PEER)
