"""Settings of the crypto component. Only `encrypt` has any."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from appliance.guest.settings import SettingsError, Table


class EncryptSettings(NamedTuple):
    """``mtu``: bytes of the largest packet in the tunnel, beyond which no packet is padded."""

    mtu: int


def parse(role: str, table: Mapping[str, object]) -> EncryptSettings:
    """The settings of ``role``. Errors: SettingsError."""
    if role != "encrypt":
        raise SettingsError("", f"the role {role!r} of crypto has no settings")
    reader = Table(table)
    settings = EncryptSettings(mtu=reader.integer("mtu", 576, 9216, default=1420))
    reader.done()
    return settings
