from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh import Branches, InvalidInput, NodeContractError, Tensors
from nodes.surest import Surest
from tests.unit.nodes.joins import Row, ask, branches_of, join, run, table

SCORE = st.sampled_from([-math.inf, -1.0, 0.0, 0.5, 0.9, 1.0, math.inf, math.nan])
TENSORS: Any = {"text": (st.sampled_from([b"a", b"b", b"c"]), object, ()), "score": (SCORE, np.float32, ())}


def reading(*rows: tuple[bytes, float], sources: list[int] | None = None) -> Tensors:
    texts, scores = zip(*rows, strict=True)
    return Tensors({"text": list(texts), "score": np.array(scores, np.float32)}, sources=sources)


def sureness(row: Row) -> float:
    return -math.inf if math.isnan(row["score"]) else float(row["score"])


async def test_a_second_look_counts_only_where_it_is_surer() -> None:
    first = reading((b"clear", 0.99), (b"nsb", 0.5), (b"faint", 0.7))
    second = reading((b"usd", 0.98), (b"tuiaf", 0.4), sources=[1, 2])
    answer = await ask(Surest(), Branches({"first": first, "second": second}))
    assert answer["text"].tolist() == [b"clear", b"usd", b"faint"]
    assert answer["score"].tolist() == pytest.approx([0.99, 0.98, 0.7])


@settings(max_examples=100, deadline=None)
@given(branches_of(TENSORS))
def test_each_row_is_that_of_the_first_of_the_surest(branches: Branches) -> None:
    node = Surest(default={"text": "none", "score": -2})
    join(node, branches, like=reading((b"", 0.0)))
    answer = run(node, branches)
    nobody = {"text": b"none", "score": np.float32(-2)}
    for index, row in enumerate(table(branches)):
        # max() gives the first of equals; what is not a number is less than any.
        found = max(row.values(), key=sureness, default=nobody)
        assert answer["text"][index] == found["text"]
        assert np.array_equal(answer["score"][index], found["score"], equal_nan=True)


async def test_a_row_that_nobody_answered_is_an_error_or_the_default() -> None:
    branches = Branches({"some": reading((b"a", 0.5), sources=[1])}, rows=2)
    with pytest.raises(InvalidInput, match="row 0: no branch answered"):
        await ask(Surest(), branches)
    answer = await ask(Surest(default={"text": "", "score": 0}), branches)
    assert answer["text"].tolist() == [b"", b"a"]


@pytest.mark.parametrize(
    ("tensors", "text"),
    [
        ({"text": [b"a"]}, "Surest: the branches give no 'score'; there is: text"),
        ({"score": [1]}, r"Surest: tensor 'score' is INT64\[rows\]; a score has to be"),
        ({"score": [[0.5]]}, r"Surest: tensor 'score' is FP64\[rows, 1\]; a score has to be"),
    ],
)
def test_without_a_score_a_row_it_is_refused_before_anything_runs(tensors: dict[str, Any], text: str) -> None:
    with pytest.raises(NodeContractError, match=text):
        join(Surest(), Branches({"one": Tensors(tensors)}))
