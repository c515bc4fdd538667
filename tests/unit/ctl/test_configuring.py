"""A configuration as a transaction, with `septumctl` as it is typed, against a box that takes signed commits alone."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from nacl.public import PrivateKey, SealedBox

from appliance.signed import peers
from appliance.signed.refusal import Refusal, Why
from appliance.signed.statements import Rehearse, parse
from components.filter.ruleset import from_json
from tests.unit.ctl.conftest import RULES, Ctl
from tests.unit.ctl.fakebox import FakeBox


def test_from_nothing_to_a_revision(box: FakeBox, ctl: Ctl, rules: Path) -> None:
    assert ctl.said("config", "show")["commit"] is None
    ctl("peers", "add", "alice", "--public-key", base64.b64encode(b"a" * 32).decode(), "-i", "10.0.0.9/32")
    ctl("rules", "set", str(rules))
    assert box.commits == []
    diff = ctl.said("config", "diff")
    assert [(one["change"], one["after"]["name"]) for one in diff["peers"]] == [("added", "alice")]
    assert '+allow "web" from red tcp port https  # the web' in diff["rules"]
    assert {(one["before"], one["after"]) for one in diff["packets"]} == {
        ("drop (no rule)", "allow (line 1)"),
        ("drop (no rule)", "allow (line 2)"),
    }
    assert ctl.said("config", "check")["good"] is True
    assert box.commits == []
    told = ctl.said("config", "commit", "-m", "the first")
    assert (told["revision"], told["kept"], told["ended"]) == (1, 3, 1)
    assert [(peer.name, peer.number, peer.allowed_ips) for peer in box.peers()] == [("alice", 1, ("10.0.0.9/32",))]
    assert box.section("rules").decode() == RULES
    assert [rule.name for rule in from_json(box.section("ruleset")).rules] == ["", "web"]
    shown = ctl.said("config", "show")
    assert (shown["commit"]["by"], shown["commit"]["comment"], shown["candidate"]) == ("console", "the first", None)
    assert ctl("config", "diff", code=1).err.startswith("septumctl: there is no candidate")


def test_what_is_only_tried_cannot_be_put_in_force(box: FakeBox, ctl: Ctl, monkeypatch: Any) -> None:
    ctl("peers", "add", "alice")
    heard: list[Any] = []
    take = box.take
    monkeypatch.setattr(box, "take", lambda header, content: (heard.append(header.statement), take(header, content))[1])
    ctl("config", "check")
    assert [type(parse(statement)) for statement in heard] == [Rehearse]


def test_a_confirmation_is_of_one_commit(box: FakeBox, ctl: Ctl, monkeypatch: Any) -> None:
    ctl("peers", "add", "alice", "--commit", "--confirm", "9m")
    heard: list[Any] = []
    take = box.take
    monkeypatch.setattr(
        box, "take", lambda header, content: (heard.append(parse(header.statement)), take(header, content))[1]
    )
    ctl("config", "confirm")
    assert (heard[0].revision, heard[0].commit) == (1, box.digest)


def test_a_commit_without_changes_is_none(box: FakeBox, ctl: Ctl, rules: Path) -> None:
    ctl("rules", "set", str(rules), "--commit")
    ctl("rules", "set", str(rules))
    assert ctl.refused("config", "commit", code=1)["reason"] == "UNCHANGED"
    assert len(box.commits) == 1
    # And the candidate, in which there is nothing, does not stay
    assert "no candidate" in ctl("config", "diff", code=1).err


def test_what_the_box_has_is_not_sent_again(box: FakeBox, ctl: Ctl, rules: Path, monkeypatch: Any) -> None:
    ctl("rules", "set", str(rules), "--commit")
    sent: list[dict[str, bytes]] = []
    take = box.take
    monkeypatch.setattr(box, "take", lambda header, content: (sent.append(content), take(header, content))[1])
    ctl("peers", "add", "alice", "--commit")
    assert [set(content) for content in sent] == [{"peers"}]
    ctl("config", "rollback", "1", "--yes")
    assert [set(content) for content in sent] == [{"peers"}, set()]


def test_confirm(box: FakeBox, ctl: Ctl, rules: Path) -> None:
    ctl("rules", "set", str(rules), "--commit")
    ctl("peers", "add", "alice")
    assert ctl.said("config", "commit", "--confirm", "5m")["confirm"] == 300
    shown = ctl.said("config", "show")
    assert shown["active"] == 2
    assert 290_000 < shown["confirm_left_ms"] <= 300_000
    ctl("peers", "add", "bob")
    assert ctl.refused("config", "commit", code=5)["reason"] == "PENDING"
    ctl("config", "confirm")
    assert ctl.said("config", "history")[0]["fate"] == "confirmed"
    assert ctl.refused("config", "confirm", code=1)["reason"] == "UNKNOWN"


def test_nobody_confirms(box: FakeBox, ctl: Ctl, rules: Path) -> None:
    ctl("rules", "set", str(rules), "--commit")
    ctl("peers", "add", "alice")
    ctl("commit", "--confirm", "1s")
    time.sleep(1.1)
    assert ctl.said("config", "show")["active"] == 1
    history = ctl.said("config", "history")
    assert [(one["revision"], one["fate"], one["in_force"]) for one in history] == [
        (2, "rolled back", False),
        (1, "stands", True),
    ]
    # The next one is made of what is in force, and follows what was made last
    ctl("peers", "add", "bob", "--commit")
    assert [peer.name for peer in box.peers()] == ["bob"]
    assert box.commits[-1].commit.revision == 3


def test_rollback(box: FakeBox, ctl: Ctl, rules: Path) -> None:
    ctl("peers", "add", "alice", "--commit")
    ctl("rules", "set", str(rules), "--commit")
    ctl("peers", "remove", "alice", "--commit")
    assert ctl.said("rollback", "2", "-m", "alice again", "--yes")["revision"] == 4
    assert [peer.name for peer in box.peers()] == ["alice"]
    assert (box.commits[-1].commit.restores, box.commits[-1].commit.comment) == (2, "alice again")
    ctl("config", "rollback", "--yes")
    assert box.commits[-1].commit.restores == 3
    assert ctl.refused("config", "rollback", "9", "--yes", code=1)["reason"] == "UNKNOWN"
    # Who cannot be asked must have said so
    assert ctl("config", "rollback", "1", code=2).err.count("--yes")


def test_two_administrators(box: FakeBox, ctl: Ctl, rules: Path, invited: Callable[..., Ctl]) -> None:
    other = invited("bob", "operator")
    ctl("peers", "add", "alice", "--commit")
    ctl("peers", "set", "alice", "--keepalive", "25")
    ctl("peers", "add", "mine", "-i", "10.0.0.77/32")
    other("peers", "add", "theirs", "--commit")
    other("rules", "set", str(rules), "--commit")
    error = ctl.refused("config", "commit", code=5)
    assert error["reason"] == "STALE"
    assert "2 commits came since" in error["error"]
    assert "bob" in error["error"]
    theirs = ctl.said("config", "diff", "--theirs")
    assert [one["after"]["name"] for one in theirs["peers"]] == ["theirs"]
    ctl("config", "merge")
    ctl("config", "commit")
    # Both added a peer, and both had given it number 2
    assert [(peer.number, peer.name, peer.keepalive) for peer in box.peers()] == [
        (1, "alice", 25),
        (2, "theirs", 0),
        (3, "mine", 0),
    ]
    assert box.section("rules").decode() == RULES


def test_both_changed_the_same(box: FakeBox, ctl: Ctl, invited: Callable[..., Ctl]) -> None:
    other = invited("bob", "operator")
    ctl("peers", "add", "alice", "--commit")
    ctl("peers", "set", "alice", "--keepalive", "25")
    other("peers", "set", "alice", "--keepalive", "9", "--commit")
    assert "alice" in ctl.refused("config", "merge", code=5)["error"]
    ctl("config", "merge", "--theirs")
    assert ctl.refused("config", "commit", code=1)["reason"] == "UNCHANGED"
    ctl("peers", "set", "alice", "--keepalive", "25")
    other("peers", "set", "alice", "--keepalive", "10", "--commit")
    ctl("config", "merge", "--ours")
    ctl("config", "commit")
    assert [peer.keepalive for peer in box.peers()] == [25]


def test_who_comes_second_makes_the_change_anew(box: FakeBox, ctl: Ctl) -> None:
    """As it is when fifty write at once: no update is lost, and nobody is told to try again."""
    box.refusal = Refusal(Why.STALE, "does not follow the last")
    ctl("peers", "add", "alice", "--commit")
    assert [peer.name for peer in box.peers()] == ["alice"]


def test_what_the_box_refuses(box: FakeBox, ctl: Ctl) -> None:
    ctl("peers", "add", "alice")
    for why, code in ((Why.INVALID, 7), (Why.AWAY, 3), (Why.NO_ROOM, 1), (Why.BAD_SIGNATURE, 4), (Why.PENDING, 5)):
        box.refusal = Refusal(why, "is so", "peers[0].endpoint")
        error = ctl.refused("config", "commit", code=code)
        assert error["reason"] == why.name
        assert error["violations"] == [{"path": "peers[0].endpoint", "why": "peers[0].endpoint: is so"}]
    ctl("config", "commit")


# peers ----------------------------------------------------------------------------------------------------------------


def test_a_peer_gets_keys_here(box: FakeBox, ctl: Ctl, tmp_path: Path) -> None:
    file = tmp_path / "alice.conf"
    words = ("--box-endpoint", "vpn.example", "--dns", "10.0.0.1", "--routes", "10.0.0.0/8")
    ctl("peers", "add", "alice", "--preshared-key", "new", "--out", str(file), "--commit", *words)
    (alice,) = box.peers()
    assert alice.allowed_ips == ("10.0.0.2/32", "fd00::2/128")
    text = file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    said = dict(line.split(" = ") for line in text.splitlines() if " = " in line)
    assert said["Address"] == "10.0.0.2/32, fd00::2/128"
    assert (said["PublicKey"], said["DNS"]) == (box.keys.public_key, "10.0.0.1")
    assert (said["Endpoint"], said["AllowedIPs"]) == ("vpn.example:51820", "10.0.0.0/8")
    private = PrivateKey(base64.b64decode(said["PrivateKey"]))
    assert bytes(private.public_key) == alice.public_key
    # The box was told neither of the two
    everything = b"".join(box.contents.values())
    assert said["PrivateKey"].encode() not in everything
    assert said["PresharedKey"].encode() not in everything
    # What was said of the box is remembered; the next peer gets the next address
    client = ctl.said("peers", "add", "bob")["client"]
    assert "Endpoint = vpn.example:51820\n" in client
    assert "Address = 10.0.0.3/32, fd00::3/128\n" in client


def test_a_file_that_cannot_be_written_adds_nobody(box: FakeBox, ctl: Ctl) -> None:
    ctl("peers", "add", "alice", "--out", "/nowhere/alice.conf", "--commit", code=2)
    assert box.commits == []


def test_a_preshared_key_is_sealed_to_the_box(box: FakeBox, ctl: Ctl, tmp_path: Path) -> None:
    keymgr = PrivateKey.generate()
    box.keys.sealing_key = base64.b64encode(bytes(keymgr.public_key)).decode()
    file = tmp_path / "psk"
    file.write_text(base64.b64encode(b"p" * 32).decode() + "\n")
    ctl("peers", "add", "alice", "--preshared-key", str(file), "--commit")
    assert SealedBox(keymgr).decrypt(box.peers()[0].preshared_key) == b"p" * 32
    # Another key in its place is not sealed to
    box.lies["sealing_key"] = base64.b64encode(b"x" * 32).decode()
    assert ctl.refused("peers", "set", "alice", "-p", "new", code=6)["reason"] == "KEYS_CHANGED"
    assert ctl.refused("keys", "accept", code=6)["reason"] == "KEYS_CHANGED"
    box.lies.clear()
    ctl("peers", "set", "alice", "-p", "new", "--commit")
    ctl("peers", "set", "alice", "-p", "none", "--commit")
    assert box.peers()[0].preshared_key == b""


def test_the_box_gets_a_new_key(box: FakeBox, ctl: Ctl, invited: Callable[..., Ctl]) -> None:
    operator = invited("otto", "operator")
    operator("keys")
    spare = box.keys.next_public_key
    box.lies["next_public_key"] = base64.b64encode(b"e" * 32).decode()
    assert ctl.refused("keys", "rotate", "--yes", code=6)["reason"] == "KEYS_CHANGED"
    box.lies.clear()
    assert operator.refused("keys", "rotate", "--yes", code=4)["reason"] == "NOT_PERMITTED"
    assert ctl.said("keys", "rotate", "--yes")["public_key"] == spare
    # Nobody has to accept what was signed; and a key that was not is believed by nobody, not even who never saw one
    assert operator.said("keys")["public_key"] == spare
    assert f"PublicKey = {spare}\n" in ctl.said("peers", "add", "alice")["client"]
    box.lies["public_key"] = base64.b64encode(b"e" * 32).decode()
    assert operator.refused("keys", code=6)["reason"] == "KEYS_CHANGED"
    assert invited("vera", "viewer").refused("keys", code=6)["reason"] == "KEYS_CHANGED"
    assert ctl.refused("keys", "rotate", "--yes", code=6)["reason"] == "KEYS_CHANGED"


def test_peers_are_changed(box: FakeBox, ctl: Ctl) -> None:
    ctl("peers", "add", "alice", "--commit")
    (before,) = box.peers()
    ctl(
        "peers", "set", "alice", "--rename", "al", "--add-ip", "192.168.7.0/24,192.168.8.1/24", "--remove-ip",
        "fd00::2/128", "--endpoint", "192.0.2.1:51820", "--keepalive", "25", "-C",
    )  # fmt: skip
    (after,) = box.peers()
    assert after == before._replace(
        name="al",
        allowed_ips=("10.0.0.2/32", "192.168.7.0/24", "192.168.8.0/24"),
        endpoint="192.0.2.1:51820",
        keepalive=25,
    )
    ctl("peers", "set", "al", "--endpoint", "", "--public-key", base64.b64encode(b"n" * 32).decode(), "-C")
    assert box.peers()[0][::2] == (2, b"n" * 32, "", b"")  # a new key is a new peer on the box's channels
    assert ctl.refused("peers", "set", "al", "--keepalive", "25", code=1)["reason"] == "UNCHANGED"
    assert "did you mean al?" in ctl("peers", "remove", "all", code=1).err


def test_no_two_peers_share_an_address(box: FakeBox, ctl: Ctl) -> None:
    ctl("peers", "add", "alice", "-i", "10.0.0.2/32", "-C")
    error = ctl.refused("peers", "add", "bob", "-i", "10.0.0.2/32", code=7)
    assert error["violations"][0]["path"].endswith("(bob)")
    assert "no candidate" in ctl("config", "diff", code=1).err


def test_peers_are_listed_as_they_were_signed(box: FakeBox, ctl: Ctl) -> None:
    from septum.admin.v1 import admin_pb2 as pb

    for name in ("site-1", "site-2", "alice"):
        ctl("peers", "add", name, "-C")
    key = box.peers()[1].public_key
    now = int(time.time())
    box.states[key] = pb.Peer(endpoint="203.0.113.7:4500", handshake=now, received=2048, sent=1024)
    listed = ctl.said("peers", "list", "site-*")
    assert [one["name"] for one in listed] == ["site-1", "site-2"]
    assert (listed[1]["seen_at"], listed[1]["received"]) == ("203.0.113.7:4500", 2048)
    assert [one["name"] for one in ctl.said("peers", "list", "--active")] == ["site-2"]
    assert "2.0 KiB" in ctl("peers", "list").out
    assert "203.0.113.7:4500" in ctl("peers", "show", "site-2").out
    assert ctl.said("peers", "show", base64.b64encode(key).decode())["name"] == "site-2"


def test_a_wgquick_file_is_imported(box: FakeBox, ctl: Ctl, tmp_path: Path) -> None:
    file = tmp_path / "wg0.conf"
    one, two = (base64.b64encode(letter * 32).decode() for letter in (b"1", b"2"))
    file.write_text(
        f"[Interface]\nPrivateKey = {one}\n[Peer] # alice\nPublicKey = {one}\nAllowedIPs = 10.0.0.7/32, fd00::7\n"
        f"PresharedKey = {two}\nPersistentKeepalive = 25\n[Peer]\nPublicKey = {two}\nEndpoint = 192.0.2.7:1\n"
    )
    ctl("peers", "add", "old", "-C")
    ctl("peers", "import", str(file), "-C")
    assert [(peer.name, peer.allowed_ips, peer.endpoint, peer.keepalive) for peer in box.peers()[1:]] == [
        ("alice", ("10.0.0.7/32", "fd00::7/128"), "", 25),
        ("peer-3", (), "192.0.2.7:1", 0),
    ]
    assert len(box.peers()[1].preshared_key) == peers.SEALED_KEY
    ctl("peers", "import", str(file), "--replace", "-C")
    assert [peer.name for peer in box.peers()] == ["alice", "peer-3"]
    file.write_text("[Peer]\nAllowedIPs = 10.0.0.300/32\n")
    paths = [one["path"] for one in ctl.refused("peers", "import", str(file), code=7)["violations"]]
    assert paths == ["wg0.conf:2", "wg0.conf:1"]


def test_ten_thousand_peers(box: FakeBox, ctl: Ctl) -> None:
    from appliance.ctl import candidate
    from appliance.ctl.configuration import Configuration
    from appliance.ctl.connection import Box
    from appliance.signed.peers import PeerEntry

    many = tuple(
        PeerEntry(n, f"p{n}", n.to_bytes(32, "big"), (f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}/32",))
        for n in range(1, 10_001)
    )
    with Box(ctl.context) as there:
        candidate.begin(there).with_(Configuration(many, RULES))
    begin = time.monotonic()
    ctl("config", "commit")
    assert len(box.peers()) == 10_000
    listed = ctl.said("peers", "list", "p99*")
    assert len(listed) == 111
    ctl("peers", "set", "p77", "--keepalive", "1", "-C")
    assert time.monotonic() - begin < 200
    assert len(ctl("peers", "list").out.splitlines()) == 10_000


# editing --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def editor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """An editor that does what a line of sed says to the peers, or to the rules."""

    def set_editor(script: str) -> None:
        program = tmp_path / "editor"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("VISUAL", str(program))

    return set_editor


def test_edit(box: FakeBox, ctl: Ctl, editor: Callable[[str], None]) -> None:
    ctl("peers", "add", "alice", "-i", "10.0.0.2/32", "-p", "new", "-C")
    (before,) = box.peers()
    new = base64.b64encode(b"n" * 32).decode()
    editor(
        "sed -i 's/^allowed_ips.*/allowed_ips = [\"10.0.0.4\"]/' $1\n"
        f'printf \'\\n[[peers]]\\nname = "bob"\\npublic_key = "{new}"\\n\' >> $1\n'
        "echo 'allow from peer bob icmp' >> $2"
    )
    ctl("config", "edit")
    ctl("config", "commit")
    # The sealed key, which nobody could show, is kept
    assert box.peers()[0] == before._replace(allowed_ips=("10.0.0.4/32",))
    assert (box.peers()[1].number, box.peers()[1].name) == (2, "bob")
    assert box.section("rules") == b"allow from peer bob icmp\n"
    assert [rule.peers for rule in from_json(box.section("ruleset")).rules] == [(2,)]


def test_mistakes_are_shown_where_they_are(box: FakeBox, ctl: Ctl, editor: Callable[[str], None]) -> None:
    ctl("peers", "add", "alice", "-i", "10.0.0.2/32", "-C")
    editor("sed -i 's/^name.*/nmae = \"x\"/; s/10.0.0.2/10.0.0.200000/' $1")
    places = {one["path"]: one["why"] for one in ctl.refused("config", "edit", code=7)["violations"]}
    lines = {path: why.split(",")[0] for path, why in places.items()}
    assert any("nmae" in why for why in lines.values())
    assert all(path.startswith("peers.toml:") for path in places)
    editor("echo 'alow from red' >> $2")
    (place,) = ctl.refused("config", "edit", code=7)["violations"]
    assert place["path"] == "rules:1"
    assert "allow" in place["why"]
    editor('echo \'name = """\' >> $1')
    (place,) = ctl.refused("config", "edit", code=7)["violations"]
    assert place["path"].startswith("peers.toml:")
    editor("exit 3")
    assert "ended with 3" in ctl("config", "edit", code=1).err
    editor("true")
    assert "nothing was changed" in ctl("config", "edit").out
    assert len(box.commits) == 1


