"""What is compiled for an image behaves as its source, says where it failed, and has the same bytes each time."""

from __future__ import annotations

import marshal
from pathlib import Path
from types import CodeType

import pytest

from appliance.image import bytecode
from appliance.image.closure import INTERPRETER

SOURCE = b'''"""About the module."""
from __future__ import annotations

class A:
    """Only this."""

def f(x: int) -> int:
    """About f."""
    assert x > 0, "positive"
    return x + 1
'''


def code(data: bytes) -> CodeType:
    found = marshal.loads(data[16:])
    assert isinstance(found, CodeType)
    return found


def test_docstrings_go_and_asserts_stay() -> None:
    names: dict[str, object] = {"__name__": "m"}
    exec(code(bytecode.compiled(SOURCE, "m.py")), names)  # noqa: S102 - what is compiled is to run
    function = names["f"]
    assert callable(function)
    assert names.get("__doc__") is None
    assert function.__doc__ is None
    assert function(1) == 2
    with pytest.raises(AssertionError, match="positive"):
        function(0)


def test_a_traceback_says_name_and_line() -> None:
    inner = next(each for each in code(bytecode.compiled(SOURCE, "net/m.py")).co_consts if isinstance(each, CodeType))
    assert inner.co_filename == "net/m.py"


def test_bytes_do_not_depend_on_what_is_compiled_beside_it(tmp_path: Path) -> None:
    one, two = tmp_path / "one.py", tmp_path / "two.py"
    one.write_bytes(SOURCE)
    two.write_bytes(b"names = {'positive': 1, 'x': 2, 'only': frozenset({'x', 'f', 'A', 'positive'})}\n")
    interpreter = str(INTERPRETER)
    together = bytecode.compile_all(interpreter, {str(two): "two.py", str(one): "one.py"})
    alone = bytecode.compile_all(interpreter, {str(one): "one.py"})
    assert together[str(one)] == alone[str(one)]
    assert bytecode.compile_all(interpreter, {str(one): "one.py", str(two): "two.py"}) == together


def test_column_tables_are_left_out(tmp_path: Path) -> None:
    file = tmp_path / "m.py"
    file.write_bytes(SOURCE)
    made = code(bytecode.compile_all(str(INTERPRETER), {str(file): "m.py"})[str(file)])
    assert {column for *_, column in made.co_positions()} == {None}
