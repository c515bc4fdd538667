"""The life of a domain, from its boot description to its loop."""

from __future__ import annotations

import importlib
import mmap
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from appliance.guest import lastwords
from appliance.guest.imports import close_gate
from appliance.guest.loop import CONTROL_FD, Guest
from appliance.guest.ports import BlockingOut, Client, DroppingOut, Patience, Port
from appliance.guest.status import State, StatusPage
from appliance.monitor.sandbox.plan import SealPlan
from appliance.monitor.sandbox.seal import seal
from appliance.vchan import memfd
from appliance.vchan.endpoint import Endpoint
from appliance.vchan.ring import Side
from appliance.vchan.schema import Schema, WhenFull, schema
from appliance.vchan.wire import Wire

STATUS_FD: Final = 4

# Which side of the vchan, by the kind of end: the producer or caller is the vchan client.
SIDES: Final = {"out": Side.CLIENT, "client": Side.CLIENT, "in": Side.SERVER, "server": Side.SERVER}


def _port_kind(end: str, shape: Schema) -> type[Port]:
    if end == "client":
        return Client
    if end == "out":
        return BlockingOut if shape.when_full is WhenFull.BLOCK else DroppingOut
    return Port


def port(index: int, entry: dict[str, Any], wire: Wire, patience: Patience) -> Port:
    """The end of a channel that ``entry`` of the boot description names, over ``wire``."""
    shape = schema(entry["schema"])
    endpoint = Endpoint(wire, SIDES[entry["end"]], shape)
    return _port_kind(entry["end"], shape)(index, entry["port"], entry["peer"], endpoint, patience)


def build(
    description: dict[str, Any],
    page: StatusPage,
    wires: Sequence[Wire],
    devices: dict[str, int],
    control_fd: int = CONTROL_FD,
) -> Guest:
    """The guest of ``description`` with its component in it; ``wires`` are those of its ports, in their order."""
    patience = Patience()
    ports = [port(i, entry, wires[i], patience) for i, entry in enumerate(description["ports"])]
    guest = Guest(description["domain"], description["settings"], devices, ports, page, patience, control_fd)
    close_gate(description["component"], description["imports"])
    importlib.import_module(description["main"]).build(guest)
    return guest


@contextmanager
def last_breath(page: StatusPage) -> Iterator[None]:
    """Whatever ends what is done in here ends the domain, with its last words; nothing is survived."""
    try:
        yield
    except BaseException as death:
        page.state(State.FAILED)
        lastwords.last_words(death)
        lastwords.leave()


def _wire(entry: dict[str, Any]) -> Wire:
    return memfd.attach(entry["memory"], entry["wait"], entry["notify"], schema(entry["schema"]).orders)


def _seal(guest: Guest, description: dict[str, Any], page: StatusPage) -> None:
    plan = SealPlan.from_json(description["seal"])
    events = {entry[end] for entry in description["ports"] for end in ("wait", "notify")}
    keep = sorted({lastwords.LAST_WORDS_FD, *events, *guest.file_descriptors()})
    sealed = seal(plan._replace(keep_fds=tuple(keep)))
    page.sealed(time.monotonic_ns(), sealed.landlock_abi, sealed.refuses_exec_gain)


def live(description: dict[str, Any]) -> None:
    """Builds, seals and runs the domain that ``description`` describes, as a process. Never returns."""
    page = StatusPage(memoryview(mmap.mmap(STATUS_FD, os.fstat(STATUS_FD).st_size)), description["counters"])
    page.state(State.STARTING)
    lastwords.install()
    with last_breath(page):
        wires = [_wire(entry) for entry in description["ports"]]
        guest = build(description, page, wires, description["devices"])
        page.state(State.BUILT)
        _seal(guest, description, page)
        description.clear()
        guest.wait_for_go()
        guest.run()
