"""A box in small: the real store on a disk that loses what was not synced, two real domains' ends of ``applying``, and
a keeper between them. Everything can be stopped for good between any two steps, and begins again.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

from septum.v1.applying import ApplyingReply, ApplyingRequest
from septum.v1.blobs import BlobReply, BlobRequest

from appliance.guest.settings import SettingsError
from appliance.signed import canonical
from appliance.signed.applier import Applied, Applier
from appliance.signed.refusal import Refusal, Why
from appliance.signed.statements import Commit, Confirm, Rehearse, Rekey, RosterStatement, Signed, parse, sign
from appliance.vchan.codec import Codec
from appliance.vchan.schema import schema
from components.config.effects import BLOBS, DOMAINS, Ask, Away, Now, Rest, Steps, Time
from components.config.keeper import Accepted, Keeper
from components.store import main as store_main
from components.store.slots import Image
from tests.unit.fake_guest import FakeCounter
from tests.unit.signed.box import BOX, NOW, TRUST, Chain, seed

SECTOR = 4096

KEY = b"\x77" * 32  # the spare one of keymgr


class Disk:
    """What is written stands in a cache until it is synced; a power cut leaves any part of the rest, in any order."""

    def __init__(self) -> None:
        self.platter = bytearray()
        self.cache = bytearray()
        self.dirty: set[int] = set()
        self.is_full = False

    def read(self, offset: int, length: int) -> bytes:
        return bytes(self.cache[offset : offset + length])

    def write(self, offset: int, data: bytes) -> None:
        if self.is_full:
            raise OSError(28, "No space left on device")
        if len(self.cache) < offset + len(data):
            self.cache.extend(bytes(offset + len(data) - len(self.cache)))
        self.cache[offset : offset + len(data)] = data
        self.dirty.update(range(offset // SECTOR, -(-(offset + len(data)) // SECTOR)))

    def sync(self) -> None:
        self._keep(self.dirty)
        self.dirty.clear()

    def cut(self, chance: random.Random) -> None:
        """The power goes."""
        self._keep({sector for sector in self.dirty if chance.random() < 0.5})
        self.dirty.clear()
        self.cache = bytearray(self.platter)

    def _keep(self, sectors: set[int]) -> None:
        for sector in sectors:
            start, end = sector * SECTOR, min((sector + 1) * SECTOR, len(self.cache))
            if len(self.platter) < end:
                self.platter.extend(bytes(end - len(self.platter)))
            self.platter[start:end] = self.cache[start:end]


class _StoreGuest:
    """As much of a guest as the store's shell uses."""

    devices: Mapping[str, int] = {"store": -1}

    def __init__(self) -> None:
        self.log = self

    def warning(self, event: str, text: str) -> None:
        pass

    def counter(self, name: str) -> FakeCounter:
        return FakeCounter()

    def is_joined(self, port: str) -> bool:
        return False


class Domain:
    """One that acts upon a section: ``live`` is what it goes by."""

    def __init__(self, section: Any) -> None:
        self.live = b"nothing"
        self.history = [b"nothing"]
        self.dislikes = b"bad"
        self.keys = {KEY}
        self.applier = Applier(TRUST, section, b"nothing", self._prepare, self._apply, self._admit)

    def _admit(self, statement: RosterStatement) -> None:
        if isinstance(statement, Rekey) and statement.key not in self.keys:
            raise Refusal(Why.UNKNOWN, "is not a key that this box has made", "key")

    def _prepare(self, section: bytes) -> bytes:
        if self.dislikes in section:
            raise SettingsError("here", "is bad")
        return section

    def _apply(self, content: bytes) -> Applied:
        self.live = content
        self.history.append(content)
        return Applied(7, 1)


class Cut(Exception):
    """The power is gone."""


