"""The import gate: in a domain, what component.toml does not declare cannot be imported.

The gate stands while the component's code is loaded. After the seal nothing can be opened any more, so an import that
comes late fails whatever it names.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Final

# Every domain runs these; they are the guest runtime itself and the schemas.
RUNTIME: Final = frozenset({"appliance", "septum"})

# Of the standard library, what reaches out of the process must be declared like any other library; and OpenSSL, which
# `hashlib` would bring along to offer what Python has by itself.
REACHES_OUT: Final = frozenset(
    """_hashlib _posixsubprocess _socket _ssl asyncio concurrent ctypes dbm ftplib http imaplib
    multiprocessing nntplib poplib pty smtplib socket socketserver sqlite3 ssl subprocess telnetlib
    tempfile urllib venv webbrowser xmlrpc""".split()
)


class ImportGate:
    """A meta path finder that finds nothing and refuses what is not declared.

    ``declared`` are top-level module names from component.toml; ``component`` is the one folder of ``components`` that
    this domain runs. Errors: ImportError, naming the line to add.
    """

    def __init__(self, component: str, declared: Iterable[str]) -> None:
        self._component = component
        self._declared = RUNTIME | frozenset(declared)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        top, *rest = fullname.split(".")
        if top == "components":
            if rest and rest[0] != self._component:
                raise ImportError(f"{fullname}: component {self._component!r} must not import another component")
        elif top == "appliance":
            if rest and rest[0] not in ("guest", "vchan", "signed"):
                raise ImportError(
                    f"{fullname}: a component imports only appliance.guest, appliance.vchan and appliance.signed"
                )
        elif top not in self._declared and (top in REACHES_OUT or top not in sys.stdlib_module_names):
            raise ImportError(
                f"{fullname} is not declared: add {top!r} to `imports` in components/{self._component}/component.toml"
            )
        return None


def close_gate(component: str, declared: Iterable[str]) -> None:
    """From here on only what is declared can be imported."""
    sys.meta_path.insert(0, ImportGate(component, declared))
