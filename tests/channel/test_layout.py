"""The layout against Xen's own header, as the C compiler lays it out."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from appliance.vchan import layout
from appliance.vchan.layout import Orders, Span
from appliance.vchan.ring import Side

PROGRAM = """
#include <stddef.h>
#include <stdio.h>
#include <xen/io/libxenvchan.h>
#define AT(name, member) printf(#name " %zu\\n", offsetof(struct vchan_interface, member))
#define SIZE(name, member) printf(#name " %zu\\n", sizeof ((struct vchan_interface *)0)->member)
int main(void) {
    AT(LEFT_CONS, left.cons); AT(LEFT_PROD, left.prod); AT(RIGHT_CONS, right.cons); AT(RIGHT_PROD, right.prod);
    AT(LEFT_ORDER, left_order); AT(RIGHT_ORDER, right_order); AT(CLI_LIVE, cli_live); AT(SRV_LIVE, srv_live);
    AT(CLI_NOTIFY, cli_notify); AT(SRV_NOTIFY, srv_notify); AT(GRANTS, grants);
    printf("NOTIFY_WRITE %d\\nNOTIFY_READ %d\\n", VCHAN_NOTIFY_WRITE, VCHAN_NOTIFY_READ);
    SIZE(index, left.cons); SIZE(order, left_order); SIZE(live, cli_live); SIZE(notify, srv_notify);
    return 0;
}
"""


def test_offsets_are_those_of_the_header(tmp_path: Path) -> None:
    (tmp_path / "offsets.c").write_text(PROGRAM)
    subprocess.run(["gcc", "-o", tmp_path / "offsets", tmp_path / "offsets.c"], check=True)
    lines = subprocess.run([tmp_path / "offsets"], check=True, capture_output=True, text=True).stdout.splitlines()
    found = {name: int(value) for name, value in map(str.split, lines)}
    sizes = {name: found.pop(name) for name in ("index", "order", "live", "notify")}
    assert sizes == {"index": 4, "order": 2, "live": 1, "notify": 1}
    assert found == {name: getattr(layout, name) for name in found}
    assert len(found) == 13


def test_the_server_reads_left_and_asks_in_cli_notify() -> None:
    """tools/libs/vchan/io.c: request_notify of a server sets cli_notify; the client's send_notify looks there."""
    server, client = Side.SERVER, Side.CLIENT
    assert (server.cons, server.prod, server.live) == (layout.LEFT_CONS, layout.RIGHT_PROD, layout.SRV_LIVE)
    assert (client.cons, client.prod, client.live) == (layout.RIGHT_CONS, layout.LEFT_PROD, layout.CLI_LIVE)
    assert (server.wants, client.wants) == (layout.CLI_NOTIFY, layout.SRV_NOTIFY)


@pytest.mark.parametrize(
    ("orders", "left", "right", "size"),
    [
        ((10, 11), (1024, 1024), (2048, 2048), 4096),
        ((11, 10), (2048, 2048), (1024, 1024), 4096),
        ((12, 10), (4096, 4096), (1024, 1024), 8192),
        ((10, 12), (1024, 1024), (4096, 4096), 8192),
        ((14, 13), (4096, 16384), (20480, 8192), 28672),
        ((20, 20), (4096, 1 << 20), (4096 + (1 << 20), 1 << 20), 4096 + (2 << 20)),
    ],
)
def test_where_rings_lie(orders: tuple[int, int], left: Span, right: Span, size: int) -> None:
    assert layout.left(Orders(*orders)) == left
    assert layout.right(Orders(*orders)) == right
    assert layout.size(Orders(*orders)) == size


@pytest.mark.parametrize("left", range(8, 23))
@pytest.mark.parametrize("right", range(8, 23))
def test_rings_never_overlap_nor_leave_the_memory(left: int, right: int) -> None:
    orders = Orders(left, right)
    if not (10 <= left <= 20 and 10 <= right <= 20) or left == right < 12:
        with pytest.raises(ValueError, match="ring"):
            layout.size(orders)
        return
    spans = sorted([Span(0, layout.GRANTS), layout.left(orders), layout.right(orders)])
    ends = [span.offset + span.size for span in spans]
    assert all(end <= after.offset for end, after in zip(ends, spans[1:], strict=False))
    assert ends[-1] <= layout.size(orders)
    assert layout.size(orders) % layout.PAGE == 0
