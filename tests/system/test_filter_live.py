"""The rules of a running box, replaced while it works: by the command, under traffic, through deaths and bad tools."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from septum.v1.filtering import AskTalkers, FilteringRequest, Replaced

from appliance.cli import asking
from appliance.cli.asking import AskError, Call
from appliance.cli.running import Rejected, RunningFilter
from appliance.monitor.control import request
from appliance.rules.read import from_text
from components.filter.model import Hours
from tests.system.lab import MARKER, Lab, LabError, Septum, Transfer, WireguardGo, pair, reaches, wait_for
from tests.system.lab.ends.septum import PROGRAM, REPOSITORY

pytestmark = pytest.mark.root

OPEN = "allow established related\nallow from red\n"
NO_TCP = "allow established related\nallow from red udp\nallow from red icmp\n"
LONGEST = 3.0  # seconds of silence that a user would not forgive


@dataclass
class Scene:
    lab: Lab
    septum: Septum

    def filter(self, *words: str, timeout: float = 30) -> Any:
        """What `septum filter` says to a machine."""
        return json.loads(self.septum.septum("filter", *words, "--box", self.septum.name, "--json", timeout=timeout))

    def refused(self, *words: str) -> str:
        """What it says on its way out."""
        with pytest.raises(LabError) as error:
            self.septum.septum("filter", *words, "--box", self.septum.name)
        return str(error.value)

    @contextmanager
    def operator(self) -> Iterator[RunningFilter]:
        """The same from this process, where a second of starting a program is too much."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SEPTUM_RUN_DIR", self.septum.environment["SEPTUM_RUN_DIR"])
            with Call(self.septum.name, "filter") as call:
                yield RunningFilter(call)

    def apply(self, text: str) -> Replaced:
        with self.operator() as running:
            return running.apply(from_text(text, "test.rules").ruleset)

    def in_force(self) -> bytes:
        with self.operator() as running:
            return bytes(running.totals().digest)


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with Lab() as lab:
        own, stock = pair(lab.left, lab.right)
        with WireguardGo(lab.right, stock), Septum(lab.left, own, rules=OPEN) as septum:
            assert reaches(lab.left.host, lab.right.host4, 15)
            yield Scene(lab, septum)


@pytest.fixture(autouse=True)
def open_rules(scene: Scene) -> None:
    """Each begins with the same."""
    scene.apply(OPEN)


def test_a_transfer_that_is_allowed_does_not_notice(scene: Scene, report: list[tuple[str, str]]) -> None:
    lab = scene.lab
    with Transfer(lab.left.host, lab.right.host, lab.right.host4, rate=4e6) as transfer:
        time.sleep(0.5)
        began = time.monotonic()
        for number in range(50):
            done = scene.apply(f'{OPEN}allow "round {number}" from tunnel tcp to port {1000 + number}\n')
            assert done.kept >= 1
        ended = time.monotonic()
        time.sleep(0.2)
        silence = transfer.longest_silence(since=began, until=ended)
    assert transfer.intact
    assert silence < 0.5
    each = (ended - began) / 50
    report.append(("rules replaced 50 times under TCP", f"{each * 1000:.0f} ms each, silence {silence * 1000:.0f} ms"))


def test_what_the_new_rules_forbid_ends_at_once_and_nothing_else(scene: Scene, report: list[tuple[str, str]]) -> None:
    lab = scene.lab
    with Transfer(lab.left.host, lab.right.host, lab.right.host4, rate=2e6) as forbidden:
        with Transfer(lab.left.host, lab.right.host, lab.right.host4, rate=2e6) as allowed:
            port = allowed._receiver.getsockname()[1]
            time.sleep(0.5)
            done = scene.apply(f"allow established related\nallow from red tcp to port {port}\nallow from red icmp\n")
            at = time.monotonic()
            assert done.ended >= 1
            time.sleep(1)
            late = [arrival for arrival in forbidden.arrivals if arrival > at + 0.05]
            assert late == []
            assert allowed.longest_silence(since=at - 0.5) < LONGEST
            with scene.operator() as running:
                (flow,) = (row for row in running.flows() if row.protocol == 6)
            assert flow.destination_port == port
        scene.apply(OPEN)  # TCP is patient: the one that was ended is picked up again, from the red side
    assert forbidden.intact
    last = max((arrival for arrival in forbidden.arrivals if arrival <= at + 0.05), default=at) - at
    report.append(("a forbidden flow, last byte after the answer", f"{last * 1000:.0f} ms"))


