"""What an image may weigh, as budgets.toml says."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Final, NamedTuple

FILE: Final = Path(__file__).with_name("budgets.toml")


class BudgetError(Exception):
    """An image that weighs more than it may, or has no budget; the text says by how much, and of what it is made."""


class Budget(NamedTuple):
    """At most ``bytes`` of kernel and initramfs, compressed; ``memory_mib`` of memory for the domain."""

    name: str
    bytes: int
    memory_mib: int


def read(text: str) -> dict[str, Budget]:
    """The budget of each role. Errors: BudgetError."""
    found: dict[str, Budget] = {}
    for name, table in tomllib.loads(text).items():
        if set(table) != {"roles", "bytes", "memory_mib"}:
            raise BudgetError(f"[{name}] must have roles, bytes and memory_mib, and nothing else")
        budget = Budget(name, table["bytes"], table["memory_mib"])
        for role in table["roles"]:
            if role in found:
                raise BudgetError(f"[{name}]: {role} has the budget [{found[role].name}] already")
            found[role] = budget
    return found


def of(role: str) -> Budget:
    """The budget of ``role``. Errors: BudgetError."""
    try:
        return read(FILE.read_text())[role]
    except KeyError:
        raise BudgetError(f"{role} has no budget: give it one in {FILE.name}") from None
