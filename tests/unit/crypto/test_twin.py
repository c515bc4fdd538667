"""The compiled loops give what the Python ones give, to the byte, whatever they are given."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.crypto import fast, loops, twin

KEY = bytes(range(32))
ROOM = 4096
sizes = st.one_of(st.integers(0, 80), st.sampled_from([1420, 1421]))
counters = st.one_of(st.integers(0, 100), st.integers(2**32 - 3, 2**32 + 3), st.integers(2**64 - 90, 2**64 - 70))


def both(name: str, *arguments: Any) -> Any:
    """What both twins give, or raise; that they do the same is checked."""
    results = []
    for module in (fast, loops):
        try:
            results.append(getattr(module, name)(*arguments))
        except (IndexError, ValueError) as error:
            results.append(type(error))
    assert results[0] == results[1]
    return results[0]


def test_the_compiled_twin_runs_where_it_is_built() -> None:
    assert twin.COMPILED and twin.Sealer is fast.Sealer and fast.__file__.endswith(".so")


@given(st.binary(max_size=300), sizes, st.integers(1, 5), st.integers(0, 15), counters, st.data())
def test_seal_and_open(noise: bytes, size: int, count: int, padding: int, counter: int, data: st.DataObject) -> None:
    start, to = data.draw(st.integers(0, 9)), data.draw(st.integers(0, 9))
    packets = (bytes(start) + noise * (size * count // max(1, len(noise)) + 1) + bytes(size * count))[
        : start + size * count
    ]
    sealed = []
    for module in (fast, loops):
        out = bytearray(to + count * (size + padding + 32) + 7)
        module.Sealer(KEY).seal(packets, start, size, count, padding, 0xA1B2C3D4, counter, memoryview(out), to)
        sealed.append(bytes(out))
    assert sealed[0] == sealed[1]
    datagrams = bytearray(sealed[0])
    for at in data.draw(st.lists(st.integers(to, len(datagrams) - 8), max_size=3)):
        datagrams[at] ^= 1  # what was tampered with is no packet, and takes no other with it
    opened = []
    for module in (fast, loops):
        out = bytearray(count * (size + padding) + 9)
        each = size + padding + 32
        authentic = module.Opener(KEY).open(datagrams, to, each, count, counter, memoryview(out), 5)
        opened.append((authentic, bytes(out[5 : 5 + sum(authentic) * (size + padding)])))
    assert opened[0] == opened[1]
    intact = [
        i
        for i in range(count)
        if datagrams[to + i * each + 16 : to + (i + 1) * each] == sealed[0][to + i * each + 16 : to + (i + 1) * each]
    ]
    assert [i for i in range(count) if opened[0][0][i]] == intact
    plains = [packets[start + i * size : start + (i + 1) * size] + bytes(padding) for i in intact]
    assert opened[0][1] == b"".join(plains)


@pytest.mark.parametrize("module", [fast, loops])
@pytest.mark.parametrize(
    "start, size, count, to",
    [
        (-1, 40, 1, 0),
        (0, 40, 1, -1),
        (ROOM - 39, 40, 1, 0),
        (0, 40, 200, 0),
        (0, 40, 1, ROOM - 71),
        (1 << 40, 40, 1, 0),
    ],
)
def test_nothing_beyond_a_buffer(module: Any, start: int, size: int, count: int, to: int) -> None:
    packets, out = bytes(ROOM), bytearray(ROOM)
    with pytest.raises(IndexError):
        module.Sealer(KEY).seal(packets, start, size, count, 0, 1, 0, memoryview(out), to)
    with pytest.raises(IndexError):
        module.Opener(KEY).open(packets, start, size + 32, count, 0, memoryview(out)[: ROOM - 32], to)
    assert out == bytes(ROOM)


@pytest.mark.parametrize("module", [fast, loops])
def test_a_key_of_another_length(module: Any) -> None:
    for kind in (module.Sealer, module.Opener):
        with pytest.raises(ValueError):
            kind(bytes(31))


@pytest.mark.parametrize("module", [fast, loops])
def test_counters_never_begin_anew(module: Any) -> None:
    out = bytearray(4 * 72)
    last = 2**64 - 1
    module.Sealer(KEY).seal(bytes(80), 0, 40, 1, 0, 1, last, memoryview(out), 0)
    sealed = bytes(out)
    with pytest.raises(ValueError):
        module.Sealer(KEY).seal(bytes(80), 0, 40, 2, 0, 1, last, memoryview(out), 0)
    with pytest.raises(ValueError):
        module.Opener(KEY).open(sealed, 0, 72, 2, last, memoryview(out), 0)
    assert out == sealed
    head = bytes(8)
    assert module.succession(head + b"\xff" * 8 + bytes(16), 0, 16, 2) == 1


@given(st.integers(16, 60), st.integers(1, 9), st.integers(0, 20), counters, st.data())
def test_succession(size: int, most: int, start: int, counter: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 8))
    blob = bytearray(start)
    for i in range(count):
        kind = data.draw(st.sampled_from([4, 4, 4, 4, 5]))
        step = data.draw(st.sampled_from([0, 0, 0, 0, 1]))
        blob += (
            bytes((kind, 0, 0, 0, 7, 7, 7, 7)) + ((counter + i + step) % 2**64).to_bytes(8, "little") + bytes(size - 16)
        )
    found = both("succession", bytes(blob), start, size, most)
    assert 1 <= found <= max(1, min(most, count))


@given(st.integers(20, 60), st.integers(1, 9), st.integers(0, 20), st.booleans(), st.data())
def test_alike(size: int, most: int, start: int, is_4: bool, data: st.DataObject) -> None:
    first, address, width = (4, 12, 4) if is_4 else (6, 4, 8)
    blob = bytearray(start) + bytes(size) * data.draw(st.integers(1, 8))
    for at in data.draw(st.lists(st.integers(0, len(blob) - 1), max_size=2)):
        blob[at] ^= 1
    assert both("alike", bytes(blob), start, size, most, first, address, width) >= 1
