"""Septum, driven by its own command line, as a user would."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from ..conf import Conf
from ..namespace import LabError, run, stop, tool
from ..topology import Site
from .end import End, wait_for

REPOSITORY = Path(__file__).resolve().parents[4]
START_SECONDS = 60.0  # it takes a fraction of one; a machine that does ten other things takes its time
PROGRAM = str(REPOSITORY / ".venv" / "bin" / "septum")


class Ready:
    """Where a service says READY=1, as to systemd (sd_notify(3), Type=notify)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    def __enter__(self) -> Self:
        self.path.unlink(missing_ok=True)
        self._socket.bind(str(self.path))
        self._socket.settimeout(0.1)
        return self

    def __exit__(self, *why: object) -> None:
        self._socket.close()
        self.path.unlink(missing_ok=True)

    def wait(self, process: subprocess.Popen[str], seconds: float) -> bool:
        """Whether the process said so in that time; it may end instead."""
        deadline = time.monotonic() + seconds
        while process.poll() is None and time.monotonic() < deadline:
            try:
                if "READY=1" in self._socket.recv(4096).decode().splitlines():
                    return True
            except TimeoutError:
                continue
        return False


class Septum(End):
    """A box of sealed domains. `admit` lets what the tunnel opens pass the filter; the default denies it.

    Not `inline`, it is what wg-quick makes: the tunnel's interface appears in the gateway's namespace, nothing moves.
    `assembly` is one of the ready-made ones.
    """

    kind = "septum"

    def __init__(
        self,
        site: Site,
        conf: Conf,
        admit: bool = False,
        inline: bool = True,
        name: str = "",
        assembly: str = "vpn",
        rules: str | None = None,
    ) -> None:
        super().__init__(site, conf)
        self.assembly = assembly
        self.rules = rules
        self.inline = inline
        self.admit = admit
        self.name = name or f"lab{secrets.token_hex(3)}"
        self._process: subprocess.Popen[str] | None = None
        self._directory: tempfile.TemporaryDirectory[str] | None = None

    @property
    def directory(self) -> Path:
        """Where this box keeps everything: its file, its log, its run and state directories."""
        if self._directory is None:
            self._directory = tempfile.TemporaryDirectory(prefix="septum-lab-")
        return Path(self._directory.name)

    @property
    def environment(self) -> dict[str, str]:
        """What a shell must have set to talk to this box."""
        return {"SEPTUM_RUN_DIR": str(self.directory / "run"), "SEPTUM_STATE_DIR": str(self.directory / "state")}

    def septum(self, *arguments: str, timeout: float = 30) -> str:
        """Runs the `septum` command as this box's administrator; its standard output."""
        words = [f"{key}={value}" for key, value in self.environment.items()]
        return run(tool("env"), *words, PROGRAM, *arguments, timeout=timeout)

    def start(self) -> None:
        if self.admit:
            file = admitting(self.directory, self.site, self.conf, self.assembly)
            over: tuple[str, ...] = ()
        else:
            over = ("--assembly", self.assembly)
            file = secret_file(self.directory / f"{self.name}.conf", self.conf.wg_quick())
        if self.rules is not None:
            over += ("--rules", str(secret_file(self.directory / "filter.rules", self.rules)))
        faces = ("--lan", self.site.lan, "--wan", self.site.wan) if self.inline else ()
        self.up(str(file), *over, *faces)

    def up(self, *words: str) -> None:
        """`septum up` with these words, in the foreground as under systemd, until it says that it is ready."""
        self.begin(PROGRAM, "up", *words, "--name", self.name, "--foreground")

    def begin(self, *command: str) -> None:
        """Runs the monitor's program, until it says that the box is ready."""
        with (self.directory / "log").open("a") as log, Ready(self.directory / "notify") as ready:
            self._process = self.site.gateway.start(
                *command,
                env={**self.environment, "NOTIFY_SOCKET": str(ready.path)},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            if not ready.wait(self._process, START_SECONDS):
                ended = self._process.poll()
                what = "is not up" if ended is None else f"ended with {ended}"
                raise LabError(f"septum up {what} after {START_SECONDS} s at most:\n{self.log()}")

    def stop(self) -> None:
        if self._process is not None:
            stop(self._process, patience=10)
            self._process = None

    def __exit__(self, *why: object) -> None:
        self.stop()
        if self._directory is not None:
            self._directory.cleanup()
            self._directory = None

    def down(self) -> None:
        """`septum down`: the other way to end a box."""
        self.septum("down", self.name)
        if self._process is not None:
            self._process.wait(10)

    def log(self) -> str:
        """All that the box wrote so far."""
        return (self.directory / "log").read_text()

    def status(self) -> dict[str, Any]:
        return dict(json.loads(self.septum("status", self.name, "--json")))

    def domains(self) -> dict[str, dict[str, Any]]:
        """`septum ps`: each domain by name."""
        return {domain["name"]: domain for domain in json.loads(self.septum("ps", self.name, "--json"))}

    def seals(self) -> dict[str, dict[str, Any]]:
        """`septum ps --seals`: what the kernel says of each domain's seal, by name."""
        return {seal["domain"]: seal for seal in json.loads(self.septum("ps", self.name, "--seals", "--json"))}

    def peers(self) -> dict[str, dict[str, Any]]:
        """What `septum status` knows of each peer, by public key."""
        return {peer["public_key"]: peer for peer in self.status()["peers"]}

    def pids(self) -> list[int]:
        monitor = [self._process.pid] if self._process else []
        return monitor + [int(domain["pid"]) for domain in self.domains().values()]

    def kill(self, domain: str) -> int:
        """SIGKILL to one domain, as a crash would be. Returns the process id that died."""
        pid = int(self.domains()[domain]["pid"])
        os.kill(pid, signal.SIGKILL)
        return pid

    def kill_monitor(self) -> None:
        """SIGKILL to the monitor, with which its domains die."""
        assert self._process is not None
        pids = self.pids()[1:]
        self._process.kill()
        self._process.wait(10)
        self._process = None
        wait_for("its domains to be dead", lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))

    def handshakes(self) -> dict[str, float]:
        return {key: float(peer["latest_handshake"] or 0) for key, peer in self.peers().items()}

    @classmethod
    def version(cls) -> str:
        return str(json.loads(run(PROGRAM, "version", "--json"))["septum"])


