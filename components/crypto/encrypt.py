"""The shell of `encrypt`: packets from the filter, orders from the key manager; datagrams to black, reports back."""

from __future__ import annotations

from collections.abc import Iterable

from septum.v1.sending import SendOrder

from appliance.guest import shortly
from appliance.guest.loop import Guest
from appliance.vchan.messages import Datagrams, Packets
from components.crypto import twin
from components.crypto.constants import REPORT_INTERVAL
from components.crypto.refused import Refused
from components.crypto.sending import Sender
from components.crypto.settings import parse


def build(guest: Guest) -> None:
    """Joins the ports of `encrypt` to its core."""
    mtu = parse("encrypt", guest.settings).mtu
    sender = Sender(mtu)
    sealed, reports = guest.out("sealed"), guest.out("reports")
    guest.show(sender.counts)
    guest.counter("compiled").set(twin.COMPILED)
    guest.on_open("log", lambda now: guest.log.info("loops", twin.LOOPS))
    sink_full = guest.counter("sink_full")

    def send(groups: Iterable[Datagrams]) -> None:
        for group in groups:
            if not sealed.send(group):
                sink_full.add()

    def on_plain(message: Packets, now: float) -> None:
        send(sender.seal(memoryview(message.packets), message.size, now))

    def on_done(now: float) -> None:
        send(sender.rest())

    def on_order(order: SendOrder, now: float) -> None:
        try:
            send(sender.order(order, now))
        except Refused as refusal:
            guest.log.warning("order-refused", str(refusal))

    def on_time(now: float) -> float | None:
        due = sender.due()
        if due is None or due > now:
            return due
        sender.tick(now)
        while reports.room() and (report := sender.report(now)) is not None:
            reports.send(report)
        return sender.due() if reports.room() else now + REPORT_INTERVAL

    short = shortly.module("components.crypto.short")
    inward, outward = guest.short_end("plain"), guest.short_end("sealed")
    if short is not None and inward is not None and outward is not None:
        sender.shorter = short.Sealing(inward, outward, sender.went, mtu)
        guest.shorten(sender.shorter)
    guest.receive("orders", on_order)
    guest.receive("plain", on_plain, into=(sealed,), done=on_done)
    guest.timer(on_time)
