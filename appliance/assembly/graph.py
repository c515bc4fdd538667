"""An assembly as a reader sees it: Graphviz DOT, a picture (SVG), and text for a terminal. Coloured by label
everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from rich.text import Text

from appliance.assembly import schemas
from appliance.assembly.model import LABELS, Channel, ValidatedAssembly
from appliance.assembly.picture import COLOURS, svg
from appliance.guest.outside import OPERATOR
from appliance.vchan.schema import Kind

__all__ = ["dot", "outsiders", "svg", "text"]

_TERMINAL: Final = {"PUBLIC": "green", "CONTROL": "cyan", "BLACK": "bright_black", "RED": "red", "KEY": "yellow"}


def _labels(channel: Channel) -> list[str]:
    """What the channel carries, there and back, the most secret last."""
    carried = schemas.forward(channel.schema) | schemas.backward(channel.schema)
    return [label for label in LABELS if label in carried]


def _is_call(channel: Channel) -> bool:
    found = schemas.find(channel.schema)
    return found is not None and found.kind is Kind.CALL


def _quote(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def outsiders(assembly: ValidatedAssembly) -> list[Channel]:
    """The channels by which somebody outside of the box can call a domain."""
    return [channel for channel in assembly.channels if channel.client.domain == OPERATOR]


def dot(assembly: ValidatedAssembly) -> str:
    """The assembly in Graphviz's DOT language; calls are dashed, devices are boxes of their own."""

    def lines() -> Iterator[str]:
        yield f"digraph {_quote(assembly.name)} {{"
        yield f'  graph [rankdir=LR, label={_quote(assembly.summary)}, labelloc=t, fontname="sans-serif"];'
        yield '  node [shape=box, style=rounded, fontname="sans-serif"];'
        yield '  edge [fontname="sans-serif", fontsize=10];'
        for domain in assembly.parties:
            role = domain.role
            clearance = " ".join(label for label in LABELS if label in role.clearance)
            outside = ", style=dashed" if domain.name == OPERATOR else ""
            yield f"  {_quote(domain.name)} [tooltip={_quote(f'{role.summary} ({clearance})')}{outside}];"
            for device in role.devices:
                yield f"  {_quote(f'{domain.name}/{device}')} [shape=plaintext, label={_quote(device)}];"
                yield f"  {_quote(f'{domain.name}/{device}')} -> {_quote(domain.name)} [dir=both, style=dotted];"
        for channel in assembly.channels:
            labels = _labels(channel)
            style = "dashed" if _is_call(channel) else "solid"
            yield (
                f"  {_quote(channel.client.domain)} -> {_quote(channel.server.domain)} "
                f"[label={_quote(channel.schema)}, color={_quote(COLOURS[labels[-1]])}, style={style}, "
                f"tooltip={_quote(f'{channel.client} to {channel.server}: ' + ' '.join(labels))}];"
            )
        yield "}"

    return "".join(f"{line}\n" for line in lines())


def text(assembly: ValidatedAssembly) -> Text:
    """The assembly for a terminal: each domain, what it may see and hold, and where its channels lead."""
    out = Text()
    out.append(assembly.name, "bold").append(f"  {assembly.summary}\n")
    for domain in assembly.parties:
        role = domain.role
        out.append(f"\n{domain.name}", "bold")
        for label in LABELS:
            if label in role.clearance:
                out.append(f" {label}", _TERMINAL[label])
        for transform in sorted(role.transforms):
            out.append(f"  turns {transform.replace('->', ' into ')}", "bold red")
        for device in role.devices:
            out.append(f"  holds {device}", "bold")
        out.append(f"\n  {role.summary}\n", "dim")
        for channel in assembly.channels:
            if channel.client.domain == domain.name:
                labels = _labels(channel)
                arrow = "-call->" if _is_call(channel) else "------>"
                out.append(f"  {channel.client.port:<20} {arrow} ", _TERMINAL[labels[-1]])
                out.append(f"{channel.server!s:<28} ")
                out.append(f"{channel.schema:<11}", "bold")
                for label in labels:
                    out.append(f" {label}", _TERMINAL[label])
                out.append("\n")
                if reason := assembly.bypass(channel.client):
                    out.append(f"  {'':<20} declared bypass: {reason}\n", "bold yellow")
    return out
