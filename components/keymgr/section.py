"""The peers of a signed configuration as this domain needs them: preshared keys opened, addresses as bytes."""

from __future__ import annotations

from appliance.guest.settings import SettingsError
from appliance.signed.peers import PeerEntry, network, parse
from components.keymgr.manager import check
from components.keymgr.sealing import SealingKey
from components.keymgr.settings import PeerSettings, Prefix, parse_endpoint


class Sections:
    """Reads sections, each of which has much in common with the one before: what is said again costs next to nothing."""

    def __init__(self, own: bytes, sealing: SealingKey) -> None:
        """``own``: our public key, which no peer has."""
        self._own = own
        self._sealing = sealing
        self._known: dict[PeerEntry, PeerSettings] = {}

    def read(self, untrusted: bytes) -> dict[int, PeerSettings]:
        """The peers by their numbers. Errors: SettingsError with the path of what is wrong."""
        entries = parse(untrusted)
        known = {entry: self._known.get(entry) or self._peer(f"peers[{i}]", entry) for i, entry in enumerate(entries)}
        self._known = known
        return {entry.number: peer for entry, peer in known.items()}

    def _peer(self, path: str, entry: PeerEntry) -> PeerSettings:
        preshared = None
        if entry.preshared_key:
            try:
                preshared = self._sealing.open(entry.preshared_key)
            except ValueError as error:
                raise SettingsError(f"{path}.preshared_key", str(error)) from None
        peer = PeerSettings(
            public_key=entry.public_key,
            preshared_key=preshared,
            allowed_ips=tuple(Prefix(*network(text)[1:]) for text in entry.allowed_ips),
            endpoint=parse_endpoint(f"{path}.endpoint", entry.endpoint) if entry.endpoint else None,
            keepalive=entry.keepalive,
            name=entry.name,
        )
        check(path, peer, self._own)
        return peer
