"""The timestamp floor across restarts, and a store that loses, forges, rolls back or fails."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.keymgr import tai64n
from components.keymgr.constants import TIMESTAMP_GRANULE
from components.keymgr.floor import NONCE, VERSIONS, Floor, FloorError
from components.keymgr.manager import Side
from components.keymgr.settings import MAX_PEERS
from components.store.slots import LARGEST_BLOB, NAMES
from tests.unit.keymgr.world import START, World, pair

PRIVATE, PUBLIC = b"\x11" * 32, b"\x12" * 32
PEERS = [bytes([n]) * 32 for n in range(1, 6)]


def loaded(floor: Floor) -> Floor:
    for name in floor.missing():
        floor.load(name, 0, b"")
    return floor


def fresh() -> Floor:
    return Floor(PRIVATE, PUBLIC, PEERS)


@given(st.floats(0, 4e9))
def test_timestamps_sort_by_time_and_hide_the_rest(wall: float) -> None:
    stamp = tai64n.stamp(wall)
    assert len(stamp) == 12
    seconds, nanoseconds = int.from_bytes(stamp[:8], "big"), int.from_bytes(stamp[8:], "big")
    assert seconds == 2**62 + 10 + int(wall)
    assert nanoseconds % TIMESTAMP_GRANULE == 0 and nanoseconds < 10**9
    assert 0 <= wall - (seconds - 2**62 - 10) - nanoseconds / 1e9 <= TIMESTAMP_GRANULE / 1e9 + 1e-6
    assert tai64n.is_newer(tai64n.after(stamp), stamp)
    assert not tai64n.is_newer(stamp, stamp) and not tai64n.is_newer(stamp[:11], stamp)
    assert tai64n.stamp(wall + 0.05) > stamp


def test_ours_always_grow_whatever_the_clock_does() -> None:
    floor = loaded(fresh())
    clock = [START, START, START + 1, START - 1e8, START - 1e8, START + 2, 0.0, START + 2.9999]
    stamps = [floor.stamp(PEERS[0], wall) for wall in clock]
    assert stamps == sorted(set(stamps))
    assert floor.stamp(PEERS[1], START) == stamps[0]  # the other peers' are their own


def test_received_are_taken_once_and_in_order() -> None:
    floor = loaded(fresh())
    early, late = tai64n.stamp(START), tai64n.stamp(START + 1)
    assert floor.accept(PEERS[0], late)
    assert not floor.accept(PEERS[0], late)
    assert not floor.accept(PEERS[0], early)
    assert floor.accept(PEERS[1], early)


def test_what_was_written_is_known_after_a_restart() -> None:
    floor = loaded(fresh())
    stamp = tai64n.stamp(START)
    floor.accept(PEERS[0], stamp)
    sent = floor.stamp(PEERS[0], START)
    put = floor.write(0.0, bytes(NONCE))
    assert put.version == 1 and stamp not in put.blob and PEERS[0] not in put.blob
    again = fresh()
    again.load(put.name, 1, put.blob)
    assert not again.is_loaded  # the other peers' shards
    loaded(again)
    assert again.is_loaded
    assert not again.accept(PEERS[0], stamp)
    assert again.accept(PEERS[0], tai64n.after(stamp))
    assert again.stamp(PEERS[0], 0.0) > tai64n.after(sent, 10**9)  # beyond what may not have been written


def test_one_write_a_second_and_only_of_what_changed() -> None:
    floor = loaded(fresh())
    assert floor.due() is None
    floor.stamp(PEERS[0], START)
    assert floor.due() == 0.0
    put = floor.write(5.0, bytes(NONCE))
    floor.stored(put)
    assert floor.due() is None
    floor.stamp(PEERS[0], START)
    assert floor.due() == 6.0
    second = floor.write(6.0, bytes(NONCE))
    assert (second.name, second.version) == (put.name, 2)
    floor.failed(second, 6.0)
    assert floor.due() == 16.0
    assert floor.write(16.0, bytes(NONCE)).version == 2


@given(st.integers(0, 8 * 100 - 1))
def test_a_forged_blob_is_refused_and_counts_as_absent(bit: int) -> None:
    floor = loaded(fresh())
    floor.stamp(PEERS[0], START)
    put = floor.write(0.0, bytes(NONCE))
    forged = bytearray(put.blob)
    forged[bit // 8] ^= 1 << bit % 8
    again = fresh()
    with pytest.raises(FloorError):
        again.load(put.name, 1, bytes(forged))
    assert put.name not in again.missing()
    assert again._records[PEERS[0]].sent == tai64n.NEVER


def test_a_blob_of_another_place_version_or_key_is_refused() -> None:
    floor = loaded(fresh())
    floor.stamp(PEERS[0], START)
    put = floor.write(0.0, bytes(NONCE))
    other = next(name for name in fresh().missing() if name != put.name)
    for name, version, blob in ((other, 1, put.blob), (put.name, 2, put.blob), (put.name, 1, put.blob[:20])):
        with pytest.raises(FloorError):
            fresh().load(name, version, blob)
    stranger = Floor(b"\x99" * 32, PUBLIC, PEERS)
    with pytest.raises(FloorError):
        stranger.load(put.name, 1, put.blob)
    assert put.name not in Floor(PRIVATE, b"\x98" * 32, PEERS).missing()  # another key has names of its own


@pytest.mark.parametrize("version", [VERSIONS - 1, VERSIONS, 2**64 - 2, 2**64 - 1])
@pytest.mark.parametrize("blob", [b"", bytes(100)], ids=["empty", "forged"])
def test_no_version_that_a_store_makes_up_stops_the_writing(version: int, blob: bytes) -> None:
    floor = loaded(fresh())
    floor.stamp(PEERS[0], START)
    name = floor.write(0.0, bytes(NONCE)).name
    again = fresh()
    if version >= VERSIONS or blob:
        with pytest.raises(FloorError):
            again.load(name, version, blob)
    else:
        again.load(name, version, blob)
    assert name not in again.missing()
    for now in range(1, 10):
        again.stamp(PEERS[0], START)
        put = again.write(float(now), bytes(NONCE))
        again.stored(put)
    assert put.version == (version if version < VERSIONS else 0) + 9


def test_as_many_peers_as_there_can_be_fit_the_store() -> None:
    peers = [n.to_bytes(32, "big") for n in range(MAX_PEERS)]
    floor = loaded(Floor(PRIVATE, PUBLIC, peers))
    for one in peers:
        floor.stamp(one, START)
    puts = []
    while (due := floor.due()) is not None:
        puts.append(floor.write(due, bytes(NONCE)))
        floor.stored(puts[-1])
    assert max(len(put.blob) for put in puts) <= LARGEST_BLOB
    assert 2 * len({put.name for put in puts}) <= NAMES  # the floor of the next private key has room beside it


def test_a_store_that_fails_is_tried_again_and_says_so() -> None:
    world = World()
    left, right = pair(world)
    right.store_works = False
    left.send("hello")
    world.run(25.0)
    assert len(right.times("put")) == len(right.times("floor-not-stored")) == 3
    assert not right.store
    right.store_works = True
    world.run(35.0)
    assert len(right.times("put")) == 4 and right.store
    assert right.got


def test_a_forged_floor_is_logged_and_the_box_runs() -> None:
    world = World()
    left, right = pair(world)
    left.send("hello")
    world.run(2.0)
    right.store = {name: (version, bytes(len(blob))) for name, (version, blob) in right.store.items()}
    right.boot()
    assert len(right.times("floor-lost")) == 1
    assert right.manager.is_ready()
    world.run(3.0)
    left.kill(Side.ENCRYPT)
    world.run(5.0)
    # The next write goes on from the version that the store has
    assert all(version >= 2 for version, _ in right.store.values())
