"""Septum, driven by its own command line, as a user would."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from ..conf import Conf
from ..namespace import LabError, run, stop
from ..topology import Site
from .end import End, wait_for

REPOSITORY = Path(__file__).resolve().parents[4]
PROGRAM = str(REPOSITORY / ".venv" / "bin" / "septum")


class Septum(End):
    kind = "septum"

    def __init__(self, site: Site, conf: Conf, options: tuple[str, ...] = ()) -> None:
        super().__init__(site, conf)
        self.options = options
        self.name = f"lab{secrets.token_hex(3)}"
        self._process: subprocess.Popen[str] | None = None
        self._directory: tempfile.TemporaryDirectory[str] | None = None

    def start(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="septum-lab-")
        conf = Path(self._directory.name) / f"{self.name}.conf"
        conf.touch(mode=0o600)
        conf.write_text(self.conf.wg_quick())
        with self._log().open("w") as log:
            self._process = self.site.gateway.start(
                PROGRAM, "up", str(conf), "--lan", self.site.lan, "--wan", self.site.wan, "--name", self.name,
                "--foreground", *self.options, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip

        def running() -> bool:
            if self._process is not None and self._process.poll() is not None:
                raise LabError(f"septum up ended with {self._process.returncode}:\n{self.log()}")
            return self._ready()

        wait_for(f"septum up\n{self.log()}", running)

    def _ready(self) -> bool:
        try:
            return bool(self.domains()) and all(domain["state"] == "running" for domain in self.domains().values())
        except LabError:
            return False

    def stop(self) -> None:
        if self._process is not None:
            stop(self._process, patience=10)
            self._process = None
        if self._directory is not None:
            self._directory.cleanup()
            self._directory = None

    def down(self) -> None:
        """`septum down`: the other way to end a box."""
        self.site.gateway.run(PROGRAM, "down", self.name)
        if self._process is not None:
            self._process.wait(10)

    def _log(self) -> Path:
        if self._directory is None:
            raise LabError("septum has not been started")
        return Path(self._directory.name) / "log"

    def log(self) -> str:
        """All that the box wrote so far."""
        return self._log().read_text()

    def _json(self, command: str, *options: str) -> Any:
        return json.loads(self.site.gateway.run(PROGRAM, command, self.name, "--json", *options))

    def status(self) -> Any:
        return self._json("status")

    def domains(self, *options: str) -> dict[str, dict[str, Any]]:
        """`septum ps`: each domain by name."""
        return {domain["name"]: domain for domain in self._json("ps", *options)["domains"]}

    def pids(self) -> list[int]:
        monitor = [self._process.pid] if self._process else []
        return monitor + [int(domain["pid"]) for domain in self.domains().values()]

    def kill(self, domain: str) -> int:
        """SIGKILL to one domain, as a crash would. Returns the process id that died."""
        pid = int(self.domains()[domain]["pid"])
        os.kill(pid, signal.SIGKILL)
        return pid

    def handshakes(self) -> dict[str, float]:
        return {peer["public_key"]: float(peer["latest_handshake"] or 0) for peer in self.status()["peers"]}

    def version(self) -> str:
        return run(PROGRAM, "--version").split()[-1]
