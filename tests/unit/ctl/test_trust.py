"""Whom `septumctl` believes, and what it says if not: other boxes, clocks, forged histories, tokens, roles."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from appliance.ctl import contexts, identity, tokens
from appliance.signed import canonical
from appliance.signed.statements import NONE, Commit, Role, Signed, sign
from tests.unit.ctl import fakebox
from tests.unit.ctl.conftest import Ctl
from tests.unit.ctl.fakebox import Authority, FakeBox, Kept, key_pem, pb

# becoming an administrator --------------------------------------------------------------------------------------------


def test_enrolling(box: FakeBox, ctl: Ctl, ctl_of: Callable[[str], Ctl]) -> None:
    invitation = ctl.said("admins", "invite", "bob", "--role", "viewer", "--expires", "2h")
    bob = ctl_of("bob")
    told = bob.said("enroll", invitation["token"])
    assert (told["administrator"], told["role"], told["context"]) == ("bob", "viewer", "vpn")
    assert bob.said("whoami")["role"] == "viewer"
    context = bob.context
    assert context.box == box.box
    assert {file.stat().st_mode & 0o077 for file in context.folder.iterdir()} == {0}
    # No private key has travelled
    assert box.roster.find("bob").key.hex() not in (context.seed().hex(),)
    listed = {one["name"]: (one["role"], one["state"]) for one in ctl.said("admins", "list")["administrators"]}
    assert listed == {"console": ("security-officer", "administrator"), "bob": ("viewer", "administrator")}


def test_who_is_invited_believes_the_key_that_the_inviting_one_has_seen(
    box: FakeBox, ctl: Ctl, ctl_of: Callable[[str], Ctl]
) -> None:
    token = ctl.said("admins", "invite", "bob")["token"]
    assert tokens.read(token).key == ctl.context.seen()["public_key"] == box.keys.public_key
    bob = ctl_of("bob")
    bob("enroll", token)
    box.lies = {"public_key": fakebox.b64(b"M")}  # whoever holds admin, before bob has seen any key
    assert bob.refused("keys", "show", code=6)["reason"] == "KEYS_CHANGED"
    box.lies = {}
    assert bob.said("keys", "show")["public_key"] == box.keys.public_key
    again = tokens.write(tokens.read(token)._replace(key=""))
    assert tokens.read(again).key == "" and tokens.read(again).name == "bob"


def test_a_token_is_good_once(ctl: Ctl, ctl_of: Callable[[str], Ctl]) -> None:
    token = ctl.said("admins", "invite", "bob")["token"]
    ctl_of("bob")("enroll", token)
    again = ctl_of("eve")
    assert "not invited" in again.refused("enroll", token, code=4)["error"]
    assert again.refused("status", code=1)["reason"] == "CONTEXT"


def test_a_token_that_was_withdrawn(ctl: Ctl, ctl_of: Callable[[str], Ctl]) -> None:
    token = ctl.said("admins", "invite", "bob")["token"]
    ctl("admins", "revoke", "bob", "--yes")
    ctl_of("bob")("enroll", token, code=4)


def test_a_token_of_another_box(box: FakeBox, ctl: Ctl, ctl_of: Callable[[str], Ctl], tmp_path: Path) -> None:
    token = ctl.said("admins", "invite", "bob")["token"]
    (tmp_path / "second").mkdir()
    other = FakeBox(tmp_path / "second")
    try:
        error = ctl_of("bob").refused("enroll", token, "--address", other.address, code=6)
        assert error["reason"] == "WRONG_BOX"
        assert other.statements == []
    finally:
        other.close()


def test_damaged_tokens(ctl: Ctl, ctl_of: Callable[[str], Ctl]) -> None:
    token = ctl.said("admins", "invite", "bob")["token"]
    for bad in (
        "hello",
        token[:-1],
        token[:40] + ("B" if token[40] == "A" else "A") + token[41:],
        token + "AA",
        "septum-",
    ):
        assert "token" in ctl_of("bob")("enroll", bad, code=2).err
    # Broken by a mail program, it is whole
    ctl_of("bob")("enroll", "-", stdin=f"{token[:50]}\n  {token[50:]}\n")


def test_tokens_are_read_as_they_were_written() -> None:
    token = tokens.Token("ab" * 32, "cd" * 32, b"s" * 32, "bob", "vpn", "[2001:db8::1]:50051", fakebox.b64(b"k"))
    assert tokens.read(tokens.write(token)) == token


def test_revoked(box: FakeBox, ctl: Ctl, invited: Callable[..., Ctl]) -> None:
    bob = invited("bob", "operator")
    bob("status")
    ctl("admins", "revoke", "bob", "--yes")
    assert bob.refused("status", code=4)["reason"] == "UNAUTHENTICATED"
    assert ctl.refused("admins", "revoke", "bob", "--yes", code=1)["reason"] == "UNKNOWN"
    assert ctl.refused("admins", "revoke", "console", "--yes", code=4)["reason"] == "NOT_PERMITTED"


def test_roles(ctl: Ctl, invited: Callable[..., Ctl]) -> None:
    viewer, operator = invited("vera", "viewer"), invited("otto", "operator")
    viewer("peers", "list")
    viewer("peers", "add", "alice")
    assert viewer.refused("config", "commit", code=4)["reason"] == "NOT_PERMITTED"
    assert "operator" in viewer.refused("domains", "restart", "filter", "--yes", code=4)["error"]
    operator("peers", "add", "alice", "--commit")
    operator("domains", "restart", "filter", "--yes")
    assert operator.refused("admins", "invite", "eve", code=4)["reason"] == "NOT_PERMITTED"


def test_certificates_are_renewed(box: FakeBox, ctl_of: Callable[[str], Ctl]) -> None:
    ctl = ctl_of("console")
    began = datetime.now(UTC) - timedelta(days=25)
    box.console(ctl.home, begin=began)
    before = identity.validity(ctl.context.chain_pem).end
    key = ctl.context.tls_key_pem
    ctl("status")
    after = identity.validity(ctl.context.chain_pem).end
    assert after - before > 20 * 86_400
    assert ctl.context.tls_key_pem != key
    ctl("status")
    assert identity.validity(ctl.context.chain_pem).end == after


# what is in the way ---------------------------------------------------------------------------------------------------


def test_a_box_that_is_down(box: FakeBox, ctl: Ctl) -> None:
    box.relay.close()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        free = taken.getsockname()[1]
    ctl("contexts", "address", f"127.0.0.1:{free}")
    error = ctl.refused("status", code=3)
    assert error["reason"] == "REFUSED"
    assert "septum ps" in error["then"]


def test_a_name_that_is_not_known(ctl: Ctl) -> None:
    ctl("contexts", "address", "no-such-host.invalid")
    assert ctl.refused("status", code=3)["reason"] == "NAME"


def test_what_does_not_speak_tls(ctl: Ctl) -> None:
    import threading

    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            for _ in range(8):
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
                connection.close()

        threading.Thread(target=answer, daemon=True).start()
        ctl("contexts", "address", f"127.0.0.1:{listener.getsockname()[1]}")
        assert ctl.refused("--timeout", "3", "status", code=3)["reason"] in ("PROTOCOL", "HUNG_UP")


def test_old_tls(box: FakeBox, ctl: Ctl, ctl_of: Callable[[str], Ctl]) -> None:
    import ssl

    token = ctl.said("admins", "invite", "bob")["token"]

    old = box.server_context()
    old.minimum_version = ssl.TLSVersion.TLSv1_2
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    box.relay._context = old
    assert ctl_of("bob").refused("enroll", token, code=3)["reason"] == "TLS_VERSION"


def test_another_box_at_the_same_address(box: FakeBox, ctl: Ctl, tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    other = FakeBox(tmp_path / "second")
    try:
        box.relay._context = other.server_context()
        error = ctl.refused("--timeout", "3", "status", code=6)
        assert error["reason"] == "WRONG_BOX"
        assert other.box in error["error"]
        assert box.box in error["error"]
    finally:
        other.close()


def test_an_administrator_is_no_box(box: FakeBox, ctl: Ctl) -> None:
    """Their certificate is from the same authority, and not for this."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.UniformResourceIdentifier("septum:administrator:" + "00" * 32)
    forged = box.authority.issue("eve", key.public_key(), ExtendedKeyUsageOID.CLIENT_AUTH, [name])
    box.relay._context = box.server_context(forged, key)
    assert ctl.refused("--timeout", "3", "status", code=6)["reason"] == "WRONG_CERTIFICATE"


