"""Commands and files into dom0 and back, over QEMU's end of a virtio serial port. The other end is dom0/agent.py.

A frame is a kind (one byte), a length (u32, little endian) and so many bytes:

    H  hello: the agent says it back             both ways
    Q  a request, JSON: run, put or get          to the agent
    D  a piece of a file                         to the agent
    O  a piece of output or of a file            from the agent
    X  the end of a request, JSON                from the agent
"""

from __future__ import annotations

import json
import secrets
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

HEAD: Final = struct.Struct("<cI")
PIECE: Final = 1 << 16
LARGEST: Final = 1 << 24
"""Of a frame. What a command prints is bounded by OUTPUT."""
OUTPUT: Final = 64 << 20
GRACE: Final = 20.0
"""Seconds on top of a command's own time for the agent to say that it ended it."""


class RigError(Exception):
    """The machine did not do what it was asked: the message says what, and what it said last."""


class RigTimeout(RigError):
    """A command took longer than it may and was ended. ``output`` is what it had printed."""

    def __init__(self, why: str, output: str) -> None:
        super().__init__(f"{why}\n{output[-4000:]}")
        self.output = output


class Channel:
    """One connection. Requests are answered one after the other, from however many threads they come."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(path))
        self._come = bytearray()  # and not taken yet
        self._is_behind = False  # the agent may still be at what somebody no longer waits for

    def close(self) -> None:
        self._socket.close()

    def hello(self, timeout: float) -> bool:
        """True once the agent has answered; False if it has not within ``timeout`` seconds."""
        over = time.monotonic() + timeout
        said = secrets.token_bytes(16)
        try:
            self._socket.settimeout(timeout)
            self._send(b"H", said)
            while True:
                kind, data = self._receive(over)
                if (kind, data) == (b"H", said):
                    return True
        except TimeoutError:
            return False

    def run(
        self,
        command: Sequence[str],
        timeout: float,
        env: Mapping[str, str] | None = None,
        show: Callable[[bytes], object] | None = None,
    ) -> tuple[int, bytes]:
        """Exit code and output. ``show`` is handed the output as it comes. Errors: RigTimeout, RigError."""
        request = {"do": "run", "command": list(command), "timeout": timeout, "env": dict(env or {})}
        output, answer = self._ask(request, timeout + GRACE, show=show)
        if answer["timed_out"]:
            text = output.decode(errors="replace")
            raise RigTimeout(f"{' '.join(command)}: no end after {timeout:.0f} s", text)
        return int(str(answer["code"])), output

    def put(self, path: str, data: bytes, mode: int, timeout: float) -> None:
        self._ask({"do": "put", "path": path, "size": len(data), "mode": mode}, timeout, body=data)

    def get(self, path: str, timeout: float) -> bytes:
        return self._ask({"do": "get", "path": path}, timeout)[0]

    def _ask(
        self,
        request: dict[str, object],
        timeout: float,
        body: bytes = b"",
        show: Callable[[bytes], object] | None = None,
    ) -> tuple[bytes, dict[str, object]]:
        over = time.monotonic() + timeout
        output = bytearray()
        with self._lock:
            try:
                if self._is_behind and not self.hello(timeout):
                    raise RigError(f"dom0 is still at what it was asked before: {request}")
                self._is_behind = True
                self._socket.settimeout(timeout)
                self._send(b"Q", json.dumps(request).encode())
                for start in range(0, len(body), PIECE):
                    self._send(b"D", body[start : start + PIECE])
                while True:
                    kind, data = self._receive(over)
                    if kind == b"X":
                        break
                    if kind == b"O":
                        output += data
                        if show:
                            show(data)
                    if len(output) > OUTPUT:
                        raise RigError(f"{request}: more than {OUTPUT >> 20} MiB of output")
                self._is_behind = False
            except TimeoutError:
                raise RigError(f"dom0 does not answer: {request}, {timeout:.0f} s") from None
            except OSError as error:
                raise RigError(f"the machine is gone: {error}") from None
        answer: dict[str, object] = json.loads(data)
        if "error" in answer:
            raise RigError(f"{request['do']} {request.get('path', request.get('command'))}: {answer['error']}")
        return bytes(output), answer

    def _send(self, kind: bytes, data: bytes) -> None:
        self._socket.sendall(HEAD.pack(kind, len(data)) + data)

    def _receive(self, over: float) -> tuple[bytes, bytes]:
        """The next frame. One that does not come whole in time is there for the next who waits."""
        self._await(HEAD.size, over)
        kind, length = HEAD.unpack_from(self._come)
        if length > LARGEST:
            raise RigError(f"a frame of {length} bytes: the rig and its agent have lost each other")
        end = HEAD.size + length
        self._await(end, over)
        data = bytes(self._come[HEAD.size : end])
        del self._come[:end]
        return kind, data

    def _await(self, count: int, over: float) -> None:
        while len(self._come) < count:
            left = over - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self._socket.settimeout(left)
            piece = self._socket.recv(1 << 20)
            if not piece:
                raise RigError("the machine has hung up")
            self._come += piece
