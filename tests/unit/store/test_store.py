"""The store: versions, namespaces, bounds, and crashes at every moment of a put."""

from __future__ import annotations

import errno
import os
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2s
from pathlib import Path

import pytest
from septum.v1.blobs import BLOB_ABSENT, BLOB_FULL, BLOB_OK, BLOB_STALE, BlobReply, BlobRequest

from components.store import main
from components.store.slots import IMAGE, LARGEST_BLOB, NAMES, NAMES_OF_ONE, SLOT, VERSIONS, Full, Image, Stale, Store
from tests.unit.fake_guest import FakeCounter


class Disk:
    """An image in memory that remembers its writes and knows which of them were synced."""

    def __init__(self, data: bytes = b"") -> None:
        self.data = bytearray(data)
        self.writes: list[tuple[int, bytes]] = []
        self.unsynced = 0

    def read(self, offset: int, length: int) -> bytes:
        return bytes(self.data[offset : offset + length])

    def write(self, offset: int, data: bytes) -> None:
        self.apply(offset, data)
        self.writes.append((offset, data))
        self.unsynced += 1

    def apply(self, offset: int, data: bytes) -> None:
        if len(self.data) < offset + len(data):
            self.data.extend(bytes(offset + len(data) - len(self.data)))
        self.data[offset : offset + len(data)] = data

    def sync(self) -> None:
        self.unsynced = 0

    def open(self) -> Store:
        return Store(Image(self.read, self.write, self.sync))


def test_puts_are_there_after_a_restart_each_in_its_consumers_own_space() -> None:
    disk = Disk()
    store = disk.open()
    for version in range(1, 6):
        store.put("keymgr", "floor", version, b"k%d" % version)
        assert disk.unsynced == 0
    store.put("admin", "floor", 1, b"a")
    store.put("admin", "größe", 1, bytes(LARGEST_BLOB))
    for one in (store, disk.open()):
        assert one.get("keymgr", "floor") == (5, b"k5")
        assert one.get("admin", "floor") == (1, b"a")
        assert one.get("admin", "größe") == (1, bytes(LARGEST_BLOB))
        assert one.get("admin", "keymgr") is None and one.get("ad", "minfloor") is None
        assert (one.count, one.size, one.torn) == (3, 2 + 1 + LARGEST_BLOB, 0)
    assert len(disk.data) <= IMAGE


@pytest.mark.parametrize("version", [0, 1, 2, 4, 2**64 - 1])
def test_only_the_next_version_is_taken(version: int) -> None:
    store = Disk().open()
    store.put("a", "x", 1, b"1")
    store.put("a", "x", 2, b"2")
    with pytest.raises(Stale) as stale:
        store.put("a", "x", version, b"other")
    assert stale.value.version == 2 and store.get("a", "x") == (2, b"2")


def test_the_first_version_is_one() -> None:
    with pytest.raises(Stale) as stale:
        Disk().open().put("a", "x", 2, b"")
    assert stale.value.version == 0


def test_bounds() -> None:
    disk = Disk()
    store = disk.open()
    for arguments in (
        ("a", "x" * 65, 1, b""),
        ("a" * 65, "x", 1, b""),
        ("a", "ä" * 33, 1, b""),
        ("a", "x", 1, bytes(65536)),
    ):
        with pytest.raises(Full):
            store.put(*arguments)
    assert disk.writes == []
    for i in range(NAMES_OF_ONE):
        store.put("a", str(i), 1, b"%d" % i)
    with pytest.raises(Full):
        store.put("a", "one more", 1, b"")
    for i in range(NAMES - NAMES_OF_ONE):
        store.put("b", str(i), 1, b"")
    with pytest.raises(Full):
        store.put("c", "one more", 1, b"")
    store.put("a", "7", 2, b"still")
    again = disk.open()
    assert again.count == NAMES and again.get("a", "7") == (2, b"still") and again.get("a", "1535") == (1, b"1535")
    with pytest.raises(Full):
        again.put("a", "one more", 1, b"")