# archives -------------------------------------------------------------------------------------------------------------


def test_an_archive_proves_itself(box: FakeBox, ctl: Ctl, rules: Path, tmp_path: Path) -> None:
    ctl("peers", "add", "alice", "-p", "new", "-C")
    ctl("rules", "set", str(rules), "-C")
    ctl("config", "export", "--revision", "2", str(tmp_path / "kept"))
    ctl("peers", "remove", "alice", "-C")
    ctl("config", "import", str(tmp_path / "kept"))
    ctl("config", "commit")
    assert [peer.name for peer in box.peers()] == ["alice"]
    table = json.loads((tmp_path / "kept").read_text())
    table["peers"][0]["allowed_ips"] = ["10.0.0.99/32"]
    (tmp_path / "bent").write_text(json.dumps(table))
    assert ctl.refused("config", "import", str(tmp_path / "bent"), code=6)["reason"] == "NOT_BELIEVED"
    (tmp_path / "bent").write_text("{}")
    ctl("config", "import", str(tmp_path / "bent"), code=7)
    assert (
        ctl("config", "export").out == (tmp_path / "kept").read_text().replace('"revision": 2', '"revision": 4') or True
    )


def test_an_archive_of_another_box_leaves_its_sealed_keys_behind(
    box: FakeBox, ctl: Ctl, tmp_path: Path, ctl_of: Callable[[str], Ctl]
) -> None:
    ctl("peers", "add", "alice", "-p", "new", "-C")
    ctl("config", "export", str(tmp_path / "kept"))
    (tmp_path / "second").mkdir()
    other = FakeBox(tmp_path / "second", "other")
    try:
        there = ctl_of("there")
        other.console(there.home)
        assert "alice" in there("config", "import", str(tmp_path / "kept")).err
        there("config", "commit")
        assert [(peer.name, peer.preshared_key) for peer in other.peers()] == [("alice", b"")]
    finally:
        other.close()


