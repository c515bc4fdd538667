"""A guest that boots as Septum's do, on the kernel of the test guests: the real PID 1 and real components.

Not an image of `septum image build`: Debian's kernel with modules, and sources. What runs is the same.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from tests.xen.rig import guest
from tests.xen.rig.bytecode import compiled
from tests.xen.rig.cpio import Tree, archive, file
from tests.xen.rig.debian import unpack
from tests.xen.rig.dom0 import packages
from tests.xen.rig.places import ROOT

COMPONENTS: Final = ("rng", "log", "filter")
PAIR: Final[dict[str, list[dict[str, Any]]]] = {
    "rng": [
        {"port": "keys", "peer": "keymgr", "schema": "random", "end": "server", "channel": 0},
        {"port": "log", "peer": "log", "schema": "records", "end": "out", "channel": 1},
    ],
    "log": [{"port": "records", "peer": "rng", "schema": "records", "end": "in", "channel": 1}],
}
_INIT: Final = b"""#!/usr/bin/python3.11 -ISB
import ctypes
import os
import sys

sys.path[:0] = ["/septum", "/septum/proto"]
libc = ctypes.CDLL(None, use_errno=True)
for name in sorted(os.listdir("/modules")):
    with open("/modules/" + name, "rb") as module:
        if libc.syscall(313, module.fileno(), b"limit=4096" if b"gntalloc" in module.read() else b"", 0):
            raise OSError(ctypes.get_errno(), name)
from appliance.guest.boot_xen import main

main()
"""

_ASK_FOR_FILES: Final = """
import sys
sys.path[:0] = {paths!r}
from appliance.guest import boot_xen
for name in {mains!r}:
    __import__(name)
print("\\n".join(sorted({{m.__file__ for m in sys.modules.values() if getattr(m, "__file__", None)}})))
"""


def _loaded() -> list[str]:
    """The files that the boot and the components load."""
    program = _ASK_FOR_FILES.format(
        paths=[str(ROOT), str(ROOT / "proto")], mains=[f"components.{name}.main" for name in COMPONENTS]
    )
    return subprocess.run(
        ["/usr/bin/python3.11", "-ISB", "-c", program], capture_output=True, text=True, check=True
    ).stdout.split()


def _sources(loaded: list[str]) -> Tree:
    """Septum's own of them, and all schemas: those are imported by the names of ports."""
    own = {Path(path).relative_to(ROOT) for path in loaded if Path(path).is_relative_to(ROOT)}
    own |= {path.relative_to(ROOT) for path in (ROOT / "proto/septum").rglob("*.py")}
    return {f"septum/{path}": file((ROOT / path).read_bytes()) for path in sorted(own)}


def build() -> tuple[Path, bytes]:
    """The kernel, and the initramfs but for the description. Errors: RuntimeError, CalledProcessError."""
    base = guest.build(_INIT, {})
    debs, _ = packages()
    wanted = [deb for deb in debs if deb.name.split("_")[0] in guest._PACKAGES]
    loaded = _loaded()
    names = {path.removeprefix("/") for path in loaded if path.startswith("/usr/lib/python3.11/")}
    library = {path: entry for path, entry in unpack(wanted, re.compile("^usr/share")).items() if path in names}
    if absent := names - set(library):
        raise RuntimeError(f"Debian's Python has no {', '.join(sorted(absent))}")
    assert sys.version_info[:2] == (3, 11)
    return base.kernel, base.ramdisk.read_bytes() + archive(compiled({**library, **_sources(loaded)}))


def description(component: str, ports: list[dict[str, Any]], **more: Any) -> bytes:
    """The segment that says what the guest is. ``ports``: port, peer, schema, end, channel."""
    import tomllib

    declared = tomllib.loads((ROOT / f"components/{component}/component.toml").read_text())["roles"][component]
    found = {
        "domain": component,
        "role": component,
        "component": component,
        "main": declared["main"],
        "imports": declared.get("imports", []),
        "ports": ports,
        "devices": declared.get("devices", []),
        "counters": declared["counters"],
        "status_pages": 1,
        "seal": {"syscalls": declared.get("syscalls", [])},
        "settings": {},
        **more,
    }
    return archive({"description.json": file(json.dumps(found).encode(), 0o400)})
