"""What `septumctl` shows of a box: status, top, domains, logs, and how it draws them."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
from rich.console import Console

from appliance.ctl import board, wgclient
from appliance.ctl.board import Look, rates
from tests.unit.ctl.conftest import Ctl
from tests.unit.ctl.fakebox import FakeBox, pb, status_of


def test_status(box: FakeBox, ctl: Ctl) -> None:
    ctl("peers", "add", "alice", "--commit", "--confirm", "9m")
    told = ctl.said("status")
    assert (told["name"], told["revision"], told["peers"]) == ("vpn", 1, 1)
    assert told["confirm_left_ms"] > 0
    assert {one["name"]: one["state"] for one in told["domains"]}["filter"] == "running"
    out = ctl("status").out
    assert "waits to be confirmed: rolled back in 9 min" in out
    assert "wg0: 10.0.0.1/24, fd00::1/64, port 51820" in out


def test_domains(box: FakeBox, ctl: Ctl) -> None:
    assert [one["name"] for one in ctl.said("domains")] == [one.name for one in box.status.domains]
    told = ctl.said("domains", "restart", "filter", "--yes")
    assert (told["domain"], told["restarts"], box.restarted) == ("filter", 1, ["filter"])
    assert "one of: rng, log" in ctl("domains", "restart", "nothing", "--yes", code=1).err
    # Nobody is there to answer
    ctl("domains", "restart", "filter", code=2)


def test_version(box: FakeBox, ctl: Ctl) -> None:
    assert ctl.said("version")["box"] == box.box


def test_logs(box: FakeBox, ctl: Ctl) -> None:
    box.log += [
        pb.LogLine(number=n, at=1000 * n, severity=n % 8, domain="filter" if n % 2 else "keymgr", event=f"event {n}")
        for n in range(1, 21)
    ]
    lines = [json.loads(line) for line in ctl("logs", "-n", "3", "--json").out.splitlines()]
    assert [(one["number"], one["severity"], one["at"]) for one in lines] == [
        (18, "critical", "1970-01-01T00:00:18+00:00"),
        (19, "error", "1970-01-01T00:00:19+00:00"),
        (20, "warning", "1970-01-01T00:00:20+00:00"),
    ]
    found = ctl("logs", "--severity", "error", "--domain", "filter", "--json").out.splitlines()
    assert [json.loads(line)["number"] for line in found] == [1, 3, 9, 11, 17, 19]
    ctl("logs", "--severity", "loud", code=2)


def test_logs_are_followed(box: FakeBox, ctl: Ctl) -> None:
    """As a program of its own, also across a connection that is lost."""
    box.log.append(pb.LogLine(number=1, at=1, severity=6, domain="log", event="first"))
    environment = dict(os.environ, SEPTUM_CONFIG=str(ctl.home))
    words = [sys.executable, "-m", "appliance.ctl.main", "logs", "-f", "--json"]
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
        try:
            assert program.stdout is not None
            for number in range(2, 7):
                assert json.loads(program.stdout.readline())["number"] == number - 1
                if number == 4:
                    box.relay.hang_up()
                box.log.append(pb.LogLine(number=number, at=1, severity=6, domain="log", event="more"))
        finally:
            program.terminate()


def test_completion(box: FakeBox, ctl: Ctl) -> None:
    for name in ("alice", "alan", "bob"):
        ctl("peers", "add", name)
    # As bash asks, of the installed command
    program = str(os.path.join(os.path.dirname(sys.executable), "septumctl"))
    environment = dict(
        os.environ, SEPTUM_CONFIG=str(ctl.home), _SEPTUMCTL_COMPLETE="complete_bash",
        COMP_WORDS="septumctl peers show al", COMP_CWORD="3",
    )  # fmt: skip
    done = subprocess.run([program], env=environment, capture_output=True, text=True, check=False)
    assert sorted(done.stdout.split()) == ["alan", "alice"]


# top ------------------------------------------------------------------------------------------------------------------


def test_top_for_machines(box: FakeBox, ctl: Ctl) -> None:
    ctl("peers", "add", "alice", "--commit")
    box.sums = [pb.Sum(what="no rule", side="tunnel", count=9)]
    lines = [json.loads(line) for line in ctl("top", "-n", "2", "-e", "0.2", "--json").out.splitlines()]
    assert [one["peer_rates"][0]["name"] for one in lines] == ["alice", "alice"]
    assert lines[1]["packets"] == [{"side": "tunnel", "what": "no rule", "count": 9, "per_second": 0.0}]


def look(at: float, **other: int) -> Look:
    status = status_of("vpn")
    filter_ = next(one for one in status.domains if one.name == "filter")
    filter_.counters[0].value = other.get("passed", 0)
    filter_.cpu_seconds = other.get("cpu", 0)
    peer = pb.Peer(number=1, name="alice", public_key="k", received=other.get("received", 0), sent=0)
    return Look(at, status, {"k": peer}, {("tunnel", "no rule"): other.get("denied", 0)})


def test_rates() -> None:
    found = rates(
        look(10.0, passed=100, cpu=1, received=1000, denied=5), look(12.0, passed=300, cpu=2, received=5096, denied=7)
    )
    filter_ = next(one for one in found.domains if one.domain.name == "filter")
    assert (filter_.cpu, list(filter_.counters)) == (0.5, [("passed", 100.0)])
    assert [(one.peer.name, one.received, one.sent) for one in found.peers] == [("alice", 2048.0, 0.0)]
    assert list(found.sums) == [("tunnel", "no rule", 7, 1.0)]


def test_what_was_rebuilt_counts_from_zero() -> None:
    found = rates(look(10.0, passed=1000), look(11.0, passed=30))
    filter_ = next(one for one in found.domains if one.domain.name == "filter")
    assert list(filter_.counters) == [("passed", 30.0)]


def test_the_first_look_has_no_rates() -> None:
    found = rates(None, look(10.0, passed=1000, received=7))
    assert not any(one.cpu or one.counters for one in found.domains)
    assert [(one.received, one.sent) for one in found.peers] == [(0.0, 0.0)]
    assert found.seconds == 0


@pytest.mark.parametrize(("width", "height"), [(80, 24), (80, 50), (200, 60)])
def test_it_fits(width: int, height: int) -> None:
    """Never more lines than there are, and of each part something."""
    status = status_of("vpn")
    peers = {str(n): pb.Peer(number=n, name=f"peer-{n}", received=n) for n in range(1, 100)}
    sums = {("tunnel", f"reason {n}"): n for n in range(1, 15)}
    console = Console(width=width, file=io.StringIO())
    with console.capture() as captured:
        console.print(board.draw(rates(None, Look(time.time(), status, peers, sums)), width, height))
    lines = captured.get().rstrip("\n").split("\n")
    assert len(lines) <= height
    assert all(len(line) <= width for line in lines)
    text = "\n".join(lines)
    assert all(part in text for part in ("peer-1", "reason 1", "keymgr"))


# QR -------------------------------------------------------------------------------------------------------------------


def test_a_qr_code_fits_a_terminal() -> None:
    client = wgclient.Client(
        "alice", "k" * 43 + "=", ["10.0.0.2/32", "fd00::2/128"], "b" * 43 + "=", "vpn.example:51820",
        ["0.0.0.0/0", "::/0"], "p" * 43 + "=", "10.0.0.1", 0, 25,
    )  # fmt: skip
    rows = wgclient.qr(client.text())
    assert max(map(len, rows)) <= 80
    # The three corners of ISO/IEC 18004 section 6.3.3, behind a quiet zone of four modules
    assert rows[2][4:11] == "█▀▀▀▀▀█"
    assert rows[2][-11:-4] == "█▀▀▀▀▀█"
    assert rows[0].strip() == rows[1].strip() == ""


def test_the_qr_code_is_drawn_where_it_can_be(capsys: pytest.CaptureFixture[str]) -> None:
    narrow, wide = (Console(width=width, force_terminal=True) for width in (20, 100))
    assert not wgclient.show_qr("hello", narrow)
    assert capsys.readouterr().out == ""
    assert wgclient.show_qr("hello", wide)
    assert "█" in capsys.readouterr().out


def test_help_needs_no_grpc(ctl_of: Callable[[str], Ctl]) -> None:
    script = "import sys; from appliance.ctl import main; sys.argv = ['septumctl', '--help']\n"
    script += "try: main.main()\nexcept SystemExit: pass\nassert 'grpc' not in sys.modules, 'grpc'"
    subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.DEVNULL)
