"""The transparent filter between two halves of one network, which know nothing of it."""

from __future__ import annotations

import pytest

from tests.system.lab import iperf_server, ping, reaches, tcp_mbit, wait_for
from tests.system.lab.line import Bridge, Line, listening

pytestmark = pytest.mark.root


def test_two_halves_of_a_network_talk_through_a_box_without_an_address() -> None:
    with Line() as line, Bridge(line) as box:
        assert reaches(line.inside, line.outside4)
        assert reaches(line.inside, line.outside6)
        assert ping(line.inside, line.outside4, 3).loss == 0
        with iperf_server(line.outside):
            print(tcp_mbit(line.inside, line.outside4, 2), tcp_mbit(line.inside, line.outside6, 2))
        print({n: d["counters"] for n, d in box.domains().items()})
        print(box.log())
