"""What the monitor tells the domain that speaks for the box, and is asked, where that is a guest: copied to pages that
it lent to dom0, and out of them (appliance/monitor/telling.py has the other side of it, appliance/guest/boxpage.py what
is in them). The guest may write into all of them what it likes: nothing of it is believed that was not before.
"""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from typing import Final

from appliance.guest import boxpage
from appliance.monitor.xen.pages import LentPages

_PAGES: Final = (boxpage.BOX_BYTES + boxpage.ORDERS_BYTES) // mmap.PAGESIZE


class Told:
    """``devices`` are what a process would be handed (box, orders); ``device`` is gntdev's descriptor."""

    def __init__(self, device: int, devices: Mapping[str, int]) -> None:
        self.pages = LentPages(device, _PAGES, is_writable=True)
        self._box = memoryview(mmap.mmap(devices["box"], boxpage.BOX_BYTES, prot=mmap.PROT_READ))
        self._orders = memoryview(mmap.mmap(devices["orders"], boxpage.ORDERS_BYTES))
        self._seen = 0
        self._counted = 0  # the orders of this life

    def map(self, domid: int, references: list[int]) -> None:
        """The next life's. Errors: OSError."""
        self.pages.map(domid, references)
        self._seen = self._counted = 0

    def turn(self) -> None:
        """Passes on what is new, either way."""
        if not self.pages.is_mapped:
            return
        memory = self.pages.memory
        if boxpage.sequence(self._box) != self._seen and (found := boxpage.read(self._box)) is not None:
            self._seen, text = found
            boxpage.write(memory[: boxpage.BOX_BYTES], text)
        untrusted_count, untrusted_number = boxpage.ordered(memory[boxpage.BOX_BYTES :])
        if untrusted_count != self._counted:
            # Counted on over all lives: each begins with pages of its own, and zeros are no order for the first domain
            self._counted = untrusted_count
            boxpage.order(self._orders, untrusted_number)

    def close(self) -> None:
        """Lets the guest's pages go. An order of its that was not obeyed yet stays."""
        self.pages.close()
