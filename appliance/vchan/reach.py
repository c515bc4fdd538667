"""What a Vchan and an Endpoint count lies within reach of the short way, if short.pyx was imported before them.

Domains through which no packet goes do without: it would be code to trust for nothing.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING


class Indices:
    """Base of Vchan: nothing, so that Python keeps the counts."""


class Serials:
    """Base of Endpoint."""


IS_SHORT = "appliance.vchan.short" in sys.modules
if IS_SHORT and not TYPE_CHECKING:
    from appliance.vchan.short import Indices, Serials

__all__ = ["IS_SHORT", "Indices", "Serials"]
