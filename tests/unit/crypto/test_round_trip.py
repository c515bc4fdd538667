"""Through both cores: what goes in at one box comes out at the other, and nothing else does."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.crypto.wire import PLACE, cut, ipv4, ipv6, receiver, seal_whole, sender

packets = st.one_of(
    st.builds(ipv4, st.integers(20, 1500), fill=st.integers(0, 255)),
    st.builds(ipv6, st.integers(40, 1500), fill=st.integers(0, 255)),
)
groups = st.builds(
    lambda packet, count, tail: (
        [packet] * min(count, 65535 // len(packet) - 1) + ([tail] if len(tail) < len(packet) else []),
        len(packet),
    ),
    packets,
    st.integers(1, 70),
    packets,
)


@given(st.lists(groups, min_size=1, max_size=4), st.sampled_from([1280, 1420, 1500]))
def test_what_goes_in_comes_out(many: list[tuple[list[bytes], int]], mtu: int) -> None:
    near, far = sender(mtu), receiver()
    for packed, size in many:
        out = []
        for group in seal_whole(near, b"".join(packed), size):
            blob = memoryview(bytes(group.datagrams))
            out += cut(far.open(blob, group.size, *PLACE, 1.0))
        assert out == packed
    assert far.counts["packets"] == near.counts["packets"] == sum(len(packed) for packed, _ in many)
    assert far.counts["bytes"] == near.counts["bytes"]


@given(st.data())
def test_the_network_may_lose_double_reorder_and_regroup(data: st.DataObject) -> None:
    near, far = sender(), receiver()
    lengths = data.draw(st.lists(st.sampled_from([60, 100, 101, 1420]), min_size=1, max_size=30))
    sent = [ipv4(length, fill=n) for n, length in enumerate(lengths)]
    wire = [one for packet in sent for one in cut(seal_whole(near, packet, len(packet)))]
    arriving = data.draw(st.lists(st.sampled_from(range(len(wire))), max_size=60))
    opened: list[bytes] = []
    at = 0
    while at < len(arriving):  # the receiving kernel groups what has one length
        stop = at + 1
        while stop < len(arriving) and len(wire[arriving[stop]]) == len(wire[arriving[at]]):
            stop += 1
        blob = b"".join(wire[n] for n in arriving[at:stop])
        opened += cut(far.open(memoryview(blob), len(wire[arriving[at]]), *PLACE, 1.0))
        at = stop
    assert opened == [sent[n] for n in dict.fromkeys(arriving)]
    assert far.counts["replayed"] == len(arriving) - len(set(arriving))
