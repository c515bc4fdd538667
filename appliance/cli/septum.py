"""The console script `septum`.

`septum up` as it is nearly always typed goes straight to work: the library that reads command lines and the one that
draws tables take longer to import than the box takes to check its file, and the process becomes the monitor.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

BACKENDS: Final = ("process", "xen")


def plain_up(words: Sequence[str]) -> dict[str, Any] | None:
    """The arguments of ``building.up`` in the words after `up`; None if they need an explanation, or want one."""
    found: dict[str, Any] = {}
    rest = iter(words)
    for word in rest:
        if word == "--foreground":
            found["foreground"] = True
        elif word in ("--lan", "--wan", "--name", "--assembly", "--rules", "--backend", "--admin"):
            value = next(rest, "")
            if not value or value.startswith("-") or (word == "--backend" and value not in BACKENDS):
                return None
            found[word.removeprefix("--")] = Path(value) if word == "--rules" else value
        elif word.startswith("-") or not word or "file" in found:
            return None
        else:
            found["file"] = Path(word)
    return found if "file" in found else None


def main() -> None:
    """Ends the process with the command's exit code."""
    arguments = plain_up(sys.argv[2:]) if sys.argv[1:2] == ["up"] else None
    if arguments is None:
        from appliance.cli.commands import app

        app()
    else:
        from appliance.cli.building import up

        sys.exit(up(**arguments))


if __name__ == "__main__":
    main()
