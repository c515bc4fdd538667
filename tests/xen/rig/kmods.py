"""The kernel modules that dom0 loads, and those that they need."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .cpio import Tree, file

WANTED = (
    "xenfs xen-privcmd xen-evtchn xen-gntdev xen-gntalloc xen-netback bridge tun veth 8021q "
    "virtio_pci virtio_net virtio_console virtio-rng"
).split()

_MODULE = re.compile(r"usr/lib/modules/[^/]+/kernel/.*/([^/]+)\.ko$")
_NEEDS = re.compile(rb"\0depends=([^\0]*)\0")


def keep(tree: Tree, kernel: str, wanted: Sequence[str] = WANTED) -> None:
    """Leaves ``wanted`` modules and what they need in ``tree`` and no other, with what modprobe reads and the order to
    load them in.

    Errors: KeyError, with the name of a module that this kernel has not got.
    """
    modules = {_plain(found[1]): path for path in tree if (found := _MODULE.match(path))}
    order: dict[str, list[str]] = {}

    def add(name: str) -> None:
        path = modules[_plain(name)]
        if path not in order:
            found = _NEEDS.search(tree[path].data)
            needs = [_plain(need) for need in found[1].decode().split(",") if need] if found else []
            for need in needs:
                add(need)
            order[path] = [modules[need] for need in needs]

    for name in wanted:
        add(name)
    for path in modules.values():
        if path not in order:
            del tree[path]
    base = f"usr/lib/modules/{kernel}"
    within = {path: path.removeprefix(f"{base}/") for path in order}
    lines = [f"{within[path]}: {' '.join(within[need] for need in _closure(path, order))}\n" for path in order]
    tree[f"{base}/modules.dep"] = file("".join(lines).encode())
    tree["etc/modules.order"] = file("".join(f"/{path}\n" for path in order).encode())


def _closure(path: str, order: dict[str, list[str]]) -> list[str]:
    """Everything ``path`` needs, its own needs first, as modules.dep has it."""
    found: dict[str, None] = {}
    for need in order[path]:
        found[need] = None
        found.update(dict.fromkeys(_closure(need, order)))
    return list(found)


def _plain(name: str) -> str:
    return name.replace("-", "_")
