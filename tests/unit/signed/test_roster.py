"""Who may sign what, and what becomes of those who may not."""

from __future__ import annotations

from typing import Any

import pytest
from septum.v1 import configuring

from appliance.signed import canonical
from appliance.signed.refusal import Refusal, Why
from appliance.signed.roster import Roster, Trust
from appliance.signed.statements import (
    KINDS,
    NONE,
    Commit,
    Confirm,
    Rehearse,
    Role,
    Signed,
    Statement,
    check_signature,
    encode,
    parse,
    public_key,
    sign,
)
from tests.unit.signed.box import BOX, HOUR, NOW, TRUST, Chain, seed


def refusal(chain: Chain, signed: Signed, now: int | None = NOW) -> Refusal:
    before = (chain.roster.serial, chain.roster.digest, list(chain.roster.administrators))
    with pytest.raises(Refusal) as refused:
        chain.roster.take(signed, now)
    assert before == (chain.roster.serial, chain.roster.digest, list(chain.roster.administrators))
    return refused.value


def test_the_kinds_of_refusal_are_the_schemas() -> None:
    assert {why.name: why.value for why in Why} == {
        name: value
        for name, value in vars(configuring).items()
        if name.isupper() and isinstance(value, int) and name in Why.__members__
    }
    assert len(Why) == 10


def test_a_box_begins_with_its_console_alone() -> None:
    roster = Roster(TRUST)
    assert [(one.name, one.role) for one in roster.administrators] == [("console", Role.SECURITY_OFFICER)]
    assert (roster.serial, roster.digest) == (0, NONE)


def test_who_is_invited_enrolls_and_then_signs() -> None:
    chain = Chain()
    chain.add("alice", Role.OPERATOR)
    assert chain.roster.serial == 2
    alice = chain.roster.find("alice")
    assert alice is not None and alice.role is Role.OPERATOR and alice.key == public_key(seed("alice"))
    commit = chain.commit("alice", b"peers")
    assert chain.roster.vouch(commit, parse(commit.statement)) == alice  # type: ignore[arg-type]
    assert chain.roster.holder(public_key(seed("alice"))) == alice


def test_replaying_gives_the_same_roster() -> None:
    chain = Chain()
    chain.add("alice", Role.SECURITY_OFFICER)
    chain.take(chain.invite("bob", Role.VIEWER, by="alice"))
    chain.take(chain.revoke("alice"))
    again = Roster(TRUST)
    for signed in chain.statements:
        again.take(signed, None)
    assert (again.serial, again.digest) == (chain.roster.serial, chain.roster.digest)
    assert again.administrators == chain.roster.administrators
    assert again.invitations == chain.roster.invitations


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("kind", ["invite", "revoke", "commit", "confirm"])
def test_each_kind_takes_its_role(kind: str, role: Role) -> None:
    chain = Chain()
    chain.add("eve", role)
    chain.add("victim", Role.VIEWER)
    needed = {"invite": 3, "revoke": 3, "commit": 2, "confirm": 2}[kind]
    confirm = sign(Confirm(BOX, 1, NONE, chain.roster.serial, NOW, "eve"), seed("eve"))

    def attempt() -> None:
        match kind:
            case "invite":
                chain.roster.take(chain.invite("friend", Role.SECURITY_OFFICER, by="eve"), NOW)
            case "revoke":
                chain.roster.take(chain.revoke("victim", by="eve"), NOW)
            case "commit":
                commit = chain.commit("eve", b"")
                chain.roster.vouch(commit, parse(commit.statement))  # type: ignore[arg-type]
            case _:
                chain.roster.vouch(confirm, parse(confirm.statement))  # type: ignore[arg-type]

    if role >= needed:
        attempt()
    else:
        with pytest.raises(Refusal) as refused:
            attempt()
        assert refused.value.why is Why.NOT_PERMITTED


def test_a_token_is_good_once() -> None:
    chain = Chain()
    chain.add("alice", Role.OPERATOR)
    again = chain.enroll("alice", key=public_key(seed("mallory")))
    assert refusal(chain, again).why is Why.BAD_SIGNATURE


def test_a_token_is_good_for_its_name_and_its_box_alone() -> None:
    chain = Chain()
    chain.take(chain.invite("alice", Role.VIEWER))
    chain.take(chain.invite("root", Role.SECURITY_OFFICER))
    assert refusal(chain, chain.enroll("root", token="token alice")).why is Why.BAD_SIGNATURE
    assert refusal(chain, chain.enroll("alice", box=canonical.digest(b"another"))).path == "box"


def test_who_carries_an_enrolment_cannot_put_a_key_of_their_own_in_it() -> None:
    chain = Chain()
    chain.take(chain.invite("alice", Role.OPERATOR))
    good = chain.enroll("alice")
    forged = Signed(
        good.statement.replace(public_key(seed("alice")).hex().encode(), public_key(seed("mallory")).hex().encode()),
        good.signature,
    )
    assert forged != good
    assert refusal(chain, forged).why is Why.BAD_SIGNATURE
    chain.take(good)


def test_an_invitation_expires_by_either_clock() -> None:
    chain = Chain()
    chain.take(chain.invite("alice", Role.OPERATOR))
    assert refusal(chain, chain.enroll("alice"), now=NOW + HOUR + 1).why is Why.NOT_PERMITTED
    assert refusal(chain, chain.enroll("alice", at=NOW + HOUR + 1), now=None).why is Why.NOT_PERMITTED
    chain.take(chain.enroll("alice"))


