"""`septumctl keys`: the box's own keys, and going over to new ones."""

from __future__ import annotations

import base64
from typing import Annotated

import typer

from appliance.cli import helping
from appliance.ctl import reach, say
from appliance.ctl.say import Json
from appliance.ctl.trouble import Exit, Trouble

app = helping.App(help="The box's own keys: show, rotate, accept.")


@app.command()
def show(json_: Json = False) -> None:
    """Show the public halves of the box's keys.

    They must not change unnoticed: they are compared with what was signed, and with what was seen before.
    """
    from appliance.ctl import sealing

    with reach.the_box() as box:
        found = sealing.pinned(box)
    _show(found)


def _show(found: object) -> None:
    from appliance.ctl.sealing import BoxKeys

    assert isinstance(found, BoxKeys)
    if say.is_json():
        say.as_json(found._asdict())
        return
    say.note(f"public key:  {found.public_key}")
    say.note(f"sealing key: {found.sealing_key}   (preshared keys are sealed to it)")
    if found.spare:
        say.note(f"spare key:   {found.spare}   (septumctl keys rotate goes over to it)")


@app.command()
def accept(json_: Json = False) -> None:
    """Take the keys that the box shows for its own: you have compared the public one with that of the box's own file.

    On the box itself: grep PrivateKey wg0.conf | cut -d' ' -f3 | septum pubkey
    """
    from appliance.ctl import sealing

    with reach.the_box() as box:
        found = sealing.accept_all(box)
    _show(found)


@app.command()
def rotate(yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False, json_: Json = False) -> None:
    """Make the box go over to a new private key, which it has made itself and which never leaves it.

    Each peer needs the new public key then. Sessions live on for three minutes at most.
    """
    from appliance.ctl import chain, sealing
    from appliance.ctl.admins_commands import next_statement, rehearsed, submit
    from appliance.signed.statements import Rekey, sign

    with reach.the_box() as box:
        known = chain.look(box)
        spare = sealing.pinned(box).spare
        if not spare:
            raise Trouble(Exit.REFUSED, "the box has no spare key yet", "the same again in a while", reason="UNKNOWN")
        statement = Rekey(**next_statement(box, known.roster), key=base64.b64decode(spare))
        signed = sign(statement, box.context.seed())
        rehearsed(known.roster, signed)
        say.note(f"The box shows {spare} as the key that it would go over to; each peer must be given it then.")
        say.confirmed("Go over to it?", yes)
        reply = submit(box, signed, "the new key to be taken")
    say.done(f"{box.context.name} goes by {spare} now", public_key=spare, serial=reply.number)
    say.hint(f"in each peer's file: PublicKey = {spare}")


say.bare(app, show)
