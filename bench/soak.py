"""`make soak`: one TCP stream through one box for an hour, and whether its memory and its rate stay what they are."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from bench import machine
from bench.report import beside, figure, table
from tests.system.lab import (
    Lab,
    LabError,
    Namespace,
    Septum,
    iperf_server,
    pair,
    pss_kib,
    reaches,
)

SAMPLES: Final = 60  # fewer if they would come more often than
CLOSEST: Final = 5.0  # seconds: a look takes one
WARM: Final = 1 / 6  # of the samples: tables fill, the interpreters adapt
MORE_MEMORY: Final = 0.02  # of the whole box
LESS_RATE: Final = 0.15  # machines drift


@dataclass(frozen=True)
class Sample:
    """What one stretch of the transfer was like: the rate in Mbit/s, MiB by domain and the process id of each."""

    rate: float
    memory: dict[str, float]
    pids: dict[str, int]

    @property
    def whole(self) -> float:
        return sum(self.memory.values())


def verdict(samples: Sequence[Sample]) -> list[str]:
    """What was not flat; nothing if all was. The first sixth is not looked at, then the first third of what is left is
    compared with the last.
    """
    samples = samples[int(len(samples) * WARM) :]
    third = len(samples) // 3
    if not third:
        return [f"{len(samples)} samples are too few to tell"]
    first, last = samples[:third], samples[-third:]
    said = []
    before, after = (statistics.median(one.whole for one in part) for part in (first, last))
    if after > before * (1 + MORE_MEMORY):
        grew = {
            name: statistics.median(one.memory[name] for one in last)
            - statistics.median(one.memory[name] for one in first)
            for name in last[-1].memory
            if name in first[0].memory
        }
        most = max(grew, key=lambda name: grew[name])
        said.append(f"memory went from {figure(before)} to {figure(after)} MiB, most of it in {most}")
    before, after = (statistics.median(one.rate for one in part) for part in (first, last))
    if after < before * (1 - LESS_RATE):
        said.append(f"the rate went from {figure(before)} to {figure(after)} Mbit/s")
    if silent := sum(not one.rate for one in samples):
        said.append(f"nothing arrived in {silent} of {len(samples)} stretches")
    reborn = sorted({name for one in samples for name, pid in one.pids.items() if pid != samples[0].pids.get(name)})
    if reborn:
        said.append(f"not the same process all the time: {', '.join(reborn)}")
    return said


def received(host: Namespace) -> int:
    """Bytes that came in at a host's interface so far."""
    (link,) = json.loads(host.run("ip", "-json", "-stats", "link", "show", "eth0"))
    return int(link["stats64"]["rx"]["bytes"])


def look(near: Septum, monitor: list[int], rate: float) -> Sample:
    pids = {name: int(row["pid"]) for name, row in near.domains().items()}
    memory = {name: pss_kib([pid]) / 1024 for name, pid in pids.items()}
    return Sample(rate, memory | {"monitor": pss_kib(monitor) / 1024}, pids)


def soak(minutes: float, console: Console) -> list[Sample]:
    samples: list[Sample] = []
    count = max(1, min(SAMPLES, int(60 * minutes / CLOSEST)))
    every = 60 * minutes / count
    with ExitStack() as stack:
        lab = stack.enter_context(Lab())
        left, right = pair(lab.left, lab.right)
        stack.enter_context(Septum(lab.right, right, admit=True))
        near = stack.enter_context(Septum(lab.left, left))
        if not reaches(lab.left.host, lab.right.host4, 20):
            raise LabError("no echo through the tunnel")
        stack.enter_context(iperf_server(lab.right.host))
        load = lab.left.host.start("iperf3", "-c", lab.right.host4, "-t", str(int(60 * minutes) + 60))
        stack.callback(load.wait)
        stack.callback(load.kill)
        bars = (TextColumn("{task.description}"), BarColumn(None), TimeElapsedColumn(), TimeRemainingColumn())
        progress = stack.enter_context(Progress(*bars, console=console))
        bar = progress.add_task("", total=count)
        inside = {int(row["pid"]) for row in near.domains().values()}
        monitor = [pid for pid in near.pids() if pid not in inside]
        began = at = time.monotonic()
        so_far = received(lab.right.host)
        for number in range(1, count + 1):
            time.sleep(max(0.0, began + number * every - time.monotonic()))
            now, in_all = time.monotonic(), received(lab.right.host)
            samples.append(look(near, monitor, (in_all - so_far) * 8 / (now - at) / 1e6))
            at, so_far = now, in_all
            one = samples[-1]
            each = "  ".join(f"{name} {figure(mib)}" for name, mib in one.memory.items())
            told = f"{figure(one.rate)} Mbit/s, {figure(one.whole)} MiB"
            progress.console.print(f"{(now - began) / 60:5.1f} min: {told}: [dim]{each}[/]", soft_wrap=True)
            progress.update(bar, advance=1, description=told)
            if load.poll() is not None:
                raise LabError(f"the transfer ended by itself after {(now - began) / 60:.1f} minutes")
    return samples


def main() -> int:
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    arguments = parser.parse_args()
    console = Console(highlight=False)
    if os.geteuid() != 0:
        console.print("This builds network namespaces. Run it by: [bold]make soak[/]")
        return 1
    before = machine.before()
    try:
        samples = soak(arguments.minutes, console)
    except LabError as error:
        console.print(f"[red]{error}[/]")
        return 1
    rows = []
    for name, values in (
        ("rate, Mbit/s", [one.rate for one in samples]),
        ("memory, MiB", [one.whole for one in samples]),
        *((name, [one.memory[name] for one in samples if name in one.memory]) for name in samples[-1].memory),
    ):
        rows.append([name, *(figure(value) for value in (values[0], statistics.median(values), values[-1]))])
        rows[-1].append(f"{figure(min(values))}–{figure(max(values))}")
    table(console, f"{arguments.minutes:g} minutes", ("", "first", "median", "last", "lowest–highest"), rows)
    console.print(beside({"before": before}))
    said = verdict(samples)
    for what in said:
        console.print(f"[red]Not flat: {what}.[/]")
    if not said:
        console.print(f"[green]Flat: memory and rate stayed what they were for {arguments.minutes:g} minutes.[/]")
    return 1 if said else 0


if __name__ == "__main__":
    sys.exit(main())
