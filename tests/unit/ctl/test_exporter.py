"""The figures for Prometheus: bounded, told in its format, and the ones that the dashboard asks for."""

from __future__ import annotations

import json
import re
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.parser import text_string_to_metric_families
from septum.admin.v1 import admin_pb2 as pb

from appliance.ctl.connection import Box
from appliance.ctl.exporter import MOST_RULES, Collector, Figures, samples
from appliance.ctl.trouble import Exit, Trouble

DASHBOARD = Path(__file__).parents[3] / "packaging" / "grafana" / "septum.json"


def peer(number: int, received: int) -> pb.Peer:
    return pb.Peer(number=number, name=f"peer-{number}", received=received, sent=1, handshake=number)


STATUS = pb.Status(
    name="wg0",
    uptime=7.5,
    revision=3,
    peers=2,
    domains=[
        pb.Domain(name="red", role="red", state="running", restarts=2, counters=[pb.Counter(name="sent", value=9)]),
        pb.Domain(name="filter", role="filter", state="starting"),
    ],
)
RULES = pb.RuleCounters(
    rules=[pb.RuleCounter(number=1, packets=5, bytes=50)],
    sums=[pb.Sum(what="passed", side="red", count=11)],
)
FIGURES = Figures(STATUS, [peer(1, 10), peer(2, 20)], RULES)


def series(figures: Figures, **more: int) -> dict[tuple[str, ...], float]:
    return {(one.name, *(value for _, value in one.labels)): one.value for one in samples(figures, **more)}


def test_every_figure_is_there() -> None:
    found = series(FIGURES)
    assert found["up",] == 1 and found["config_revision",] == 3
    assert found["domain_up", "red", "red"] == 1 and found["domain_up", "filter", "filter"] == 0
    assert found["domain_events", "red", "sent"] == 9
    assert found["filter", "passed", "red"] == 11
    assert found["rule_bytes", "1"] == 50
    assert found["peer_received_bytes", "peer-2"] == 20


def test_labels_are_bounded_and_nothing_is_lost() -> None:
    many = Figures(STATUS, [peer(n, n) for n in range(1, 10_001)], RULES)
    found = {key: value for key, value in series(many, most_peers=3).items() if key[0] == "peer_received_bytes"}
    assert sorted(key[1] for key in found) == ["others", "peer-10000", "peer-9998", "peer-9999"]
    assert sum(found.values()) == sum(range(1, 10_001))
    rules = pb.RuleCounters(rules=[pb.RuleCounter(number=n, packets=1) for n in range(1, 2001)])
    counted = {key: value for key, value in series(Figures(STATUS, [], rules)).items() if key[0] == "rule_packets"}
    assert len(counted) == MOST_RULES + 1 and sum(counted.values()) == 2000


class FakeBox:
    """What a Collector asks; ``trouble`` is raised in place of an answer."""

    trouble: Trouble | None = None
    box = peers = rules = property(lambda self: self)
    everybody = Box.everybody

    def __getattr__(self, method: str) -> str:
        return method

    def ask(self, method: Any, request: Any, what: str) -> Any:
        if self.trouble is not None:
            raise self.trouble
        if method == "ListPeers":
            rest = FIGURES.peers[int(request.page_token or 0) :]
            more = "1" if len(rest) > 1 else ""
            return pb.ListPeersReply(peers=rest[:1], next_page_token=more, total=2)
        return {"GetStatus": STATUS, "GetCounters": RULES}[method]


def scraped(box: FakeBox) -> dict[str, Any]:
    registry = CollectorRegistry()
    registry.register(Collector(box, 250))  # type: ignore[arg-type]
    server, thread = start_http_server(0, "127.0.0.1", registry)
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/metrics", timeout=10) as reply:
            text = reply.read().decode()
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    return {family.name: family for family in text_string_to_metric_families(text)}


def test_prometheus_reads_them() -> None:
    families = scraped(FakeBox())
    assert families["septum_up"].samples[0].value == 1
    assert {one.labels["peer"]: one.value for one in families["septum_peer_received_bytes"].samples} == {
        "peer-1": 10,
        "peer-2": 20,
    }


def test_a_box_that_is_away_is_down_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    box = FakeBox()
    box.trouble = Trouble(Exit.UNREACHED, "nobody answers")
    families = scraped(box)
    assert list(families) == ["septum_up"] and families["septum_up"].samples[0].value == 0
    assert "nobody answers" in capsys.readouterr().err


def test_the_dashboard_asks_for_figures_that_there_are() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    asked = set(re.findall(r"septum_\w+", json.dumps(dashboard)))
    there = {f"septum_{one.name}{'_total' if one.kind == 'counter' else ''}" for one in samples(FIGURES)}
    assert asked and asked <= there, asked - there
