"""The quick look at packets of living flows says what the long way says, whatever lies together in a group."""

from __future__ import annotations

import random

import pytest

from appliance.vchan.messages import Packets
from components.filter import engine as engines
from components.filter import uniform
from components.filter.engine import Engine
from components.filter.model import Side
from tests.unit.filter.talk import engine
from tests.unit.net.packets import payload, tcp, udp


def slow() -> Engine:
    """Judges each packet for itself."""
    made = engine("allow from tunnel udp")
    made._living = lambda *_: None  # type: ignore[method-assign]
    return made


def mutated(dice: random.Random, packet: bytes) -> bytes:
    """With a few bytes of its headers changed, most of the time none."""
    out = bytearray(packet)
    for _ in range(dice.choice([0, 0, 0, 0, 1, 2])):
        out[dice.randrange(min(60, len(out)))] ^= 1 << dice.randrange(8)
    return bytes(out)


def group(dice: random.Random, size: int) -> Packets:
    """Packets of one length, of a few flows, in runs; the last may be shorter."""
    kinds = []
    for version, make in ((4, tcp), (4, udp), (6, tcp), (6, udp)):
        headers = {(4, tcp): 40, (4, udp): 28, (6, tcp): 60, (6, udp): 48}[version, make]
        for port in (1000, 1001):
            extra = {"flags": dice.choice(["A", "A", "A", "PA", "FA", "RA", "S"])} if make is tcp else {}
            if size > headers:
                kinds.append(
                    make(version, payload(size - headers), sport=port, options=[], **extra)
                    if make is tcp
                    else make(version, payload(size - headers), sport=port)
                )
    parts = []
    for _ in range(dice.randrange(1, 5)):
        kind = dice.choice(kinds)
        parts += [mutated(dice, kind) for _ in range(dice.randrange(1, 6))]
    blob = b"".join(parts)
    return Packets(blob[: len(blob) - dice.choice([0, 0, 0, 7, 20])], size, 0)


@pytest.mark.parametrize("seed", range(8))
def test_a_group_is_judged_as_its_packets_are(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    dice = random.Random(seed)
    quick, long = engine("allow from tunnel udp"), slow()
    real = engines.run
    passed_quickly = 0
    for turn in range(400):
        now = turn / 10
        one = group(dice, dice.choice([60, 64, 100, 101, 1400]))
        side = dice.choice([Side.RED, Side.TUNNEL])
        monkeypatch.setattr(engines, "run", real)
        found = quick.judge(one, side, now, 0.0)
        monkeypatch.setattr(engines, "run", lambda *_: 1)
        wanted = long.judge(one, side, now, 0.0)
        assert [(way, bytes(g.packets)) for way, g in found.passed] == [
            (way, bytes(g.packets)) for way, g in wanted.passed
        ]
        assert quick.passed == long.passed and quick.denied == long.denied
        assert state(quick) == state(long)
        assert quick.hits() == long.hits()
        passed_quickly += len(found.passed)
    assert passed_quickly > 100


def state(made: Engine) -> dict[bytes, object]:
    """All that is known of each flow but which rules are kept for it."""
    return {
        key: (f.state, f.expires, f.packets, f.octets, f.is_answered, f.near_end is None, f.far_end is None)
        for key, f in made.flows.by_key.items()
    }


@pytest.mark.parametrize("version, at", [(4, 8), (4, 1), (6, 7), (6, 1)])
def test_packets_that_differ_by_turns_cost_no_columns(version: int, at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a group of thousands of tiny packets would cost the square of that: a column of all the rest for each."""
    one = udp(version, payload(32), sport=1000)
    other = bytearray(one)
    other[at] ^= 0x40
    blob = memoryview((one + bytes(other)) * 300)
    monkeypatch.setattr(uniform, "_equal", lambda *_: pytest.fail("looked at columns"))
    assert [uniform.run(blob, start, len(one), False) for start in range(0, len(blob), len(one))] == [1] * 600


def test_a_look_is_at_a_group_as_groups_are_made() -> None:
    one = udp(4, payload(4), sport=1000)
    assert uniform.run(memoryview(one * 2000), 0, len(one), False) == 64
