"""The monitor with real domains: booted, sealed, killed, rebuilt; the host's network given back as it was.

The components are stand-ins (standin.py) so that each can misbehave; everything around them is what `septum up` runs.
"""

from __future__ import annotations

import contextlib
import difflib
import fcntl
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance.monitor import control, netns, privileges
from appliance.monitor.places import is_system
from appliance.monitor.process import ProcessBackend
from appliance.monitor.sandbox.plan import FIRST_OUTER_ID
from tests.system.lab.namespace import Namespace, run, stop
from tests.system.standin_box import assembly

pytestmark = pytest.mark.root

ROOT = Path(__file__).resolve().parents[2]
NODES = ("red", "mid", "black")
STEADY = dict.fromkeys(NODES, "steady")
HOST_MODE: dict[str, Any] = {
    "tunnel": "st0",
    "addresses": ["10.9.0.1/24", "fd09::1/64"],
    "routes": ["10.9.0.2/32", "10.50.0.0/16", "fd50::/16"],
}
INLINE: dict[str, Any] = {**HOST_MODE, "lan": "lan0", "wan": "wan0"}
# CPU seconds from exec to sealed and running, which other work on the machine does not change; the time on the wall is
# reported below, and is what these make of it.
DOMAIN_BUDGET = 0.2


def wait_until(what: str, holds: Callable[[], Any], patience: float = 10) -> Any:
    until = time.monotonic() + patience
    while not (value := holds()):
        assert time.monotonic() < until, f"{what}: not within {patience} s"
        time.sleep(0.005)
    return value


