"""`septumctl contexts`, `enroll`, `whoami`, `renew`: which boxes this machine knows, and as whom."""

from __future__ import annotations

import ssl
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from appliance.cli import helping
from appliance.ctl import contexts, identity, reach, say, tokens
from appliance.ctl.contexts import Context, ContextError
from appliance.ctl.say import Json
from appliance.ctl.trouble import Exit, Trouble
from appliance.signed.statements import NONE, Enroll, public_key, sign

app = helping.App(help="The boxes that this machine knows.")


def complete_context(incomplete: str) -> list[str]:
    return [name for name in contexts.names() if name.startswith(incomplete)]


Name = Annotated[str, typer.Argument(help="Name of a context.", autocompletion=complete_context)]


@app.command("list")
def list_(json_: Json = False) -> None:
    """List the boxes, as whom each is spoken to, and until when."""
    current = contexts.current()
    rows = [_row(contexts.load(name), current) for name in contexts.names()]
    if json_ or say.is_json():
        say.as_json(rows)
        return
    if not rows:
        raise ContextError("this machine knows no box", "septumctl enroll TOKEN; on the box itself: septum init NAME")
    shown = [
        (
            "*" if row["is_current"] else "",
            row["name"],
            row["address"],
            row["administrator"],
            _until(row["certificate_until"]),
            row["box"][:16],
        )
        for row in rows
    ]
    say.table("Boxes that this machine knows", ("", "context", "address", "as", "certificate until", "box"), shown)


def _row(context: Context, current: str) -> dict[str, Any]:
    try:
        end = identity.validity(context.chain_pem).end
    except (ContextError, ValueError):
        end = 0.0
    return {
        "name": context.name,
        "is_current": context.name == current,
        "address": context.address,
        "administrator": context.administrator,
        "certificate_until": end,
        "box": context.box,
    }


def _until(end: float) -> Any:
    if not end:
        return say.Text("-", style="red")
    return say.Text(identity.day(end), style="bold red" if end <= time.time() else "")


@app.command()
def use(name: Name, json_: Json = False) -> None:
    """Mean this box where none is named."""
    contexts.use(name)
    say.done(f"{name} is meant from now on", current=name)


@app.command()
def address(
    address: Annotated[str, typer.Argument(help="192.0.2.1, box.example:50051 or [2001:db8::1]:50051.")],
    json_: Json = False,
) -> None:
    """The box has another address now. It is still the same box, or it will not be believed."""
    try:
        contexts.host_and_port(address)
    except ValueError as error:
        raise Trouble(Exit.USAGE, str(error)) from None
    context = reach.the_context().moved(address)
    say.done(f"{context.name} is at {address}", name=context.name, address=address)


@app.command()
def remove(
    name: Name, yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False, json_: Json = False
) -> None:
    """Forget a box, and the keys for it. Who you are on the box ends only by `admins revoke`."""
    context = contexts.load(name)
    say.confirmed(f"The keys of {context.administrator} for {name} are lost with it. Forget it?", yes)
    contexts.remove(name)
    say.done(f"{name} is forgotten", removed=name)


# becoming an administrator --------------------------------------------------------------------------------------------


