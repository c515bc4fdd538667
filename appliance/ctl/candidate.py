"""The candidate: a configuration that is being made, on this machine alone, until it is signed and committed.

It is a folder of the context: what it is based on (``base.json``, ``base.peers``, ``base.rules``) and what it is now
(``peers``, ``rules``); the peers as the section that would be signed.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from appliance.ctl import chain, configuration, say
from appliance.ctl.configuration import Configuration
from appliance.ctl.connection import Box
from appliance.ctl.contexts import Context
from appliance.ctl.trouble import Exit, Place, Trouble
from appliance.guest.settings import SettingsError
from appliance.management.files import write
from appliance.signed import peers

_DISCARD: Final = "septumctl config discard"


@dataclass(frozen=True)
class Candidate:
    """``made`` is what ``base``, the configuration of ``revision``, is to become."""

    folder: Path
    revision: int
    digest: str  # of the statement of that revision, hexadecimal
    base: Configuration
    made: Configuration

    @property
    def is_changed(self) -> bool:
        return self.made != self.base

    def with_(self, made: Configuration) -> Candidate:
        """The same with another content, written; ``made`` must be one that can be written. Errors: Trouble."""
        candidate = replace(self, made=made)
        candidate.save()
        return candidate

    def save(self) -> None:
        """Errors: Trouble (INVALID) for peers that no box would take."""
        said = {"revision": self.revision, "digest": self.digest}
        files = {"base.json": json.dumps(said).encode() + b"\n"}
        for prefix, one in (("base.", self.base), ("", self.made)):
            files[f"{prefix}peers"] = _peers(one)
            files[f"{prefix}rules"] = one.rules.encode()
        try:
            self.folder.mkdir(mode=0o700, exist_ok=True)
            for name, content in files.items():
                write(self.folder / name, content)
        except OSError as error:
            raise Trouble(Exit.REFUSED, f"{error.filename or self.folder}: {error.strerror}") from None

    def discard(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def _peers(one: Configuration) -> bytes:
    try:
        return peers.encode(one.peers)
    except SettingsError as error:
        place = Place(configuration.named(error.path, one.peers), error.why)
        raise Trouble(Exit.INVALID, "no box would take these peers; nothing was changed", "", [place]) from None


def load(context: Context) -> Candidate | None:
    """What is being edited of the box; None if nothing is. Errors: Trouble."""
    folder = context.folder / "candidate"
    if not folder.exists():
        return None
    try:
        said = json.loads((folder / "base.json").read_bytes())
        base, made = (
            Configuration(
                configuration.parse_peers((folder / f"{prefix}peers").read_bytes()),
                (folder / f"{prefix}rules").read_text(),
            )
            for prefix in ("base.", "")
        )
        return Candidate(folder, int(said["revision"]), str(said["digest"]), base, made)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Trouble(Exit.REFUSED, f"the candidate in {folder} is damaged: {error}", _DISCARD) from None


def fetch(box: Box, entry: chain.Entry | None) -> Configuration:
    """The configuration of a commit, as it was signed; an empty one for none. Errors: Trouble."""
    if entry is None:
        return Configuration()
    section, rules = chain.content(box, entry.commit, chain.PEERS, chain.RULES)
    found = configuration.of_sections(section, rules)
    _compare(box.context, entry, found)
    return found


_COMPARED: Final = 32  # revisions that are remembered to have been compared


def _compare(context: Context, entry: chain.Entry, found: Configuration) -> None:
    """Says so if the rules that people read are not those that the filter was given: both are signed, by whoever made
    the commit, and a tool of their own may have made two things of them.
    """
    compared = list(context.seen().get("compared", []))
    if entry.digest.hex() in compared:
        return
    with say.progress("comparing the rules with what the filter goes by") as tell:
        try:
            is_same = configuration.ruleset(found, tell) == entry.commit.ruleset
        except Trouble:
            is_same = False
    if is_same:
        context.remember(compared=[*compared, entry.digest.hex()][-_COMPARED:])
        return
    say.warn(
        f"the rules of revision {entry.commit.revision} are not what the filter goes by, as they are compiled here: "
        f"ask {entry.commit.by}, who signed both, or commit them anew"
    )


def begin(box: Box, known: chain.Known | None = None) -> Candidate:
    """The candidate that there is, or a new one of what is in force. Errors: Trouble."""
    there = load(box.context)
    if there is not None:
        return there
    known = known or chain.look(box)
    base = fetch(box, known.in_force)
    return Candidate(box.context.folder / "candidate", known.revision, known.digest.hex(), base, base)
