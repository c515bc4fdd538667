"""Which of the twins runs: the compiled look (fast.pyx) where there is one, else the same in Python (uniform.py)."""

from __future__ import annotations

try:
    from components.filter.fast import run
except ImportError:
    from components.filter.uniform import run

__all__ = ["run"]
