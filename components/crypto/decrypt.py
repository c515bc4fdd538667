"""The shell of `decrypt`: datagrams from black, orders from the key manager; packets to the filter, reports back."""

from __future__ import annotations

from septum.v1.receiving import ReceiveOrder

from appliance.guest import shortly
from appliance.guest.loop import Guest
from appliance.vchan.messages import Datagrams
from components.crypto import twin
from components.crypto.constants import REPORT_INTERVAL
from components.crypto.receiving import Receiver
from components.crypto.refused import Refused


def build(guest: Guest) -> None:
    """Joins the ports of `decrypt` to its core."""
    receiver = Receiver()
    plain, reports = guest.out("plain"), guest.out("reports")
    guest.show(receiver.counts)
    guest.counter("compiled").set(twin.COMPILED)
    guest.on_open("log", lambda now: guest.log.info("loops", twin.LOOPS))
    sink_full = guest.counter("sink_full")

    def on_sealed(untrusted: Datagrams, now: float) -> None:
        blob = memoryview(untrusted.datagrams)
        for group in receiver.open(blob, untrusted.size, untrusted.address, untrusted.port, now):
            if not plain.send(group):
                sink_full.add()

    def on_order(order: ReceiveOrder, now: float) -> None:
        try:
            receiver.order(order, now)
        except Refused as refusal:
            guest.log.warning("order-refused", str(refusal))

    def on_time(now: float) -> float | None:
        due = receiver.due()
        if due is None or due > now:
            return due
        receiver.tick(now)
        while reports.room() and (report := receiver.report(now)) is not None:
            reports.send(report)
        return receiver.due() if reports.room() else now + REPORT_INTERVAL

    short = shortly.module("components.crypto.short")
    inward, outward = guest.short_end("sealed"), guest.short_end("plain")
    if short is not None and inward is not None and outward is not None:
        receiver.shorter = short.Opening(inward, outward, receiver.went)
        guest.shorten(receiver.shorter)
    guest.receive("orders", on_order)
    guest.receive("sealed", on_sealed, into=(plain,))
    guest.timer(on_time)
