"""What `septum ps` and `septum status` print on a terminal."""

from __future__ import annotations

import time
from typing import Any

from appliance.cli import screen


def _since(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h"


def domains(status: dict[str, Any]) -> None:
    """One line a domain. A Xen guest has a number of Xen's in place of a process, and memory of its own for good."""
    is_xen = status["backend"] == "xen"
    rows = [
        (
            domain["name"],
            domain["domid" if is_xen else "pid"] or "-",
            screen.good(domain["state"] == "running", domain["state"]),
            _since(domain["uptime"]),
            domain["restarts"],
            domain["memory_mib"] if is_xen else f"{domain['pss_kib'] / 1024:.1f}" if domain["pss_kib"] else "-",
            " ".join(label for label in screen.COLOURS if label in domain["clearance"]),
        )
        for domain in status["domains"]
    ]
    number, memory = ("domid", "MiB") if is_xen else ("pid", "PSS MiB")
    columns = ("domain", number, "state", "up", "rebuilt", memory, "cleared for")
    screen.table(f"Domains of {status['name']}", columns, rows)


def _ago(handshake: int) -> str:
    return f"{_since(max(0.0, time.time() - handshake))} ago" if handshake else "never"


def overview(status: dict[str, Any]) -> None:
    """The box, its peers, and what every domain counts."""
    screen.out.print(f"[bold]{status['name']}[/]: up {_since(status['uptime'])}")
    network = status["network"]
    for label, value in network.items():
        if value not in (None, "", [], 0):
            shown = ", ".join(str(item) for item in value) if isinstance(value, list) else value
            screen.out.print(f"  {label.replace('_', ' ')}: {shown}")
    for bypass in status["bypasses"]:
        line = f"  declared bypass: plaintext leaves by {bypass['port']}: {bypass['reason']}"
        screen.out.print(line, style="yellow", soft_wrap=True, markup=False)
    for name, seconds in status["replaced"].items():
        screen.out.print(f"  {name}: replaced {_since(seconds)} ago, until the box goes down")
    for peer in status["peers"]:
        screen.out.out("\npeer: ", end="")
        screen.out.out(peer["public_key"], style="bold", end="")
        screen.out.out(f"  ({peer['name']})" if peer.get("name") else "")
        lines = {
            "endpoint": peer["endpoint"],
            "allowed ips": ", ".join(peer["allowed_ips"]) or "(none)",
            "latest handshake": _ago(peer["latest_handshake"]),
            "transfer": f"{screen.amount(peer['received'])} received, {screen.amount(peer['sent'])} sent",
        }
        # Written as it is: rich takes ten seconds to lay out the lines of ten thousand peers
        screen.out.out("\n".join(f"  {label}: {value}" for label, value in lines.items() if value))
    if any(domain["component"] == "admin" for domain in status["domains"]):
        screen.out.print("  peers and rules: as administrators have signed them: septumctl peers, septumctl rules")
    screen.out.print()
    rows = [
        (domain["name"], "  ".join(f"{name.replace('_', ' ')} {value}" for name, value in counted))
        for domain in status["domains"]
        if (counted := [(name, value) for name, value in domain["counters"].items() if value])
    ]
    screen.table("Counted by each domain (its own word)", ("domain", "counters"), rows)
