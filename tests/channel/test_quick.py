"""The quick way of plain messages (short.pyx) against the Python that it stands before: two channels that are given the
same, one of which has none, are the same in all that can be seen, whatever is sent and whatever is done to the ring.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any, Final, NamedTuple, Self

import pytest

from appliance.vchan.endpoint import Endpoint
from appliance.vchan.messages import Datagrams, Frames, Packets
from appliance.vchan.ring import PeerViolation, Side
from appliance.vchan.wireformat import Violation
from tests.channel.support import MemoryWire, small

STEPS: Final = 2000
FIRST: Final = (0, 2**32 - 1, 2**32 - 100, 2**32 - 70_000)
WEIGHTS: Final = {"send": 45, "receive": 30, "room": 5, "arm": 4, "ask": 4, "flush": 4, "damage": 2, "end": 1}
SCHEMAS: Final = ("packets", "datagrams", "frames", "outer_packets", "outer_frames")


class Pair:
    """A channel: what is sent at ``far`` comes in at ``near``."""

    def __init__(self, name: str, first: int, is_quick: bool) -> None:
        shape = small(name, 17)
        wires = MemoryWire.pair(shape.orders)
        self.memory = wires[0].memory
        self.near, self.far = (
            Endpoint(wires[0], Side.SERVER, shape, first),
            Endpoint(wires[1], Side.CLIENT, shape, first),
        )
        assert self.near._quick is not None and self.far._quick is not None
        if not is_quick:
            self.near._quick = self.far._quick = None
        self.settle()
        assert self.near.is_open and self.far.is_open

    def settle(self) -> None:
        for _ in range(4):
            for end in (self.far, self.near):
                outcome(end.progress)

    def state(self) -> list[Any]:
        found: list[Any] = []
        for end in (self.near, self.far):
            ring = end._vchan
            found += [ring.state, ring._cons, ring._prod, ring._header, ring._is_partial, end.statistics]
            found += [end._next_in, end._next_out, end._has_read, end._has_written, end.is_wronged, len(end.unflushed)]
        return found


def outcome(do: Callable[[], Any]) -> Any:
    """What came of it, comparably."""
    try:
        made = do()
    except (PeerViolation, Violation) as error:
        return type(error), str(error)
    except TypeError:
        return TypeError
    if isinstance(made, tuple):
        assert made[0].readonly and made[0].format == "B"
        return type(made), bytes(made[0]), made[1:]
    return made


def message(dice: random.Random, name: str) -> Any:
    """Most of them plain, some that are nothing."""
    if dice.random() < 0.6:
        plain = dice.randbytes(dice.choice([32, 100, 128, 1400, 20_000, 60_000]))
        return {
            "datagrams": Datagrams(plain, 100, b"four", dice.choice([1, 51820])),
            "frames": Frames(plain, 100, bytes(14)),
            "outer_frames": Frames(plain, 100, bytes(14)),
        }.get(name, Packets(plain, 100, dice.choice([0, 0, 7])))
    length = dice.choice([0, 1, 19, 20, 32, 40, 127, 128, 129, 1000, 1800, 16383, 16384, 65535, 65536])
    blob: Any = dice.randbytes(length)
    blob = dice.choice([blob, blob, bytearray(blob), memoryview(blob), memoryview(blob + blob)[::2], "no bytes"])
    if isinstance(blob, memoryview) and blob.contiguous and length and not length % 4:
        blob = dice.choice([blob, blob.cast("I"), blob.cast("B", (length // 4, 4))])
    size = dice.choice([20, 32, 100, 100, 100, 1400, 0, 1, 65535, 65536, -1])
    if "packets" in name:
        return Packets(blob, size, dice.choice([0, 0, 1, 5, 65535, 65536]))
    if name == "datagrams":
        return Datagrams(
            blob, size, dice.choice([b"four", b"four", bytes(16), b"", bytes(17)]), dice.choice([1, 500, 0])
        )
    return Frames(blob, size, dice.choice([bytes(14), bytes(22), bytes(13)]))


class Step(NamedTuple):
    """What is done to either channel; all but ``what`` as far as it matters."""

    what: str
    message: Any
    at: int
    bits: int
    is_near: bool

    @classmethod
    def of(cls, dice: random.Random, name: str) -> Self:
        (what,) = dice.choices(list(WEIGHTS), list(WEIGHTS.values()))
        at = dice.choice([0, 1, 4, 8, 9, 10, 11, dice.randrange(60)])
        made = message(dice, name) if what == "send" else None
        return cls(what, made, at, dice.randrange(1, 256), dice.random() < 0.5)

    def do(self, pair: Pair) -> Any:
        near, far = pair.near, pair.far
        end = near if self.is_near else far
        match self.what:
            case "send":
                return far.send(self.message)
            case "receive":
                return near.receive()
            case "room":
                return far.room()
            case "arm":
                return near.arm(space=False) if self.is_near else far.arm(space=True)
            case "ask":
                return near.has_more()
            case "flush":
                return end.flush()
            case "damage":  # of what waits, if anything does
                ring = near._vchan
                ring._in[(ring._cons + self.at) % ring._in_size] ^= self.bits
            case "end":
                end.close()
                pair.settle()
        return None


@pytest.mark.parametrize("name", SCHEMAS)
@pytest.mark.parametrize("first", FIRST)
def test_it_does_what_python_does(name: str, first: int) -> None:
    dice = random.Random(f"{name} {first}")
    pairs = quick, python = Pair(name, first, True), Pair(name, first, False)
    seen: Counter[str] = Counter()
    for number in range(STEPS):
        step = Step.of(dice, name)
        one, other = (outcome(lambda pair=pair, step=step: step.do(pair)) for pair in pairs)  # type: ignore[misc]
        assert one == other, (number, step)
        assert quick.state() == python.state(), (number, step)
        if not number % 50:
            assert quick.memory == python.memory, (number, step)
        seen[f"{step.what} {one if isinstance(one, bool) else type(one).__name__}"] += 1
        if not quick.near.is_open:  # accused, or closed
            pairs = quick, python = Pair(name, first, True), Pair(name, first, False)
    assert seen["send True"] > STEPS // 20 and seen["receive tuple"] > STEPS // 20, seen
    assert seen["receive NoneType"] and seen["send False"], seen
