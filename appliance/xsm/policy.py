"""The policy of a box: what its channels need, and not one permission between two domains more.

It is written in two halves. The *rules* say what is allowed. The *walls* say again, from the list of channels alone,
what must never be: ``neverallow`` lines, which checkpolicy holds against every rule, Xen's own modules included. A
mistake in the rules that opens a wall is no policy at all.

Of a channel only the client maps pages, only the server's, and never copies. dom0 builds a domain under the label
``..._building``; before it first runs, Xen gives it the label of a running one, which cannot be taken back, and from
then on dom0 may map what that domain grants it (console, xenstore, status page) and nothing else of its memory. With
``locked``, the default, nobody may load another policy or stop enforcing this one, until the machine is started anew.

Xen's documentation: docs/misc/xsm-flask.txt; the macros: tools/flask/policy/modules/xen.if.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from appliance.assembly.model import Domain, ValidatedAssembly
from appliance.guest.outside import DOM0
from appliance.xsm.compile import PolicyError, compiled, module
from appliance.xsm.labels import kind

_FOREVER: Final = ("load_policy", "setenforce", "setbool")
"""Permissions on the security server that a locked policy leaves to nobody."""

_NEVER_DOM0: Final = ("kexec", "livepatch_op")
"""What dom0 has in Xen's module and loses here: other code in the place of the hypervisor."""

_PREAMBLE: Final = """
attribute septum_domain;
attribute septum_building;
# A domain that nobody gave a label gets one of these two, and may not even be created
type domU_t, xen_type;
type dm_dom_t, xen_type;
allow domain_type xen_t:version { xen_extraversion xen_capabilities xen_changeset xen_pagesize xen_guest_handle
    xen_compile_info };
dontaudit domain_type xen_t:version { xen_commandline xen_build_id };
# A domain speaks by its own console, never by Xen's
dontaudit septum_domain xen_t:xen writeconsole;
"""

_DOMAIN: Final = """
# {name}
declare_domain({kind}, septum_domain)
declare_build_label({kind})
typeattribute {kind}_building septum_building;
create_domain_build_label(dom0_t, {kind})
manage_domain(dom0_t, {kind}_building)
manage_domain(dom0_t, {kind})
create_channel(dom0_t, {kind}_building, dom0_t_channel)
create_channel(dom0_t, {kind}, dom0_t_channel)
create_channel({kind}, dom0_t, {kind}_channel)
allow dom0_t {kind}_building:hvm gethvmc;
allow dom0_t {kind}_building:grant {{ map_read map_write unmap }};
allow dom0_t {kind}:grant {{ map_read map_write unmap }};
"""

# netback copies packets out of the pages that a guest grants, and into them. Xen asks for the right by where the bytes
# come from and where they go, whoever copies: so there is one for each way
_NETWORKED: Final = """\
allow dom0_t {kind}:grant copy;
allow {kind} dom0_t:grant copy;
"""

_CHANNEL: Final = """
allow {client} {server}:grant {{ map_read map_write unmap }};
create_channel({client}, {server}, {client}_channel)
create_channel({server}, {client}, {server}_channel)
"""

# What dom0's rights over every domain make possible anyway (console, xenstore, status page) is said once more of those
# whose client it is
_CALLED_BY_DOM0: Final = """
# {client} calls {server}
allow dom0_t {server}:grant {{ map_read map_write unmap }};
create_channel(dom0_t, {server}, dom0_t_channel)
create_channel({server}, dom0_t, {server}_channel)
"""

_WALLS: Final = """
# Nobody maps, or puts pages into, a domain that runs; a guest does not even do that to one being built
neverallow * septum_domain:mmu *;
neverallow septum_domain septum_building:{ mmu grant domain domain2 hvm } *;
# Nobody looks at its registers, pages it, watches it, models its devices or gives it the label of one being built
neverallow * septum_domain:domain { getvcpucontext setvcpucontext setdebugging set_target hypercall };
neverallow * septum_domain:domain2 { relabelfrom relabelself make_priv_for set_as_target vm_event mem_access mem_paging
    mem_sharing };
neverallow * septum_domain:hvm *;
neverallow * septum_domain:shadow *;
neverallow * septum_domain:grant transfer;
# No guest manages another, none has a message bus past its channels, none administers Xen
neverallow septum_domain septum_domain:{ domain domain2 argo } *;
neverallow septum_domain ~domain_type:{ argo security resource } *;
neverallow septum_domain xen_t:{ xen xen2 } *;
# No guest has a page of dom0's. (One with a network may say "copy", to pages that dom0 would first have to grant it)
neverallow septum_domain dom0_t:grant { map_read map_write unmap transfer setup query };
neverallow septum_domain dom0_t:{ mmu domain domain2 hvm } *;
"""


