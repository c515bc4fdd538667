"""Which box a command is for, and the way to it. gRPC is imported once it is needed: `--help` needs none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from appliance.ctl import contexts
from appliance.ctl.contexts import Context

if TYPE_CHECKING:
    from appliance.ctl.connection import Box

DEADLINE: Final = 15.0  # seconds for an answer

_chosen: dict[str, Any] = {"context": "", "timeout": DEADLINE}


def chosen(context: str, timeout: float) -> None:
    """What the options before the command say."""
    _chosen.update(context=context, timeout=timeout)


def the_context() -> Context:
    """Errors: ContextError."""
    return contexts.load(str(_chosen["context"]))


def deadline() -> float:
    return float(_chosen["timeout"])


@contextmanager
def the_box() -> Iterator[Box]:
    """The box that is meant. Errors: Trouble, ContextError."""
    from appliance.ctl.connection import Box

    with Box(the_context(), deadline()) as box:
        yield box
