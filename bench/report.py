"""What the benchmark says when it is done: tables for people, numbers for programs."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from bench import rules
from bench.domains import DIRECTIONS, PATH, PROJECTED_CPUS, best_pairs, limit
from bench.measures import MEASURES, Measure

Results = dict[str, dict[str, dict[int, float]]]  # measure -> kind -> round -> figure
OURS = "septum"
PEERS = ("wireguard-go", "openvpn", "kernel")
BETTER = ("wireguard-go", "openvpn")  # whose better figure of each round is one to beat


def summary(results: Results) -> dict[str, dict[str, dict[str, Any]]]:
    """{measure: {kind: {"median", "min", "max", "runs", "unit"}}}; ``runs`` are the figures of the rounds, in order."""
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


def ratios(results: Results, measure: Measure, kinds: Sequence[str]) -> list[float]:
    """Of each round, our figure to that of ``kinds``, or to the better one of several."""
    figures = results.get(measure.name, {})
    ours, theirs = figures.get(OURS, {}), [figures.get(kind, {}) for kind in kinds]
    best = max if measure.better == "more" else min
    rounds = [number for number in ours if all(number in one for one in theirs)]
    return [ours[number] / best(one[number] for one in theirs) for number in rounds]


def all_ratios(results: Results) -> dict[str, dict[str, dict[str, float]]]:
    """{measure: {whom we are compared with: {"median", "min", "max"}}}"""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for measure in MEASURES:
        for name, kinds in compared(results).items():
            if values := ratios(results, measure, kinds):
                row = {"median": statistics.median(values), "min": min(values), "max": max(values)}
                found.setdefault(measure.name, {})[name] = row
    return found


def figure(value: float) -> str:
    """Three or four digits, whatever the size."""
    if value >= 10_000:
        return f"{value / 1000:.{1 if value < 100_000 else 0}f}k"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def spread(values: Sequence[float], show: Any = figure) -> tuple[str, str]:
    """The median, and from where to where."""
    low, high = show(min(values)), show(max(values))
    return show(statistics.median(values)), low if low == high else f"{low}–{high}"


def times(value: float) -> str:
    return f"{value:.2f}×"


Rows = list[list[str]]


def compared(results: Results) -> dict[str, Sequence[str]]:
    """What we are compared with: the name of the column, and whose figures it is about."""
    there = [kind for kind in PEERS if any(kind in row for row in results.values())]
    columns: dict[str, Sequence[str]] = {kind: (kind,) for kind in there}
    if all(kind in there for kind in BETTER):
        columns[f"better of {' and '.join(BETTER)}"] = BETTER
    return columns


def cost_rows(cpu: dict[str, dict[str, dict[str, float]]]) -> Rows:
    """CPU seconds a gigabyte, by domain: where the limit lies."""
    ours = cpu.get(OURS, {})
    names = sorted({name for way in ours.values() for name in way}, key=lambda name: (*PATH, name).index(name))
    rows = [[name, *(f"{ours[way].get(name, 0):.2f}" for way in DIRECTIONS)] for name in names]
    rows.append(["all domains", *(f"{sum(ours[way].values()):.2f}" for way in DIRECTIONS)])
    for kind, ways in cpu.items():
        if kind in PEERS:
            rows.append([kind, *(f"{sum(ways[way].values()):.2f}" for way in DIRECTIONS)])
    return rows


def projection_rows(cpu: dict[str, dict[str, dict[str, float]]]) -> Rows:
    """What the costs would allow if every domain had a CPU of its own: a projection."""
    rows = []
    for way in DIRECTIONS:
        cost = cpu[OURS][way]
        alone, by = limit(cost)
        pairs = best_pairs(cost, PROJECTED_CPUS)
        wide, wide_by = limit(cost, PROJECTED_CPUS, pairs)
        rows.append(
            [way, f"{figure(alone)}, bounded by {by}", f"{figure(wide)}, {pairs} × crypto, bounded by {wide_by}"]
        )
    return rows


PROJECTION = ("direction", "a CPU for each domain", f"{PROJECTED_CPUS} CPUs, crypto replicated")


def beside(about: dict[str, Any]) -> str:
    """What else was running, in words."""
    before = about["before"]
    busy = ", ".join(f"{name} {share:.0%}" for name, share in before["busy"]) or "nothing that used 3 % of a CPU"
    return f"Before it began: load {' '.join(map(str, before['load']))}; busy: {busy}."


def where(about: dict[str, Any]) -> str:
    """The machine and the versions, in words."""
    versions = "".join(f", {kind} {version}" for kind, version in about["versions"].items())
    return f"{about['cpu']}, {about['cpus']} CPUs, Linux {about['kernel']}, Python {about['python']}{versions}."


def table(console: Console, title: str, heads: Sequence[str], rows: Rows, caption: str = "") -> None:
    shown = Table(title=title, caption=caption, box=box.SIMPLE_HEAD, pad_edge=False, title_style="bold")
    for number, head in enumerate(heads):
        shown.add_column(head, justify="right" if number else "left")
    for row in rows:
        shown.add_row(*row)
    console.print(shown)


def show(console: Console, results: Results, about: dict[str, Any]) -> None:
    order = (OURS, *PEERS, "none", "septum, stock")
    kinds = [kind for kind in order if any(kind in row for row in results.values())]
    rows, against = [], []
    columns = compared(results)
    for measure in MEASURES:
        row, other = ([f"{measure.title}\n[dim]{measure.unit}, {measure.better} is better[/]"] for _ in range(2))
        for kind in kinds:
            figures = results.get(measure.name, {}).get(kind, {}).values()
            head, tail = spread(list(figures)) if figures else ("-", "")
            row.append(f"[bold]{head}[/]\n[dim]{tail}[/]")
        for kinds_of in columns.values():
            values = ratios(results, measure, kinds_of)
            head, tail = spread(values, times) if values else ("-", "")
            other.append(f"[bold]{head}[/]\n[dim]{tail}[/]")
        rows.append(row)
        against.append(other)
    table(
        console, "Both ends of each tunnel and its traffic share this machine", ["", *kinds], rows,
        f"Median over {about['rounds']} rounds, lowest–highest below it. Both ends of a tunnel are of one make.",
    )  # fmt: skip
    if columns and OURS in kinds:
        table(
            console, "Septum in ratio to", ["", *columns], against,
            "Taken within each round, then the median over the rounds, lowest–highest below it.",
        )  # fmt: skip
    if about["domains"]:
        inside = [
            [name, figure(row["pss_mb"]), figure(row["start_ms"]) if "start_ms" in row else "-"]
            for name, row in about["domains"].items()
        ]
        whole = sum(row["pss_mb"] for row in about["domains"].values())
        inside.append(["[bold]all[/]", f"[bold]{figure(whole)}[/]", ""])
        table(console, "Inside the near Septum, under load", ("domain", "memory (PSS) MiB", "start ms"), inside)
    if OURS in about["cpu_s_per_gb"]:
        table(
            console, "CPU seconds a gigabyte of TCP, at the near end", ("", *DIRECTIONS),
            cost_rows(about["cpu_s_per_gb"]),
        )  # fmt: skip
        table(
            console, "Projection, not measured: Mbit/s", PROJECTION, projection_rows(about["cpu_s_per_gb"]),
            "If the domain that costs the most, or all CPUs together, is what bounds a pipeline.",
        )  # fmt: skip
    table(console, "Rules and flows", rules.HEADS, rules.rows(about["filter"]), rules.flows(about["filter"]))
    console.print(where(about))
    console.print(beside(about) + f" It took {about['seconds']} s.")
    if about["no_kernel"]:
        console.print(f"No kernel WireGuard to compare with on this machine: {about['no_kernel']}.")
