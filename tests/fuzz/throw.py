"""Makes inputs, throws them at both twins, and compares; stories.py does so with the short way. Runs in a Python that
has the sanitizers preloaded.

What is compared is what a call returns, all that it wrote, and the type of what it raises. The one difference that is
allowed: a number that no C type holds is an OverflowError for the compiled twin.
"""

from __future__ import annotations

import mmap
import sys
import time
from array import array
from collections.abc import Callable
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz import sanitized

sanitized.load()

from components.crypto import fast as crypto  # noqa: E402
from components.crypto import loops as crypto_loops  # noqa: E402
from components.filter import fast as filter_fast  # noqa: E402
from components.filter import uniform  # noqa: E402
from components.net import fast as net  # noqa: E402
from components.net import loops as net_loops  # noqa: E402
from components.net import runs as net_runs  # noqa: E402
from components.net import twin, virtio  # noqa: E402
from components.net.checksum import MODULUS, total  # noqa: E402
from components.net.split import split  # noqa: E402
from tests.fuzz.stories import Differs, Way  # noqa: E402
from tests.fuzz.ways import WAYS  # noqa: E402

TCP, UDP = 6, 17
NOISE = Random(0).randbytes(1 << 18)
EDGES = (
    *(sign * (1 << bits) + near for bits in (8, 15, 16, 31, 32, 62, 63, 64) for sign in (1, -1) for near in (-1, 0, 1)),
    *(-65535, -40, -20, -16, -2, -1, 0, 1, 2, 10**30, -(10**30)),
)
C_TYPES = {  # of the arguments; all others are Py_ssize_t
    "protocol": (-(1 << 31), (1 << 31) - 1),
    "ident": (-(1 << 31), (1 << 31) - 1),
    "receiver": (0, (1 << 32) - 1),
    "counter": (0, (1 << 64) - 1),
}
SSIZE = (-(1 << 63), (1 << 63) - 1)
MOST_BYTES = 1 << 20  # of a result: more costs time and shows nothing new
GUARD = 64
VALID = 4096


class Chance(Random):
    """Chance at a third of the time; that some numbers are a little likelier than others does not matter here."""

    seed_of_all = 0

    def choice(self, of: Any) -> Any:
        return of[int(self.random() * len(of))]

    def randrange(self, stop: int) -> int:  # type: ignore[override]
        return int(self.random() * stop)

    def randint(self, low: int, high: int) -> int:
        return low + int(self.random() * (high - low + 1))


def drawn(make: Callable[[Chance], Any]) -> Callable[[Chance], Any]:
    """One of the first VALID things that ``make`` makes for a seed: most of the time goes into what is done to them."""
    made: dict[int, Any] = {}

    def draw(chance: Chance) -> Any:
        number = chance.randrange(VALID)
        if number not in made:
            own = Chance(chance.seed_of_all << 64 | 1 << 63 | number)
            own.seed_of_all = chance.seed_of_all
            made[number] = make(own)
        return made[number]

    return draw


# Inputs ---------------------------------------------------------------------------------------------------------------


def noise(chance: Chance, length: int) -> bytes:
    start = chance.randrange(len(NOISE) - length)
    return NOISE[start : start + length]


def near(chance: Chance, low: int, high: int) -> int:
    """From ``low`` to ``high``, and often one of the two."""
    return chance.choice((low, high, *(chance.randint(low, high) for _ in range(3))))


def damaged(chance: Chance, data: bytes, upto: int = 1 << 16) -> bytes:
    """Half of the time with a few bytes that are different, within the first ``upto``, or with another length."""
    if not data or chance.random() < 0.5:
        return data
    changed = bytearray(data)
    for _ in range(chance.randint(0, 3)):
        at = chance.randrange(min(len(changed), upto))
        changed[at] = chance.choice((changed[at] ^ 1 << chance.randrange(8), 0, 0xFF, chance.randrange(256)))
    match chance.randrange(8):
        case 0:
            del changed[chance.randrange(len(changed)) :]
        case 1:
            changed += noise(chance, chance.randint(1, 40))
        case 2 if chance.random() < 0.1:
            changed.clear()
    return bytes(changed)


