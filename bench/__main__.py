"""`make bench`: Septum, wireguard-go, OpenVPN and no tunnel, measured in turns in one world.

It goes by rounds, in each of which every kind of tunnel has its turn, in another order each time.

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
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from bench import machine, report, rules
from bench.domains import Domains
from bench.measures import WITH_OFFLOADS, WITHOUT_OFFLOADS, Scene, first_packet
from tests.system.lab import (
    Conf,
    Direct,
    End,
    KernelWireguard,
    Lab,
    LabError,
    OpenVpn,
    Septum,
    Site,
    WireguardGo,
    iperf_server,
    pair,
)
from tests.system.lab.ends import kernel

OUTPUT: Final = Path("build/bench.json")  # the figures and nothing else
ABOUT: Final = Path("build/bench-about.json")  # all that one must know of them
NARROWEST: Final = 98  # columns: five kinds of tunnel side by side
Make = Callable[[Site, Conf], End]
Ends = tuple[Make, Make]
EXTRA: Final = ("septum, stock",)  # measured only if it is asked for


def kinds(peer: str, only: list[str], no_kernel: str) -> dict[str, Ends]:
    """The near and the far end of every kind of tunnel. Both ends of a tunnel are of one make, but in the last."""

    def other(site: Site, conf: Conf) -> End:
        return WireguardGo(site, conf, peer)

    def admitting(site: Site, conf: Conf) -> End:
        return Septum(site, conf, admit=True)

    every: dict[str, Ends] = {
        "septum": (Septum, admitting),
        "wireguard-go": (other, other),
        "openvpn": (OpenVpn, OpenVpn),
        "kernel": (KernelWireguard, KernelWireguard),
        "none": (Direct, Direct),
        "septum, stock": (Septum, other),
    }
    if no_kernel:
        del every["kernel"]
    return {name: ends for name, ends in every.items() if (name in only if only else name not in EXTRA)}


def measure(name: str, ends: Ends, plain_nic: bool, domains: Domains) -> Iterator[dict[str, float]]:
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
        if plain_nic:
            for take in WITHOUT_OFFLOADS:
                yield take(scene)
            return
        yield domains.tcp(scene, name)
        for take in WITH_OFFLOADS:
            yield take(scene)
        domains.look(near)


def run(arguments: argparse.Namespace, todo: dict[str, Ends], console: Console) -> tuple[report.Results, Domains, int]:
    """Whole rounds, as many as there is time for; one at least. Results, and how many measurements failed."""
    results: report.Results = defaultdict(lambda: defaultdict(dict))
    domains, failures, longest, number = Domains(), 0, 0.0, 0
    began = time.monotonic()
    bars = (TextColumn("{task.description:28}"), BarColumn(None), TimeElapsedColumn())
    with Progress(*bars, console=console, transient=True) as progress:
        bar = progress.add_task("", total=60 * arguments.minutes)
        while not number or time.monotonic() - began + longest < 60 * arguments.minutes:
            number += 1
            round_began = time.monotonic()
            for name in random.sample(list(todo), len(todo)):
                for plain_nic in (False, True):
                    progress.update(bar, description=f"round {number}: {name}", completed=time.monotonic() - began)
                    try:
                        for taken in measure(name, todo[name], plain_nic, domains):
                            for what, figure in taken.items():
                                results[what][name][number] = figure
                            progress.update(bar, completed=time.monotonic() - began)
                    except LabError as error:
                        failures += 1
                        console.print(f"[red]round {number}, {name}: {error}[/]", highlight=False)
            longest = max(longest, time.monotonic() - round_began)
    return results, domains, failures


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=5, help="a round is begun if it will end within these")
    parser.add_argument("--peer", default="wireguard-go", help="another wireguard-go program than Debian's")
    parser.add_argument("--only", action="append", default=[], help="measure this kind (may be repeated)")
    arguments = parser.parse_args()
    console = Console(highlight=False)
    console.width = max(console.width, NARROWEST)
    if os.geteuid() != 0:
        console.print("The benchmark builds network namespaces. Run it by: [bold]make bench[/]")
        return 1
    before = machine.before()
    no_kernel = kernel.missing()
    todo = kinds(arguments.peer, arguments.only, no_kernel)
    if not todo:
        console.print(
            f"Nothing is called {', '.join(arguments.only)}. There are: {', '.join(kinds('', [], no_kernel))}"
        )
        return 1
    versions: dict[str, Callable[[], str]] = {
        "septum": Septum.version,
        "wireguard-go": lambda: WireguardGo.version(arguments.peer),
        "openvpn": OpenVpn.version,
        "kernel": KernelWireguard.version,
    }
    began = time.monotonic()
    results, domains, failures = run(arguments, todo, console)
    about = {
        **machine.describe({kind: version for kind, version in versions.items() if kind in todo}),
        "before": before,
        "no_kernel": no_kernel,
        "rounds": max((number for kinds in results.values() for runs in kinds.values() for number in runs), default=0),
        "seconds": round(time.monotonic() - began),
        "ratios": report.all_ratios(results),
        **domains.summary(),
        "filter": rules.measured(),
    }
    report.show(console, results, about)
    OUTPUT.parent.mkdir(exist_ok=True)
    OUTPUT.write_text(json.dumps(report.summary(results), indent=1) + "\n")
    ABOUT.write_text(json.dumps(about, indent=1) + "\n")
    console.print(f"Written to {OUTPUT}; what ran where, to {ABOUT}.")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
