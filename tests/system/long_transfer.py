"""Connections that outlive their keys: the program behind test_rekey.py.

A process of its own, since it goes on while other tests run, and has threads: beside a thread, a test that clones a
domain by the raw system call would now and then copy a lock that nobody in the copy can ever release.

Prints "begun" when all connections are made, and in the end one line of JSON.
"""

from __future__ import annotations

import contextlib
import json
import signal
import time
from dataclasses import dataclass

from tests.system.lab import End, Lab, LabError, Septum, Transfer, WireguardGo, pair, reaches, wait_for

REKEY_AFTER_TIME = 120
RATE, PACE = 40_000, 20  # bytes and writes a second, each way: enough to show a gap, too little to disturb other tests


@dataclass
class Long:
    """Two connections, one each way, between two ends that shook hands before `began` (Unix time)."""

    name: str
    ends: tuple[End, End]
    transfers: tuple[Transfer, Transfer]
    began: float


def begin(stack: contextlib.ExitStack, name: str, calls: str, kind: type[End]) -> Long:
    lab = stack.enter_context(Lab())
    own, other = pair(lab.left, lab.right, psk=True, calls=calls)
    if calls == "right":
        other = other.with_peer(keepalive=25)
    far = stack.enter_context(Septum(lab.right, other, admit=True) if kind is Septum else kind(lab.right, other))
    near = stack.enter_context(Septum(lab.left, own))
    if calls == "right":
        far.wait_for_handshake()
    if not reaches(lab.left.host, lab.right.host4, 20):
        raise LabError(f"{name}: no echo")
    there, back = (
        Transfer(lab.left.host, lab.right.host, address, rate=RATE, pace=PACE, reverse=reverse)
        for address, reverse in ((lab.right.host4, False), (lab.right.host6, True))
    )
    return Long(name, (near, far), (there, back), time.time())


def outcome(long: Long) -> dict[str, object]:
    """Waits for a handshake that both ends know of and that the first keys cannot have been, then looks."""
    replaced = long.began + REKEY_AFTER_TIME - 10
    wait_for(
        f"{long.name}: a second handshake",
        lambda: all(end.shaken(replaced) for end in long.ends),
        seconds=max(0, replaced + 40 - time.time()),
        every=1,
    )
    before = [transfer.received for transfer in long.transfers]
    time.sleep(2)
    alive = all(transfer.running() for transfer in long.transfers)
    after = [transfer.received - so_far for transfer, so_far in zip(long.transfers, before, strict=True)]
    for transfer in long.transfers:
        transfer.finish()
    return {
        "alive": alive,
        "intact": all(transfer.intact for transfer in long.transfers),
        "bytes after the new handshake": min(after),
        "silence": max(transfer.longest_silence() for transfer in long.transfers),
    }


def main() -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.ExitStack() as stack:
        longs = [
            begin(stack, "septum calls wireguard-go", "left", WireguardGo),
            begin(stack, "wireguard-go calls septum", "right", WireguardGo),
            begin(stack, "septum calls septum", "left", Septum),
        ]
        print("begun", flush=True)
        print(json.dumps({long.name: outcome(long) for long in longs}), flush=True)


if __name__ == "__main__":
    main()
