"""What a Vchan and an Endpoint count lies within reach of the short way (short.pyx), where that was compiled."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING


class Indices:
    """Base of Vchan: nothing, so that Python keeps the counts."""


class Serials:
    """Base of Endpoint."""


if not TYPE_CHECKING:
    with suppress(ImportError):
        from appliance.vchan.short import Indices, Serials

__all__ = ["Indices", "Serials"]
