"""Our JSON is the standard library's."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machinectl_py.codec import decode, encode

# JSON has neither infinity nor NaN, and our files hold neither.
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | numbers | st.text()
values = st.recursive(
    scalars, lambda of: st.lists(of) | st.dictionaries(st.text(), of), max_leaves=20
)


@given(values)
def test_text_is_what_json_writes_and_reads(value):
    text = encode(value)
    assert json.loads(text) == value
    assert text == json.dumps(value, separators=(",", ":"))


@given(values)
def test_what_json_writes_is_read(value):
    assert decode(json.dumps(value)) == value
    assert decode(json.dumps(value, indent=2, ensure_ascii=False)) == value


def test_tuples_are_lists():
    assert encode((1, ("a",))) == '[1,["a"]]'


def test_file_names_that_are_no_text_survive():
    name = b"/srv/\xff".decode(errors="surrogateescape")
    assert decode(encode(name)) == name


def test_what_is_no_json_value_is_refused():
    with pytest.raises(TypeError, match="cannot encode a set"):
        encode({"a": {1}})


@pytest.mark.parametrize("text", ["", "{", "[1,]", '{"a"}', "nul", '"\n"', "1 2", "[] []"])
def test_what_is_no_json_is_refused(text):
    with pytest.raises(ValueError, match=r"\w"):
        decode(text)