def test_rules_that_are_refused_change_nothing(scene: Scene) -> None:
    before = scene.in_force()
    file = scene.septum.directory / "bad.rules"
    file.write_text("allow from red\nallow form tunnel\n")
    said = scene.refused("apply", str(file))
    assert "bad.rules:2:7" in said
    assert "nothing was changed" in said
    with scene.operator() as running, pytest.raises(Rejected, match="hours"):
        ruleset = from_text(OPEN, "test.rules").ruleset
        rule = ruleset.rules[0]._replace(hours=(Hours(127, 60, 30),))
        running.apply(ruleset._replace(rules=(rule,)))
    assert scene.in_force() == before
    assert reaches(scene.lab.left.host, scene.lab.right.host4)


def test_a_dry_run_changes_nothing(scene: Scene) -> None:
    file = scene.septum.directory / "dry.rules"
    file.write_text(NO_TCP)
    before = scene.in_force()
    said = scene.filter("apply", str(file), "--dry-run")
    assert not said["applied"]
    assert said["changes"]
    assert scene.in_force() == before


def test_the_rules_survive_the_filter(scene: Scene, report: list[tuple[str, str]]) -> None:
    lab, septum = scene.lab, scene.septum
    scene.apply(NO_TCP + 'allow "after death" from tunnel tcp to port 7\n')
    applied = scene.in_force()
    for _ in range(2):
        pid = septum.kill("filter")
        wait_for("filter to be rebuilt", lambda p=pid: _is_back(septum, p), seconds=20)
        with scene.operator() as running:
            totals = running.totals()
        assert (totals.digest, totals.replaced) == (applied, 0)
    assert reaches(lab.left.host, lab.right.host4)
    with pytest.raises(OSError):
        _knock(scene)
    seal = septum.seals()["filter"]
    assert seal["sealed"]


def _is_back(septum: Septum, dead: int) -> bool:
    row = septum.domains()["filter"]
    return row["state"] == "running" and row["pid"] != dead


def _knock(scene: Scene) -> None:
    """A TCP connection through the tunnel, or OSError."""
    lab = scene.lab
    with lab.right.host.socket() as listener, lab.left.host.socket() as near:
        listener.bind((lab.right.host4, 0))
        listener.listen(1)
        near.settimeout(1)
        near.connect(listener.getsockname())


# While it is down


class Tap:
    """Every frame on an interface of a namespace that carries the marker, with the time it was seen."""

    def __init__(self, namespace: Any, interface: str) -> None:
        self.seen: list[float] = []
        self._stop = threading.Event()
        self._socket = namespace.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self._socket.bind((interface, 0))
        self._socket.settimeout(0.1)
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                frame, (_, _, kind, *_) = self._socket.recvfrom(65535)
            except TimeoutError:
                continue
            if kind != socket.PACKET_OUTGOING and MARKER in frame:
                self.seen.append(time.monotonic())

    def __enter__(self) -> Tap:
        self._thread.start()
        return self

    def __exit__(self, *why: object) -> None:
        self._stop.set()
        self._thread.join()
        self._socket.close()

    def more(self) -> Callable[[], bool]:
        """Whether more has been seen than until now."""
        before = len(self.seen)
        return lambda: len(self.seen) > before

    def between(self, first: float, last: float) -> int:
        return sum(first <= at <= last for at in self.seen)


class Stream:
    """The marker in UDP, 500 times a second, whether anything comes back or not."""

    def __init__(self, source: Any, destination: str, port: int, source_port: int) -> None:
        self._socket = source.socket(kind=socket.SOCK_DGRAM)
        self._socket.bind(("", source_port))
        self._to = (destination, port)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self._stop.wait(0.002):
            with contextlib.suppress(OSError):  # nobody listens, and says so
                self._socket.sendto(MARKER * 4, self._to)

    def __enter__(self) -> Stream:
        self._thread.start()
        return self

    def __exit__(self, *why: object) -> None:
        self._stop.set()
        self._thread.join()
        self._socket.close()


