"""Runs the benchmark: rounds, in each of which every kind of tunnel has its turn, in another order each time.

Absolute figures drift by half from hour to hour on a shared machine; what can be believed are ratios within a round.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench import report
from bench.measures import WITH_OFFLOADS, WITHOUT_OFFLOADS, Scene, first_packet
from tests.system.lab import Conf, Direct, End, Lab, LabError, OpenVpn, Septum, Site, WireguardGo, iperf_server, pair

OUTPUT = Path("build/bench.json")
NARROWEST = 98  # columns: five kinds of tunnel side by side
Make = Callable[[Site, Conf], End]


def kinds(peer: str | None, only: list[str]) -> dict[str, tuple[Make, Make]]:
    """The near and the far end of every kind of tunnel. Both ends of a tunnel are of one make, but in the last."""
    stock = peer or "wireguard-go"

    def other(site: Site, conf: Conf) -> End:
        return WireguardGo(site, conf, stock)

    def admitting(site: Site, conf: Conf) -> End:
        return Septum(site, conf, admit=True)

    every: dict[str, tuple[Make, Make]] = {
        "septum": (Septum, admitting),
        "wireguard-go": (other, other),
        "openvpn": (OpenVpn, OpenVpn),
        "none": (Direct, Direct),
        "septum, stock": (Septum, other),
    }
    return {name: ends for name, ends in every.items() if not only or name in only}


def measure(ends: tuple[Make, Make], plain_nic: bool, domains: report.Domains) -> Iterator[dict[str, float]]:
    with ExitStack() as stack:
        lab = stack.enter_context(Lab(plain_nic=plain_nic))
        left, right = pair(lab.left, lab.right)
        near, far = ends[0](lab.left, left), ends[1](lab.right, right)
        for end in (near, far):
            stack.callback(end.stop)
        seconds = first_packet(lab, near, far)
        if not plain_nic:
            yield {"first_packet_s": seconds}
        stack.enter_context(iperf_server(lab.right.host))
        scene = Scene(lab, near)
        for take in WITHOUT_OFFLOADS if plain_nic else WITH_OFFLOADS:
            yield take(scene)
        if isinstance(near, Septum) and not plain_nic:
            domains.look(near)


def run(arguments: argparse.Namespace, console: Console) -> tuple[report.Results, report.Domains, list[str]]:
    results: report.Results = defaultdict(lambda: defaultdict(dict))
    domains, failures = report.Domains(), []
    todo = kinds(arguments.peer, arguments.only)
    steps = len(WITH_OFFLOADS) + 1 + len(WITHOUT_OFFLOADS)
    bars = (TextColumn("{task.description:28}"), BarColumn(None), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*bars, console=console, transient=True) as progress:
        bar = progress.add_task("", total=arguments.rounds * len(todo) * steps)
        for number in range(1, arguments.rounds + 1):
            for name in random.sample(list(todo), len(todo)):
                progress.update(bar, description=f"round {number}: {name}")
                for plain_nic in (False, True):
                    try:
                        for taken in measure(todo[name], plain_nic, domains):
                            for what, figure in taken.items():
                                results[what][name][number] = figure
                            progress.advance(bar)
                    except LabError as error:
                        failures.append(f"round {number}, {name}: {error}")
                        console.print(f"[red]{failures[-1]}[/]", highlight=False)
    return results, domains, failures


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer", help="another wireguard-go program than Debian's")
    parser.add_argument("--only", action="append", default=[], help="measure this kind (may be repeated)")
    arguments = parser.parse_args()
    console = Console(highlight=False)
    console.width = max(console.width, NARROWEST)
    if os.geteuid() != 0:
        console.print("The benchmark builds network namespaces. Run it by: [bold]make bench[/]")
        return 1
    began = time.monotonic()
    results, domains, failures = run(arguments, console)
    machine = report.machine(arguments.peer, time.monotonic() - began)
    report.show(console, results, domains, machine)
    OUTPUT.parent.mkdir(exist_ok=True)
    OUTPUT.write_text(
        json.dumps({"machine": machine, "domains": domains.summary(), **report.summary(results)}, indent=1)
    )
    console.print(f"Written to {OUTPUT}.")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