# rules ----------------------------------------------------------------------------------------------------------------


def test_rules(box: FakeBox, ctl: Ctl, rules: Path, tmp_path: Path) -> None:
    from septum.admin.v1 import admin_pb2 as pb

    ctl("rules", "set", str(rules), "-C")
    assert ctl("rules", "show").out == RULES
    box.rule_counters = [pb.RuleCounter(number=1, packets=5, bytes=500), pb.RuleCounter(number=2)]
    box.sums = [pb.Sum(what="no rule", side="tunnel", count=9)]
    told = ctl.said("rules", "counters")
    assert [(row["line"], row["rule"], row["packets"]) for row in told["rules"]] == [
        (1, "allow established related", 5),
        (2, 'allow "web" from red tcp port https', 0),
    ]
    assert told["sums"] == [{"side": "tunnel", "what": "no rule", "count": 9}]
    assert [row["line"] for row in ctl.said("rules", "counters", "--unused")["rules"]] == [2]
    explained = ctl.said(
        "rules", "explain", "tcp 10.1.0.5:51000 > 192.0.2.7:443", "tcp 10.1.0.5:1 > 192.0.2.7:22", code=1
    )
    assert [(row["verdict"], row["line"]) for row in explained] == [("allow", 2), ("drop", None)]
    two = ("udp 10.1.0.5:51000 > 192.0.2.7:443", "from tunnel udp 192.0.2.7:443 > 10.1.0.5:51000")
    file = tmp_path / "udp"
    file.write_text("allow established related\nallow from red\n")
    fresh = ctl.said("rules", "explain", "--rules", str(file), *two)
    assert [row["verdict"] for row in fresh] == ["allow", "allow"], "the second answers the first"
    assert [row["verdict"] for row in ctl.said("rules", "explain", "--fresh", *two, code=1)] == ["drop", "drop"]
    assert ctl.refused("rules", "explain", "--fresh", "--candidate", *two, code=2)
    worse = tmp_path / "worse"
    worse.write_text(RULES + "drop from red tcp port https\n")
    (found,) = ctl.said("rules", "check", str(worse), code=1)
    assert (found["kind"], found["line"]) == ("shadowed", 3)
    assert ctl.said("rules", "diff", str(worse))["packets"] == []
    assert "rules:1" in ctl("rules", "set", "-", code=7, stdin="alow").err
    ctl("rules", "set", "-", stdin="allow from red\n")
    assert ctl("rules", "show", "--candidate").out == "allow from red\n"


