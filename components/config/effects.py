"""What the cores of config want done: they are generators that yield one of these and are given what came of it.

So a core is a straight line of prose, holds no clock and no channel, and can be stopped for good between any two steps,
which is what a power cut is.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final, NamedTuple, TypeVar

T = TypeVar("T")

BLOBS: Final = "blobs"
DOMAINS: Final = ("ruleset", "peers")
"""The ports to who acts upon commits, named as the section that each is for, in the order in which they apply: rules
that know a new peer are in force before the peer is.
"""


class Ask(NamedTuple):
    """A call: its reply comes back, or Away is raised. ``patience`` in seconds."""

    port: str
    request: Any
    patience: float = 5.0


class Rest(NamedTuple):
    """Nothing for so many seconds."""

    seconds: float


class Time(NamedTuple):
    """Gives ``Now``."""


class Now(NamedTuple):
    """Seconds of the clock that only goes forward, and milliseconds since 1970."""

    now: float
    wall: int


class Away(Exception):
    """Nobody answered: whether the request was done, is not known."""

    def __init__(self, port: str) -> None:
        super().__init__(f"{port} does not answer")
        self.port = port


Steps = Generator[Ask | Rest | Time, Any, T]
