from __future__ import annotations

import numpy as np
import pytest

from mesh import Context, SetupError, Tensors
from nodes.tabular import Scale


async def scale(node: Scale, x: object) -> Tensors:
    return await node.preprocess(Tensors({"x": np.asarray(x, np.float32)}), Context())


async def test_subtracts_then_divides() -> None:
    answer = await scale(Scale(divide_by=2, subtract=1), [[1, 3], [5, 7]])
    assert answer["x"].tolist() == [[0, 1], [2, 3]]
    assert answer["x"].dtype == np.float32
    assert not answer["x"].flags.writeable


async def test_a_large_table_gives_the_same_as_a_small_one() -> None:
    x = np.arange(1 << 18, dtype=np.float32).reshape(-1, 2)
    large, small = await scale(Scale(divide_by=3), x), await scale(Scale(divide_by=3), x[:10])
    assert large["x"][:10].tobytes() == small["x"].tobytes()
    assert not large["x"].flags.writeable


async def test_what_is_too_large_becomes_infinity_without_a_warning() -> None:
    answer = await scale(Scale(divide_by=1e-30), [3e38, -3e38, np.nan, np.inf])
    assert str(answer["x"].tolist()) == "[inf, -inf, nan, inf]"


@pytest.mark.parametrize("divide_by", [0, 1e-60, float("nan"), float("inf"), 1e300])
def test_a_divisor_that_is_no_number_to_divide_by_is_refused(divide_by: float) -> None:
    with pytest.raises(SetupError, match="divide_by is"):
        Scale(divide_by=divide_by)


def test_subtracting_no_number_is_refused() -> None:
    with pytest.raises(SetupError, match="subtract is nan"):
        Scale(divide_by=1, subtract=float("nan"))
