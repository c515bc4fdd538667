"""The console script `septumctl`: a box looked at and configured from elsewhere."""

from __future__ import annotations

import os
import sys
from typing import Annotated, NoReturn

import typer

from appliance.cli import helping
from appliance.ctl import (
    admins_commands,
    config_commands,
    context_commands,
    exporter,
    keys_commands,
    looking_commands,
    peers_commands,
    reach,
    rules_commands,
    say,
    uapi_server,
)
from appliance.ctl.contexts import ContextError
from appliance.ctl.trouble import Exit, Trouble

app = helping.App(
    name="septumctl",
    help="Look at a box and configure it, from elsewhere.\n\n"
    "What changes a box is signed here, with your key; its network face carries it and cannot make it up. "
    "Changes go into a candidate on this machine; `config diff` shows it, `config commit` puts it in force.\n\n"
    "Exit codes: 0 done, 1 refused or not there, 2 not a command, 3 the box is not reached, 4 not allowed, "
    "5 another commit came first or one waits to be confirmed, 6 not the box or not what was signed, "
    "7 a mistake in the configuration.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def options(
    context: Annotated[
        str, typer.Option("--context", "-c", help="Which box; the current one if absent.", envvar="SEPTUM_CONTEXT")
    ] = "",
    timeout: Annotated[
        float, typer.Option("--timeout", help="Seconds to wait for an answer.", min=0.1, max=3600.0)
    ] = reach.DEADLINE,
    json_: say.Json = False,
) -> None:
    reach.chosen(context, timeout)


app.add_typer(context_commands.app, name="contexts")
for single in (
    looking_commands.status,
    looking_commands.top,
    context_commands.enroll,
    context_commands.whoami,
    context_commands.renew,
    looking_commands.version,
    looking_commands.logs,
):
    app.command()(single)
app.command("exporter")(exporter.serve)
app.command("uapi")(uapi_server.serve)
app.add_typer(looking_commands.domains, name="domains")
app.add_typer(peers_commands.app, name="peers")
app.add_typer(keys_commands.app, name="keys")
app.add_typer(rules_commands.app, name="rules")
app.add_typer(config_commands.app, name="config")
app.add_typer(admins_commands.app, name="admins")
# As people who know other boxes type them
for short in config_commands.SHORT:
    app.command(hidden=True)(short)


def main() -> NoReturn:
    """Ends the process with the command's exit code."""
    say.forget()
    try:
        app()
        sys.exit(0)
    except Trouble as trouble:
        say.fail(trouble)
    except ContextError as error:
        say.fail(Trouble(Exit.REFUSED, str(error), error.then, reason="CONTEXT"))
    except KeyboardInterrupt:
        sys.exit(int(Exit.INTERRUPTED))
    except BrokenPipeError:
        # Whoever read us has enough; what is left in the buffer goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(int(Exit.REFUSED))


if __name__ == "__main__":
    main()
