"""Servers as people run them, each in a namespace, with everything it writes in a folder of ours."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .ends.end import wait_for
from .namespace import LabError, Namespace, run, stop, tool

PAGE = "SEPTUM-PLAINTEXT" * 65536
"""What nginx serves: a mebibyte."""


@contextmanager
def _serving(namespace: Namespace, socket: str, *command: str) -> Iterator[None]:
    """The server of that command line, from when ``ss`` shows its ``socket`` (``-lt :80``) to the end."""
    kind, port = socket.split()
    process = namespace.start(*command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:

        def listens() -> bool:
            if process.poll() is not None:
                said = process.stdout.read() if process.stdout else ""
                raise LabError(f"{' '.join(command)} ended with {process.returncode}:\n{said}")
            return f"{port} " in namespace.run("ss", f"-Hn{kind}")

        wait_for(f"{command[0]} to listen on {port}", listens)
        yield
    finally:
        stop(process)


@contextmanager
def nginx(namespace: Namespace, folder: Path, port: int = 80) -> Iterator[None]:
    """Serves PAGE as /page on every address, IPv4 and IPv6."""
    (folder / "page").write_text(PAGE)
    folder.chmod(0o755)
    paths = "".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {folder}/pid; error_log {folder}/error; events {{}}"
        f"http {{ access_log off; {paths} server {{ listen {port}; listen [::]:{port}; root {folder}; }} }}"
    )
    with _serving(
        namespace, f"lt :{port}", "nginx", "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", "stderr"
    ):
        yield


@contextmanager
def dns(namespace: Namespace, folder: Path, name: str, address: str) -> Iterator[None]:
    """Answers for one name, over UDP and TCP, and with a TXT record that does not fit into one datagram of a tunnel."""
    long = ",".join("x" * 250 for _ in range(8))
    command = ("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--user=root",
               f"--pid-file={folder}/dnsmasq.pid", f"--address=/{name}/{address}", f"--txt-record={name},{long}",
               "--edns-packet-max=4096")  # fmt: skip
    with _serving(namespace, "lu :53", *command):
        yield


@contextmanager
def sshd(namespace: Namespace, folder: Path, port: int = 22) -> Iterator[Path]:
    """Lets root in with the key whose path this gives."""
    for name in ("host", "user"):
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name))
    (folder / "authorized").write_text((folder / "user.pub").read_text())
    folder.chmod(0o755)
    Path("/run/sshd").mkdir(exist_ok=True)
    options = {
        "HostKey": folder / "host",
        "AuthorizedKeysFile": folder / "authorized",
        "PidFile": folder / "pid",
        "StrictModes": "no",
        "UsePAM": "no",
        "PermitRootLogin": "prohibit-password",
    }
    words = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
    # sshd starts itself anew for each connection, and wants to be called by its full path for that
    with _serving(namespace, f"lt :{port}", tool("sshd"), "-D", "-e", "-f", "/dev/null", "-p", str(port), *words):
        yield folder / "user"


def ssh(namespace: Namespace, key: Path, address: str, *command: str, timeout: float = 30) -> str:
    """What a command says there. Errors: LabError."""
    options = {
        "StrictHostKeyChecking": "no",
        "UserKnownHostsFile": "/dev/null",
        "LogLevel": "ERROR",
        "BatchMode": "yes",
    }
    words = [word for key_, value in options.items() for word in ("-o", f"{key_}={value}")]
    return namespace.run("ssh", "-i", str(key), *words, f"root@{address}", *command, timeout=timeout)


__all__ = ["PAGE", "dns", "nginx", "ssh", "sshd"]
