"""A managed box, with the test in admin's place: what was signed is in force, all of it or nothing, whoever dies; and
what was not signed never is, whatever admin says.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from septum.v1.configuring import (
    COMMITS,
    PEERS,
    ROSTER,
    RULES,
    RULESET,
    AskHead,
    AskOutcome,
    AskSection,
    AskStatement,
    BeginSections,
    ConfiguringRequest,
    SectionChunk,
    Submit,
)
from septum.v1.counting import AskRuleHits, CountingRequest
from septum.v1.peers import AskPeers, PeersRequest

from appliance.monitor.control import ControlError, request
from appliance.rules.read import from_text
from appliance.signed import canonical
from appliance.signed.peers import PeerEntry, encode
from appliance.signed.refusal import Why
from appliance.signed.statements import Commit, Confirm, Rehearse, Role, Signed, parse, sign
from components.filter import ruleset
from tests.system.envoy import AWAY, LARGEST, codecs
from tests.system.lab.ends.septum import secret_file
from tests.unit.signed.box import BOX, TRUST, Chain, seed

pytestmark = pytest.mark.root

REPOSITORY = Path(__file__).resolve().parents[2]
CHUNK = 61440
PATIENCE = 60.0
CODECS = {"c": codecs("configuring"), "k": codecs("peers"), "f": codecs("counting")}
CUTS = int(os.environ.get("SEPTUM_POWER_CUTS", "8"))  # of the whole box: each costs its start
KILLS = 20


class Nobody(Exception):
    """There was no answer."""


class Configuration:
    """Peers and rules that can be told apart by a number, in every domain."""

    def __init__(self, number: int, size: int = 0) -> None:
        self.number = number
        peers = [
            PeerEntry(n + 1, f"peer-{n}", number.to_bytes(4) + n.to_bytes(28), (f"10.9.{n >> 8}.{n & 255}/32",))
            for n in range(1 + number % 3 + size)
        ]
        self.peers = encode(peers)
        self.count = len(peers)
        self.rules = f"allow from red tcp to port {1 + number % 60000}\n".encode()
        self.ruleset = canonical.encode(ruleset.encode(from_text(self.rules.decode(), "x.rules").ruleset))

    @property
    def sections(self) -> dict[int, bytes]:
        return {PEERS: self.peers, RULESET: self.ruleset, RULES: self.rules}


class Box:
    """A managed box that the test speaks to as admin would."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.chain = Chain()
        self.name = "managed"
        key = base64.b64encode(bytes([64, *range(30), 64])).decode()
        self.conf = secret_file(
            directory / "managed.conf", f"[Interface]\nPrivateKey = {key}\nAddress = 10.9.0.1/16\nTable = off\n"
        )
        self.process: subprocess.Popen[bytes] | None = None
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(str(directory / "line"))
        self.listener.listen()
        self.lock = threading.Lock()
        self.serial = 0
        self.line: socket.socket | None = None

    # the box ----------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        trust = json.dumps({"box": TRUST.box.hex(), "console": TRUST.console.hex()})
        command = [sys.executable, "-m", "tests.system.envoy_box", str(self.conf), self.name, trust]
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                ["unshare", "--net", *command, str(self.directory / "line")], cwd=REPOSITORY, stdout=log, stderr=log
            )
        self.listener.settimeout(PATIENCE)
        self.line, _ = self.listener.accept()
        self.line.settimeout(5.0)

    def status(self) -> dict[str, dict[str, Any]]:
        with contextlib.suppress(ControlError, OSError):
            return {domain["name"]: domain for domain in request(self.name, "status")["domains"]}
        return {}

    def pid(self, domain: str) -> int:
        return int(self.status().get(domain, {}).get("pid") or 0)

    def kill(self, domain: str) -> None:
        pid = self.pid(domain)
        if pid:
            os.kill(pid, signal.SIGKILL)

    def cut_power(self, monitor_alone: bool = False) -> None:
        """SIGKILL to all of it at once, or to the monitor, with which its domains die; the files are left."""
        assert self.process is not None
        pids = [self.process.pid, *(row["pid"] for row in self.status().values() if row.get("pid"))]
        for pid in pids[:1] if monitor_alone else pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(10)
        for pid in pids[1:]:
            self.wait("all to be dead", lambda pid=pid: not Path(f"/proc/{pid}").exists() or _is_zombie(pid))
        if self.line is not None:
            self.line.close()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(20)

    def log(self) -> str:
        return (self.directory / "log").read_text(errors="replace")

    def wait(self, what: str, holds: Callable[[], Any], patience: float = PATIENCE) -> Any:
        until = time.monotonic() + patience
        while not (value := holds()):
            if time.monotonic() > until:
                pytest.fail(f"{what}: not within {patience:g} s; the box says:\n{self.log()[-4000:]}")
            time.sleep(0.02)
        return value

    # what admin says --------------------------------------------------------------------------------------------------

    def say(self, whom: str, message: Any) -> Any:
        """One question. Errors: Nobody."""
        assert self.line is not None
        there, back = CODECS[whom]
        with self.lock:
            self.serial += 1
            serial, answer = self.serial.to_bytes(4), b""
            try:
                self.line.send(whom.encode() + serial + b"".join(there.encode(message)))
                while answer[:4] != serial:  # one that came too late for an earlier question
                    answer = self.line.recv(LARGEST)
                    if not answer:
                        raise Nobody
            except OSError:
                raise Nobody from None
        if answer[4:] == AWAY:
            raise Nobody
        reply = back.decode(answer[4:])
        return getattr(reply, str(reply.WhichOneof("answer")))

    def ask(self, **what: Any) -> Any:
        return self.say("c", ConfiguringRequest(**what))

    def answer(self, **what: Any) -> Any:
        """The same, as soon as there is an answer of one who has read what is kept."""

        def found() -> Any:
            with contextlib.suppress(Nobody):
                answer = self.ask(**what)
                return answer if getattr(answer, "kind", None) != Why.AWAY else None

        return self.wait(f"an answer to {what}", found)

    def is_idle(self) -> bool:
        """Whether nothing that was submitted is being worked on."""
        with contextlib.suppress(Nobody):
            return not hasattr(self.ask(outcome=AskOutcome()), "of")
        return False

    def head(self) -> Any:
        return self.answer(head=AskHead())

    def bring(self, sections: dict[int, bytes]) -> None:
        sizes = {"peers": len(sections[PEERS]), "ruleset": len(sections[RULESET]), "rules": len(sections[RULES])}
        self.ask(begin=BeginSections(**sizes))
        for number, section in sections.items():
            for at in range(0, len(section), CHUNK):
                self.ask(chunk=SectionChunk(section=number, offset=at, data=section[at : at + CHUNK]))

    def submit(self, signed: Signed) -> Any:
        """What came of it. Errors: Nobody."""
        said = Submit(statement=signed.statement, signature=signed.signature)
        answer = self.ask(submit=said)
        while hasattr(answer, "of"):
            time.sleep(0.005)
            answer = self.ask(outcome=AskOutcome())
        return answer

    def signed(self, made: Configuration, by: str = "console", head: Any = None, **other: Any) -> Signed:
        head = head or self.head()
        given = {
            "box": BOX,
            "revision": head.revision + 1,
            "follows": head.digest,
            "roster": head.serial,
            "at": int(time.time() * 1000),
            "by": by,
            "comment": f"number {made.number}",
            "confirm": 0,
            "restores": 0,
            "peers": canonical.digest(made.peers),
            "ruleset": canonical.digest(made.ruleset),
            "rules": canonical.digest(made.rules),
        }
        return sign(Commit(**{**given, **other}), seed(by))

    def commit(self, made: Configuration, **other: Any) -> Any:
        """Errors: Nobody."""
        signed = self.signed(made, **other)
        self.bring(made.sections)
        return self.submit(signed)

    def put(self, made: Configuration, **other: Any) -> None:
        """The same; it is in force then."""

        def done() -> bool:
            with contextlib.suppress(Nobody):
                answer = self.commit(made, **other)
                if hasattr(answer, "number"):
                    return True
                assert answer.kind in (Why.AWAY, Why.PENDING), answer
            return False

        self.wait("a commit", done)
        self.goes_by(made)

    def enroll(self, name: str, role: Role) -> None:
        """Makes an administrator of ``name``."""
        self.head()  # config may be the last of all to come up
        now = int(time.time() * 1000)
        self.roster(self.chain.invite(name, role, at=now, expires=now + 600_000))
        self.roster(self.chain.enroll(name, at=now))

    def roster(self, signed: Signed) -> None:
        assert hasattr(self.submit(signed), "number")
        self.chain.take(signed, int(time.time() * 1000))

    def confirmation(self, revision: int, by: str = "console") -> Signed:
        kept = self.answer(statement=AskStatement(chain=COMMITS, number=revision))
        return sign(
            Confirm(BOX, revision, canonical.digest(kept.statement), self.head().serial, int(time.time() * 1000), by),
            seed(by),
        )

    # what is in force -------------------------------------------------------------------------------------------------

    def in_force(self) -> tuple[int, bytes, bytes] | None:
        """How many peers keymgr has, the key of the first, and by which rules the filter goes; None if one is away."""
        try:
            page = self.say("k", PeersRequest(peers=AskPeers()))
            hits = self.say("f", CountingRequest(hits=AskRuleHits()))
        except Nobody:
            return None
        return page.peers, page.page[0].public_key if page.page else b"", hits.digest

    def goes_by(self, made: Configuration) -> None:
        def holds() -> bool:
            return self.in_force() == (made.count, made.number.to_bytes(4) + bytes(28), canonical.digest(made.ruleset))

        self.wait(f"number {made.number} to be in force", holds)

    def goes_by_nothing(self) -> bool:
        return self.in_force() == (0, b"", bytes(32))

    def history(self) -> list[str]:
        """Comments, from the first; each statement is what it was, and follows the one before."""
        head, said, follows = self.head(), [], bytes(32)
        for revision in range(1, head.revision + 1):
            kept = self.answer(statement=AskStatement(chain=COMMITS, number=revision))
            table = json.loads(kept.statement)
            assert table["follows"] == follows.hex() and table["revision"] == revision
            follows = canonical.digest(kept.statement)
            said.append(table["comment"])
        assert follows == head.digest
        return said


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Box]:
    for variable in ("SEPTUM_RUN_DIR", "SEPTUM_STATE_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / variable.lower()))
    box = Box(tmp_path)
    box.start()
    try:
        yield box
    finally:
        box.stop()


def test_nothing_is_in_force_until_it_was_signed_and_then_all_of_it(box: Box) -> None:
    box.wait("all to be there", box.goes_by_nothing)
    first = Configuration(1)
    box.put(first)
    assert box.head().active == 1
    rehearsed = parse(box.signed(Configuration(2)).statement)
    assert isinstance(rehearsed, Commit)
    box.bring(Configuration(2).sections)
    assert box.submit(sign(Rehearse(*rehearsed), seed("console"))).number == 2
    box.goes_by(first)
    big = Configuration(7, size=3000)
    box.put(big)
    kept = box.ask(section=AskSection(revision=2, section=PEERS))
    assert kept.total == len(big.peers) and kept.data == big.peers[:CHUNK]
    assert box.commit(big).kind == Why.UNCHANGED
    for domain in ("filter", "keymgr", "config", "store"):
        box.kill(domain)
        box.goes_by(big)
    box.put(first, restores=1)
    assert box.history() == ["number 1", "number 7", "number 1"]


def test_a_hostile_admin_can_withhold_and_nothing_else(box: Box) -> None:
    chain = box.chain
    box.wait("all to be there", box.goes_by_nothing)
    box.enroll("alice", Role.OPERATOR)
    box.enroll("eve", Role.VIEWER)
    one, two, three = Configuration(11), Configuration(12), Configuration(13)
    old = box.signed(one, by="alice")
    box.put(one, by="alice")
    late = box.signed(three, by="alice")
    box.put(two, by="alice")

    def refused(signed: Signed, made: Configuration, *why: Why) -> None:
        box.bring(made.sections)
        answer = box.submit(signed)
        assert hasattr(answer, "kind") and Why(answer.kind) in why, answer
        box.goes_by(two)

    refused(old, one, Why.STALE)  # replayed
    refused(late, three, Why.STALE)  # kept back, and brought when something else is in force
    good = box.signed(three, by="alice")
    altered = good.statement.replace(b'"confirm":0', b'"confirm":1')
    refused(Signed(altered, good.signature), three, Why.BAD_SIGNATURE)
    refused(Signed(good.statement, bytes(64)), three, Why.BAD_SIGNATURE)
    refused(good, one, Why.INVALID)  # other sections than were signed
    refused(box.signed(three, by="eve"), three, Why.NOT_PERMITTED)
    refused(box.signed(three, by="mallory"), three, Why.BAD_SIGNATURE)
    refused(box.signed(three, by="alice", box=bytes(32)), three, Why.BAD_SIGNATURE)
    refused(box.signed(three, by="alice", revision=2), three, Why.STALE)
    refused(box.signed(three, by="alice", at=int(time.time() * 1000) - 3_700_000), three, Why.STALE)  # kept for long
    refused(chain.statements[0], three, Why.STALE)  # an invitation again
    refused(chain.statements[1], three, Why.STALE)  # a token used twice
    refused(box.confirmation(2, by="alice"), three, Why.UNKNOWN)
    refused(Signed(b'{"kind":"commit"}', bytes(64)), three, Why.MALFORMED)
    # what is signed is whatever it was: a domain that cannot do it refuses it for all of them
    bad = Configuration(14)
    bad.ruleset = b'{"no":"rules"}'
    refused(box.signed(bad, by="alice"), bad, Why.INVALID)
    # revoked: from now on, though it was signed before
    revoke = chain.revoke("alice", at=int(time.time() * 1000))
    box.roster(revoke)
    refused(good, three, Why.STALE)
    refused(box.signed(three, by="alice"), three, Why.BAD_SIGNATURE)
    kept = box.ask(statement=AskStatement(chain=ROSTER, number=5))
    assert kept.statement == revoke.statement
    # chunks that nobody announced, requests that make no sense
    assert box.ask(chunk=SectionChunk(section=PEERS, offset=5, data=b"x")).kind == Why.MALFORMED
    assert box.ask(statement=AskStatement(chain=COMMITS, number=99)).kind == Why.UNKNOWN
    assert box.ask(section=AskSection(revision=99, section=RULES)).kind == Why.UNKNOWN
    box.goes_by(two)
    assert not [row for row in box.status().values() if row["restarts"]]


@pytest.mark.parametrize("who", ["nobody", "config", "admin", "monitor", "box"])
def test_what_nobody_confirms_is_rolled_back(box: Box, who: str, report: list[tuple[str, str]]) -> None:
    old, new = Configuration(21), Configuration(22)
    box.put(old)
    is_down = who in ("monitor", "box")
    seconds = 25 if is_down else 6  # a busy machine takes its time to start a box
    box.put(new, confirm=seconds)
    began = time.monotonic()
    assert 0 < box.head().confirm_left_ms <= seconds * 1000
    if who in ("config", "admin"):
        box.kill(who)
        box.wait(f"{who} to be rebuilt", lambda: box.status().get(who, {}).get("restarts") == 1)
    elif is_down:
        box.cut_power(monitor_alone=who == "monitor")
        box.start()
    if box.head().confirm_left_ms > 3000:
        box.goes_by(new)
    box.goes_by(old)
    took = time.monotonic() - began
    head = box.head()
    assert (head.revision, head.active, head.confirm_left_ms) == (2, 1, 0)
    assert box.ask(statement=AskStatement(chain=COMMITS, number=2)).fate == 4
    report.append((f"rollback after {seconds} s, {who} died meanwhile", f"{took:.2f} s after the commit"))
    box.put(new, confirm=60)
    assert box.submit(box.confirmation(3)).number == 3
    assert box.head().confirm_left_ms == 0
    box.goes_by(new)


class Writer(threading.Thread):
    """Commits one configuration after the other, until it is told to stop or is not answered. ``tried`` are those that
    it said to the box; of the last one it may not know what became.
    """

    def __init__(self, box: Box, first: int) -> None:
        super().__init__()
        self.box = box
        self.first = first
        self.tried: list[Configuration] = []
        self.has_begun = threading.Event()
        self.is_enough = threading.Event()
        self.start()
        assert self.has_begun.wait(PATIENCE)

    def run(self) -> None:
        chance = random.Random(self.first)
        head = self.box.head()
        with contextlib.suppress(Nobody):
            for number in range(self.first, self.first + 100):
                made = Configuration(number, size=chance.choice([0, 0, 600]))
                signed = self.box.signed(made, head=head)
                self.tried.append(made)
                self.has_begun.set()
                self.box.bring(made.sections)
                if not hasattr(self.box.submit(signed), "number") or self.is_enough.is_set():
                    return
                head = self.box.ask(head=AskHead())

    def became(self, before: list[str], history: list[str]) -> Configuration | None:
        """The last that is in the history, having looked that it has what went before, and all but perhaps the last."""
        done = history[len(before) :]
        assert history[: len(before)] == before
        assert done == [f"number {made.number}" for made in self.tried][: len(done)]
        assert len(self.tried) - len(done) <= 1
        return self.tried[len(done) - 1] if done else None


@pytest.mark.timeout(300 + 3 * CUTS)  # the history that is read after each grows
def test_the_power_goes_at_random_moments_of_commits(box: Box, report: list[tuple[str, str]]) -> None:
    """The whole box is killed, again and again, while commits go on: always the old or the new, whole."""
    chance, last = random.Random(3), Configuration(1)
    box.put(last)
    history = box.history()
    for cut in range(CUTS):
        writer = Writer(box, 1000 * (cut + 1))
        time.sleep(chance.uniform(0, 0.3))
        box.cut_power()
        writer.join(PATIENCE)
        box.start()
        before, history = history, box.history()
        last = writer.became(before, history) or last
        box.goes_by(last)
    report.append((f"{CUTS} power cuts of the whole box", f"{len(history) - 1} commits in between, none in halves"))


def test_whoever_dies_at_random_moments_of_commits(box: Box, report: list[tuple[str, str]]) -> None:
    """config, store, keymgr and filter are killed while commits go on; the box goes on with what is in the book."""
    chance, last = random.Random(4), Configuration(1)
    box.put(last)
    history = box.history()
    for kill in range(KILLS):
        writer = Writer(box, 1000 * (kill + 1))
        time.sleep(chance.uniform(0, 0.1))
        box.kill(chance.choice(["config", "store", "keymgr", "filter"]))
        writer.is_enough.set()
        writer.join(PATIENCE)
        box.wait("what was begun to end", box.is_idle)
        before, history = history, box.history()
        last = writer.became(before, history) or last
        box.goes_by(last)
    what = f"{KILLS} kills of config, store, keymgr or filter"
    report.append((what, f"{len(history) - 1} commits in between, none in halves"))
