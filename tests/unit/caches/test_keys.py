"""Keys tell apart whatever an answer depends on, and nothing else."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from mesh.caches import KeySpec, RowKeys, Trust, digest_rows
from mesh.caches.contents import LARGE
from mesh.context import Digests, Parameter
from mesh.errors import InvalidInput, SetupError
from mesh.tensors import Tensors
from tests.unit.caches.given import batches, bits

SPEC = KeySpec(uses="nodes.onnx:OnnxPredict", model_digest=b"m" * 32, version="1", arguments={"a": 1, "b": [2]})
ROWS = Tensors({"x": np.arange(6, dtype=np.float32).reshape(3, 2), "t": np.array(["a", "", "ä"])})
TRUSTS: list[Trust] = ["private", "shared"]


@pytest.mark.parametrize("trust", TRUSTS)
@given(batch=batches())
def test_rows_have_the_same_key_only_where_they_are_the_same_in_any_batch(trust: Trust, batch: Tensors) -> None:
    keys = RowKeys(replace(SPEC, trust=trust))
    found = keys.digest_rows(batch)
    assert len(found) == batch.rows
    assert {len(key) for key in found} <= {16 if trust == "private" else 32}
    alone = [batch.take(row, row + 1) for row in range(batch.rows)]
    assert [keys.digest_rows(row) for row in alone] == [[key] for key in found]
    for key, row in zip(found, alone, strict=True):
        for other_key, other in zip(found, alone, strict=True):
            assert (key == other_key) == (bits(row) == bits(other))


@given(left=batches(1, 2), right=batches(1, 2))
def test_rows_of_other_names_datatypes_and_shapes_have_other_keys(left: Tensors, right: Tensors) -> None:
    keys = RowKeys(SPEC)
    one, other = left.take(0, 1), right.take(0, 1)
    assert (keys.digest_rows(one) == keys.digest_rows(other)) == (bits(one) == bits(other))


@pytest.mark.parametrize(
    "other",
    [
        replace(SPEC, uses="nodes.onnx:OnnxPredict2"),
        replace(SPEC, model_digest=b"n" * 32),
        replace(SPEC, model_digest=b""),
        replace(SPEC, version="2"),
        replace(SPEC, arguments={"a": 1.0, "b": [2]}),
        replace(SPEC, arguments={"a": 1, "b": 2}),
        replace(SPEC, secret=b"s"),
        replace(SPEC, inputs=("x",)),
        replace(SPEC, trust="shared"),
    ],
)
def test_other_nodes_have_other_keys(other: KeySpec) -> None:
    assert set(digest_rows(SPEC, ROWS)).isdisjoint(digest_rows(other, ROWS))


def test_nodes_and_requests_that_are_written_in_another_order_have_the_same_keys() -> None:
    keys = digest_rows(SPEC, ROWS, outputs=("p", "q"))
    assert digest_rows(replace(SPEC, arguments={"b": [2], "a": 1}), ROWS, outputs=("q", "p")) == keys
    assert digest_rows(replace(SPEC, inputs=("t", "x")), ROWS, outputs=("q", "p")) == keys
    assert digest_rows(SPEC, Tensors(dict(reversed(list(ROWS.items())))), outputs=("p", "q")) == keys


def test_keys_stay_as_they_are_from_one_release_to_the_next() -> None:
    # Keys of a shared cache outlive a process. Whoever changes them on purpose changes the version in them.
    assert digest_rows(SPEC, ROWS)[0].hex() == "9e89fc27967800fad9ab21e0fb4d2cd6"
    shared = digest_rows(replace(SPEC, trust="shared"), ROWS)[0].hex()
    assert shared == "908101fe8d59213b925f97607627908ca133d4f151fa336bb82ac67f77c2f295"
    assert digest_rows(SPEC, _large(1))[0].hex() == "3e1cde098e8ee62cf78472b407a2dd68"
    shared = digest_rows(replace(SPEC, trust="shared"), _large(1))[0].hex()
    assert shared == "382a32027b2594ca32f7feee91e1b59eb2ab2b600ebbeb98036b32f707951661"


def test_only_inputs_that_count_count() -> None:
    narrow = replace(SPEC, inputs=("x",))
    other = Tensors({"x": ROWS["x"], "t": np.array(["b", "c", "d"])})
    assert digest_rows(narrow, ROWS) == digest_rows(narrow, other)
    assert set(digest_rows(SPEC, ROWS)).isdisjoint(digest_rows(SPEC, other))


def test_outputs_that_were_asked_for_count() -> None:
    asked = [digest_rows(SPEC, ROWS, outputs=outputs)[0] for outputs in ((), ("p",), ("q",), ("p", "q"), ("pq",))]
    assert len(set(asked)) == 5


def test_only_parameters_that_are_named_count_and_each_kind_is_its_own() -> None:
    keys = RowKeys(replace(SPEC, parameters=("k", "l")))
    told: list[dict[str, Parameter]] = [{}, {"k": 1}, {"k": True}, {"k": 1.0}, {"k": "1"}, {"l": 1}, {"k": 1, "l": 1}]
    found = [keys.digest_rows(ROWS, parameters=parameters)[0] for parameters in told]
    assert len(set(found)) == len(told)
    assert keys.digest_rows(ROWS, parameters={"k": 1, "other": 2})[0] == found[1]


def test_elements_of_bytes_do_not_run_together() -> None:
    pairs = np.empty((4, 2), dtype=object)
    pairs[:] = [[b"ab", b"c"], [b"a", b"bc"], [b"", b"abc"], [b"abc", b""]]
    assert len(set(digest_rows(SPEC, Tensors({"x": pairs})))) == 4


@pytest.mark.parametrize("trust", TRUSTS)
def test_long_rows_and_rows_apart_in_memory_have_the_keys_of_their_bytes(trust: Trust) -> None:
    spec = replace(SPEC, trust=trust)
    rng = np.random.default_rng(1)
    for width in (10, 1024, 1025, 100_000):
        wide = rng.integers(0, 255, (3, 2 * width), dtype=np.uint8).view(np.float16)[:, ::2]
        keys = digest_rows(spec, Tensors({"x": wide}))
        assert keys == digest_rows(spec, Tensors({"x": np.ascontiguousarray(wide)}))
        assert len(set(keys)) == 3
        again = Tensors({"x": wide, "y": wide[:, :1]})
        assert len({*keys, *digest_rows(spec, again)}) == 6


def test_a_batch_without_rows_has_no_keys() -> None:
    assert digest_rows(SPEC, ROWS.take(0, 0)) == []


def _large(fill: int, *, rows: int = 3) -> Tensors:
    """Rows that differ in their last element."""
    numbers = np.full((rows, LARGE // 4), fill, np.int32)
    numbers[:, -1] = np.arange(rows)
    return Tensors({"x": numbers})


@pytest.mark.parametrize("trust", TRUSTS)
def test_what_was_digested_for_one_node_serves_the_next(trust: Trust) -> None:
    one, other = RowKeys(replace(SPEC, trust=trust)), RowKeys(replace(SPEC, trust=trust, version="2"))
    files = Tensors({"x": np.array([b"a" * LARGE, b"b", b"c" * 2 * LARGE, None], object)[:-1]})
    for request in (_large(1), files):
        digests: Digests = {}
        keys = one.digest_rows(request, digests=digests)
        assert keys == one.digest_rows(request)
        assert [array is request["x"] for array, _ in digests.values()] == [True]
        assert other.digest_rows(request, digests=digests) == other.digest_rows(request)
        ((place, (array, _)),) = digests.items()
        digests[place] = (array, dict.fromkeys(range(3), b"d" * 16))
        assert set(one.digest_rows(request, digests=digests)).isdisjoint({keys[0], keys[2]}), "it was hashed again"


def test_each_array_and_each_kind_of_digest_is_remembered_by_itself() -> None:
    digests: Digests = {}
    for trust in TRUSTS:
        keys = RowKeys(replace(SPEC, trust=trust))
        for fill in (1, 2):
            for request in (_large(fill), Tensors({"y": _large(fill)["x"], "x": _large(3)["x"]})):
                assert keys.digest_rows(request, digests=digests) == keys.digest_rows(request)
    assert len(digests) == 2 * 2 * 3


def test_small_rows_are_not_remembered() -> None:
    digests: Digests = {}
    RowKeys(SPEC).digest_rows(ROWS, digests=digests)
    RowKeys(SPEC).digest_rows(Tensors({"x": np.zeros((100, LARGE - 1), np.uint8)}), digests=digests)
    assert digests == {}


def test_a_row_of_bytes_is_keyed_alike_in_any_batch_and_is_never_taken_for_the_digest_of_another() -> None:
    keys = RowKeys(SPEC)
    large = b"x" * LARGE
    stands_for_it = (2**64 - 1).to_bytes(8, "little") + xxhash.xxh3_128_digest(len(large).to_bytes(8, "little") + large)
    items = [large, large[:-9], large[:-8], stands_for_it, stands_for_it[8:], b"", large + b"x"]
    found = keys.digest_rows(Tensors({"x": np.array([*items, None], object)[:-1]}))
    assert len(set(found)) == len(items)
    assert found == [keys.digest_rows(Tensors({"x": np.array([item, None], object)[:-1]}))[0] for item in items]
    pairs = np.empty((3, 2), object)
    pairs[:] = [[large, b"y"], [large + b"y", b""], [b"", large + b"y"]]
    assert len(set(keys.digest_rows(Tensors({"x": pairs})))) == 3


def test_any_number_of_kinds_of_requests_takes_little_memory_and_changes_no_key() -> None:
    keys = RowKeys(SPEC)
    first = keys.digest_rows(ROWS)
    tracemalloc.start()
    try:
        for number in range(5000):
            keys.digest_rows(ROWS, outputs=(f"p{number}",))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 5000 * 64  # far less than a head each
    assert keys.digest_rows(ROWS) == first


def test_a_request_without_an_input_that_counts_is_refused() -> None:
    with pytest.raises(InvalidInput, match="'y' is part of the cache key, and missing"):
        digest_rows(replace(SPEC, inputs=("x", "y")), ROWS)


def test_a_request_without_rows_of_one_number_is_refused() -> None:
    with pytest.raises(InvalidInput, match="has 2 rows where others have 1"):
        digest_rows(SPEC, Tensors({"x": np.zeros((1, 2)), "y": np.zeros((2, 2))}))
    with pytest.raises(InvalidInput, match="a scalar"):
        digest_rows(SPEC, Tensors({"x": np.float32(1)}))


@pytest.mark.parametrize(
    ("changed", "wrong"),
    [
        ({"uses": ""}, "needs the class of its node"),
        ({"inputs": ()}, "names no input"),
        ({"inputs": ("x", "x")}, "names an input twice"),
        ({"parameters": ("k", "k")}, "names a parameter twice"),
        ({"trust": "public"}, "'private' or 'shared'"),
        ({"arguments": {"a": object()}}, "cannot be part of a cache key"),
    ],
)
def test_a_spec_that_cannot_be_meant_is_refused(changed: dict[str, Any], wrong: str) -> None:
    with pytest.raises(SetupError, match=wrong):
        replace(SPEC, **changed)


def test_a_secret_is_not_shown() -> None:
    assert "hidden" not in repr(replace(SPEC, secret=b"hidden"))


@given(st.data())
def test_heads_are_told_apart_by_kind_of_number(data: st.DataObject) -> None:
    keys = RowKeys(replace(SPEC, parameters=("k",)))
    values: st.SearchStrategy[Parameter] = st.booleans() | st.integers(-2, 2) | st.floats(-2, 2) | st.text(max_size=2)
    one, other = data.draw(values), data.draw(values)
    alike = type(one) is type(other) and repr(one) == repr(other)
    left, right = (keys.digest_rows(ROWS, parameters={"k": value}) for value in (one, other))
    assert (left == right) == alike
