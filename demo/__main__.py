"""The demo, step by step. Run by `make demo`, inside namespaces of its own (tools/private)."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.text import Text

from appliance.monitor.control import request
from demo import impostors
from demo.eyes import Eavesdropper
from demo.stage import Failed, Stage
from demo.world import ENTER, World
from tests.system.lab import Lab, LabError, Septum, Transfer, WireguardGo, ping, reaches, wait_for

PINGS = 20
TCP_SECONDS = 3.0
STRANGER_SECONDS = 3.0
VICTIM = "decrypt"


def expect(condition: object, otherwise: str) -> None:
    if not condition:
        raise Failed(otherwise)


def build(stage: Stage, world: World) -> None:
    stage.head("A world of namespaces")
    stage.console.print(Text(world.picture(), style="cyan"), no_wrap=True, overflow="crop")
    if not world.stock:
        stage.note("wireguard-go or wg is not on this machine: a second Septum plays the peer.")
    with stage.step(f"The peer: {world.peer_name}") as line:
        world.lab.enter(world.peer)
        line.says = f"listens on {world.lab.right.wan4}:51820"
    with stage.step("The gateway: septum up demo.conf --lan lan0 --wan wan0") as line:
        began = time.monotonic()
        world.lab.enter(world.septum)
        os.environ.update(world.septum.environment)
        status = look(world.septum)
        line.says = f"{len(status['domains'])} domains sealed and running"
        marks = status["start_ms"]
    stage.note(
        f"domains sealed after {marks['sealed']:.0f} ms, box running after {marks['running']:.0f} ms "
        f"({time.monotonic() - began:.1f} s in all)"
    )


def look(septum: Septum) -> dict[str, Any]:
    return request(septum.name, "status")


def seals(stage: Stage, world: World) -> None:
    stage.head("Nine domains, and what the kernel says of each (septum ps --seals)")
    table = stage.table(
        "domain", "pid", "MiB", "uid", "namespaces", "caps", "files", "may call", "sealed", right=("pid", "MiB")
    )
    sealed = world.septum.seals()
    memory = {row["name"]: row["pss_kib"] for row in look(world.septum)["domains"]}
    for name, seal in sealed.items():
        seen = {row["attribute"]: row["seen"] for row in seal["attributes"]}
        own = Counter(value for key, value in seen.items() if key.endswith(" namespace"))["own"]
        table.add_row(
            name, str(seal["pid"]), f"{(memory[name] or 0) / 1024:.1f}", seen.get("user", "?"), f"{own} own",
            seen.get("capabilities", "?"), seen.get("files", "?"), f"{len(seal['syscalls'])} calls",
            "[green]yes[/]" if seal["sealed"] else "[bold red]NO[/]",
        )  # fmt: skip
    stage.console.print(table, "")
    amiss = [
        f"{name}: {row['attribute']} is {row['seen']}, not {row['wanted']}"
        for name, seal in sealed.items()
        for row in seal["attributes"]
        if not row["ok"]
    ]
    with stage.step("Every seal is as planned") as line:
        expect(not amiss and sealed, "; ".join(amiss))
        line.says = f"{sum(len(seal['attributes']) for seal in sealed.values())} attributes read from outside"


def meet(stage: Stage, world: World) -> None:
    stage.head("A tunnel")
    host, lab = world.lab.left.host, world.lab
    with stage.step("Handshake") as line:
        began = time.monotonic()
        expect(reaches(host, lab.right.host4, 15), "no echo came back within 15 s")
        line.says = f"first echo through the tunnel after {(time.monotonic() - began) * 1000:.0f} ms"
        expect(world.peer.shaken(), "the peer knows of no handshake")
    if isinstance(world.peer, WireguardGo):
        for shown in world.peer.text().splitlines():
            if shown.strip().startswith(("peer:", "endpoint", "latest", "transfer", "preshared")):
                stage.note(f"wg show: {shown.strip()}")
    for name, address in (("IPv4", lab.right.host4), ("IPv6", lab.right.host6)):
        with stage.step(f"{PINGS} pings over {name}") as line:
            pings = ping(host, address, PINGS, 0.02)
            expect(pings.loss == 0, f"{pings.loss:.0%} of them were lost")
            line.says = f"median {pings.median:.0f} µs, worst {max(pings.times):.0f} µs"
    with stage.step("What the peer's side opens is denied") as line:
        expect(ping(lab.right.host, lab.left.host4, 3, patience=1).loss == 1, "a ping came through")
        line.says = "3 pings, no answer"


def transfer(stage: Stage, world: World) -> None:
    stage.head("TCP through the tunnel")
    for title, reverse in (("to the peer's LAN", False), ("from the peer's LAN", True)):
        with Transfer(world.lab.left.host, world.lab.right.host, world.lab.right.host4, reverse=reverse) as flow:
            watch(stage, world, flow, f"TCP {title}")
        with stage.step(f"TCP {title}") as line:
            expect(flow.intact and flow.received, "what arrived is not what was sent")
            line.says = f"{flow.mbit:,.0f} Mbit/s, {flow.received / 1e6:,.0f} MB arrived intact"


def watch(stage: Stage, world: World, flow: Transfer, title: str) -> None:
    """A live table of what every domain counts, while the transfer runs."""
    began = time.monotonic()
    bar = stage.bar()
    with Live(console=stage.console, transient=True, auto_refresh=False) as live:
        task = bar.add_task(title, total=TCP_SECONDS, says="")
        while (passed := time.monotonic() - began) < TCP_SECONDS:
            expect(flow.running(), "the connection was lost")
            bar.update(task, completed=passed, says=f"{flow.received * 8 / 1e6 / max(passed, 0.1):,.0f} Mbit/s")
            live.update(Group(counters(stage, look(world.septum)), bar), refresh=True)
            time.sleep(0.25)


def figure(count: int) -> str:
    for size, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= size:
            return f"{count / size:.1f}{letter}"
    return str(count)


def counters(stage: Stage, status: dict[str, Any]) -> Any:
    table = stage.table("domain", "state", "MiB", "counts", right=("MiB",))
    for domain in status["domains"]:
        busiest = sorted(((n, c) for c, n in domain["counters"].items() if n), reverse=True)[:3]
        said = "  ".join(f"{name.replace('_', ' ')} {figure(count)}" for count, name in busiest)
        table.add_row(domain["name"], domain["state"], f"{(domain['pss_kib'] or 0) / 1024:.1f}", said)
    return table


def overhear(stage: Stage, world: World) -> None:
    stage.head("Ears on the WAN")
    host, lab = world.lab.left.host, world.lab
    with stage.step("A transfer is overheard") as line, Eavesdropper(lab) as eyes:
        with Transfer(host, lab.right.host, lab.right.host6, rate=2e6):
            time.sleep(1.5)
        time.sleep(0.3)
        seen = eyes.seen
        expect(seen.by_type.get(4), "no transport data was overheard")
        expect(
            not seen.foreign and not set(seen.by_type) - {1, 2, 3, 4}, f"not WireGuard: {eyes.words()}, {seen.foreign}"
        )
        expect(not seen.readable, f"{seen.readable} frames held plaintext")
        line.says = "all WireGuard, nothing readable"
    stage.note(eyes.words())


def refuse(stage: Stage, world: World) -> None:
    def refused() -> int:
        domains = {row["name"]: row["counters"] for row in look(world.septum)["domains"]}
        return int(domains["keymgr"]["refused"])

    with stage.step("A stranger with a wrong key knocks") as line:
        before = refused()
        with world.stranger() as stranger:
            wait_for("keymgr to refuse the stranger", lambda: refused() > before, STRANGER_SECONDS * 2)
            time.sleep(STRANGER_SECONDS / 2)
            expect(not stranger.shaken(), "the stranger was let in")
        expect(reaches(world.lab.left.host, world.lab.right.host4, 2), "the tunnel did not survive it")
        line.says = f"refused by keymgr, {refused() - before}×"


def kill(stage: Stage, world: World) -> None:
    with stage.step(f"SIGKILL to {VICTIM}, under a connection") as line:
        lab = world.lab
        with Transfer(lab.left.host, lab.right.host, lab.right.host4, rate=2e6, reverse=True) as flow:
            time.sleep(0.5)
            killed = time.monotonic()
            world.septum.kill(VICTIM)
            wait_for(f"{VICTIM} to be rebuilt", lambda: rebuilt(world), 10)
            so_far = flow.received
            wait_for("bytes to arrive again", lambda: flow.received > so_far + 500_000, 15)
        expect(flow.intact, "what arrived is not what was sent")
        line.says = f"silent for {flow.longest_silence(killed) * 1000:.0f} ms, nothing lost"


def rebuilt(world: World) -> bool:
    return any(
        row["name"] == VICTIM and row["restarts"] and row["state"] == "running" for row in look(world.septum)["domains"]
    )


def betray(stage: Stage, world: World) -> None:
    stage.head("An impostor in each domain's place, under its seal, tries to")
    plans = {row["name"]: row["seal"] for row in look(world.septum)["domains"]}
    results: dict[str, dict[str, bool]] = {}
    with stage.bar() as bar:
        task = bar.add_task("", total=len(plans), says="")
        for name, plan in plans.items():
            bar.update(task, description=f"{name}: {len(impostors.ATTEMPTS)} attempts", refresh=True)
            results[name] = dict(impostors.tries(plan))
            bar.advance(task)
    table = stage.table("", *plans)
    for attempt in impostors.ATTEMPTS.values():
        table.add_row(attempt, *("[green]✗[/]" if results[name][attempt] else "[bold red]LIVED[/]" for name in plans))
    stage.console.print(table, "")
    with stage.step("Each ✗ was killed in the attempt") as line:
        lived = [f"{name}: {what}" for name, row in results.items() for what, dead in row.items() if not dead]
        expect(not lived, "; ".join(lived))
        line.says = f"{sum(map(len, results.values()))} attempts; the real domains went on"
        expect(reaches(world.lab.left.host, world.lab.right.host4, 2), "the tunnel did not survive it")


STEPS: tuple[Callable[[Stage, World], None], ...] = (build, seals, meet, transfer, overhear, refuse, kill, betray)


def stay(stage: Stage, world: World) -> None:
    world.write_enter()
    stage.head("It is yours. From another terminal:")
    box = world.septum.name
    for command in (
        f"{ENTER} host ping {world.lab.right.host4}",
        f"{ENTER} gateway septum status {box}",
        f"{ENTER} gateway septum ps {box} --seals",
        f"{ENTER} peer wg show" if world.stock else f"{ENTER} peer ip address",
        f"{ENTER} host bash",
    ):
        stage.console.print(f"   [bold]{command}[/]")
    stage.console.print("\n   Ctrl-C ends it and removes everything.")
    try:
        signal.pause()
    except KeyboardInterrupt:
        ENTER.unlink()
        stage.console.print()


def main() -> int:
    parser = argparse.ArgumentParser(prog="make demo")
    parser.add_argument("--stay", action="store_true", help="leave it running to play with")
    arguments = parser.parse_args()
    stage = Stage()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with Lab() as lab:
            world = World(lab)
            for step in STEPS:
                step(stage, world)
            stage.head(f"All of it held. {time.monotonic() - stage.began:.0f} s")
            if arguments.stay:
                stay(stage, world)
    except (Failed, LabError, OSError, RuntimeError) as error:
        stage.console.print(f"\n[bold red]The demo failed:[/] {error}", markup=True, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        stage.console.print("\nInterrupted; everything has been removed.")
        return 130
    return 0


if __name__ == "__main__":
    os.chdir(Path(__file__).resolve().parents[1])
    sys.exit(main())
