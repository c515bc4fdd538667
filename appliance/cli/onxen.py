"""What is asked of Xen, and made for it, before a box is up: `septum policy`, and `septum check --backend xen`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

from appliance.assembly.model import ValidatedAssembly
from appliance.cli import screen

SOURCES = "tools/flask/policy"
"""Of Xen's source tree."""


def policy(assembly: ValidatedAssembly, xen: Path, output: Path) -> None:
    """Writes the policy of ``assembly`` for the Xen that was built of the source tree ``xen``."""
    from appliance.xsm.compile import PolicyError
    from appliance.xsm.policy import compiled_policy

    if not (xen / SOURCES).is_dir():
        screen.fail(f"{xen} has no {SOURCES}", "the folder of Xen's sources: apt-get source xen, then --xen xen-4.17*")
    try:
        made = compiled_policy(assembly, xen / SOURCES)
        output.write_bytes(made)
    except (PolicyError, OSError) as error:
        _fail(error)
    screen.out.print(
        f"{output}: {len(made)} bytes, for {len(assembly.domains)} domains of {assembly.name}", soft_wrap=True
    )


def check(assembly: ValidatedAssembly) -> dict[str, Any]:
    """What `septum up --backend xen` would look for, short of touching anything: the images, byte by byte, and Xen."""
    from appliance.monitor.xen.fit import see_fit
    from appliance.monitor.xen.images import boots_of
    from appliance.monitor.xen.ramdisk import checked
    from appliance.monitor.xen.xl import Xl

    try:
        boots = boots_of(assembly)
        for file, digest in {pair for boot in boots.values() for pair in (boot[:2], boot[2:4])}:
            checked(file, digest)
        xl = Xl()
        try:
            see_fit(assembly, xl)
        finally:
            xl.close()
    except (OSError, ValueError) as error:
        _fail(error)
    memory = sum(boot.memory_mib for boot in boots.values())
    return {"guests": len(boots), "memory_mib": memory, "type": assembly.xen.type, "xsm": assembly.xen.xsm}


def _fail(error: Exception) -> NoReturn:
    screen.fail(str(error))
