"""The whole: Xen and dom0 booted in an emulated machine with a network on either side."""

from __future__ import annotations

import contextlib
import itertools
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Final, Self

from appliance.xsm.examples import upstream
from tests.system.lab.namespace import Namespace

from . import dom0, hypervisor, nets, qemu, sources
from .channel import Channel, RigError
from .places import XEN, step

BOOT: Final = 600.0
"""Seconds that booting may take. On a quiet machine of two cores it takes 15."""
_NUMBERS: Final = itertools.count(1)
"""Of this process's machines: each has a folder of its own, in which its console stays."""


class Rig:
    """A booted Xen. Use it as a context manager, so that nothing of it stays.

    ``xsm``: Xen with XSM/FLASK, enforcing ``policy`` (a compiled FLASK policy); without it, Debian's own build of Xen.
    ``lan`` and ``wan`` are namespaces on the host; the interface tap0 in each leads to the card of that name in dom0.
    ``memory`` and ``dom0_memory`` in MiB. ``guest_logs``: what guests print on their consoles is kept in dom0's
    /var/log/xen/console, without a bound.
    """

    def __init__(
        self,
        *,
        xsm: bool = True,
        policy: bytes | None = None,
        memory: int = 2560,
        dom0_memory: int = 896,
        guest_logs: bool = False,
        name: str | None = None,
    ) -> None:
        if policy and not xsm:
            raise ValueError("a policy needs xsm=True")
        self.xsm = xsm
        self.folder = XEN / "run" / (name or f"{os.getpid()}-{next(_NUMBERS)}")
        self._policy = policy
        self._guest_logs = guest_logs
        self._memory, self._dom0_memory = memory, dom0_memory
        self._stack = contextlib.ExitStack()
        self._channel: Channel | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self.lan: Namespace
        self.wan: Namespace

    # Life ---------------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        try:
            self._boot()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the machine and removes its namespaces. The console's log stays, under build/xen/run."""
        self._stack.close()

    def _boot(self) -> None:
        domain = dom0.build()
        xen = hypervisor.with_xsm() if self.xsm else None
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        with step("this checkout for dom0"):
            ramdisk = self.folder / "ramdisk"
            ramdisk.write_bytes(domain.ramdisk.read_bytes() + sources.overlay())
            self._stack.callback(ramdisk.unlink, missing_ok=True)
        policy = None
        if xen:
            policy = self.folder / "xenpolicy"
            policy.write_bytes(self._policy or upstream(xen.flask))
        taps = {}
        for side in qemu.MACS:
            space = nets.make(side)
            self._stack.callback(nets.remove, space)
            setattr(self, side, space)
            taps[side] = nets.tap(space)
        machine = qemu.Machine(
            xen.xen if xen else domain.xen,
            domain.kernel,
            ramdisk,
            policy,
            self._memory,
            self._dom0_memory,
            guest_logs=self._guest_logs,
        )
        with step("booting Xen and dom0"):
            self._process = qemu.start(machine, taps, self.folder)
            self._stack.callback(self._end)
            for descriptor in taps.values():
                os.close(descriptor)
            self._channel = self._connect()

    def _connect(self) -> Channel:
        """Waits for the agent's first answer. Errors: RigError with the end of the console."""
        path = self.folder / "agent.sock"
        over = time.monotonic() + BOOT
        channel = None
        while time.monotonic() < over:
            assert self._process is not None
            if self._process.poll() is not None or self._panicked():
                break
            if channel is None and path.exists():
                with contextlib.suppress(ConnectionRefusedError):
                    channel = Channel(path)
                    self._stack.callback(channel.close)
            if channel and channel.hello(2):
                return channel
            time.sleep(0.1)
        raise RigError(f"dom0 did not come up\n{self.console()[-6000:]}\n{(self.folder / 'qemu.log').read_text()}")

    def _panicked(self) -> bool:
        return any(word in self.console() for word in ("Panic on CPU", "Hardware Dom0 crashed", "Kernel panic"))

    def _end(self) -> None:
        assert self._process is not None
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(10)

    # What it is for -----------------------------------------------------------------------------------------------

    def run(
        self,
        command: str | Sequence[str],
        timeout: float = 60,
        *,
        check: bool = False,
        env: Mapping[str, str] | None = None,
        show: bool = False,
    ) -> tuple[int, str]:
        """Exit code and output (stdout and stderr as one) of ``command`` in dom0; a string is given to sh.

        ``check``: RigError unless it exits with 0. ``show``: its output goes to stderr as it comes. Errors: RigTimeout,
        and RigError when the machine does not answer.
        """
        words = ["/bin/sh", "-c", command] if isinstance(command, str) else list(command)
        code, output = self._up().run(words, timeout, env, _to_stderr if show else None)
        text = output.decode(errors="replace")
        if check and code:
            shown = command if isinstance(command, str) else shlex.join(command)
            raise RigError(f"{shown}: exit {code}\n{text[-4000:]}")
        return code, text

    def python(self, source: str, timeout: float = 60, *arguments: str) -> str:
        """What the Python program ``source`` prints in dom0. Errors: RigError if it fails."""
        return self.run(["/usr/bin/python3.11", "-c", source, *arguments], timeout, check=True)[1]

    def put(self, path: str, data: bytes, mode: int = 0o644, timeout: float = 120) -> None:
        """Writes a file in dom0, folders included. It is there whole or not at all."""
        self._up().put(path, data, mode, timeout)

    def get(self, path: str, timeout: float = 120) -> bytes:
        """A file of dom0. Errors: RigError if it cannot be read."""
        return self._up().get(path, timeout)

    def console(self) -> str:
        """What Xen and dom0's kernel have printed so far."""
        path = self.folder / "console.log"
        return path.read_bytes().decode(errors="replace").replace("\r", "") if path.exists() else ""

    def alive(self) -> bool:
        """The machine is running."""
        return self._process is not None and self._process.poll() is None

    def disconnect(self) -> None:
        """Leaves the machine to others who connect to its agent: python -m tests.xen run."""
        self._up().close()
        self._channel = None

    def _up(self) -> Channel:
        if self._channel is None:
            raise RigError("the rig is not booted: with Rig() as rig")
        return self._channel


def _to_stderr(piece: bytes) -> None:
    sys.stderr.buffer.write(piece)
    sys.stderr.flush()
