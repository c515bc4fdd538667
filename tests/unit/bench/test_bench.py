"""The benchmark's arithmetic, and the page and picture that are made of its figures."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

import bench.cores
import bench.scale
import bench.stages
from bench.domains import best_pairs, limit
from bench.machine import before, describe
from bench.measures import MEASURES
from bench.page import COLORS, page, picture
from bench.report import all_ratios, projection_rows, ratios, summary
from bench.soak import SAMPLES, Sample, verdict
from bench.stages import LOOKED_FOR
from tests.system.lab import LabError

ROOT = Path(__file__).parents[3]

KINDS = {"septum": 3.0, "wireguard-go": 1.0, "openvpn": 2.0, "none": 50.0}
RESULTS = {
    measure.name: {kind: {1: value, 2: 2 * value, 3: 4 * value} for kind, value in KINDS.items()}
    for measure in MEASURES
}
OUT = {"red": 2.0, "filter": 0.5, "encrypt": 8.0, "decrypt": 1.0, "black": 2.5, "keymgr": 0.1}
ABOUT: dict[str, Any] = {
    "date": "2025-01-02", "cpu": "a <fast> one", "cpus": 2, "kernel": "6.1", "python": "3.11",
    "versions": {"septum": "1", "openvpn": "2.6"}, "before": {"load": [0.1, 0.2, 0.3], "busy": [("cc1", 0.97)]},
    "no_kernel": "Unknown device type", "rounds": 3, "seconds": 300, "ratios": all_ratios(RESULTS),
    "filter": {"us": {"a new flow": {"10": 30.0, "10000": 31.5}}, "flows": 100_000, "flows_mb": 66.0},
    "domains": {"red": {"pss_mb": 10.0, "start_ms": 100.0}, "monitor": {"pss_mb": 30.0}},
    "cpu_s_per_gb": {
        "septum": {"out": OUT, "in": OUT | {"decrypt": 16.0}},
        "openvpn": {"out": {"openvpn": 9.0}, "in": {"openvpn": 9.5}},
    },
}  # fmt: skip
SVG = "{http://www.w3.org/2000/svg}"


def test_the_summary_has_the_form_that_is_promised() -> None:
    made = summary(RESULTS)
    assert list(made) == [measure.name for measure in MEASURES]
    assert made["tcp1"]["septum"] == {"median": 6, "min": 3, "max": 12, "runs": [3, 6, 12], "unit": "Mbit/s"}


@pytest.mark.parametrize(("name", "kinds", "expected"), [
    ("tcp1", ("openvpn",), 1.5),
    ("udp64_pps", ("wireguard-go", "openvpn"), 1.5),  # more is better: the better is the one with more
    ("ping_median_us", ("wireguard-go", "openvpn"), 3.0),
])  # fmt: skip
def test_ratios_are_taken_within_a_round(name: str, kinds: tuple[str, ...], expected: float) -> None:
    (measure,) = (measure for measure in MEASURES if measure.name == name)
    assert ratios(RESULTS, measure, kinds) == [expected] * 3


def test_a_round_that_one_of_them_failed_has_no_ratio() -> None:
    results = {"tcp1": {"septum": {1: 2.0, 2: 4.0}, "openvpn": {2: 1.0, 3: 1.0}}}
    assert ratios(results, MEASURES[0], ("openvpn",)) == [4.0]


def test_the_limit_is_the_dearest_domain_or_all_cpus() -> None:
    assert limit(OUT) == (1000, "encrypt")
    assert limit(OUT, 8, 2) == (2000, "encrypt")
    assert limit(OUT, 8, 4) == (pytest.approx(8000 / 2.5), "black")
    assert limit(OUT, 2, 4)[1] == "all 2 CPUs"


def test_no_more_pairs_are_taken_than_help() -> None:
    assert best_pairs(OUT, 8) == 2  # a third would have no CPU of its own
    assert best_pairs(OUT, 64) == 4
    assert best_pairs(OUT | {"encrypt": 1.0}, 8) == 1


def test_the_projection_says_what_bounds_it() -> None:
    out, back = projection_rows(ABOUT["cpu_s_per_gb"])
    assert out == ["out", "1000, bounded by encrypt", "2000, 2 × crypto, bounded by encrypt"]
    assert back[1] == "500, bounded by decrypt"


def test_the_picture_has_a_bar_for_each_kind_and_needs_nothing_else() -> None:
    text = picture(summary(RESULTS))
    root = ElementTree.fromstring(text)
    bars = root.findall(f"{SVG}rect")
    assert len(bars) == 8 * 3
    for kind, value in (("septum", 3), ("openvpn", 2), ("wireguard-go", 1)):
        widths = [float(bar.get("width", 0)) for bar in bars if bar.get("fill") == COLORS[kind]]
        assert widths == pytest.approx([252 * value / 6] * 8, abs=0.1)  # the greatest maximum is twice its median
    assert "prefers-color-scheme:dark" in text
    assert not re.search(r"href|url\(|<script|@import|@font-face", text)
    width, height = (float(root.get(name, 0)) for name in ("width", "height"))
    for element in root.iter():
        assert 0 <= float(element.get("x", 0)) < width
        assert 0 <= float(element.get("y", 0)) < height


def test_the_picture_shows_what_was_measured_and_no_more() -> None:
    some = {"tcp1": {kind: values for kind, values in RESULTS["tcp1"].items() if kind in ("septum", "openvpn")}}
    assert len(ElementTree.fromstring(picture(summary(some))).findall(f"{SVG}rect")) == 2


def test_the_page_tells_figures_ratios_machine_and_projection() -> None:
    text = page(summary(RESULTS), ABOUT)
    assert "| TCP, 1 stream, Mbit/s | **6** 3–12 | **2** 1–4 | **4** 2–8 | **100** 50–200 |" in text
    assert "| TCP, 1 stream (more is better) | **3.00** 3.00–3.00 | **1.50** 1.50–1.50 | **1.50** 1.50–1.50 |" in text
    assert "| encrypt | 8.00 | 8.00 |" in text
    assert "| openvpn | 9.00 | 9.50 |" in text
    assert "cc1 97%" in text
    assert "Unknown device type" in text
    assert "A projection, not a measurement" in text
    assert "together 40" in text
    assert "| a new flow | 30.0 | 31.5 |" in text
    assert "100,000 established TCP connections take the filter 66 MB, 660 bytes each." in text


def test_a_machine_without_a_program_is_described_all_the_same() -> None:
    def missing() -> str:
        raise LabError("openvpn is missing on this machine")

    about = describe({"openvpn": missing, "septum": lambda: "1"})
    assert about["versions"] == {"openvpn": "? (openvpn is missing on this machine)", "septum": "1"}
    assert set(before()) == {"load", "busy"}


STEADY = [Sample(1000.0, {"red": 10.0, "black": 10.0}, {"red": 1, "black": 2})] * SAMPLES


def changed(**changes: Any) -> list[Sample]:
    """Steady for half of the time, then otherwise."""
    return STEADY[: SAMPLES // 2] + [replace(one, **changes) for one in STEADY[SAMPLES // 2 :]]


def test_what_stays_the_same_is_flat() -> None:
    assert verdict(STEADY) == []
    rising = [Sample(1000.0, {"red": 5.0 + index / 2, "black": 10.0}, {"red": 1, "black": 2}) for index in range(10)]
    assert verdict(rising + STEADY[10:]) == []  # it fills up, and stays


@pytest.mark.parametrize(("samples", "expected"), [
    (changed(memory={"red": 10.5, "black": 10.0}), "memory went from 20 to 20.5 MiB, most of it in red"),
    (changed(rate=800.0), "the rate went from 1000 to 800 Mbit/s"),
    (changed(pids={"red": 3, "black": 2}), "not the same process all the time: red"),
    ([*STEADY[:-1], replace(STEADY[0], rate=0.0)], "nothing arrived in 1 of 50 stretches"),
    (STEADY[:2], "2 samples are too few to tell"),
])  # fmt: skip
def test_what_changes_is_told(samples: list[Sample], expected: str) -> None:
    assert verdict(samples) == [expected]


@pytest.mark.parametrize(("twin", "is_compiled"), [("compiled", True), ("python", False)])
def test_each_twin_is_measured_in_an_interpreter_that_has_it(twin: str, is_compiled: bool) -> None:
    script = LOOKED_FOR[twin] + "from components.net import twin; print(twin.COMPILED)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(is_compiled)


def test_every_stage_is_timed_for_bulk_and_lone_packets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.cores, "SECONDS", 0.0)
    found = bench.cores.cores()
    assert len(found) == 8
    for kinds in found.values():
        assert list(kinds) == ["bulk", "lone"]
        assert all(value > 0 for values in kinds.values() for value in values)


def test_crossings_are_timed_on_one_cpu_and_on_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.stages, "SECONDS", 0.01)
    heads, rows = bench.stages.crossings()
    assert len(rows) == 2 * len(bench.stages.SIZES)
    assert all(len(row) == len(heads) for row in rows)


def test_keymgr_answers_handshakes_without_domains_around_it() -> None:
    assert bench.scale.handshakes(count=3) > 0
