"""Which of the twins runs: the compiled loops (fast.pyx) where there are some, else the same in Python (loops.py,
runs.py)."""

from __future__ import annotations

try:
    from components.net.fast import join, tcp_segments, total, udp_segments

    COMPILED = True
except ImportError:
    from components.net.loops import tcp_segments, total, udp_segments
    from components.net.runs import join

    COMPILED = False

__all__ = ["COMPILED", "join", "tcp_segments", "total", "udp_segments"]
