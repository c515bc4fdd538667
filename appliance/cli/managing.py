"""`septum init`: what makes a box one that is administered from elsewhere."""

from __future__ import annotations

import datetime

from appliance.cli import screen
from appliance.ctl import contexts
from appliance.management.initialise import Console, InitError, initialise
from appliance.monitor.places import PlaceError, checked_name, make_private, state_base


def init(name: str, address: str, context: str, replace: bool, as_json: bool) -> None:
    """Makes the authority of box ``name`` and the context of its console. Ends the command if it cannot."""
    try:
        contexts.host_and_port(address)
        if context in contexts.names() and not replace:
            screen.fail(f"septumctl has a context {context} already", "--context NAME, or --replace for both")
        state = make_private(state_base() / checked_name(name))
        console = initialise(state, name, datetime.datetime.now(datetime.UTC), replace=replace)
        contexts.create(
            context,
            address=address,
            root_pem=console.root,
            console=console.public,
            administrator="console",
            seed=console.seed,
            tls_key_pem=console.tls_key,
            chain_pem=console.chain,
            replace=replace,
        )
    except InitError as error:
        screen.fail(str(error), error.then)
    except contexts.ContextError as error:
        screen.fail(str(error), error.then)
    except (PlaceError, ValueError) as error:
        screen.fail(str(error))
    except OSError as error:
        screen.fail(
            f"{error.filename}: {error.strerror}", "as root, or with SEPTUM_STATE_DIR set to a directory of your own"
        )
    _say(name, console, address, context, as_json)


def _say(name: str, console: Console, address: str, context: str, as_json: bool) -> None:
    if as_json:
        said = {"name": name, "box": console.box, "console": console.public, "address": address, "context": context}
        screen.as_json(said)
        return
    screen.out.print(f"{name} has an authority of its own, and you are its console", style="green")
    screen.out.print(f"  box      {console.box}", soft_wrap=True)
    screen.out.print(f"  address  {address}", soft_wrap=True)
    screen.out.print(f"  context  {context} (septumctl --context {context})", soft_wrap=True)
    then = f"septum up {name}.conf --assembly vpn-managed --admin {address}, then septumctl status"
    screen.out.print(f"next: {then}", soft_wrap=True)
