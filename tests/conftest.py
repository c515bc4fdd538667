"""What all tests share: no property test fails because the machine was busy (speed is a benchmark's business)."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("septum", deadline=None)
settings.load_profile("septum")
