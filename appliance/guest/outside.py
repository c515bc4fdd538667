"""The one peer that is no domain: the operator, to whom the monitor lends its end of a channel, one tool at a time."""

from __future__ import annotations

from typing import Final

OPERATOR: Final = "operator"
"""What the other end is told that its peer is called."""
