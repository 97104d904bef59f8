"""Plain values as bytes that nothing else has."""

from __future__ import annotations

import math
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.caches.canonical import canonical
from mesh.errors import SetupError

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)


def same(left: Any, right: Any) -> bool:
    """Equal in kind as well as in value."""
    if type(left) is not type(right):
        return False
    if isinstance(left, float):
        return struct.pack(">d", left) == struct.pack(">d", right)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    return left == right


@given(PLAIN, PLAIN)
def test_two_values_have_the_same_bytes_only_where_they_are_the_same(left: Any, right: Any) -> None:
    assert (canonical(left) == canonical(right)) == same(left, right)


@given(PLAIN, PLAIN)
def test_no_value_begins_with_another(left: Any, right: Any) -> None:
    if not same(left, right):
        assert not canonical(left).startswith(canonical(right))


@given(st.dictionaries(st.text(max_size=3), st.integers(), max_size=6))
def test_the_order_of_a_mapping_does_not_matter(value: dict[str, int]) -> None:
    assert canonical(value) == canonical(dict(reversed(value.items())))


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (["ab", "c"], ["a", "bc"]),
        ([["a"], "b"], [["a", "b"]]),
        (1, True),
        (1, 1.0),
        (0.0, -0.0),
        ("1", 1),
        ("a", b"a"),
        (None, False),
        ([], {}),
        ({"a": {"b": 1}}, {"a": {}, "b": 1}),
        (10**30, 10**30 + 1),
        ("\ud800", "?"),
    ],
)
def test_values_that_look_alike_differ(left: object, right: object) -> None:
    assert canonical(left) != canonical(right)


def test_a_nan_equals_itself_and_a_tuple_its_list() -> None:
    assert canonical(math.nan) == canonical(math.nan)
    assert canonical((1, "a")) == canonical([1, "a"])


def test_what_is_no_plain_value_is_refused() -> None:
    with pytest.raises(SetupError, match="a set cannot be part of a cache key"):
        canonical({"a": [{1, 2}]})
    with pytest.raises(SetupError, match="keys other than texts"):
        canonical({1: "a"})


def test_a_value_that_holds_itself_is_refused() -> None:
    endless: list[object] = []
    endless.append(endless)
    with pytest.raises(SetupError, match="more than 64 levels"):
        canonical(endless)
