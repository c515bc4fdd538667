"""The stock userspace WireGuard, driven by the stock `wg`."""

from __future__ import annotations

import secrets
import socket
import subprocess
from pathlib import Path

from ..conf import Conf
from ..namespace import Namespace, run, stop, tool
from ..topology import Site
from .end import End, wait_for


def configure(gateway: Namespace, interface: str, conf: Conf) -> None:
    """What wg-quick does once there is an interface: keys and peers, addresses, up, routes."""
    gateway.run("wg", "setconf", interface, "/dev/stdin", stdin=conf.wg_setconf())
    for address in conf.addresses:
        gateway.run("ip", "address", "add", address, "dev", interface)
    gateway.run("ip", "link", "set", interface, "mtu", str(conf.mtu), "up")
    for peer in conf.peers:
        for network in peer.allowed_ips:
            family = "-6" if ":" in network else "-4"
            gateway.run("ip", family, "route", "replace", network, "dev", interface)


def takes_calls(control: Path) -> bool:
    """Whether somebody listens there: bound is not enough, `wg` would take the file for a leftover and remove it."""
    with socket.socket(socket.AF_UNIX) as caller:
        return caller.connect_ex(str(control)) == 0


class WireguardGo(End):
    """wireguard-go on a TUN of its own. `program` may name another build of it."""

    kind = "wireguard-go"

    def __init__(self, site: Site, conf: Conf, program: str = "wireguard-go") -> None:
        super().__init__(site, conf)
        self.program = program
        self.interface = f"wg{secrets.token_hex(3)}"  # unique on the machine: the control socket is named after it
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        environment = {"WG_PROCESS_FOREGROUND": "1", "LOG_LEVEL": "error"}
        self._process = self.site.gateway.start(self.program, "-f", self.interface, env=environment)
        control = Path(f"/var/run/wireguard/{self.interface}.sock")
        wait_for(f"{self.program} to listen", lambda: takes_calls(control), every=0.005)
        configure(self.site.gateway, self.interface, self.conf)

    def stop(self) -> None:
        if self._process is not None:
            stop(self._process)
            self._process = None
            Path(f"/var/run/wireguard/{self.interface}.sock").unlink(missing_ok=True)

    def pids(self) -> list[int]:
        return [self._process.pid] if self._process else []

    @classmethod
    def version(cls, program: str = "wireguard-go") -> str:
        first = run(tool(program), "--version").split("\n", 1)[0]
        return first.removeprefix("wireguard-go").strip()

    def show(self, what: str) -> list[list[str]]:
        """`wg show INTERFACE WHAT` as rows of fields."""
        shown = self.site.gateway.run("wg", "show", self.interface, what)
        return [line.split("\t") for line in shown.splitlines()]

    def text(self) -> str:
        """`wg show` as people read it."""
        return self.site.gateway.run("wg", "show", self.interface)

    def handshakes(self) -> dict[str, float]:
        return {key: float(when) for key, when in self.show("latest-handshakes")}

    def endpoint(self, public_key: str) -> str:
        """Where this end believes that peer to be."""
        return dict(self.show("endpoints"))[public_key]

    def roam(self, port: int) -> None:
        """Goes on from another port, as behind a NAT that forgot."""
        self.site.gateway.run("wg", "set", self.interface, "listen-port", str(port))
