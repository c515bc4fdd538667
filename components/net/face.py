"""A face of the box: one device, and what goes from it to the filter and back, counted. What the device is, and how its
reads are cut and its writes joined, is a subclass's to say (red.py, link.py).
"""

from __future__ import annotations

import errno
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Generic, Protocol, TypeVar

from appliance.guest.loop import Guest
from appliance.vchan.messages import Frames, Packets
from components.net import twin, virtio
from components.net.split import Malformed

READS: Final = 32  # of the device, in one turn

Group = TypeVar("Group", Packets, Frames)
Write = TypeVar("Write")
"""What is given to the device at once: a virtio_net_hdr, and what it describes."""
Write_co = TypeVar("Write_co", covariant=True)


class Joining(Protocol[Group]):
    """What the groups of a turn are made by (groups.py, frames.py)."""

    def closed(self) -> list[Group]:
        """The groups that nothing can join any more, once."""

    def all(self) -> list[Group]:
        """Those, and what could still have grown."""


class Joined(Protocol[Write_co]):
    """What to write for a group (coalesce.py, frames.py)."""

    @property
    def buffers(self) -> Sequence[Write_co]: ...

    @property
    def bad(self) -> int:
        """How many of its packets had a wrong checksum."""


class Refused(Exception):
    """Something was read that goes no further, and has been counted."""


class Face(ABC, Generic[Group, Write]):
    """Both directions of a device: what it gives goes out by ``port``. ``what`` it passes names its counters."""

    def __init__(
        self,
        guest: Guest,
        port: str,
        what: str,
        grouper: Joining[Group],
        join: Callable[[Group, bool], Joined[Write]],
        write: Callable[[Write], int],
    ) -> None:
        """``join`` makes of a group what to write, UDP joined together or not; ``write`` gives that to the device, and
        says 0 or the errno with which it was refused.
        """
        self._grouper: Joining[Group] = grouper
        self._join: Callable[[Group, bool], Joined[Write]] = join
        self._write: Callable[[Write], int] = write
        self._log = guest.log
        self._out = guest.out(port)
        self._what = what
        self._takes_uso = True  # until the kernel refuses UDP joined together (before Linux 6.2)
        self._count_in = guest.counter(f"{what}_in")
        self._count_out = guest.counter(f"{what}_out")
        self._bytes_in = guest.counter("bytes_in")
        self._bytes_out = guest.counter("bytes_out")
        self._groups_in = guest.counter("groups_in")
        self._groups_out = guest.counter("groups_out")
        self._malformed = guest.counter("malformed")
        self._bad_checksum = guest.counter("bad_checksum")
        self._write_errors = guest.counter("write_errors")

    @abstractmethod
    def _take(self) -> bool:
        """Reads once, and has the grouper join what that was; False if nothing waits. Errors: Malformed, Refused."""

    @abstractmethod
    def _is_uso(self, write: Write) -> bool:
        """Whether this is UDP joined together."""

    @abstractmethod
    def _apart(self, write: Write) -> Iterable[Write]:
        """The same, each packet alone."""

    def arrived(self, now: float) -> bool:
        """The device can be read: what waits there goes to the filter, in as few groups as its order allows."""
        for _ in range(READS):
            try:
                if not self._take():
                    self._send(self._grouper.all())
                    return False
            except Malformed:
                self._malformed.add(1)
                continue
            except Refused:
                continue
            self._send(self._grouper.closed())
            if not self._out.room():
                return True  # the open groups stay for the next turn, which comes once there is room
        self._send(self._grouper.all())
        return True

    def _send(self, groups: Sequence[Group]) -> None:
        for group in groups:
            blob, size = group[0], group[1]
            self._groups_in.add(1)
            self._count_in.add(-(-len(blob) // size))
            self._bytes_in.add(len(blob))
            self._out.send(group)

    def depart(self, group: Group, now: float) -> None:
        """A group from the filter: joined together for the device where it can be."""
        joined = self._join(group, self._takes_uso)
        blob, size = group[0], group[1]
        self._groups_out.add(1)
        self._count_out.add(-(-len(blob) // size))
        self._bytes_out.add(len(blob))
        if joined.bad:
            self._bad_checksum.add(joined.bad)
        for write in joined.buffers:
            refusal = self._write(write)
            if refusal == errno.EINVAL and self._is_uso(write):
                self._without_uso(write)
            elif refusal:
                self._write_errors.add(1)

    def _without_uso(self, refused: Write) -> None:
        """This kernel takes no UDP joined together: from now on, and for this one already, it goes one by one."""
        if self._takes_uso:
            self._takes_uso = False
            self._log.info(
                "no-uso", f"this kernel takes no UDP joined together: its {self._what} are written one by one"
            )
        for write in self._apart(refused):
            if self._write(write):
                self._write_errors.add(1)


def is_uso(header: bytes | memoryview) -> bool:
    """Whether a virtio_net_hdr is of UDP joined together."""
    return header[_GSO_TYPE] == virtio.GSO_UDP_L4


_GSO_TYPE: Final = 1  # offset in a virtio_net_hdr


def tell_loops(guest: Guest) -> None:
    """Counts and says, once, whether the loops over packets are compiled."""
    loops = "compiled" if twin.COMPILED else "pure Python: no compiler was there at install"
    guest.counter("compiled").set(twin.COMPILED)
    guest.on_open("log", lambda now: guest.log.info("loops", loops))