@pytest.mark.parametrize(
    ("other", "path"),
    [
        ({"expires": NOW}, "expires"),
        ({"expires": NOW + 8 * 24 * HOUR}, "expires"),
        ({"serial": 7}, "follows"),
        ({"follows": canonical.digest(b"?")}, "follows"),
        ({"box": canonical.digest(b"another")}, "box"),
        ({"name": "console"}, "name"),
        ({"key": public_key(seed("console"))}, "key"),
    ],
)
def test_an_invitation_must_make_sense(other: dict[str, Any], path: str) -> None:
    chain = Chain()
    given = {"name": "alice", "role": Role.VIEWER}
    assert refusal(chain, chain.invite(**{**given, **other})).path == path


def test_who_is_revoked_signs_nothing_more_but_what_they_signed_stands() -> None:
    chain = Chain()
    chain.add("alice", Role.SECURITY_OFFICER)
    before = chain.commit("alice", b"")
    chain.take(chain.revoke("alice"))
    chain.roster.vouch(before, parse(before.statement))  # type: ignore[arg-type]
    after = chain.commit("alice", b"")
    with pytest.raises(Refusal) as refused:
        chain.roster.vouch(after, parse(after.statement))  # type: ignore[arg-type]
    assert refused.value.why is Why.BAD_SIGNATURE
    assert refusal(chain, chain.invite("friend", Role.VIEWER, by="alice")).why is Why.BAD_SIGNATURE
    assert chain.roster.holder(public_key(seed("alice"))) is None


def test_the_console_stays_and_strangers_are_not_revoked() -> None:
    chain = Chain()
    assert refusal(chain, chain.revoke("console")).why is Why.NOT_PERMITTED
    assert refusal(chain, chain.revoke("nobody")).why is Why.UNKNOWN


def test_a_revoked_name_may_be_invited_again_with_a_new_key() -> None:
    chain = Chain()
    chain.add("alice", Role.VIEWER)
    chain.take(chain.revoke("alice"))
    chain.take(chain.invite("alice", Role.OPERATOR))
    assert refusal(chain, chain.enroll("alice")).path == "key"
    chain.take(chain.enroll("alice", key=public_key(seed("alice's new one"))))
    alice = chain.roster.find("alice")
    assert alice is not None and alice.role is Role.OPERATOR


def test_a_withdrawn_invitation_is_worth_nothing() -> None:
    chain = Chain()
    chain.take(chain.invite("alice", Role.VIEWER))
    chain.take(chain.revoke("alice"))
    assert refusal(chain, chain.enroll("alice")).why is Why.BAD_SIGNATURE


def test_the_roster_has_its_bounds() -> None:
    chain = Chain()
    for number in range(63):
        chain.take(chain.invite(f"a{number}", Role.VIEWER))
    assert refusal(chain, chain.invite("more", Role.VIEWER)).why is Why.NO_ROOM


def test_another_boxs_console_is_nobody_here() -> None:
    chain = Chain()
    chain.roster = Roster(Trust(BOX, public_key(seed("another console"))))
    assert refusal(chain, chain.invite("alice", Role.VIEWER)).why is Why.BAD_SIGNATURE


def test_what_was_signed_for_something_else_is_no_statement() -> None:
    """A signature counts with its context alone."""
    from nacl.bindings import crypto_sign, crypto_sign_seed_keypair

    text = encode(Confirm(BOX, 1, NONE, 0, NOW, "console"))
    raw = crypto_sign(text, crypto_sign_seed_keypair(seed("console"))[1])[:64]
    with pytest.raises(Refusal):
        check_signature(Signed(text, raw), TRUST.console)
    check_signature(sign(Confirm(BOX, 1, NONE, 0, NOW, "console"), seed("console")), TRUST.console)


def samples() -> list[Statement]:
    chain = Chain()
    chain.take(chain.invite("alice", Role.VIEWER))
    others = [chain.enroll("alice"), chain.revoke("alice"), chain.rekey(seed("the box")), chain.commit("console", b"")]
    signed = [*chain.statements, *others]
    found = [parse(one.statement) for one in signed]
    rehearsed = [Rehearse(*one) for one in found if isinstance(one, Commit)]
    return [*found, *rehearsed, Confirm(BOX, 1, NONE, 0, NOW, "console")]


@pytest.mark.parametrize("statement", samples(), ids=lambda one: type(one).__name__)
def test_a_statement_is_exactly_its_fields(statement: Statement) -> None:
    text = encode(statement)
    assert parse(text) == statement
    table = canonical.decode(text, 4096)
    for field in table:
        without = {name: value for name, value in table.items() if name != field}
        with pytest.raises(Refusal):
            parse(canonical.encode(without))
        for wrong in ("", "x" * 65, -1, 2**53 - 1, True, [], {}, "A", "00" * 31, "AA" * 32, "a\n"):
            if field == "comment" and wrong in ("", "A", "x" * 65, "00" * 31, "AA" * 32):
                continue
            if wrong == 2**53 - 1 and field in ("at", "expires", "serial", "revision", "roster", "restores"):
                continue
            with pytest.raises(Refusal):
                parse(canonical.encode({**table, field: wrong}))
    with pytest.raises(Refusal):
        parse(canonical.encode({**table, "more": 1}))


def test_all_kinds_were_looked_at() -> None:
    assert {type(one) for one in samples()} == set(KINDS.values())
