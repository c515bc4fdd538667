"""A secret shows itself only through reveal()."""

from __future__ import annotations

import pickle

import pytest

from appliance.guest.secret import Secret


def test_is_never_shown() -> None:
    secret = Secret(b"hunter2")
    assert "hunter2" not in f"{secret} {secret!r} {secret!s} {[secret]}"
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(secret)
    with pytest.raises(TypeError):
        hash(secret)


def test_compares_and_wipes() -> None:
    secret = Secret(b"hunter2")
    assert secret == Secret(b"hunter2")
    assert secret != Secret(b"hunter3")
    assert secret != b"hunter2"
    assert len(secret) == 7
    secret.wipe()
    assert secret.reveal() == bytes(7)
