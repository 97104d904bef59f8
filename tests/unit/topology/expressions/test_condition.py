from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from mesh.context import Parameter
from mesh.errors import InvalidInput
from mesh.signature import Signature
from mesh.tensors import Tensors
from mesh.topology.expressions import parse, typed


def holds(
    text: str, signature: str, tensors: Mapping[str, Any], parameters: Mapping[str, Parameter] | None = None
) -> list[bool]:
    given = Tensors(tensors)
    condition = typed(parse(text), Signature.parse(f"{signature} ->").inputs)
    return condition(given, parameters or {}, given.rows).tolist()


def fp64(text: str, *values: float) -> list[bool]:
    return holds(text, "x: FP64[rows]", {"x": np.array(values)})


def asked(text: str, parameters: Mapping[str, Parameter]) -> bool:
    return holds(text, "x: FP64[rows]", {"x": np.array([1.0])}, parameters)[0]


def test_a_reduction_is_over_everything_but_the_rows() -> None:
    image = np.arange(8.0).reshape(2, 2, 2)
    assert holds("max(x) == 3 and min(x) == 0 and sum(x) == 6", "x: FP64[rows, 2, 2]", {"x": image}) == [True, False]
    assert holds("mean(x) == 5.5 and argmax(x) == 3 and len(x) == 4", "x: FP64[rows, 2, 2]", {"x": image}) == [
        False,
        True,
    ]


def test_indexes_choose_columns_of_each_row() -> None:
    x = np.arange(12).reshape(2, 6)
    for text, expected in {
        "x[0] == 6": [False, True],
        "x[-1] == 5": [True, False],
        "sum(x[1:4]) == 6": [True, False],
        "sum(x[-2:]) == 9": [True, False],
        "len(x[:-1]) == 5": [True, True],
        "x[1:4][0] == 7": [False, True],
    }.items():
        assert holds(text, "x: INT64[rows, 6]", {"x": x}) == expected
    assert holds("x[1, 0] == 8 or max(x[:, 1]) == 4", "x: INT64[rows, 2, 3]", {"x": x.reshape(2, 2, 3)}) == [
        True,
        False,
    ]


def test_nan_is_equal_to_nothing() -> None:
    for text, expected in {"x == x": False, "x != x": True, "x < 1": False, "x >= 1": False, "not x < 1": True}.items():
        assert fp64(text, math.nan) == [expected]
    assert fp64("x in [1]", math.nan) == [False]
    assert fp64("x not in [1]", math.nan) == [True]


def test_what_has_no_number_is_infinite_or_nan() -> None:
    assert fp64("1 / x > 1e308", 0.0, -0.0, 1.0) == [True, True, False]
    assert fp64("x / 0.1 * 1e308 > 1e308 * 1.7", math.inf, 1e308, 1e-5) == [True, True, False]
    assert fp64("x % (x - x) != 0 and not x % (x - x) == 0", 1.0, math.inf) == [True, True]
    assert fp64("x // (x - x) > 1e308", 5.0, -5.0) == [True, False]


def test_division_rounds_down_and_the_rest_has_the_sign_of_the_divisor() -> None:
    assert fp64("x // 2 == -4 and x % 2 == 1", -7.0, 7.0) == [True, False]
    assert fp64("x // -2 == -4 and x % -2 == -1", -7.0, 7.0) == [False, True]


def test_integers_are_compared_exactly_and_computed_as_fp64() -> None:
    big = {"i": np.array([-1, 2**63 - 1], np.int64), "u": np.array([2**64 - 1, 2**63], np.uint64)}
    signature = "i: INT64[rows], u: UINT64[rows]"
    assert holds("i < u and i != u", signature, big) == [True, True]
    assert holds("i == 9223372036854775807", signature, big) == [False, True]
    assert holds("u in [9223372036854775808, 1]", signature, big) == [False, True]
    small = {"u": np.array([[0, 255], [200, 100]], np.uint8)}
    assert holds("u[0] - u[1] < 0", "u: UINT8[rows, 2]", small) == [True, False]
    assert holds("u[0] + u[1] == 300", "u: UINT8[rows, 2]", small) == [False, True]
    assert holds("abs(i) == 128 and -i == 128", "i: INT8[rows]", {"i": np.array([-128, 127], np.int8)}) == [True, False]


