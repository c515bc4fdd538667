"""What the validators ask of a port's schema: is there one, what does it carry which way, what memory does it take."""

from __future__ import annotations

from functools import cache
from typing import Final

from appliance.vchan import layout
from appliance.vchan.schema import Schema, SchemaError, schema

EVENTS: Final = 2
"""Events of one channel at each of its ends: one to wait on, one to wake the peer with."""


@cache
def find(name: str) -> Schema | None:
    """The schema of that name, or None if there is no such .proto or it describes no channel."""
    try:
        return schema(name)
    except SchemaError:
        return None


def forward(name: str) -> frozenset[str]:
    """The labels of what goes from client to server."""
    found = find(name)
    return found.forward.labels if found else frozenset()


def backward(name: str) -> frozenset[str]:
    """The labels of what comes back; nothing, for a stream."""
    found = find(name)
    return found.backward.labels if found and found.backward else frozenset()


def memory(name: str) -> int:
    """Bytes of shared memory that a channel takes, its header page included."""
    found = find(name)
    return layout.size(found.orders) if found else 0


def grants(name: str) -> int:
    """Pages of a channel: the grants it takes where memory is granted, not passed as a descriptor."""
    return memory(name) // layout.PAGE
