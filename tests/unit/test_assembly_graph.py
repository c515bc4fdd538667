"""The drawings show every domain and every channel, for the vpn assembly and for whatever else there may be."""

from __future__ import annotations

import dataclasses
import itertools
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.assembly import graph, model, picture
from appliance.assembly.load import ASSEMBLIES, VPN, load
from appliance.assembly.model import ValidatedAssembly

BOX = load(VPN)
TWO = ASSEMBLIES / "vpn-2.toml"
SVG = "{http://www.w3.org/2000/svg}"


def part(names: set[str], skipped: set[int], order: list[int]) -> ValidatedAssembly:
    """Some of the domains and channels of the vpn assembly, in another order: what no validator has seen."""
    channels = [channel for i, channel in enumerate(BOX.channels) if i not in skipped]
    return ValidatedAssembly(
        name='a "part" <&>',
        summary="",
        domains=tuple(BOX.domains[i] for i in order if BOX.domains[i].name in names),
        channels=tuple(c for c in channels if c.client.domain in names and c.server.domain in names),
        network=None,
        source=VPN,
        proof=model._PROOF,
    )


parts = st.builds(
    part,
    st.sets(st.sampled_from([domain.name for domain in BOX.domains]), min_size=1),
    st.sets(st.integers(0, len(BOX.channels) - 1), max_size=12),
    st.permutations(range(len(BOX.domains))),
)


def test_the_picture_in_the_manual_is_current() -> None:
    assert (VPN.parents[1] / "docs/vpn.svg").read_text() == graph.svg(BOX)


def test_the_vpn_picture_tells_everything() -> None:
    root = ElementTree.fromstring(graph.svg(BOX))
    titles = {element.text or "" for element in root.iter(f"{SVG}title")}
    for domain in BOX.domains:
        assert f"{domain.name}: {domain.role.summary}" in titles
    for channel in BOX.channels:
        drawn = any(title.startswith(f"{channel.client} to {channel.server}: {channel.schema} (") for title in titles)
        assert drawn is (channel.server.domain != "log")  # those are the bar and the dots
    said = {element.text for element in root.iter(f"{SVG}text")}
    assert said >= {"LAN", "WAN", "tun", "udp4", "udp6", "packets", "datagrams", "crypto · RED → BLACK"}
    assert "href" not in graph.svg(BOX) and "url(" not in graph.svg(BOX)  # nothing from elsewhere


def test_the_box_runs_from_left_to_right() -> None:
    layout = picture._layout(BOX)
    lefts = [layout.boxes[name].x for name in ("red", "filter", "encrypt", "black")]
    assert lefts == sorted(set(lefts))
    assert layout.columns["encrypt"] == layout.columns["decrypt"]
    below = min(layout.boxes[name].y for name in ("keymgr", "rng", "store"))
    assert below > max(layout.boxes[name].bottom for name in layout.path)
    assert layout.bus is BOX.domain("log")


@pytest.mark.parametrize("file", [VPN, TWO], ids=["one pair", "two pairs"])
def test_no_line_of_the_vpn_picture_runs_through_a_box(file: Path) -> None:
    box = load(file)
    layout = picture._layout(box)
    for line in picture._routes(box, layout):
        ends = {line.channel.client.domain, line.channel.server.domain}
        for (x1, y1), (x2, y2) in itertools.pairwise(line.points):
            for name, other in layout.boxes.items():
                if name not in ends:
                    outside = (
                        max(x1, x2) <= other.x
                        or other.right <= min(x1, x2)
                        or max(y1, y2) <= other.y
                        or other.bottom <= min(y1, y2)
                    )
                    assert outside, (line, name)


@settings(deadline=None)
@given(parts)
def test_any_assembly_is_drawn(assembly: ValidatedAssembly) -> None:
    layout = picture._layout(assembly)
    for one, other in itertools.combinations(layout.boxes.values(), 2):
        assert one.right <= other.x or other.right <= one.x or one.bottom <= other.y or other.bottom <= one.y
    drawn = [line.channel for line in picture._routes(assembly, layout)]
    bus = layout.bus.name if layout.bus else None
    expected = [channel for channel in assembly.channels if channel.server.domain != bus]
    assert sorted(map(str, drawn)) == sorted(map(str, expected))
    ElementTree.fromstring(graph.svg(assembly))


@given(parts)
def test_any_assembly_is_written(assembly: ValidatedAssembly) -> None:
    text = graph.text(assembly).plain
    dot = graph.dot(assembly)
    assert dot.startswith('digraph "a \\"part\\" <&>" {\n') and dot.endswith("}\n")
    assert dot.count("{") == dot.count("}")
    for channel in assembly.channels:
        assert re.search(
            rf"^  {channel.client.port} +-\S*-> {re.escape(str(channel.server))} +{channel.schema} ", text, re.M
        )
        assert f'"{channel.client.domain}" -> "{channel.server.domain}" [label="{channel.schema}"' in dot
    for domain in assembly.domains:
        assert f"\n{domain.name} " in text


def test_two_pairs_are_drawn_one_below_the_other() -> None:
    two = load(TWO)
    layout = picture._layout(two)
    assert {layout.columns[f"{side}{number}"] for side in ("encrypt", "decrypt") for number in (1, 2)} == {2}
    for one, other in itertools.combinations(layout.boxes.values(), 2):
        assert one.right <= other.x or other.right <= one.x or one.bottom <= other.y or other.bottom <= one.y
    drawn = [line.channel for line in picture._routes(two, layout)]
    assert len(drawn) == len([channel for channel in two.channels if channel.server.domain != "log"])
    assert (
        "tunnel_out           ------> encrypt2.plain               packets     CONTROL RED\n" in graph.text(two).plain
    )


def test_the_text_says_who_may_see_and_hold_what() -> None:
    text = graph.text(BOX).plain
    assert "encrypt PUBLIC CONTROL BLACK RED KEY  turns RED into BLACK\n" in text
    assert "red PUBLIC CONTROL RED  holds tun\n" in text
    assert "plain_out            ------> filter.red_in                packets     CONTROL RED\n" in text
    assert "random               -call-> rng.keys                     random      CONTROL KEY\n" in text


def test_a_name_cannot_break_out_of_the_drawing() -> None:
    evil = part({"log"}, set(), list(range(len(BOX.domains))))
    role = dataclasses.replace(evil.domains[0].role, summary='"]; }\\ <script>')
    object.__setattr__(evil, "domains", (dataclasses.replace(evil.domains[0], role=role),))
    assert '\\"]; }\\\\ <script>' in graph.dot(evil)
    assert "<script>" not in graph.svg(evil)
