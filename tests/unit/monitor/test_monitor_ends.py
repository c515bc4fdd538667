"""The end of a domain and of a box, when something else goes wrong at the same time."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from appliance.monitor.box import Box
from appliance.monitor.network import NetworkError
from appliance.monitor.sandbox import filters
from tests.system.standin_box import assembly


class Failing:
    """A part of a box that cannot be closed; ``others`` are told of the attempt."""

    def __init__(self, error: Exception, attempts: list[Failing]) -> None:
        self._error = error
        self._attempts = attempts

    def close(self) -> None:
        self._attempts.append(self)
        raise self._error


def test_a_back_end_that_cannot_be_closed_keeps_no_interface(tmp_path: Path) -> None:
    ring = assembly({"nodes": {"one": "steady"}, "network": {"tunnel": "t"}})
    attempts: list[Any] = []
    place: Any = None
    box = Box(ring, "box", tmp_path, place, lambda _: place, devices={}, log=lambda *_: None)
    box._backend = Failing(ChildProcessError(), attempts)  # type: ignore[assignment]
    box._network = Failing(NetworkError("and then this"), attempts)  # type: ignore[assignment]
    with pytest.raises(NetworkError, match="and then this"):
        box.close()
    assert len(attempts) == 2
    assert box._poll.closed


def test_one_that_dies_while_it_is_looked_at_is_still_there_to_be_buried(monkeypatch: pytest.MonkeyPatch) -> None:
    call = filters.call
    pid = os.fork()
    if pid == 0:
        signal.pause()
        os._exit(0)

    def interrupt(name: str, operation: int, *arguments: Any) -> int:
        if operation != filters._INTERRUPT:
            return call(name, operation, *arguments)
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        return 0

    monkeypatch.setattr(filters, "call", interrupt)
    with pytest.raises(ProcessLookupError):
        filters.running(pid)
    assert os.waitpid(pid, 0) == (pid, signal.SIGKILL)