@pytest.fixture(autouse=True)
def places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("SEPTUM_RUN_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("SEPTUM_STATE_DIR", str(tmp_path / "state"))
    yield
    for side in ("red", "black"):  # a test that failed may leave a mount behind
        for path in tmp_path.glob(f"run/*/{side}"):
            netns.unbind(path)


@pytest.fixture
def host() -> Iterator[Namespace]:
    """A host with an interface to a LAN and one to a WAN, each with addresses and routes."""
    namespaces = [Namespace(f"septummon-{os.getpid()}-{secrets.token_hex(2)}-{role}") for role in ("host", "outer")]
    here, outer = namespaces
    for namespace in namespaces:
        run("ip", "netns", "add", namespace.name)
    try:
        for namespace in namespaces:
            namespace.sysctl(ipv6__conf__default__accept_dad=0)
        here.run("ip", "link", "set", "lo", "up")
        for name, number in (("lan0", 1), ("wan0", 2)):
            here.run("ip", "link", "add", name, "type", "veth", "peer", "name", f"{name}p", "netns", outer.name)
            here.run("ip", "address", "add", f"192.168.{number}.1/24", "dev", name)
            here.run("ip", "address", "add", f"192.168.{number}.7/24", "dev", name, "label", f"{name}:2")
            here.run("ip", "address", "add", f"fd00:{number}::1/64", "dev", name, "nodad")
            here.run("ip", "link", "set", name, "up")
            outer.run("ip", "address", "add", f"192.168.{number}.2/24", "dev", f"{name}p")
            outer.run("ip", "link", "set", f"{name}p", "up")
        here.run("ip", "route", "add", "172.20.0.0/16", "via", "192.168.1.2", "metric", "7", "mtu", "1300")
        here.run("ip", "route", "add", "172.21.0.0/16", "dev", "lan0", "scope", "link", "table", "77")
        here.run("ip", "route", "add", "default", "via", "192.168.2.2", "src", "192.168.2.7")
        here.run("ip", "-6", "route", "add", "default", "via", "fd00:2::2")
        yield here
    finally:
        for namespace in namespaces:
            run("ip", "netns", "del", namespace.name, check=False)


def picture(host: Namespace) -> dict[str, Any]:
    """Everything about the host's network that a box could leave changed."""
    volatile = {"valid_life_time", "preferred_life_time", "ifindex", "stats64", "dynamic", "tentative", "qdisc"}

    def look(*command: str) -> Any:
        rows = json.loads(host.run("ip", "-json", *command) or "[]")
        return sorted(json.dumps(_without(row, volatile), sort_keys=True) for row in rows)

    wait_until("IPv6 addresses to be checked", lambda: "tentative" not in host.run("ip", "-6", "address"))
    marked = host.run("cat", "/proc/sys/net/ipv4/conf/all/src_valid_mark")
    return {
        "links": look("-details", "link"),
        "addresses": look("address"),
        "routes": look("-4", "route", "show", "table", "all"),
        "routes6": look("-6", "route", "show", "table", "all"),
        "rules": look("-4", "rule"),
        "rules6": look("-6", "rule"),
        "marked": marked,
    }


def is_unchanged(host: Namespace, before: dict[str, Any]) -> None:
    """Within the second or two that a link takes to say that it has a carrier."""

    def lines(found: dict[str, Any]) -> list[str]:
        return [f"{key}: {row}" for key, rows in found.items() for row in ([rows] if isinstance(rows, str) else rows)]

    with contextlib.suppress(AssertionError):
        wait_until("the network to be as before", lambda: picture(host) == before, patience=3)
    changes = [line for line in difflib.ndiff(lines(before), lines(picture(host))) if line[0] != " "]
    assert not changes, "\n".join(changes)


def _without(value: Any, keys: set[str]) -> Any:
    if isinstance(value, dict):
        return {key: _without(item, keys) for key, item in value.items() if key not in keys}
    return [_without(item, keys) for item in value] if isinstance(value, list) else value


def start(
    host: Namespace, name: str, *wrapper: str, environment: dict[str, str] | None = None, **spec: Any
) -> subprocess.Popen[str]:
    """`septum up --foreground` with a box of stand-ins, run by ``wrapper``."""
    words = json.dumps({"name": name, "nodes": STEADY, "network": HOST_MODE, **spec})
    return subprocess.Popen(
        [*wrapper, *host.command(sys.executable, "-m", "tests.system.standin_box", words)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'proto'}", **(environment or {})},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


class Running:
    """A box of stand-ins in a process of its own."""

    def __init__(self, host: Namespace, nodes: dict[str, str] = STEADY, network: dict[str, Any] = HOST_MODE) -> None:
        self.name = f"t{secrets.token_hex(3)}"
        self.process = start(host, self.name, nodes=nodes, network=network)
        assert self.process.stdout is not None
        self.word = self.process.stdout.readline().strip()

    def status(self) -> dict[str, Any]:
        return control.request(self.name, "status")

    def domain(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = next(one for one in self.status()["domains"] if one["name"] == name)
        return found

    def end(self) -> str:
        """Stops it; what it has logged."""
        stop(self.process, patience=15)
        assert self.process.stderr is not None
        return self.process.stderr.read()


@contextlib.contextmanager
def running(host: Namespace, nodes: dict[str, str] = STEADY, network: dict[str, Any] = HOST_MODE) -> Iterator[Running]:
    box = Running(host, nodes, network)
    try:
        assert box.word == "up", f"{box.word}\n{box.end()}"
        yield box
    finally:
        box.end()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def cpu_seconds(pid: int) -> float:
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def in_namespace_of(pid: int, *command: str) -> str:
    return run("nsenter", f"--net=/proc/{pid}/ns/net", "--", *command)


# building ------------------------------------------------------------------------------------------------------------


def test_a_box_is_built_runs_and_leaves_nothing(host: Namespace, report: list[tuple[str, str]], tmp_path: Path) -> None:
    before = picture(host)
    with running(host) as box:
        status = box.status()
        assert [domain["state"] for domain in status["domains"]] == ["running"] * 3
        assert all(cpu_seconds(domain["pid"]) < DOMAIN_BUDGET for domain in status["domains"])
        report.append(("a box of three stand-ins, to RUNNING", f"{status['start_ms']['running']:.0f} ms"))
        wait_until("records to go round", lambda: all(d["counters"]["received"] > 3 for d in box.status()["domains"]))
        assert all(domain["pss_kib"] > 1000 for domain in box.status()["domains"])
        assert control.list_boxes() == [box.name]
        pids = [domain["pid"] for domain in status["domains"]]
        control.down_and_wait(box.name)
        assert not any(alive(pid) for pid in pids)
        assert box.process.wait(5) == 0
    is_unchanged(host, before)
    assert control.list_boxes() == []
    assert [path.name for path in (tmp_path / "run").iterdir() if not path.name.startswith(".ids")] == []


def test_the_network_is_what_wg_quick_would_make(host: Namespace) -> None:
    with running(host, network={**HOST_MODE, "mtu": 1380, "listen_port": 41820}) as box:
        (link,) = json.loads(host.run("ip", "-json", "-details", "link", "show", "st0"))
        assert (link["mtu"], link["txqlen"], link["gso_max_segs"]) == (1380, 1000, 44)
        assert link["gso_max_size"] == 44 * 1340 + 40
        assert link["linkinfo"]["info_data"] == {
            "type": "tun", "pi": False, "vnet_hdr": True, "multi_queue": False, "persist": False
        }  # fmt: skip
        (addresses,) = json.loads(host.run("ip", "-json", "address", "show", "dev", "st0"))
        shown = {f"{one['local']}/{one['prefixlen']}" for one in addresses["addr_info"]}
        assert shown == {"10.9.0.1/24", "fd09::1/64"}  # and no link-local address
        assert "10.50.0.0/16" in host.run("ip", "route", "show", "dev", "st0")
        assert "10.9.0.2" not in host.run("ip", "route", "show", "dev", "st0")  # comes with the address
        assert "fd50::/16" in host.run("ip", "-6", "route", "show", "dev", "st0")
        sockets = host.run("ss", "-Hunalp")
        assert {line.split()[3] for line in sockets.splitlines()} == {"0.0.0.0:41820", "[::]:41820"}
        assert box.status()["network"]["listen_port"] == 41820


def test_one_free_port_for_both_families(host: Namespace) -> None:
    with running(host) as box:
        port = box.status()["network"]["listen_port"]
        assert port > 1023
        locals_ = {line.split()[3] for line in host.run("ss", "-Hunal").splitlines()}
        assert locals_ == {f"0.0.0.0:{port}", f"[::]:{port}"}


def test_a_default_route_is_taken_and_given_back(host: Namespace) -> None:
    before = picture(host)
    with running(host, network={**HOST_MODE, "routes": ["0.0.0.0/0", "::/0"]}):
        assert "dev st0 table 51820" in host.run("ip", "route", "get", "198.51.100.1")
        assert "dev st0 table 51820" in host.run("ip", "-6", "route", "get", "2001:db8::1")
        # the tunnel's own packets go by the old way, and so does what the main table knows better
        assert "dev wan0" in host.run("ip", "route", "get", "198.51.100.1", "mark", "51820")
        assert "dev lan0" in host.run("ip", "route", "get", "172.20.0.1")
        assert "fwmark:0xca6c" in host.run("ss", "-Hunalpe").replace(" ", "")
        assert host.run("cat", "/proc/sys/net/ipv4/conf/all/src_valid_mark") == "1\n"
    is_unchanged(host, before)


def test_two_boxes_built_at_once_take_two_tables(host: Namespace, tmp_path: Path) -> None:
    base = tmp_path / "run"
    base.mkdir()
    other = os.open(base, os.O_RDONLY)  # a box that is about to take its table
    fcntl.flock(other, fcntl.LOCK_EX)
    box = start(host, "one", network={**HOST_MODE, "routes": ["0.0.0.0/0"]})
    try:
        wait_until("the tunnel to be made", lambda: "st0" in host.run("ip", "link"))
        time.sleep(1)
        host.run("ip", "route", "add", "default", "dev", "lan0", "table", "51820")
        os.close(other)
        assert box.stdout is not None
        assert box.stdout.readline() == "up\n"
        assert "dev st0 table 51821" in host.run("ip", "route", "get", "198.51.100.1")
    finally:
        stop(box, patience=15)


@pytest.mark.parametrize(("table", "shown"), [("off", []), (123, ["10.50.0.0/16"])])
def test_routes_go_where_table_says(host: Namespace, table: Any, shown: list[str]) -> None:
    with running(host, network={**HOST_MODE, "routes": ["10.50.0.0/16"], "table": table}):
        assert "10.50.0.0/16" not in host.run("ip", "route", "show", "table", "main")
        found = host.run("ip", "route", "show", "table", "123", check=False)
        assert [line.split()[0] for line in found.splitlines()] == shown


def test_thousands_of_routes_are_each_there(host: Namespace) -> None:
    routes = [f"10.{50 + n // 256}.{n % 256}.0/24" for n in range(2000)] + [f"fd50:{n:x}::/48" for n in range(1, 1000)]
    with running(host, network={**HOST_MODE, "routes": routes}):
        shown = host.run("ip", "route", "show", "dev", "st0") + host.run("ip", "-6", "route", "show", "dev", "st0")
        assert set(routes) <= {line.split()[0] for line in shown.splitlines()}


# what a build does not survive ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nodes", "network", "reason"),
    [
        ({**STEADY, "mid": "unborn"}, HOST_MODE, "mid ended with status 1\n  ValueError: this one is not to be"),
        (STEADY, {**HOST_MODE, "routes": ["192.168.1.0/24"]}, "there is a route to 192.168.1.0/24 already"),
        (
            STEADY,
            {**HOST_MODE, "routes": ["192.168.1.0/24", *(f"10.50.{n}.0/24" for n in range(250))]},
            "there is a route to 192.168.1.0/24 already",
        ),
        (STEADY, {**HOST_MODE, "tunnel": "lan0"}, "lan0: there is such an interface already"),
        (STEADY, {**INLINE, "wan": "none0"}, "there is no interface 'none0' here"),
        (STEADY, {**INLINE, "wan": "lo"}, "lo leads nowhere: name the interface of the LAN or the WAN"),
        (STEADY, {**INLINE, "lan_addresses": ["10.9.0.9/24"]}, "there is a route to"),
        ({**STEADY, "mid": "unborn"}, INLINE, "mid ended with status 1"),
    ],
)
def test_all_or_nothing(host: Namespace, nodes: dict[str, str], network: dict[str, Any], reason: str) -> None:
    before = picture(host)
    if "lan_addresses" in network:
        network = {**network, "routes": ["10.9.0.0/24"], "addresses": ["10.8.0.1/24"]}
    box = Running(host, nodes, network)
    said = box.word
    if said != "up":
        assert box.process.stdout is not None
        said += f"\n{box.process.stdout.read()}"
    box.end()
    assert box.process.returncode == 1
    assert said.startswith("refused: ")
    assert reason in said
    is_unchanged(host, before)
    assert control.list_boxes() == []


def test_a_taken_port_is_named(host: Namespace) -> None:
    with host.socket(kind=socket.SOCK_DGRAM) as taken:
        taken.bind(("", 41821))
        box = Running(host, network={**HOST_MODE, "listen_port": 41821})
        assert box.word == "refused: UDP port 41821 is in use: choose another ListenPort"
        box.end()


def test_a_box_is_up_once(host: Namespace) -> None:
    with running(host) as box:
        second = start(host, box.name, network={**HOST_MODE, "tunnel": "st1"})
        assert second.communicate(timeout=10)[0] == f"refused: {box.name} is up already: septum down {box.name}\n"
        assert box.status()["name"] == box.name


def test_a_box_whose_builder_has_gone_is_taken_down(host: Namespace) -> None:
    """`septum up` was interrupted: nobody is there any more to hear that the box is up."""
    before = picture(host)
    box = start(host, "gone", network=INLINE)
    assert box.stdout is not None
    box.stdout.close()
    assert box.wait(15) == 1
    assert box.stderr is not None
    assert "BrokenPipeError" in box.stderr.read()
    is_unchanged(host, before)
    assert control.list_boxes() == []


def test_the_seal_is_believed_to_the_kernel_and_not_to_the_domain(places: None) -> None:
    """A program that says SEALED and is not."""
    spec = {"nodes": STEADY, "network": HOST_MODE}
    backend = ProcessBackend(
        assembly(spec), {}, FIRST_OUTER_ID if is_system() else None, ROOT / "tests/system/unsealed.py"
    )
    try:
        backend.start("mid")
        wait_until("it to say that it is sealed", lambda: backend.report("mid").untrusted_state == 3)
        amiss = "; ".join(backend.check("mid"))
        for attribute in ("capabilities", "user namespace", "files", "seccomp", "no new privileges", "rlimit_nofile"):
            assert attribute in amiss
    finally:
        backend.close()


# lives and deaths ----------------------------------------------------------------------------------------------------


def test_every_domain_killed_in_turn_comes_back_alone(host: Namespace, report: list[tuple[str, str]]) -> None:
    with running(host) as box:
        for victim in NODES:
            before = {domain["name"]: domain for domain in box.status()["domains"]}
            os.kill(before[victim]["pid"], signal.SIGKILL)
            wait_until("it to be rebuilt", lambda: box.domain(victim)["rebuild_ms"])  # noqa: B023
            after = {domain["name"]: domain for domain in box.status()["domains"]}
            assert {name for name in NODES if after[name]["pid"] != before[name]["pid"]} == {victim}
            assert after[victim]["last_death"] == "was ended by SIGKILL"
            assert after[victim]["restarts"] == 1
            took = after[victim]["rebuild_ms"]
            report.append((f"{victim} (a stand-in), from its death to RUNNING", f"{took:.0f} ms"))
            assert cpu_seconds(after[victim]["pid"]) < DOMAIN_BUDGET
            follower = NODES[(NODES.index(victim) + 1) % 3]

            def heard(name: str, before: dict[str, Any] = before) -> bool:
                now, then = box.domain(name)["counters"], before[name]["counters"]
                return bool(now["opened"] > then["opened"] and now["closed"] > then["closed"])

            wait_until("its follower to see it close and open again", lambda: heard(follower))  # noqa: B023
            count = box.domain(follower)["counters"]["received"]
            wait_until("records to flow", lambda: box.domain(follower)["counters"]["received"] > count + 3)  # noqa: B023


def test_all_domains_killed_at_once_come_back(host: Namespace) -> None:
    with running(host) as box:
        for domain in box.status()["domains"]:
            os.kill(domain["pid"], signal.SIGKILL)
        wait_until("all to be rebuilt", lambda: all(d["rebuild_ms"] for d in box.status()["domains"]))
        counts = {d["name"]: d["counters"]["received"] for d in box.status()["domains"]}
        wait_until(
            "records to go round",
            lambda: all(d["counters"]["received"] > counts[d["name"]] for d in box.status()["domains"]),
        )


@pytest.mark.parametrize(
    ("behaviour", "victim", "death", "logged"),
    [
        ("raises", "mid", "ended with status 1\n  RuntimeError: so \\x1b[31mangry", "RuntimeError"),
        ("opens", "mid", "was ended by SIGSYS", "SIGSYS"),
        ("spins", "mid", "was ended by SIGKILL", "its loop stood still for 5."),
        ("nonsense", "mid", "was ended by SIGKILL", "a port that it does not have"),
        ("pretends", "mid", "was ended by SIGKILL", "its status page says 77 while running"),
        ("scribbles", "mid", "was ended by SIGKILL", "black says that it broke the protocol"),
    ],
)
def test_who_misbehaves_is_ended_and_nobody_else(
    host: Namespace, behaviour: str, victim: str, death: str, logged: str
) -> None:
    with running(host, {**STEADY, "mid": behaviour}) as box:
        before = {domain["name"]: domain["pid"] for domain in box.status()["domains"]}
        wait_until("it to be ended", lambda: box.domain(victim)["last_death"])
        assert box.domain(victim)["last_death"].startswith(death)
        wait_until("it to be rebuilt", lambda: box.domain(victim)["restarts"])
        after = {domain["name"]: domain["pid"] for domain in box.status()["domains"]}
        assert {name for name in NODES if name != victim and after[name] != before[name]} == set()
        assert logged in box.end()


def test_a_false_accuser_goes_down_with_the_accused(host: Namespace) -> None:
    """`mid` accuses at its port 0: the channel from `red`."""
    with running(host, {**STEADY, "mid": "accuses"}) as box:
        wait_until("the accuser to pay", lambda: box.domain("mid")["last_death"], patience=50)
        assert box.domain("black")["restarts"] == 0
        log = box.end()
        assert log.count("red is ended: mid says that it broke the protocol") >= 3
        assert "mid is ended: it accused its peers 4 times in 60 s" in log


def test_the_domains_die_with_their_monitor_and_the_next_one_tidies_up(host: Namespace) -> None:
    before = picture(host)
    box = Running(host, network={**INLINE, "routes": ["0.0.0.0/0"]})
    assert box.word == "up"
    pids = [domain["pid"] for domain in box.status()["domains"]]
    box.process.kill()
    box.process.wait(5)
    wait_until("the domains to die", lambda: not any(alive(pid) for pid in pids), patience=2)
    box.end()
    assert "lan0" not in host.run("ip", "link")
    assert control.list_boxes() == [box.name]
    with pytest.raises(control.ControlError, match="is not running"):
        box.status()
    code = f"from appliance.monitor import control; control.down_and_wait({box.name!r})"
    subprocess.run(host.command(sys.executable, "-c", code), cwd=ROOT, check=True, timeout=20)
    is_unchanged(host, before)
    assert control.list_boxes() == []


def test_rules_of_a_killed_monitor_are_taken_back_by_the_next_of_that_name(host: Namespace) -> None:
    before = picture(host)
    box = Running(host, network={**HOST_MODE, "routes": ["0.0.0.0/0"]})
    assert box.word == "up"
    box.process.kill()
    box.process.wait(5)
    box.end()
    wait_until("the tunnel to go", lambda: "st0" not in host.run("ip", "link"))
    assert picture(host)["rules"] != before["rules"]
    with start(host, box.name) as second:
        assert second.stdout is not None
        assert second.stdout.readline() == "up\n"
        second.terminate()
    is_unchanged(host, before)


# inline --------------------------------------------------------------------------------------------------------------


def test_inline_interfaces_leave_the_host_and_come_back_as_they_were(host: Namespace, tmp_path: Path) -> None:
    before = picture(host)
    with running(host, network=INLINE) as box:
        links = {link["ifname"] for link in json.loads(host.run("ip", "-json", "link"))}
        assert links == {"lo"}  # no LAN, no WAN, no tunnel: no way around the box

        def inside(side: str, *command: str) -> str:
            return run("nsenter", f"--net={tmp_path / 'run' / box.name / side}", "--", *command)

        red = {link["ifname"]: link for link in json.loads(inside("red", "ip", "-json", "-details", "link"))}
        assert set(red) == {"lo", "lan0", "st0"}
        assert red["lan0"]["gro_max_size"] == 44 * 1380 + 40
        assert red["st0"]["gso_max_size"] == 65536
        assert (
            inside("red", "cat", "/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding") == "1\n1\n"
        )
        assert "172.20.0.0/16 via 192.168.1.2 dev lan0 metric 7 mtu 1300" in " ".join(
            inside("red", "ip", "route").split()
        )
        assert "tentative" not in inside("red", "ip", "-6", "address", "show", "dev", "lan0", "scope", "global")
        black = json.loads(inside("black", "ip", "-json", "link"))
        assert {link["ifname"] for link in black} == {"lo", "wan0"}
        assert "default via 192.168.2.2 dev wan0" in inside("black", "ip", "route")
        assert inside("black", "cat", "/proc/sys/net/ipv4/ip_forward") == "0\n"
        port = box.status()["network"]["listen_port"]
        assert f"0.0.0.0:{port}" in inside("black", "ss", "-Hunal")
        # the sealed processes themselves are in none of these
        for domain in box.status()["domains"]:
            assert in_namespace_of(domain["pid"], "ip", "-brief", "link").split()[0] == "lo"
    is_unchanged(host, before)


def test_inline_interfaces_take_the_addresses_they_are_given(host: Namespace, tmp_path: Path) -> None:
    host.run("ip", "address", "flush", "dev", "lan0")
    given = {
        "lan_addresses": ["192.168.77.1/24"],
        "wan_addresses": ["192.168.88.1/24"],
        "wan_gateways": ["192.168.88.2"],
    }
    host.run("ip", "link", "set", "lan0", "down")
    before = picture(host)
    with running(host, network={**INLINE, **given}) as box:
        directory = tmp_path / "run" / box.name
        lan = run("nsenter", f"--net={directory / 'red'}", "--", "ip", "-brief", "-4", "address", "show", "lan0")
        assert lan.split()[2:] == ["192.168.77.1/24"]
        assert lan.split()[1] == "UP"
        wan = run("nsenter", f"--net={directory / 'black'}", "--", "ip", "route")
        assert "default via 192.168.88.2 dev wan0" in wan
        assert "192.168.2" not in wan
    is_unchanged(host, before)  # which includes that lan0 was down


def test_only_one_side_may_be_inline(host: Namespace) -> None:
    before = picture(host)
    with running(host, network={**HOST_MODE, "wan": "wan0"}):
        links = {link["ifname"] for link in json.loads(host.run("ip", "-json", "link"))}
        assert links == {"lo", "lan0", "st0"}
    is_unchanged(host, before)


# what a domain is given, and what the monitor keeps ------------------------------------------------------------------


def test_a_domain_holds_its_ports_and_devices_and_nothing_of_the_monitors(host: Namespace) -> None:
    with running(host) as box:
        for domain in box.status()["domains"]:
            pid = domain["pid"]
            held = {int(fd): os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
            sockets = [target for target in held.values() if target.startswith("socket:")]
            tuns = [target for target in held.values() if target == "/dev/net/tun"]
            assert len(sockets) == (2 if domain["name"] == "black" else 0)
            assert len(tuns) == (1 if domain["name"] == "red" else 0)
            assert not any("boot" in target for target in held.values())
            # the pipe of last words, the control event, two ports with two events each
            assert len(held) <= 1 + 1 + 4 + 2 + len(sockets) + len(tuns), held
            environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            assert all(not variable or variable.startswith(b"MALLOC_") for variable in environment)


def test_no_two_domains_share_a_user_not_even_of_two_boxes(host: Namespace) -> None:
    with (
        running(host) as one,
        running(host, network={**HOST_MODE, "tunnel": "st1", "addresses": [], "routes": []}) as two,
    ):
        domains = [*one.status()["domains"], *two.status()["domains"]]
        users = {Path(f"/proc/{domain['pid']}").stat().st_uid for domain in domains}
        if is_system():
            assert len(users) == len(domains) == 6
            assert min(users) >= FIRST_OUTER_ID
        else:  # a user has one id to give, which is 0 in here
            assert users == {0}


def test_the_monitor_keeps_only_what_it_needs(host: Namespace) -> None:
    with running(host) as box:
        fields = dict(
            line.split(":\t", 1) for line in Path(f"/proc/{box.status()['pid']}/status").read_text().splitlines()
        )
        numbers = privileges.KEPT if is_system() else privileges.KEPT_BY_A_USER
        kept = sum(1 << number for number in numbers.values())
        for name in ("CapPrm", "CapEff", "CapBnd"):
            assert int(fields[name], 16) == kept
        assert int(fields["CapInh"], 16) == int(fields["CapAmb"], 16) == 0
        assert fields["NoNewPrivs"] == "1"
        assert fields["Seccomp"] == "2"
        assert fields["Threads"] == "1"


UNIT = (ROOT / "packaging" / "septum@.service").read_text()


def test_the_service_manager_hears_of_it(host: Namespace, tmp_path: Path) -> None:
    """As the unit file has it: with its capabilities and no more, notified, watched, stopped by SIGTERM."""
    bounding = {
        word.lower().removeprefix("cap_")
        for line in UNIT.splitlines()
        if line.startswith("CapabilityBoundingSet=")
        for word in line.split("=", 1)[1].split()
    }
    wrapper = ("setpriv", "--no-new-privs", "--bounding-set", ",".join(["-all", *(f"+{name}" for name in bounding)]))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(10)
        environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "1000000", "JOURNAL_STREAM": "8:1"}
        with start(host, "unit", *wrapper, environment=environment) as box:
            assert manager.recv(100) == b"READY=1", box.communicate(timeout=10)
            began = time.monotonic()
            assert [manager.recv(100) for _ in range(4)] == [b"WATCHDOG=1"] * 4
            assert 1.4 < time.monotonic() - began < 3
            victim = control.request("unit", "status")["domains"][1]
            os.kill(victim["pid"], signal.SIGKILL)  # built anew with what the monitor has kept
            wait_until("it to be rebuilt", lambda: control.request("unit", "status")["domains"][1]["rebuild_ms"])
            box.terminate()
            while (word := manager.recv(100)) == b"WATCHDOG=1":
                pass
            assert word == b"STOPPING=1"
            assert box.wait(10) == 0
            assert box.stderr is not None
            lines = box.stderr.read().splitlines()
        assert all(line.startswith("<") and line[2] == ">" for line in lines), lines
        assert any(line.startswith("<4>mid was ended by SIGKILL") for line in lines)


def test_the_unit_file_is_one() -> None:
    keys = dict(line.split("=", 1) for line in UNIT.splitlines() if "=" in line and not line.startswith("#"))
    assert keys["Type"] == "notify"
    assert keys["ExecStart"] == "septum up --foreground --name %i /etc/wireguard/%i.conf"
    assert keys["ExecStopPost"] == "-septum down %i"
    for mounts in ("ProtectSystem", "PrivateTmp", "ProtectHome", "SystemCallFilter"):
        assert mounts not in keys


def test_a_box_in_the_background(host: Namespace, tmp_path: Path) -> None:
    before = picture(host)
    said, _ = start(host, "back", background=True).communicate(timeout=20)
    pid = int(said)
    try:
        assert control.request("back", "status")["pid"] == pid
        assert os.getsid(pid) == pid
        assert os.readlink(f"/proc/{pid}/cwd") == "/"
        log = tmp_path / "state" / "back" / "log"
        assert "septum back: up after" in log.read_text()
        assert {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in (0, 1, 2)} == {"/dev/null", str(log)}
    finally:
        control.down_and_wait("back")
    wait_until("the monitor to end", lambda: not alive(pid))
    is_unchanged(host, before)


def test_a_box_that_cannot_be_built_is_not_left_in_the_background(host: Namespace) -> None:
    nodes = {**STEADY, "red": "unborn"}
    said, _ = start(host, "back", background=True, nodes=nodes).communicate(timeout=20)
    assert said.startswith("refused: red ended with status 1\n  ValueError: this one is not to be")
    assert control.list_boxes() == []


# the control socket --------------------------------------------------------------------------------------------------


@pytest.fixture
def box(host: Namespace) -> Iterator[Running]:
    with running(host) as one:
        yield one


def connect(box: Running, tmp_path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(5)
    connection.connect(str(tmp_path / "run" / box.name / "control"))
    return connection


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        (b"hello\n", b"the request is not a line of JSON"),
        (b"\n", b"the request is not a line of JSON"),
        (b"[" * 4000 + b"\n", b"the request is not a line of JSON"),
        (b"\xff\xfe\n", b"the request is not a line of JSON"),
        (b"[]\n", b"there is no such operation; there are: down, status"),
        (b'{"op": "kill"}\n', b"there is no such operation"),
        (b'{"op": ["status"]}\n', b"there is no such operation"),
        (b'{"op": "status"}\nmore', b'"domains"'),
        (b"x" * 5000, b""),
        (b"", b""),
    ],
)
def test_whatever_is_asked_the_monitor_goes_on(box: Running, tmp_path: Path, question: bytes, answer: bytes) -> None:
    with connect(box, tmp_path) as connection:
        connection.sendall(question)
        if not question:
            connection.shutdown(socket.SHUT_WR)
        reply = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := connection.recv(1 << 16):
                reply += piece
    assert answer in reply
    assert bool(reply) == bool(answer)
    assert box.status()["name"] == box.name


def test_silent_clients_are_dropped_and_too_many_turned_away(box: Running, tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(connect(box, tmp_path)) for _ in range(16)]
        with pytest.raises(control.ControlError, match=r"hung up|does not answer"):
            box.status()
        began = time.monotonic()
        assert [connection.recv(1) for connection in silent] == [b""] * 16
        assert time.monotonic() - began < 4
        assert box.status()["name"] == box.name


def test_nobody_else_may_ask(box: Running, tmp_path: Path) -> None:
    path = tmp_path / "run" / box.name / "control"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    with pytest.raises(control.ControlError, match="is not running"):
        control.request("nobody", "status")
    with pytest.raises(control.ControlError, match="cannot be a box's name"):
        control.request("../etc", "status")
