"""The peers of a signed configuration as this domain needs them: preshared keys opened, addresses as bytes."""

from __future__ import annotations

from collections.abc import Callable

from appliance.guest.settings import SettingsError
from appliance.signed.peers import PeerEntry, address_of, network, parse
from components.keymgr.sealing import SealingKey
from components.keymgr.settings import Endpoint, PeerSettings, Prefix


class Sections:
    """Reads sections, each of which has much in common with the one before: what is said again costs little."""

    def __init__(self, own: bytes, sealing: SealingKey, beat: Callable[[], None]) -> None:
        """``own``: our public key, which no peer has. ``beat`` is called often: ten thousand peers take a while."""
        self._own = own
        self._sealing = sealing
        self._beat = beat
        self._known: dict[PeerEntry, PeerSettings] = {}

    def read(self, untrusted: bytes) -> dict[int, PeerSettings]:
        """The peers by their numbers. Errors: SettingsError with the path of what is wrong."""
        self._beat()
        entries = parse(untrusted, self._beat)
        self._beat()
        known = {entry: self._known.get(entry) or self._peer(f"peers[{i}]", entry) for i, entry in enumerate(entries)}
        self._known = known
        return {entry.number: peer for entry, peer in known.items()}

    def _peer(self, path: str, entry: PeerEntry) -> PeerSettings:
        self._beat()
        if entry.public_key == self._own:
            raise SettingsError(f"{path}.public_key", "is our own public key")
        preshared = None
        if entry.preshared_key:
            try:
                preshared = self._sealing.open(entry.preshared_key)
            except ValueError as error:
                raise SettingsError(f"{path}.preshared_key", str(error)) from None
        return PeerSettings(
            public_key=entry.public_key,
            preshared_key=preshared,
            allowed_ips=tuple(Prefix(*network(text)[1:]) for text in entry.allowed_ips),
            endpoint=Endpoint(*address_of(entry.endpoint)) if entry.endpoint else None,
            keepalive=entry.keepalive,
            name=entry.name,
        )
