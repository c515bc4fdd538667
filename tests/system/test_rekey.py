"""Connections that outlive their keys: a session is replaced after 120 s (REKEY_AFTER_TIME), under running traffic.

The transfers begin with the first system test and are looked at after the last one, so that the two minutes pass
while others work (see pytest_collection_modifyitems in conftest.py).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.system.lab import End, Lab, Septum, Transfer, WireguardGo, pair, reaches, wait_for

pytestmark = pytest.mark.root

REKEY_AFTER_TIME = 120
RATE, PACE = 40_000, 20  # bytes and writes a second, each way: enough to show a gap, too little to disturb other tests


@dataclass
class Long:
    """Two connections, one each way, between two ends that shook hands at `began` (Unix time)."""

    ends: tuple[End, End]
    transfers: tuple[Transfer, Transfer]
    began: float

    def alive(self) -> bool:
        return all(transfer.running() and transfer.intact for transfer in self.transfers)


@pytest.fixture(scope="session")
def long_transfers() -> Iterator[dict[str, Long]]:
    with contextlib.ExitStack() as stack:
        yield {
            "septum calls wireguard-go": _begin(stack, "left", WireguardGo),
            "wireguard-go calls septum": _begin(stack, "right", WireguardGo),
            "septum calls septum": _begin(stack, "left", Septum),
        }


def _begin(stack: contextlib.ExitStack, calls: str, kind: type[End]) -> Long:
    lab = stack.enter_context(Lab())
    own, other = pair(lab.left, lab.right, psk=True, calls=calls)
    if calls == "right":
        other = other.with_peer(keepalive=25)
    far = stack.enter_context(Septum(lab.right, other, admit=True) if kind is Septum else kind(lab.right, other))
    near = stack.enter_context(Septum(lab.left, own))
    far.wait_for_handshake() if calls == "right" else None
    assert reaches(lab.left.host, lab.right.host4, 15)
    there, back = (
        Transfer(lab.left.host, lab.right.host, address, rate=RATE, pace=PACE, reverse=reverse)
        for address, reverse in ((lab.right.host4, False), (lab.right.host6, True))
    )
    return Long((near, far), (there, back), time.time())


def test_a_long_transfer_begins(long_transfers: dict[str, Long]) -> None:
    assert all(long.alive() for long in long_transfers.values())


@pytest.mark.timeout(300)
def test_the_long_transfer_outlived_its_keys(long_transfers: dict[str, Long], report: list[tuple[str, str]]) -> None:
    for name, long in long_transfers.items():
        replaced = long.began + REKEY_AFTER_TIME - 10
        wait_for(
            f"{name}: a second handshake",
            lambda long=long, replaced=replaced: all(end.shaken(replaced) for end in long.ends),  # type: ignore[misc]
            seconds=max(0, replaced + 40 - time.time()),
            every=0.5,
        )
        before = [transfer.received for transfer in long.transfers]
        time.sleep(2)
        assert long.alive(), name
        for transfer, so_far in zip(long.transfers, before, strict=True):
            transfer.finish()
            assert transfer.received > so_far + RATE, f"{name}: no data after the new handshake"
            assert transfer.longest_silence() < 3, name
        silence = max(transfer.longest_silence() for transfer in long.transfers)
        report.append((f"rekey, {name}: longest silence", f"{silence * 1000:8.0f} ms"))
