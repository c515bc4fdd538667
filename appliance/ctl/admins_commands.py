"""`septumctl admins`: who may administer the box. The roster is signed; what is shown here was checked here."""

from __future__ import annotations

import base64
import re
from typing import Annotated, Any, Final

import typer

from appliance.cli import helping
from appliance.ctl import identity, reach, say, tokens
from appliance.ctl.say import Json
from appliance.ctl.trouble import Exit, Trouble
from appliance.signed.roster import LONGEST_INVITATION, Roster
from appliance.signed.statements import ROLES, Invite, Rekey, Revoke, Signed, parse, public_key, sign

app = helping.App(help="Who may administer the box: list, invite, revoke.")

_UNITS: Final = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400}


def seconds_of(text: str, most: int) -> int:
    """``90``, ``5m``, ``12h``, ``7d``. Errors: Trouble."""
    match = re.fullmatch(r"([0-9]{1,7})\s*(s|m|min|h|d)?", text.strip())
    value = int(match[1]) * _UNITS[match[2] or ""] if match else 0
    if not 0 < value <= most:
        raise Trouble(Exit.USAGE, f"{text!r} is not a time from 1 s to {say.span(most)}", "5m, 12h, 7d")
    return value


@app.command("list")
def list_(
    everybody: Annotated[bool, typer.Option("--all", "-a", help="Also who was, and what was stated.")] = False,
    json_: Json = False,
) -> None:
    """List the administrators and open invitations, as the box's roster is signed."""
    from appliance.ctl.chain import look

    with reach.the_box() as box:
        known = look(box)
    now = identity.now_ms()
    since = {one.serial: one.at for one, _ in known.statements}
    rows: list[dict[str, Any]] = [
        {
            "name": one.name,
            "role": str(one.role),
            "state": "administrator",
            "since": since.get(one.since),
            "key": one.key.hex(),
        }
        for one in known.roster.administrators
    ]
    rows += [
        {"name": one.name, "role": str(one.role), "state": "invited" if one.expires > now else "invitation expired",
         "since": one.at, "expires": one.expires, "invited_by": one.by}
        for one in known.roster.invitations.values()
    ]  # fmt: skip
    if say.is_json():
        told: dict[str, Any] = {"administrators": [_for_machines(row) for row in rows]}
        if everybody:
            told["statements"] = [_stated(statement) for statement, _ in known.statements]
        say.as_json(told)
        return
    shown = [
        (
            row["name"],
            row["role"],
            say.Text(row["state"], style="" if row["state"] == "administrator" else "yellow"),
            say.when(row["since"]) if row["since"] else "the beginning",
            say.ago(row["expires"]) if "expires" in row else row["key"][:16],
        )
        for row in rows
    ]
    say.table(f"Administrators of {box.context.name}", ("name", "role", "", "since", "key, or expires"), shown)
    if everybody:
        lines = [(one["serial"], say.when(one["at_ms"]), one["by"], one["what"]) for one in map(_stated, _only(known))]
        say.out.print()
        say.table("What was stated", ("", "when", "by", ""), lines)


def _only(known: Any) -> list[Any]:
    return [statement for statement, _ in known.statements]


def _for_machines(row: dict[str, Any]) -> dict[str, Any]:
    return row | {key: say.stamp(row[key]) for key in ("since", "expires") if row.get(key)}


def _stated(statement: Any) -> dict[str, Any]:
    match statement:
        case Invite():
            what = f"invites {statement.name} as {statement.role}, until {say.when(statement.expires)}"
        case Revoke():
            what = f"revokes {statement.name}"
        case Rekey():
            what = f"tells the box to go over to its key {base64.b64encode(statement.key).decode()}"
        case _:
            what = f"enrolls with key {statement.key.hex()[:16]}"
    kind = type(statement).__name__.lower()
    told = {"serial": statement.serial, "kind": kind, "by": statement.by, "at": say.stamp(statement.at), "what": what}
    return told | {"at_ms": statement.at}


def submit(box: Any, signed: Signed, what: str) -> Any:
    """Hands a statement of the roster to the box. Errors: Trouble."""
    from septum.admin.v1 import admin_pb2 as pb

    header = pb.SubmitHeader(statement=signed.statement, signature=signed.signature)
    return box.send(box.configuration.Submit, [pb.SubmitRequest(header=header)], what)


