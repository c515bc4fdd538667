"""A store that lies: what config reads back is what was signed, or nothing is read."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from septum.v1.blobs import BlobRequest

from appliance.signed import canonical
from appliance.signed.statements import Role
from components.config.pages import HEAD, PAGE, Damaged, page_name
from components.config.records import Fate, Record, pack, unpack
from tests.unit.config.world import World


def made() -> World:
    """Three commits, the second rolled back, the third confirmed."""
    world = World()
    world.wake()
    world.take(world.chain.take(world.chain.invite("alice", Role.OPERATOR)))
    world.put(b"p1", b"r1")
    world.put(b"p2", b"r2", confirm=60)
    world.now += 60
    world.catch_up()
    world.put(b"p3", b"r3", confirm=60)
    world.take(world.confirm(3))
    return world


def get(world: World, name: str) -> tuple[int, bytes]:
    reply = world.store.serve("config", BlobRequest(name=name))
    return reply.version, reply.blob


def put(world: World, name: str, blob: bytes) -> None:
    version, _ = get(world, name)
    world.store.serve("config", BlobRequest(name=name, version=version + 1, blob=blob))


def head(world: World) -> dict[str, Any]:
    table: dict[str, Any] = json.loads(get(world, HEAD)[1])
    return table


def put_head(world: World, table: dict[str, Any]) -> None:
    put(world, HEAD, json.dumps(table, sort_keys=True, separators=(",", ":")).encode())


def rewrite(world: World, chain: str, records: list[Record]) -> None:
    """As if these were the records of the chain."""
    table = head(world)
    ((page, _version),) = table[chain]
    put(world, page_name(page), pack(records)[0])
    table[chain] = [[page, get(world, page_name(page))[0]]]
    put_head(world, table)


def is_damaged(world: World) -> None:
    world.boot()
    with pytest.raises(Damaged):
        world.run(world.keeper.load())
    assert world.live == (b"nothing", b"nothing")


def records(world: World) -> list[Record]:
    return [one.record for one in world.keeper.book.commits]


def test_what_was_put_is_read_back() -> None:
    world = made()
    world.cut_power()
    assert world.live == (b"p3", b"r3") and [one.fate for one in records(world)] == [1, 4, 3]


@pytest.mark.parametrize(
    "change",
    [
        {"active": 1, "format": 2},
        {"active": 0},
        {"active": 1},  # which others followed
        {"active": 2},  # which was rolled back
        {"active": 4},
        {"active": -1},
        {"before": 1},
        {"deadline": 5},
        {"sections": {}},
        {"commits": []},
        {"roster": []},
        {"roster": [[0, 1], [0, 1]]},
        {"commits": [[1024, 1]]},
        {"commits": "x"},
        {"more": 1},
        {"spare": [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]},
    ],
    ids=repr,
)
def test_a_head_that_was_changed(change: dict[str, Any]) -> None:
    world = made()
    before = head(world)
    put_head(world, {**before, **change})
    is_damaged(world)


def test_a_store_can_show_what_was_and_no_more() -> None:
    """Nobody in a box that was just built could tell: signed it was. But then all of it is as it was."""
    world = World()
    world.wake()
    world.put(b"p1", b"r1")
    image = bytes(world.disk.platter)
    world.put(b"p2", b"r2")
    world.disk.platter[:] = image
    world.cut_power()
    assert world.live == (b"p1", b"r1") and world.keeper.book.revision == 1


def test_pages_of_another_size_and_versions_without_end() -> None:
    world = made()
    table = head(world)
    digest = canonical.digest(b"p3").hex()
    for place in ([70000, 1, 1], [0], [5_000_000, *([1, 1] * 82)]):
        put_head(world, {**table, "sections": {**table["sections"], digest: place}})
        is_damaged(world)
    (_size, page, _version) = place = table["sections"][digest]
    for blob in (bytes(PAGE + 1), b"xyz"):
        put(world, page_name(page), blob)
        place[2] = get(world, page_name(page))[0]
        put_head(world, table)
        world.boot()
        world.wake()
        assert world.live == (b"nothing", b"r3") and world.keeper.in_step == {"ruleset"}


def test_a_commit_that_waits_is_not_made_one_that_was_confirmed() -> None:
    world = made()
    world.put(b"p4", b"r4", confirm=60)
    kept = records(world)
    for fate in (Fate.STANDS, Fate.CONFIRMED, Fate.ROLLED_BACK):
        again = made()
        again.put(b"p4", b"r4", confirm=60)
        rewrite(again, "commits", [*kept[:-1], kept[-1]._replace(fate=fate)])
        put_head(again, {**head(again), "deadline": 0, "before": 0})
        is_damaged(again)
    confirmed_by_another = made()
    confirmed_by_another.put(b"p4", b"r4", confirm=60)
    forged = kept[-1]._replace(fate=Fate.CONFIRMED, confirmation=kept[-2].confirmation)
    rewrite(confirmed_by_another, "commits", [*kept[:-1], forged])
    put_head(confirmed_by_another, {**head(confirmed_by_another), "deadline": 0, "before": 0})
    is_damaged(confirmed_by_another)


def test_commits_and_roster_that_nobody_signed() -> None:
    world = made()
    kept = records(world)
    forged = kept[2].signed._replace(statement=kept[2].signed.statement.replace(b'"comment":""', b'"comment":"?"'))
    rewrite(world, "commits", [*kept[:2], kept[2]._replace(signed=forged)])
    is_damaged(world)
    for wrong in ([kept[0], kept[2]], [kept[0], kept[0]], [kept[1], kept[0]], []):
        world = made()
        rewrite(world, "commits", wrong or [Record(world.chain.statements[0])])
        is_damaged(world)
    world = made()
    signed = world.chain.statements[0]
    rewrite(world, "roster", [Record(signed._replace(signature=bytes(64)))])
    is_damaged(world)


def test_a_page_that_went_back_to_an_older_version_is_noticed() -> None:
    world = made()
    ((page, _),) = head(world)["commits"]
    put(world, page_name(page), get(world, page_name(page))[1])
    is_damaged(world)


def test_whatever_is_in_a_page_of_statements() -> None:
    chance = random.Random(5)
    page = pack(records(made()))[0]
    for _ in range(2000):
        wrong = bytearray(page)
        for _ in range(chance.randrange(1, 4)):
            wrong[chance.randrange(len(wrong))] = chance.randrange(256)
        try:
            list(unpack(bytes(wrong[: chance.randrange(len(wrong) + 1)])))
        except Damaged:
            continue


def test_whatever_a_head_says() -> None:
    chance = random.Random(6)
    for _ in range(300):
        world = made()
        raw = bytearray(get(world, HEAD)[1])
        for _ in range(chance.randrange(1, 4)):
            raw[chance.randrange(len(raw))] = chance.choice(b'0123456789[]{},:"')
        put(world, HEAD, bytes(raw))
        world.boot()
        try:
            world.wake()
        except Damaged:
            assert world.live == (b"nothing", b"nothing")
        else:
            assert world.live in ((b"p1", b"r1"), (b"p3", b"r3"), (b"nothing", b"nothing"))
