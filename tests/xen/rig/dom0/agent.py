"""Answers the rig from inside dom0, over a virtio serial port (see channel.py for the other end and the frames).

One request at a time: run a command, take a file, give a file. Standard library only.
"""

from __future__ import annotations

import json
import os
import select
import signal
import struct
import subprocess
import time
from pathlib import Path

HEAD = struct.Struct("<cI")  # kind, length
PIECE = 1 << 16
NAME = "septum.rig"


class Gone(Exception):
    """The rig has hung up: whatever was half said is void."""


class Port:
    """Whole frames, to and from the rig."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_RDWR)

    def _take(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            piece = os.read(self._fd, min(count - len(data), 1 << 20))
            if not piece:
                raise Gone
            data += piece
        return bytes(data)

    def receive(self) -> tuple[bytes, bytes]:
        kind, length = HEAD.unpack(self._take(HEAD.size))
        return kind, self._take(length)

    def send(self, kind: bytes, data: bytes) -> None:
        frame = memoryview(HEAD.pack(kind, len(data)) + data)
        while frame:
            try:
                frame = frame[os.write(self._fd, frame) :]
            except BrokenPipeError:
                raise Gone from None

    def done(self, **answer: object) -> None:
        self.send(b"X", json.dumps(answer).encode())


def run(port: Port, request: dict) -> None:
    """Runs a command; its output goes out as it comes. The time that it may take is bounded, and then it is killed."""
    process = subprocess.Popen(
        request["command"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd="/root",
        env={**os.environ, **request.get("env", {})},
        start_new_session=True,
        close_fds=True,
    )
    assert process.stdout is not None
    out, end, over = process.stdout.fileno(), os.pidfd_open(process.pid), time.monotonic() + request["timeout"]
    timed_out = False
    try:
        while not timed_out:
            ready = select.select([out, end], [], [], max(0.0, over - time.monotonic()))[0]
            if out in ready:
                piece = os.read(out, PIECE)
                if not piece:
                    break
                port.send(b"O", piece)
            elif ready:
                break  # what it left behind in the background may hold the pipe open
            timed_out = time.monotonic() > over
        if not timed_out:
            timed_out = not select.select([end], [], [], max(0.0, over - time.monotonic()))[0]
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.stdout.close()
        os.close(end)
    port.done(code=process.wait(), timed_out=timed_out)


def put(port: Port, request: dict) -> None:
    """Takes a file: it is there whole, or not at all."""
    path, left = Path(request["path"]), request["size"]
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(path.name + ".half")
    with half.open("wb") as into:
        while left:
            kind, piece = port.receive()
            if kind != b"D":
                raise Gone
            left -= len(piece)
            into.write(piece)
    half.chmod(request["mode"])
    half.rename(path)
    port.done()


def get(port: Port, request: dict) -> None:
    with open(request["path"], "rb") as file:
        while piece := file.read(PIECE):
            port.send(b"O", piece)
    port.done()


REQUESTS = {"run": run, "put": put, "get": get}


def answer(port: Port) -> None:
    kind, data = port.receive()
    if kind == b"H":  # hello: the rig looks for its own words in what comes back
        port.send(b"H", data)
    elif kind == b"Q":
        request = json.loads(data)
        try:
            REQUESTS[request["do"]](port, request)
        except OSError as error:
            port.done(error=str(error))


def find() -> str:
    for _ in range(200):
        for port in Path("/sys/class/virtio-ports").glob("*/name"):
            if port.read_text().strip() == NAME:
                return f"/dev/{port.parent.name}"
        time.sleep(0.05)
    raise SystemExit("no virtio port for the rig")


def main() -> None:
    port = Port(find())
    while True:
        try:
            answer(port)
        except Gone:
            time.sleep(0.02)


if __name__ == "__main__":
    main()
