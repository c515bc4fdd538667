"""The compiled loops give what the Python ones give, to the byte, whatever they are given."""

from __future__ import annotations

import random
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.vchan.messages import Packets
from components.net import fast, loops, runs, twin
from components.net.coalesce import coalesce
from components.net.split import Malformed, split
from tests.unit.net.packets import offloaded, payload, tcp, udp

NAMES = sorted(set(twin.__all__) - {"COMPILED"})


def use(*modules: ModuleType) -> None:
    for name in NAMES:
        setattr(twin, name, next(getattr(module, name) for module in modules if hasattr(module, name)))


def both(do):  # type: ignore[no-untyped-def]
    """What ``do`` gives with the compiled loops and with the Python ones; what runs otherwise is left in place."""
    before = {name: getattr(twin, name) for name in NAMES}
    results = []
    try:
        for modules in ((fast,), (loops, runs)):
            use(*modules)
            try:
                results.append(do())
            except Malformed as error:
                results.append(str(error))
    finally:
        for name, function in before.items():
            setattr(twin, name, function)
    return results


def test_the_compiled_twin_runs_where_it_is_built() -> None:
    assert twin.COMPILED and twin.join is fast.join and fast.__file__.endswith(".so")


@given(
    st.binary(max_size=200), st.integers(0, 9), st.integers(0, 70000), st.sampled_from([b"\xff", b"\0", b"\x80\x7f\1"])
)
def test_total(data: bytes, cut: int, length: int, pattern: bytes) -> None:
    for buffer in (data, bytearray(data), memoryview(data)[cut:], pattern * (length // len(pattern))):
        assert fast.total(buffer) == loops.total(buffer)


WHOLE = {
    "tcp4": tcp(4, payload(9000), flags="CEPA", id=65533, seq=2**32 - 3000),
    "tcp6": tcp(6, payload(9000), flags="FPA", seq=2**32 - 3000),
    "bare": tcp(4, payload(9000), options=[], ipopts=b"\x01\x01\x01\x00"),
    "udp4": udp(4, payload(9000), id=65533),
    "udp6": udp(6, payload(9000)),
}


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(sorted(WHOLE)),
    st.one_of(st.integers(1, 80), st.integers(900, 10000), st.just(65535)),
    st.integers(9, 9000),
    st.lists(st.tuples(st.integers(0, 90), st.integers(0, 255)), max_size=4),
    st.booleans(),
)
def test_split(name: str, mss: int, length: int, damage: list[tuple[int, int]], mended: bool) -> None:
    """Damage anywhere in virtio_net_hdr or headers, or none; ``mended``: the virtio_net_hdr stays as it was."""
    whole = bytearray(offloaded(WHOLE[name], mss))
    short = len(whole) - 9000 + length
    del whole[short:]
    is_4 = name[-1] == "4" or name == "bare"
    size = len(whole) - 10
    whole[12 if is_4 else 14 : 14 if is_4 else 16] = (size if is_4 else size - 40).to_bytes(2, "big")
    if name.startswith("udp"):
        start = 10 + (20 if is_4 else 40)
        whole[start + 4 : start + 6] = (len(whole) - start).to_bytes(2, "big")
    for at, value in damage:
        whole[(10 + at if mended else at) % len(whole)] = value
    compiled, python = both(lambda: split(memoryview(whole)))
    assert compiled == python


OTHER_TIMESTAMPS = [("NOP", None), ("NOP", None), ("Timestamp", (8, 9))]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_coalesce(data: st.DataObject) -> None:
    """Flows of all kinds, some at the end of their numbers, then changed somewhere."""
    version = data.draw(st.sampled_from([4, 6]))
    count = data.draw(st.one_of(st.integers(2, 5), st.integers(63, 67)))
    size = data.draw(st.sampled_from([1, 2, 37, 400]))
    last = data.draw(st.integers(1, size))
    stays = data.draw(st.booleans())
    ident = data.draw(st.sampled_from([0, 65530, 65535]))
    sequence = data.draw(st.sampled_from([0, 2**32 - 3 * size, 2**32 - 1]))
    flags = data.draw(st.sampled_from(["A", "EA", "PA"]))
    df = data.draw(st.booleans())
    make_tcp = data.draw(st.booleans())
    odd = data.draw(st.integers(0, count - 1))  # a packet with sound checksums that is different
    common = {"tos": 4, "ttl": 63, "sport": 40001, "dport": 81, "df": not df, "id": 9}
    changes = common | ({"window": 5, "ack": 1, "urgptr": 1, "options": OTHER_TIMESTAMPS} if make_tcp else {})
    name = data.draw(st.sampled_from([None, *changes]))
    packets = []
    for i in range(count):
        body = payload(size if i < count - 1 else last, seed=i)
        of: dict[str, object] = {"id": ident if stays else (ident + i) % 65536, "df": df}
        if i == odd and name:
            of[name] = changes[name]
        if make_tcp:
            push = flags if i == count - 1 else flags.replace("P", "")
            packets.append(tcp(version, body, seq=(sequence + i * size) % 2**32, flags=push, **of))
        else:
            packets.append(udp(version, body, **of))
    blob = bytearray(b"".join(packets))
    each = len(packets[0])
    for packet, at, value in data.draw(
        st.lists(st.tuples(st.integers(0, count - 1), st.integers(0, each - 1), st.integers(0, 255)), max_size=3)
    ):
        blob[min(packet * each + at, len(blob) - 1)] = value
    if data.draw(st.booleans()):
        each += data.draw(st.integers(1 - each, 30))
    compiled, python = both(lambda: coalesce(Packets(memoryview(blob), each, 1), True))
    assert compiled == python


def test_numbers_that_overflow_are_told_apart_the_same_way() -> None:
    """A step beyond the field: the next packet is one that a carry into the neighbouring field would make."""
    chance = random.Random(7)
    for _ in range(50):
        size = chance.choice([8, 100])
        one = tcp(4, payload(size), seq=2**32 - size, id=chance.choice([5, 65535]), options=[])
        two = tcp(4, payload(size), seq=0, dport=chance.choice([80, 81]), id=chance.choice([6, 0]), options=[])
        group = Packets(one + two, len(one), 1)
        compiled, python = both(lambda group=group: coalesce(group, True))
        assert compiled == python


@pytest.mark.parametrize(
    "call",
    [
        lambda: fast.tcp_segments(bytes(100), 20, 30, 10),  # no room for a TCP header
        lambda: fast.tcp_segments(bytes(100), 40, 100, 10),  # no payload
        lambda: fast.tcp_segments(bytes(100), 40, 60, 41),  # less than one segment
        lambda: fast.tcp_segments(bytes(100), 40, 60, 0),
        lambda: fast.tcp_segments(bytes(100), -60, 60, 10),
        lambda: fast.tcp_segments(b"", 20, 40, 10),
        lambda: fast.tcp_segments(bytes(70000), 40, 60, 1000),
        lambda: fast.udp_segments(bytes(100), 92, 1),
        lambda: fast.udp_segments(bytes(100), 20, 10),  # IPv6, if anything
        lambda: fast.join(b"", 10, True),
        lambda: fast.join(bytes(100), 0, True),
        lambda: fast.join(bytes(100), -50, True),
    ],
)
def test_the_compiled_loops_check_for_themselves(call) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises((ValueError, IndexError)):
        call()
