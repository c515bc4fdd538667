"""What all tests share: no property test fails because the machine was busy (speed is a benchmark's business)."""

from __future__ import annotations

from contextlib import suppress

from hypothesis import settings

with suppress(ModuleNotFoundError):  # no compiler: the long way is all there is
    import appliance.vchan.short  # noqa: F401 - before whoever looks for it, as in the domains that packets go through

from appliance.vchan.reach import IS_SHORT
from components.crypto.twin import LOOPS


def pytest_report_header() -> str:
    return f"data path: {LOOPS}; {'a' if IS_SHORT else 'no'} short way"


settings.register_profile("septum", deadline=None)
settings.load_profile("septum")
