"""What the filter's core takes for a packet with few rules and with many, and the memory of its flows.

Run by `make bench` in an interpreter of its own, so that its memory is the filter's alone; no loop, ring or wake.
"""

from __future__ import annotations

import gc
import json
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from appliance.vchan.messages import Packets
from bench import trace
from components.filter.engine import Engine
from components.filter.model import Action, Prefix, Range, Rule, RuleSet, Side, Tracking

COUNTS: Final = (10, 10_000)
FLOWS: Final = 100_000
_ROUNDS: Final = 30
_NEW: Final = 500  # flows opened in a round


def rules(count: int) -> RuleSet:
    """``count`` rules like those of a big site; the first lets through what is established, the last what red opens."""
    between = (
        Rule(
            Action.ALLOW if i % 5 else Action.DROP,
            sides=Side.TUNNEL if i % 2 else Side.RED,
            protocols=(6 if i % 3 else 17,),
            sources=(Prefix(4, 172 << 24 | i << 8, 0xFFFFFF00),),
            destinations=(Prefix(4, 192 << 24 | i, 0xFFFFFFFF),),
            destination_ports=(Range(i, i + i % 7),),
        )
        for i in range(count - 2)
    )
    known = Rule(Action.ALLOW, tracking=Tracking.ESTABLISHED | Tracking.RELATED)
    return RuleSet((known, *between, Rule(Action.ALLOW, sides=Side.RED)))


def _segment(
    source: bytes, destination: bytes, ports: tuple[int, int], numbers: tuple[int, int], flags: int
) -> Packets:
    options = bytes((3, 3, 7, 0)) if flags & 2 else b""
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 40 + len(options), 7, 0x4000, 64, 6, 0, source, destination)
    tcp = struct.pack("!HHIIBBHHH", *ports, *numbers, 20 + len(options) << 2, flags, 64240, 0, 0)
    return Packets(head + tcp + options, 40 + len(options))


def _host(number: int) -> bytes:
    return bytes((10, 9, number >> 8 & 255, number & 255))


def _timed(work: Callable[[], object], packets: int) -> float:
    """Microseconds of CPU a packet."""
    began = time.process_time_ns()
    work()
    return (time.process_time_ns() - began) / 1000 / packets


def costs(count: int) -> dict[str, float]:
    """Microseconds a packet with ``count`` rules."""
    engine = Engine(rules(count))
    for outward, packet in trace.handshake():
        engine.judge(packet, Side.RED if outward else Side.TUNNEL, 0.0, 0.0)
    bulk, lone = (trace.group(read()) for read in (trace.superpacket, trace.single))
    found: dict[str, list[float]] = {"established, bulk": [], "established, lone": [], "new": []}

    def again(group: Packets, times: int) -> None:
        for _ in range(times):
            engine.judge(group, Side.RED, 0.0, 0.0)

    def openings(groups: Sequence[Packets]) -> None:
        for group in groups:
            engine.judge(group, Side.RED, 0.0, 0.0)

    for turn in range(_ROUNDS):
        found["established, bulk"].append(_timed(lambda: again(bulk, 20), 20 * 43))
        found["established, lone"].append(_timed(lambda: again(lone, 100), 100))
        news = [_segment(_host(turn), trace.FAR, (1024 + number, 80 + turn), (number, 0), 2) for number in range(_NEW)]
        found["new"].append(_timed(lambda news=news: openings(news), _NEW))  # type: ignore[misc]
    return {name: statistics.median(values) for name, values in found.items()}


def memory() -> float:
    """Megabytes for FLOWS established connections over IPv4, each with its windows."""
    engine = Engine(rules(10))
    gc.collect()
    gc.freeze()
    before = _resident()
    for number in range(FLOWS):
        near, port = _host(number), 1024 + number % 50_000
        first, second = number * 2_654_435_761 % 2**32, number * 40_503 * 65_537 % 2**32
        after = (first + 1) % 2**32, (second + 1) % 2**32
        for side, packet in (
            (Side.RED, _segment(near, trace.FAR, (port, 443), (first, 0), 2)),
            (Side.TUNNEL, _segment(trace.FAR, near, (443, port), (second, after[0]), 18)),
            (Side.RED, _segment(near, trace.FAR, (port, 443), after, 16)),
        ):
            engine.judge(packet, side, 0.0, 0.0)
    if len(engine.flows) != FLOWS:
        raise RuntimeError(f"{len(engine.flows)} flows, not {FLOWS}")
    return (_resident() - before) / 1e6


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def measured() -> dict[str, Any]:
    """{"us": {what: {number of rules: microseconds a packet}}, "flows": number, "flows_mb": megabytes}"""
    done = subprocess.run([sys.executable, "-m", "bench.rules"], capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def rows(found: dict[str, Any]) -> list[list[str]]:
    """For the tables: a row a kind of packet, a column a number of rules."""
    return [[what, *(f"{by[str(count)]:.1f}" for count in COUNTS)] for what, by in found["us"].items()]


HEADS: Final = ("filter, µs of CPU a packet", *(f"{count:,} rules" for count in COUNTS))


def flows(found: dict[str, Any]) -> str:
    """The memory, in words."""
    each = found["flows_mb"] * 1e6 / found["flows"]
    count, megabytes = f"{found['flows']:,}", f"{found['flows_mb']:.0f}"
    return f"{count} established TCP connections take the filter {megabytes} MB, {each:.0f} bytes each."


def main() -> None:
    by_count = {count: costs(count) for count in COUNTS}
    us = {what: {str(count): by_count[count][what] for count in COUNTS} for what in by_count[COUNTS[0]]}
    print(json.dumps({"us": us, "flows": FLOWS, "flows_mb": memory()}))


if __name__ == "__main__":
    main()