def test_a_literal_takes_the_datatype_of_the_tensor_that_it_is_compared_with() -> None:
    x = {"x": np.array([[0.9], [0.8999]], np.float32)}
    assert holds("x == 0.9", "x: FP32[rows, 1]", x) == [True, False]
    assert holds("max(x) >= 0.9", "x: FP32[rows, 1]", x) == [True, False]
    assert holds("x[0] in [0.9, 5]", "x: FP32[rows, 1]", x) == [True, False]
    assert holds("x == 9 / 10", "x: FP32[rows, 1]", x) == [True, False]
    assert holds("x * 1 == 0.9", "x: FP32[rows, 1]", x) == [False, False]


def test_half_floats_count_as_fp32() -> None:
    for datatype, dtype in (("FP16", np.float16), ("BF16", ml_dtypes.bfloat16)):
        x = {"x": np.array([[1.5, 60000.0], [2.0, -1.0]], np.float32).astype(dtype)}
        assert holds("sum(x) > 50000", f"x: {datatype}[rows, 2]", x) == [True, False]
        assert holds("x[0] == 1.5 and argmax(x) == 1", f"x: {datatype}[rows, 2]", x) == [True, False]
        assert holds("x[1] * 2 > 65504", f"x: {datatype}[rows, 2]", x) == [True, False]


def test_texts_are_compared_byte_by_byte() -> None:
    t = {"t": np.array([b"cat", b"cat\0", "é".encode(), b"\xff"], object)}
    assert holds('t == "cat"', "t: BYTES[rows]", t) == [True, False, False, False]
    assert holds('t != "é"', "t: BYTES[rows]", t) == [True, True, False, True]
    assert holds('t in ["é", "cat"]', "t: BYTES[rows]", t) == [True, False, True, False]
    assert holds("len(t) == 4 or len(t) == 2", "t: BYTES[rows]", t) == [False, True, True, False]
    assert holds('any(t == "b") and t[0] != t[1]', "t: BYTES[rows, 2]", {"t": [["a", "b"], ["b", "b"]]}) == [
        True,
        False,
    ]


def test_one_value_a_row_meets_all_of_its_row() -> None:
    x = {"x": np.array([[1.0, 2.0, 9.0], [4.0, 4.0, 4.0]]), "n": np.array([8, 4])}
    assert holds("any(x - mean(x) > 4)", "x: FP64[rows, 3], n: INT64[rows]", x) == [True, False]
    assert holds("all(n >= x)", "x: FP64[rows, 3], n: INT64[rows]", x) == [False, True]
    assert holds("all(1 < x <= n)", "x: FP64[rows, 3], n: INT64[rows]", x) == [False, True]


def test_a_parameter_that_is_not_sent_equals_nothing() -> None:
    for text, expected in {
        'parameters.t == "a"': False,
        'parameters.t != "a"': True,
        'parameters.t in ["a"]': False,
        'parameters.t not in ["a"]': True,
        "len(parameters.t) < 9": False,
        "parameters.n < 1": False,
        "parameters.n >= 1": False,
        "parameters.n != 1": True,
        "x < parameters.n": False,
        "x != parameters.n": True,
        "parameters.b": False,
        "not parameters.b": True,
        "parameters.n + 1 > 0": False,
        "abs(parameters.n) >= 0": False,
    }.items():
        assert asked(text, {}) is expected, text
        # Of another kind than asked for: as good as not sent.
        assert asked(text, {"t": True, "n": "1", "b": 1}) is expected, text
        assert asked(text, {"t": 1, "n": True, "b": "true"}) is expected, text