def old_image(disk: Disk, *slots: tuple[int, int, bytes, bytes, bytes]) -> None:
    """Slots as the first format has them: number, version, consumer, name, blob."""
    for number, version, consumer, name, blob in slots:
        body = (
            struct.pack("<8sQIBB", b"SEPTUM1\n", version, len(blob), len(consumer), len(name)) + consumer + name + blob
        )
        disk.apply(number * SLOT, blake2s(body).digest() + body)


def test_an_image_of_the_first_format_is_read_and_goes_on() -> None:
    disk = Disk()
    old_image(disk, (0, 3, b"keymgr", b"f", b"three"), (1, 2, b"keymgr", b"f", b"two"), (2, 1, b"a", b"g", b"one"))
    store = disk.open()
    assert (store.count, store.torn) == (2, 0)
    assert store.get("keymgr", "f") == (3, b"three") and store.get("a", "g") == (1, b"one")
    store.put("keymgr", "f", 4, b"four")
    assert disk.open().get("keymgr", "f") == (4, b"four")
    disk.data[SLOT + 40] ^= 1  # the fourth, torn: the third is there still
    torn = disk.open()
    assert torn.get("keymgr", "f") == (3, b"three") and torn.torn == 1


def test_a_lazy_put_is_on_the_disk_before_one_that_is_not() -> None:
    disk = Disk()
    store = disk.open()
    for page in range(5):
        store.put("a", f"page{page}", 1, b"p", lazy=True)
    assert disk.unsynced == 5
    order: list[str] = []
    store = Store(Image(disk.read, lambda at, data: order.append("write"), lambda: order.append("sync")))
    store.put("a", "q", 1, b"", lazy=True)
    assert order == ["sync", "write"], "its own pages are not all: those of the life before are not on the disk either"
    order.clear()
    store.put("a", "r", 1, b"", lazy=True)
    store.put("a", "s", 1, b"", lazy=True)
    store.put("a", "head", 1, b"")
    assert order == ["write", "write", "sync", "write", "sync"]
    store.put("a", "head", 2, b"")
    assert order[5:] == ["write", "sync"], "nothing was left to be synced"
    store.put("a", "q", 2, b"", lazy=True)
    store.put("a", "q", 3, b"", lazy=True)
    assert order[7:] == ["write", "sync", "write"], "one slot of a pair at a time is at stake"


def test_starting_reads_heads_alone_and_a_blob_is_looked_at_when_it_is_asked_for() -> None:
    disk = Disk()
    store = disk.open()
    for i in range(300):
        store.put("a", str(i), 1, bytes(60000))
    read = 0

    def count(offset: int, length: int) -> bytes:
        nonlocal read
        read += len(data := disk.read(offset, length))
        return data

    again = Store(Image(count, disk.write, disk.sync))
    assert again.count == 300 and read < 600 * 300
    assert again.size == 300 * 60000


@pytest.mark.parametrize(
    ("version", "consumer", "name"),
    [(3, b"\xff", b"x"), (3, b"a", b"\xc3"), (VERSIONS, b"a", b"x"), (2**64 - 1, b"a", b"x")],
)
def test_what_no_put_could_have_written_is_nothing_whole_whatever_its_digest(
    version: int, consumer: bytes, name: bytes
) -> None:
    disk = Disk()
    disk.open().put("a", "x", 1, b"1")
    disk.open().put("a", "x", 2, b"2")
    body = struct.pack("<8sQIBB", b"SEPTUM1\n", version, 4, len(consumer), len(name)) + consumer + name + b"evil"
    disk.apply(0, blake2s(body).digest() + body)
    store = disk.open()
    assert store.torn == 1 and store.get("a", "x") == (2, b"2")
    store.put("a", "x", 3, b"3")
    assert disk.open().torn == 0 and disk.open().get("a", "x") == (3, b"3")


