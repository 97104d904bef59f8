"""Each aggregate against the same rule written down for one row, in plain Python, over random joins."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh import Aggregate, Branches, RequestError, Tensors, TensorSpec
from nodes.aggregate import Concat, FirstOf, MajorityVote, Max, Mean, RankFusion, Select, SoftVote, Stack, WeightedMean
from tests.unit.nodes.joins import branches_of, check_alone, check_errors, run, table

FLOATS = st.floats(-1000, 1000, width=32)
ANY_FLOATS = st.floats(width=32)
TEXTS = st.sampled_from([b"", b"a", b"b", b"cc"])
TYPES: dict[str, tuple[Any, Any]] = {
    "FP32": (ANY_FLOATS, np.float32),
    "INT64": (st.integers(-(2**63), 2**63 - 1), np.int64),
    "UINT8": (st.integers(0, 255), np.uint8),
    "BOOL": (st.booleans(), np.bool_),
    "BYTES": (TEXTS, object),
}
X = {"x": (FLOATS, np.float32, (2,))}
EXAMPLES = settings(max_examples=60)


def _spec(datatype: str, *sizes: int) -> TensorSpec:
    return TensorSpec(datatype, ("rows", *sizes))


def same(found: Any, expected: Any) -> None:
    """Equal, and a NaN equals a NaN."""
    if np.asarray(found).dtype.kind == "f":
        np.testing.assert_array_equal(found, expected)
    else:
        assert np.asarray(found).tolist() == np.asarray(expected).tolist()


@pytest.mark.parametrize("datatype", TYPES)
@EXAMPLES
@given(st.data())
def test_first_of(datatype: str, data: st.DataObject) -> None:
    branches = data.draw(branches_of({"x": (*TYPES[datatype], (2,)), "y": (*TYPES["BYTES"], ())}))
    node = FirstOf()
    if check_errors(node, branches, bool):
        answer = run(node, branches)
        for number, row in enumerate(table(branches)):
            first = next(iter(row.values()))
            same(answer["x"][number], first["x"])
            assert answer["y"][number] == first["y"]
        check_alone(node, branches, answer)


@EXAMPLES
@given(branches_of({"x": (FLOATS, np.float32, (2,)), "y": (FLOATS, np.float64, ())}))
def test_mean(branches: Branches) -> None:
    node = Mean()
    if check_errors(node, branches, bool):
        answer = run(node, branches)
        for number, row in enumerate(table(branches)):
            for tensor, tolerance in (("x", 1e-3), ("y", 1e-9)):
                expected = [math.fsum(np.ravel(one)) / len(row) for one in zip(*_flat(row, tensor), strict=True)]
                np.testing.assert_allclose(np.ravel(answer[tensor][number]), expected, atol=tolerance)
        check_alone(node, branches, answer)


def _flat(row: Any, tensor: str) -> list[list[float]]:
    return [np.ravel(one[tensor]).tolist() for one in row.values()]


@EXAMPLES
@given(branches_of(X), st.lists(st.floats(0.01, 100), min_size=4, max_size=4))
def test_weighted_mean(branches: Branches, weights: list[float]) -> None:
    by_name = dict(zip("abcd", weights, strict=True))
    node = WeightedMean(weights=by_name)
    if check_errors(node, branches, bool):
        answer = run(node, branches)
        for number, row in enumerate(table(branches)):
            total = math.fsum(by_name[name] for name in row)
            for column in range(2):
                expected = math.fsum(by_name[name] * float(one["x"][column]) for name, one in row.items()) / total
                assert answer["x"][number, column] == pytest.approx(expected, rel=1e-5, abs=1e-3)
        check_alone(node, branches, answer)


@pytest.mark.parametrize("datatype", ["FP32", "INT64", "UINT8", "BOOL"])
@EXAMPLES
@given(st.data())
def test_max(datatype: str, data: st.DataObject) -> None:
    branches = data.draw(branches_of({"x": (*TYPES[datatype], (2,))}))
    node = Max()
    if check_errors(node, branches, bool):
        answer = run(node, branches)
        for number, row in enumerate(table(branches)):
            for column in range(2):
                values = [one["x"][column].item() for one in row.values()]
                nan = next((value for value in values if value != value), None)
                same(answer["x"][number, column], max(values) if nan is None else nan)
        check_alone(node, branches, answer)


@pytest.mark.parametrize("datatype", ["INT64", "BOOL", "BYTES"])
@EXAMPLES
@given(st.data())
def test_majority_vote(datatype: str, data: st.DataObject) -> None:
    element = st.integers(0, 2) if datatype == "INT64" else TYPES[datatype][0]
    branches = data.draw(branches_of({"label": (element, TYPES[datatype][1], ())}, least=2))
    node = MajorityVote()
    if check_errors(node, branches, bool):
        answer = run(node, branches)
        for number, row in enumerate(table(branches)):
            # most_common keeps the order of first appearance between equals.
            labels = [np.asarray(one["label"]).item() for one in row.values()]
            label, votes = Counter(labels).most_common(1)[0]
            found = [answer[name][number] for name in ("label", "votes", "voters")]
            assert found == [label, votes, len(row)]
        check_alone(node, branches, answer)


PROBABILITIES = st.integers(0, 16).map(lambda number: number / 16)


@pytest.mark.parametrize("mean", ["arithmetic", "geometric"])
@EXAMPLES
@given(branches_of({"probabilities": (PROBABILITIES, np.float64, (3,))}))
def test_soft_vote(mean: Any, branches: Branches) -> None:
    node = SoftVote(mean=mean, classes=["x", "y", "z"])
    if check_errors(node, branches, bool):
        answer = run(node, branches)
        tiny = float(np.finfo(np.float64).tiny)
        for number, row in enumerate(table(branches)):
            columns = list(zip(*[one["probabilities"].tolist() for one in row.values()], strict=True))
            expected = [math.fsum(column) / len(row) for column in columns]
            if mean == "geometric":
                logs = [math.fsum(math.log(max(one, tiny)) for one in column) / len(row) for column in columns]
                scaled = [math.exp(log - max(logs)) for log in logs]
                expected = [one / math.fsum(scaled) for one in scaled]
            np.testing.assert_allclose(answer["probabilities"][number], expected, rtol=1e-9, atol=1e-300)
            best = answer["probabilities"][number].tolist()
            assert answer["label"][number] == [b"x", b"y", b"z"][best.index(max(best))]
        check_alone(node, branches, answer)


@pytest.mark.parametrize("datatype", TYPES)
@EXAMPLES
@given(st.data())
def test_concat_and_stack(datatype: str, data: st.DataObject) -> None:
    branches = data.draw(branches_of({"x": (*TYPES[datatype], (2,))}))
    every = set(branches)

    def complete(row: Any) -> bool:
        return set(row) == every and not branches.errors

    nodes: list[Aggregate] = [Concat(), Stack()]
    for node in nodes:
        if branches.errors and not branches.rows:
            continue
        if check_errors(node, branches, complete):
            answer = run(node, branches)
            for number, row in enumerate(table(branches)):
                parts = [row[name]["x"] for name in branches]
                same(answer["x"][number], np.concatenate(parts) if isinstance(node, Concat) else np.stack(parts))
            check_alone(node, branches, answer)


@EXAMPLES
@given(branches_of({"x": (TEXTS, object, (2,))}))
def test_stack_fills(branches: Branches) -> None:
    node = Stack(fill={"x": "-"}, mask="there")
    node.join({name: {"x": _spec("BYTES", 2)} for name in branches})
    answer = run(node, branches)
    for number, row in enumerate(table(branches)):
        assert answer["there"][number].tolist() == [name in row for name in branches]
        expected = [row[name]["x"].tolist() if name in row else [b"-", b"-"] for name in branches]
        assert answer["x"][number].tolist() == expected
    check_alone(node, branches, answer)


@EXAMPLES
@given(branches_of({"x": (FLOATS, np.float32, (2,)), "label": (TEXTS, object, ())}))
def test_a_default_stands_where_nobody_answered(branches: Branches) -> None:
    node = FirstOf(default={"x": [1, 2], "label": "none"})
    node.join({name: {"x": _spec("FP32", 2), "label": _spec("BYTES")} for name in branches})
    assert node.needs == "none"
    answer = run(node, branches)
    for number, row in enumerate(table(branches)):
        expected = next(iter(row.values()), {"x": [1, 2], "label": b"none"})
        same(answer["x"][number], expected["x"])
        assert answer["label"][number] == expected["label"]
    check_alone(node, branches, answer)


@EXAMPLES
@given(branches_of(X), st.data())
def test_a_mean_with_a_default(branches: Branches, data: st.DataObject) -> None:
    node, plain = Mean(default={"x": -1}), Mean()
    node.join({name: {"x": _spec("FP32", 2)} for name in branches})
    answer = run(node, branches)
    for number, row in enumerate(table(branches)):
        if row:
            alone = {name: Tensors({"x": one["x"][None]}) for name, one in row.items()}
            same(answer["x"][number], run(plain, Branches(alone, 1))["x"][0])
        else:
            assert answer["x"][number].tolist() == [-1, -1]


@pytest.mark.parametrize("selector", ["INT64", "BYTES"])
@EXAMPLES
@given(st.data())
def test_select(selector: str, data: st.DataObject) -> None:
    branches = data.draw(branches_of(X))
    names = list(branches)
    picks = data.draw(st.lists(st.integers(0, len(names) - 1), min_size=branches.rows, max_size=branches.rows))
    choice: Any = np.array(picks, np.int64)
    if selector == "BYTES":
        choice = np.array([names[pick].encode() for pick in picks], object)
    joined = Branches({**branches, "router": Tensors({"choice": choice, "other": picks})}, branches.rows)
    rows = table(branches)
    chosen = [names[pick] for pick in picks]
    lacking = [number for number, name in enumerate(chosen) if name not in rows[number]]
    node: Aggregate = Select(by="router.choice")
    if not lacking and branches.answers:
        answer = run(node, joined)
        for number, name in enumerate(chosen):
            same(answer["x"][number], rows[number][name]["x"])
        check_alone(node, joined, answer)
    if lacking:
        with pytest.raises(RequestError, match=r"is gone|was chosen, and did not") as caught:
            run(node, joined)
        failed = branches.errors.get(chosen[lacking[0]])
        assert caught.value == failed if failed else caught.value.row == lacking[0]
    node = Select(by="router.choice", default={"x": 7})
    node.join(
        {
            **{name: {"x": _spec("FP32", 2)} for name in names},
            "router": {"choice": _spec(selector), "other": _spec("INT64")},
        }
    )
    answer = run(node, joined)
    for number, name in enumerate(chosen):
        same(answer["x"][number], rows[number][name]["x"] if name in rows[number] else [7, 7])


@pytest.mark.parametrize("datatype", ["INT64", "BYTES"])
@EXAMPLES
@given(st.data())
def test_rank_fusion(datatype: str, data: st.DataObject) -> None:
    element = st.integers(-1, 5) if datatype == "INT64" else TEXTS
    branches = data.draw(branches_of({"ids": (element, TYPES[datatype][1], (4,))}))
    node = RankFusion(top=3, k=2)
    nothing: Any = -1 if datatype == "INT64" else b""
    if check_errors(node, branches, bool):
        answer = run(node, branches)
        for number, row in enumerate(table(branches)):
            ranks: dict[Any, list[tuple[int, int]]] = {}
            for index, name in enumerate(branches):
                seen = {nothing}
                for rank, id_ in enumerate(row[name]["ids"].tolist() if name in row else [], 1):
                    if id_ not in seen:
                        seen.add(id_)
                        ranks.setdefault(id_, []).append((rank, index))
            scores = {id_: sum(1 / (2 + rank) for rank, _ in sorted(places)) for id_, places in ranks.items()}
            best = sorted(ranks, key=lambda id_: (-scores[id_], min(ranks[id_])))[:3]
            filled = 3 - len(best)
            assert answer["ids"][number].tolist() == [*best, *[nothing] * filled]
            same(answer["scores"][number], np.array([*[scores[id_] for id_ in best], *[0] * filled], np.float32))
        check_alone(node, branches, answer)
