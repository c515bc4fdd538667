"""Whether this machine's Xen can carry a box: asked before anything of the machine is touched."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import closing
from pathlib import Path
from typing import Final

from appliance.assembly.model import ValidatedAssembly
from appliance.monitor.xen import cpus
from appliance.monitor.xen.plan import plans_of
from appliance.monitor.xen.xl import Xl

_NEEDED: Final = {
    "dev/xen/gntdev": "xen-gntdev",
    "dev/xen/evtchn": "xen-evtchn",
    "sys/bus/xen-backend/drivers/vif": "xen-netback",
}
"""What is there once a module of dom0's Linux is loaded, or built in."""


class XenError(OSError):
    """This machine's Xen cannot carry the box as asked; the text says what to do."""


def see_fit(
    assembly: ValidatedAssembly,
    xl: Xl,
    amiss: Callable[[ValidatedAssembly], list[str]] | None = None,
    root: Path = Path("/"),
) -> None:
    """Errors: XenError unless this is Xen's dom0 with what a monitor needs, and Xen enforces what ``assembly`` says;
    OSError if Xen does not answer.
    """
    _see_dom0(root)
    _see_cpus(assembly.xen.cpus, xl)
    if assembly.xen.xsm == "enforcing":
        _see_enforced(assembly, xl, amiss or policy_amiss)


def see_free(titles: Collection[str], xl: Xl) -> None:
    """Errors: XenError if a guest has one of these names: whoever has our names is ended as ours."""
    for row in xl.list():
        if row.name in titles:
            raise XenError(
                f"there is a guest {row.name} already, and it is none of this box: "
                f"xl destroy {row.name} if nobody needs it, or give the box another name"
            )


def see_room(assembly: ValidatedAssembly, box: str) -> None:
    """Both, for a box of that name. Errors: as they have."""
    with closing(Xl()) as xl:
        see_fit(assembly, xl)
        see_free([plan.title for plan in plans_of(assembly, box).values()], xl)


def policy_amiss(assembly: ValidatedAssembly) -> list[str]:
    """Where the policy that Xen enforces is not what the channels say, a sentence each; asked of Xen itself."""
    from appliance.xsm.state import Xsm, differences

    xsm = Xsm()
    try:
        return list(differences(assembly, xsm.allowed))
    finally:
        xsm.close()


def _see_dom0(root: Path) -> None:
    kind = root / "sys/hypervisor/type"
    if not kind.exists() or kind.read_text().strip() != "xen":
        raise XenError("this Linux does not run on Xen: boot Xen's entry in the boot menu (docs/xen.md)")
    for place, module in _NEEDED.items():
        if not (root / place).exists():
            raise XenError(f"dom0 has no /{place}: modprobe {module}, and a line {module} in /etc/modules")


def _see_cpus(named: str, xl: Xl) -> None:
    if not named:
        return
    wanted, there = cpus.numbers(named), range(xl.machine_cpus())
    if not wanted or wanted - {*there}:
        raise XenError(
            f'cpus = "{named}" under [xen] in the assembly, and this machine has {cpus.ranges(there)}: '
            "name some of these, or none for all"
        )


def _see_enforced(assembly: ValidatedAssembly, xl: Xl, amiss: Callable[[ValidatedAssembly], list[str]]) -> None:
    then = (
        "Boot a Xen with XSM, the policy of this assembly (septum policy) and flask=enforcing (docs/xen.md), "
        'or say xsm = "absent" under [xen] in the assembly'
    )
    if not xl.enforces():
        raise XenError(
            "this Xen enforces no policy (`xl getenforce` does not say Enforcing): two of its guests that collude "
            f"could make a channel nobody declared. {then}"
        )
    if found := amiss(assembly):
        more = f" (and {len(found) - 3} more)" if len(found) > 3 else ""
        raise XenError(f"Xen enforces another policy than this assembly's: {'; '.join(found[:3])}{more}. {then}")