def bent(chance: Chance, numbers: dict[str, int]) -> dict[str, int]:
    """Half of the time with one or two of the numbers beside what they should be, or far from it."""
    if chance.random() < 0.5:
        for name in chance.choices(list(numbers), k=chance.randint(1, 2)):
            numbers[name] = chance.choice((numbers[name] + chance.randint(-3, 3), chance.choice(EDGES)))
    return numbers


def exact(data: bytes) -> memoryview:
    """The same in memory that ends where the bytes end; those of bytes and bytearray go one further."""
    copy = memoryview(array("B", [0]) * len(data))
    copy[:] = data
    return copy


@drawn
def superpacket(chance: Chance) -> tuple[bytes, int, int, int, int]:
    """A TCP or UDP superpacket as it comes from the TUN: (packet, protocol, start, payload, mss)."""
    version, protocol = chance.choice((4, 6)), chance.choice((TCP, UDP))
    extra = 4 * chance.choice((0, 0, 0, chance.randint(0, 10)))
    start = (20 if version == 4 else 40) + extra
    payload = start + (20 + 4 * chance.choice((0, 3, chance.randint(0, 10))) if protocol == TCP else 8)
    mss = chance.choice((1, 2, 7, 8, chance.randint(1, 40), chance.randint(1, 100), chance.randint(1, 1448)))
    whole = near(
        chance, mss, min(mss * (66 if chance.random() < 0.05 else chance.choice((1, 2, 3, 5))), 0xFFFF - payload)
    )
    packet = bytearray(noise(chance, payload + whole))
    behind = len(packet) - start
    if version == 4:
        packet[0] = 0x45 + extra // 4
        packet[2:4] = len(packet).to_bytes(2, "big")
        packet[4:6] = chance.choice((b"\xff\xff", b"\xff\xfd", packet[4:6]))
        packet[6:8] = chance.choice((b"\x40\0", b"\0\0"))
        packet[9] = protocol
    else:
        packet[0] = 0x60
        packet[4:6] = (len(packet) - 40).to_bytes(2, "big")
        packet[6] = protocol
    if protocol == TCP:
        packet[start + 4 : start + 8] = chance.choice((b"\xff\xff\xff\xfe", b"\xff\xff\xf0\0", packet[4:8]))
        packet[start + 12] = (payload - start) // 4 << 4
        packet[start + 13] = chance.choice((0x10, 0x18, 0x19, 0x90, 0xD9, chance.randrange(256)))
    else:
        packet[start + 4 : start + 6] = behind.to_bytes(2, "big")
    addresses = packet[12:20] if version == 4 else packet[8:40]
    field = start + (virtio.TCP_CHECK if protocol == TCP else virtio.UDP_CHECK)
    packet[field : field + 2] = ((total(addresses) + protocol + behind) % MODULUS).to_bytes(2, "big")
    return bytes(packet), protocol, start, payload, mss


@drawn
def flow(chance: Chance) -> tuple[bytes, int, int, int, int]:
    """Packets of one flow, back to back, sound and in order: (blob, bytes of each, protocol, start, header)."""
    packet, protocol, start, payload, mss = superpacket(chance)
    if protocol == TCP and chance.random() < 0.8:  # most are such that can be joined
        packet = packet[: start + 13] + b"\x10" + packet[start + 14 :]
    if protocol == TCP:
        blob = net_loops.tcp_segments(packet, start, payload, mss)
    else:
        blob = net_loops.udp_segments(packet, start, mss)
    return blob, payload + mss, protocol, start, payload


# Verdicts -------------------------------------------------------------------------------------------------------------


def outcome(call: Callable[..., Any], *arguments: Any) -> Any:
    """What it returns, or the type of what it raises."""
    try:
        return call(*arguments)
    except (IndexError, ValueError, OverflowError) as error:
        return type(error)


def agree(compiled: Any, python: Any, *arguments: Any) -> None:
    if compiled != python:
        raise Differs(f"compiled: {compiled!r:.2000}\npython: {python!r:.2000}\nof {arguments!r:.4000}")


