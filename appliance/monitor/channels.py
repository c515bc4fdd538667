"""The rings of a box: created once, held as long as the box lives, so that a domain can die and come back to them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from appliance.assembly.model import OPERATOR_ROLE, Channel, End, EndKind, ValidatedAssembly
from appliance.guest.outside import OPERATOR
from appliance.vchan import layout, memfd
from appliance.vchan.ring import Side
from appliance.vchan.schema import schema

_ONE = (1).to_bytes(8, "little")


class Attachment(NamedTuple):
    """One end of a channel, as its domain gets it. ``descriptors``: memory, event to wait on, event to notify."""

    port: str
    peer: str
    schema: str
    end: EndKind
    descriptors: tuple[int, int, int]
    bytes: int


@dataclass(frozen=True)
class _Ring:
    channel: Channel
    fds: memfd.Fds
    memory: memoryview
    bytes: int

    def side(self, domain: str) -> Side:
        return Side.CLIENT if self.channel.client.domain == domain else Side.SERVER

    def event_of(self, side: Side) -> int:
        """The event that the domain on ``side`` waits on."""
        return self.fds.client_event_fd if side is Side.CLIENT else self.fds.server_event_fd

    def descriptors(self, side: Side) -> tuple[int, int, int]:
        """What whoever is on ``side`` attaches by."""
        return self.fds.memory_fd, self.event_of(side), self.event_of(side.other)

    def end(self, dead: Side) -> None:
        """Says that ``dead`` is gone, and wakes the other side."""
        memfd.mark_dead(self.memory, dead)
        # Nobody reads these events, since every write to one wakes: the dead one may have written so much into them
        # that no further write has room, and neither would its replacement ever be woken. That is done here and not
        # when the replacement starts, so that what is read is never the news of this death.
        for event in (self.event_of(dead), self.event_of(dead.other)):
            with suppress(BlockingIOError):  # nothing was written
                os.read(event, 8)
        with suppress(BlockingIOError):  # the survivor has filled it just now, and can but be awake
            os.write(self.event_of(dead.other), _ONE)


class Channels:
    """All channels of an assembly. The order of a domain's channels is that of the file, always."""

    def __init__(self, assembly: ValidatedAssembly) -> None:
        self._assembly = assembly
        self._rings = [self._create(channel) for channel in assembly.channels]

    @staticmethod
    def _create(channel: Channel) -> _Ring:
        orders = schema(channel.schema).orders
        fds = memfd.create(orders)
        return _Ring(channel, fds, memfd.map_memory(fds.memory_fd, orders), layout.size(orders))

    def _of(self, domain: str) -> Iterable[_Ring]:
        return (r for r in self._rings if domain in (r.channel.client.domain, r.channel.server.domain))

    def attachments(self, domain: str) -> list[Attachment]:
        """What ``domain`` is handed, in the order of its ports' numbers."""
        role = self._assembly.domain(domain).role
        found = []
        for ring in self._of(domain):
            side, channel = ring.side(domain), ring.channel
            own, other = (channel.client, channel.server)[:: 1 if side is Side.CLIENT else -1]
            end = role.ports[own.port].end
            found.append(Attachment(own.port, other.domain, channel.schema, end, ring.descriptors(side), ring.bytes))
        return found

    def reset(self, dead: str) -> None:
        """Says on every channel of ``dead`` that it is gone, and wakes those who should know."""
        for ring in self._of(dead):
            ring.end(ring.side(dead))

    def outside(self, port: str) -> Attachment | None:
        """The operator's end of that name, cleared of what the last who held it has left; None if it is not joined."""
        ring = self._outside(port)
        if ring is None:
            return None
        memfd.zero_dead(ring.memory, Side.CLIENT)
        channel, kind = ring.channel, OPERATOR_ROLE.ports[port].end
        return Attachment(port, channel.server.domain, channel.schema, kind, ring.descriptors(Side.CLIENT), ring.bytes)

    def hang_up(self, port: str) -> None:
        """Says that nobody holds the operator's end of that name any more."""
        ring = self._outside(port)
        if ring is not None:
            for event in ring.descriptors(Side.CLIENT)[1:]:
                os.set_blocking(event, False)  # no domain could have changed that, whoever held this end could
            ring.end(Side.CLIENT)

    def _outside(self, port: str) -> _Ring | None:
        end = End(OPERATOR, port)
        return next((ring for ring in self._rings if ring.channel.client == end), None)

    def all_wait(self, dead: str, survivors: Iterable[str]) -> bool:
        """Whether each of ``survivors`` has dropped the session it had with ``dead``."""
        awaited = frozenset(survivors)
        return all(
            memfd.survivor_waits(ring.memory, ring.side(dead))
            for ring in self._of(dead)
            if {ring.channel.client.domain, ring.channel.server.domain} & awaited - {dead}
        )

    def zero(self, dead: str) -> None:
        """Clears what ``dead`` left in the headers of its channels, before its replacement starts."""
        for ring in self._of(dead):
            memfd.zero_dead(ring.memory, ring.side(dead))

    def close(self) -> None:
        for ring in self._rings:
            for fd in ring.fds:
                os.close(fd)
        self._rings.clear()
