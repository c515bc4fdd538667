"""Who may sign: the administrators of a box, from the console on, as the statements of the roster have it.

Whoever holds one has replayed the statements from the first, and looked at each signature: the console's key, which the
box was made with, is the only one that is believed without a statement. What someone signed while they might is worth
what it was: a commit names the serial of the roster that it was signed under.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from appliance.signed import canonical
from appliance.signed.refusal import Refusal, Why
from appliance.signed.statements import (
    NONE,
    PERMITTED,
    Commit,
    Confirm,
    Enroll,
    Invite,
    Rehearse,
    Rekey,
    Revoke,
    Role,
    RosterStatement,
    Signed,
    Statement,
    check_signature,
    parse,
)
from appliance.signed.trust import Trust

__all__ = ["CONSOLE", "Administrator", "Roster", "Trust"]

CONSOLE: Final = "console"
"""The administrator that every box begins with: its own root user. It cannot be revoked from elsewhere."""

MOST_ADMINISTRATORS: Final = 64
MOST_SERIALS: Final = 4096
LONGEST_INVITATION: Final = 7 * 86_400_000  # milliseconds


class Administrator(NamedTuple):
    """Who signs with ``key``, from serial ``since`` to ``until`` (exclusive; 0: still)."""

    name: str
    role: Role
    key: bytes
    since: int
    until: int = 0

    def is_on(self, serial: int) -> bool:
        """Whether they were an administrator in the roster of that serial."""
        return self.since <= serial and (not self.until or serial < self.until)


class Roster:
    """The administrators and open invitations after ``serial`` statements."""

    def __init__(self, trust: Trust) -> None:
        self.box = trust.box
        self.serial = 0
        self.digest = NONE
        self.invitations: dict[str, Invite] = {}
        self.key = b""
        """The box's public key in handshakes; empty as long as it is the one that it was made with."""
        self._all = [Administrator(CONSOLE, Role.SECURITY_OFFICER, trust.console, since=0)]

    @property
    def administrators(self) -> list[Administrator]:
        """Those of now, in the order in which they came."""
        return [one for one in self._all if not one.until]

    def find(self, name: str) -> Administrator | None:
        """The administrator of that name, now."""
        return self._find(name, self.serial)

    def holder(self, key: bytes) -> Administrator | None:
        """The administrator who signs with ``key``, now."""
        return next((one for one in self._all if not one.until and one.key == key), None)

    def _find(self, name: str, serial: int) -> Administrator | None:
        return next((one for one in self._all if one.name == name and one.is_on(serial)), None)

    # commits and confirmations ----------------------------------------------------------------------------------------

    def vouch(self, signed: Signed, statement: Commit | Rehearse | Confirm) -> Administrator:
        """Who signed ``statement``, which is ``signed`` parsed, as they were when they did. Errors: Refusal."""
        self._is_ours(statement)
        if statement.roster > self.serial:
            raise Refusal(Why.UNKNOWN, f"is later than the last, {self.serial}", "roster")
        return self._signer(signed, statement, statement.roster)

    def _is_ours(self, statement: Statement) -> None:
        if statement.box != self.box:
            raise Refusal(Why.BAD_SIGNATURE, "is another box", "box")

    def _signer(self, signed: Signed, statement: Statement, serial: int) -> Administrator:
        signer = self._find(statement.by, serial)
        if signer is None:
            raise Refusal(Why.BAD_SIGNATURE, "is nobody who may sign", "by")
        check_signature(signed, signer.key)
        needed = PERMITTED[type(statement)]
        if signer.role < needed:
            what = type(statement).__name__.lower()
            raise Refusal(Why.NOT_PERMITTED, f"is {signer.role}; {what} takes {needed}", "by")
        return signer

    # the chain --------------------------------------------------------------------------------------------------------

    def take(self, signed: Signed, now: int | None) -> RosterStatement:
        """The next statement of the chain; all changes or nothing.

        ``now``, in ms since 1970, is for who hears it first, and is compared with what the statement says of time; None
        where a chain is replayed that somebody else has kept. Errors: Refusal.
        """
        statement = self.check(signed, now)
        self.serial = statement.serial
        self.digest = canonical.digest(signed.statement)
        match statement:
            case Invite():
                self.invitations[statement.name] = statement
            case Enroll():
                role = self.invitations.pop(statement.by).role
                self._all.append(Administrator(statement.by, role, statement.key, since=self.serial))
            case Rekey():
                self.key = statement.key
            case Revoke():
                self.invitations.pop(statement.name, None)
                self._all = [
                    one._replace(until=self.serial) if one.name == statement.name and not one.until else one
                    for one in self._all
                ]
        return statement

    def check(self, signed: Signed, now: int | None) -> RosterStatement:
        """The same without taking it. Errors: Refusal."""
        statement = parse(signed.statement)
        if isinstance(statement, Commit | Rehearse | Confirm):
            raise Refusal(Why.MALFORMED, "must be invite, enroll, revoke or rekey", "kind")
        self._is_ours(statement)
        if statement.serial != self.serial + 1 or statement.follows != self.digest:
            raise Refusal(Why.STALE, f"does not follow the last statement, {self.serial}", "follows")
        if statement.serial > MOST_SERIALS:
            raise Refusal(Why.NO_ROOM, f"the roster has had {MOST_SERIALS} statements: make the box anew")
        match statement:
            case Invite():
                self._signer(signed, statement, self.serial)
                self._check_invite(statement, now)
            case Enroll():
                self._check_enroll(signed, statement, now)
            case Rekey():
                self._signer(signed, statement, self.serial)
                if statement.key == self.key:
                    raise Refusal(Why.UNCHANGED, "is the box's key already", "key")
            case Revoke():
                self._signer(signed, statement, self.serial)
                self._check_revoke(statement)
        return statement

    def _check_invite(self, invite: Invite, now: int | None) -> None:
        if self.find(invite.name) is not None or invite.name in self.invitations:
            raise Refusal(Why.INVALID, "has that name already: revoke it first", "name")
        if len(self.administrators) + len(self.invitations) >= MOST_ADMINISTRATORS:
            raise Refusal(Why.NO_ROOM, f"there are {MOST_ADMINISTRATORS} administrators and invitations already")
        if not invite.at < invite.expires <= invite.at + LONGEST_INVITATION:
            raise Refusal(Why.INVALID, "must be within seven days from `at`", "expires")
        if now is not None and invite.expires <= now:
            raise Refusal(Why.INVALID, "has passed: is your clock right?", "expires")
        self._is_new(invite.key)

    def _check_enroll(self, signed: Signed, enroll: Enroll, now: int | None) -> None:
        invitation = self.invitations.get(enroll.by)
        if invitation is None:
            raise Refusal(
                Why.BAD_SIGNATURE, "is not invited: the token was used or withdrawn, or is of another box", "by"
            )
        check_signature(signed, invitation.key)
        if enroll.at > invitation.expires or (now is not None and now > invitation.expires):
            raise Refusal(Why.NOT_PERMITTED, "the invitation has expired: ask for another one", "at")
        self._is_new(enroll.key)

    def _is_new(self, key: bytes) -> None:
        """A key stands for one name for good: what it signed once must not begin to mean more."""
        if any(one.key == key for one in self._all) or any(one.key == key for one in self.invitations.values()):
            raise Refusal(Why.INVALID, "was used before: make a new one", "key")

    def _check_revoke(self, revoke: Revoke) -> None:
        if revoke.name == CONSOLE:
            raise Refusal(Why.NOT_PERMITTED, "is the box's own root user, and stays", "name")
        if self.find(revoke.name) is None and revoke.name not in self.invitations:
            raise Refusal(Why.UNKNOWN, "is neither an administrator nor invited", "name")
