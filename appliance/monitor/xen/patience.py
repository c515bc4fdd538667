"""How slow this machine is: an emulated one takes many times as long for everything as a real one."""

from __future__ import annotations

import os
from typing import Final

PATIENCE: Final = "SEPTUM_PATIENCE"
"""An environment variable: how many times as long as on a real machine everything may take."""


def factor() -> float:
    """1 or more. Errors: ValueError if the variable holds no number."""
    return max(1.0, float(os.environ.get(PATIENCE) or 1))