def test_versions_end_before_they_could_not_be_followed() -> None:
    disk = Disk()
    body = struct.pack("<8sQIBB", b"SEPTUM1\n", VERSIONS - 1, 0, 1, 1) + b"ax"
    disk.apply(0, blake2s(body).digest() + body)
    store = disk.open()
    assert store.get("a", "x") == (VERSIONS - 1, b"")
    with pytest.raises(Stale):
        store.put("a", "x", VERSIONS, b"")


def history() -> tuple[Disk, list[tuple[str, str, int, bytes]]]:
    """A disk, and what was put on it in order."""
    disk = Disk()
    store = disk.open()
    puts = [
        ("a", "x", 1, b"one"),
        ("a", "y", 1, b"yes" * 20),
        ("a", "x", 2, b"two" * 50),
        ("b", "x", 1, b"b"),
        ("a", "x", 3, b"3"),
    ]
    for put in puts:
        store.put(*put)
    return disk, puts


def state_after(puts: list[tuple[str, str, int, bytes]]) -> dict[tuple[str, str], tuple[int, bytes]]:
    return {(consumer, name): (version, blob) for consumer, name, version, blob in puts}


def read_back(disk: Disk) -> dict[tuple[str, str], tuple[int, bytes]]:
    store = disk.open()
    names = [("a", "x"), ("a", "y"), ("b", "x")]
    return {owner: found for owner in names if (found := store.get(*owner)) is not None}


def test_a_crash_after_any_byte_of_any_put_leaves_all_that_was_answered() -> None:
    disk, puts = history()
    for i, (offset, data) in enumerate(disk.writes):
        before, after = state_after(puts[:i]), state_after(puts[: i + 1])
        for length in range(len(data) + 1):
            crashed = Disk()
            for earlier in disk.writes[:i]:
                crashed.apply(*earlier)
            crashed.apply(offset, data[:length])
            assert read_back(crashed) == (after if length == len(data) else before)


def test_a_crash_may_leave_any_of_the_pages_of_a_put() -> None:
    chance = random.Random(1)
    disk = Disk()
    store = disk.open()
    for version, fill in enumerate((b"a", b"b", b"c"), 1):
        store.put("a", "x", version, fill * 60000)
    offset, data = disk.writes[2]
    for _ in range(50):
        crashed = Disk()
        crashed.apply(*disk.writes[0])
        crashed.apply(*disk.writes[1])
        pages = [at for at in range(0, len(data), 4096) if chance.random() < 0.7]
        for at in pages:
            crashed.apply(offset + at, data[at : at + 4096])
        reborn = crashed.open()
        whole = len(pages) == len(range(0, len(data), 4096))
        assert reborn.get("a", "x") == ((3, b"c" * 60000) if whole else (2, b"b" * 60000))
        reborn.put("a", "x", 4 if whole else 3, b"goes on")
        assert crashed.open().get("a", "x") == (4 if whole else 3, b"goes on")


def test_a_torn_first_put_never_was_and_its_place_is_used_again() -> None:
    disk = Disk()
    disk.open().put("a", "x", 1, b"first")
    disk.data[50:] = b""
    store = disk.open()
    assert store.torn == 1 and store.get("a", "x") is None
    store.put("a", "z", 1, b"z")
    again = disk.open()
    assert again.torn == 0 and again.get("a", "z") == (1, b"z") and disk.writes[-1][0] == 0


def test_decay_of_any_byte_is_found() -> None:
    disk, puts = history()
    x3 = next(i for i, put in enumerate(puts) if put[2] == 3)
    offset, data = disk.writes[x3]
    for at in range(len(data)):
        rotten = Disk(disk.data)
        rotten.data[offset + at] ^= 0x40
        store = rotten.open()
        assert store.get("a", "x") == (2, b"two" * 50) and store.torn == 1


