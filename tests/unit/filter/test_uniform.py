"""The quick look at a group: how far a run goes, and that both twins say so, whatever the group."""

from __future__ import annotations

import random

import pytest

from components.filter import fast, uniform
from tests.unit.filter.test_living import group
from tests.unit.net.packets import payload, tcp, udp


@pytest.mark.parametrize("run", [uniform.run, fast.run], ids=["python", "compiled"])
def test_a_run_ends_where_the_flow_does(run: object) -> None:
    assert callable(run)
    one = tcp(4, payload(60), sport=1, options=[], flags="A")
    other = tcp(4, payload(60), sport=2, options=[], flags="A")
    last = tcp(4, payload(60), sport=1, options=[], flags="FA")
    blob = memoryview(one * 3 + other * 2 + one * 2 + last * 2)
    assert [run(blob, at * 100, 100, True) for at in range(9)] == [3, 2, 1, 2, 1, 2, 1, 1, 1]
    assert run(memoryview(one * 100), 0, 100, True) == 64
    assert run(memoryview(one * 100), 100 * 99, 100, True) == 1


@pytest.mark.parametrize("seed", range(4))
def test_the_twins_say_the_same(seed: int) -> None:
    dice = random.Random(seed)
    lengths = set()
    for _ in range(3000):
        size = dice.choice([24, 28, 34, 36, 44, 48, 52, 56, 60, 64, 101, 102, 100, 1420])
        if dice.random() < 0.1:
            blob = memoryview(dice.randbytes(dice.randrange(1, 4) * size + dice.randrange(3)))
        else:
            made = group(dice, size) if size > 60 else None
            packet = udp(4, payload(size - 28)) if size > 28 else dice.randbytes(size)
            blob = memoryview(bytes(made.packets) if made else packet * dice.randrange(1, 9))
        for at in range(0, max(1, len(blob)), size):
            for is_tcp in (False, True):
                said = uniform.run(blob, at, size, is_tcp) if at < len(blob) else 1
                assert fast.run(blob, at, size, is_tcp) == said, (bytes(blob), at, size, is_tcp)
                lengths.add(said)
    assert len(lengths) > 4, "only short runs show little"
