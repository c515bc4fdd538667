"""A Xen of dictionaries: xl, the xenstore and the grant device as far as the back end asks anything of them."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from typing import Any

from appliance.monitor.xen.xl import Row, XlError, rows
from appliance.xen.xswire import Event


class FakeStore:
    """The xenstore as dom0 sees it: everything may be read and written, and what is not there is made, a home of nobody
    too. ``done`` is what was written, in order.
    """

    def __init__(self) -> None:
        self.nodes: dict[str, str] = {"/local/domain": ""}
        self.owners: dict[str, list[str]] = {}
        self.events: deque[Event] = deque()
        self.done: list[tuple[str, str]] = []
        self.alive: set[int] = set()
        self._never = os.eventfd(0)

    def watch(self, path: str, token: str) -> None:
        self.events.append(Event(path, token))

    def fileno(self) -> int:
        return self._never

    def hear(self) -> None:
        pass

    def close(self) -> None:
        os.close(self._never)

    def home(self, domid: int) -> str:
        return f"/local/domain/{domid}"

    def read(self, path: str) -> str | None:
        return self.nodes.get(path)

    def write(self, path: str, value: str) -> None:
        parts = path.split("/")
        above = ""
        for part in parts[1:-1]:
            above += f"/{part}"
            self.nodes.setdefault(above, "")
        self.nodes[path] = value
        self.done.append((path, value))

    def directory(self, path: str) -> list[str]:
        depth = path.count("/") + 1
        return sorted({p.split("/")[depth] for p in self.nodes if p.startswith(path + "/")})

    def remove(self, path: str) -> None:
        self.nodes = {p: v for p, v in self.nodes.items() if not f"{p}/".startswith(f"{path}/")}
        self.owners = {p: v for p, v in self.owners.items() if not f"{p}/".startswith(f"{path}/")}

    def permissions(self, path: str) -> list[str]:
        while path and path not in self.owners:
            path = path.rpartition("/")[0]
        return self.owners.get(path, ["n0"])

    def set_permissions(self, path: str, entries: Sequence[str]) -> None:
        self.owners[path] = list(entries)

    def is_introduced(self, domid: int) -> bool:
        return domid in self.alive


class FakeJob:
    """An xl that is done as soon as it is looked at, or that hangs for ever. ``effect`` is what it does, and says."""

    def __init__(self, effect: Any, hangs: bool = False) -> None:
        self._effect = effect
        self._hangs = hangs
        self._over = os.eventfd(not hangs)
        self.is_late = False

    def fileno(self) -> int:
        return self._over

    @property
    def is_over(self) -> bool:
        return not self._hangs

    def hurry(self) -> None:
        pass

    def end(self) -> None:
        os.close(self._over)

    def wait(self) -> str:
        assert not self._hangs, "nobody may wait for it"
        os.close(self._over)
        return self._effect() or ""


class FakeXl:
    """The toolstack. ``configurations`` are those it was given, by the guest's name; ``asked`` all that it was told."""

    def __init__(self, store: FakeStore, terminal: str) -> None:
        self._store = store
        self._terminal = terminal
        self._names: dict[int, str] = {}
        self._next = 1
        self.shut_down: set[int] = set()
        self.fails = 0  # so many times `xl list` does not know what to say
        self.has_consoles = True
        self.hangs: set[str] = set()  # orders of which an xl hangs
        self.hung: list[FakeJob] = []
        self.configurations: dict[str, dict[str, Any]] = {}
        self.ramdisks: dict[str, bytes] = {}
        self.kernels: list[int] = []
        self.asked: list[tuple[str, ...]] = []

    def create(self, configuration: int, fds: Sequence[int]) -> FakeJob:
        said: dict[str, Any] = {}
        for line in os.pread(configuration, 1 << 20, 0).decode().splitlines():
            key, _, value = line.partition(" = ")
            said[key] = eval(value, {}, {})  # noqa: S307 - the syntax of these values is Python's as well
        assert said["kernel"] == f"/proc/self/fd/{fds[0]}" and said["ramdisk"] == f"/proc/self/fd/{fds[1]}"
        self.kernels.append(fds[0])
        name = said["name"]
        assert name not in self._names.values(), f"two guests called {name}"
        self.configurations[name], self.ramdisks[name] = said, os.pread(fds[1], 1 << 28, 0)
        domid, self._next = self._next, self._next + 1
        return self._job("create", lambda: self._create(domid, said))

    def _job(self, order: str, effect: Any) -> FakeJob:
        job = FakeJob(effect, order in self.hangs)
        if order in self.hangs:
            self.hung.append(job)
        return job

    def _create(self, domid: int, said: dict[str, Any]) -> None:
        self._names[domid] = said["name"]
        self.asked.append(("create", said["name"]))
        store, home = self._store, f"/local/domain/{domid}"
        store.alive.add(domid)
        store.write(f"{home}/name", said["name"])
        store.write(f"{home}/vm", f"/vm/{said['uuid']}")
        store.owners[home] = ["n0", f"r{domid}"]
        store.write(f"{home}/data", "")
        store.owners[f"{home}/data"] = [f"n{domid}"]
        if self.has_consoles:
            store.write(f"{home}/console/tty", self._terminal)
        if said["vif"]:
            store.write(f"{home}/device/vif/0/state", "1")
            store.owners[f"{home}/device/vif/0"] = [f"n{domid}", "r0"]

    def destroy(self, domid: int) -> FakeJob:
        self.asked.append(("destroy", str(domid)))

        def effect() -> None:
            if domid not in self._names:
                raise XlError("no such domain")
            self.vanish(domid)

        return self._job("destroy", effect)

    def unpause(self, domid: int) -> None:
        self.asked.append(("unpause", str(domid)))

    def pause(self, domid: int) -> None:
        self.asked.append(("pause", str(domid)))

    def close(self) -> None:
        pass

    def vanish(self, domid: int) -> None:
        """As by somebody's `xl destroy`."""
        del self._names[domid]
        store = self._store
        store.alive.discard(domid)
        store.remove(f"/local/domain/{domid}")
        store.events.append(Event("@releaseDomain", "death"))

    def domid(self, name: str) -> int:
        return next(domid for domid, known in self._names.items() if known == name)

    @property
    def titles(self) -> list[str]:
        """Of the guests that there are."""
        return list(self._names.values())

    def list(self) -> list[Row]:
        return rows(self._say())

    def listing(self) -> FakeJob:
        return self._job("list", self._say)

    def _say(self) -> str:
        if self.fails:
            self.fails -= 1
            raise XlError("libxl: a guest went away while it was looked at")
        lines = (
            f"{name} {domid} 48 1 {'---s--' if domid in self.shut_down else '-b----'} 1.0"
            for domid, name in self._names.items()
        )
        return "\n".join(["Name ID Mem VCPUs State Time(s)", *lines])
