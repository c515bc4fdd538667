"""Where the rig keeps what it has downloaded and built, and how it says what it is doing."""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
XEN = Path(os.environ.get("SEPTUM_XEN_CACHE", ROOT / "build/xen"))
"""Everything in it is named after the hash of what it was made from, so several checkouts may share one folder."""

TOOK: Counter[str] = Counter()
"""Seconds that steps have taken in this process."""


@contextmanager
def step(what: str) -> Iterator[None]:
    """Says that ``what`` goes on, and when it is done how long it took. On a terminal that is one line.

    Past what pytest takes of a test's output, for it can be minutes (make xen-test: --capture=sys).
    """
    out = sys.__stderr__ or sys.stderr
    terminal = out.isatty()
    started = time.monotonic()
    print(f"  {what} …", end="" if terminal else "\n", file=out, flush=True)
    done = "failed"
    try:
        yield
        done = "done"
    finally:
        TOOK[what] += time.monotonic() - started
        took = f"{done}, {time.monotonic() - started:.1f} s"
        print(f"\r  {what}: {took}  " if terminal else f"  {what}: {took}", file=out, flush=True)


@contextmanager
def making(folder: Path) -> Iterator[Path | None]:
    """Yields a scratch folder that becomes ``folder`` if the block ends well, or None if it is there already.

    One process at a time makes it; the others wait for that one.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.with_name(folder.name + ".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.is_dir():
            yield None
            return
        scratch = folder.with_name(f"{folder.name}.making")
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        yield scratch
        scratch.rename(folder)
