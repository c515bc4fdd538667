"""Which of the twins runs: the compiled loops (fast.pyx) where there are some, else the same in Python (loops.py)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from components.crypto.loops import Opener, Sealer, alike, succession

    COMPILED: bool
else:
    try:
        from components.crypto.fast import Opener, Sealer, alike, succession

        COMPILED = True
    except ImportError:
        from components.crypto.loops import Opener, Sealer, alike, succession

        COMPILED = False

LOOPS = "compiled" if COMPILED else "pure Python: no compiler was there at install"

__all__ = ["COMPILED", "LOOPS", "Opener", "Sealer", "alike", "succession"]
