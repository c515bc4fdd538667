"""What the benchmark says when it is done: tables for people, numbers for programs."""

from __future__ import annotations

import os
import platform
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from bench.measures import MEASURES
from tests.system.lab import Direct, LabError, OpenVpn, Septum, WireguardGo, pss_kib

Results = dict[str, dict[str, dict[int, float]]]  # measure -> kind -> round -> figure
BASE = "wireguard-go"


class Domains:
    """Memory of each domain of a Septum under load, and how long each took to start, as the box itself tells."""

    def __init__(self) -> None:
        self._memory: dict[str, list[float]] = defaultdict(list)
        self._start: dict[str, list[float]] = defaultdict(list)

    def look(self, septum: Septum) -> None:
        rows = septum.domains()
        for name, row in rows.items():
            self._memory[name].append(pss_kib([int(row["pid"])]) / 1024)
            if row.get("start_ms") is not None:
                self._start[name].append(float(row["start_ms"]))
        inside = {int(row["pid"]) for row in rows.values()}
        self._memory["monitor"].append(pss_kib([pid for pid in septum.pids() if pid not in inside]) / 1024)

    def summary(self) -> dict[str, dict[str, float]]:
        return {
            name: {"pss_mb": statistics.median(memory)}
            | ({"start_ms": statistics.median(self._start[name])} if self._start[name] else {})
            for name, memory in self._memory.items()
        }


def summary(results: Results) -> dict[str, dict[str, dict[str, Any]]]:
    """{measure: {kind: {"median", "min", "max", "runs", "unit"}}}"""
    units = {measure.name: measure.unit for measure in MEASURES}
    return {
        what: {
            kind: {
                "median": statistics.median(rounds.values()),
                "min": min(rounds.values()),
                "max": max(rounds.values()),
                "runs": list(rounds.values()),
                "unit": units[what],
            }
            for kind, rounds in kinds.items()
        }
        for what, kinds in results.items()
    }


def ratio(results: Results, what: str, kind: str) -> float | None:
    """Median over the rounds of this kind's figure to the base's figure of the same round."""
    ours, base = results[what].get(kind, {}), results[what].get(BASE, {})
    both = [ours[number] / base[number] for number in ours if base.get(number)]
    return statistics.median(both) if both and kind != BASE else None


def machine(peer: str | None, seconds: float) -> dict[str, Any]:
    cpu = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        "?",
    )
    versions = {}
    for kind, find in (
        ("septum", Septum.version),
        (BASE, lambda: WireguardGo.version(peer or BASE)),
        ("openvpn", OpenVpn.version),
        ("none", Direct.version),
    ):
        try:
            versions[kind] = find()
        except LabError as error:
            versions[kind] = f"? ({error})"
    return {
        "cpu": cpu, "cpus": os.cpu_count(), "kernel": platform.release(), "python": platform.python_version(),
        "load": os.getloadavg(), "seconds": round(seconds), "versions": versions,
    }  # fmt: skip


def figure(value: float) -> str:
    """Three or four digits, whatever the size."""
    if value >= 10_000:
        return f"{value / 1000:.1f}k"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def show(console: Console, results: Results, domains: Domains, machine: dict[str, Any]) -> None:
    kinds = [
        kind
        for kind in ("septum", BASE, "openvpn", "none", "septum, stock")
        if any(kind in row for row in results.values())
    ]
    title = "Both ends of each tunnel and its traffic share this machine"
    caption = (
        f"Median over the rounds, min–max below it; × is the ratio to {BASE} within a round. Septum runs on both ends, "
        f"as {BASE} and OpenVPN do; in the last column {BASE} is the far end."
    )
    table = Table(title=title, caption=caption, box=box.SIMPLE_HEAD, pad_edge=False, title_style="bold")
    table.add_column("")
    for kind in kinds:
        table.add_column(kind, justify="right")
    for measure in MEASURES:
        cells = []
        for kind in kinds:
            figures = results.get(measure.name, {}).get(kind, {}).values()
            if not figures:
                cells.append("[dim]-[/]")
                continue
            times = ratio(results, measure.name, kind)
            head = f"[bold]{figure(statistics.median(figures))}[/]" + (f" {times:.2f}×" if times else "")
            cells.append(f"{head}\n[dim]{figure(min(figures))}–{figure(max(figures))}[/]")
        table.add_row(f"{measure.title}\n[dim]{measure.unit}, {measure.better} is better[/]", *cells)
    console.print(table)
    if rows := domains.summary():
        inside = Table(
            title="Inside the near Septum, under load", box=box.SIMPLE_HEAD, pad_edge=False, title_style="bold"
        )
        for column in ("domain", "memory (PSS) MiB", "start ms"):
            inside.add_column(column, justify="left" if column == "domain" else "right")
        for name, row in rows.items():
            inside.add_row(name, figure(row["pss_mb"]), figure(row["start_ms"]) if "start_ms" in row else "-")
        inside.add_row("[bold]all[/]", f"[bold]{figure(sum(row['pss_mb'] for row in rows.values()))}[/]", "")
        console.print(inside)
    versions = ", ".join(f"{kind} {version}" for kind, version in machine["versions"].items())
    load = " ".join(f"{value:.2f}" for value in machine["load"])
    console.print(
        f"{machine['cpu']}, {machine['cpus']} CPUs, Linux {machine['kernel']}, Python {machine['python']}, load {load}"
    )
    console.print(f"{versions}. {machine['seconds']} s.")
