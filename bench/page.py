"""docs/benchmarks.md and its picture, from what `make bench` wrote.

python -m bench.page [DIRECTORY]        to DIRECTORY instead of docs/
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final
from xml.sax.saxutils import escape

from bench import rules
from bench.domains import DIRECTIONS
from bench.measures import MEASURES, Measure
from bench.report import (
    OURS,
    PEERS,
    PROJECTION,
    Rows,
    beside,
    cost_rows,
    figure,
    projection_rows,
    where,
)

Summary = dict[str, dict[str, dict[str, Any]]]
PICTURE: Final = "benchmarks.svg"
PANELS: Final = (
    ("Throughput", ("tcp1", "tcp4", "tcp1_nic", "udp64_pps")),
    ("Latency", ("ping_median_us", "ping_p99_us", "ping_loaded_p99_us", "first_packet_s")),
)
NO_TUNNEL: Final = "none"

# The picture, in pixels
PANEL, GAP, MARGIN = 452, 40, 16
NAME, BAR = 104, 252  # a name's column, and the longest bar's length
ROW, THICK, HEAD, GROUP = 21, 13, 44, 26
# Readable on white and on black alike; only the text changes with what the reader's eyes are used to
COLORS: Final = {OURS: "#d9534f", "wireguard-go": "#5b8fc9", "openvpn": "#c98a3a", "kernel": "#5fa463"}
STYLE: Final = (
    "text{font:13px system-ui,'DejaVu Sans',Helvetica,Arial,sans-serif;fill:#1f2328}"
    ".title{font-size:17px;font-weight:600}.measure{font-weight:600}.small{fill:#59636e;font-size:12px}"
    ".spread{stroke:#1f2328;stroke-width:1.5}.base{stroke:#8b949e}"
    "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.small{fill:#9198a1}.spread{stroke:#e6edf3}}"
)


def _group(x: int, y: int, measure: Measure, figures: dict[str, dict[str, Any]]) -> tuple[list[str], int]:
    """The bars of one measure, the longest as long as may be, and where the next group begins."""
    kinds = [kind for kind in (OURS, *PEERS) if kind in figures]
    longest = max(figures[kind]["max"] for kind in kinds)
    none = f"; no tunnel {figure(figures[NO_TUNNEL]['median'])}" if NO_TUNNEL in figures else ""
    parts = [
        f'<text x="{x}" y="{y}"><tspan class="measure">{escape(measure.title)}</tspan>'
        f'<tspan class="small" dx="8">{escape(measure.unit)}, {measure.better} is better{none}</tspan></text>'
    ]
    y += 9
    top = y
    for kind in kinds:
        length, low, high = (figures[kind][what] / longest * BAR for what in ("median", "min", "max"))
        middle, left = y + ROW / 2, x + NAME
        parts += [
            f'<text x="{left - 8}" y="{middle + 4.5}" text-anchor="end">{escape(kind)}</text>',
            f'<rect x="{left}" y="{middle - THICK / 2}" width="{length:.1f}" height="{THICK}" fill="{COLORS[kind]}"/>',
            f'<path class="spread" d="M{left + low:.1f} {middle}H{left + high:.1f}"/>',
            f'<text x="{left + max(length, high) + 7:.1f}" y="{middle + 4.5}">{figure(figures[kind]["median"])}</text>',
        ]
        y += ROW
    parts.append(f'<path class="base" d="M{x + NAME} {top}V{y}"/>')
    return parts, y + GROUP


def picture(summary: Summary) -> str:
    """Throughput and latency side by side, as SVG: no fonts, scripts or files from elsewhere, no background."""
    about = {measure.name: measure for measure in MEASURES}
    parts, height = [], 0
    for number, (title, names) in enumerate(PANELS):
        x, y = MARGIN + number * (PANEL + GAP), MARGIN + HEAD + 8
        parts.append(f'<text class="title" x="{x}" y="{MARGIN + 16}">{title}</text>')
        for name in names:
            if OURS in summary.get(name, {}):
                group, y = _group(x, y, about[name], summary[name])
                parts += group
        height = max(height, y - GROUP + MARGIN)
    width = 2 * MARGIN + 2 * PANEL + GAP
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    label = "Throughput and latency of Septum and other tunnels"
    return "\n".join([f'{head} role="img" aria-label="{label}">', f"<style>{STYLE}</style>", *parts, "</svg>", ""])


def _table(heads: Sequence[str], rows: Rows) -> str:
    lines = [list(heads), ["---", *["--:"] * (len(heads) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _figures(summary: Summary) -> str:
    kinds = [kind for kind in (OURS, *PEERS, NO_TUNNEL) if any(kind in row for row in summary.values())]
    rows = []
    for measure in MEASURES:
        row = [f"{measure.title}, {measure.unit}"]
        for kind in kinds:
            found = summary.get(measure.name, {}).get(kind)
            row.append(f"**{figure(found['median'])}** {figure(found['min'])}–{figure(found['max'])}" if found else "")
        rows.append(row)
    return _table(["median, lowest–highest", *kinds], rows)


def _ratios(about: dict[str, Any]) -> str:
    columns = list(dict.fromkeys(name for row in about["ratios"].values() for name in row))
    rows = []
    for measure in MEASURES:
        found = about["ratios"].get(measure.name, {})
        cells = [
            f"**{found[name]['median']:.2f}** {found[name]['min']:.2f}–{found[name]['max']:.2f}"
            if name in found
            else ""
            for name in columns
        ]
        rows.append([f"{measure.title} ({measure.better} is better)", *cells])
    return _table(["Septum in ratio to", *columns], rows)


def _memory(domains: dict[str, dict[str, float]]) -> str:
    each = ", ".join(f"`{name}` {figure(row['pss_mb'])}" for name, row in domains.items())
    return f"{each}; together {figure(sum(row['pss_mb'] for row in domains.values()))}"


def page(summary: Summary, about: dict[str, Any]) -> str:
    """The page, as Markdown."""
    cpu = about["cpu_s_per_gb"]
    kernel = f"No kernel WireGuard was there to compare with ({about['no_kernel']})." if about["no_kernel"] else ""
    return f"""# Benchmarks

