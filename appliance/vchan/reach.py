"""What a Vchan and an Endpoint count lies within reach of the short way, if short.pyx was imported before them.

Domains through which no packet goes do without: it would be code to trust for nothing.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any


class Indices:
    """Base of Vchan: nothing but room for the counts, so that Python keeps them."""

    __slots__ = ("_cons", "_is_partial", "_is_up", "_prod", "_seen_cons", "_seen_prod")


class Serials:
    """Base of Endpoint."""

    __slots__ = ("_next_in", "_next_out", "_received", "_received_bytes", "_sent", "_sent_bytes")


def quick(endpoint: Any, coming: Any, going: Any) -> Any:
    """The quick way of flat messages through ``endpoint`` (short.pyx), or None."""
    return None


IS_SHORT = "appliance.vchan.short" in sys.modules
if IS_SHORT and not TYPE_CHECKING:
    from appliance.vchan.short import Indices, Serials
    from appliance.vchan.short import Quick as quick

__all__ = ["IS_SHORT", "Indices", "Serials", "quick"]
