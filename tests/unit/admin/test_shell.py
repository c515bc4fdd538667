"""The shell: real sockets of this machine before a guest that is played. Who is taken, who goes, who is not heard."""

from __future__ import annotations

import json
import os
import socket
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from appliance.guest import boxpage
from components.admin.main import Server
from components.admin.ratelimit import LOCKED, OFFENCES
from components.admin.sources import MOST_UNKNOWN_OF_AN_ADDRESS
from tests.unit.admin.box import WALL, identity

STRANGER, FRIEND = "127.0.0.66", "127.0.0.5"


class _Counted:
    def __init__(self, name: str, counts: Counter[str]) -> None:
        self._name = name
        self._counts = counts

    def add(self, count: int) -> None:
        self._counts[self._name] += count

    def set(self, count: int) -> None:
        self._counts[self._name] = count


class FakeGuest:
    """As much of a guest as the shell asks for; ``turn`` is the loop's."""

    def __init__(self, listener: socket.socket) -> None:
        said = {key: value.hex() if isinstance(value, bytes) else value for key, value in identity()._asdict().items()}
        self.devices = {"management": listener.fileno()}
        for name, content in (
            ("identity", json.dumps(said).encode()),
            ("box", bytes(boxpage.BOX_BYTES)),
            ("orders", bytes(boxpage.ORDERS_BYTES)),
        ):
            self.devices[name] = os.memfd_create(name)
            os.write(self.devices[name], content)
        self.counts: Counter[str] = Counter()
        self.watched: dict[int, Any] = {}
        self.lines: list[str] = []
        self.log = self

    def counter(self, name: str) -> _Counted:
        return _Counted(name, self.counts)

    def info(self, event: str, text: str) -> None:
        self.lines.append(f"{event}: {text}")

    warning = error = info

    def is_joined(self, port: str) -> bool:
        return False

    def wall(self) -> float:
        return WALL

    def watch(self, fd: int, source: Any) -> None:
        self.watched[fd] = source

    def unwatch(self, fd: int) -> None:
        del self.watched[fd]

    def beat(self) -> None: ...

    def soon(self) -> None: ...


class Shell:
    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.listener.setblocking(False)
        self.guest = FakeGuest(self.listener)
        self.server = Server(self.guest)  # type: ignore[arg-type]
        self.ends: list[socket.socket] = []
        self.now = 1000.0

    def connect(self, source: str, says: bytes = b"") -> socket.socket:
        end = socket.create_connection(self.listener.getsockname(), 5, source_address=(source, 0))
        end.sendall(says)
        self.ends.append(end)
        self.turn()
        return end

    def turn(self) -> None:
        while self.server.accept(self.now):
            pass
        for one in list(self.guest.watched.values()):
            one.turn(self.now)
        self.server.tick(self.now)

    def close(self) -> None:
        for connection in list(self.guest.watched.values()):
            self.server.drop(connection)
        for end in (*self.ends, self.listener):
            end.close()
        for name in ("identity", "box", "orders"):
            os.close(self.guest.devices[name])


@pytest.fixture
def shell() -> Iterator[Shell]:
    made = Shell()
    yield made
    made.close()


def is_held(end: socket.socket) -> bool:
    end.setblocking(False)
    try:
        return bool(end.recv(1))
    except BlockingIOError:
        return True
    except ConnectionResetError:
        return False


def test_who_holds_many_connections_loses_his_oldest_and_others_theirs_never(shell: Shell) -> None:
    friend = shell.connect(FRIEND)
    held = [shell.connect(STRANGER) for _ in range(MOST_UNKNOWN_OF_AN_ADDRESS + 5)]
    assert [is_held(end) for end in held] == [False] * 5 + [True] * MOST_UNKNOWN_OF_AN_ADDRESS
    assert is_held(friend) and is_held(shell.connect(FRIEND))
    assert len(shell.guest.watched) == shell.guest.counts["connections"] == MOST_UNKNOWN_OF_AN_ADDRESS + 2


def test_who_speaks_no_tls_again_and_again_is_not_heard_and_others_are(shell: Shell) -> None:
    for _ in range(OFFENCES):
        shell.connect(STRANGER, b"GET / HTTP/1.1\r\n\r\n")
        shell.turn()
    assert f"lock-out: {STRANGER} is not heard for a minute" in shell.guest.lines
    assert shell.guest.counts["failed_handshakes"] == OFFENCES and not shell.guest.watched
    assert not is_held(shell.connect(STRANGER)) and shell.guest.counts["locked_out"] == 1
    assert is_held(shell.connect(FRIEND))
    shell.now += LOCKED
    assert is_held(shell.connect(STRANGER))
