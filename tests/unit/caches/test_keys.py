"""Keys tell apart whatever an answer depends on, and nothing else."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.caches import KeySpec, RowKeys, Trust, content_digests, digest_rows
from mesh.context import Parameter
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
    assert digest_rows(SPEC, ROWS)[0].hex() == "c2712ddb0f772be3c45c17b51898441d"
    shared = digest_rows(replace(SPEC, trust="shared"), ROWS)[0].hex()
    assert shared == "503f2b96b3968e99c1e2513eedd18a0dfe758198f1a397e55613684a8f73c580"


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
    assert digest_rows(SPEC, ROWS.take(0, 0), known={"x": []}) == []


def test_a_digest_that_is_known_stands_for_the_row() -> None:
    keys = RowKeys(SPEC)
    known = content_digests(ROWS["x"])
    found = keys.digest_rows(ROWS, known={"x": known})
    assert len(set(found)) == 3
    assert set(found).isdisjoint(keys.digest_rows(ROWS))
    # The content is not looked at any more: that is what it is for.
    blank = Tensors({"x": np.zeros((3, 2), np.float32), "t": ROWS["t"]})
    assert keys.digest_rows(blank, known={"x": known}) == found
    swapped = keys.digest_rows(ROWS, known={"x": known[::-1]})
    assert swapped[1] == found[1]
    assert swapped[0] != found[0]
    narrow = RowKeys(replace(SPEC, inputs=("t",)))
    assert narrow.digest_rows(ROWS, known={"x": known}) == narrow.digest_rows(ROWS)


@pytest.mark.parametrize(
    ("known", "wrong"),
    [
        ([b"d" * 16] * 2, "2 digests of 'x' are known for 3 rows"),
        ([b"d" * 15] * 3, "of one length, 16 to 64 bytes"),
        ([b"d" * 65] * 3, "of one length, 16 to 64 bytes"),
        ([b"d" * 16, b"d" * 16, b"d" * 32], "of one length, 16 to 64 bytes"),
    ],
)
def test_digests_that_are_not_one_a_row_and_of_one_length_are_refused(known: list[bytes], wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        digest_rows(SPEC, ROWS, known={"x": known})


@given(batch=batches(1, 3))
def test_content_digests_tell_content_and_not_names(batch: Tensors) -> None:
    for trust in TRUSTS:
        digests: dict[bytes, Any] = {}
        for array in batch.values():
            for row, digest in enumerate(content_digests(array, trust)):
                content = bits(Tensors({"": array[row : row + 1]}))
                assert digests.setdefault(digest, content) == content
        assert len(digests) == len({repr(content) for content in digests.values()})


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
    with pytest.raises(InvalidInput, match="a scalar"):
        content_digests(np.array(1.0))


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
