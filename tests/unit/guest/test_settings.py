"""Settings are read key by key, and whatever nobody asked for is refused."""

from __future__ import annotations

import pytest

from appliance.guest.settings import SettingsError, Table


def test_reads_what_is_there() -> None:
    table = Table({"port": 51820, "name": "x", "list": ["a", "b"], "peers": [{"key": "k"}]})
    assert table.integer("port", 0, 65535) == 51820
    assert table.text("name") == "x"
    assert table.texts("list", 2) == ["a", "b"]
    assert [peer.text("key") for peer in table.tables("peers", 4)] == ["k"]
    assert table.integer("absent", 0, 9, 7) == 7
    table.done()


@pytest.mark.parametrize(
    ("settings", "path", "why"),
    [
        ({"port": "51820"}, "port", "must be a whole number"),
        ({"port": True}, "port", "must be a whole number"),
        ({"port": 65536}, "port", "must be in 0 to 65535, not 65536"),
        ({}, "port", "is missing; it must be a whole number"),
    ],
)
def test_refuses_what_does_not_fit(settings: dict[str, object], path: str, why: str) -> None:
    with pytest.raises(SettingsError) as refused:
        Table(settings).integer("port", 0, 65535)
    assert (refused.value.path, refused.value.why) == (path, why)


def test_refuses_unknown_keys_and_says_which_there_are() -> None:
    table = Table({"listen_prot": 1})
    table.integer("listen_port", 0, 9, 0)
    with pytest.raises(SettingsError, match="listen_prot: is not a setting") as refused:
        table.done()
    assert refused.value.known == ["listen_port"]


def test_names_the_path_of_nested_tables() -> None:
    (first, second) = Table({"peers": [{"key": "a"}, {"key": 3}]}).tables("peers", 2)
    assert first.text("key") == "a"
    with pytest.raises(SettingsError, match=r"peers\[1\].key: must be a text"):
        second.text("key")
    with pytest.raises(SettingsError, match=r"peers\[0\]: must be a table"):
        list(Table({"peers": ["no"]}).tables("peers", 2))


def test_bounds_lists_and_texts() -> None:
    with pytest.raises(SettingsError, match="at most 1 items"):
        Table({"list": ["a", "b"]}).texts("list", 1)
    with pytest.raises(SettingsError, match=r"list\[1\]: must be a text"):
        Table({"list": ["a", 1]}).texts("list", 3)
    with pytest.raises(SettingsError, match="at most 3 characters"):
        Table({"name": "four"}).text("name", longest=3)