def expected(numbers: dict[str, int], call: Callable[..., Any], *arguments: Any) -> Any:
    """What the Python twin gives or raises, or that a number was refused before the function began."""
    for name, number in numbers.items():
        low, high = C_TYPES.get(name, SSIZE)
        if not low <= number <= high:
            return OverflowError
    return outcome(call, *arguments)


def is_small(packet: bytes, payload: int, mss: int) -> bool:
    return mss <= 0 or not 0 <= payload <= len(packet) or (len(packet) - payload) // mss * payload < MOST_BYTES


# The functions --------------------------------------------------------------------------------------------------------


def fuzz_total(chance: Chance) -> None:
    data = noise(
        chance, near(chance, 0, chance.choice((9, 100, 100, 2000, 2000, 70000 if chance.random() < 0.1 else 5)))
    )
    if chance.random() < 0.2:
        data = chance.choice((b"\xff", b"\0")) * len(data)
    agree(net.total(exact(data)), net_loops.total(data), data)


def fuzz_segments(chance: Chance) -> None:
    packet, protocol, start, payload, mss = superpacket(chance)
    packet = damaged(chance, packet, payload)
    if protocol == TCP:
        numbers = bent(chance, {"start": start, "payload": payload, "mss": mss})
        name, payload = "tcp_segments", numbers["payload"]
    else:
        numbers = bent(chance, {"start": start, "mss": mss})
        name, payload = "udp_segments", numbers["start"] + 8
    if is_small(packet, payload, numbers["mss"]):
        python = expected(numbers, getattr(net_loops, name), packet, *numbers.values())
        agree(outcome(getattr(net, name), exact(packet), *numbers.values()), python, name, packet, numbers)


def both_ways(call: Callable[[], Any]) -> None:
    """With either twin in the places of twin.py."""
    results = []
    for module, joins in ((net, net), (net_loops, net_runs)):
        for name in ("tcp_segments", "total", "udp_segments"):
            setattr(twin, name, getattr(module, name))
        twin.join = joins.join
        results.append(outcome(call))
    agree(*results)


def fuzz_split(chance: Chance) -> None:
    packet, protocol, start, payload, mss = superpacket(chance)
    if not is_small(packet, payload, mss):
        return
    kind = virtio.GSO_UDP_L4 if protocol == UDP else virtio.GSO_TCPV4 if packet[0] >> 4 == 4 else virtio.GSO_TCPV6
    check = virtio.TCP_CHECK if protocol == TCP else virtio.UDP_CHECK
    header = virtio.HEADER.pack(virtio.NEEDS_CSUM, kind, payload, mss, start, check)
    read = damaged(chance, header + packet, payload + 10)
    both_ways(lambda: split(memoryview(read)))


def fuzz_join(chance: Chance) -> None:
    blob, size, *_ = flow(chance)
    blob = damaged(chance, blob, chance.choice((2 * size, 1 << 16)))
    numbers = bent(chance, {"size": size})
    for udp in (False, True):
        python = expected(numbers, net_runs.join, blob, numbers["size"], udp)
        agree(outcome(net.join, exact(blob), numbers["size"], udp), python, blob, numbers)


def room(chance: Chance, length: int) -> tuple[memoryview, memoryview]:
    """(all, where a function may write): memory that ends where it should, or lies between guards, which show what
    was written by code that no sanitizer watches.
    """
    guard = chance.choice((0, GUARD))
    whole = exact(b"\xaa" * (length + 2 * guard))
    return whole, whole[guard : guard + length]


def key(chance: Chance) -> bytes:
    return noise(chance, 32 if chance.random() < 0.99 else chance.choice((0, 1, 31, 33)))


def counter(chance: Chance) -> int:
    return chance.choice((0, chance.getrandbits(64), (1 << 32) - 2, (1 << 64) - chance.randint(1, 70)))