def secret_file(path: Path, text: str) -> Path:
    path.touch(mode=0o600)
    path.write_text(text)
    return path


def admitting(directory: Path, site: Site, conf: Conf, assembly: str = "vpn") -> Path:
    """The assembly with this configuration in it, and one rule more: whatever comes out of the tunnel may pass."""
    vpn = (REPOSITORY / "assemblies" / f"{assembly}.toml").read_text()
    closed = 'rules = "vpn.rules"'
    if closed not in vpn:
        raise LabError(f"assemblies/{assembly}.toml has no line {closed!r} to open")
    (directory / "open.rules").write_text("allow established related\nallow from red\nallow from tunnel\n")
    network = {
        "lan": site.lan,
        "wan": site.wan,
        "addresses": conf.addresses,
        "mtu": conf.mtu,
        "listen_port": conf.listen_port,
    }
    private = {"private_key_file": str(secret_file(directory / "private.key", conf.keys.private))}
    parts = [
        vpn.replace(closed, 'rules = "open.rules"'),
        _table("[network]", network),
        _table("[settings.keymgr]", private),
    ]
    for number, peer in enumerate(conf.peers):
        about: dict[str, object] = {"public_key": peer.public_key, "allowed_ips": peer.allowed_ips}
        if peer.preshared_key:
            about["preshared_key_file"] = str(secret_file(directory / f"{number}.psk", peer.preshared_key))
        if peer.endpoint:
            about["endpoint"] = peer.endpoint
        if peer.keepalive:
            about["keepalive"] = peer.keepalive
        parts.append(_table("[[settings.keymgr.peers]]", about))
    return secret_file(directory / "admitting.toml", "\n".join(parts))


def _table(head: str, values: Mapping[str, object]) -> str:
    return "\n".join([head, *(f"{key} = {json.dumps(value)}" for key, value in values.items())]) + "\n"
