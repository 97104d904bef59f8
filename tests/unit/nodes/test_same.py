from __future__ import annotations

import pytest

from mesh import Context, NodeContractError, Tensors
from nodes.same import Same


async def test_it_gives_what_it_takes_and_copies_nothing() -> None:
    given = Tensors({"image": [b"one", b"two"]})
    node = Same(tensor="image", type="BYTES[rows]")
    assert str(node.signature) == "image: BYTES[rows] -> image: BYTES[rows]"
    answer = await node.preprocess(given, Context())
    assert answer["image"] is given["image"]


@pytest.mark.parametrize("wrong", ["BYTES", "FP31[rows]", "FP32[rows", ""])
def test_what_is_no_type_is_refused(wrong: str) -> None:
    with pytest.raises(NodeContractError):
        Same(tensor="x", type=wrong)


@pytest.mark.parametrize("wrong", ["", "a b", "x: FP32[rows], y"])
def test_what_is_no_name_is_refused(wrong: str) -> None:
    with pytest.raises(NodeContractError):
        Same(tensor=wrong, type="FP32[rows]")
