"""What Xen enforces at this moment, asked of Xen itself: is it a policy at all, and is it that of the box?

Nothing is taken on trust from the file that was loaded: for every pair of domains the hypervisor says what it would
decide (FLASK_ACCESS in xen/include/public/xsm/flask_op.h), and that is compared with the channels. Runs in dom0, by
libxenctrl.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from typing import Final, Literal

from appliance.assembly.model import ValidatedAssembly
from appliance.xen.xenctrl import Control
from appliance.xsm.labels import building_label, kind, label
from appliance.xsm.policy import from_dom0, is_networked

State = Literal["enforcing", "permissive", "absent"]

Allowed = Callable[[str, str, str], frozenset[str]]
"""(source, target, class) -> the permissions that Xen would grant. Errors: UnknownLabel."""

# The numbers of classes and permissions are their places in xen/xsm/flask/policy/{security_classes,access_vectors}
CLASSES: Final = {"mmu": 6, "event": 9, "grant": 10, "security": 11}
PERMISSIONS: Final = {
    "mmu": "map_read map_write pageinfo adjust stat updatemp physmap pinpage memorymap remote_remap mmuext_op exchange "
    "target_hack",
    "event": "bind send status create reset",
    "grant": "map_read map_write unmap transfer setup copy query",
    "security": "compute_av compute_create compute_member check_context load_policy compute_relabel setenforce setbool "
    "setsecparam add_ocontext del_ocontext",
}

DOM0: Final = "system_u:system_r:dom0_t"
_DOM0_EVENTS: Final = "system_u:object_r:dom0_t_channel"
_SECURITY: Final = "system_u:system_r:security_t"


class UnknownLabel(LookupError):
    """The policy in force has no such label."""


class Xsm:
    """Xen's security server. Errors: OSError if this is no dom0 of Xen."""

    def __init__(self) -> None:
        self._control = Control()
        self._library, self._handle = self._control.library, self._control.handle

    def close(self) -> None:
        self._control.close()

    def state(self) -> State:
        """ "absent" if this Xen has no FLASK or has it switched off; whoever needs it must then refuse."""
        answer = self._library.xc_flask_getenforce(self._handle)
        return "enforcing" if answer == 1 else "permissive" if answer == 0 else "absent"

    def allowed(self, source: str, target: str, klass: str) -> frozenset[str]:
        """The permissions of ``klass`` that ``source`` has on ``target``. Errors: UnknownLabel."""
        known = PERMISSIONS[klass].split()
        granted = ctypes.c_uint32(0)
        wanted = (1 << len(known)) - 1
        none = None
        # It fails as well if less than all that was asked for is granted: what counts is whether an answer was written
        marker = 0x80000000
        granted.value = marker
        self._library.xc_flask_access(
            self._handle, source.encode(), target.encode(), ctypes.c_uint16(CLASSES[klass]), ctypes.c_uint32(wanted),
            ctypes.byref(granted), none, none, none, none,
        )  # fmt: skip
        if granted.value == marker:
            raise UnknownLabel(f"{source} or {target}")
        return frozenset(name for bit, name in enumerate(known) if granted.value >> bit & 1)


def differences(assembly: ValidatedAssembly, allowed: Allowed) -> Iterator[str]:
    """A sentence for each thing that the policy in force allows and ``assembly`` does not ask for, or the other way
    round.

    None: what Xen enforces is what the channels say, and nobody can change that.
    """
    try:
        yield from _between_domains(assembly, allowed)
        yield from _by_dom0(assembly, allowed)
    except UnknownLabel as error:
        yield f"the policy in force is not that of {assembly.name}: it does not know {error}"


def _between_domains(assembly: ValidatedAssembly, allowed: Allowed) -> Iterator[str]:
    names = [domain.name for domain in assembly.domains]
    maps = {(channel.client.domain, channel.server.domain) for channel in assembly.wired}
    for one in names:
        for other in names:
            if one == other:
                continue
            may_map = {"map_read", "map_write", "unmap"} if (one, other) in maps else set()
            yield from _compare(f"{one} on grants of {other}", allowed(label(one), label(other), "grant"), may_map)
            may_bind = {"bind"} if (one, other) in maps or (other, one) in maps else set()
            channel = f"system_u:object_r:{kind(one)}_channel"
            yield from _compare(f"events of {one} to {other}", allowed(channel, label(other), "event"), may_bind)
            yield from _compare(f"{one} on the memory of {other}", allowed(label(one), label(other), "mmu"), set())


def _by_dom0(assembly: ValidatedAssembly, allowed: Allowed) -> Iterator[str]:
    for domain in assembly.domains:
        yield from _compare(f"dom0 on the memory of {domain.name}", allowed(DOM0, label(domain.name), "mmu"), set())
        may_copy = {"copy"} if is_networked(domain) else set()
        lent = allowed(DOM0, label(domain.name), "grant")
        yield from _compare(f"dom0 on grants of {domain.name}", lent, {"map_read", "map_write", "unmap"} | may_copy)
        yield from _compare(f"{domain.name} on grants of dom0", allowed(label(domain.name), DOM0, "grant"), may_copy)
        if "map_write" not in allowed(DOM0, building_label(domain.name), "mmu"):
            yield f"dom0 cannot build {domain.name}"
    for _, server in from_dom0(assembly):  # the only ends of channels that dom0 itself has; grants are above
        for what, source, target in (
            (f"events of dom0 to {server}", _DOM0_EVENTS, label(server)),
            (f"events of {server} to dom0", f"system_u:object_r:{kind(server)}_channel", DOM0),
        ):
            yield from _compare(what, allowed(source, target, "event") & {"bind"}, {"bind"})
    may = allowed(DOM0, _SECURITY, "security") & {"load_policy", "setenforce", "setbool"}
    yield from _compare("dom0 on the policy itself", may, set())


def _compare(what: str, has: frozenset[str], should: set[str]) -> Iterator[str]:
    if more := has - should:
        yield f"{what}: {', '.join(sorted(more))} allowed, and no channel asks for that"
    if less := should - has:
        yield f"{what}: {', '.join(sorted(less))} refused, and a channel needs that"
