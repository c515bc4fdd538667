"""Where callers come from: who is locked out with whom, and who goes for whom."""

from __future__ import annotations

import ipaddress

import pytest

from components.admin.ratelimit import OFFENCES
from components.admin.sources import (
    MOST_CONNECTIONS,
    MOST_KNOWN,
    MOST_UNKNOWN,
    MOST_UNKNOWN_OF_AN_ADDRESS,
    NETWORK_OFFENCES,
    Offences,
    Present,
    Source,
    has_room,
    source_of,
    to_go,
)


def source(address: str) -> Source:
    return source_of(ipaddress.ip_address(address).packed)


STRANGER, FRIEND, ELSEWHERE = source("2001:db8:0:1::bad"), source("2001:db8:0:1::5"), source("2001:db8:0:2::1")


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("192.0.2.1", ("192.0.2.1", "192.0.2.1")),
        ("::ffff:192.0.2.1", ("192.0.2.1", "192.0.2.1")),
        ("2001:db8:1:2:3:4:5:6", ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64")),
    ],
)
def test_a_source_is_an_address_of_a_network(address: str, expected: tuple[str, str]) -> None:
    assert source(address) == expected


def test_a_neighbour_who_offends_locks_himself_out_and_nobody_else() -> None:
    offences = Offences()
    locked = [offences.offend(STRANGER, i / 10) for i in range(OFFENCES)]
    assert locked[-1] == [STRANGER.address] and not any(locked[:-1])
    assert offences.is_locked(STRANGER, 2.0) and not offences.is_locked(FRIEND, 2.0)
    assert not offences.is_suspect(FRIEND, 2.0)


def test_of_a_network_that_offends_with_many_addresses_only_certificates_are_heard() -> None:
    offences = Offences()
    locked = [offences.offend(source(f"2001:db8:0:1::{i + 100:x}"), i / 10) for i in range(NETWORK_OFFENCES)]
    assert locked[-1] == [STRANGER.network] and not any(locked[:-1])
    assert offences.is_suspect(FRIEND, 11.0) and not offences.is_locked(FRIEND, 11.0)
    assert not offences.is_suspect(ELSEWHERE, 11.0)
    for i in range(NETWORK_OFFENCES):
        offences.offend(source("192.0.2.1"), i / 10)
    assert not offences.is_suspect(source("192.0.2.1"), 11.0), "an IPv4 address is counted once"


def test_who_holds_too_many_loses_his_own() -> None:
    present = [Present(FRIEND, True)] + [Present(STRANGER, True)] * MOST_UNKNOWN_OF_AN_ADDRESS
    assert has_room(present, STRANGER) and to_go(present, STRANGER) == 1
    assert has_room(present, FRIEND) and to_go(present, FRIEND) is None


def test_when_strangers_are_too_many_one_of_those_who_have_most_goes() -> None:
    few = [Present(ELSEWHERE, True), Present(FRIEND, False), Present(FRIEND, True)]
    many = [Present(source(f"2001:db8:0:1::{i // 20 + 100:x}"), True) for i in range(MOST_UNKNOWN - 3)]
    assert to_go(few + many, ELSEWHERE) is None
    present = few + many + [Present(source("2001:db8:0:1::100"), True)] * 21
    index = to_go(present, ELSEWHERE)
    assert index is not None and present[index].source == source("2001:db8:0:1::100") and index > len(few)


def test_certificates_fill_the_box_and_one_network_does_not() -> None:
    present = [Present(FRIEND, False)] * MOST_KNOWN
    assert not has_room(present, STRANGER) and has_room(present, ELSEWHERE)
    everywhere = [Present(source(f"192.0.2.{i % 250}"), False) for i in range(MOST_CONNECTIONS - 1)]
    assert has_room([*everywhere, Present(STRANGER, True)], ELSEWHERE)
    assert to_go([*everywhere, Present(STRANGER, True)], ELSEWHERE) == MOST_CONNECTIONS - 1
    assert not has_room([*everywhere, Present(FRIEND, False)], ELSEWHERE)
