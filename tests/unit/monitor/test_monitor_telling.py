"""What the monitor tells the domain that speaks for the box, and what it does of what that domain asks."""

from __future__ import annotations

import json
import mmap
import os
import threading
from typing import Any

import pytest

from appliance.guest import boxpage
from appliance.guest.status import MAGIC
from appliance.monitor.status import Report
from appliance.monitor.supervisor import Alarm, Kill, Phase, Reset, Supervisor
from appliance.monitor.telling import AGAIN, MOST_ORDERS, PERIOD, WINDOW, Telling

NAMES = ("rng", "keymgr", "filter")


def told(telling: Telling) -> Any:
    page = memoryview(mmap.mmap(telling.devices["box"], boxpage.BOX_BYTES, prot=mmap.PROT_READ))
    found = boxpage.read(page)
    return None if found is None else json.loads(found[1])


def orders(telling: Telling) -> memoryview:
    return memoryview(mmap.mmap(telling.devices["orders"], boxpage.ORDERS_BYTES))


def test_the_state_of_the_box_is_told_once_a_second() -> None:
    count = 0

    def tell() -> dict[str, int]:
        nonlocal count
        count += 1
        return {"count": count}

    telling = Telling(NAMES, tell)
    assert told(telling) is None
    for i in range(41):
        telling.turn(i * PERIOD / 10)
    assert count == 5 and told(telling) == {"count": 5}
    telling.close()


def test_the_domain_cannot_write_what_it_is_told() -> None:
    telling = Telling(NAMES, dict)
    with pytest.raises(PermissionError):
        mmap.mmap(telling.devices["box"], boxpage.BOX_BYTES, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    with pytest.raises(OSError):
        os.pwrite(telling.devices["box"], b"x", 0)
    for fd in telling.devices.values():
        with pytest.raises(OSError):
            os.ftruncate(fd, 0)
    again = os.open(f"/proc/self/fd/{telling.devices['box']}", os.O_RDWR)
    try:
        with pytest.raises(PermissionError):
            mmap.mmap(again, boxpage.BOX_BYTES, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        with pytest.raises(PermissionError):
            os.pwrite(again, b"x", 0)
    finally:
        os.close(again)
    telling.turn(0.0)
    assert told(telling) == {}, "the monitor still can"
    telling.close()


def test_an_order_is_obeyed_once_and_not_again_soon() -> None:
    telling = Telling(NAMES, dict)
    page = orders(telling)
    assert telling.turn(0.0) is None
    boxpage.order(page, 2)
    assert [telling.turn(1.0), telling.turn(1.1)] == ["filter", None]
    boxpage.order(page, 2)
    assert telling.turn(AGAIN) is None, "the last was too short a time ago"
    boxpage.order(page, 1)
    assert telling.turn(AGAIN) == "keymgr"
    boxpage.order(page, 2)
    assert telling.turn(1.0 + AGAIN) == "filter"
    telling.close()


def test_few_orders_an_hour_are_obeyed_whomever_they_are_for() -> None:
    names = tuple(f"d{i}" for i in range(40))
    telling = Telling(names, dict)
    page, obeyed = orders(telling), 0
    for second in range(int(2 * WINDOW)):
        boxpage.order(page, second % 40)
        obeyed += telling.turn(float(second)) is not None
    assert obeyed == 2 * MOST_ORDERS
    telling.close()


@pytest.mark.parametrize("number", [3, 2**63, 2**64 - 1])
def test_a_number_of_no_domain_is_nothing(number: int) -> None:
    telling = Telling(NAMES, dict)
    boxpage.order(orders(telling), number)
    assert telling.turn(0.0) is None and telling.turn(5.0) is None
    telling.close()


def test_garbage_in_the_page_is_nothing_worse_than_an_order() -> None:
    telling = Telling(NAMES, dict)
    page = orders(telling)
    for i in range(256):
        page[:] = bytes([i]) * len(page)
        assert telling.turn(float(i)) in (None, *NAMES)
    telling.close()


def test_a_page_is_read_whole_or_not_at_all() -> None:
    page = memoryview(bytearray(8192))
    stop = threading.Event()

    def write() -> None:
        i = 0
        while not stop.is_set():
            i += 1
            boxpage.write(page, bytes([65 + i % 26]) * (100 + i % 4000))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        whole = [found[1] for _ in range(3000) if (found := boxpage.read(page)) is not None]
    finally:
        stop.set()
        writer.join()
    assert whole and all(len(set(text)) == 1 for text in whole)
    assert not boxpage.write(page, bytes(8192)), "what does not fit is not written"


def test_a_domain_that_was_ordered_anew_is_ended_only_if_it_runs() -> None:
    supervisor = Supervisor({"a": (), "b": ()}, 0.0)
    assert supervisor.ordered("a", 0.0) == []
    page = Report(MAGIC, 3, 0, 0)
    supervisor.look({"a": page}, (), 0.1)
    supervisor.look({"a": page._replace(untrusted_state=4)}, (), 0.2)
    assert supervisor.phase("a") is Phase.RUNNING
    (kill,) = supervisor.ordered("a", 1.0)
    assert isinstance(kill, Kill) and kill.domain == "a" and "administrator" in kill.why
    assert supervisor.ordered("a", 1.0) == []


def test_an_end_by_order_is_no_death_and_one_of_its_own_is() -> None:
    supervisor = Supervisor({"a": ()}, 0.0)
    now, page = 0.0, Report(MAGIC, 3, 0, 0)

    def run_again() -> None:
        nonlocal now
        for state in (0, 3, 4):
            now += 0.6
            supervisor.look({"a": page._replace(untrusted_state=state, untrusted_heartbeat=int(now * 10))}, (), now)

    run_again()
    for _ in range(20):
        assert supervisor.ordered("a", now)
        assert [type(one) for one in supervisor.died("a", now)] == [Reset], "it is built anew at once"
        run_again()
        assert supervisor.phase("a") is Phase.RUNNING
    for _ in range(3):
        supervisor.died("a", now)
        run_again()
    assert isinstance(supervisor.died("a", now)[0], Alarm)
