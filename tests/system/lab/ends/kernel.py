"""The kernel's own WireGuard, where there is one."""

from __future__ import annotations

import secrets

from ..conf import Conf
from ..namespace import LabError, Namespace, run
from ..topology import PREFIX, Site
from .end import End
from .wireguard_go import configure


class KernelWireguard(End):
    """A link of type wireguard, and no process."""

    kind = "kernel"

    def __init__(self, site: Site, conf: Conf) -> None:
        super().__init__(site, conf)
        self.interface = f"wg{secrets.token_hex(3)}"

    def start(self) -> None:
        self.site.gateway.run("ip", "link", "add", self.interface, "type", "wireguard")
        configure(self.site.gateway, self.interface, self.conf)

    def stop(self) -> None:
        self.site.gateway.run("ip", "link", "delete", self.interface, check=False)

    def pids(self) -> list[int]:
        return []

    @classmethod
    def version(cls) -> str:
        return f"Linux {run('uname', '-r').strip()}"


def missing() -> str:
    """Empty if this kernel makes links of type wireguard, else what it says; tried in a namespace of its own."""
    namespace = Namespace(f"{PREFIX}-probe-{secrets.token_hex(3)}")
    run("ip", "netns", "add", namespace.name)
    try:
        namespace.run("ip", "link", "add", "wg0", "type", "wireguard")
    except LabError as error:
        return str(error).splitlines()[-1].rstrip(".")
    finally:
        run("ip", "netns", "delete", namespace.name, check=False)
    return ""
