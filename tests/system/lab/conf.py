"""What a tunnel end is told, in one form for every kind: keys, addresses, peers."""

from __future__ import annotations

import base64
import os
from dataclasses import dataclass, field, replace

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from .namespace import lines
from .topology import Site

PORT = 51820
MTU = 1420


@dataclass(frozen=True)
class Keys:
    """A static X25519 key pair in WireGuard's base64."""

    private: str = field(repr=False)
    public: str

    @classmethod
    def generate(cls) -> Keys:
        key = X25519PrivateKey.generate()
        return cls(
            base64.b64encode(key.private_bytes_raw()).decode(),
            base64.b64encode(key.public_key().public_bytes_raw()).decode(),
        )


def preshared_key() -> str:
    return base64.b64encode(os.urandom(32)).decode()


@dataclass(frozen=True)
class PeerConf:
    """The [Peer] section. Without an endpoint this side waits to be called."""

    public_key: str
    allowed_ips: list[str]
    endpoint: str | None = None
    preshared_key: str | None = field(default=None, repr=False)
    keepalive: int | None = None

    def text(self) -> str:
        values = {
            "PublicKey": self.public_key,
            "PresharedKey": self.preshared_key,
            "AllowedIPs": ", ".join(self.allowed_ips),
            "Endpoint": self.endpoint,
            "PersistentKeepalive": self.keepalive,
        }
        return lines(["[Peer]", *(f"{key} = {value}" for key, value in values.items() if value is not None)])


@dataclass(frozen=True)
class Conf:
    """A whole configuration: what wg-quick's file says."""

    keys: Keys
    addresses: list[str]
    peers: list[PeerConf]
    listen_port: int = PORT
    mtu: int = MTU

    def wg_quick(self) -> str:
        """The text of a file that wg-quick and `septum up` take."""
        own = [f"Address = {', '.join(self.addresses)}", f"MTU = {self.mtu}"]
        return self.wg_setconf(own)

    def wg_setconf(self, more: list[str] | None = None) -> str:
        """The text of a file that `wg setconf` takes: no addresses, no MTU."""
        head = ["[Interface]", f"PrivateKey = {self.keys.private}", f"ListenPort = {self.listen_port}", *(more or [])]
        return lines(head) + "".join("\n" + peer.text() for peer in self.peers)

    def with_peer(self, **changes: object) -> Conf:
        """The same, with changes to its first peer."""
        return replace(self, peers=[replace(self.peers[0], **changes), *self.peers[1:]])  # type: ignore[arg-type]


def endpoint(site: Site, outer: int = 4, port: int = PORT) -> str:
    return f"{site.wan4}:{port}" if outer == 4 else f"[{site.wan6}]:{port}"


def pair(left: Site, right: Site, outer: int = 4, psk: bool = False, calls: str = "both") -> tuple[Conf, Conf]:
    """Configurations for the two ends of one tunnel.

    `outer` is the IP version between the gateways; `calls` ("left", "right", "both") says who knows where the other is.
    """
    keys = {left.name: Keys.generate(), right.name: Keys.generate()}
    shared = preshared_key() if psk else None

    def one(own: Site, other: Site) -> Conf:
        known = endpoint(other, outer) if calls in ("both", own.name) else None
        peer = PeerConf(keys[other.name].public, other.networks, known, shared)
        return Conf(keys[own.name], [f"{own.tunnel4}/24", f"{own.tunnel6}/64"], [peer])

    return one(left, right), one(right, left)


def star(hub: Site, *spokes: Site) -> tuple[Conf, list[Conf]]:
    """Configurations for one end with a tunnel to each of the others, which know nothing of each other."""
    pairs = [pair(hub, spoke) for spoke in spokes]
    own = pairs[0][0]
    return (
        replace(own, peers=[one.peers[0] for one, _ in pairs]),
        [other.with_peer(public_key=own.keys.public) for _, other in pairs],
    )
