"""A gateway with a split tunnel: the peer's networks are reached through it, and only so; the rest of the world in
clear, from the one address that the gateway has.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.system.lab import (
    Lab,
    Septum,
    WireguardGo,
    iperf_server,
    pair,
    reaches,
    tcp_mbit,
)
from tests.system.lab.ends.septum import secret_file

pytestmark = pytest.mark.root

WORLD4, WORLD6 = "203.0.113.200", "2001:db8:113::200"


class Split(Septum):
    """The box by `septum up … --assembly vpn-split`, with these rules."""

    kind = "split"

    def __init__(self, site, conf, rules: str) -> None:
        super().__init__(site, conf)
        self._rules = rules

    def start(self) -> None:
        file = secret_file(self.directory / f"{self.name}.conf", self.conf.wg_quick())
        rules = self.directory / "own.rules"
        rules.write_text(self._rules)
        faces = ("--lan", self.site.lan, "--wan", self.site.wan)
        self.up(str(file), "--assembly", "vpn-split", "--rules", str(rules), *faces)


RULES = "nat from red to black -> 203.0.113.1\nallow established related\nallow from red\n"


@pytest.fixture
def world() -> Iterator[Lab]:
    with Lab(plain_nic=True) as lab:
        for address in (f"{WORLD4}/24", f"{WORLD6}/64"):
            lab.wan.run("ip", "address", "add", address, "dev", "br0", *(["nodad"] if ":" in address else []))
        yield lab


def test_each_prefix_goes_its_own_way(world: Lab) -> None:
    left, right = pair(world.left, world.right)
    with Split(world.left, left, RULES) as box, WireguardGo(world.right, right):
        assert reaches(world.left.host, world.right.host4)
        assert reaches(world.left.host, WORLD4)
        with iperf_server(world.wan):
            print(tcp_mbit(world.left.host, WORLD4, 2), tcp_mbit(world.left.host, WORLD4, 2, reverse=True))
        print({n: d["counters"] for n, d in box.domains().items()})
        print(box.log())