<!-- Generated by `make benchmarks`: change bench/page.py, not this file. -->

![Throughput and latency, Septum and others]({PICTURE})

Bars are medians, the lines in them go from the lowest round to the highest; in each group the longest is as long as
there is room.

Measured on {about["date"]}, rounds: {about["rounds"]}, {about["seconds"]} seconds in all, on: {where(about)}
{beside(about)}
{kernel}

Both ends of each tunnel, the hosts behind them and iperf3 share this one machine, in network namespaces joined by
veth pairs; both ends are of one make. Septum runs its default assembly: nine sealed domains, `filter` in the path. In
each round every kind has its turn, in another order each time. Absolute figures drift with whatever else a machine
does: believe the ratios, which are taken within a round. The veth passes UDP superpackets whole, which flatters all
who make them; "no offloads" is without that.

## Figures

{_figures(summary)}

## Ratios

{_ratios(about)}

## Where the CPU goes

CPU seconds a gigabyte of one TCP stream, at the near end, its share of the kernel's work included as far as the kernel
accounts for it by process. *Out* is from the LAN into the tunnel; the acknowledgements that come back count too.

{_table(["domain", *DIRECTIONS], cost_rows(cpu))}

Traffic passes the domains one after the other, so that with a CPU for each the one that costs the most is the limit.
`encrypt` and `decrypt` can be had several times, with peers spread over the pairs: what one peer gets does not grow
by that.

**A projection, not a measurement**, in Mbit/s: it takes the costs above as they are, gives each domain a CPU as long
as there are any, and leaves out caches, memory and whatever the peer needs.

{_table(PROJECTION, projection_rows(cpu))}

## Memory

Proportional set size under load, in MiB: {_memory(about["domains"])}.

## Rules and flows

What the filter's core takes for a packet hardly depends on how many rules there are: an established one does not see
them, and a new one is looked up in tables ([decision 30](decisions/0030-what-the-filter-follows.md)).

{_table(rules.HEADS, rules.rows(about["filter"]))}

{rules.flows(about["filter"])}

## Doing it again

`make bench` prints all this in about five minutes, and writes the figures to `build/bench.json` as `{{measure:
{{kind: {{"median", "min", "max", "runs", "unit"}}}}}}`, one run a round, and what ran where to
`build/bench-about.json`. `PEER=path` compares with another `wireguard-go`; where the kernel has a WireGuard, it takes
part. `make benchmarks` writes this page after that. `make bench-stages` has the price of each crossing and each
domain, `make bench-scale` what [ten thousand peers](decisions/0021-ten-thousand-peers.md) do to one stream, and how
many handshakes a second one core answers; `make soak` looks for an hour whether memory and rate stay flat. What a
packet may cost in instructions and system calls is tested: [decision 20](decisions/0020-work-is-counted-not-timed.md).
"""


def main() -> None:
    directory = Path(sys.argv[1] if len(sys.argv) > 1 else "docs")
    summary, about = (json.loads(Path("build", name).read_text()) for name in ("bench.json", "bench-about.json"))
    (directory / PICTURE).write_text(picture(summary))
    (directory / "benchmarks.md").write_text(page(summary, about))
    print(f"Written: {directory}/benchmarks.md and {directory}/{PICTURE}")


if __name__ == "__main__":
    main()