def test_whatever_is_in_the_image_is_no_blob() -> None:
    chance = random.Random(2)
    for _ in range(20):
        assert Disk(chance.randbytes(3 * SLOT)).open().count == 0


# the shell ------------------------------------------------------------------------------------------------------------


@dataclass
class FakeGuest:
    """As much of a guest as the store uses."""

    devices: dict[str, int]
    counters: dict[str, FakeCounter] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    ask: Callable[[str, BlobRequest], BlobReply] = lambda consumer, request: BlobReply()
    tick: Callable[[float], None] = lambda now: None

    @property
    def log(self) -> FakeGuest:
        return self

    def warning(self, event: str, text: str) -> None:
        self.lines.append(event)

    def counter(self, name: str) -> FakeCounter:
        return self.counters.setdefault(name, FakeCounter())

    def serve(
        self, port: str, handler: Callable[[str, BlobRequest], BlobReply], when: Callable[[], bool] | None = None
    ) -> None:
        assert port == "blobs" and (when is None or when())
        self.ask = handler

    def is_joined(self, port: str) -> bool:
        return False

    def timer(self, handler: Callable[[float], None]) -> None:
        self.tick = handler


def opened(path: Path) -> FakeGuest:
    guest = FakeGuest({"store": os.open(path, os.O_RDWR | os.O_CREAT)})
    main.build(guest)  # type: ignore[arg-type]
    return guest


def test_the_shell_over_a_real_file(tmp_path: Path) -> None:
    guest = opened(tmp_path / "image")
    assert guest.ask("keymgr", BlobRequest(name="f")).status == BLOB_ABSENT
    assert guest.ask("keymgr", BlobRequest(name="f", version=1, blob=b"1")) == BlobReply(status=BLOB_OK, version=1)
    assert guest.ask("keymgr", BlobRequest(name="f", version=1, blob=b"1")) == BlobReply(status=BLOB_STALE, version=1)
    assert guest.ask("keymgr", BlobRequest(name="f", version=7)) == BlobReply(status=BLOB_STALE, version=1)
    assert guest.ask("keymgr", BlobRequest(name="f", version=2, blob=b"22")).status == BLOB_OK
    assert guest.ask("other", BlobRequest(name="f")).status == BLOB_ABSENT
    assert guest.ask("other" * 20, BlobRequest(name="f", version=1, blob=b"1")).status == BLOB_FULL
    guest.tick(0.0)
    values = {name: counter.value for name, counter in guest.counters.items()}
    assert values == {"gets": 2 + 1, "puts": 2, "stale": 1, "blobs": 1, "bytes": 2}
    os.close(guest.devices["store"])
    reborn = opened(tmp_path / "image")
    reborn.tick(0.0)
    assert reborn.ask("keymgr", BlobRequest(name="f")) == BlobReply(status=BLOB_OK, version=2, blob=b"22")
    assert reborn.lines == [] and reborn.counters["blobs"].value == 1
    os.close(reborn.devices["store"])
    with open(tmp_path / "image", "r+b") as file:
        file.seek(60)
        file.write(b"\xff")
    torn = opened(tmp_path / "image")
    torn.tick(0.0)
    assert torn.lines == ["torn"]
    os.close(torn.devices["store"])


def test_a_full_disk_is_an_answer_and_a_broken_one_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guest = opened(tmp_path / "image")
    guest.tick(0.0)
    for code in (errno.ENOSPC, errno.EIO):

        def fails(fd: int, data: bytes, offset: int, code: int = code) -> int:
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(os, "pwrite", fails)
        request = BlobRequest(name="f", version=1, blob=b"1")
        if code == errno.ENOSPC:
            assert guest.ask("keymgr", request).status == BLOB_FULL
        else:
            with pytest.raises(OSError, match="error"):
                guest.ask("keymgr", request)
    os.close(guest.devices["store"])
