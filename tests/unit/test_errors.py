from __future__ import annotations

import copy
import pickle
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh import errors
from mesh.errors import (
    REQUEST_ERRORS,
    InvalidInput,
    MeshError,
    NodeFailed,
    Overloaded,
    Problem,
    RequestError,
    SetupError,
    TopologyError,
    Unavailable,
)


def _subclasses(error: type[RequestError]) -> set[type[RequestError]]:
    direct = set(error.__subclasses__())
    return direct.union(*(_subclasses(one) for one in direct))


def test_every_request_error_is_in_the_table_under_a_grpc_status() -> None:
    made = {error for error in _subclasses(RequestError) if error.__module__ == errors.__name__}
    assert set(REQUEST_ERRORS.values()) == {error for error in made if not error.__name__.startswith("_")}
    for code, error in REQUEST_ERRORS.items():
        assert error.code == code
        assert grpc.StatusCode[code] is not grpc.StatusCode.OK


def test_the_table_in_the_docstring_is_the_one_in_the_code() -> None:
    rows = [line.split("|")[1:4] for line in (errors.__doc__ or "").splitlines() if line.startswith("|")][2:]
    told = {(name.strip(), code.strip(), retryable.strip().startswith("yes")) for name, code, retryable in rows}
    assert told == {(error.__name__, code, error.retryable) for code, error in REQUEST_ERRORS.items()}


def test_the_tree_has_two_branches() -> None:
    assert issubclass(SetupError, MeshError)
    assert issubclass(RequestError, MeshError)
    assert not issubclass(RequestError, SetupError)


FIELDS: dict[str, Any] = {"node": "n", "tensor": "t", "row": 3, "request_id": "r"}


@pytest.mark.parametrize("changed", FIELDS)
def test_errors_are_equal_when_every_field_is(changed: str) -> None:
    one = InvalidInput("why", **FIELDS)
    assert one == InvalidInput("why", **FIELDS)
    assert hash(one) == hash(InvalidInput("why", **FIELDS))
    others: dict[str, Any] = {**FIELDS, changed: None if changed == "row" else "other"}
    assert one != InvalidInput("why", **others)
    assert one != InvalidInput("other", **FIELDS)
    assert one != NodeFailed("why", **FIELDS)
    for hinted in (Overloaded, Unavailable):
        assert hinted("why", retry_after_s=1.0) != hinted("why", retry_after_s=2.0)


def test_an_error_that_knows_its_node_is_not_told_another() -> None:
    error = InvalidInput("why")
    error.locate(node="first", request_id="r")
    error.locate(node="second", request_id="s")
    assert (error.node, error.request_id) == ("first", "r")
    assert str(error) == "node first: why"
    assert str(InvalidInput("why")) == "why"


def test_the_row_is_told_beside_the_text_and_moves_with_it() -> None:
    error = InvalidInput("why", node="first", row=3)
    assert (error.text, error.told, str(error)) == ("why", "row 3: why", "node first: row 3: why")
    error.row = 0
    assert str(error) == "node first: row 0: why"


@given(st.text(), st.text(max_size=10))
def test_short_texts_are_kept(text: str, name: str) -> None:
    error = NodeFailed(text[:512], node=name, tensor=name, request_id=name)
    assert (error.text, error.node, error.tensor, error.request_id) == (text[:512], name, name, name)


@pytest.mark.parametrize("character", ["a", "é", "\U0001f600"])
def test_long_texts_are_cut_to_what_headers_hold(character: str) -> None:
    error = NodeFailed(character * 5000, node=character * 600, tensor=character * 600, request_id=character * 600)
    assert error.text == str(error.args[0]) == character * (2048 // len(character.encode()))
    assert error.node == error.tensor == error.request_id == character * (512 // len(character.encode()))


def test_text_that_utf8_cannot_spell_is_made_so_that_it_can() -> None:
    assert NodeFailed("a\ud800b").text == "a?b"


@pytest.mark.parametrize(
    ("given_s", "kept_s"),
    [(0.1, 0.1), (-1.0, 0.0), (float("nan"), 0.0), (float("inf"), 86400.0), (1.23456789012, 1.23456789)],
)
def test_a_hint_is_a_time_that_makes_sense(given_s: float, kept_s: float) -> None:
    for hinted in (Overloaded, Unavailable):
        assert hinted("full", retry_after_s=given_s).retry_after_s == kept_s


@pytest.mark.parametrize("made", REQUEST_ERRORS.values())
def test_errors_are_equal_after_copy_and_pickle(made: type[RequestError]) -> None:
    error = made("why", **FIELDS)
    assert copy.copy(error) == error
    assert pickle.loads(pickle.dumps(error)) == error


def test_problems_are_told_once_each_in_the_order_of_the_file() -> None:
    later, earlier = Problem("f", 9, 1, "b"), Problem("f", 2, 4, "a", hint="try c")
    error = TopologyError([later, earlier, later])
    assert error.problems == (earlier, later)
    assert str(error) == "f:2:4: error: a (try c)\nf:9:1: error: b"
