"""Who plays in the demo: the two sites, Septum on the left, its peer on the right, a stranger on the WAN."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

from tests.system.lab import Conf, End, Keys, Lab, PeerConf, Septum, Site, WireguardGo, endpoint, pair

ENTER = Path("build/enter")
STRANGER = 66


def has_stock_peer() -> bool:
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    return all(shutil.which(program, path=path) for program in ("wireguard-go", "wg"))


class World:
    """All of it. `lab` is entered by the caller; ends are made here and started by the demo's steps."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.stock = has_stock_peer()
        left, right = pair(lab.left, lab.right, psk=True, calls="left")
        self.septum = Septum(lab.left, left, name="demo")
        self.peer: End = WireguardGo(lab.right, right) if self.stock else Septum(lab.right, right, admit=True)
        self.peer_key = left.peers[0].public_key

    @property
    def peer_name(self) -> str:
        return f"wireguard-go {WireguardGo.version()}" if self.stock else "a second Septum"

    def stranger(self) -> End:
        """Somebody on the WAN who knows where the gateway is and its public key, and whom the gateway does not know."""
        site = Site("stranger", STRANGER, self.lab.wan, self.lab.wan)
        self.lab.wan.run("ip", "address", "replace", f"{site.wan4}/24", "dev", "br0")
        own = self.septum.conf.keys.public
        peer = PeerConf(own, [f"{self.lab.left.tunnel4}/32"], endpoint(self.lab.left), keepalive=1)
        conf = Conf(Keys.generate(), [f"{site.tunnel4}/32"], [peer])
        # The peer's own preshared key and a wrong static key: a thief of half the secrets
        conf = replace(conf, peers=[replace(peer, preshared_key=self.septum.conf.peers[0].preshared_key)])
        return WireguardGo(site, conf) if self.stock else Septum(site, conf, inline=False)

    def picture(self) -> str:
        peer = "wireguard-go" if self.stock else "Septum, too"
        return (
            f"  LAN host           Septum            WAN          {peer}   its LAN\n"
            " 192.168.1.2 ───[ 9 domains ]════ 203.0.113.0/24 ════[ peer ]─── 192.168.2.2\n"
            "          plaintext          WireGuard, nothing else         plaintext"
        )

    def write_enter(self) -> None:
        """A little script for another terminal: `build/enter host ping 192.168.2.2`."""
        outside = os.environ.get("SEPTUM_OUTSIDE", "")
        user = "-U --preserve-credentials " if os.environ.get("SEPTUM_OUTSIDE_USER") else ""
        settings = " ".join(f"{key}={value}" for key, value in self.septum.environment.items())
        places = {
            "host": self.lab.left.host, "gateway": self.lab.left.gateway, "wan": self.lab.wan,
            "peer": self.lab.right.gateway, "far": self.lab.right.host,
        }  # fmt: skip
        cases = "\n".join(f"    {name}) net={space.path} ;;" for name, space in places.items())
        ENTER.parent.mkdir(exist_ok=True)
        ENTER.write_text(f"""#!/bin/bash
# Runs a command in the demo's world.  usage: build/enter {"|".join(places)} COMMAND...
case "${{1:-}}" in
{cases}
    *) sed -n 2p "$0"; exit 2 ;;
esac
shift
inside=$(pgrep -P {outside}) || {{ echo "the demo has ended" >&2; exit 1; }}
export PATH="{Path.cwd()}/.venv/bin:$PATH" {settings}
exec nsenter -t "$inside" {user}-n -m -p -- nsenter --net="$net" -- "$@"
""")
        ENTER.chmod(0o755)