def test_while_the_filter_is_down_nothing_passes(scene: Scene, report: list[tuple[str, str]]) -> None:
    """Seen by a capture on each LAN: what the applied rules allow passes before and after, and nothing in between."""
    lab, septum = scene.lab, scene.septum
    near, far = lab.left.host, lab.right.host
    scene.apply("allow from red udp to port 7001\nallow from tunnel udp to port 7002\n")
    streams = (Stream(near, lab.right.host4, 7001, 6001), Stream(far, lab.left.host4, 7002, 6002))
    with Tap(near, "eth0") as inside, Tap(far, "eth0") as outside, streams[0], streams[1]:
        wait_for("both streams to pass", lambda: len(inside.seen) > 50 and len(outside.seen) > 50, 10)
        down = 0.0
        while down < 1:  # one that keeps dying is rebuilt later each time
            pid = septum.domains()["filter"]["pid"]
            killed = time.monotonic()
            os.kill(pid, signal.SIGKILL)
            wait_for("filter to be rebuilt", lambda p=pid: _is_back(septum, p), seconds=20)
            for tap in (inside, outside):
                wait_for("the stream to pass again", tap.more(), 10)
            lasted = septum.domains()["filter"]["rebuild_ms"] / 1000
            # What it had passed on is on its way for a moment, and what is rebuilt works before it is looked at
            first, last = killed + 0.1, killed + lasted - 0.3
            assert (inside.between(first, last), outside.between(first, last)) == (0, 0)
            down += max(0.0, last - first)
    assert min(len(inside.seen), len(outside.seen)) > 100
    report.append(("nothing passed while filter was down", f"{down:.2f} s looked at, of two streams of 500 a second"))


# Tools that misbehave


STUCK = """
import os, signal, sys, time
from septum.v1.filtering import AskWhy, FilteringRequest
from appliance.cli.asking import Call
call = Call(sys.argv[1], "filter").__enter__()
end = call._endpoint
request = FilteringRequest(why=AskWhy(packet=bytes(60000), side=1))
while True:
    for _ in range(50):
        end.send(request)
    end.flush()
    if sys.argv[2] == "stuck":
        print("full", flush=True)
        os.kill(os.getpid(), signal.SIGSTOP)
    elif sys.argv[2] == "nonsense":
        end._vchan._words[end._vchan._prod_word] = 0x12345678
        end._wire.notify()
        print("full", flush=True)
        time.sleep(600)
    else:
        print("full", flush=True)
        end._wire.notify()
"""


@contextmanager
def tool(scene: Scene, how: str) -> Iterator[subprocess.Popen[bytes]]:
    """A tool of the operator's that is up to no good."""
    command = [str(REPOSITORY / ".venv/bin/python"), "-c", STUCK, scene.septum.name, how]
    environment = {**os.environ, **scene.septum.environment}
    process = subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None and process.stdout.readline() == b"full\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def _rate(scene: Scene, seconds: float) -> tuple[float, float]:
    """Bytes a second of a paced transfer, and its longest silence."""
    lab = scene.lab
    with Transfer(lab.left.host, lab.right.host, lab.right.host4, rate=2e6) as transfer:
        time.sleep(0.5)
        began, before = time.monotonic(), transfer.received
        time.sleep(seconds)
        rate = (transfer.received - before) / (time.monotonic() - began)
        silence = transfer.longest_silence(since=began)
    assert transfer.intact
    return rate, silence


@pytest.mark.parametrize("how", ["stuck", "greedy"])
def test_a_tool_that_fills_the_ring_does_not_slow_the_packets(
    scene: Scene, how: str, report: list[tuple[str, str]]
) -> None:
    lives = {name: row["pid"] for name, row in scene.septum.domains().items()}
    usual, _ = _rate(scene, 2)
    with tool(scene, how) as process:
        rate, silence = _rate(scene, 3)
        said = scene.refused("counters")
        assert f"process {process.pid} (python) has held operator.filter" in said
        assert "end that process" in said
        assert scene.septum.status()["name"] == scene.septum.name  # the monitor answers everybody else
    report.append(
        (f"a transfer beside a {how} tool", f"{rate / usual:.0%} of its rate, silence {silence * 1e3:.0f} ms")
    )
    assert rate > 0.9 * usual
    assert silence < LONGEST
    wait_for("the end to be free", scene.in_force, 10)
    assert {name: row["pid"] for name, row in scene.septum.domains().items()} == lives