def test_a_parameter_is_compared_as_a_literal_would_be() -> None:
    x = {"x": np.array([0.9], np.float32)}
    assert holds("x == parameters.n", "x: FP32[rows]", x, {"n": 0.9}) == [True]
    assert holds("x < parameters.n", "x: FP32[rows]", x, {"n": 10**400}) == [True]
    assert holds("x > parameters.n", "x: FP32[rows]", x, {"n": -(10**400)}) == [True]
    i = {"i": np.array([2**53 + 1, 5])}
    assert holds("i == parameters.n", "i: INT64[rows]", i, {"n": 2**53 + 1}) == [True, False]
    assert holds("i < parameters.n", "i: INT64[rows]", i, {"n": 10**30}) == [True, True]
    assert holds("i > parameters.n / 2", "i: INT64[rows]", i, {"n": 12}) == [True, False]
    t = {"t": np.array([b"a\0", b"a"], object)}
    assert holds("t == parameters.t", "t: BYTES[rows]", t, {"t": "a\0"}) == [True, False]
    assert asked("parameters.b and parameters.t == 'gold'", {"b": True, "t": "gold"})


def test_parameters_alone_decide_for_every_row() -> None:
    condition = typed(parse('parameters.tier == "gold"'), {})
    assert condition({}, {"tier": "gold"}, 3).tolist() == [True, True, True]
    assert condition({}, {}, 2).tolist() == [False, False]
    assert condition({}, {"tier": "gold"}, 0).shape == (0,)


def test_no_rows_give_no_rows() -> None:
    signature = "x: FP32[rows, 3], t: BYTES[rows], z: BOOL[rows, 2]"
    none = {"x": np.zeros((0, 3), np.float32), "t": np.empty(0, object), "z": np.zeros((0, 2), bool)}
    for text in ("max(x) > 1", "any(x - sum(x) > 0)", 't in ["a"]', "all(z)", "argmax(x) in [1]", "len(t) > 1"):
        assert holds(text, signature, none) == []


def test_sizes_that_were_not_known_are_held_against_what_is_read() -> None:
    signature = "x: FP32[rows, ?], y: FP32[rows, ?], z: FP32[rows, ...]"

    def ask(text: str, x: int, y: int = 1) -> list[bool]:
        tensors = {"x": np.ones((1, x), np.float32), "y": np.ones((1, y), np.float32), "z": np.ones((1, 2, 2), "f4")}
        return holds(text, signature, tensors)

    for text, least in {
        "x[2] == 1": 3,
        "x[-2] == 1": 2,
        "sum(x[1:3]) == 2": 3,
        "max(x[1:]) == 1": 2,
        "max(x[:-1]) == 1": 2,
        "max(x[1:-1]) == 1": 3,
        "sum(x[-3:-1]) == 2": 3,
        "sum(x[-2:]) == 2": 2,
        "max(x) == 1": 1,
        "mean(x) == 1": 1,
        "argmax(x) == 0": 1,
    }.items():
        assert ask(text, least) == [True], text
        with pytest.raises(InvalidInput, match="tensor 'x' has") as caught:
            ask(text, least - 1)
        assert caught.value.tensor == "x"
    assert ask("all(x == y)", 3, 3) == [True]
    with pytest.raises(InvalidInput, match=r"x and y differ in their sizes: \[3\] and \[1\]"):
        ask("all(x == y)", 3, 1)
    with pytest.raises(InvalidInput, match=r"x and z differ in their sizes: \[3\] and \[2, 2\]"):
        ask("all(x == z)", 3)
    assert ask("any(x > 5) or all(x > 5) and sum(x) == 0 and len(x) == 0", 0) == [True]


def test_a_long_list_is_looked_through_in_little_memory() -> None:
    values = np.arange(49, 90_049).reshape(3, 30_000)
    listed = ", ".join(map(str, range(50)))
    assert holds(f"any(x in [{listed}])", "x: INT64[rows, 30000]", {"x": values}) == [True, False, False]
    assert holds(f"all(x not in [{listed}])", "x: INT64[rows, 30000]", {"x": values}) == [False, True, True]


def test_nothing_but_what_it_names_is_looked_up() -> None:
    class Watched(dict[str, Any]):
        def __getitem__(self, name: str) -> Any:
            seen.append(name)
            return super().__getitem__(name)

        def get(self, name: str, default: Any = None) -> Any:
            seen.append(name)
            return super().get(name, default)

    seen: list[str] = []
    condition = typed(parse("x > parameters.n"), Signature.parse("x: FP32[rows], y: FP32[rows] ->").inputs)
    condition(Watched(x=np.ones(1, np.float32), y=np.ones(1, np.float32)), Watched(n=1, m=2), 1)
    assert sorted(seen) == ["n", "x"]
