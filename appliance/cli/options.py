"""Options that many commands have."""

from __future__ import annotations

from typing import Annotated

import typer

from appliance.cli import screen

Json = Annotated[
    bool, typer.Option("--json", help="Print JSON for machines, also of errors.", callback=screen.set_json)
]
