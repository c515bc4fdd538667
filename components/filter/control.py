"""The operator's channel to a filter: the same for every role, whatever its ways are."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from septum.v1.filtering import FilteringReply, FilteringRequest

from appliance.guest.loop import Guest
from components.filter.engine import Engine
from components.filter.operator import Operator

if TYPE_CHECKING:
    from components.filter.ethernet import Ethernet

PORT: Final = "control"
_SHARE: Final = 0.25  # of the filter's time, that all questions together may take


def serve(guest: Guest, engine: Engine, ethernet: Ethernet | None = None) -> None:
    """Answers what the operator asks about ``engine``, if the assembly joins it; and replaces its rules. ``ethernet``:
    the box passes frames.
    """
    if not guest.is_joined(PORT):
        return
    operator = Operator(engine, ethernet)

    def answer(peer: str, request: FilteringRequest) -> FilteringReply:
        return operator.answer(request, time.monotonic(), guest.wall())

    guest.serve(PORT, answer, share=_SHARE)
    guest.on_close(PORT, lambda now: operator.forget())
