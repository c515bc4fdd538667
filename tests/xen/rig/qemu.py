"""The emulated machine. Software emulation only: it works the same on every host, with or without /dev/kvm."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.system.lab.namespace import tool

MACS: Final = {"lan": "52:54:00:5e:00:01", "wan": "52:54:00:5e:00:02"}
"""dom0/init names the cards after these."""

# A PV dom0 dies at its first return to user mode with SMAP, and Xen of MWAIT in its idle loop: neither is emulated
# right. QEMU 7.2 has AVX, but its XSAVE leaves out the upper halves of the registers: one guest spoils what another
# copies.
# For the same reason Xen is told to switch vector registers eagerly
CPU: Final = "EPYC,-smap,-monitor,-avx,-avx2,-fma,-f16c"

# What is emulated speculates nothing. Xen would overwrite a return stack at each entry of a PV guest, which is each of
# its system calls, and dom0's Linux would return by thunks. Guests boot with the command line of their images, as ever
SPECULATION: Final = "spec-ctrl=no,eager-fpu"
DOM0: Final = "mitigations=off init_on_alloc=0 apparmor=0"

RECLAIM: Final = "grant_table.free_per_iteration=0"
"""As a guest of ours has it: the tests of channels run in dom0."""


@dataclass(frozen=True)
class Machine:
    """What is to be booted, and on how much. Sizes in MiB."""

    xen: Path
    kernel: Path
    ramdisk: Path
    policy: Path | None = None
    memory: int = 2560
    dom0_memory: int = 896
    cores: int = 2
    guest_logs: bool = False


def start(machine: Machine, taps: dict[str, int], folder: Path) -> subprocess.Popen[bytes]:
    """QEMU with ``machine``. In ``folder``: console.log (Xen, dom0's kernel), qemu.log, the socket agent.sock.

    ``taps`` are descriptors of TAP interfaces by side; QEMU gets copies. It dies with the thread that starts it.
    """
    xen = f"console=com1 com1=115200,8n1 dom0_mem={machine.dom0_memory}M,max:{machine.dom0_memory}M dom0_max_vcpus=1 "
    xen += "loglvl=warning guest_loglvl=warning noreboot bootscrub=false "  # QEMU's memory is zero as it is
    xen += f"{SPECULATION} "
    xen += "flask=enforcing" if machine.policy else ""
    options = " rig.guest_logs" if machine.guest_logs else ""
    linux = f"console=hvc0 rdinit=/init rootfstype=ramfs quiet {DOM0} {RECLAIM}{options}"
    modules = [f"{machine.kernel} {linux}", str(machine.ramdisk)]
    modules += [str(machine.policy)] if machine.policy else []
    command = [tool("setpriv"), "--pdeathsig", "KILL", tool("qemu-system-x86_64")]
    command += ["-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", CPU]
    command += ["-smp", str(machine.cores), "-m", str(machine.memory)]
    command += ["-display", "none", "-nodefaults", "-no-reboot", "-no-user-config"]
    command += ["-kernel", str(machine.xen), "-append", xen.strip(), "-initrd", ",".join(modules)]
    command += ["-serial", f"file:{folder}/console.log"]
    command += [
        "-device",
        "virtio-serial-pci,max_ports=2",
        "-chardev",
        f"socket,id=agent,path={folder}/agent.sock,server=on,wait=off",
    ]
    command += ["-device", "virtserialport,chardev=agent,name=septum.rig"]
    command += ["-device", "virtio-rng-pci"]
    for side, descriptor in taps.items():
        command += ["-netdev", f"tap,id={side},fd={descriptor},vhost=off"]
        command += ["-device", f"virtio-net-pci,netdev={side},mac={MACS[side]},romfile="]
    return _spawn(command, tuple(taps.values()), folder)


def _spawn(command: Sequence[str], keep: Sequence[int], folder: Path) -> subprocess.Popen[bytes]:
    with (folder / "qemu.log").open("wb") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=keep, start_new_session=True
        )
    # Before the compilers beside it. Linux shares processors between sessions first, then by niceness within one (man 7
    # sched, autogroup); an emulated processor that waits for a real one has the other wait for it
    with contextlib.suppress(OSError):
        Path(f"/proc/{process.pid}/autogroup").write_text("-5")
    return process