class World:
    """``stop`` is asked before each effect, with its number; it may raise. ``deaf`` ports do not answer."""

    def __init__(self, chance: int = 0) -> None:
        self.chance = random.Random(chance)
        self.disk = Disk()
        self.chain = Chain()
        self.now = 1000.0
        self.effects = 0
        self.stop: Callable[[int, Ask], None] = lambda number, ask: None
        self.deaf: set[str] = set()
        self.boot()

    def boot(self) -> None:
        """Everything anew, but for the disk."""
        self.domains = {port: Domain(port) for port in DOMAINS}
        self.store_dies()
        self.config_dies()

    def store_dies(self) -> None:
        self.store = store_main.Shell(_StoreGuest())  # type: ignore[arg-type]
        self.store._image = Image(self.disk.read, self.disk.write, self.disk.sync)

    def config_dies(self) -> None:
        self.keeper = Keeper(TRUST)

    def wake(self) -> None:
        """What the shell does when it is born."""
        self.run(self.keeper.load())
        self.catch_up()

    def catch_up(self) -> None:
        """What it does next, whenever nothing else is to be done."""
        keeper = self.keeper
        if keeper.expires is not None and self.now >= keeper.expires:
            self.run(keeper.roll_back())
        for port in DOMAINS:
            if port not in keeper.in_step:
                self.run(keeper.step(port))

    def cut_power(self) -> None:
        self.disk.cut(self.chance)
        self.stop = lambda number, ask: None
        self.boot()
        self.wake()

    # running ----------------------------------------------------------------------------------------------------------

    def run(self, steps: Steps[Any]) -> Any:
        """To the end of it."""
        try:
            effect = next(steps)
            while True:
                try:
                    value = self._do(effect)
                except Away as away:
                    effect = steps.throw(away)
                else:
                    effect = steps.send(value)
        except StopIteration as end:
            return end.value

    def _do(self, effect: Ask | Rest | Time) -> Any:
        if isinstance(effect, Time):
            return Now(self.now, self.wall)
        if isinstance(effect, Rest):
            self.now += effect.seconds
            return None
        self.effects += 1
        self.stop(self.effects, effect)
        if effect.port in self.deaf:
            raise Away(effect.port)
        reply = self._answer(effect)
        self.stop(-self.effects, effect)  # it was done, and nobody heard of it
        return reply

    def _answer(self, ask: Ask) -> Any:
        name = "blobs" if ask.port == BLOBS else "applying"
        request = through(name, "forward", ask.request)
        if isinstance(request, BlobRequest):
            reply: BlobReply | ApplyingReply = self.store.serve("config", request)
        else:
            assert isinstance(request, ApplyingRequest)
            reply = self.domains[ask.port].applier.answer(request)
        return through(name, "backward", reply)

    # what administrators do -------------------------------------------------------------------------------------------

    def take(self, signed: Signed, *sections: bytes) -> Accepted:
        coming = {canonical.digest(section): section for section in sections}
        accepted: Accepted = self.run(self.keeper.take(signed, coming))
        return accepted

    def refused(self, signed: Signed, *sections: bytes) -> Refusal:
        """It is, and nothing has changed."""
        before, live = self.keeper.book, self.live
        try:
            self.take(signed, *sections)
        except Refusal as refusal:
            assert (self.keeper.book, self.live) == (before, live)
            return refusal
        raise AssertionError("was accepted")

    def commit(self, peers: bytes, ruleset: bytes, by: str = "console", **other: Any) -> Signed:
        """Signed as whoever looks at the head would sign it now."""
        book = self.keeper.book
        given = {"revision": book.revision + 1, "follows": book.digest, "roster": self.keeper.roster.serial}
        given["at"] = self.wall
        return self.chain.commit(by, peers, ruleset, **{**given, **other})

    def put(self, peers: bytes, ruleset: bytes, **other: Any) -> Accepted:
        return self.take(self.commit(peers, ruleset, **other), peers, ruleset)

    def rehearsal(self, peers: bytes, ruleset: bytes) -> Signed:
        """The same as a commit, signed as what it is."""
        statement = parse(self.commit(peers, ruleset).statement)
        assert isinstance(statement, Commit)
        return sign(Rehearse(*statement), seed("console"))

    def confirm(self, revision: int, by: str = "console", commit: bytes | None = None) -> Signed:
        """Of the commit that is there under that number, or another one."""
        found = self.keeper.book.find(revision)
        digest = canonical.digest(found.record.signed.statement) if found else bytes(32)
        return sign(Confirm(BOX, revision, commit or digest, self.keeper.roster.serial, self.wall, by), seed(by))

    @property
    def wall(self) -> int:
        """Milliseconds since 1970."""
        return NOW + int(self.now * 1000)

    @property
    def live(self) -> tuple[bytes, bytes]:
        """What peers and ruleset are in force."""
        return self.domains["peers"].live, self.domains["ruleset"].live


def through(name: str, way: str, message: Any) -> Any:
    """As it arrives at the other end, every bound of the schema looked at."""
    codec = Codec(getattr(schema(name), way))
    return codec.decode(b"".join(codec.encode(message)))
