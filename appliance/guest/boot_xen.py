"""The first and only program of a Xen guest: mount, import, build, seal, wait for GO, run.

The image starts it as PID 1 with the console for its descriptors 0 to 2. What boot.py is handed by descriptor is found
here: the boot description in a file that the monitor added to the image, the monitor's word in the xenstore, peers by
grants and event channels. Everything that can fail to open is opened here, before the seal; the first page of a peer
is mapped and the first byte of input read after it.

Whatever fails ends the guest, with its last words on the console.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from typing import Any, Final

from appliance.guest import boxpage, domain, lastwords
from appliance.guest.boot import described
from appliance.guest.loop import Guest
from appliance.guest.neighbours import Neighbour, Neighbours
from appliance.guest.status import State, StatusPage
from appliance.monitor.sandbox import xenguest
from appliance.monitor.sandbox.kernel import call
from appliance.vchan.grants import ClientWire, ServerWire
from appliance.vchan.layout import PAGE
from appliance.vchan.ring import Side
from appliance.vchan.schema import schema
from appliance.xen import gntalloc, gntdev
from appliance.xen.window import Window
from appliance.xen.xenstore import Xenstore

DESCRIPTION: Final = "/description.json"
STATUS: Final = "data/status"
TOLD: Final = "data/told"
_MONITOR: Final = 0  # domain 0
_CONSOLE: Final = "/dev/console"
_IDENTITY: Final = "/identity"
_STORE: Final = "store"  # a disk is dom0's, and comes by a channel


def _mount() -> None:
    for kind, place in (("proc", "/proc"), ("devtmpfs", "/dev")):
        call("mount", b"septum", place.encode(), kind.encode(), 0, None)


def _read_description() -> dict[str, Any]:
    """The boot description, which is in no file any more once it is read: it may hold a key."""
    with open(DESCRIPTION, "rb") as file:
        description: dict[str, Any] = described(file.read())
    os.unlink(DESCRIPTION)
    return description


def _status_page(grants_fd: int, pages: int, store: Xenstore, counters: list[str]) -> StatusPage:
    """The page, and its board, lent to the monitor, which is told by the xenstore."""
    lent = gntalloc.lend(grants_fd, _MONITOR, pages)
    window = Window(pages * PAGE)
    window.show(grants_fd, lent.offset)
    page = StatusPage(window.memory, counters)
    page.state(State.STARTING)
    store.write(STATUS, ",".join(map(str, lent.references)))
    return page


def _identity(text: str) -> int:
    """What the domain is known by, as a file that can only be read; its name goes with all others."""
    with open(_IDENTITY, "x", opener=lambda name, flags: os.open(name, flags, 0o400)) as file:
        file.write(text)
    return os.open(_IDENTITY, os.O_RDONLY | os.O_CLOEXEC)


def _told(store: Xenstore) -> dict[str, int]:
    """The pages by which the monitor tells this domain of the box, and is asked: lent to it. What is mapped of a
    descriptor of gntalloc from its beginning is what was lent first.
    """
    held: dict[str, int] = {}
    references: list[int] = []
    for name, size in (("box", boxpage.BOX_BYTES), ("orders", boxpage.ORDERS_BYTES)):
        held[name] = gntalloc.open_device()
        lent = gntalloc.lend(held[name], _MONITOR, size // PAGE)
        if lent.offset:
            raise OSError(0, f"what was lent first lies at {lent.offset}")
        references += lent.references
    store.write(TOLD, ",".join(map(str, references)))
    return held


def _devices(description: dict[str, Any], store: Xenstore) -> dict[str, int]:
    """What the role holds of the outside, opened in this guest."""
    wanted: list[str] = description["devices"]
    held: dict[str, int] = {}
    if "network" in description:
        from appliance.guest import xennet  # only images of roles with an interface have it

        held |= xennet.open_devices(description["network"], wanted)
    if "journal" in wanted:
        held["journal"] = os.open(_CONSOLE, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    if "identity" in wanted:
        held["identity"] = _identity(description.pop("identity"))
    if "box" in wanted:
        held |= _told(store)
    if missing := set(wanted) - set(held) - {"udp6", _STORE}:
        raise ValueError(f"nobody can open the devices {', '.join(sorted(missing))} in this guest")
    return held


def _wire(entry: dict[str, Any], lending: int, borrowing: int) -> ServerWire | ClientWire:
    orders = schema(entry["schema"]).orders
    if domain.SIDES[entry["end"]] is Side.SERVER:
        return ServerWire(lending, orders)
    return ClientWire(borrowing, orders)


def _seal(
    guest: Guest, description: dict[str, Any], page: StatusPage, store: Xenstore, page_fds: Iterable[int]
) -> None:
    events = {port.endpoint.fileno() for port in guest.ports}
    keep = {lastwords.LAST_WORDS_FD, *events, *page_fds, *store.file_descriptors(), *guest.file_descriptors()}
    wanted = description["seal"]
    plan = xenguest.plan_for(description["domain"], wanted["syscalls"], sorted(keep), wanted.get("descriptors", 0))
    sealed = xenguest.seal_guest(plan, xenguest.channel_rules(store.fileno(), page_fds))
    page.sealed(time.monotonic_ns(), sealed.landlock_abi, sealed.refuses_exec_gain)


def live(description: dict[str, Any]) -> None:
    """Builds, seals and runs the domain that ``description`` describes, as a guest. Never returns."""
    store = Xenstore()
    lending, borrowing = gntalloc.open_device(), gntdev.open_device()
    page = _status_page(lending, description["status_pages"], store, description["counters"])
    with domain.last_breath(page):
        wires = [_wire(entry, lending, borrowing) for entry in description["ports"]]
        guest = domain.build(description, page, wires, _devices(description, store), store.fileno())
        neighbours = Neighbours(
            store,
            guest,
            [
                Neighbour(entry["channel"], port, wire)
                for entry, port, wire in zip(description["ports"], guest.ports, wires, strict=True)
            ],
        )
        guest.attend(neighbours)
        page.state(State.BUILT)
        _seal(guest, description, page, store, (lending, borrowing))
        description.clear()
        guest.wait_for_go(neighbours.is_go)
        guest.run()


def main() -> None:
    """Never returns. Dies, with its last words on the console, for whatever goes wrong."""
    lastwords.install()
    _mount()
    live(_read_description())
