"""Which of the twins runs: the compiled loops (fast.pyx) where there are some, else the same in Python (loops.py)."""

from __future__ import annotations

try:
    from components.net.fast import follow, tcp_segments, total, udp_segments

    COMPILED = True
except ImportError:
    from components.net.loops import follow, tcp_segments, total, udp_segments

    COMPILED = False

__all__ = ["COMPILED", "follow", "tcp_segments", "total", "udp_segments"]
