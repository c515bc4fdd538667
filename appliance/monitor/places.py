"""Where a box keeps what it needs: run directory (gone at reboot) and state directory (kept)."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

NAME: Final = re.compile(r"[A-Za-z0-9_=+.-]{1,15}")  # as wg-quick has it: also an interface's name


class PlaceError(Exception):
    """There is no directory to use; the text says which variable to set."""


def checked_name(name: str) -> str:
    """``name`` if it can be the name of a box, a directory and an interface; ValueError if not."""
    if not NAME.fullmatch(name) or name in (".", ".."):
        raise ValueError(f"{name!r} cannot be a box's name: at most 15 of letters, digits and _=+.-")
    return name


def is_system() -> bool:
    """Whether this is root of the machine, not of a user namespace of some user's."""
    return os.geteuid() == 0 and Path("/proc/self/uid_map").read_text().split() == ["0", "0", "4294967295"]


def _base(variable: str, system: str, user_variable: str, user_default: str) -> Path:
    if variable in os.environ:
        return Path(os.environ[variable])
    # Root of a user namespace may have been given a /run of its own
    if os.geteuid() == 0 and os.access(Path(system).parent, os.W_OK):
        return Path(system)
    base = os.environ.get(user_variable) or user_default
    if not base:
        raise PlaceError(f"{user_variable} is not set: set it, or {variable}, to a directory of your own")
    return Path(base) / "septum"


def run_base() -> Path:
    """The directory with one directory per box that is up: SEPTUM_RUN_DIR, /run/septum or XDG_RUNTIME_DIR/septum."""
    return _base("SEPTUM_RUN_DIR", "/run/septum", "XDG_RUNTIME_DIR", "")


def state_base() -> Path:
    """The same for what outlives a reboot: SEPTUM_STATE_DIR, /var/lib/septum or XDG_STATE_HOME/septum."""
    return _base("SEPTUM_STATE_DIR", "/var/lib/septum", "XDG_STATE_HOME", os.path.expanduser("~/.local/state"))


def run_dir(name: str) -> Path:
    return run_base() / checked_name(name)


def make_private(directory: Path) -> Path:
    """Makes ``directory`` for this user alone. Errors: PlaceError if it belongs to somebody else."""
    directory.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    directory.mkdir(mode=0o700, exist_ok=True)
    if directory.is_symlink() or directory.stat().st_uid != os.geteuid():
        raise PlaceError(f"{directory} belongs to somebody else: remove it")
    directory.chmod(0o700)
    return directory
