"""A box that is administered by `septumctl`, made as its owner would make it: `septum init`, then `septum up`."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..namespace import tool
from .end import wait_for
from .septum import PROGRAM, Septum, secret_file

ADDRESS = "127.0.0.1:50051"
CONSOLE = "console"
CTL = str(Path(PROGRAM).with_name("septumctl"))


class Managed(Septum):
    """Its peers and rules come by commits, from the gateway's own namespace, by anybody who was invited.

    Everybody has a home of septumctl of their own, below the box's directory.
    """

    kind = "septum, managed"

    def start(self) -> None:
        secret_file(self.directory / f"{self.name}.conf", replace(self.conf, peers=[]).wg_quick())
        self.site.gateway.run("ip", "link", "set", "lo", "up")
        self.septum("init", self.name, "--address", ADDRESS)
        self.again()

    def again(self) -> None:
        """Started, as it was made."""
        file = self.directory / f"{self.name}.conf"
        faces = ("--lan", self.site.lan, "--wan", self.site.wan) if self.inline else ()
        self.up(str(file), "--assembly", "vpn-managed", "--admin", ADDRESS, *faces)
        wait_for("admin to say that all run", self._is_up, seconds=60, every=0.5)

    def _is_up(self) -> bool:
        """Whether admin answers, and has been told of the box as it is now: that happens once a second."""
        done = self._ctl("status")
        return done.returncode == 0 and all(one["state"] == "running" for one in json.loads(done.stdout)["domains"])

    @property
    def environment(self) -> dict[str, str]:
        return {**super().environment, **self.as_(CONSOLE), "NO_COLOR": "1", "COLUMNS": "200"}

    def as_(self, who: str) -> dict[str, str]:
        """What ``who`` has set in their shell."""
        return {"SEPTUM_CONFIG": str(self.directory / who)}

    def command(self, *words: str, who: str = CONSOLE) -> list[str]:
        """The command that runs a program where the administrators are, as ``who``."""
        settings = [f"{key}={value}" for key, value in {**self.environment, **self.as_(who)}.items()]
        return self.site.gateway.command(tool("env"), *settings, *words)

    def _ctl(self, *words: str, who: str = CONSOLE) -> subprocess.CompletedProcess[str]:
        command = self.command(CTL, "--timeout", "60", *words, "--json", who=who)
        return subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)

    def ctl(self, *words: str, code: int = 0, who: str = CONSOLE) -> Any:
        """What `septumctl … --json` says to ``who``: its output, or its error if that exit code is what must come."""
        done = self._ctl(*words, who=who)
        assert done.returncode == code, f"{words}: {done.returncode} {done.stdout} {done.stderr}\n{self.log()[-2000:]}"
        said = done.stderr.splitlines()[-1] if code else done.stdout
        return json.loads(said) if said.strip() else None

    def enroll(self, name: str, role: str) -> None:
        """Has the console invite ``name``, who enrolls at once."""
        self.ctl("enroll", self.ctl("admins", "invite", name, "--role", role)["token"], who=name)

    def counters(self, domain: str) -> dict[str, int]:
        return dict(self.domains()[domain]["counters"])
