"""Equal values are equal bytes, and nothing else is read."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.signed import canonical
from appliance.signed.refusal import Refusal, Why

VALUES = st.recursive(
    st.booleans() | st.integers(-canonical.LARGEST_INTEGER, canonical.LARGEST_INTEGER) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=20,
)


@given(VALUES)
def test_what_is_encoded_is_read_again(value: Any) -> None:
    text = canonical.encode(value)
    assert canonical.decode(text, len(text)) == value
    with pytest.raises(Refusal) as refused:
        canonical.decode(text, len(text) - 1)
    assert refused.value.why is Why.MALFORMED


@given(VALUES)
def test_other_ways_of_writing_the_same_are_refused(value: Any) -> None:
    text = canonical.encode(value)
    for other in (json.dumps(value).encode(), json.dumps(value, indent=1).encode(), text + b" ", b" " + text):
        if other != text:
            with pytest.raises(Refusal):
                canonical.decode(other, 1 << 20)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b'{"a":1,"a":1}',
        b'{"b":1,"a":1}',
        b"1.0",
        b"1e3",
        b"-0",
        b"01",
        b"null",
        b"NaN",
        b'"\xc3\xa4"',
        b'"\\u00E4"',
        b'"\\/"',
        b"9007199254740993",
        b"\xff",
        b"[" * 100_000,
        b"\xef\xbb\xbf1",
        b"1" * 5000,
        b'"\\ud800"',
        b'{"\\ud800":1}',
    ],
)
def test_what_is_not_canonical_is_refused(text: bytes) -> None:
    with pytest.raises(Refusal) as refused:
        canonical.decode(text, 1 << 20)
    assert refused.value.why is Why.MALFORMED


@pytest.mark.parametrize("value", [1.5, None, b"x", {1: 2}, [None], {"a": 0.1}])
def test_what_has_no_canonical_form_is_not_written(value: Any) -> None:
    with pytest.raises(TypeError):
        canonical.encode(value)


@pytest.mark.parametrize("value", ["\ud800", {"\udfff": 1}, ["x\ud800y"]])
def test_half_a_surrogate_pair_is_no_text(value: Any) -> None:
    with pytest.raises(ValueError, match="surrogates"):
        canonical.encode(value)


def test_numbers_beyond_what_every_reader_holds_are_not_written() -> None:
    with pytest.raises(ValueError, match="too large"):
        canonical.encode(2**53)
