"""The life of a domain, from its boot description to its loop."""

from __future__ import annotations

import importlib
import mmap
import os
import time
from typing import Any, Final

from appliance.guest import lastwords
from appliance.guest.imports import close_gate
from appliance.guest.loop import Guest
from appliance.guest.ports import BlockingOut, Client, DroppingOut, Patience, Port
from appliance.guest.status import State, StatusPage
from appliance.monitor.sandbox.plan import SealPlan
from appliance.monitor.sandbox.seal import seal
from appliance.vchan import memfd
from appliance.vchan.endpoint import Endpoint
from appliance.vchan.ring import Side
from appliance.vchan.schema import Schema, WhenFull, schema

STATUS_FD: Final = 4

# Which side of the vchan, by the kind of end: the producer or caller is the vchan client.
SIDES: Final = {"out": Side.CLIENT, "client": Side.CLIENT, "in": Side.SERVER, "server": Side.SERVER}


def _port_kind(end: str, shape: Schema) -> type[Port]:
    if end == "client":
        return Client
    if end == "out":
        return BlockingOut if shape.when_full is WhenFull.BLOCK else DroppingOut
    return Port


def _attach(index: int, entry: dict[str, Any], patience: Patience) -> Port:
    shape = schema(entry["schema"])
    wire = memfd.attach(entry["memory"], entry["wait"], entry["notify"], shape.orders)
    endpoint = Endpoint(wire, SIDES[entry["end"]], shape)
    return _port_kind(entry["end"], shape)(index, entry["port"], entry["peer"], endpoint, patience)


def _build(description: dict[str, Any], page: StatusPage) -> Guest:
    patience = Patience()
    ports = [_attach(i, entry, patience) for i, entry in enumerate(description["ports"])]
    guest = Guest(description["domain"], description["settings"], description["devices"], ports, page, patience)
    close_gate(description["component"], description["imports"])
    importlib.import_module(description["main"]).build(guest)
    return guest


def _seal(guest: Guest, description: dict[str, Any], page: StatusPage) -> None:
    plan = SealPlan.from_json(description["seal"])
    events = {entry[end] for entry in description["ports"] for end in ("wait", "notify")}
    keep = sorted({lastwords.LAST_WORDS_FD, *events, *guest.file_descriptors()})
    sealed = seal(plan._replace(keep_fds=tuple(keep)))
    page.sealed(time.monotonic_ns(), sealed.landlock_abi, sealed.refuses_exec_gain)


def live(description: dict[str, Any]) -> None:
    """Builds, seals and runs the domain that ``description`` describes. Never returns."""
    page = StatusPage(memoryview(mmap.mmap(STATUS_FD, os.fstat(STATUS_FD).st_size)), description["counters"])
    page.state(State.STARTING)
    lastwords.install()
    try:
        guest = _build(description, page)
        page.state(State.BUILT)
        _seal(guest, description, page)
        description.clear()
        guest.wait_for_go()
        guest.run()
    except BaseException as death:  # last words for whatever it was; nothing is survived
        page.state(State.FAILED)
        lastwords.last_words(death)
        lastwords.leave()
