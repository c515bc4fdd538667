"""The monitor's small parts: names, status pages, last words, groups, the filter, the service manager."""

from __future__ import annotations

import errno
import mmap
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from appliance.assembly.model import Network
from appliance.guest.status import MAGIC, SIZE, State, StatusPage
from appliance.monitor import notify, privileges
from appliance.monitor.helper import Helper, HelperError
from appliance.monitor.notify import INFO, LogFile, Logger
from appliance.monitor.places import PlaceError, checked_name, make_private, run_base
from appliance.monitor.plumbing import MOST_SEGMENTS, _covered, largest_group
from appliance.monitor.process import printable
from appliance.monitor.sandbox import seccomp
from appliance.monitor.sandbox.syscalls import ARCHITECTURES
from appliance.monitor.status import StatusMemory
from tests.system.standin_box import network


@pytest.mark.parametrize("name", ["wg0", "a-b.c_d=e+f", "x" * 15])
def test_good_names(name: str) -> None:
    assert checked_name(name) == name


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../etc", "x" * 16, "a b", "a\n", "ä", "\0"])
def test_names_that_are_paths_or_no_interfaces(name: str) -> None:
    with pytest.raises(ValueError, match="cannot be a box's name"):
        checked_name(name)


def test_run_directory_may_be_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SEPTUM_RUN_DIR", str(tmp_path))
    assert run_base() == tmp_path


def test_a_private_directory_is_nobody_elses(tmp_path: Path) -> None:
    made = make_private(tmp_path / "a" / "b")
    assert made.stat().st_mode & 0o777 == 0o700
    made.chmod(0o777)
    assert make_private(made).stat().st_mode & 0o777 == 0o700
    (tmp_path / "link").symlink_to(made)
    with pytest.raises(PlaceError, match="belongs to somebody else"):
        make_private(tmp_path / "link")


def test_the_monitor_reads_what_the_domain_writes() -> None:
    memory = StatusMemory()
    assert not memory.report().is_page
    domain = StatusPage(memoryview(mmap.mmap(memory.fd, SIZE)), ["one", "two"])
    domain.sealed(12345, 7, True)
    domain.beat()
    domain.accuse(3)
    domain.counter("two").add(7)
    assert memory.report() == (MAGIC, State.SEALED, 1, 0b1000)
    assert memory.report().is_page
    assert memory.counters(("one", "two")) == {"one": 0, "two": 7}
    memory.close()


def test_a_domain_cannot_take_the_page_away_from_under_the_monitor() -> None:
    memory = StatusMemory()
    for size in (0, 2 * SIZE):
        with pytest.raises(PermissionError):
            os.ftruncate(memory.fd, size)
    assert memory.report() == (0, 0, 0, 0)
    memory.close()


def test_last_words_do_nothing_to_a_terminal() -> None:
    assert printable(b"so \x1b[31mangry\x07\r\nand \xff more") == "so ?[31mangry??\nand ? more"


