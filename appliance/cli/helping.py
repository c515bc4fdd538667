"""How commands explain themselves: typer's help, made for people who read it on a terminal of any width."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption


def flowing(text: str) -> str:
    """``text`` with each paragraph on one line, which the terminal breaks anew; what is indented stays as it is."""
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(one if "\n " in f"\n{one}" else one.replace("\n", " ") for one in paragraphs)


def _plain(parameters: list[Any]) -> list[Any]:
    """``parameters``, named in their command's help as its text names them: FILE; a switch takes nothing."""
    for one in parameters:
        if isinstance(one, TyperArgument) and one.metavar is None and one.name:
            one.metavar = one.name.upper()
        elif isinstance(one, TyperOption) and one.is_flag:
            one.metavar = ""
    return parameters


class Command(TyperCommand):
    def get_params(self, ctx: Any) -> list[Any]:
        return _plain(super().get_params(ctx))


class Group(TyperGroup):
    def get_params(self, ctx: Any) -> list[Any]:
        return _plain(super().get_params(ctx))


class App(typer.Typer):
    """A program, or commands of one."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(cls=Group, **settings)

    def command(self, *names: Any, **settings: Any) -> Callable[[Any], Any]:
        def add(function: Any) -> Any:
            text = flowing(function.__doc__ or "")
            return super(App, self).command(*names, **{"cls": Command, "help": text, **settings})(function)

        return add
