"""What goes wrong between an administrator and a box, and the exit code that a script sees of it."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple


class Exit(IntEnum):
    """Exit codes of `septumctl`; 2 is a command that cannot be read."""

    DONE = 0
    REFUSED = 1  # the box refuses it, or there is no such thing
    USAGE = 2
    UNREACHED = 3  # the box does not answer
    NOT_ALLOWED = 4  # not with this certificate, this role, or so often
    OVERTAKEN = 5  # another commit came first, or one waits to be confirmed
    NOT_BELIEVED = 6  # what answers is not the box, or shows what nobody signed
    INVALID = 7  # the configuration has mistakes
    INTERRUPTED = 130


class Place(NamedTuple):
    """Something wrong at ``path`` of what was sent, or of a file."""

    path: str
    why: str


class Trouble(Exception):
    """A command cannot go on. ``then``: what to do next; ``places``: all that is wrong with what was handed in;
    ``wait``: seconds after which it may be tried again, if the box said so.
    """

    def __init__(
        self,
        code: Exit,
        why: str,
        then: str = "",
        places: Sequence[Place] = (),
        reason: str = "",
        wait: float = 0.0,
    ) -> None:
        super().__init__(why)
        self.code = code
        self.then = then
        self.places = tuple(places)
        self.reason = reason or code.name
        self.wait = wait