@pytest.mark.parametrize(("begin", "life"), [(timedelta(days=2), 30), (timedelta(days=-40), 30)])
def test_the_boxs_clock_is_off(box: FakeBox, ctl: Ctl, begin: timedelta, life: int) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.DNSName(contexts.SERVER_NAME)
    made = box.authority.issue(
        "box",
        key.public_key(),
        ExtendedKeyUsageOID.SERVER_AUTH,
        [name],
        datetime.now(UTC) + begin,
        timedelta(days=life),
    )
    box.relay._context = box.server_context(made, key)
    error = ctl.refused("--timeout", "3", "status", code=6)
    assert error["reason"] == "CLOCK"
    assert "timedatectl" in error["then"]


def test_our_own_certificate(box: FakeBox, ctl_of: Callable[[str], Ctl]) -> None:
    for name, begin, reason in (("late", timedelta(days=-31), "EXPIRED"), ("early", timedelta(days=2), "CLOCK")):
        ctl = ctl_of(name)
        box.console(ctl.home, begin=datetime.now(UTC) + begin)
        assert ctl.refused("status", code=4)["reason"] == reason


def test_a_certificate_of_another_box(box: FakeBox, ctl: Ctl) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    chain = Authority("other").for_administrator("console", b"k" * 32, key.public_key())
    ctl.context.certify(chain, key_pem(key))
    assert ctl.refused("--timeout", "3", "status", code=4)["reason"] == "CERTIFICATE"


