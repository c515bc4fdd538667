"""A box's people and their keys, for tests of what they sign."""

from __future__ import annotations

from hashlib import blake2s
from typing import Any

from appliance.signed import canonical
from appliance.signed.roster import Roster, Trust
from appliance.signed.statements import (
    NONE,
    Commit,
    Enroll,
    Invite,
    Rehearse,
    Rekey,
    Revoke,
    Role,
    Signed,
    parse,
    public_key,
    sign,
)

BOX = canonical.digest(b"this box")
NOW = 1_700_000_000_000
HOUR = 3_600_000


def seed(name: str) -> bytes:
    """The signing key of ``name``, and of their invitation if it begins with "token "."""
    return blake2s(name.encode()).digest()


TRUST = Trust(BOX, public_key(seed("console")))


class Chain:
    """The roster as everybody sees it, and the statements that led there."""

    def __init__(self) -> None:
        self.roster = Roster(TRUST)
        self.statements: list[Signed] = []
        self.commits: list[Signed] = []

    def _next(self, by: str, **other: Any) -> dict[str, Any]:
        given = {"box": BOX, "serial": self.roster.serial + 1, "follows": self.roster.digest, "at": NOW, "by": by}
        return {**given, **other}

    def invite(self, name: str, role: Role, by: str = "console", **other: Any) -> Signed:
        more = {"name": name, "role": role, "key": public_key(seed(f"token {name}")), "expires": NOW + HOUR, **other}
        return sign(Invite(**self._next(by, **more)), seed(by))

    def enroll(self, name: str, token: str = "", **other: Any) -> Signed:
        made = Enroll(**self._next(name, **{"key": public_key(seed(name)), **other}))
        return sign(made, seed(token or f"token {name}"))

    def revoke(self, name: str, by: str = "console", **other: Any) -> Signed:
        return sign(Revoke(**self._next(by, name=name, **other)), seed(by))

    def rekey(self, key: bytes, by: str = "console", **other: Any) -> Signed:
        return sign(Rekey(**self._next(by, key=key, **other)), seed(by))

    def take(self, signed: Signed, now: int = NOW) -> Signed:
        self.roster.take(signed, now)
        self.statements.append(signed)
        return signed

    def add(self, name: str, role: Role) -> None:
        self.take(self.invite(name, role))
        self.take(self.enroll(name))

    def rehearse(self, by: str, peers: bytes, ruleset: bytes = b"{}", **other: Any) -> Signed:
        """What ``commit`` would be, not to be put in force."""
        signed = self.commit(by, peers, ruleset, **other)
        self.commits.pop()
        statement = parse(signed.statement)
        assert isinstance(statement, Commit)
        return sign(Rehearse(*statement), seed(by))

    def commit(self, by: str, peers: bytes, ruleset: bytes = b"{}", **other: Any) -> Signed:
        """A commit behind the last, which it becomes."""
        given = {
            "box": BOX,
            "revision": len(self.commits) + 1,
            "follows": canonical.digest(self.commits[-1].statement) if self.commits else NONE,
            "roster": self.roster.serial,
            "at": NOW,
            "by": by,
            "comment": "",
            "confirm": 0,
            "restores": 0,
            "peers": canonical.digest(peers),
            "ruleset": canonical.digest(ruleset),
            "rules": canonical.digest(b""),
        }
        signed = sign(Commit(**{**given, **other}), seed(by))
        self.commits.append(signed)
        return signed
