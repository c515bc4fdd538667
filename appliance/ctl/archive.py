"""A configuration as a file: what was signed, who signed it, and the roster that lets them. JSON, to keep and compare.

    {"septum": "configuration", "version": 1, "box": …, "revision": …,
     "commit": {"statement": text, "signature": hex}, "roster": [{"statement", "signature"}, …],
     "peers": [...], "rules": [lines]}

Peers and rules are as people read them; written canonically again they are the very bytes whose digests were signed. So
an archive proves itself, years later, without its box.
"""

from __future__ import annotations

import json
from typing import Any, Final, NamedTuple

from appliance.ctl.configuration import Configuration, parse_peers
from appliance.ctl.trouble import Exit, Trouble
from appliance.signed import canonical
from appliance.signed.refusal import Refusal
from appliance.signed.roster import Roster, Trust
from appliance.signed.statements import Commit, Signed, parse

MAX_BYTES: Final = 16 << 20
VERSION: Final = 1


class Archive(NamedTuple):
    """``roster``: from the first statement on."""

    box: str
    commit: Signed
    roster: tuple[Signed, ...]
    made: Configuration


def write(archive: Archive, peers_section: bytes) -> str:
    """``peers_section``: the very bytes that were signed."""
    commit = parse(archive.commit.statement)
    assert isinstance(commit, Commit)  # the caller has checked it
    table = {
        "septum": "configuration",
        "version": VERSION,
        "box": archive.box,
        "revision": commit.revision,
        "commit": _signed(archive.commit),
        "roster": [_signed(one) for one in archive.roster],
        **json.loads(peers_section),
        "rules": archive.made.rules.split("\n"),
    }
    return json.dumps(table, indent=1) + "\n"


def _signed(signed: Signed) -> dict[str, str]:
    return {"statement": signed.statement.decode("ascii"), "signature": signed.signature.hex()}


def read(raw: bytes) -> Archive:
    """The archive, well formed and not believed yet. Errors: Trouble (INVALID)."""
    try:
        if len(raw) > MAX_BYTES:
            raise ValueError(f"more than {MAX_BYTES} bytes")
        table = json.loads(raw)
        if table["septum"] != "configuration" or table["version"] != VERSION:
            raise ValueError(f"it is not a configuration of version {VERSION}")
        made = Configuration(parse_peers(canonical.encode({"peers": table["peers"]})), "\n".join(table["rules"]))
        roster = tuple(_unsigned(one) for one in table["roster"])
        return Archive(str(table["box"]), _unsigned(table["commit"]), roster, made)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        why = f"this is no archive of a configuration: {type(error).__name__}: {error}"
        raise Trouble(Exit.INVALID, why, "septumctl config export writes one") from None


def _unsigned(row: Any) -> Signed:
    return Signed(str(row["statement"]).encode("ascii"), bytes.fromhex(row["signature"]))


def verify(archive: Archive, box: str, console: str) -> Commit:
    """The commit, if it and what it speaks of were signed by an administrator of that box. Errors: Trouble."""
    try:
        roster = Roster(Trust(bytes.fromhex(box), bytes.fromhex(console)))
        for one in archive.roster:
            roster.take(one, None)
        commit = parse(archive.commit.statement)
        if not isinstance(commit, Commit):
            raise ValueError("it is not a commit")
        roster.vouch(archive.commit, commit)
        for name, content in (
            ("peers", canonical.encode({"peers": _rows(archive.made)})),
            ("rules", archive.made.rules.encode() or b"\n"),
        ):
            if canonical.digest(content) != getattr(commit, name):
                raise ValueError(f"the {name} are not those that {commit.by} signed")
    except (Refusal, ValueError) as error:
        raise Trouble(
            Exit.NOT_BELIEVED, f"this archive is not what this box's administrators signed: {error}"
        ) from None
    return commit


def _rows(made: Configuration) -> Any:
    from appliance.signed import peers

    return json.loads(peers.encode(made.peers))["peers"]
