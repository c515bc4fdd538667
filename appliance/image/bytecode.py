"""Python sources as the bytecode that an image carries: without docstrings and column tables, asserts kept.

Usage of the file itself, as a program: two paths a line on standard input, source and name; on standard output a
pickle-free stream of 4-byte lengths and bytecode. Each module is compiled in a process of its own that is a copy of one
and the same: what marshal writes depends on what the interpreter has seen before.
"""

import ast
import os
import struct
import subprocess
import sys
from importlib.util import MAGIC_NUMBER, source_hash
from marshal import dumps
from typing import Final

_DOCUMENTED: Final = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
_UNCHECKED_HASH: Final = 1  # PEP 552: nobody looks for the source
_LENGTH: Final = struct.Struct("<I")


def _undocumented(source: bytes) -> ast.Module:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            first = node.body.pop(0)  # nothing may stand before an import from __future__, not even a pass
            if not node.body and not isinstance(node, ast.Module):
                node.body.append(ast.copy_location(ast.Pass(), first))
    return tree


def compiled(source: bytes, name: str) -> bytes:
    """The contents of a .pyc file; tracebacks will say ``name``. Errors: SyntaxError, ValueError."""
    code = compile(_undocumented(source), name, "exec", dont_inherit=True, optimize=0)
    return MAGIC_NUMBER + _UNCHECKED_HASH.to_bytes(4, "little") + source_hash(source) + dumps(code)


def _in_a_copy(path: str, name: str) -> bytes:
    inside, outside = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(inside)
        with open(path, "rb") as file, open(outside, "wb") as pipe:
            pipe.write(compiled(file.read(), name))
        os._exit(0)
    os.close(outside)
    with open(inside, "rb") as pipe:
        made = pipe.read()
    if os.waitpid(pid, 0)[1]:
        raise SystemExit(f"{path} cannot be compiled")
    return made


def _main() -> None:
    for line in sys.stdin.read().splitlines():
        path, name = line.split("\t")
        made = _in_a_copy(path, name)
        sys.stdout.buffer.write(_LENGTH.pack(len(made)) + made)


def compile_all(interpreter: str, sources: dict[str, str]) -> dict[str, bytes]:
    """The bytecode of each of ``sources``, which are paths and the names that tracebacks will say.

    Errors: CalledProcessError, whose stderr says what cannot be compiled.
    """
    command = [interpreter, "-I", "-S", "-B", "-X", "no_debug_ranges", __file__]
    jobs = "".join(f"{path}\t{name}\n" for path, name in sources.items())
    answer = subprocess.run(command, input=jobs.encode(), capture_output=True, timeout=300, check=True).stdout
    made, at = {}, 0
    for path in sources:
        (length,) = _LENGTH.unpack_from(answer, at)
        at += _LENGTH.size
        made[path] = answer[at : at + length]
        at += length
    return made


if __name__ == "__main__":
    _main()
