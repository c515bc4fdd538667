"""The transparent filter against a bridge of Linux in the same place: TCP in both directions, and the round trip.

    python -m bench.inline [--json FILE] [--rounds N] [--seconds N]

The two take turns in one line of three namespaces, so that what the machine does besides befalls both; a ratio is of
the two runs of one round, and the median of them is what counts. Larger is better; 1 is as good as a plain bridge.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from tests.system.lab import iperf_server, ping, reaches, tcp_mbit
from tests.system.lab.line import Bridge, KernelBridge, Line

KINDS: Final[dict[str, Callable[[Line], AbstractContextManager[object]]]] = {"linux": KernelBridge, "septum": Bridge}
MEASURES: Final = {
    "TCP outwards, Mbit/s": True,
    "TCP inwards, Mbit/s": True,
    "TCP of 8 connections, Mbit/s": True,
    "round trip, us": False,
}
"""What is measured, and whether more is better."""


def measure(line: Line, seconds: int) -> dict[str, float]:
    """One run of everything through whatever stands in the line."""
    if not reaches(line.inside, line.outside4):
        raise RuntimeError("nothing comes through")
    with iperf_server(line.outside):
        mbit = [
            tcp_mbit(line.inside, line.outside4, seconds),
            tcp_mbit(line.inside, line.outside4, seconds, reverse=True),
            tcp_mbit(line.inside, line.outside4, seconds, streams=8),
        ]
    trip = ping(line.inside, line.outside4, count=100, interval=0.01).median
    return dict(zip(MEASURES, [*mbit, trip], strict=True))


def ratios(runs: dict[str, list[dict[str, float]]], what: str) -> list[float]:
    """How the filter compares in each round: above 1 it is better."""
    pairs = zip(runs["septum"], runs["linux"], strict=True)
    return [own[what] / other[what] if MEASURES[what] else other[what] / own[what] for own, other in pairs]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.inline", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="how often both are measured")
    parser.add_argument("--seconds", type=int, default=3, help="of each transfer")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures of every round there")
    asked = parser.parse_args()
    console = Console()
    runs: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    with Line() as line, console.status("") as status:
        for number in range(asked.rounds):
            for kind in KINDS if number % 2 else reversed(KINDS):
                status.update(f"round {number + 1} of {asked.rounds}: {kind}")
                with KINDS[kind](line):
                    runs[kind].append(measure(line, asked.seconds))
    table = Table("", *KINDS, "ratio", "from", "to", title="A bridge of Linux and the transparent filter")
    for what in MEASURES:
        medians = [statistics.median(run[what] for run in runs[kind]) for kind in KINDS]
        found = ratios(runs, what)
        cells = [f"{median:.0f}" for median in medians] + [f"{statistics.median(found):.3f}"]
        table.add_row(what, *cells, f"{min(found):.3f}", f"{max(found):.3f}")
    console.print(table)
    if asked.json:
        asked.json.write_text(json.dumps({"runs": runs, "ratios": {what: ratios(runs, what) for what in MEASURES}}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