@pytest.mark.parametrize("mtu", [576, 1280, 1420, 1440, 8920, 65535])
def test_a_group_can_be_sent_in_one_call(mtu: int) -> None:
    size = largest_group(mtu)
    segments = -(-(size - 40) // (mtu - 40))
    assert 1 <= segments <= MOST_SEGMENTS
    assert size <= 65535
    # each segment becomes a datagram: 32 bytes of WireGuard, padded to 16
    assert segments == 1 or segments * (mtu + 32) <= 65507
    # and no larger group could be
    assert segments == MOST_SEGMENTS or (segments + 1) * (mtu + 32) > 65535 - 32 - 48


def test_routes_that_come_with_an_address_are_not_set_again() -> None:
    net: Network = network({"tunnel": "t", "addresses": ["10.9.0.1/24", "fd09::1/64"], "routes": ["10.9.0.0/24"]})
    expected = {"10.9.0.0/24": True, "10.9.0.7/32": True, "10.9.0.0/16": False, "10.8.0.0/24": False}
    expected |= {"0.0.0.0/0": False, "::/0": False, "fd09::/64": True, "fd09::5/128": True, "fd08::/64": False}
    for prefix, covered in expected.items():
        (route,) = network({"tunnel": "t", "routes": [prefix]}).routes
        assert _covered(route, net.addresses) is covered, prefix


def _decide(code: bytes, architecture: int, number: int) -> int:
    """Runs a classic BPF program of loads, equal and not-less jumps and returns."""
    data = struct.pack("<II", number, architecture)
    instructions = list(seccomp.instructions(code))
    at = accumulator = 0
    while True:
        operation, if_true, if_false, constant = instructions[at]
        at += 1
        if operation == seccomp.LOAD:
            (accumulator,) = struct.unpack_from("<I", data, constant)
        elif operation == seccomp.JUMP_EQUAL:
            at += if_true if accumulator == constant else if_false
        elif operation == seccomp.JUMP_NOT_LESS:
            at += if_true if accumulator >= constant else if_false
        else:
            assert operation == seccomp.RETURN
            return constant


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_monitors_filter_refuses_its_list_and_nothing_else(name: str) -> None:
    on = ARCHITECTURES[name]
    code = privileges.program(architecture=on)
    refused = {call for call, number in on.numbers.items() if _decide(code, on.audit, number) != seccomp.ALLOW}
    assert refused == set(privileges.REFUSED) & set(on.numbers)
    assert {"ptrace", "bpf", "init_module", "kexec_load", "perf_event_open"} <= refused
    assert not refused & {"clone", "unshare", "mount", "pivot_root", "setns", "seccomp", "execve", "keyctl", "umount2"}
    assert _decide(code, on.audit, on.number("ptrace")) == 0x50000 | errno.EPERM
    assert _decide(code, on.audit ^ 1, on.number("read")) == seccomp.KILL_PROCESS
    if name == "x86_64":
        assert _decide(code, on.audit, 1 << 30) == seccomp.KILL_PROCESS


def test_a_helper_reports_and_is_gone() -> None:
    pid = Helper(lambda: {"pid": os.getpid()}).result()["pid"]
    assert pid != os.getpid()
    with pytest.raises(HelperError, match="no such luck"):
        Helper(lambda: (_ for _ in ()).throw(ValueError("no such luck"))).result()
    with pytest.raises(HelperError, match="without a word"):
        Helper(lambda: os._exit(3)).result()
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


@pytest.mark.parametrize("abstract", [False, True])
def test_the_service_manager_is_told(abstract: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = f"@septum-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + path[1:] if abstract else path)
        manager.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        notify.notify("READY=1")
        assert manager.recv(100) == b"READY=1"
    notify.notify("READY=1")  # nobody listens any more: no error
    monkeypatch.delenv("NOTIFY_SOCKET")
    notify.notify("READY=1")


@pytest.mark.parametrize(
    ("environment", "interval"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "10000000"}, 5.0),
        ({"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_is_fed_twice_as_often_as_it_asks(
    environment: dict[str, str], interval: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert notify.watchdog_interval() == interval


def test_the_monitor_leaves_no_core_whatever_the_kernel_does_with_cores() -> None:
    code = """
import resource
from types import SimpleNamespace
from appliance.monitor.main import BuildError, run
from appliance.monitor.sandbox.kernel import PR_GET_DUMPABLE, prctl
try:
    run(SimpleNamespace(), name="../no box")
except BuildError:
    print(prctl(PR_GET_DUMPABLE), resource.getrlimit(resource.RLIMIT_CORE))
"""
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert said == "0 (0, 0)\n"


def test_log_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe2(os.O_NONBLOCK)
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    Logger("wg0", writer)(INFO, "one\ntwo")
    monkeypatch.setenv("JOURNAL_STREAM", "8:1")
    Logger("wg0", writer)(INFO, "one\ntwo")
    assert os.read(reader, 1000) == b"septum wg0: one\nseptum wg0: two\n<6>one\n<6>two\n"
    # neither a log that is full nor one that nobody reads stops the monitor
    for _ in range(1000):
        Logger("wg0", writer)(INFO, "x" * 1000)
    os.close(reader)
    Logger("wg0", writer)(INFO, "three")
    os.close(writer)


def test_the_log_is_opened_anew_and_does_not_wait(tmp_path: Path) -> None:
    code = """
import fcntl, os
from appliance.monitor.notify import open_log
fd = open_log()
print(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK != 0, fcntl.fcntl(2, fcntl.F_GETFL) & os.O_NONBLOCK != 0)
os.write(fd, b"by us")
"""
    with open(tmp_path / "log", "w+") as log, subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=log, text=True
    ) as child:  # fmt: skip
        assert child.communicate() == ("True False\n", None)
        assert (tmp_path / "log").read_text() == "by us"


def test_a_socket_for_a_log_is_used_as_it_is() -> None:
    ours, theirs = socket.socketpair()
    code = "import os; from appliance.monitor.notify import open_log; os.write(open_log(), b'by us')"
    with ours, theirs:
        subprocess.run([sys.executable, "-c", code], stderr=theirs, check=True)
        assert ours.recv(100) == b"by us"


def test_the_log_file_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "dup2", lambda *_: None)  # standard error is pytest's
    monkeypatch.setattr(LogFile, "MOST", 1000)
    path = tmp_path / "log"
    log = LogFile(path)
    with path.open("ab", buffering=0) as other:  # the log domain's
        other.write(b"a" * 999)
        log.trim()
        assert path.stat().st_size == 999
        other.write(b"b")
        log.trim()
        assert path.stat().st_size == 0
        other.write(b"more")
        assert path.read_bytes() == b"more"
        assert path.with_suffix(".1").read_bytes() == b"a" * 999 + b"b"
        other.write(b"x" * 5000 + b"y" * 1000)  # between two looks
        log.trim()
        assert path.with_suffix(".1").read_bytes() == b"y" * 1000
    assert path.stat().st_mode & 0o777 == 0o600
