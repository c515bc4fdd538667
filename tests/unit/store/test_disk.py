"""The store over a disk that somebody else keeps: the same as over a file of its own, whatever he says."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from septum.v1.disk import DISK_DONE, DISK_FAILED, DISK_FULL, DISK_READ, DISK_WRITE, DiskDone, DiskOrder

from appliance.monitor.xen import keeping
from appliance.vchan.codec import Codec
from appliance.vchan.schema import schema
from components.store import slots
from components.store.disk import HEAD, HEADS, PIECE, Disk
from components.store.slots import IMAGE, LARGEST_BLOB, SLOT, Full, Stale, Store

SHAPE = schema("disk")
ORDERS, DONES = Codec(SHAPE.backward), Codec(SHAPE.forward)  # type: ignore[arg-type]


class Keeper:
    """Who keeps ``path``, with both schemas between. ``seen`` are the orders."""

    def __init__(self, path: Path) -> None:
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT)
        self.image = keeping.Image(self.fd)
        self.seen: list[DiskOrder] = []
        self.bend: Callable[[DiskOrder, DiskDone], DiskDone] = lambda order, done: done

    def __call__(self, order: DiskOrder) -> DiskDone:
        self.seen.append(order)
        untrusted = ORDERS.decode(b"".join(ORDERS.encode(order)))
        done = self.bend(order, self.image.carry_out(untrusted))
        return DONES.decode(b"".join(DONES.encode(done)))  # type: ignore[no-any-return]

    def open(self) -> Store:
        return Store(Disk(self).image)


@pytest.fixture
def keeper(tmp_path: Path) -> Iterator[Keeper]:
    made = Keeper(tmp_path / "store")
    yield made
    os.close(made.fd)


def test_bounds_fit_together() -> None:
    assert slots._HEAD <= HEAD and HEAD * HEADS == PIECE
    fields = {rule.name: rule for rule in SHAPE.backward.fields}  # type: ignore[union-attr]
    assert fields["offset"].high + 1 == IMAGE and fields["count"].high == HEADS
    assert fields["length"].high == fields["data"].high == PIECE and fields["every"].high >= SLOT
    assert SHAPE.labels == {"CONTROL", "BLACK"}


def test_the_same_as_over_a_file(keeper: Keeper, tmp_path: Path) -> None:
    """Two thousand puts and gets at random, with restarts between: both stores say the same, and the files are."""
    from components.store.main import file_image

    chance = random.Random(4)
    fd = os.open(tmp_path / "other", os.O_RDWR | os.O_CREAT)
    stores = [keeper.open(), Store(file_image(fd))]
    for _ in range(2000):
        consumer, name = chance.choice(("keymgr", "config")), f"n{chance.randrange(40)}"
        blob = chance.randbytes(chance.choice((0, 1, 100, 33_000, LARGEST_BLOB)))
        version, lazy = chance.randrange(1, 4), chance.random() < 0.5
        said = []
        for store in stores:
            found = store.get(consumer, name)
            try:
                store.put(consumer, name, (found[0] if found else 0) + version // 2, blob, lazy)
                said.append((found, None))
            except (Stale, Full) as error:
                said.append((found, repr(error)))
        assert said[0] == said[1]
        if chance.random() < 0.02:
            stores = [keeper.open(), Store(file_image(fd))]
    assert (tmp_path / "store").read_bytes() == (tmp_path / "other").read_bytes()
    assert stores[0].torn == stores[1].torn == 0
    os.close(fd)


def test_a_start_reads_the_heads_of_many_slots_at_once(keeper: Keeper) -> None:
    store = keeper.open()
    for number in range(200):
        store.put("keymgr", str(number), 1, b"x")
    keeper.seen.clear()
    again = keeper.open()
    assert again.count == 200 and len(keeper.seen) <= 400 / HEADS + 2
    assert again.get("keymgr", "199") == (1, b"x")


def test_a_put_is_synced_before_it_is_answered(keeper: Keeper, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", lambda fd: synced.append(len(keeper.seen)))
    store = keeper.open()
    store.put("keymgr", "floor", 1, bytes(LARGEST_BLOB))
    assert [order.act for order in keeper.seen[-4:]] == [DISK_WRITE] * 3 + [3] and synced[-1:] == [len(keeper.seen)]


@pytest.mark.parametrize(
    ("outcome", "number"), [(DISK_FULL, errno.ENOSPC), (DISK_FAILED, errno.EIO)], ids=["full", "failed"]
)
def test_what_cannot_be_written_is_an_error(keeper: Keeper, outcome: int, number: int) -> None:
    store = keeper.open()
    keeper.bend = lambda order, done: DiskDone(outcome=outcome) if order.act == DISK_WRITE else done
    with pytest.raises(OSError, match="the disk") as error:
        store.put("keymgr", "floor", 1, b"x")
    assert error.value.errno == number
    keeper.bend = lambda order, done: done
    assert keeper.open().get("keymgr", "floor") in (None, (1, b"x"))


@pytest.mark.parametrize("cut", [b"", b"x" * 7])
def test_a_read_of_another_length_is_an_error(keeper: Keeper, cut: bytes) -> None:
    keeper.bend = lambda order, done: DiskDone(outcome=DISK_DONE, size=1 << 20, data=cut)
    with pytest.raises(OSError, match="bytes for"):
        keeper.open()


def test_a_disk_that_lies_about_what_it_holds_gives_no_blob_that_nobody_put(keeper: Keeper) -> None:
    store = keeper.open()
    store.put("keymgr", "floor", 1, b"one")
    store.put("keymgr", "floor", 2, b"two")
    chance = random.Random(5)

    def bent(order: DiskOrder, done: DiskDone) -> DiskDone:
        if order.act != DISK_READ:
            return done
        data = bytearray(done.data)
        for _ in range(3):
            data[chance.randrange(min(300, len(data)))] ^= 1 << chance.randrange(8)
        return DiskDone(outcome=DISK_DONE, size=chance.choice((done.size, 0, 2**64 - 1)), data=bytes(data))

    keeper.bend = bent
    for _ in range(200):
        assert keeper.open().get("keymgr", "floor") in (None, (1, b"one"), (2, b"two"))


def test_orders_that_make_no_sense_harm_nothing(keeper: Keeper, tmp_path: Path) -> None:
    carry_out = keeper.image.carry_out
    assert carry_out(DiskOrder(act=DISK_READ, length=PIECE, count=2)).outcome == DISK_FAILED
    assert carry_out(DiskOrder(act=DISK_READ, length=PIECE, count=0)) == DiskDone(outcome=DISK_DONE)
    assert carry_out(DiskOrder(act=DISK_READ, offset=IMAGE - 1, length=8, count=1)).data == bytes(8)
    assert (tmp_path / "store").stat().st_size == 0
