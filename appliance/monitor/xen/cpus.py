"""Physical CPUs as xl's configurations write them: "0,2-3"."""

from __future__ import annotations

from collections.abc import Collection


def numbers(text: str) -> frozenset[int]:
    """The CPUs of ``text``, which the assembly has seen to be such a list; none of "" or of "3-2"."""
    ends = (part.partition("-") for part in text.split(",") if part)
    return frozenset(cpu for first, _, last in ends for cpu in range(int(first), int(last or first) + 1))


def ranges(cpus: Collection[int]) -> str:
    """The one text that numbers in order, without repetition and in as few parts as can be, have."""
    firsts = sorted(cpu for cpu in cpus if cpu - 1 not in cpus)
    lasts = sorted(cpu for cpu in cpus if cpu + 1 not in cpus)
    return ",".join(f"{one}" if one == other else f"{one}-{other}" for one, other in zip(firsts, lasts, strict=True))
