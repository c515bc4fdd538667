"""Two guests with Septum's own PID 1, and dom0 in the place of a third domain: what a monitor must do, and no more.

Runs in dom0:  pair.py TYPE KERNEL RNG LOG MIB ARGUMENTS…   prints one JSON object of what it saw. TYPE is pv or pvh,
RNG and LOG are ramdisks, MIB is the memory of each, ARGUMENTS are for the kernel. Channels:

    0  dom0 ──random──► rng     calls
    1  rng ──records──► log     a stream between two guests
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

from septum.v1.random import RandomRequest

from appliance.guest.status import (
    FIRST_COUNTER,
    WORD_HEARTBEAT,
    WORD_LANDLOCK,
    WORD_STATE,
    WORD_VIOLATIONS,
    State,
)
from appliance.vchan import layout
from appliance.vchan.endpoint import Endpoint
from appliance.vchan.grants import ClientWire, GrantError, Meeting
from appliance.vchan.ring import PeerViolation, Side
from appliance.vchan.schema import schema
from appliance.xen import gntdev
from appliance.xen.window import PAGE, Window
from appliance.xen.xenstore import Xenstore
from appliance.xen.xswire import number

PATIENCE: Final = 240.0
SERVES: Final = {"rng": {0: None}, "log": {1: "rng"}}  # channel -> its client; None is dom0
CHANNELS: Final = {"rng": (0, 1), "log": (1,)}


def xl(*words: str) -> str:
    done = subprocess.run(["xl", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"xl {' '.join(words)}: exit {done.returncode}: {done.stderr}{done.stdout}")
    return done.stdout


class Pair:
    def __init__(self, kind: str, kernel: str, ramdisks: dict[str, str], memory_mib: int, arguments: str) -> None:
        self.kind, self.kernel, self.ramdisks, self.memory_mib = kind, kernel, ramdisks, memory_mib
        self.arguments = arguments
        self.store = Xenstore()
        self.gntdev = gntdev.open_device()
        self.ids: dict[str, int] = {}
        self.pages: dict[str, Any] = {}
        self.windows: dict[str, tuple[Window, gntdev.Borrowed]] = {}

    def create(self, name: str) -> None:
        config = Path(f"/tmp/{name}.cfg")
        config.write_text(
            f'name = "{name}"\ntype = "{self.kind}"\nkernel = "{self.kernel}"\nramdisk = "{self.ramdisks[name]}"\n'
            f'extra = "{self.arguments}"\nmemory = {self.memory_mib}\nmaxmem = {self.memory_mib}\n'
            'vcpus = 1\non_poweroff = "destroy"\non_crash = "destroy"\non_reboot = "destroy"\nnomigrate = 1\n'
            'tsc_mode = "native"\nvfb = []\n'
        )
        xl("create", "-p", str(config))
        domid = int(xl("domid", name))
        self.ids[name] = domid
        home = f"/local/domain/{domid}"
        self._leaf(f"{home}/data/status", "", f"b{domid}")
        for channel, client in SERVES[name].items():
            reader = self.ids.get(client or "", 0)
            for key in ("ring-ref", "event-channel"):
                self._leaf(f"{home}/data/channel/{channel}/{key}", "", f"b{domid}", *([f"r{reader}"] if reader else []))
        for channel in CHANNELS[name]:
            self._leaf(f"{home}/septum/channel/{channel}/peer", "", f"r{domid}")
        self._leaf(f"{home}/septum/go", "", f"r{domid}")
        self._leaf(f"{home}/septum", "", f"r{domid}")

    def _leaf(self, path: str, value: str, *more: str) -> None:
        self.store.write(path, value)
        self.store.set_permissions(path, ["n0", *more])

    def introduce(self, channel: int, name: str, peer: int | None) -> None:
        self.store.write(
            f"/local/domain/{self.ids[name]}/septum/channel/{channel}/peer", "" if peer is None else str(peer)
        )

    def may_read(self, server: str, channel: int, client: int) -> None:
        for key in ("ring-ref", "event-channel"):
            path = f"/local/domain/{self.ids[server]}/data/channel/{channel}/{key}"
            self.store.set_permissions(path, ["n0", f"b{self.ids[server]}", f"r{client}"])

    def until(self, what: str, look: Any) -> Any:
        over = time.monotonic() + PATIENCE
        while not (found := look()):
            if time.monotonic() > over:
                raise TimeoutError(f"{what}; {self.consoles()}")
            time.sleep(0.02)
        return found

    def consoles(self) -> str:
        found = []
        for name in self.ids:
            log = Path(f"/var/log/xen/console/guest-{name}.log")
            found.append(f"{name}: {log.read_text(errors='replace')[-3000:] if log.exists() else 'no log'}")
        return "\n".join(found)

    def unpause(self, name: str) -> None:
        xl("unpause", name)

    def sealed(self, name: str) -> None:
        """Maps the status page of ``name`` and waits until it is sealed."""
        path = f"/local/domain/{self.ids[name]}/data/status"
        references = self.until(f"{name} shows no status", lambda: self.store.read(path)).split(",")
        borrowed = gntdev.borrow(self.gntdev, self.ids[name], [int(number) for number in references])
        window = Window(len(references) * PAGE)
        window.show(self.gntdev, borrowed.offset)
        self.windows[name] = window, borrowed
        self.pages[name] = window.memory.cast("Q")
        self.until(
            f"{name} is not sealed: {self.pages[name][WORD_STATE]}",
            lambda: self.pages[name][WORD_STATE] >= State.SEALED,
        )

    def destroy(self, name: str) -> int:
        """Ends ``name``, lets its pages go and returns the id that it had."""
        xl("destroy", name)
        window, borrowed = self.windows.pop(name)
        window.blank()
        gntdev.give_back(self.gntdev, borrowed)
        return self.ids.pop(name)

    def go(self, name: str) -> None:
        self.store.write(f"/local/domain/{self.ids[name]}/septum/go", "1")

    def running(self, name: str) -> None:
        self.until(f"{name} does not run", lambda: self.pages[name][WORD_STATE] == State.RUNNING)
        beats = self.pages[name][WORD_HEARTBEAT]
        self.until(f"{name} does not turn", lambda: self.pages[name][WORD_HEARTBEAT] > beats + 1)

    def meet(self, wire: ClientWire, server: str, channel: int) -> None:
        def attempt() -> bool:
            place = f"/local/domain/{self.ids[server]}/data/channel/{channel}"
            found = [number(self.store.read(f"{place}/{key}")) for key in ("ring-ref", "event-channel")]
            if not all(found):
                return False
            try:
                wire.accept(self.ids[server], Meeting(found[0] or 0, found[1] or 0))
            except GrantError:
                return False
            return True

        self.until(f"{server} offers nothing", attempt)

    def listed(self) -> str:
        return xl("list")

    def break_the_rules(self, end: Endpoint) -> None:
        """As a client gone mad: an index that the ring cannot hold. Then dies, as far as rng can see."""
        words = end._wire.memory[: layout.GRANTS].cast("I")
        words[layout.LEFT_PROD // 4] += 1 << 30
        end._wire.notify()
        live = end._wire.memory
        self.until("rng does not shut the channel", lambda: live[layout.SRV_LIVE] == layout.CLOSED)
        end.close()
        self.until("rng does not wait for the next one", lambda: live[layout.SRV_LIVE] == layout.WAITING)

    def recorded(self, end: Endpoint) -> int:
        """Records at log of rules broken at ``end``, once there is one: a record that log is not yet there for is
        lost, so they are broken up to five times."""
        for _ in range(5):
            self.until("the session with rng does not open", lambda: opened(end))
            self.break_the_rules(end)
            over = time.monotonic() + 20
            while time.monotonic() < over and not self.pages["log"][FIRST_COUNTER]:
                time.sleep(0.1)
            if found := int(self.pages["log"][FIRST_COUNTER]):
                return found
        raise TimeoutError(f"no record at log; {self.consoles()}")


def opened(end: Endpoint) -> bool:
    try:
        end.progress()
    except PeerViolation:
        return False
    return end.is_open


def call(end: Endpoint, length: int) -> bytes:
    assert end.send(RandomRequest(length=length))
    end.flush()
    over = time.monotonic() + PATIENCE
    while (reply := end.receive()) is None:
        if time.monotonic() > over:
            raise TimeoutError("no reply")
        time.sleep(0.001)
    return bytes(reply.random)


def main(kind: str, kernel: str, rng: str, log: str, memory_mib: str, *arguments: str) -> None:
    seen: dict[str, Any] = {}
    pair = Pair(kind, kernel, {"rng": rng, "log": log}, int(memory_mib), " ".join(arguments))
    began = time.monotonic()
    for name in ("rng", "log"):
        pair.create(name)
    pair.introduce(0, "rng", 0)
    pair.may_read("log", 1, pair.ids["rng"])
    pair.introduce(1, "rng", pair.ids["log"])
    pair.introduce(1, "log", pair.ids["rng"])
    for name in ("rng", "log"):
        pair.unpause(name)
    for name in ("rng", "log"):
        pair.sealed(name)
    seen["sealed after s"] = round(time.monotonic() - began, 1)
    seen["landlock"] = [pair.pages[name][WORD_LANDLOCK] for name in ("rng", "log")]
    for name in ("rng", "log"):
        pair.go(name)
    for name in ("rng", "log"):
        pair.running(name)
    shape = schema("random")
    wire = ClientWire(gntdev.open_device(), shape.orders)
    end = Endpoint(wire, Side.CLIENT, shape)
    end.progress()
    pair.meet(wire, "rng", 0)
    pair.until("the session with rng does not open", lambda: opened(end))
    first = [call(end, 32) for _ in range(5)]
    seen["random"] = len(set(first)) == 5 and all(len(one) == 32 for one in first)
    seen["records at log"] = pair.recorded(end)
    seen["rng accuses"] = bool(pair.pages["rng"][WORD_VIOLATIONS] & 1)
    pair.until("the session with rng does not open again", lambda: opened(end))
    seen["rng answers its offender's next life"] = len(call(end, 16)) == 16

    # log dies, and another one takes its place: rng does not, and its records arrive again
    began = time.monotonic()
    old = pair.destroy("log")
    pair.introduce(1, "rng", None)
    seen["rng answers while log is gone"] = len(call(end, 16)) == 16
    pair.create("log")
    pair.may_read("log", 1, pair.ids["rng"])
    pair.introduce(1, "log", pair.ids["rng"])
    pair.introduce(1, "rng", pair.ids["log"])
    pair.unpause("log")
    pair.sealed("log")
    pair.go("log")
    pair.running("log")
    seen["another log"] = pair.ids["log"] != old
    seen["records at the other log"] = pair.recorded(end)
    seen["rebuilt after s"] = round(time.monotonic() - began, 1)
    seen["consoles"] = pair.consoles()
    # what rng granted to the old log and what it maps of the old log is let go: Xen has no ghost of it
    seen["list"] = pair.listed()
    seen["no ghost"] = "(null)" not in seen["list"]

    # rng dies under the hands of its client: what that has mapped stays memory until it lets go
    pair.until("the session with rng does not open a third time", lambda: opened(end))
    call(end, 16)
    pair.destroy("rng")
    seen["a dead server's pages stay"] = end._wire.memory[layout.SRV_LIVE] == layout.LIVE
    assert end.send(RandomRequest(length=1))
    end.flush()
    end.arm(space=True)
    seen["a ghost while they are mapped"] = "(null)" in pair.listed()
    wire.detach()
    seen["closed"] = end.progress() == "closed"
    pair.destroy("log")
    pair.until(f"ghosts are left: {pair.listed()}", lambda: "(null)" not in pair.listed())
    print(json.dumps(seen))


if __name__ == "__main__":
    main(*sys.argv[1:])