def test_a_box_that_does_not_answer(box: FakeBox, ctl: Ctl) -> None:
    box.delay = 3.0
    begin = time.monotonic()
    error = ctl.refused("--timeout", "0.5", "status", code=3)
    assert (error["reason"], error["then"]) == ("DEADLINE_EXCEEDED", "more time: septumctl --timeout 60 …")
    assert time.monotonic() - begin < 3


def test_clocks_that_differ(box: FakeBox, ctl: Ctl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeBox, "now", property(lambda box: identity.now_ms() + 3_600_000))
    assert "box's clock is 60 min ahead" in ctl("status").err


# forged histories -----------------------------------------------------------------------------------------------------


@pytest.fixture
def two(box: FakeBox, ctl: Ctl) -> FakeBox:
    """A box with two revisions, which its console has seen."""
    for name in ("alice", "bob"):
        ctl("peers", "add", name, "--commit")
    ctl("config", "show")
    return box


def forged(box: FakeBox, seed: bytes, **other: Any) -> Signed:
    """The newest commit, changed and signed by somebody."""
    return sign(box.commits[-1].commit._replace(**other), seed)


def replace(box: FakeBox, at: int, signed: Signed, **other: Any) -> None:
    kept = box.commits[at]
    box.commits[at] = Kept(kept.commit._replace(**other), signed, kept.fate, kept.fate_at)


def refuses(ctl: Ctl, why: str, *words: str) -> None:
    error = ctl.refused(*(words or ("config", "show")), code=6)
    assert error["reason"] == "NOT_BELIEVED"
    assert why in error["error"]


def test_a_commit_that_nobody_signed(two: FakeBox, ctl: Ctl) -> None:
    replace(two, -1, forged(two, b"e" * 32, comment="evil"))
    refuses(ctl, "is not signed by whom it says")


def test_a_signature_of_another_statement(two: FakeBox, ctl: Ctl) -> None:
    replace(two, -1, Signed(two.commits[-1].signed.statement, two.commits[0].signed.signature))
    refuses(ctl, "is not signed")


