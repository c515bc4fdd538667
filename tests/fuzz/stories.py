"""Inputs for the short way of a lone packet: short stories of what may happen to a domain, told to two of a kind, of
which one has no short way. All that comes of them must be the same, to the byte.

Lone messages go through it until the interpreter leases the next ones; then come messages that are damaged, odd or out
of turn, frames that lie about themselves, indices and live bytes that lie, orders and changes that end leases behind or
before the packet that would go by them, and times that pass. The shared memory lies on the heap, where the sanitizers
see its end; the clock is ours. So a story of a number is always the same, whatever was told before it.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable
from operator import sub
from typing import Any, Final

from appliance.vchan import layout, memfd
from appliance.vchan.frame import HEADER, HEADER_BYTES
from appliance.vchan.layout import Orders
from appliance.vchan.live import State
from appliance.vchan.ring import MASK, PeerViolation
from appliance.vchan.schema import schema
from tests.budgets.domain import Domain
from tests.fuzz import sanitized
from tests.unit.short import roles

SECOND: Final = 512  # steps of the clock: a timespec and a float both hold them exactly
STORY: Final = 1000.0  # seconds from the beginning of one to that of the next


class Differs(Exception):
    """The two are not the same."""


# The world -----------------------------------------------------------------------------------------------------------


class Clock:
    """time.monotonic() for all, and the clock of the compiled loop."""

    def __init__(self) -> None:
        loop = ctypes.CDLL(str(sanitized.path_of("appliance.guest.short")))
        self._now = ctypes.c_double.in_dll(loop, "septum_now")

    def __call__(self) -> float:
        return self._now.value

    def set(self, now: float) -> None:
        self._now.value = now


def on_the_heap() -> Callable[[int, Orders], memoryview]:
    """In place of memfd.map_memory: both ends find the same array, behind which nothing is theirs."""
    made: dict[int, memoryview] = {}

    def find(memory_fd: int, orders: Orders) -> memoryview:
        number, size = os.fstat(memory_fd).st_ino, layout.size(orders)
        if number not in made:
            made[number] = memoryview(array("B", os.pread(memory_fd, size, 0)))
        return made[number]

    return find


def plain(message: Any) -> Any:
    """A message as it can be kept and shown."""
    return (bytes(message[0]), *message[1:]) if isinstance(message, tuple) else message


CLOCK = time.monotonic = Clock()
for flat in ("packets", "datagrams"):  # as small as they can be: all of them is looked at after each story
    schema(flat).ring_order = 17  # type: ignore[misc]
memfd.map_memory = on_the_heap()  # type: ignore[assignment]
# A check of bounds that fails where nothing can be raised is told here
unraisable: list[str] = []
sys.unraisablehook = lambda told: unraisable.append(f"{told.exc_value!r} in {told.object!r}")


# A way through a domain -----------------------------------------------------------------------------------------------


class Way(ABC):
    """Two domains of a kind. ``inward``, ``outward``: the ports whose other ends are hostile; or the story's own
    ``devices`` are where they would be (FromDevice). ``aside``: ports that are only emptied.
    """

    inward = outward = ""
    aside: tuple[str, ...] = ()

    def __init__(self, role: roles.Role) -> None:
        self.pair, self.devices = role.pair, role.devices
        self.ports = tuple(port for port in (self.inward, self.outward) if port)
        self.told: list[Any] = []
        self.messages = 0
        self.has_lied = self.has_passed = self.is_parted = False
        """Whether several came from the device at once: the first goes alone then, the rest in groups."""

    # what a kind of domain has of its own

    @abstractmethod
    def begin(self, chance: Any, number: int) -> None:
        """Both know nothing of the stories before."""

    @abstractmethod
    def good(self, chance: Any) -> Any:
        """A message, or what a device gives, of which those behind it can go the short way."""

    @abstractmethod
    def odd(self, chance: Any) -> Any:
        """One that has something about it."""

    def sudden(self, chance: Any) -> Callable[[int], object]:
        """What may happen to one of the domains at any time."""
        return lambda which: None

    def left(self, which: int) -> list[Any]:
        """What the device was given."""
        return []

    def remembered(self, which: int) -> Any:
        """What is counted in the end."""
        return None

    # the story

    def tell(self, chance: Any, number: int) -> None:
        """Errors: Differs."""
        CLOCK.set(STORY * (number + 1))
        self.told, self.is_parted = [], False
        self.has_lied = self.has_passed = False
        self.renew(chance.choice((0, -chance.randrange(400), -chance.randrange(4096), chance.randrange(1 << 32))))
        self.begin(chance, number)
        for _ in range(chance.choice((1, 2, 2, 3))):
            self.give(self.good(chance))
            self.go()
        for _ in range(chance.choice((1, 1, 2, 3, 4))):
            if not all(domain.near[port].is_open for domain in self.pair.both for port in self.ports):
                break
            self.happen(chance)
            self.go()
        found, expected = (self.memory(domain) for domain in self.pair.both)
        if found != expected:
            places = [at for at, (one, other) in enumerate(zip(found, expected, strict=True)) if one != other]
            self.same(f"bytes of memory, at {places[:20]}", "these", "others")
        self.same("counts", *map(self.remembered, (0, 1)))

    def renew(self, first: int) -> None:
        """All that were at the other ends are gone, and others come; indices begin with ``first``."""
        for domain in self.pair.both:
            guest = domain._guest
            for port in self.ports:
                near, far = domain.near[port], domain.far[port]
                near._vchan._first = far._vchan._first = first & MASK
                far._violation = None
                far._vchan._enter(State.ABSENT)
                memory = near._vchan._shared
                memory[layout.PAGE :] = bytes(len(memory) - layout.PAGE)
            joined = [port for port in guest.ports if port.name in self.ports]
            for one in joined * 2:  # the first may be for a wrong that was found and not yet told
                guest.progress(one)
            for _ in range(5):
                for one in joined:
                    guest.progress(one)
                    domain.far[one.name].progress()
            guest._accused.clear()
            for openings in guest._openings.values():
                openings.clear()
            guest._next_look = 0.0
            domain.settle(2)
            for port in (*self.aside, *self.ports):
                if port != self.inward:
                    domain.take(port)
        for which in (0, 1):
            self.left(which)
        self.before = {
            domain.near[port]: domain.near[port].statistics for domain in self.pair.both for port in self.ports
        }
        assert all(domain.near[port].is_open for domain in self.pair.both for port in self.ports)

    def both(self, deed: Callable[[int], object], what: str) -> None:
        self.told.append(f"{what:.200}")
        for which in (0, 1):
            deed(which)

    def happen(self, chance: Any) -> None:
        """Something comes, most of the time, and something else is the matter, most of the time."""
        deeds = [self.coming] * (chance.random() < 0.9)
        deeds += [self.coming] * (chance.random() < 0.1)
        self.is_parted |= not self.inward and len(deeds) > 1
        deeds += [self.lying] * (chance.random() < 0.35)
        deeds += [self.changing] * (chance.random() < 0.25)
        # What a neighbour did where nobody looks is found by the next look around, twice a second: before what wakes
        # the domain in that moment, or by the short way behind it
        self.has_lied |= self.lying in deeds
        deeds += [self.passing] * (chance.random() < 0.2 and not (self.has_lied and self.has_passed))
        for deed in chance.sample(deeds, len(deeds)):
            deed(chance)

    def coming(self, chance: Any) -> None:
        luck = chance.random()
        if luck < 0.35:
            self.give(self.good(chance))
        elif luck < 0.6:
            self.give(self.odd(chance))
        else:
            body = bytearray(self.encoded(self.good(chance)))
            for _ in range(chance.choice((0, 1, 1, 2))):
                # What stands before and behind the blob, its first bytes, or anything
                at = chance.choice(
                    (chance.randrange(8), -1 - chance.randrange(30), chance.randrange(80), chance.randrange(1 << 16))
                )
                at %= len(body)
                body[at] = chance.choice((body[at] ^ 1 << chance.randrange(8), 0, 0x7F, 0x80, 0xFF))
            match chance.randrange(6):
                case 0:
                    del body[chance.randrange(len(body)) :]
                case 1:
                    body += body[: chance.randint(1, 40)]
            lies = [chance.choice((0,) * 9 + (1, -1, 8, -8, 1 << 16, -(1 << 31), chance.randrange(1 << 32)))] * 2
            lies[chance.randrange(2)] = 0
            self.both(lambda which: self.write(which, bytes(body), *lies), f"frame {bytes(body)!r} with {lies}")

    def encoded(self, message: Any) -> bytes:
        return b"".join(self.pair.short.far[self.inward]._encode(message))  # type: ignore[misc]

    def give(self, one: Any) -> None:
        self.messages += 1
        body = self.encoded(one)
        self.both(lambda which: self.write(which, body, 0, 0), f"message {body!r}")

    def write(self, which: int, body: bytes, longer: int, later: int) -> None:
        """A frame, whose header may say something else; none, if the ring has no room for it."""
        domain = self.pair.both[which]
        far, ring = domain.far[self.inward], domain.near[self.inward]._vchan
        theirs = far._vchan
        if (theirs._prod - ring._cons & MASK) + HEADER_BYTES + len(body) > theirs._out_size:
            return
        header = HEADER.pack(len(body) + longer & MASK, far._next_out + later & MASK)
        theirs.write((header, body), HEADER_BYTES + len(body))
        far._next_out = far._next_out + 1 & MASK

    def lying(self, chance: Any) -> None:
        """Anything that a neighbour can write."""
        port = chance.choice(self.ports)
        how = chance.randrange(8)
        change = chance.choice(
            (1, -1, 4, 8, -8, 2048, 2056, 1 << 16, 1 << 19, 1 << 20, 1 << 31, chance.randrange(1 << 32))
        )
        at = chance.choice((chance.randrange(8), chance.randrange(160), chance.randrange(4096)))

        def lie(which: int) -> None:
            ring = self.pair.both[which].near[port]._vchan
            words, shared = ring._words, ring._shared
            match how:
                case 0 | 1:
                    words[ring._peer_prod_word] = words[ring._peer_prod_word] + change & MASK
                case 2:
                    words[ring._peer_cons_word] = words[ring._peer_cons_word] + change & MASK
                case 3:  # without room for what could go the short way, or more than full
                    words[ring._peer_cons_word] = ring._prod - ring._out_size + (change & 0x7FF) - 64 & MASK
                case 4:  # which are ours, and only stored
                    words[ring._cons_word] = words[ring._prod_word] = change & MASK
                case 5:
                    shared[ring._peer_live] = change & 3 if at & 1 else at & 0xFF
                case 6:
                    shared[ring._peer_wants] = at & 0xFF
                case 7 if port == self.inward:
                    ring._in[ring._cons + at & ring._in_size - 1] ^= 1 << (change & 7)
                case 7:
                    ring._out[ring._prod + at & ring._out_size - 1] ^= 1 << (change & 7)

        self.both(lie, f"lie {how} to {port}, {change}, {at}")

    def changing(self, chance: Any) -> None:
        self.both(self.sudden(chance), "something sudden")

    def passing(self, chance: Any) -> None:
        """Time passes: next to nothing, or until just before or just after something is due."""
        self.has_passed = True
        steps = chance.choice((1, SECOND // 4, SECOND // 2, SECOND, 30 * SECOND, 180 * SECOND)) + chance.randint(-1, 1)
        if self.has_lied:
            steps = min(steps, SECOND // 4 + 1)
        self.told.append(f"{steps} steps of time")
        CLOCK.set(CLOCK() + steps / SECOND)

    def go(self) -> None:
        """Both wake, and sleep again; what came of it is the same."""
        came = []
        for which, domain in enumerate(self.pair.both):
            for port in self.ports:
                domain.far[port]._wire.notify()
                # As far as it knows the ring is full, and it has to look: when else it looks, nobody has laid down
                ring = domain.near[port]._vchan
                ring._seen_cons = ring._prod - ring._out_size & MASK
            domain.settle(2)
            came.append([self.place(domain), self.taken(domain), self.left(which)])
        if unraisable:
            raise Differs(f"{unraisable} of {self.told}")
        self.same("outcome", *came)

    def taken(self, domain: Domain) -> list[Any]:
        """What came out of the ports; or what was wrong with it, if we spoilt it ourselves."""
        found: list[Any] = []
        for port in (*self.aside, self.outward):
            if port:
                try:
                    found.append(self.listed(domain.take(port)))
                except PeerViolation as violation:
                    found.append("violation" if self.is_parted else str(violation))
        return found

    def listed(self, messages: list[Any]) -> list[Any]:
        """As they can be kept and compared: packets one by one, if they may have been in other groups."""
        if not self.is_parted or not all(isinstance(message, tuple) for message in messages):
            return [plain(message) for message in messages]
        return [
            (bytes(blob[at : at + size]), *rest) for blob, size, *rest in messages for at in range(0, len(blob), size)
        ]

    def place(self, domain: Domain) -> list[Any]:
        """Where a domain stands with its neighbours."""
        found: list[Any] = [sorted(domain._guest._accused)]
        for port in self.ports:
            end: Any = domain.near[port]
            ring = end._vchan
            if self.is_parted:
                found += [ring.state, end.is_wronged]
                continue
            found += [ring.state, ring._cons, ring._prod, ring._header, ring._is_partial, ring._is_up]
            found += [*map(sub, end.statistics, self.before[end]), end.is_wronged, end._next_in, end._next_out]
        return found

    def memory(self, domain: Domain) -> bytes:
        """All that lies in the channels."""
        return b"".join(domain.near[port]._vchan._shared for port in self.ports if not self.is_parted)

    def same(self, what: str, found: Any, expected: Any) -> None:
        if found != expected:
            raise Differs(f"{what}:\nshort: {found!r:.1000}\nlong:  {expected!r:.1000}\nof {self.told!r:.6000}")

    @property
    def shortly(self) -> int:
        """Messages that went the short way, of all stories."""
        return sum(self.pair.shortly(port) for port in self.ports[:1])


class FromDevice(Way):
    """What comes is read from a device: whole, and no frame that could lie."""

    @abstractmethod
    def arrive(self, which: int, one: bytes) -> None:
        """The device of one of the two gets ``one``."""

    def coming(self, chance: Any) -> None:
        self.give(self.good(chance) if chance.random() < 0.6 else self.odd(chance))

    def give(self, one: bytes) -> None:
        self.messages += 1
        self.both(lambda which: self.arrive(which, one), f"from the device {one!r}")
