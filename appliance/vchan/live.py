"""How the two ends of a vchan open, notice that the other has gone, and open again over the same pages.

Each end stores one byte and reads the other's: 0 closed, 1 live, 2 waiting (libxenvchan.h). The pages outlive both
ends, so the question is always whether a 1 is news or was left over from before.

An end that attaches stores 0 and keeps it while the other is still at 1: that 1 belongs to a session which the other
must first see end. Only then does it wait (2). Whoever waits has zeroed its own indices; whoever sees the other waiting
as well offers (1). So a 1 that a waiting end sees was stored after it began to wait, and both start from index 0.

    SHUT     this end closed because the other broke the rules: nothing but the other's death (0) ends that
    ABSENT   attached, or closed in good order; the other may still believe in the last session
    WAITING  indices are zero
    OFFERED  as WAITING, and the other was seen waiting
    OPEN     both are live; only here are the rings looked at

A monitor that finds an end dead stores its 0 for it (``memfd.mark_dead``) and later starts another.

All interleavings of this were searched (tests/channel/test_live.py). It needs one thing of the world: that an end which
has read the byte of one that then died acts on it, the next few instructions, before the replacement is running, which
takes a whole interpreter's start. Otherwise two ends may for once disagree, and one of them closes.
"""

from __future__ import annotations

from enum import IntEnum, auto
from typing import Final, Literal

from appliance.vchan.layout import CLOSED, LIVE, WAITING

Event = Literal["opened", "closed"]


class State(IntEnum):
    """What this end makes of the channel."""

    SHUT = auto()
    ABSENT = auto()
    WAITING = auto()
    OFFERED = auto()
    OPEN = auto()


SHOWN: Final = {
    State.SHUT: CLOSED,
    State.ABSENT: CLOSED,
    State.WAITING: WAITING,
    State.OFFERED: LIVE,
    State.OPEN: LIVE,
}
"""The byte that this end stores in each state."""

TABLE: Final[dict[tuple[State, int], tuple[State, Event | None]]] = {
    # own state, the other's byte -> next state, what the component is told
    (State.SHUT, CLOSED): (State.WAITING, None),
    (State.SHUT, LIVE): (State.SHUT, None),
    (State.SHUT, WAITING): (State.SHUT, None),
    (State.ABSENT, CLOSED): (State.WAITING, None),
    (State.ABSENT, LIVE): (State.ABSENT, None),
    (State.ABSENT, WAITING): (State.WAITING, None),
    (State.WAITING, CLOSED): (State.WAITING, None),
    (State.WAITING, LIVE): (State.OPEN, "opened"),
    (State.WAITING, WAITING): (State.OFFERED, None),
    (State.OFFERED, CLOSED): (State.WAITING, None),
    (State.OFFERED, LIVE): (State.OPEN, "opened"),
    (State.OFFERED, WAITING): (State.OFFERED, None),
    (State.OPEN, CLOSED): (State.WAITING, "closed"),
    (State.OPEN, LIVE): (State.OPEN, None),
    (State.OPEN, WAITING): (State.WAITING, "closed"),
}
"""Every combination there is; any other byte is a violation by the other end (but to an end that has SHUT anyway)."""