def test_a_history_that_got_shorter(two: FakeBox, ctl: Ctl) -> None:
    del two.commits[-1]
    refuses(ctl, "once it showed 2")


def test_another_history(two: FakeBox, ctl: Ctl) -> None:
    """Even one that was signed: the console itself cannot have two second revisions."""
    replace(two, -1, forged(two, two.console_seed, comment="other"))
    refuses(ctl, "another history than before")


def test_a_history_with_a_gap(two: FakeBox, ctl: Ctl) -> None:
    replace(two, 0, sign(two.commits[0].commit._replace(comment="other"), two.console_seed))
    refuses(ctl, "follows another one", "config", "history")


def test_a_rollback_that_nobody_asked_for(two: FakeBox, ctl: Ctl) -> None:
    two.commits[-1] = two.commits[-1]._replace(fate=pb.FATE_ROLLED_BACK)
    refuses(ctl, "did not ask to be confirmed")


def test_sections_that_nobody_signed(two: FakeBox, ctl: Ctl, ctl_of: Callable[[str], Ctl]) -> None:
    other = ctl_of("elsewhere")
    two.console(other.home)
    digest = two.commits[-1].commit.peers.hex()
    two.contents[digest] = two.contents[digest].replace(b"10.0.0.2", b"10.0.0.7")
    refuses(other, "are not those that console signed", "peers", "list")


def test_a_roster_that_got_shorter(box: FakeBox, ctl: Ctl, invited: Callable[..., Ctl]) -> None:
    invited("bob", "operator")
    ctl("admins", "revoke", "bob", "--yes")
    ctl("admins", "list")
    statements, box.statements = box.statements, []
    box.roster = type(box.roster)(box.roster_trust)
    for one in statements[:-1]:
        box.roster.take(one, None)
        box.statements.append(one)
    refuses(ctl, "a roster of 2 statements; once it had 3", "admins", "list")


def test_a_roster_that_nobody_signed(box: FakeBox, ctl: Ctl, invited: Callable[..., Ctl]) -> None:
    invited("bob", "operator")
    fresh = ctl.context.folder / "roster.json"
    fresh.unlink(missing_ok=True)
    box.statements[0] = Signed(box.statements[0].statement.replace(b'"operator"', b'"security-officer"'), b"x" * 64)
    refuses(ctl, "roster that it shows is false", "admins", "list")


def test_a_peer_that_nobody_signed_is_pointed_out(two: FakeBox, ctl: Ctl, monkeypatch: pytest.MonkeyPatch) -> None:
    from appliance.signed.peers import PeerEntry

    shown = two.peers()
    monkeypatch.setattr(two, "peers", lambda: (*shown, PeerEntry(9, "eve", b"e" * 32, ("10.0.0.66/32",))))
    said = ctl("peers", "list")
    assert "nobody signed: eve" in said.err
    assert "10.0.0.66" not in said.out


def test_a_box_cannot_write_on_the_terminal(box: FakeBox, ctl: Ctl) -> None:
    box.status.domains[0].last_death = "\x1b]0;owned\x07\x1b[31mred"
    box.log.append(pb.LogLine(number=1, at=box.now, severity=3, domain="x\x1b[2J", event="e\rvil", text="\x9b1m"))
    for words in (("status",), ("domains",), ("logs",)):
        assert not set("\x1b\x07\r\x9b") & set(ctl(*words).out)


def test_a_commit_says_what_it_was_made_of(two: FakeBox, ctl: Ctl) -> None:
    first, second = (one.commit for one in two.commits)
    assert (first.follows, first.revision, second.revision) == (NONE, 1, 2)
    assert second.follows == canonical.digest(two.commits[0].signed.statement)
    assert isinstance(second, Commit)
    assert Role.OPERATOR < Role.SECURITY_OFFICER


