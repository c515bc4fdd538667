"""`septum up` goes straight to work with what it understands at once, and hands all else to those who explain."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.cli.septum import plain_up


def test_words_that_are_plain() -> None:
    assert plain_up(["a.conf", "--assembly", "vpn-2"]) == {"file": Path("a.conf"), "assembly": "vpn-2"}
    assert plain_up(["a.conf", "--rules", "x"]) == {"file": Path("a.conf"), "rules": Path("x")}
    assert plain_up(["wg0.conf"]) == {"file": Path("wg0.conf")}
    assert plain_up(["--lan", "eth1", "wg0.conf", "--wan", "eth0", "--name", "a", "--foreground"]) == {
        "file": Path("wg0.conf"),
        "lan": "eth1",
        "wan": "eth0",
        "name": "a",
        "foreground": True,
    }


@pytest.mark.parametrize(
    "words", [[], ["-h"], ["a", "b"], ["a", "--lan"], ["a", "--lan", "--wan"], ["a", "--lan=x"], ["a", "--x"], [""]]
)
def test_words_that_want_more_than_that(words: list[str]) -> None:
    assert plain_up(words) is None
