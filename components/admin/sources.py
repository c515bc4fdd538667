"""Where callers come from: who is not heard for a while, and who goes when there are too many. One host is told apart
from its neighbours, so that a stranger in the administrators' own network does not lock them out; who has a whole /64
of IPv6 to himself is not many.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple

from components.admin.ratelimit import OFFENCES, LockOut

MOST_CONNECTIONS: Final = 480
MOST_KNOWN: Final = 128  # that show a certificate, of one network
MOST_UNKNOWN: Final = 256  # that show none; the others are kept for those who do
MOST_UNKNOWN_OF_AN_ADDRESS: Final = 32
NETWORK_OFFENCES: Final = 10 * OFFENCES


class Source(NamedTuple):
    """An address, and the network that it is of: the /64 of an IPv6 address, an IPv4 address itself."""

    address: str
    network: str


class Present(NamedTuple):
    """A connection that there is. ``is_unknown``: it shows no certificate, or none yet."""

    source: Source
    is_unknown: bool


def source_of(address: bytes) -> Source:
    """``address``: 4 or 16 bytes."""
    if len(address) == 16 and address[:12] == b"\0" * 10 + b"\xff\xff":
        address = address[12:]
    if len(address) == 4:
        text = ".".join(map(str, address))
        return Source(text, text)
    words = [f"{address[i] << 8 | address[i + 1]:x}" for i in range(0, 16, 2)]
    return Source(":".join(words), ":".join(words[:4]) + "::/64")


class Offences:
    """Who offended too often: an address, which is not heard at all; a network with ten times as many, of which only
    who shows a certificate is.
    """

    def __init__(self) -> None:
        self._addresses = LockOut()
        self._networks = LockOut(NETWORK_OFFENCES)

    def offend(self, source: Source, now: float) -> list[str]:
        """Notes an offence; who is locked out with this one."""
        locked = [source.address] if self._addresses.offend(source.address, now) else []
        if source.network != source.address and self._networks.offend(source.network, now):
            locked.append(source.network)
        return locked

    def is_locked(self, source: Source, now: float) -> bool:
        """Whether nothing is heard from that address."""
        return self._addresses.is_locked(source.address, now)

    def is_suspect(self, source: Source, now: float) -> bool:
        """Whether only who shows a certificate is heard from there."""
        return self._networks.is_locked(source.network, now)


def has_room(present: Sequence[Present], source: Source) -> bool:
    """Whether one more may come from there, if need be in the place of another."""
    known = [one.source.network for one in present if not one.is_unknown]
    return len(known) < MOST_CONNECTIONS and known.count(source.network) < MOST_KNOWN


def to_go(present: Sequence[Present], source: Source) -> int | None:
    """Which of those present, oldest first, goes for one more from ``source``: one that shows no certificate, of those
    who have most; None if there is room for all.
    """
    unknown = [i for i, one in enumerate(present) if one.is_unknown]
    same = [i for i in unknown if present[i].source.address == source.address]
    if len(same) >= MOST_UNKNOWN_OF_AN_ADDRESS:
        return same[0]
    if not unknown or (len(unknown) < MOST_UNKNOWN and len(present) < MOST_CONNECTIONS):
        return None
    network = Counter(present[i].source.network for i in unknown).most_common(1)[0][0]
    of_network = [i for i in unknown if present[i].source.network == network]
    address = Counter(present[i].source.address for i in of_network).most_common(1)[0][0]
    return next(i for i in of_network if present[i].source.address == address)
