"""The seals of a running box, read from outside each domain and held against the plan that the monitor made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from appliance.cli import screen
from appliance.monitor.sandbox.allowlist import BASE, Rule
from appliance.monitor.sandbox.evidence import Row, read_seals
from appliance.monitor.sandbox.plan import NAMESPACES, SealPlan
from appliance.monitor.sandbox.seal import Sealed


def seals_of(status: dict[str, Any]) -> list[dict[str, Any]]:
    """For each domain of ``status``: its name, and every attribute of its seal as wanted and as seen."""
    found = []
    for domain in status["domains"]:
        reported = None if domain["sealed"] is None else Sealed(**domain["sealed"])
        found.append(seal_of(domain["name"], domain["pid"], SealPlan.from_json(domain["seal"]), reported))
    return found


def seal_of(
    name: str,
    pid: int | None,
    plan: SealPlan,
    reported: Sealed | None = None,
    further: Mapping[str, Rule] | None = None,
) -> dict[str, Any]:
    """The seal of process ``pid``, attribute by attribute; it is not sealed if there is none. Else as ``as_rows``."""
    entry: dict[str, Any] = {
        "domain": name,
        "pid": pid,
        "sealed": False,
        "syscalls": [*BASE, *(call for call in (*plan.syscalls, *(further or ())) if call not in BASE)],
        "attributes": [],
    }
    if pid is not None:
        try:
            rows = read_seals(pid).as_rows(plan, reported, further)
        except (FileNotFoundError, ProcessLookupError):
            rows = [Row("process", "alive", "gone; the monitor is rebuilding it", False)]
        entry["attributes"] = [row._asdict() for row in rows]
        entry["sealed"] = all(row.ok for row in rows)
    return entry


def _seen(entry: dict[str, Any], attribute: str) -> str:
    return next((row["seen"] for row in entry["attributes"] if row["attribute"] == attribute), "?")


def _count_own(entry: dict[str, Any]) -> str:
    own = sum(_seen(entry, f"{name} namespace") == "own" for name in NAMESPACES)
    return f"{own} of {len(NAMESPACES)}"


def _devices(entry: dict[str, Any]) -> str:
    """What is among its descriptors besides the events of its channels."""
    kinds = (part.split(" ", 1) for part in _seen(entry, "descriptors").split(", ") if " " in part)
    return (
        ", ".join(f"{count} {kind}" for count, kind in kinds if kind in ("tun", "socket", "file", "evtchn")) or "none"
    )


def show(
    evidence: list[dict[str, Any]], title: str = "Seals, read from outside each domain (Landlock: its own word)"
) -> bool:
    """Prints one line a domain, then every attribute that is not as planned. Returns whether all are sealed."""
    rows = [
        (
            entry["domain"],
            screen.good(entry["sealed"], "sealed" if entry["sealed"] else "NOT SEALED"),
            _seen(entry, "user"),
            _count_own(entry),
            _seen(entry, "capabilities"),
            _seen(entry, "files"),
            f"{len(entry['syscalls'])} calls",
            _seen(entry, "landlock"),
            _devices(entry),
        )
        for entry in evidence
    ]
    columns = ("domain", "seal", "uid", "own ns", "caps", "files", "seccomp", "landlock", "devices")
    screen.table(title, columns, rows)
    amiss = [(entry["domain"], row) for entry in evidence for row in entry["attributes"] if not row["ok"]]
    for domain, row in amiss:
        screen.err.print(f"{domain}: {row['attribute']} is {row['seen']}, not {row['wanted']}", style="bold red")
    return all(entry["sealed"] for entry in evidence)
