"""The short way (short.pyx) as the loop and components ask for it: none where it was not compiled, nor over grants."""

from __future__ import annotations

import importlib
from typing import Any

from appliance.vchan.endpoint import Endpoint
from appliance.vchan.reach import IS_SHORT


def module(name: str) -> Any:
    """The compiled module of that name, or None."""
    try:
        return importlib.import_module(name) if IS_SHORT else None
    except ModuleNotFoundError:
        return None


_guest, _vchan = module("appliance.guest.short"), module("appliance.vchan.short")


def ways(epoll_fd: int) -> Any:
    """What a loop sleeps by, or None."""
    return None if _guest is None else _guest.Ways(epoll_fd)


def end(endpoint: Endpoint) -> Any:
    """The short way through ``endpoint``, or None."""
    notify_fd = endpoint.notify_fd
    return None if _vchan is None or notify_fd is None else _vchan.End(endpoint, endpoint.fileno(), notify_fd)