def test_a_tool_that_breaks_the_protocol_loses_its_end_and_nobody_dies(scene: Scene) -> None:
    lives = {name: row["pid"] for name, row in scene.septum.domains().items()}
    for _ in range(2):
        with tool(scene, "nonsense"):
            wait_for("the end to be taken back", lambda: _is_free(scene), 10)
            assert reaches(scene.lab.left.host, scene.lab.right.host4)
    assert "operator.filter is taken back: filter says that who holds it broke the protocol" in scene.septum.log()
    assert {name: row["pid"] for name, row in scene.septum.domains().items()} == lives


def _is_free(scene: Scene) -> bool:
    try:
        return bool(scene.in_force())
    except AskError:
        return False


def test_what_the_command_shows(scene: Scene) -> None:
    """Each command once as a user would, and once as a machine."""
    assert reaches(scene.lab.left.host, scene.lab.right.host4)
    name = scene.septum.name
    for words, found in (
        (("rules",), "allow from red"),
        (("rules", "--unused"), "What no rule matches is dropped"),
        (("flows", "--protocol", "icmp"), "icmp"),
        (("top",), scene.lab.left.host4),
        (("counters",), "passed"),
    ):
        assert found in scene.septum.septum("filter", *words, "--box", name)
        assert scene.filter(*words) is not None
    file = scene.septum.directory / "shown.rules"
    file.write_text(NO_TCP)
    said = scene.septum.septum("filter", "apply", str(file), "--box", name)
    assert "3 rules" in said
    assert f"septum up --rules {file}" in said
    assert "unknown" in scene.refused("flows", "--peer", "unknown")


def test_a_box_that_is_not_there() -> None:
    done = subprocess.run(
        [PROGRAM, "filter", "rules"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "SEPTUM_RUN_DIR": "/nowhere"},
    )
    assert done.returncode == 1
    assert "no box is up" in done.stderr


# A filter that is bent


@pytest.fixture(scope="module")
def bent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The run directory of a box whose filter answers nonsense."""
    directory = tmp_path_factory.mktemp("bent")
    conf = directory / "bent.conf"
    conf.touch(mode=0o600)
    keys = [base64.b64encode(os.urandom(32)).decode() for _ in range(2)]
    conf.write_text(
        f"[Interface]\nPrivateKey = {keys[0]}\nAddress = 10.99.0.1/24\nTable = off\n"
        f"[Peer]\nPublicKey = {keys[1]}\nAllowedIPs = 10.99.0.2/32\n"
    )
    environment = {**os.environ, "SEPTUM_RUN_DIR": str(directory / "run"), "SEPTUM_STATE_DIR": str(directory / "state")}
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            ["unshare", "--net", sys.executable, "-m", "tests.system.hostile.bent_box", str(conf)],
            cwd=REPOSITORY,
            env=environment,
            stdout=log,
            stderr=log,
        )
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SEPTUM_RUN_DIR", str(directory / "run"))
            wait_for("the bent box", lambda: (directory / "run/bent/control").exists() or process.poll(), 30)
            assert process.poll() is None, (directory / "log").read_text()
        yield directory / "run"
    finally:
        process.terminate()
        process.wait(20)


@pytest.mark.parametrize(
    ("number", "why"),
    [
        (1, "broke the protocol, and nothing it says is believed"),
        (2, "broke the protocol.*at most"),
        (3, "broke the protocol"),
        (4, "broke the protocol"),
        (5, "broke the protocol.*answers no request"),
        (6, r"did not answer within 1\.5 s"),
        (7, r"did not answer within 1\.5 s|ended while it was asked"),
    ],
)
def test_a_filter_that_answers_nonsense(bent: Path, number: int, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEPTUM_RUN_DIR", str(bent))
    monkeypatch.setattr(asking, "OPEN", 30.0)  # it may have to be rebuilt first
    before = request("bent", "status")["pid"]
    began = time.monotonic()
    with Call("bent", "filter") as call:
        assert RunningFilter(call).totals()
        asked = time.monotonic()
        with pytest.raises(AskError, match=why):
            call.ask(FilteringRequest(talkers=AskTalkers(most=number)), 1.5)
        assert time.monotonic() - asked < 5
    assert request("bent", "status")["pid"] == before
    assert time.monotonic() - began < 40
