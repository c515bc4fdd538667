"""The hostile component: it is built and sealed like any other, and makes one attempt after the other.

Which one is next, it reads from a pipe that the test writes. What becomes of it is told by its first counter: BEGAN
when it starts, REFUSED if an error came back and it lives, SUCCEEDED if it got what it wanted. Most attempts are
answered by SIGSYS, which leaves BEGAN; then the monitor rebuilds the domain, and the intruder with it.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import random
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import Any

BEGAN, REFUSED, SUCCEEDED = 1, 2, 3

# Bound before the seal: afterwards nothing can be looked up in a library any more
LIBC = ctypes.CDLL(None, use_errno=True)
SYSCALL = LIBC.syscall
SYSCALL.restype = ctypes.c_long
PTRACE, PROCESS_VM_READV = 101, 310  # x86_64, as the whole of this suite


def _syscall(number: int, *arguments: int) -> int:
    result = int(SYSCALL(ctypes.c_long(number), *map(ctypes.c_long, arguments)))
    if result < 0:
        raise OSError(ctypes.get_errno(), "refused")
    return result


def open_a_file(_: Any) -> None:
    os.open("/etc/passwd", os.O_RDONLY)


def make_a_socket(_: Any) -> None:
    socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)


def reach_the_network(_: Any) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
        end.sendto(b"hello", ("127.0.0.1", 9))


def fork(_: Any) -> None:
    if os.fork() == 0:
        os._exit(0)


def execute(_: Any) -> None:
    os.execv("/bin/true", ["true"])


def map_executable_memory(_: Any) -> None:
    mmap.mmap(-1, 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)


def signal_a_sibling(settings: Any) -> None:
    os.kill(settings["sibling"], signal.SIGCONT)


def trace_a_sibling(settings: Any) -> None:
    _syscall(PTRACE, 0x4206, settings["sibling"], 0, 0)  # PTRACE_SEIZE


def read_a_siblings_memory(settings: Any) -> None:
    room = ctypes.create_string_buffer(8)
    local = struct.pack("QQ", ctypes.addressof(room), 8)
    remote = struct.pack("QQ", settings["address"], 8)
    pair = (ctypes.create_string_buffer(local), ctypes.create_string_buffer(remote))
    _syscall(PROCESS_VM_READV, settings["sibling"], ctypes.addressof(pair[0]), 1, ctypes.addressof(pair[1]), 1, 0)


def see_a_siblings_pid(settings: Any) -> None:
    os.getpgid(settings["sibling"])


ATTEMPTS: dict[str, Callable[[Any], None]] = {
    attempt.__name__.replace("_", " "): attempt
    for attempt in (
        open_a_file,
        make_a_socket,
        reach_the_network,
        fork,
        execute,
        map_executable_memory,
        signal_a_sibling,
        trace_a_sibling,
        read_a_siblings_memory,
        see_a_siblings_pid,
    )
}
"""What the kernel must refuse. Each does what its name says if nothing stops it (the control runs them unsealed)."""


def exhaust_memory(guest: Any) -> None:
    held = []
    while True:
        held.append(bytearray(16 << 20))


def keep_the_cpu(guest: Any) -> None:
    while True:
        pass


def _pages(guest: Any) -> list[memoryview]:
    return [port.endpoint._vchan._shared for port in guest._all]


def scribble_its_rings(guest: Any) -> None:
    until = time.monotonic() + 1.0
    chance = random.Random(1)
    pages = _pages(guest)
    while time.monotonic() < until:
        for page in pages:
            at = chance.choice((chance.randrange(64), chance.randrange(len(page))))
            page[at] = chance.randrange(256)
        for port in guest._all:
            port.endpoint._wire.notify()


def send_what_it_has_no_right_to(guest: Any) -> None:
    """Well-framed messages that no schema allows, on every channel, in both directions."""
    body = bytes([0xFA, 0x7F, 0x01, 0x00])
    for port in guest._all:
        vchan = port.endpoint._vchan
        if vchan.fits(12):
            vchan.write((struct.pack("<II", len(body), port.endpoint._next_out), body), 12)
        port.endpoint._wire.notify()


RESOURCES: dict[str, Callable[[Any], None]] = {
    attempt.__name__.replace("_", " "): attempt
    for attempt in (exhaust_memory, keep_the_cpu, scribble_its_rings, send_what_it_has_no_right_to)
}
"""What the kernel allows and its neighbours or the monitor must bear."""


NAMES = (*ATTEMPTS, *RESOURCES)


def build(guest: Any) -> None:
    """As any component: registers what it does. It strikes when a number arrives on its own pipe, once a life."""
    outcome = next(iter(guest._page._counters.values()))

    def strike(now: float) -> bool:
        try:
            name = NAMES[int.from_bytes(os.read(guest.devices["attempts"], 8), "little")]
        except BlockingIOError:
            return False  # nothing is asked of it yet
        outcome.set(BEGAN)
        try:
            if name in RESOURCES:
                RESOURCES[name](guest)
                return False
            ATTEMPTS[name](guest.settings)
        except OSError:
            outcome.set(REFUSED)
        else:
            outcome.set(SUCCEEDED)
        return False

    guest.readable("attempts", strike)


def main() -> None:
    """The control: the attempt named on the command line, by an ordinary process. Exit status 0 if it succeeds."""
    settings = {"sibling": int(sys.argv[2]), "address": int(sys.argv[3], 16)}
    ATTEMPTS[sys.argv[1]](settings)
    os._exit(0)


if __name__ == "__main__":
    main()
