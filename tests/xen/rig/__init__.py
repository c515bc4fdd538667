"""A machine with Xen on it, emulated: what the tests of the Xen back end run on.

QEMU emulates the machine, so neither hardware virtualization nor an installed Xen is needed, and nothing of Xen is
installed on the host. Boots from nothing but Debian's package archive:

    places.py      where things are kept under build/xen
    debian.py      packages -> the files in them, downloaded once
    bytecode.py    Python compiled beforehand
    kmods.py       the modules dom0 loads, and those they need
    elf.py         does every program find its libraries?
    cpio.py        files -> an initramfs
    hypervisor.py  Xen with XSM/FLASK, from Debian's source package; Debian's own build without
    dom0.py        the first domain's kernel and initramfs
    sources.py     this checkout and its Python libraries, as a second initramfs laid over it
    nets.py        two namespaces, lan and wan, each with the far end of one of the machine's network cards
    qemu.py        the machine
    channel.py     commands and files into dom0; dom0/agent.py answers there
    rig.py         Rig: all of it

    with Rig() as rig:
        code, text = rig.run("xl info")
"""

from .channel import RigError, RigTimeout
from .rig import Rig

__all__ = ["Rig", "RigError", "RigTimeout"]
