"""Every key that tomllib reads has a line, and on that line the key is written."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.assembly.lines import lines

ROOT = Path(__file__).parents[2]


def paths(value: object, path: tuple[str | int, ...] = ()) -> set[tuple[str | int, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = {path} - {()}
    for key, inner in items:
        found |= paths(inner, (*path, key))
    return found


@pytest.mark.parametrize(
    "file",
    [*ROOT.glob("assemblies/*.toml"), *ROOT.glob("components/*/component.toml"), ROOT / "pyproject.toml"],
    ids=str,
)
def test_every_key_of_our_own_files_has_its_line(file: Path) -> None:
    text = file.read_text()
    found = lines(text)
    assert set(found) == paths(tomllib.loads(text))
    for path, line in found.items():
        keys = [part for part in path if isinstance(part, str)]
        if isinstance(path[-1], str):
            assert keys[-1] in text.splitlines()[line - 1]


TRICKY = '''\
# comment = "no"
top = """
[not.a.table]
x = 1 \\""" still
"""
'quoted key'."with \\"dots. and]" = [ # a comment ] in an array
  1, {a = "}", b.c = [2, 3]},   # and , here
  \'\'\'
multi ] line\'\'\',
]
when = 1979-05-27 07:32:00
[a.b]
c = 1
[[a.list]]
x = "#"
[a.list.sub]
y = 1
[[a.list]]
x = 2
[[a.list.deep]]
z = 3
[a]
late = 1
'''


def test_tricky_text() -> None:
    found = lines(TRICKY)
    assert set(found) == paths(tomllib.loads(TRICKY))
    where = {
        ("top",): 2,
        ("quoted key", 'with "dots. and]'): 6,
        ("quoted key", 'with "dots. and]', 1, "b", "c", 1): 7,
        ("quoted key", 'with "dots. and]', 2): 8,
        ("when",): 11,
        ("a", "b", "c"): 13,
        ("a", "list", 0, "sub", "y"): 17,
        ("a", "list", 1, "x"): 19,
        ("a", "list", 1, "deep", 0, "z"): 21,
        ("a", "late"): 23,
    }
    assert {path: found[path] for path in where} == where
    assert lines(TRICKY.replace("\n", "\r\n")) == found


def quoted(text: str) -> str:
    return '"' + "".join(f"\\U{ord(c):08x}" for c in text) + '"'


keys = st.text(st.characters(codec="utf-8"), max_size=6)
scalars = st.one_of(
    st.integers(-(2**40), 2**40).map(str),
    st.booleans().map(lambda b: str(b).lower()),
    keys.map(quoted),
    st.sampled_from(["''", "'#]'", '"""\n"""', "'''\n]\n'''", '"""a""""', "''''''", "1979-05-27 07:32:00"]),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda parts: "[\n" + ", # ]\n".join(parts) + "\n]"),
        st.dictionaries(keys, inner, max_size=3).map(
            lambda table: "{" + ", ".join(f"{quoted(k)} = {v}" for k, v in table.items()) + "}"
        ),
    ),
    max_leaves=8,
)


@given(
    st.dictionaries(keys, values, max_size=4),
    st.dictionaries(keys, st.dictionaries(keys, values, max_size=2), max_size=2),
)
def test_any_toml(pairs: dict[str, str], tables: dict[str, dict[str, str]]) -> None:
    text = "".join(f"{quoted(k)} = {v} # x = 1\n" for k, v in pairs.items())
    for i, (name, table) in enumerate(tables.items()):
        text += f"[[arrays.{quoted(name)}]]\n[tables.t{i}.{quoted(name)}]\n"
        text += "".join(f"{quoted(k)} = {v}\n" for k, v in table.items())
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return  # e.g. the key "arrays" twice
    assert set(lines(text)) == paths(data)
