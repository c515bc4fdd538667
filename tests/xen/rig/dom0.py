"""The first domain: Debian's kernel, Xen's tools and Python, unpacked from their packages into an initramfs.

It is an ordinary small Debian without an init system. dom0/init starts Xen's daemons and the agent that answers the
rig.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from . import debian, elf, kmods
from .bytecode import compiled
from .cpio import Tree, archive, character, file, folder, link
from .places import XEN, making, step

HERE: Final = Path(__file__).parent
PACKAGES: Final = """
xen-hypervisor-4.17-amd64 xen-utils-4.17 xen-utils-common xenstore-utils libxenmisc4.17 libxencall1 libxendevicemodel1
libxenevtchn1 libxenforeignmemory1 libxengnttab1 libxenhypfs1 libxenstore4 libxentoolcore1 libxentoollog1
busybox-static bash dash iproute2 python3.11-minimal python3.11 libpython3.11-minimal libpython3.11-stdlib
libc6 libgcc-s1 libstdc++6 libcrypt1 zlib1g libzstd1 liblzma5 libbz2-1.0 liblzo2-2 libexpat1 libffi8 libjson-c5
libtinfo6 libncurses6 libncursesw6 libssl3 libuuid1 libyajl2 libnl-3-200 libnl-route-3-200 libaio1 libfdt1 libmnl0
libelf1
libbpf1 libcap2 libselinux1 libpcre2-8-0 libdb5.3 libbsd0 libmd0 libxtables12 libsqlite3-0 libreadline8 libnsl2
libtirpc3 libgssapi-krb5-2 libkrb5-3
libk5crypto3 libkrb5support0 libcom-err2 libkeyutils1
""".split()
"""Beside the kernel's. What is forgotten here is named when the initramfs is built: see elf.py."""

_LEAVE_OUT: Final = re.compile(
    r"usr/share/(doc|man|locale|lintian|bash-completion|info|perl5)(/|$)|usr/lib/debug|usr/include"
    r"|boot/System.map|hvmloader|xen-shim|oxenstored|usr/lib/x86_64-linux-gnu/gconv|init-xenstore-domain|q_atm.so|xenfsimage|pygrub"
    r"|python3.11/(test|idlelib|lib2to3|pydoc_data|ensurepip|turtledemo|tkinter)(/|$)|\.ko\.debug"
)


@dataclass(frozen=True)
class Dom0:
    """What QEMU loads: Debian's own Xen, which has no XSM, and what it boots."""

    xen: Path
    kernel: Path
    ramdisk: Path


def packages() -> tuple[list[Path], str]:
    """The packages of dom0, and its kernel's version as uname has it."""
    kernel = debian.newest_kernel()
    return debian.download([*PACKAGES, kernel]), kernel.removeprefix("linux-image-")


@cache
def build() -> Dom0:
    """Errors: debian.PackageError; RuntimeError if a library is missing in it."""
    debs, version = packages()
    own = {path.name: path.read_bytes() for path in sorted((HERE / "dom0").iterdir()) if path.is_file()}
    recipe = repr(([deb.name for deb in debs], version, own)).encode() + b"".join(
        (HERE / f"{name}.py").read_bytes() for name in ("dom0", "kmods", "cpio", "debian", "bytecode")
    )
    target = XEN / f"dom0-{hashlib.sha256(recipe).hexdigest()[:16]}"
    with making(target) as scratch:
        if scratch:
            with step("dom0's initramfs"):
                _fill(scratch, debian.unpack(debs, _LEAVE_OUT), version, own)
    return Dom0(*(target / name for name in ("xen", "vmlinuz", "initramfs")))


def _fill(scratch: Path, tree: Tree, version: str, own: dict[str, bytes]) -> None:
    boot = {path: tree.pop(path).data for path in list(tree) if path.startswith("boot/")}
    (xen,) = [data for path, data in boot.items() if re.fullmatch(r"boot/xen-4\.\d+-amd64\.gz", path)]
    _furnish(tree, version, own)
    if absent := elf.missing(tree):
        lines = [f"{library}: {', '.join(sorted(users)[:3])}" for library, users in sorted(absent.items())]
        raise RuntimeError("libraries missing in dom0, a package for each belongs in PACKAGES:\n" + "\n".join(lines))
    (scratch / "xen").write_bytes(gzip.decompress(xen))
    (scratch / "vmlinuz").write_bytes(boot[f"boot/vmlinuz-{version}"])
    (scratch / "initramfs").write_bytes(archive(compiled(tree)))


def _furnish(tree: Tree, version: str, own: dict[str, bytes]) -> None:
    """What packages do not bring: devices to start with, BusyBox's names, programs where scripts look for them, our
    init."""
    kmods.keep(tree, version)
    tree["dev/console"] = character(5, 1)
    tree["dev/null"] = character(1, 3, 0o666)
    for path in (
        "proc",
        "sys",
        "run",
        "tmp",
        "root",
        "var/log/xen/console",
        "var/lib/xen",
        "var/lib/xenstored",
        "etc/xen",
    ):
        tree[path] = folder()
    tree["usr/bin/sh"] = link("dash")  # BusyBox's would take its own applets before the programs of the same name
    tree["var/run"] = link("/run")
    tree["init"] = file(own["init"], 0o755)
    tree["usr/bin/rig-agent"] = file(own["agent.py"], 0o755)
    tree["etc/passwd"] = file(b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n")
    tree["etc/group"] = file(b"root:x:0:\nnogroup:x:65534:\n")
    tree["etc/hosts"] = file(b"127.0.0.1 localhost\n")
    tree["etc/ld.so.conf"] = file(b"/usr/lib/xen-4.17/lib/x86_64-linux-gnu\n/usr/lib/x86_64-linux-gnu\n")
    for applet in own["applets"].decode().split():
        if not {f"usr/bin/{applet}", f"usr/sbin/{applet}"} & tree.keys():
            tree[f"usr/bin/{applet}"] = link("busybox")
    for path in [path for path in tree if path.startswith("usr/lib/xen-4.17/bin/")]:
        tree[f"usr/sbin/{path.rsplit('/', 1)[1]}"] = link(f"/{path}")