def compiled_policy(assembly: ValidatedAssembly, tree: Path, *, locked: bool = True) -> bytes:
    """The policy of ``assembly`` as Xen loads it; ``tree`` as in compile.py. Errors: PolicyError."""
    ours = policy(assembly, locked=locked)
    cut = (*_FOREVER, *_NEVER_DOM0) if locked else _NEVER_DOM0
    modules = [module(tree, "xen.te"), _without(module(tree, "dom0.te"), cut), ours]
    return compiled(
        tree,
        [*modules, *((tree / "policy" / name).read_text() for name in ("users", "initial_sids", "device_contexts"))],
    )


def policy(assembly: ValidatedAssembly, *, locked: bool = True) -> str:
    """The module of ``assembly``, in the language of Xen's policy sources: its rules, then its walls."""
    rules = [_PREAMBLE, *(_domain(domain) for domain in assembly.domains), "".join(_channels(assembly))]
    rules.append("\nrole system_r types { domain_type domU_t dm_dom_t };\n")
    alone = " ".join(kind(domain.name) for domain in assembly.domains if not is_networked(domain))
    walls = [_WALLS, f"neverallow {{ {alone} }} dom0_t:grant copy;\n", *_undeclared(assembly)]
    if locked:
        walls.append(f"neverallow * security_t:security {{ {' '.join(_FOREVER)} }};\n")
    walls.append("neverallow * xen_t:xen kexec;\nneverallow * xen_t:xen2 livepatch_op;\n")
    return "".join([*rules, *walls])


def _domain(domain: Domain) -> str:
    text = _DOMAIN + (_NETWORKED if is_networked(domain) else "")
    return text.format(name=domain.name, kind=kind(domain.name))


def is_networked(domain: Domain) -> bool:
    """Whether a backend in dom0 carries packets for it."""
    return bool({"tun", "udp4", "udp6", "management"} & set(domain.role.devices))


def _channels(assembly: ValidatedAssembly) -> Iterator[str]:
    pairs = {(channel.client.domain, channel.server.domain) for channel in assembly.wired}
    for client, server in sorted(pairs):
        yield _CHANNEL.format(client=kind(client), server=kind(server))
    for client, server in from_dom0(assembly):
        yield _CALLED_BY_DOM0.format(client=client, server=kind(server))


def from_dom0(assembly: ValidatedAssembly) -> list[tuple[str, str]]:
    """(who, domain): the channels whose client is a program of dom0. A tool of the operator, or who keeps a disk."""
    tools = [(str(channel.client), channel.server.domain) for channel in assembly.operated]
    return tools + [(f"{DOM0}.disk", domain.name) for domain in assembly.domains if "store" in domain.role.devices]


def _undeclared(assembly: ValidatedAssembly) -> Iterator[str]:
    """What no channel of the assembly asks for: of each domain, whom it may never map, and whom it may never signal."""
    names = [domain.name for domain in assembly.domains]
    maps = {(channel.client.domain, channel.server.domain) for channel in assembly.wired}
    joined = maps | {(server, client) for client, server in maps}
    for one in names:
        if others := [kind(other) for other in names if (one, other) not in maps]:
            yield f"neverallow {kind(one)} {{ {' '.join(others)} }}:grant *;\n"
        if served := [kind(other) for other in names if (one, other) in maps]:
            yield f"neverallow {kind(one)} {{ {' '.join(served)} }}:grant {{ copy transfer setup query }};\n"
        if others := [kind(other) for other in names if (one, other) not in joined]:
            yield f"neverallow {kind(one)}_channel {{ {' '.join(others)} }}:event bind;\n"


def _without(text: str, permissions: tuple[str, ...]) -> str:
    """``text`` of a module without those permissions. Errors: PolicyError if one of them does not stand in it."""
    for permission in permissions:
        text, count = re.subn(rf"\b{permission}\b", "", text)
        if not count:
            raise PolicyError(f"Xen's dom0 module knows no {permission}: is this the policy of another Xen?")
    return re.sub(r"^(audit)?allow [^;{]*\{\s*\};", "", text, flags=re.MULTILINE)
