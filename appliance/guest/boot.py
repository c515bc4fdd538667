"""The first and only program of a domain: import, attach, build, seal, wait for GO, run.

Started by the monitor as ``python -I -S -B boot.py`` with the file descriptors of docs/architecture.md. Everything that
can fail to open is opened here, before the seal; the first byte of input is read after it.
"""

import json
import os
import sys
from contextlib import suppress

BOOT_FD = 3
STATUS_FD = 4
LAST_WORDS_FD = 2
LONE = ("packets", "datagrams")  # schemas of channels through which a lone packet may go the short way


def described(whole: bytes) -> dict[str, object]:
    """The boot description: JSON.

    Behind it may stand a setting that was replaced while the box ran: a zero byte, its name, a zero byte, its JSON.
    """
    text, *replaced = whole.split(b"\0", 2)
    description = json.loads(text)
    assert isinstance(description, dict)
    if replaced:
        name, value = replaced
        description["settings"][name.decode()] = json.loads(value)
    return description


def _read_description() -> dict[str, object]:
    """From a sealed memfd, which is closed once it is read."""
    size = os.fstat(BOOT_FD).st_size
    whole = os.pread(BOOT_FD, size, 0)
    os.close(BOOT_FD)
    return described(whole)


def main() -> None:
    """Never returns while the domain lives. Exits 1, with its last words on fd 2, for whatever goes wrong."""
    description = _read_description()
    # -I -S left only the standard library; the monitor says where the rest lies, and nothing else is looked at.
    sys.path.extend(description["path"])  # type: ignore[arg-type]
    if not {entry["schema"] for entry in description["ports"]}.isdisjoint(LONE):  # type: ignore[attr-defined]
        with suppress(ModuleNotFoundError):  # it was not compiled
            import appliance.vchan.short  # noqa: F401 - before whoever looks for it: reach.py
    from appliance.guest import domain

    domain.live(description)


if __name__ == "__main__":
    main()
