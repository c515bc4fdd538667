"""The operator's wire to a Xen guest: its pages mapped in dom0, for as long as one command asks.

The guest granted them to dom0 when it started, and serves whoever maps them, one tool after the other. Where they are
it wrote into its own home of the xenstore: read for nothing else, checked, and a failure is nobody being there.
"""

from __future__ import annotations

import os
from typing import Final, Protocol

from appliance.vchan.layout import Orders
from appliance.vchan.wire import Wire

_OFFER: Final = ("ring-ref", "event-channel")
_HOME: Final = "/local/domain/{domid}/data/channel/{channel}"


class Line(Protocol):
    """Errors of ``is_met``: OSError."""

    @property
    def wire(self) -> Wire: ...

    def is_met(self) -> bool:
        """Tries to map what the guest offers, unless it is mapped; whether it is now."""

    def is_there(self) -> bool:
        """Whether the guest is."""

    def detach(self) -> None:
        """Lets its pages go; ``wire`` shows zeros from then on."""

    def close(self) -> None: ...


class _GuestLine:
    def __init__(self, domid: int, channel: int, orders: Orders) -> None:
        # Only here: most boxes are made of processes
        from appliance.vchan.grants import ClientWire
        from appliance.xen import gntdev
        from appliance.xen.xenstore import Xenstore

        self._domid = domid
        self._place = _HOME.format(domid=domid, channel=channel)
        self._store = Xenstore()
        try:
            self._device = gntdev.open_device()
            try:
                self.wire = ClientWire(self._device, orders)
            except OSError:
                os.close(self._device)
                raise
        except OSError:
            self._store.close()
            raise

    def is_met(self) -> bool:
        from appliance.vchan.grants import GrantError, Meeting
        from appliance.xen.xswire import XenstoreFault, number

        if self.wire.is_attached:
            return True
        try:
            ring_ref, port = (number(self._store.read(f"{self._place}/{name}")) for name in _OFFER)
        except XenstoreFault as fault:
            raise OSError(str(fault)) from None
        if not ring_ref or not port:
            return False
        try:
            self.wire.accept(self._domid, Meeting(ring_ref, port))
        except GrantError:
            return False
        return True

    def is_there(self) -> bool:
        from appliance.xen.xswire import XenstoreFault

        try:
            return self._store.is_introduced(self._domid)
        except (OSError, XenstoreFault):
            return False

    def detach(self) -> None:
        self.wire.detach()

    def close(self) -> None:
        self.wire.detach()
        self.wire.close()
        os.close(self._device)
        self._store.close()


def meet(domid: int, channel: int, orders: Orders) -> Line:
    """The line to guest ``domid``, by the channel of that number. Nothing is mapped yet. Errors: OSError."""
    return _GuestLine(domid, channel, orders)
