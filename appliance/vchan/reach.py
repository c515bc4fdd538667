"""What a Vchan and an Endpoint count lies within reach of the short way, if short.pyx was imported before them.

Domains through which no packet goes do without: it would be code to trust for nothing.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING


class Indices:
    """Base of Vchan: nothing but room for the counts, so that Python keeps them."""

    __slots__ = ("_cons", "_is_partial", "_is_up", "_prod")


class Serials:
    """Base of Endpoint."""

    __slots__ = ("_next_in", "_next_out")

    shortly_sent = shortly_received = shortly_sent_bytes = shortly_received_bytes = 0


IS_SHORT = "appliance.vchan.short" in sys.modules
if IS_SHORT and not TYPE_CHECKING:
    from appliance.vchan.short import Indices, Serials

__all__ = ["IS_SHORT", "Indices", "Serials"]