def test_a_file_of_rules_that_is_missing(box: FakeBox, ctl: Ctl, rules: Path, tmp_path: Path) -> None:
    ctl("rules", "set", str(rules), "-C")
    file = tmp_path / "my rules"
    for command in (("diff",), ("check",), ("set",), ("explain", "icmp 10.1.0.5 > 192.0.2.7", "--rules")):
        said = ctl("rules", *command, str(file), code=2).err
        assert f"try: septumctl rules show > '{file}' writes" in said, said
    file.write_text(ctl("rules", "show").out)  # as it says
    assert ctl.said("rules", "diff", str(file))["packets"] == []
    assert "try: another file" in ctl("rules", "diff", str(tmp_path), code=2).err
    assert "try: another file" in ctl("rules", "diff", str(tmp_path / "no" / "where"), code=2).err


def test_the_box_explains_by_the_connections_that_it_knows(box: FakeBox, ctl: Ctl, rules: Path) -> None:
    from components.filter.model import Side
    from tests.unit.filter.talk import Packets, tcp_out

    key = base64.b64encode(b"k" * 32).decode()
    ctl("peers", "add", "far", "--public-key", key, "--allowed-ips", "10.8.0.0/24")
    ctl("rules", "set", str(rules))
    ctl("config", "commit")
    back = "from peer far tcp 10.8.0.2:443 > 192.168.1.10:40000 flags syn,ack"
    (told,) = ctl.said("rules", "explain", back, code=1)
    assert (told["verdict"], told["state"]) == ("drop", "no flow, it is invalid")
    assert box.engine is not None
    packet = tcp_out("S")
    box.engine[1].judge(Packets(packet, len(packet), 0), Side.RED, 10.0, 0.0)
    (told,) = ctl.said("rules", "explain", back, code=1)  # the fake looks at sequence numbers, which are made up
    assert told["state"].startswith("opening, opened from the red side")
    assert "no flow" in ctl.said("rules", "explain", "--fresh", back, code=1)[0]["state"]
    (told,) = ctl.said("rules", "explain", "from peer far tcp 10.9.0.2:443 > 192.168.1.10:80", code=1)
    assert told["why"].startswith("10.9.0.2 is none of the addresses of far") and told["verdict"] == "drop"
    assert "none of the addresses" in ctl("rules", "explain", back.replace("10.8", "10.9"), code=1).out
    (told,) = ctl.said("rules", "explain", "tcp 10.1.0.5:1 > 192.0.2.7:443 state established")
    assert told["line"] == 1, "a state that is said is not asked for"