def fuzz_seal(chance: Chance) -> None:
    size = chance.choice((0, 1, 20, 64, chance.randint(0, 200), 1420 if chance.random() < 0.2 else 3))
    items = near(chance, 1, 64 if chance.random() < 0.05 else chance.choice((1, 2, 5)))
    start, to, padding = chance.randint(0, 9), chance.randint(0, 9), chance.choice((0, chance.randint(0, 15)))
    data, secret = noise(chance, start + size * items + chance.choice((0, 0, 5))), key(chance)
    length = to + (size + padding + 32) * items + chance.choice((0, 0, 5))
    numbers = {"start": start, "size": size, "count": items, "padding": padding}
    numbers |= {"receiver": chance.randrange(1 << 32), "counter": counter(chance)}
    numbers = bent(chance, numbers | {"to": to})
    whole, out = room(chance, length)
    before = bytes(whole)
    *first, last = numbers.values()
    seal = lambda module, into, packets: module.Sealer(secret).seal(packets, *first, into, last)  # noqa: E731
    python_whole = bytearray(before)
    guard = (len(whole) - length) // 2
    python_out = memoryview(python_whole)[guard : guard + length]
    python = expected(numbers, seal, crypto_loops, python_out, data)
    if len(secret) != 32:
        python = ValueError
    agree(outcome(seal, crypto, out, exact(data)), python, secret, data, numbers)
    agree(bytes(whole), bytes(python_whole), secret, data, numbers)


@drawn
def datagrams(chance: Chance) -> tuple[bytes, bytes, int, int, int, int]:
    """A run of them: (bytes, key, start, bytes of each plaintext, how many, counter of the first)."""
    plain = chance.choice((0, 1, 20, 64, chance.randint(0, 200), 1424 if chance.random() < 0.2 else 3))
    items = near(chance, 1, 64 if chance.random() < 0.05 else chance.choice((1, 2, 5, 9)))
    start, secret, first = chance.randint(0, 9), noise(chance, 32), min(counter(chance), (1 << 64) - items)
    sealed = bytearray(start + items * (plain + 32))
    packets = noise(chance, plain * items)
    crypto_loops.Sealer(secret).seal(packets, 0, plain, items, 0, 7, first, memoryview(sealed), start)
    return bytes(sealed), secret, start, plain, items, first


def fuzz_open(chance: Chance) -> None:
    sealed, secret, start, plain, items, number = datagrams(chance)
    untrusted, to = damaged(chance, sealed), chance.randint(0, 9)
    length = to + plain * items + chance.choice((0, 0, 5))
    numbers = {"start": start, "size": plain + 32, "count": items, "counter": number}
    numbers = bent(chance, numbers | {"to": to})
    whole, out = room(chance, length)
    before = bytes(whole)
    *first, to = numbers.values()
    open_ = lambda module, into, data: module.Opener(secret).open(data, *first, into, to)  # noqa: E731
    python_out = bytearray(length)
    python = expected(numbers, open_, crypto_loops, memoryview(python_out), memoryview(untrusted))
    agree(outcome(open_, crypto, out, exact(untrusted)), python, secret, untrusted, numbers)
    if isinstance(python, type):
        agree(bytes(whole), before)
        return
    each, guard = numbers["size"] - 32, (len(whole) - length) // 2
    laid, stop = to + each * sum(python), to + each * len(python)
    agree(bytes(out[to:laid]), bytes(python_out[to:laid]), secret, untrusted, numbers)
    # Nothing but the run's own place was written, and in it nothing is left of what is not authentic
    agree(bytes(whole[: guard + to]), before[: guard + to])
    agree(bytes(whole[guard + stop :]), before[guard + stop :])
    agree(bytes(out[laid:stop]).strip(b"\0\xaa"), b"", secret, untrusted, numbers)


def fuzz_succession(chance: Chance) -> None:
    sealed, _, start, plain, items, number = datagrams(chance)
    blob = bytearray(sealed)
    if chance.random() < 0.3:  # counters that begin anew
        number = (1 << 64) - chance.randint(1, items)
        for i in range(items):
            at = start + i * (plain + 32) + 8
            blob[at : at + 8] = ((number + i) % (1 << 64)).to_bytes(8, "little")
    untrusted = damaged(chance, bytes(blob))
    numbers = bent(chance, {"start": start, "size": plain + 32, "most": chance.choice((items, 64))})
    arguments = numbers.values()
    python = expected(numbers, crypto_loops.succession, untrusted, *arguments)
    agree(outcome(crypto.succession, exact(untrusted), *arguments), python, untrusted, numbers)


