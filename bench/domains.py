"""What the near end costs by domain: memory, start, and CPU seconds a gigabyte, from which a limit follows."""

from __future__ import annotations

import statistics
from collections import defaultdict
from typing import Any, Final

from bench.measures import TCP_SECONDS, Scene
from tests.system.lab import End, Septum, cpu_seconds, pss_kib, tcp_mbit

PATH: Final = ("red", "filter", "encrypt", "decrypt", "black")  # in the order of the map
REPLICATED: Final = ("encrypt", "decrypt")
DIRECTIONS: Final = {"out": False, "in": True}  # is iperf3 to run in reverse?
PROJECTED_CPUS: Final = 8
Cost = dict[str, float]  # domain -> CPU seconds a gigabyte


class Domains:
    """Collects over the rounds what the near end's processes cost, by domain; a stock end is one process."""

    def __init__(self) -> None:
        self._memory: dict[str, list[float]] = defaultdict(list)
        self._start: dict[str, list[float]] = defaultdict(list)
        self._cpu: dict[str, dict[str, dict[str, list[float]]]] = {}  # kind -> direction -> domain -> per gigabyte

    def look(self, near: End) -> None:
        """Memory and start of a Septum that is, or was just, under load."""
        if not isinstance(near, Septum):
            return
        rows = near.domains()
        for name, row in rows.items():
            self._memory[name].append(pss_kib([int(row["pid"])]) / 1024)
            if row.get("start_ms") is not None:
                self._start[name].append(float(row["start_ms"]))
        inside = {int(row["pid"]) for row in rows.values()}
        self._memory["monitor"].append(pss_kib([pid for pid in near.pids() if pid not in inside]) / 1024)

    def tcp(self, scene: Scene, kind: str) -> dict[str, float]:
        """One TCP stream each way, and what it takes of the CPUs. The figure is of the one that goes out."""
        near = scene.near
        if isinstance(near, Septum):
            pids = {name: [int(row["pid"])] for name, row in near.domains().items()}
        else:
            pids = {near.kind: near.pids()} if near.pids() else {}
        directions = self._cpu.setdefault(kind, {way: defaultdict(list) for way in DIRECTIONS})
        rates = {}
        for way, reverse in DIRECTIONS.items():
            before = {name: sum(map(cpu_seconds, each)) for name, each in pids.items()}
            rates[way] = tcp_mbit(scene.lab.left.host, scene.address, TCP_SECONDS, reverse=reverse)
            gigabytes = rates[way] * TCP_SECONDS / 8000
            for name, each in pids.items():
                directions[way][name].append((sum(map(cpu_seconds, each)) - before[name]) / gigabytes)
        return {"tcp1": rates["out"]}

    def summary(self) -> dict[str, Any]:
        """{"domains": {name: {"pss_mb", "start_ms"}}, "cpu_s_per_gb": {kind: {direction: {domain: seconds}}}}"""
        return {
            "domains": {
                name: {"pss_mb": statistics.median(memory)}
                | ({"start_ms": statistics.median(self._start[name])} if self._start[name] else {})
                for name, memory in self._memory.items()
            },
            "cpu_s_per_gb": {
                kind: {
                    way: {name: statistics.median(each) for name, each in domains.items()}
                    for way, domains in directions.items()
                }
                for kind, directions in self._cpu.items()
                if any(directions.values())
            },
        }


def limit(cost: Cost, cpus: int | None = None, pairs: int = 1) -> tuple[float, str]:
    """Mbit/s that a pipeline of these costs carries at the most, and what bounds it: the domain that costs the most,
    or all CPUs together.

    A model, not a measurement: every domain has a CPU of its own as long as there are any, work is shared evenly by
    ``pairs`` of encrypt and decrypt, a CPU is as fast beside others at work as alone, memory is never short.
    """
    shares = {name: cost[name] / (pairs if name in REPLICATED else 1) for name in PATH if cost.get(name)}
    dearest = max(shares, key=lambda name: shares[name])
    bounds = {dearest: shares[dearest]}
    if cpus is not None:
        bounds[f"all {cpus} CPUs"] = sum(cost.values()) / cpus
    bound = max(bounds, key=lambda name: bounds[name])
    return 8000 / bounds[bound], bound


def best_pairs(cost: Cost, cpus: int) -> int:
    """The fewest pairs of encrypt and decrypt with which nothing is gained by one more, every domain on its own CPU."""
    most = max(1, (cpus - (len(PATH) - len(REPLICATED))) // len(REPLICATED))
    return min(range(1, most + 1), key=lambda pairs: (-limit(cost, cpus, pairs)[0], pairs))
