"""A network namespace that can be entered: commands, processes and sockets inside it."""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


class LabError(Exception):
    """The laboratory could not do what it was asked: the message says which command failed, and how."""


def tool(name: str) -> str:
    """Absolute path of a program. Raises LabError if the machine has not got it."""
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if path is None:
        raise LabError(f"{name} is missing on this machine: tools/packages test names the package")
    return path


def run(*command: str, stdin: str | None = None, timeout: float = 30, check: bool = True) -> str:
    """Standard output of a command. Raises LabError with its last words if it fails or takes too long."""
    try:
        done = subprocess.run(
            [tool(command[0]), *command[1:]], input=stdin, capture_output=True, text=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise LabError(f"{' '.join(command)}: no end after {timeout} s: {error.stderr!r}") from None
    if check and done.returncode:
        raise LabError(f"{' '.join(command)}: exit {done.returncode}\n{done.stderr}{done.stdout}")
    return done.stdout


@dataclass(frozen=True)
class Namespace:
    """One network namespace, named under /run/netns by iproute2."""

    name: str

    @property
    def path(self) -> Path:
        return Path("/run/netns") / self.name

    def command(self, *command: str) -> list[str]:
        """The command line that runs `command` inside. Only the network changes: not /sys, not /etc/resolv.conf."""
        return [tool("nsenter"), f"--net={self.path}", "--", tool(command[0]), *command[1:]]

    def run(self, *command: str, stdin: str | None = None, timeout: float = 30, check: bool = True) -> str:
        return run(*self.command(*command), stdin=stdin, timeout=timeout, check=check)

    def start(
        self,
        *command: str,
        env: dict[str, str] | None = None,
        stdout: int | IO[Any] = subprocess.DEVNULL,
        stderr: int | IO[Any] = subprocess.DEVNULL,
    ) -> subprocess.Popen[str]:
        """A process inside, in a session of its own so that a Ctrl-C on the terminal is ours to handle."""
        return subprocess.Popen(
            self.command(*command),
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            text=True,
            start_new_session=True,
        )

    def socket(self, family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM, protocol: int = 0) -> socket.socket:
        """A socket that belongs to this namespace for life, whoever uses it: made by a thread that entered it."""
        result: list[socket.socket | OSError] = []

        def make() -> None:
            try:
                with open(self.path, "rb") as file:
                    if _libc.setns(file.fileno(), CLONE_NEWNET):
                        raise OSError(ctypes.get_errno(), f"setns {self.name}")
                result.append(socket.socket(family, kind, protocol))
            except OSError as error:
                result.append(error)

        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        if isinstance(result[0], OSError):
            raise result[0]
        return result[0]

    def pids(self) -> list[int]:
        return [int(pid) for pid in run("ip", "netns", "pids", self.name, check=False).split()]

    def sysctl(self, **values: int) -> None:
        """net.a__b__c=1: a double underscore stands for a slash, as interface names may have dots."""
        script = " && ".join(f"echo {value} > /proc/sys/net/{key.replace('__', '/')}" for key, value in values.items())
        self.run("sh", "-c", script)


def stop(process: subprocess.Popen[str], patience: float = 5) -> int:
    """Ends a process politely, then not. Returns its exit status."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait(patience)


def family_of(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def lines(parts: Sequence[str]) -> str:
    return "\n".join(parts) + "\n"