def next_statement(box: Any, roster: Roster) -> dict[str, Any]:
    """What every statement of the roster says."""
    context = box.context
    return {
        "box": bytes.fromhex(context.box),
        "serial": roster.serial + 1,
        "follows": roster.digest,
        "at": identity.now_ms(),
        "by": context.administrator,
    }


def rehearsed(roster: Roster, signed: Signed) -> None:
    """The box would say the same, and no better. Errors: Trouble."""
    from appliance.signed.refusal import Refusal, Why

    statement = parse(signed.statement)
    try:
        roster.check(signed, identity.now_ms())
    except Refusal as refusal:
        code = Exit.NOT_ALLOWED if refusal.why in (Why.NOT_PERMITTED, Why.BAD_SIGNATURE) else Exit.REFUSED
        said = f"{statement.by} {refusal.text}" if refusal.path == "by" else str(refusal)
        raise Trouble(code, said, "septumctl whoami; septumctl admins list", reason=refusal.why.name) from None


@app.command()
def invite(
    name: Annotated[str, typer.Argument(help="Who: a small letter, then small letters, digits, '.', '_' or '-'.")],
    role: Annotated[str, typer.Option("--role", "-r", help="viewer, operator or security-officer.")] = "operator",
    expires: Annotated[
        str, typer.Option("--expires", "-e", help="How long the token is good: 2h, 1d, at most 7d.")
    ] = "1d",
    address: Annotated[str, typer.Option("--address", help="Where they will reach the box, if not where you do.")] = "",
    json_: Json = False,
) -> None:
    """Invite somebody to administer the box, and print the token that lets them enroll, once.

    Whoever has the token can become NAME: give it to them by a way that you trust.
    """
    from appliance.ctl.chain import look

    if role not in ROLES:
        raise Trouble(Exit.USAGE, f"there is no role {role!r}", f"one of {', '.join(ROLES)}")
    life = seconds_of(expires, LONGEST_INVITATION // 1000)
    seed = identity.new_seed()
    with reach.the_box() as box:
        context = box.context
        known = look(box)
        said = next_statement(box, known.roster)
        try:
            statement = Invite(
                **said, name=name, role=ROLES[role], key=public_key(seed), expires=said["at"] + life * 1000
            )
            signed = sign(statement, context.seed())
        except ValueError as error:
            raise Trouble(Exit.USAGE, str(error)) from None
        rehearsed(known.roster, signed)
        key = _public_key(box, known.roster)
        submit(box, signed, "the invitation to be taken")
    token = tokens.write(
        tokens.Token(context.box, context.console, seed, name, context.name, address or context.address, key)
    )
    if say.is_json():
        say.as_json({"name": name, "role": role, "expires": say.stamp(statement.expires), "token": token})
        return
    say.note(f"{name} is invited as {role}, until {say.when(statement.expires)}. They type:\n")
    say.out.out(f"septumctl enroll {token}\n")
    say.hint("Whoever has this token can become them, once. It is shown here and nowhere else.")


def _public_key(box: Any, roster: Roster) -> str:
    """The box's WireGuard key, as it is signed or was seen before: a token that carries it spares the invited one to
    believe what is shown first. Empty if it is not known and keymgr is away. Errors: Trouble.
    """
    from appliance.ctl import sealing

    if roster.key:
        return base64.b64encode(roster.key).decode()
    if seen := box.context.seen().get("public_key"):
        return str(seen)
    try:
        return sealing.pinned(box).public_key
    except Trouble as trouble:
        if trouble.code == Exit.NOT_BELIEVED:
            raise
        return ""


@app.command()
def revoke(
    name: Annotated[str, typer.Argument(help="An administrator, or somebody invited.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json_: Json = False,
) -> None:
    """Take somebody's access away, at once: their connections end, and nothing that they sign is taken any more.

    What they committed before stays in force, and in the history.
    """
    from appliance.ctl.chain import look

    with reach.the_box() as box:
        context = box.context
        known = look(box)
        try:
            signed = sign(Revoke(**next_statement(box, known.roster), name=name), context.seed())
        except ValueError as error:
            raise Trouble(Exit.USAGE, str(error)) from None
        rehearsed(known.roster, signed)
        say.confirmed(f"Revoke {name} on {context.name}?", yes)
        reply = submit(box, signed, "the revocation to be taken")
    say.done(f"{name} may do nothing on {context.name} any more", revoked=name, serial=reply.number)


say.bare(app, lambda: list_(everybody=False))
