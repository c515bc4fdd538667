"""What `septum init` said of a box, for `septum up`: read without the library that makes certificates, which the
process that becomes the monitor does not hold.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

FOLDER: Final = "management"


def trust(state: Path) -> dict[str, str] | None:
    """Which box this is, and the console's public key, in hexadecimal; None if `septum init` was never called.

    Errors: OSError, ValueError if the file is damaged.
    """
    try:
        said = json.loads((state / FOLDER / "trust.json").read_bytes())
    except FileNotFoundError:
        return None
    if not isinstance(said, dict) or set(said) != {"box", "console"}:
        raise ValueError(f"{state / FOLDER / 'trust.json'} is damaged")
    return {key: str(value) for key, value in said.items()}


def is_due(state: Path, now: float) -> bool:
    """Whether the server's certificate has lived half its time, ``now`` in seconds since 1970. Errors: as ``trust``."""
    try:
        return bool(now >= json.loads((state / FOLDER / "identity.json").read_bytes())["renew_at"])
    except FileNotFoundError:
        return False
    except (KeyError, TypeError):
        raise ValueError(f"{state / FOLDER / 'identity.json'} is damaged") from None