def test_a_commit_of_an_older_roster_is_no_history(box: FakeBox, ctl: Ctl, invited: Callable[..., Ctl]) -> None:
    """As of an operator who was revoked since, and a box that shows what no domain of it would take."""
    bob = invited("bob", "operator")
    bob("peers", "add", "alice", "-C")
    ctl("admins", "revoke", "bob", "--yes")
    ctl("peers", "add", "carl", "-C")
    last = box.commits[-1]
    forged_ = last.commit._replace(
        revision=3,
        follows=canonical.digest(last.signed.statement),
        roster=last.commit.roster - 1,
        by="bob",
        comment="evil",
    )
    signed = sign(forged_, bob.context.seed())
    box.commits.append(Kept(forged_, signed, pb.FATE_STANDS, 0))
    refuses(ctl, "an older roster")


def test_rules_that_are_not_what_the_filter_runs(box: FakeBox, ctl: Ctl, rules: Path) -> None:
    """An operator's own tool signed two different things; septumctl of the others says so."""
    ctl("rules", "set", str(rules), "-C")
    assert ctl("rules", "show").err == ""
    last = box.commits[-1].commit
    other = b"allow from tunnel\n"
    box.contents[canonical.digest(other).hex()] = other
    forged_ = last._replace(revision=2, follows=box.digest, rules=canonical.digest(other))
    box.commits.append(Kept(forged_, sign(forged_, box.console_seed), pb.FATE_STANDS, 0))
    said = ctl("rules", "show")
    assert "are not what the filter goes by" in said.err
    assert "allow from tunnel" in said.out


def test_rules_are_no_orders_to_a_terminal(box: FakeBox, ctl: Ctl) -> None:
    assert (
        "cannot be printed" in ctl("rules", "set", "-", "-C", code=7, stdin="allow from red # \x1b]0;owned\x07\n").err
    )
    assert box.commits == []


def test_a_certificate_of_no_use_is_not_taken(box: FakeBox, ctl: Ctl, monkeypatch: pytest.MonkeyPatch) -> None:
    before = ctl.context.chain_pem
    issue = box.authority.for_administrator
    for bent in (
        lambda name, key, public, **other: "garbage",
        lambda name, key, public, **other: issue(name, b"e" * 32, public),
        lambda name, key, public, **other: issue(name, key, ec.generate_private_key(ec.SECP256R1()).public_key()),
        lambda name, key, public, **other: issue(name, key, public, life=timedelta(days=1)),
        lambda name, key, public, **other: Authority("other").for_administrator(name, key, public),
    ):
        monkeypatch.setattr(box.authority, "for_administrator", bent)
        assert ctl.refused("renew", code=6)["reason"] == "CERTIFICATE"
        assert ctl.context.chain_pem == before
    ctl("status")


def test_addresses_that_the_box_makes_up(box: FakeBox, ctl: Ctl) -> None:
    ctl("peers", "add", "alice", "-C")
    box.status.addresses[:] = ["8.8.8.8/30"]
    assert ctl.refused("peers", "add", "bob", "-C", code=6)["reason"] == "ADDRESSES_CHANGED"
    ctl("peers", "add", "bob", "-i", "10.0.0.9/32", "-C")
    box.status.addresses[:] = ["nowhere"]
    assert ctl.refused("peers", "add", "carl", "-C", code=6)["reason"] == "NOT_BELIEVED"


def test_a_box_that_was_made_anew_has_other_keys(box: FakeBox, ctl: Ctl) -> None:
    from nacl.public import PrivateKey

    ctl("keys")
    box.private_key = PrivateKey.generate()
    box.keys.public_key = fakebox.text_of(box.private_key)
    assert ctl.refused("keys", code=6)["reason"] == "KEYS_CHANGED"
    assert ctl.said("keys", "accept")["public_key"] == box.keys.public_key
    ctl("keys")


def test_pages_without_an_end(ctl: Ctl) -> None:
    from types import SimpleNamespace
    from typing import cast

    from appliance.ctl.connection import Box
    from appliance.ctl.trouble import Trouble

    page = pb.ListPeersReply(peers=[pb.Peer(number=1)], next_page_token="1", total=1)
    liar = SimpleNamespace(ask=lambda *_: page, peers=SimpleNamespace(ListPeers=None), context=ctl.context)
    with pytest.raises(Trouble, match="without an end"):
        Box.everybody(cast(Box, liar))
