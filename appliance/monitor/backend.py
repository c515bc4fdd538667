"""The seam between the box and what its domains are built of: Linux processes (process.py) or Xen guests (xen/)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from appliance.guest.status import PeerRow
from appliance.monitor.status import Report
from appliance.monitor.supervisor import Limits


class Pace(NamedTuple):
    """Seconds between two looks of the box at its domains, and what it lets pass."""

    quick: float  # while something starts or ends
    slow: float  # while everything runs
    limits: Limits


class Lent(NamedTuple):
    """The operator's end of a channel: the ``peer`` at the other end, and what to attach by. Between processes that is
    memory, event to wait on, event to notify; to a guest the ``place`` to meet it at: its number, and the channel's.
    """

    peer: str
    schema: str
    descriptors: tuple[int, ...] = ()
    place: tuple[int, int] | None = None


class Away(Exception):
    """Nobody is at the other end now: it is being built. The text says who."""


class Backend(Protocol):
    """Builds and ends the domains of one assembly. It decides nothing: see supervisor.py."""

    @property
    def name(self) -> str:
        """As `--backend` has it."""

    @property
    def pace(self) -> Pace: ...

    @property
    def news(self) -> int | None:
        """A descriptor that is readable when ``turn`` has something to do before the next look; None if never."""

    @property
    def neighbours(self) -> Mapping[str, Sequence[str]]:
        """For each domain, the domain at the other end of each of its ports."""

    @property
    def living(self) -> tuple[str, ...]:
        """The domains that were started and not yet buried."""

    def start(self, name: str) -> int:
        """Starts ``name``. Returns a descriptor, the back end's own, that is readable once it is dead.

        Errors: OSError.
        """

    def turn(self) -> None:
        """Called at every look: what a back end does by itself between events."""

    def check(self, name: str) -> list[str]:
        """Looks from outside whether ``name`` is sealed as planned; what is amiss, if anything."""

    def release(self, name: str) -> None:
        """GO: from here on it reads input."""

    def kill(self, name: str) -> None: ...

    def bury(self, name: str) -> str:
        """After the end of ``name``: how it ended and its last words, in one line or more of printable ASCII."""

    def reset(self, name: str) -> None:
        """Tells the peers of the dead ``name``."""

    def all_wait(self, name: str, survivors: Iterable[str]) -> bool:
        """Whether these peers of the dead ``name`` are ready for its next life."""

    def report(self, name: str) -> Report: ...

    def describe(self, name: str) -> dict[str, Any]:
        """What can be said of a domain, alive or not, for `septum status`."""

    def peers(self, name: str, count: int) -> list[PeerRow | None]:
        """The first ``count`` rows of the board of ``name``: its own word."""

    def lend(self, port: str) -> Lent | None:
        """The operator's end of that name, for whoever is to hold it next; None if this box has none.

        Errors: Away, where there is no end without the domain at the other one.
        """

    def hang_up(self, port: str) -> None:
        """Nobody holds the operator's end of that name any more."""

    def replace_setting(self, domain: str, name: str, untrusted_fd: int) -> None:
        """Later lives of ``domain`` get what is in this memfd as the JSON of setting ``name``.

        Errors: ValueError saying what is wrong with it; OSError.
        """

    def close(self) -> None:
        """Ends every domain and lets go of everything that is theirs."""


class Place(Protocol):
    """The box's place in the network, as network.py and xen/bridges.py make it. Errors of all: NetworkError."""

    devices: dict[str, int]
    port: int
    notes: list[str]

    def open(self) -> None: ...
    def begin(self) -> None: ...
    def finish(self) -> None: ...
    def close(self) -> None: ...


Maker = Callable[[Mapping[str, int]], Backend]
"""A back end for the descriptors of these devices, by name."""
