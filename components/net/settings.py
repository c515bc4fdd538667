"""Settings of the faces of the box."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from appliance.guest.settings import SettingsError, Table

KEY_BYTES: Final = 32


class RedSettings(NamedTuple):
    """``mtu``: bytes of the largest packet that the TUN may give."""

    mtu: int


class BlackSettings(NamedTuple):
    """``public_key``: the box's own, 32 bytes: mac1 is keyed with it. ``listen_port`` (0: any) and ``fwmark`` (0: none)
    are what the socket was made with; making it is not black's to do.
    """

    public_key: bytes
    listen_port: int
    fwmark: int


def _public_key(reader: Table, key: str) -> bytes:
    text = reader.text(key)
    try:
        value = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        value = b""
    if len(value) != KEY_BYTES:
        raise SettingsError(reader.where(key), "must be a WireGuard public key: 32 bytes in base64, 44 characters")
    return value


def _red(reader: Table) -> RedSettings:
    return RedSettings(mtu=reader.integer("mtu", 576, 9216, default=1420))


def _black(reader: Table) -> BlackSettings:
    return BlackSettings(
        public_key=_public_key(reader, "public_key"),
        listen_port=reader.integer("listen_port", 0, 65535, default=0),
        fwmark=reader.integer("fwmark", 0, 2**32 - 1, default=0),
    )


_READERS: Final[dict[str, Callable[[Table], RedSettings | BlackSettings]]] = {
    "red": _red,
    "clear": _red,
    "black": _black,
}


def parse(role: str, table: Mapping[str, object]) -> RedSettings | BlackSettings:
    """The settings of ``role``. Errors: SettingsError."""
    if role not in _READERS:
        raise SettingsError("", f"the net component has no role {role!r}")
    reader = Table(table)
    settings = _READERS[role](reader)
    reader.done()
    return settings
