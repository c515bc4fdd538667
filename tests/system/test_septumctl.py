"""`septum init` and `septumctl` as people type them, on a whole managed box: from an invitation to a history."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from tests.system.lab import Lab, Managed, pair, wait_for
from tests.system.lab.ends.managed import CTL
from tests.system.lab.ends.septum import PROGRAM, secret_file
from tests.system.lab.namespace import run

pytestmark = pytest.mark.root

RULES = 'allow established related\nallow "web" from red tcp port https\n'


@pytest.fixture(scope="module")
def box() -> Iterator[Managed]:
    with Lab() as lab:
        own, _ = pair(lab.left, lab.right)
        yield lab.enter(Managed(lab.left, own))


def test_a_box_that_is_new(box: Managed) -> None:
    status = box.ctl("status")
    assert (status["name"], status["revision"], status["peers"]) == (box.name, 0, 0)
    assert {domain["state"] for domain in status["domains"]} == {"running"}
    assert (
        box.ctl("version")["box"]
        == json.loads((box.directory / "console/contexts" / box.name / "context.json").read_text())["box"]
    )


def test_an_operator_is_invited_and_enrolls(box: Managed) -> None:
    token = box.ctl("admins", "invite", "olga", "--role", "operator")["token"]
    told = box.ctl("enroll", token, who="olga")
    assert (told["administrator"], told["role"]) == ("olga", "operator")
    assert box.ctl("enroll", token, who="eve", code=4)["reason"] == "BAD_SIGNATURE"


def test_she_commits(box: Managed) -> None:
    added = box.ctl("peers", "add", "laptop", "--box-endpoint", "192.0.2.1", "--preshared-key", "new", who="olga")
    assert "PrivateKey = " in added["client"]
    rules = secret_file(box.directory / "office.rules", RULES)
    box.ctl("rules", "set", str(rules), who="olga")
    assert box.ctl("config", "check", who="olga")["good"]
    assert box.ctl("status")["revision"] == 0
    assert box.ctl("config", "commit", "-m", "the first", who="olga")["revision"] == 1
    (peer,) = box.ctl("peers", "list")
    assert (peer["name"], peer["has_preshared_key"]) == ("laptop", True)
    assert [row["rule"] for row in box.ctl("rules", "counters")["rules"]] == RULES.splitlines()


def test_what_nobody_confirms_is_taken_back(box: Managed) -> None:
    box.ctl("peers", "add", "stranger", "--public-key", "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=")
    box.ctl("config", "commit", "--confirm", "2s")
    assert [one["name"] for one in box.ctl("peers", "list")] in (["laptop", "stranger"], ["laptop"])
    wait_for("the rollback", lambda: box.ctl("config", "show")["active"] == 1, seconds=20, every=0.5)
    assert [one["name"] for one in box.ctl("peers", "list")] == ["laptop"]


def test_what_is_confirmed_stays(box: Managed) -> None:
    box.ctl("peers", "add", "other", "--public-key", "QkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkI=")
    box.ctl("peers", "set", "laptop", "--keepalive", "25", "--commit", "--confirm", "10min", who="olga")
    assert box.ctl("config", "rollback", "1", "--yes", code=5)["reason"] == "PENDING"
    box.ctl("config", "confirm", who="olga")
    assert box.ctl("status")["confirm_left_ms"] == 0
    assert box.ctl("peers", "show", "laptop")["keepalive"] == 25


def test_nobody_overwrites_anybody(box: Managed) -> None:
    """The console's candidate is of before; it is merged with what came since."""
    assert box.ctl("config", "commit", code=5)["reason"] == "STALE"
    box.ctl("config", "merge")
    box.ctl("config", "commit", "-m", "both")
    peers = box.ctl("peers", "list")
    assert [(one["name"], one["keepalive"]) for one in peers] == [("laptop", 25), ("other", 0)]


def test_back_to_the_first(box: Managed) -> None:
    box.ctl("config", "rollback", "1", "--yes")
    assert [(one["name"], one["keepalive"]) for one in box.ctl("peers", "list")] == [("laptop", 0)]


def test_the_history_is_whole(box: Managed) -> None:
    history = box.ctl("config", "history")
    assert [(one["revision"], one["by"], one["fate"]) for one in history] == [
        (5, "console", "stands"),
        (4, "console", "stands"),
        (3, "olga", "confirmed"),
        (2, "console", "rolled back"),
        (1, "olga", "stands"),
    ]
    kept = box.directory / "kept.json"
    box.ctl("config", "export", "--revision", "3", str(kept))
    assert box.ctl("config", "import", str(kept))["changes"] == 1
    box.ctl("config", "discard")


def test_domains_are_rebuilt_under_it(box: Managed) -> None:
    assert box.ctl("domains", "restart", "config", "--yes")["restarts"] >= 1
    began = time.monotonic()
    while box.ctl("status")["revision"] != 5:
        assert time.monotonic() < began + 20
    assert [one["name"] for one in box.ctl("peers", "list")] == ["laptop"]


def test_who_was_revoked_is_nobody(box: Managed) -> None:
    box.ctl("admins", "revoke", "olga", "--yes")
    assert box.ctl("status", who="olga", code=4)["reason"] in ("REVOKED", "UNAUTHENTICATED")
    names = [one["name"] for one in box.ctl("admins", "list")["administrators"]]
    assert names == ["console"]
    # What she signed while she might is still believed
    assert len(box.ctl("config", "history")) == 5


def test_the_log_has_it_all(box: Managed) -> None:
    words = ("logs", "-n", "1000", "--domain", "config")
    said = run(*box.command(CTL, *words), timeout=60)
    for what in ("revision 1 by olga", "nobody confirmed 2", "enroll olga", "revoke olga"):
        assert what in said, said


@pytest.mark.parametrize("who", ["admin", "monitor"])
def test_what_nobody_confirms_is_taken_back_whoever_is_not_there_for_it(box: Managed, who: str) -> None:
    """admin has no part in it. The monitor takes the box with it; whoever starts that again, as a service's manager
    does, finds the deadline where it was.
    """
    before = box.ctl("config", "show")["revision"]
    active = box.ctl("status")["revision"]
    box.ctl("peers", "add", f"by-{who}", "--public-key", "Q0NDQ0NDQ0NDQ0NDQ0NDQ0NDQ0NDQ0NDQ0NDQ0NDQ0M=")
    box.ctl("config", "commit", "--confirm", "20s")
    began = time.monotonic()
    if who == "admin":
        box.kill("admin")
    else:
        box.kill_monitor()
        run(*box.command(PROGRAM, "down", box.name), timeout=60)
        box.again()
    assert box.ctl("config", "show")["revision"] == before + 1
    wait_for("the rollback", lambda: box.ctl("status")["revision"] == active, seconds=60, every=0.5)
    assert time.monotonic() - began >= 18
    (last, *_) = box.ctl("config", "history")
    assert (last["revision"], last["fate"]) == (before + 1, "rolled back")
    assert [one["name"] for one in box.ctl("peers", "list")] == ["laptop"]