def enroll(
    token: Annotated[str, typer.Argument(help="The token of the invitation; '-' reads it from standard input.")],
    name: Annotated[str, typer.Option("--name", "-n", help="What to call the box here; its own name if absent.")] = "",
    address: Annotated[
        str, typer.Option("--address", "-a", help="Where the box is, if not where the token says.")
    ] = "",
    replace: Annotated[bool, typer.Option("--replace", help="In place of the context of that name.")] = False,
    json_: Json = False,
) -> None:
    """Become an administrator of a box, with the token that a security officer gave you.

    Your keys are made here and stay here. The token says which box it is for; whoever else answers is not believed.
    """
    from septum.admin.v1 import admin_pb2 as pb

    from appliance.ctl import diagnose
    from appliance.ctl.connection import Box

    try:
        said = tokens.read(typer.get_text_stream("stdin").read() if token == "-" else token)
        contexts.host_and_port(address or said.address)
    except ValueError as error:
        raise Trouble(Exit.USAGE, str(error), "copy it again, as a whole: it begins with septum-") from None
    where = address or said.address
    with say.waiting(f"waiting for {where} to show its certificates"):
        root = diagnose.find_root(diagnose.shown_chain(where), said.box)
    if root is None:
        why = f"who answers at {where} is not the box that the token is for ({said.box[:16]}…); nothing was sent"
        then = "septumctl enroll TOKEN --address ADDRESS, if the box is elsewhere; if not, somebody is in between"
        raise Trouble(Exit.NOT_BELIEVED, why, then, reason="WRONG_BOX")
    title = name or said.title
    if title in contexts.names() and not replace:
        then = f"septumctl enroll … --name OTHER, or --replace {title}"
        raise ContextError(f"there is a context {title} already", then)
    seed, tls_key = identity.new_seed(), identity.new_tls_key()
    # The context as it will be if the box agrees, out of sight until then
    with tempfile.TemporaryDirectory() as folder:
        new = contexts.create(
            title,
            address=where,
            root_pem=ssl.DER_cert_to_PEM_cert(root),
            console=said.console,
            administrator=said.name,
            seed=seed,
            tls_key_pem=tls_key,
            chain_pem="",
            base=Path(folder),
        )
        with Box(new, reach.deadline(), is_known=False) as box:
            head = box.ask(box.enrollment.WhoAmI, pb.WhoAmIRequest(), "the head of its roster")
            statement = Enroll(
                box=bytes.fromhex(said.box),
                serial=head.serial + 1,
                follows=bytes(head.roster_digest) if head.serial else NONE,
                at=identity.now_ms(),
                by=said.name,
                key=public_key(seed),
            )
            signed = sign(statement, said.seed)
            request = pb.EnrollRequest(
                statement=signed.statement, signature=signed.signature, request=identity.request(tls_key, said.name)
            )
            certificate = box.ask(box.enrollment.Enroll, request, "a certificate")
        made = contexts.create(
            title,
            address=where,
            root_pem=new.root_pem,
            console=said.console,
            administrator=said.name,
            seed=seed,
            tls_key_pem=tls_key,
            chain_pem=certificate.chain,
            replace=replace,
        )
    if said.key:
        made.remember(public_key=said.key)
    _welcome(made)


def _welcome(context: Context) -> None:
    """Looks whether the box knows us now, by the roster that it shows."""
    from appliance.ctl.chain import Unbelievable, roster_of
    from appliance.ctl.connection import Box

    with Box(context, reach.deadline()) as box:
        roster, _ = roster_of(box)
    me = roster.holder(public_key(context.seed()))
    if me is None:
        raise Unbelievable(f"{context.address} gave a certificate, and its roster does not have you")
    told: dict[str, Any] = {"context": context.name, "administrator": me.name, "role": str(me.role), "box": context.box}
    told["certificate_until"] = say.stamp(round(identity.validity(context.chain_pem).end * 1000))
    say.done(f"You are {me.name}, {me.role} of {context.name} ({context.box[:16]}…)", **told)
    say.hint(f"septumctl {'' if contexts.current() == context.name else f'-c {context.name} '}status")


# who one is -----------------------------------------------------------------------------------------------------------


def whoami(json_: Json = False) -> None:
    """Say who you are to the box, what you may do, and until when."""
    from septum.admin.v1 import admin_pb2 as pb

    with reach.the_box() as box:
        found = box.ask(box.enrollment.WhoAmI, pb.WhoAmIRequest(), "who you are")
        context = box.context
    if say.is_json():
        told = {"name": found.name, "role": found.role, "box": context.box, "context": context.name}
        say.as_json(told | {"certificate_until": say.stamp(found.certificate_until * 1000)})
        return
    if not found.name:
        raise Trouble(Exit.NOT_ALLOWED, f"{context.name} does not know you", "septumctl enroll TOKEN --replace")
    say.note(f"{say.clean(found.name)}, {say.clean(found.role)} of {context.name} at {context.address}")
    say.hint(f"certificate until {identity.day(found.certificate_until)}, renewed by itself when a third is left")


def renew(json_: Json = False) -> None:
    """Get a fresh certificate now; any command does, once yours has a third of its life left."""
    with reach.the_box() as box:
        box.renew()
        end = identity.validity(box.context.chain_pem).end
    say.done(f"your certificate is good until {identity.day(end)}", certificate_until=say.stamp(round(end * 1000)))


say.bare(app, list_)
