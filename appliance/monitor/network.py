"""The box's place in the network: made when the box is built, held while it lives, undone when it ends.

On the host side this is what wg-quick does. With a ``lan`` or ``wan`` interface the box is *inline*: the interface
moves into a namespace of red's or black's own, where nothing else is. Such a namespace is bound to a name in the run
directory, so that an interface is not lost with a monitor that is killed: ``recover`` finds it there.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final

from appliance.assembly.model import ADMIN_DEFAULT, Network
from appliance.monitor import devices, netns
from appliance.monitor.helper import Helper, HelperError

RECORD: Final = "network.json"
_SIDES: Final = ("red", "black")


class NetworkError(Exception):
    """The network cannot be made as asked, or not be undone; the text says what to do."""


class BoxNetwork:
    """``open()`` makes namespaces and devices, which is quick; ``begin()`` and ``finish()`` do the rest meanwhile.

    ``wanted`` are the devices that the domains hold, ``devices`` descriptors by name (tun, udp4, udp6, …). After an
    error from any of these, ``close()`` is due.
    """

    def __init__(self, network: Network, wanted: Collection[str], directory: Path) -> None:
        self._network = network
        self._wanted = wanted
        self._directory = directory
        self._home = netns.current()
        self._namespaces: dict[str, int] = {}
        self._helper: Helper | None = None
        self.devices: dict[str, int] = {}
        self.port = 0
        self.notes: list[str] = []

    def open(self) -> None:
        """Errors: NetworkError."""
        for side, interface in zip(_SIDES, (self._network.lan, self._network.wan), strict=True):
            if interface is not None:
                self._new_namespace(side)
        try:
            for device, side, name in (("tun", "red", self._network.tunnel), ("outer_tun", "black", devices.OUTER_TUN)):
                if device in self._wanted:
                    with self._in(side):
                        self._open_tun(device, name)
            for device, side in (("red_link", "red"), ("black_link", "black")):
                if device in self._wanted:
                    with self._in(side):
                        self.devices[device] = devices.open_link(self.notes)
            if "udp4" in self._wanted:
                with self._in("black"):
                    self._open_udp()
            if "management" in self._wanted:
                address, port = self._network.admin or ADMIN_DEFAULT
                with netns.inside(self._home):
                    self.devices["management"] = devices.open_management(address, port)
        except devices.DeviceError as error:
            raise NetworkError(str(error)) from None
        self.notes = list(dict.fromkeys(self.notes))

    def _open_tun(self, device: str, name: str) -> None:
        tun = devices.open_tun(name)
        self.devices[device] = tun.fd
        if not tun.has_uso:
            self.notes.append("this kernel has no UDP segmentation for TUN (Linux 6.2): UDP goes packet by packet")

    def _open_udp(self) -> None:
        udp = devices.open_udp(self._network.listen_port, self._network.fwmark)
        self.devices["udp4"] = udp.udp4
        if udp.udp6 is not None:
            self.devices["udp6"] = udp.udp6
        self.port = udp.port
        self.notes += udp.notes

    def begin(self) -> None:
        """Starts the netlink work in a helper process."""

        def work() -> Any:
            from appliance.monitor.plumbing import Job, Plumber

            red, black = (self._namespaces.get(side) for side in _SIDES)
            job = Job(self._network, self._directory / RECORD, self._home, red, black, self.devices, self.port)
            plumber = Plumber(job)
            plumber.work()
            return plumber.notes

        self._helper = Helper(work)

    def finish(self) -> None:
        """Waits for that work. Errors: NetworkError."""
        assert self._helper is not None
        helper, self._helper = self._helper, None
        try:
            self.notes += helper.result()
        except HelperError as error:
            raise NetworkError(str(error)) from None

    def close(self) -> None:
        """Undoes everything, at whatever point it stopped. The domains must be dead: they hold the devices too.

        Errors: NetworkError if something could not be brought back; its record and namespaces are then kept for the
        next ``recover``.
        """
        if self._helper is not None:
            with suppress(NetworkError):  # whatever it has done is on record
                self.finish()
        for fd in self.devices.values():
            os.close(fd)
        self.devices.clear()
        try:
            _undo(self._directory, self._home, self._namespaces)
        finally:
            for fd in (self._home, *self._namespaces.values()):
                os.close(fd)

    def _new_namespace(self, side: str) -> None:
        fd = netns.create()
        self._namespaces[side] = fd
        try:
            netns.bind(fd, self._directory / side)
        except OSError as error:
            raise NetworkError(
                f"{self._directory / side}: cannot name {side}'s namespace ({error.strerror}): an interface in it "
                "could be lost; run in a mount namespace of your own (unshare --mount)"
            ) from None

    def _in(self, side: str) -> Any:
        return netns.inside(self._namespaces.get(side, self._home))


def _undo(directory: Path, home: int, namespaces: dict[str, int]) -> None:
    def work() -> Any:
        from appliance.monitor.plumbing import undo

        return undo(directory / RECORD, home, namespaces)

    if (directory / RECORD).exists():
        try:
            errors = Helper(work).result()["errors"]
        except HelperError as error:
            errors = [str(error)]
        if errors:
            raise NetworkError("; ".join(errors))
        (directory / RECORD).unlink()
    for side in _SIDES:
        netns.unbind(directory / side)


def is_left_over(directory: Path) -> bool:
    """Whether a monitor that was killed left something of the network to be undone here."""
    return any((directory / name).exists() for name in (RECORD, *_SIDES))


def recover(directory: Path) -> None:
    """Undoes what a monitor that was killed has left. The caller holds the box's lock. Errors: NetworkError."""
    with ExitStack() as stack:
        home = netns.current()
        stack.callback(os.close, home)
        namespaces: dict[str, int] = {}
        for side in _SIDES:
            if (directory / side).exists():
                namespaces[side] = os.open(directory / side, os.O_RDONLY | os.O_CLOEXEC)
                stack.callback(os.close, namespaces[side])
        usable = {side: fd for side, fd in namespaces.items() if _is_namespace(fd)}
        _undo(directory, home, usable)


def _is_namespace(fd: int) -> bool:
    """A name is a plain file if nothing was bound to it yet, or no longer."""
    return os.fstat(fd).st_dev == os.stat("/proc/self/ns/net").st_dev
