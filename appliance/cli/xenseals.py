"""The seals of a box on Xen: what Xen and the xenstore say each guest is, held against the monitor's plan."""

from __future__ import annotations

from contextlib import ExitStack, closing
from typing import Any

from appliance.cli import screen, seals
from appliance.monitor.sandbox.evidence import Row

_COLUMNS = ("type", "label", "memory", "grant frames", "maptrack frames", "event channels", "devices", "xenstore")


def seals_of(status: dict[str, Any]) -> list[dict[str, Any]]:
    """For each domain of ``status``: its name, and every attribute of its seal as wanted and as seen. Then the same of
    the process of dom0 that keeps a disk, where there is one: by ``pid``, as a domain of the process back end.
    """
    return [*_guests(status), *processes(status)]


def processes(status: dict[str, Any]) -> list[dict[str, Any]]:
    """The seals of those that stand by a guest in dom0."""
    from appliance.monitor.sandbox.plan import SealPlan
    from appliance.monitor.xen.keeping import FURTHER

    return [
        seals.seal_of(
            f"disk of {domain['name']}",
            domain["disk"]["pid"],
            SealPlan.from_json(domain["disk"]["seal"]),
            further=FURTHER,
        )
        for domain in status["domains"]
        if domain.get("disk", {}).get("pid") is not None  # nobody keeps it while there is no guest to keep it for
    ]


def _guests(status: dict[str, Any]) -> list[dict[str, Any]]:
    from appliance.monitor.xen.seals import Survey, compare
    from appliance.monitor.xen.xl import Xl
    from appliance.xen.xenstore import Xenstore

    found = []
    with ExitStack() as stack:
        survey, store = Survey(stack.enter_context(closing(Xl()))), Xenstore()
        stack.callback(store.close)
        living = [domain["domid"] for domain in status["domains"] if domain["domid"] is not None]
        for domain in status["domains"]:
            entry: dict[str, Any] = {
                "domain": domain["name"],
                "domid": domain["domid"],
                "kernel_sha256": domain["kernel_sha256"],
                "image_sha256": domain["image_sha256"],
                "sealed": False,
                "attributes": [],
            }
            if domain["domid"] is not None:
                try:
                    rows = compare(domain["seal"], survey.seen(domain["domid"], store, living))
                except OSError:
                    rows = [Row("guest", "alive", "gone; the monitor is rebuilding it", False)]
                entry["attributes"] = [row._asdict() for row in rows]
                entry["sealed"] = all(row.ok for row in rows)
            found.append(entry)
    return found


def _seen(entry: dict[str, Any], attribute: str) -> str:
    """As it fits into a column: of a label its type, the rest is the same for all."""
    seen = next((str(row["seen"]) for row in entry["attributes"] if row["attribute"] == attribute), "?")
    return seen.rpartition(":")[2].removeprefix("dom0's; ")


def show(evidence: list[dict[str, Any]]) -> bool:
    """Prints one line a domain, then every attribute that is not as planned. Returns whether all are sealed."""
    guests = [entry for entry in evidence if "domid" in entry]
    processes = [entry for entry in evidence if "domid" not in entry]
    rows = [
        (
            entry["domain"],
            entry["domid"] or "-",
            screen.good(entry["sealed"], "sealed" if entry["sealed"] else "NOT SEALED"),
            *(_seen(entry, column) for column in _COLUMNS),
            entry["image_sha256"][:8],
        )
        for entry in guests
    ]
    columns = "domain domid seal type label memory grants maptrack events devices xenstore image".split()
    screen.table("Seals, as Xen and the xenstore have them (image: checked before it booted)", columns, rows)
    for entry in guests:
        for row in entry["attributes"]:
            if not row["ok"]:
                screen.err.print(
                    f"{entry['domain']}: {row['attribute']} is {row['seen']}, not {row['wanted']}", style="bold red"
                )
    if processes:
        seals.show(processes, "Beside the guests: seals of processes of dom0")
    return all(entry["sealed"] for entry in evidence)
