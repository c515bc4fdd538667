"""The box's figures for Prometheus: a client of the admin service that a viewer may run, on any machine.

Label values are the box's domains, counters, rules and peers, each in a bounded number: what is beyond is counted
together as "others", so that ten thousand peers do not become ten thousand series.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Final, NamedTuple

import typer

from appliance.ctl import reach, say
from appliance.ctl.contexts import host_and_port
from appliance.ctl.trouble import Exit, Trouble

ADDRESS: Final = "127.0.0.1:9586"
"""Where WireGuard's figures are usually found: the port that the list of exporters has for it."""

MOST_PEERS: Final = 250
MOST_RULES: Final = 500
OTHERS: Final = "others"
_PREFIX: Final = "septum"


class Sample(NamedTuple):
    """One series. ``kind``: "gauge" or "counter", whose name gets "_total"."""

    name: str
    kind: str
    help: str
    labels: tuple[tuple[str, str], ...]
    value: float


class Figures(NamedTuple):
    """What was asked of a box, as septum.admin.v1 has it."""

    status: Any
    peers: list[Any]
    rules: Any


def samples(figures: Figures, most_peers: int = MOST_PEERS) -> Iterator[Sample]:
    """All series of a box, in an order that is always the same."""
    status = figures.status
    yield Sample("up", "gauge", "Whether the box answered.", (), 1.0)
    yield Sample("uptime_seconds", "gauge", "Since the box was built.", (), status.uptime)
    yield Sample("config_revision", "gauge", "The revision in force.", (), status.revision)
    left = status.confirm_left_ms / 1000
    yield Sample("config_confirm_left_seconds", "gauge", "Until a commit is rolled back; 0: none is pending.", (), left)
    yield Sample("peers", "gauge", "Peers in the configuration.", (), status.peers)
    for domain in status.domains:
        yield from _of_domain(domain)
    for one in figures.rules.sums:
        labels = (("what", one.what), ("side", one.side))
        yield Sample("filter", "counter", "What the filter did, by side.", labels, one.count)
    yield from _of_rules(figures.rules.rules)
    yield from _of_peers(figures.peers, most_peers)


def _of_domain(domain: Any) -> Iterator[Sample]:
    labels = (("domain", domain.name), ("role", domain.role))
    is_up = float(domain.state == "running")
    yield Sample("domain_up", "gauge", "Whether the domain runs, sealed.", labels, is_up)
    yield Sample("domain_restarts", "counter", "How often it was rebuilt.", labels, domain.restarts)
    yield Sample("domain_memory_bytes", "gauge", "Its memory (PSS).", labels, domain.memory)
    yield Sample("domain_cpu_seconds", "counter", "CPU time of its present life.", labels, domain.cpu_seconds)
    yield Sample("domain_heartbeat_age_seconds", "gauge", "Since it was last heard.", labels, domain.heartbeat_age)
    for one in domain.counters:
        each = (("domain", domain.name), ("counter", one.name))
        yield Sample("domain_events", "counter", "What a domain has counted in its present life.", each, one.value)


def _of_rules(rules: Iterable[Any]) -> Iterator[Sample]:
    rest_packets = rest_bytes = 0
    is_more = False
    for place, rule in enumerate(rules):
        if place < MOST_RULES:
            yield from _of_rule(str(rule.number), rule.packets, rule.bytes)
        else:
            is_more = True
            rest_packets += rule.packets
            rest_bytes += rule.bytes
    if is_more:
        yield from _of_rule(OTHERS, rest_packets, rest_bytes)


def _of_rule(number: str, packets: int, octets: int) -> Iterator[Sample]:
    labels = (("rule", number),)
    yield Sample("rule_packets", "counter", "Packets that a rule matched, by its number.", labels, packets)
    yield Sample("rule_bytes", "counter", "Bytes of them.", labels, octets)


def _of_peers(peers: list[Any], most: int) -> Iterator[Sample]:
    """The ``most`` that carried most each have series of their own, in the order of their numbers."""
    by_traffic = sorted(peers, key=lambda peer: -(peer.received + peer.sent))
    shown, rest = sorted(by_traffic[:most], key=lambda peer: peer.number), by_traffic[most:]
    rows = [(peer.name or peer.public_key, peer.received, peer.sent, peer.handshake) for peer in shown]
    if rest:
        received, sent = sum(peer.received for peer in rest), sum(peer.sent for peer in rest)
        rows.append((OTHERS, received, sent, max(peer.handshake for peer in rest)))
    for name, received, sent, handshake in rows:
        labels = (("peer", name),)
        yield Sample("peer_received_bytes", "counter", "Bytes from a peer.", labels, received)
        yield Sample("peer_sent_bytes", "counter", "Bytes to a peer.", labels, sent)
        what = "When the last handshake was completed, seconds since 1970; 0: never."
        yield Sample("peer_last_handshake_seconds", "gauge", what, labels, handshake)


# the shell ------------------------------------------------------------------------------------------------------------


def ask(box: Any) -> Figures:
    """Errors: Trouble."""
    from septum.admin.v1 import admin_pb2 as pb

    status = box.ask(box.box.GetStatus, pb.GetStatusRequest(), "the state of the box")
    rules = box.ask(box.rules.GetCounters, pb.GetCountersRequest(), "the rules' counters")
    return Figures(status, box.everybody(), rules)


class Collector:
    """What ``prometheus_client`` asks at each scrape; one at a time: many scrapers are one caller to the box."""

    def __init__(self, box: Any, most_peers: int) -> None:
        self._box = box
        self._most_peers = most_peers
        self._lock = threading.Lock()

    def describe(self) -> list[Any]:
        """Nothing: the box is not asked before somebody wants to know."""
        return []

    def collect(self) -> Iterator[Any]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        kinds = {"gauge": GaugeMetricFamily, "counter": CounterMetricFamily}
        try:
            with self._lock:
                found = list(samples(ask(self._box), self._most_peers))
        except Trouble as trouble:
            say.warn(str(trouble))
            found = [Sample("up", "gauge", "Whether the box answered.", (), 0.0)]
        families: dict[str, Any] = {}
        for one in found:
            family = families.get(one.name)
            if family is None:
                names = [name for name, _ in one.labels]
                family = families[one.name] = kinds[one.kind](f"{_PREFIX}_{one.name}", one.help, labels=names)
            family.add_metric([value for _, value in one.labels], one.value)
        yield from families.values()


def serve(
    listen: Annotated[str, typer.Option(help="Address and port to answer at.")] = ADDRESS,
    peers: Annotated[int, typer.Option(help="Peers that get series of their own.", min=0, max=16_384)] = MOST_PEERS,
) -> None:
    """Answer Prometheus: the box's figures at http://ADDRESS/metrics, read from it at each scrape.

    Any administrator will do, a viewer is enough. packaging/grafana/septum.json is a dashboard for them.
    """
    from prometheus_client import CollectorRegistry, start_http_server

    from appliance.ctl.connection import Box

    host, port = host_and_port(listen)
    with Box(reach.the_context(), reach.deadline()) as box:
        ask(box)  # says at once what is wrong with the way to the box
        registry = CollectorRegistry()
        registry.register(Collector(box, peers))
        try:
            _, thread = start_http_server(port, host, registry)
        except OSError as error:
            raise Trouble(Exit.REFUSED, f"{listen}: {error.strerror}", "--listen with another address") from None
        say.note(f"http://{listen}/metrics has the figures of {box.context.name}; to end it: Ctrl-C")
        thread.join()
