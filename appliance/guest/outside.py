"""The peers that are no domains: the operator, to whom the monitor lends its end of a channel, one tool at a time; and,
on Xen, domain 0, where what a domain holds of the machine is kept if the domain cannot hold it itself.
"""

from __future__ import annotations

from typing import Final

OPERATOR: Final = "operator"
"""What the other end is told that its peer is called."""

DOM0: Final = "dom0"
"""Who keeps the disk of a store (appliance/monitor/xen/keeping.py)."""

OUTSIDE: Final = frozenset({OPERATOR, DOM0})