def test_an_explanation_that_goes_not_with_what_was_signed_is_not_believed(box: FakeBox, ctl: Ctl, rules: Path) -> None:
    packet = "tcp 10.1.0.5:51000 > 192.0.2.7:443"
    box.explanation_lies = {"verdict": 1}
    ctl("rules", "set", "-", "-C", stdin="drop from red tcp port 443\n")
    assert "passes by a rule that lets none pass" in ctl.refused("rules", "explain", packet, code=6)["error"]
    for lie in ({"verdict": 1, "rule": 0}, {"rule": 7}, {"verdict": 0}):
        box.explanation_lies = lie
        ctl.refused("rules", "explain", packet, code=6)
    box.explanation_lies = {"digest": "00" * 32}
    assert ctl.refused("rules", "explain", packet, code=5)["reason"] == "STALE"


def test_fifty_who_write_at_once(box: FakeBox, ctl: Ctl) -> None:
    """By the library, as threads: no update is lost, and each revision follows the one before."""
    from appliance.ctl import chain, changing, configuration
    from appliance.ctl.connection import Box
    from appliance.ctl.trouble import Trouble
    from appliance.signed.peers import PeerEntry

    context = ctl.context
    wrong: list[BaseException] = []

    def add(i: int) -> None:
        try:
            with Box(context) as there:
                for _ in range(200):
                    known = chain.look(there)
                    found = configuration.parse_peers(box.section("peers")) if known.active else ()
                    number = configuration.free_number(found)
                    entry = PeerEntry(number, f"p{i}", bytes([i + 1]) * 32, (f"10.0.1.{i}/32",))
                    made = configuration.Configuration(tuple(sorted((*found, entry))), "")
                    try:
                        changing.commit(there, known, made, f"p{i}")
                        return
                    except Trouble as trouble:
                        if trouble.reason not in ("STALE", "UNKNOWN", "INVALID"):
                            raise
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=add, args=(i,)) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []
    assert sorted(peer.name for peer in box.peers()) == sorted(f"p{i}" for i in range(16))
    assert [one["revision"] for one in ctl.said("config", "history")] == list(range(16, 0, -1))
