"""What is asked of Xen, and made for it, before a box is up: `septum policy`, and `septum check --backend xen`."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any, Final

from appliance.assembly.model import ValidatedAssembly
from appliance.cli import screen

SOURCES: Final = "tools/flask/policy"
"""Of Xen's source tree."""


def policy(assembly: ValidatedAssembly, xen: Path, output: Path, json_: bool) -> None:
    """Writes the policy of ``assembly`` for the Xen that was built of the source tree ``xen``."""
    from appliance.xsm.compile import PolicyError
    from appliance.xsm.policy import compiled_policy

    if not (xen / SOURCES).is_dir():
        screen.fail(f"{xen} has no {SOURCES}", "the folder of Xen's sources: apt-get source xen, then --xen xen-4.17*")
    new = output.with_name(f"{output.name}.new")
    try:
        made = compiled_policy(assembly, xen / SOURCES)
        new.write_bytes(made)
        new.replace(output)  # the one that the machine boots with stays until there is a whole other one
    except (PolicyError, OSError) as error:
        screen.fail(str(error))
    if json_:
        screen.as_json({"file": str(output), "bytes": len(made), "domains": [one.name for one in assembly.domains]})
        return
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
        with closing(Xl()) as xl:
            see_fit(assembly, xl)
        for file, digest in {pair for boot in boots.values() for pair in (boot[:2], boot[2:4])}:
            checked(file, digest)
    except (OSError, ValueError) as error:
        screen.fail(str(error))
    memory = sum(boot.memory_mib for boot in boots.values())
    return {"guests": len(boots), "memory_mib": memory, "type": assembly.xen.type, "xsm": assembly.xen.xsm}