def fuzz_alike(chance: Chance) -> None:
    size, start = chance.randint(20, 60), chance.randint(0, 9)
    packets = noise(chance, start) + noise(chance, size) * chance.randint(1, 9)
    packets = damaged(chance, packets)
    first, address, width = chance.choice(((4, 12, 4), (6, 4, 8), (4, 16, 4), (size, 0, size), (1, size - 1, 1)))
    numbers = {"start": start, "size": size, "most": chance.choice((1, 3, 64))}
    numbers = bent(chance, numbers | {"first": first, "address": address, "width": width})
    python = expected(numbers, crypto_loops.alike, packets, *numbers.values())
    agree(outcome(crypto.alike, exact(packets), *numbers.values()), python, packets, numbers)


def fuzz_run(chance: Chance) -> None:
    packet, protocol, *_ = superpacket(chance)
    size = len(packet) if chance.random() < 0.1 else len(packet) & ~3
    size = min(size, chance.choice((24, 36, 44, 56, 100, 1 << 16)))
    blob = packet[:size] * chance.choice((1, 2, 3, 9, 70 if size < 2000 else 4))
    # What differs from packet to packet of a flow, and what must not
    untrusted = damaged(chance, damaged(chance, blob), chance.choice((3 * size, 1 << 16)))
    numbers = {"start": size * chance.choice((0, 0, 0, 1, 2)), "size": size}
    is_tcp = protocol == TCP if chance.random() < 0.9 else chance.random() < 0.5
    if chance.random() < 0.2:  # beyond what Python is asked: it must only be refused
        assert outcome(filter_fast.run, exact(untrusted), *bent(chance, numbers).values(), is_tcp) is not None
    elif numbers["start"] < len(untrusted):
        python = uniform.run(memoryview(untrusted), *numbers.values(), is_tcp)
        agree(filter_fast.run(exact(untrusted), *numbers.values(), is_tcp), python, untrusted, numbers, is_tcp)


# The run --------------------------------------------------------------------------------------------------------------


def told(ways: list[Way]) -> str:
    """How much of what was meant for it the short way took."""
    messages = sum(way.messages for way in ways)
    return f"; {sum(way.shortly for way in ways):,} of {messages:,} messages went the short way" if messages else ""


def main(seed: int, first: int, inputs: int, seconds: float, at: Path, only: str) -> None:
    targets = {name[5:]: target for name, target in globals().items() if name.startswith("fuzz_")}
    ways: list[Way] = []

    def of(make: Callable[[], Way]) -> Callable[[Chance, int], None]:
        """A way is made when its first input comes."""
        made: list[Way] = []

        def target(chance: Chance, number: int) -> None:
            if not made:
                made.append(make())
                ways.extend(made)
            made[0].tell(chance, number)

        return target

    throws: dict[str, Callable[[Chance, int], None]] = {
        name: lambda chance, number, target=target: target(chance) for name, target in targets.items()
    }
    throws |= {name: of(make) for name, make in WAYS.items()}
    names = [name for name in throws if name.startswith(only)]
    with at.open("r+b") as file, mmap.mmap(file.fileno(), 8) as page, memoryview(page).cast("Q") as here:
        print(f"seed {seed}: {', '.join(names)}", flush=True)
        chance, began = Chance(), time.perf_counter()
        chance.seed_of_all = seed
        said = began
        for number in count(first):
            here[0] = number
            chance.seed(seed << 64 | number)
            throws[names[number % len(names)]](chance, number)
            done, now = number - first + 1, time.perf_counter()
            is_over = done == inputs if inputs else now - began >= seconds
            if is_over or now - said >= 10:
                said = now
                print(f"{done:,} inputs in {now - began:.0f} s, no difference and no complaint{told(ways)}", flush=True)
            if is_over:
                return


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]), float(sys.argv[4]), Path(sys.argv[5]), sys.argv[6])
