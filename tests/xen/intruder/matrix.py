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
from tests.xen.intruder import probe, xs
from tests.xen.intruder.crew import Crew, xl

VERSION = "ask for Xen's version"  # the one thing here that is anybody's right
REFS, PORTS = 24, 24


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
    """What each reads and writes in the homes of the others and of dom0; and the same paths, read by dom0."""
    found = {}
    ours = xs.Store()
    for victim in names:
        home = f"/local/domain/{crew.ids[victim]}"
        secret = {f"{home}/data/answer", f"{home}/console/ring-ref", f"{home}/ask", f"{home}/name"}
        for one in names:
            if one != victim:
                seen = {path.removeprefix(home): crew.ask(one, "store", "read", path) for path in secret}
                seen["list"] = crew.ask(one, "store", "directory", home)
                seen["write"] = crew.ask(one, "store", "write", f"{home}/data/intruder", "was here")
                seen["remove"] = crew.ask(one, "store", "remove", f"{home}/data")
                seen["permit"] = crew.ask(one, "store", "set_permissions", f"{home}/data", "n0", f"r{crew.ids[one]}")
                found[f"{one} {victim}"] = seen
        found[f"{victim} itself"] = {
            path.removeprefix(home): crew.ask(victim, "store", "read", path) for path in secret
        }
        found[f"dom0 {victim}"] = {path.removeprefix(home): bool(ours.read(path)) for path in secret}
    return found


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
        del tried["stop enforcing"]  # dom0 would succeed: see policy()
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
    crew, found = Crew(assembly, Path(guest)), {"names": names, "seconds": {}}
    begun = time.monotonic()

    def lap(what):
        found["seconds"][what] = round(time.monotonic() - begun, 1)
        print(f"{what}: {found['seconds'][what]} s", file=sys.stderr, flush=True)

    try:
        for name in names:
            crew.create(name, type="pv")
        lap("created")
        crew.start(*names)
        lap("ready")
        found["labels"] = xl("list", "-Z") if assembly.xen.xsm == "enforcing" else ""
        found["collusion"] = collusion(crew, names)
        lap("collusion")
        found["guesses"] = guesses(crew, names)
        lap("guesses")
        found["store"] = store(crew, names)
        lap("store")
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
