"""Settings of a component: a plain table from the assembly, turned into the component's own frozen dataclass.

The same ``parse`` of ``components/X/settings.py`` runs twice: when the assembly is validated, so that the error names a
file and a line, and in the domain, which trusts nobody to have done so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence


class SettingsError(ValueError):
    """A setting that cannot be used: ``path`` says which one (``peers[2].allowed_ips[0]``), ``why`` says what to do.

    ``known`` are the keys there are, where one was given that there is not.
    """

    def __init__(self, path: str, why: str, known: Sequence[str] = ()) -> None:
        super().__init__(f"{path}: {why}" if path else why)
        self.path = path
        self.why = why
        self.known = known


_NAMES = {int: "a whole number", str: "a text", bool: "true or false", list: "a list", dict: "a table"}
_REQUIRED = object()


class Table:
    """A table of settings being read, key by key; ``done()`` then refuses every key that nobody asked for.

    Errors: SettingsError with the full path of the key.
    """

    def __init__(self, table: Mapping[str, object], path: str = "") -> None:
        if not isinstance(table, Mapping):
            raise SettingsError(path, f"must be a table, not {table!r}")
        self._table = table
        self._path = path
        self._asked: set[str] = set()

    def where(self, key: str) -> str:
        return f"{self._path}.{key}" if self._path else key

    def _get(self, key: str, kind: type, default: object) -> object:
        self._asked.add(key)
        value = self._table.get(key, default)
        if value is _REQUIRED:
            raise SettingsError(self.where(key), f"is missing; it must be {_NAMES[kind]}")
        # bool is an int to Python, and is not one to anybody who writes a configuration
        if value is not default and (not isinstance(value, kind) or (kind is int and isinstance(value, bool))):
            raise SettingsError(self.where(key), f"must be {_NAMES[kind]}")
        return value

    def integer(self, key: str, low: int, high: int, default: object = _REQUIRED) -> int:
        """A whole number in low..high."""
        value = self._get(key, int, default)
        assert isinstance(value, int)
        if not low <= value <= high:
            raise SettingsError(self.where(key), f"must be in {low} to {high}, not {value}")
        return value

    def text(self, key: str, default: object = _REQUIRED, longest: int = 256) -> str:
        """A text of at most ``longest`` characters."""
        value = self._get(key, str, default)
        assert isinstance(value, str)
        if len(value) > longest:
            raise SettingsError(self.where(key), f"must have at most {longest} characters")
        return value

    def texts(self, key: str, most: int, default: object = _REQUIRED) -> list[str]:
        """A list of at most ``most`` texts."""
        values = self._get(key, list, default)
        assert isinstance(values, list)
        if len(values) > most:
            raise SettingsError(self.where(key), f"must have at most {most} items, not {len(values)}")
        for i, value in enumerate(values):
            if not isinstance(value, str):
                raise SettingsError(f"{self.where(key)}[{i}]", "must be a text")
        return values

    def tables(self, key: str, most: int) -> Iterator[Table]:
        """A list of at most ``most`` tables; an absent one is empty."""
        values = self._get(key, list, [])
        assert isinstance(values, list)
        if len(values) > most:
            raise SettingsError(self.where(key), f"must have at most {most} items, not {len(values)}")
        for i, value in enumerate(values):
            yield Table(value, f"{self.where(key)}[{i}]")

    def flag(self, key: str) -> bool:
        """True or false; an absent one is false."""
        value = self._get(key, bool, False)
        assert isinstance(value, bool)
        return value

    def lists(self, key: str, most: int) -> Iterator[tuple[str, list[object]]]:
        """A list of at most ``most`` lists, each with its path; an absent one is empty."""
        values = self._get(key, list, [])
        assert isinstance(values, list)
        if len(values) > most:
            raise SettingsError(self.where(key), f"must have at most {most} items, not {len(values)}")
        for i, value in enumerate(values):
            where = f"{self.where(key)}[{i}]"
            if not isinstance(value, list):
                raise SettingsError(where, "must be a list")
            yield where, value

    def table(self, key: str) -> Table | None:
        """A table in the table, if it is there."""
        value = self._get(key, dict, None)
        assert value is None or isinstance(value, dict)
        return None if value is None else Table(value, self.where(key))

    def mapping(self, key: str) -> dict[str, object] | None:
        """The same, to be read elsewhere."""
        value = self._get(key, dict, None)
        assert value is None or isinstance(value, dict)
        return value

    def integers(self, key: str, most: int, low: int, high: int) -> tuple[int, ...]:
        """A list of at most ``most`` whole numbers in low..high; an absent one is empty."""
        values = self._get(key, list, [])
        assert isinstance(values, list)
        return _integers(self.where(key), values, 0, [(low, high)] * most)

    def rows(self, key: str, most: int, *bounds: tuple[int, int], least: int | None = None) -> list[tuple[int, ...]]:
        """A list of at most ``most`` lists of whole numbers, each in its bounds: as many as those are, or at least
        ``least`` of them. An absent one is empty.
        """
        fewest = len(bounds) if least is None else least
        return [_integers(where, values, fewest, bounds) for where, values in self.lists(key, most)]

    def done(self) -> None:
        """Refuses the keys that were never asked for."""
        for key in self._table:
            if key not in self._asked:
                raise SettingsError(self.where(key), "is not a setting", sorted(self._asked))


def _integers(path: str, values: list[object], least: int, bounds: Sequence[tuple[int, int]]) -> tuple[int, ...]:
    if not least <= len(values) <= len(bounds):
        raise SettingsError(path, f"must have {least} to {len(bounds)} items, not {len(values)}")
    found = []
    for i, (value, (low, high)) in enumerate(zip(values, bounds, strict=False)):
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise SettingsError(f"{path}[{i}]", f"must be a whole number in {low} to {high}")
        found.append(value)
    return tuple(found)
