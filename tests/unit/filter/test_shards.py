"""Whose an address is, among several pairs of crypto domains; and groups shared out by it."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.guest.settings import SettingsError
from appliance.vchan.messages import Packets
from components.filter.settings import parse
from components.filter.shards import End, Shards
from tests.unit.filter.talk import tcp_out
from tests.unit.filter.test_filter_shell import FakeGuest


def shards(*allowed: list[str]) -> Shards:
    return Shards(parse("filter", {"shards": [{"allowed_ips": one} for one in allowed]}).shards)


def raw(address: str) -> bytes:
    return ipaddress.ip_address(address).packed


def packet(source: str, destination: str, size: int, fill: int = 0) -> bytes:
    """As much of an IP packet as matters here."""
    ends = raw(source) + raw(destination)
    head = b"\x45" + bytes(11) if len(ends) == 8 else b"\x60" + bytes(7)
    return (head + ends).ljust(size, bytes((fill,)))


def test_the_longest_prefix_holds() -> None:
    table = shards(["10.0.0.0/8", "fd00::/16", "0.0.0.0/0"], ["10.1.0.0/16", "fd00:1::/32"], ["10.1.2.3/32"])
    for address, pair in {
        "10.9.9.9": 0, "10.1.9.9": 1, "10.1.2.3": 2, "8.8.8.8": 0, "fd00::1": 0, "fd00:1::1": 1, "fe80::1": None,
    }.items():  # fmt: skip
        assert table.owner(raw(address)) == pair
        assert table.owner(raw(address)) == pair, "from the cache"


V4 = st.builds(lambda number, bits: ipaddress.ip_network((number << 28, bits), strict=False),
               st.integers(0, 15), st.integers(0, 4))  # fmt: skip
V6 = st.builds(lambda number, bits: ipaddress.ip_network((number << 124, bits), strict=False),
               st.integers(0, 15), st.integers(0, 4))  # fmt: skip


@given(st.dictionaries(st.one_of(V4, V6), st.integers(0, 2), max_size=20), st.integers(0, 15))
def test_as_a_search_of_all_prefixes_would_say(
    prefixes: dict[ipaddress.IPv4Network | ipaddress.IPv6Network, int], number: int
) -> None:
    table = shards(*([str(one) for one, pair in prefixes.items() if pair == at] for at in range(3)))
    for address in (ipaddress.IPv4Address(number << 28 | 1), ipaddress.IPv6Address(number << 124 | 1)):
        fits = [(one.prefixlen, pair) for one, pair in prefixes.items() if address in one]
        assert table.owner(address.packed) == (max(fits)[1] if fits else None)


def test_many_addresses_do_not_fill_the_memory() -> None:
    table = shards(["10.0.0.0/9"], ["10.128.0.0/9"])
    for number in range(10_000):
        table.owner((0x0A7FF000 + number).to_bytes(4, "big"))
    assert len(table._answers) <= 4096


@pytest.mark.parametrize("end", list(End))
@pytest.mark.parametrize(("near", "far"), [("192.168.1.1", "10.1.0.1"), ("fd99::1", "fd00:1::1")])
@pytest.mark.parametrize("size", [60, 63, 1420])
@pytest.mark.parametrize("last", [0, 45])
def test_a_group_of_one_flow_is_passed_on_as_it_is(end: End, near: str, far: str, size: int, last: int) -> None:
    table = shards(["10.0.0.0/8", "fd00::/16"], ["10.1.0.0/16", "fd00:1::/32"])
    ends = (near, far) if end is End.DESTINATION else (far, near)
    blob = b"".join(packet(*ends, size, n) for n in range(40)) + (packet(*ends, last) if last else b"")
    group = Packets(memoryview(blob), size, 3)
    parts = table.split(group, end)
    if size % 4 == 0:
        assert parts[0][1] is group, "nothing is copied"
    assert parts == [(1, group)]


NAMES = ("10.1.0.1", "10.2.0.1", "10.3.0.1", "10.1.0.9", "fd00:1::1", "fd00:2::1", "9.9.9.9")


@given(
    st.lists(st.tuples(st.sampled_from(NAMES), st.integers(0, 255)), min_size=1, max_size=20),
    st.sampled_from((40, 41, 64)),
    st.integers(0, 24),
    st.sampled_from(list(End)),
)
def test_every_packet_comes_to_its_own_in_order(names: list[tuple[str, int]], size: int, less: int, end: End) -> None:
    table = shards(["10.1.0.0/16", "fd00:1::/32"], ["10.2.0.0/16"], ["10.3.0.0/16", "fd00:2::/32"])
    owners = dict(zip(NAMES, (0, 1, 2, 0, 0, 2, None), strict=True))

    def one(name: str, fill: int, length: int) -> bytes:
        other = "1.1.1.1" if "." in name else "::1"
        return packet(*((other, name) if end is End.DESTINATION else (name, other)), length, fill)

    *most, last = [one(name, fill, size) for name, fill in names]
    if ":" not in names[-1][0]:
        last = last[: max(20, size - less)]
    packets = [*most, last]
    parts = table.split(Packets(b"".join(packets), size, 5), end)
    assert len({pair for pair, _ in parts}) == len(parts)
    for pair, part in parts:
        own = [one for (name, _), one in zip(names, packets, strict=True) if owners[name] == pair]
        assert bytes(part.packets) == b"".join(own)
        assert -(-len(part.packets) // part.size) == len(own) and part.peer == 5
    assert sum(len(part.packets) for _, part in parts) == sum(map(len, packets))


@pytest.mark.parametrize("end", list(End))
@pytest.mark.parametrize("blob", [b"\x60" * 20, b"\x60" * 24 * 3, b"\x45" * 25, b"\x60" + bytes(39) + b"\x60"])
def test_what_is_too_short_to_have_an_address_is_nobodys(end: End, blob: bytes) -> None:
    table = shards(["10.1.0.0/16"], [])
    parts = table.split(Packets(blob, min(24, len(blob)), 1), end)
    assert {pair for pair, _ in parts} == {None}


ALLOWED: list[dict[str, object]] = [
    {"allowed_ips": ["10.8.0.0/24", "fd08::/64"]},
    {"allowed_ips": ["10.8.0.128/25", "10.9.0.0/24"]},
]


@pytest.mark.parametrize(("given", "encrypts"), [(None, 2), (ALLOWED, 1), (ALLOWED, 3), ([], 2)])
def test_there_are_as_many_shards_as_encrypts(given: list[dict[str, object]] | None, encrypts: int) -> None:
    with pytest.raises(SettingsError, match="shards: must be one for each encrypt"):
        FakeGuest(given, encrypts)


@pytest.mark.parametrize(
    "wrong", [[{"allowed_ips": ["10.0.0.1/8"]}], [{"allowed_ips": [1]}], [{}], [{"allowed_ips": [], "x": 1}], 5]
)
def test_shards_that_are_none(wrong: object) -> None:
    with pytest.raises(SettingsError, match="shards"):
        parse("filter", {"shards": wrong})


def to(address: str, size: int = 0, source: str = "192.168.1.10") -> bytes:
    """A SYN from the red side."""
    from scapy.layers.inet import IP, TCP  # type: ignore[import-untyped]

    return bytes(IP(src=source, dst=address) / TCP(sport=40000, dport=443, flags="S") / bytes(size))


def test_a_group_goes_out_by_the_peers_of_its_destinations() -> None:
    guest = FakeGuest(ALLOWED, 2)
    mixed = [to("10.8.0.1"), to("10.8.0.200"), to("10.8.0.2"), to("10.9.0.3"), to("172.16.0.1")]
    guest.handlers["red_in"](Packets(b"".join(mixed), len(mixed[0]), 0), 1.0)
    first, second = ([bytes(group.packets) for group in out.sent] for out in guest.encrypts)
    assert b"".join(first) == mixed[0] + mixed[2] + mixed[4], "what is nobody's goes to the first, which counts it"
    assert b"".join(second) == mixed[1] + mixed[3]
    guest.encrypts[1].full = True
    guest.handlers["red_in"](Packets(b"".join(mixed), len(mixed[0]), 0), 1.0)
    assert guest.counters["sink_full"].value == 2


def answer(source: str) -> bytes:
    from scapy.layers.inet import IP, TCP

    return bytes(IP(src=source, dst="192.168.1.10") / TCP(sport=443, dport=40000, flags="SA", ack=1))


def test_a_decrypt_speaks_for_its_own_peers_only() -> None:
    guest = FakeGuest(ALLOWED, 2)
    for address in ("10.8.0.1", "10.8.0.200"):
        guest.give("red_in", to(address), 1.0)

    def passed(decrypt: int, peer: int, *sources: str) -> bytes:
        guest.outs["red_out"].sent.clear()
        packets = [answer(source) for source in sources]
        guest.handlers[f"decrypt{decrypt}"](Packets(memoryview(b"".join(packets)), len(packets[0]), peer), 2.0)
        return b"".join(bytes(group.packets) for group in guest.outs["red_out"].sent)

    assert passed(1, 1, "10.8.0.1") == answer("10.8.0.1")
    assert passed(2, 2, "10.8.0.200") == answer("10.8.0.200")
    assert passed(2, 4, "10.8.0.200") == answer("10.8.0.200")
    # Of peer 1, but with an address that a narrower prefix gives to peer 2: decrypt 1 knows nothing of that one
    assert passed(1, 1, "10.8.0.200") == b""
    assert passed(1, 1, "10.8.0.200", "10.8.0.1", "10.8.0.200") == answer("10.8.0.1")
    assert passed(1, 2, "10.8.0.200") == b"", "a peer that is not its own"
    assert passed(2, 0, "10.8.0.200") == b"", "nobody's"
    assert passed(1, 1, "172.16.0.1") == b"", "an address that is nobody's"
    guest.tick(100.0)
    assert guest.counters["from_tunnel"].value == 3 + 1 + 3 + 1 + 1 + 1
    assert guest.lines[-1] == ("denied", "from the tunnel: 6 foreign")


def test_the_quick_look_and_the_filter_agree_on_a_group_of_one_flow() -> None:
    guest = FakeGuest(ALLOWED, 2)
    packets = [tcp_out("A")] * 10  # to 10.8.0.2
    guest.handlers["red_in"](Packets(memoryview(b"".join(packets)), len(packets[0]), 0), 1.0)
    (group,) = guest.encrypts[0].sent
    assert bytes(group.packets) == b"".join(packets)
