"""The trust anchor: what a domain of a managed box is born with, and believes without a signature.

    trust = { box = "64 hexadecimal digits", console = "64 hexadecimal digits" }

Without cryptography in it, so that who is not managed does not import any.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from appliance.guest.settings import SettingsError, Table

_HEXADECIMAL: Final = re.compile("[0-9a-f]{64}")


class Trust(NamedTuple):
    """Which box this is (SHA-256 of its root certificate), and the console's public key (Ed25519)."""

    box: bytes
    console: bytes


def read_trust(reader: Table) -> Trust | None:
    """The setting ``trust`` of ``reader``; None if it is not there. Errors: SettingsError."""
    table = reader.table("trust")
    if table is None:
        return None
    box, console = _key(table, "box"), _key(table, "console")
    table.done()
    return Trust(box, console)


def _key(table: Table, key: str) -> bytes:
    text = table.text(key)
    if not _HEXADECIMAL.fullmatch(text):
        raise SettingsError(table.where(key), "must be 32 bytes in hexadecimal: septum init makes it")
    return bytes.fromhex(text)
