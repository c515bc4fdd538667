"""The control socket, by itself: answers of any size, and clients that do not take them."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance.monitor import control
from appliance.monitor.control import ControlServer
from tests.watching import Watching

# What a status says of this many peers goes into no buffer of a socket
LARGE = {"peers": [{"public_key": "x" * 44, "allowed_ips": ["192.0.2.1/32"], "received": n} for n in range(50_000)]}


class Poller(Watching):
    """Runs a server at ``path`` in this thread, for as long as it is told."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.server = ControlServer(path, {"status": lambda: LARGE}, self.watch, self.forget)

    def run(self, until: Callable[[], Any]) -> None:
        limit = time.monotonic() + 20
        while not until():
            assert time.monotonic() < limit
            self.turn(0.01)


@pytest.fixture
def poller(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Poller]:
    monkeypatch.setenv("SEPTUM_RUN_DIR", str(tmp_path))
    (tmp_path / "box").mkdir()
    poller = Poller(tmp_path / "box" / control.SOCKET)
    yield poller
    poller.server.close()
    assert len(poller) == 0
    poller.close()


def test_an_answer_may_be_larger_than_any_buffer(poller: Poller) -> None:
    answers: list[Any] = []
    asking = threading.Thread(target=lambda: answers.append(control.request("box", "status")))
    asking.start()
    poller.run(lambda: not asking.is_alive())
    assert answers == [LARGE]


def test_who_does_not_take_the_answer_is_dropped_and_keeps_nobody_waiting(poller: Poller, tmp_path: Path) -> None:
    server = poller.server
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as deaf:
        deaf.connect(str(tmp_path / "box" / control.SOCKET))
        deaf.sendall(b'{"op": "status"}\n')
        while poller.turn(0.2):  # until there is no more room: the server then has nothing to do
            pass
        assert len(poller) == 2
        now = time.monotonic()
        server.tick(now + 60)  # a monitor that has not looked for a minute takes none of it from who asks
        assert len(poller) == 2
        for half in range(1, 5):
            server.tick(now + 60 + half / 2)
        assert len(poller) == 1
        deaf.settimeout(5)
        taken = 0
        while piece := deaf.recv(1 << 20):
            taken += len(piece)
        assert 0 < taken < 1 << 20


def test_the_lock_of_a_box_that_goes_down_this_very_moment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    directory = tmp_path / "box"
    open_, misses = os.open, [1, 2]

    def late(path: Any, *arguments: Any) -> int:
        if misses:
            misses.pop()
            directory.rmdir()
        return open_(path, *arguments)

    monkeypatch.setattr(os, "open", late)
    lock = control.try_lock(directory)
    assert lock is not None
    assert control.try_lock(directory) is None
    control.unlock(directory, lock)
    assert not directory.exists()


def test_a_box_that_one_may_not_look_into_hides_no_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SEPTUM_RUN_DIR", str(tmp_path))
    for name in ("mine", "roots", "empty"):
        (tmp_path / name).mkdir()
    for name in ("mine", "roots"):
        (tmp_path / name / control.LOCK).touch()
    exists = Path.exists

    def refused(path: Path) -> bool:
        if path.parent.name == "roots":
            raise PermissionError(13, "Permission denied", str(path))
        return exists(path)

    monkeypatch.setattr(Path, "exists", refused)
    assert control.list_boxes() == ["mine", "roots"]
    with pytest.raises(control.ControlError, match="roots is not yours to ask: run as root"):
        control.down_and_wait("roots")
