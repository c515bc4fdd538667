"""Settings of config: the trust anchor, which the box was made with.

trust = { box = "hex", console = "hex" }
"""

from __future__ import annotations

from collections.abc import Mapping

from appliance.guest.settings import SettingsError, Table
from appliance.signed.trust import Trust, read_trust


def parse(role: str, table: Mapping[str, object]) -> Trust | None:
    """Whom config believes; None in an assembly that is not that of a certain box yet. Errors: SettingsError."""
    if role != "config":
        raise SettingsError("", f"the config component has no role {role!r}")
    reader = Table(table)
    trust = read_trust(reader)
    reader.done()
    return trust
