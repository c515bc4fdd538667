"""pyroute2's rtnetlink alone.

``import pyroute2`` runs its ``__init__``, which imports all that it has: IPDB, ethtool, nftables, 300 ms of it. The
package is entered here without that; what its parts need of each other they import themselves.
"""

from __future__ import annotations

import importlib.util
import sys


def _enter(package: str) -> None:
    """Makes ``package`` importable piece by piece. Errors: ModuleNotFoundError."""
    if package not in sys.modules:
        spec = importlib.util.find_spec(package)
        if spec is None:
            raise ModuleNotFoundError(f"{package} is not installed", name=package)
        sys.modules[package] = importlib.util.module_from_spec(spec)


_enter("pyroute2")

from pyroute2.iproute.linux import IPRoute  # noqa: E402
from pyroute2.netlink.exceptions import NetlinkError  # noqa: E402

__all__ = ["IPRoute", "NetlinkError"]
