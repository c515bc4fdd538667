"""Every domain of an assembly as a guest that an attacker owns: each tries everything on each other. Runs in dom0,
prints JSON.

    python3.11 -m tests.xen.intruder.matrix ASSEMBLY GUEST DOMAIN…

Each domain NAMED is a guest whose kernel is the attacker's too: GUEST is a folder with that kernel and its ramdisk.

What is found is only written down here; tests/xen/test_intruders.py says what it should have been.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

from appliance.assembly.load import load
from appliance.monitor.xen.console import Console
from tests.xen.intruder import probe, xs
from tests.xen.intruder.crew import QUOTAS, Crew, xl

VERSION = "ask for Xen's version"  # the one thing here that is anybody's right
REFS, PORTS = 24, 24
WATCHES = 128  # how many a guest may have: dom0/init, and docs/xen.md for a real machine
SHOUTED = 2 << 20  # bytes
# What has room in the frames of a guest (xen/common/grant_table.c): an entry of 8 bytes for a grant, two of
# 16 for a mapping, since Linux in a PV guest maps for itself as well
GRANTS, MAPPINGS = QUOTAS["max_grant_frames"] * 4096 // 8, QUOTAS["max_maptrack_frames"] * 4096 // (2 * 16)


def collusion(crew, names):
    """Each ordered pair: the first grants a page to the second, the second maps it; likewise an event channel."""
    found = {}
    for one in names:
        for other in names:
            if one != other:
                offered = crew.probe(one, "offer", crew.ids[other], f"of {one} for {other}")
                seen = {"offer": offered}
                if "ok" in offered:
                    port = offered["ok"]["port"]
                    seen["map"] = crew.probe(other, "map", crew.ids[one], offered["ok"]["ref"])
                    seen["bind"] = crew.probe(other, "bind", crew.ids[one], port["ok"]) if "ok" in port else port
                found[f"{one} {other}"] = seen
    return found


def guesses(crew, names):
    """Each tries to map the first grants of each other, and to bind its first event channels."""
    return {
        f"{one} {other}": crew.probe(one, "guess", crew.ids[other], REFS, PORTS)
        for one in names
        for other in names
        if one != other
    }


def store(crew, names):
    """What each reads and changes in the homes of the others, and finds elsewhere; then dom0 does the same, on the same
    paths, and each what is its right in its own home."""
    found = {}
    ours = xs.Store()
    for victim in names:
        home = f"/local/domain/{crew.ids[victim]}"
        spare = f"{home}/data/spare"
        ours.write(spare, "nobody's")
        tried = {
            f"read {path}": ("read", f"{home}/{path}") for path in ("data/answer", "console/ring-ref", "ask", "name")
        }
        tried |= {
            f"read {path}": ("read", path) for path in ("/local/domain/0/name", f"/libxl/{crew.ids[victim]}/type")
        }
        tried |= {f"list {path}": ("directory", path) for path in (home, "/local/domain", "/libxl", "/vm", "/tool")}
        tried |= {
            "write": ("write", spare, "was here"),
            "make": ("write", f"{spare}/more", ""),
            "permit": ("set_permissions", spare, "n0", f"b{crew.ids[victim]}"),
            "remove": ("remove", spare),
        }
        for one in names:
            if one != victim:
                found[f"{one} {victim}"] = crew.ask(one, "store", "each", tried)["ok"]
        found[f"dom0 {victim}"] = ours.each(tried)
        own = {what: do for what, do in tried.items() if what.startswith("read") and do[1].startswith(home)}
        own["write"] = ("write", f"{home}/data/answer", "")
        found[f"{victim} itself"] = crew.ask(victim, "store", "each", own)["ok"]
    return found


def flood(crew, name, server):
    """What one guest can heap up in dom0 and Xen: nodes and watches in the xenstore, event channels, grants, mappings
    of pages that the ``server`` of its channel grants it, text on its console."""
    home = f"/local/domain/{crew.ids[name]}"
    console = Console(xs.Store().read(f"{home}/console/tty"))
    before = _resident("xenconsoled")
    pages = crew.probe(server, "offer_pages", crew.ids[name])["ok"]
    found = {
        "node in its own home": crew.ask(name, "store", "write", f"{home}/data/flood", ""),
        "watches": crew.ask(name, "store", "hoard_watches", 4 * WATCHES)["ok"],
        "event channels": crew.probe(name, "hoard_ports", 0, 2 * QUOTAS["max_event_channels"])["ok"],
        "grants": crew.probe(name, "hoard_grants", crew.ids[server], 2 * GRANTS)["ok"],
        "mappings": crew.probe(name, "hoard_maps", crew.ids[server], pages, 2 * MAPPINGS)["ok"],
        "shouted": crew.probe(name, "shout", SHOUTED)["ok"],
    }
    looks = [len(console.look()) for _ in range(64)]
    console.drain()
    found |= {"longest look": max(looks), "kept": len(console.untrusted_words)}
    found |= {"xenconsoled grew by": _resident("xenconsoled") - before}
    console.close()
    return found


def _resident(name):
    """Bytes of memory that the daemon ``name`` of dom0 has."""
    (number,) = subprocess.run(["pidof", name], check=True, capture_output=True, text=True).stdout.split()
    return int(Path(f"/proc/{number}/statm").read_text().split()[1]) * 4096


def powers(crew, name, victim, hands, frame):
    """What those who administer Xen can do, tried by the guest ``name`` on another one, or by dom0 with ``hands``.

    ``frame`` is a page of the victim's.
    """
    number = crew.ids[victim]
    tried = {
        VERSION: ("version",),
        "information on another": ("domctl", 5, number),
        "pause another": ("domctl", 3, number),
        "unpause another": ("domctl", 4, number),
        "information on the machine": ("physinfo",),
        "print on Xen's console": ("print_on_xen", f"(intruder) {name}\n"),
        "map another's memory": ("dump", number, [frame]),
        "stop enforcing": ("stop_enforcing",),
    }
    if hands:
        return {what: probe.attempt(lambda do=do: getattr(hands, do[0])(*do[1:])) for what, do in tried.items()}
    return {what: crew.probe(name, *do) for what, do in tried.items()}


def dump(name):
    """Does dom0 get a file with the memory of the domain ``name``? Its size."""
    path = Path(f"/tmp/{name}.core")
    done = subprocess.run(["xl", "dump-core", name, path], capture_output=True, text=True, timeout=300, check=False)
    size = path.stat().st_size if path.exists() else 0
    path.unlink(missing_ok=True)
    return {"code": done.returncode, "size": size, "said": (done.stderr + done.stdout)[-300:]}


def main():
    file, guest, *names = sys.argv[1:]
    assembly = load(Path(file))
    names = names or [domain.name for domain in assembly.domains]
    crew, found = Crew(assembly, Path(guest)), {"seconds": {}}
    begun = time.monotonic()

    def lap(what):
        found["seconds"][what] = round(time.monotonic() - begun, 1)
        print(f"{what}: {found['seconds'][what]} s", file=sys.stderr, flush=True)

    try:
        crew.gather(names)
        lap("ready")
        found["labels"] = xl("list", "-Z") if assembly.xen.xsm == "enforcing" else ""
        found["collusion"] = collusion(crew, names)
        lap("collusion")
        found["guesses"] = guesses(crew, names)
        lap("guesses")
        found["store"] = store(crew, names)
        lap("store")
        ends = ((channel.client.domain, channel.server.domain) for channel in assembly.channels)
        found["flood"] = flood(crew, *next(pair for pair in ends if {*pair} <= {*names}))
        lap("flood")
        # Each is refused at once; where nobody refuses, one is enough to see it, and takes fifteen seconds
        dumped = names if assembly.xen.xsm == "enforcing" else names[:1]
        found["dump"] = {name: dump(crew.plans[name].title) for name in dumped}
        lap("dump")
        hands = probe.Probe()
        victims = dict(zip(names, [*names[1:], names[0]], strict=True))
        frames = {name: hands.frame_of(crew.ids[name]) for name in names}
        found["powers"] = {name: powers(crew, name, victim, None, frames[victim]) for name, victim in victims.items()}
        found["powers"]["dom0"] = powers(crew, "dom0", names[0], hands, frames[names[0]])
        lap("powers")
        # Whatever was tried: all are still there, and answer
        found["alive"] = {name: crew.probe(name, "port_for", 0) for name in names}
    finally:
        crew.destroy()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
