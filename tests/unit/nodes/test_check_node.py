"""Each rule of the contract checker catches a node that breaks it, and only that."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Self

import numpy as np
import pytest

from mesh import (
    Aggregate,
    Branches,
    Context,
    InvalidInput,
    Needs,
    Node,
    NodeContractError,
    Predict,
    Preprocess,
    RequestError,
    Signature,
    Tensors,
    TensorSpec,
)
from mesh.testing import check_node
from nodes.cache import MemoryCache

EXAMPLE = Tensors({"x": np.arange(12, dtype=np.float32).reshape(4, 3)})


class Double(Predict):
    """A good node; those below are this one with one fault."""

    signature = Signature.parse("x: FP32[rows, n] -> y: FP32[rows, n]")

    async def predict(self, inputs: Tensors, context: Context) -> Tensors:
        return Tensors({"y": inputs["x"] * 2})


class WaitsThenDoubles(Double):
    async def predict(self, inputs: Tensors, context: Context) -> Tensors:
        await asyncio.sleep(0.001)
        return await super().predict(inputs, context)


class DoublesAll(Preprocess):
    signature = Signature.parse("x: FP32[rows, ...] -> x: FP32[rows, ...]")

    async def preprocess(self, inputs: Tensors, context: Context) -> Tensors:
        return Tensors({"x": inputs["x"] * 2})


class Mean(Aggregate):
    def join(self, branches: Mapping[str, Mapping[str, TensorSpec]]) -> Mapping[str, TensorSpec]:
        return next(iter(branches.values()))

    needs: Needs = "any"
    made_up: float | None = None

    async def aggregate(self, branches: Branches, context: Context) -> Tensors:
        total, count = np.zeros((branches.rows, 3), np.float32), np.zeros((branches.rows, 1), np.float32)
        for branch in branches.answers.values():
            where = slice(None) if branch.sources is None else branch.sources
            total[where] += branch["y"]
            count[where] += 1
        if self.made_up is not None:
            total, count = np.where(count, total, np.float32(self.made_up)), np.maximum(count, 1)
        if not count.all():
            raise next(iter(branches.errors.values()), InvalidInput("a row that nobody answered"))
        return Tensors({"y": total / count})


@pytest.mark.parametrize("make", [Double, WaitsThenDoubles, DoublesAll])
async def test_a_good_node_passes(make: Callable[[], Node]) -> None:
    await check_node(make, EXAMPLE)


BRANCHES = Branches(
    {"left": Tensors({"y": EXAMPLE["x"]}), "right": Tensors({"y": EXAMPLE["x"] + 1}), "late": InvalidInput("x")}
)


async def test_a_good_aggregate_passes() -> None:
    await check_node(Mean, BRANCHES)


async def test_an_aggregate_that_forgets_a_row_is_caught() -> None:
    class Forgets(Mean):
        async def aggregate(self, branches: Branches, context: Context) -> Tensors:
            return (await super().aggregate(branches, context)).take(1, 99)

    with pytest.raises(NodeContractError, match="Forgets breaks the rule 'rows'"):
        await check_node(Forgets, BRANCHES)


class IgnoresSources(Mean):
    needs = "every"

    async def aggregate(self, branches: Branches, context: Context) -> Tensors:
        return Tensors({"y": np.mean([one["y"] for one in branches.answers.values()], axis=0, dtype=np.float32)})


class TakesTheFirstForAll(Mean):
    async def aggregate(self, branches: Branches, context: Context) -> Tensors:
        return Tensors({"y": next(iter(branches.answers.values()))["y"]})


class NeedsMoreThanItSays(Mean):
    async def aggregate(self, branches: Branches, context: Context) -> Tensors:
        if any(branch.sources is not None for branch in branches.answers.values()):
            raise InvalidInput("every branch has to answer every row")
        return await super().aggregate(branches, context)


class MakesAnswersUp(Mean):
    made_up = 0.5


class FailsInItsOwnWay(Mean):
    async def aggregate(self, branches: Branches, context: Context) -> Tensors:
        try:
            return await super().aggregate(branches, context)
        except RequestError:
            raise KeyError("row") from None


class LooksAtOtherRowsOfABranch(Mean):
    async def aggregate(self, branches: Branches, context: Context) -> Tensors:
        answer = await super().aggregate(branches, context)
        some = any(1 < branch.rows < branches.rows for branch in branches.answers.values())
        return Tensors({"y": answer["y"] + np.float32(some)})


class AnswersOtherwiseWhereSourcesAreTold(Mean):
    async def aggregate(self, branches: Branches, context: Context) -> Tensors:
        answer = await super().aggregate(branches, context)
        told = any(branch.sources is not None for branch in branches.answers.values())
        return Tensors({"y": answer["y"] + np.float32(told)})


class NeedsSomething(Mean):
    needs: Any = "something"


class NeedsAStranger(Mean):
    needs = ("left", "stranger")


@pytest.mark.parametrize(
    ("broken", "text"),
    [
        (IgnoresSources, "has 2 rows for 4"),
        (TakesTheFirstForAll, "has 2 rows for 4"),
        (NeedsMoreThanItSays, "no answer where each branch has all rows, and says so, and needs is 'any'"),
        (MakesAnswersUp, "an answer where no branch has row 0"),
        (FailsInItsOwnWay, "KeyError"),
        (LooksAtOtherRowsOfABranch, "row 0 is answered otherwise alone"),
        (AnswersOtherwiseWhereSourcesAreTold, "another answer where each branch has all rows"),
        (NeedsSomething, "needs is 'something'"),
        (NeedsAStranger, "needs is \\('left', 'stranger'\\)"),
    ],
)
async def test_an_aggregate_has_to_keep_what_it_says_of_rows_that_some_branches_have(
    broken: type[Node], text: str
) -> None:
    with pytest.raises(NodeContractError, match=f"{broken.__name__} breaks the rule 'needs': .*{text}"):
        await check_node(broken, BRANCHES)


class FromTheLeft(Mean):
    """It needs one branch by name, and looks at no other."""

    needs = ("left",)

    async def aggregate(self, branches: Branches, context: Context) -> Tensors:
        if "left" not in branches.answers:
            raise InvalidInput("no left")
        return await super().aggregate(Branches({"left": branches["left"]}, branches.rows), context)


class OrHalf(MakesAnswersUp):
    needs = "none"


@pytest.mark.parametrize("make", [FromTheLeft, OrHalf])
async def test_an_aggregate_may_need_a_branch_by_name_or_none(make: Callable[[], Node]) -> None:
    await check_node(make, BRANCHES)


async def test_an_example_of_one_row_proves_nothing() -> None:
    with pytest.raises(ValueError, match="at least two rows"):
        await check_node(Double, EXAMPLE.take(0, 1))


class Repeats(Preprocess):
    """Row i comes i times."""

    signature = Signature.parse("x: FP32[rows, n] -> y: FP32[rows, n]")
    expands = True

    async def preprocess(self, inputs: Tensors, context: Context) -> Tensors:
        sources = np.repeat(np.arange(inputs.rows), inputs["x"][:, 0].astype(int) % 3)
        return Tensors({"y": inputs["x"][sources]}, sources=sources)


async def test_a_node_that_expands_passes() -> None:
    await check_node(Repeats, EXAMPLE)


async def test_a_node_that_expands_has_to_say_where_rows_came_from_and_no_other_may() -> None:
    class Silent(Repeats):
        async def preprocess(self, inputs: Tensors, context: Context) -> Tensors:
            return Tensors({"y": inputs["x"]})

    class Sly(Repeats):
        expands = False

    class Beyond(Repeats):
        async def preprocess(self, inputs: Tensors, context: Context) -> Tensors:
            return Tensors({"y": inputs["x"]}, sources=np.arange(inputs.rows) + 1)

    for made in (Silent, Sly, Beyond):
        with pytest.raises(NodeContractError, match=f"{made.__name__} breaks the rule 'sources'"):
            await check_node(made, EXAMPLE)


class Kindless(Double):
    kind = "oracle"


class OtherDigest(Double):
    def digest(self) -> str:
        return str(id(self))


class NoRows(Double):
    signature = Signature.parse("x: FP32[n, m] -> y: FP32[n, m]")


class OtherExample(Double):
    signature = Signature.parse("x: INT32[rows, n] -> y: FP32[rows, n]")


class DoesNotLoad(Double):
    async def __aenter__(self) -> Self:
        raise OSError("no such file")


class LoadsSomethingElse(Double):
    async def __aenter__(self) -> Any:
        return None


class LoadsOnce(Double):
    loads = 0

    async def __aenter__(self) -> Self:
        self.loads += 1
        return self

    async def predict(self, inputs: Tensors, context: Context) -> Tensors:
        return Tensors({"y": inputs["x"] * 2 * self.loads})


class LeavesAThread(Double):
    def __init__(self) -> None:
        self.stop = threading.Event()

    async def __aenter__(self) -> Self:
        # It ends by itself, so that the test leaves nothing behind.
        threading.Thread(target=self.stop.wait, args=(2,), name="forgotten", daemon=True).start()
        return self


class LeavesATask(Double):
    async def __aenter__(self) -> Self:
        self.task = asyncio.ensure_future(asyncio.Event().wait())
        return self


class GivesADict(Double):
    async def predict(self, inputs: Tensors, context: Context) -> Any:
        return {"y": inputs["x"] * 2}


class GivesOtherNames(Double):
    async def predict(self, inputs: Tensors, context: Context) -> Tensors:
        return Tensors({"z": inputs["x"]})


class GivesOtherDatatype(Double):
    async def predict(self, inputs: Tensors, context: Context) -> Tensors:
        return Tensors({"y": inputs["x"].astype(np.float64)})


class GivesOtherShape(Double):
    async def predict(self, inputs: Tensors, context: Context) -> Tensors:
        return Tensors({"y": inputs["x"][:, :1]})


class GivesOtherRest(DoublesAll):
    async def preprocess(self, inputs: Tensors, context: Context) -> Tensors:
        return Tensors({"x": inputs["x"][..., None]})


class GivesWriteable(Double):
    async def predict(self, inputs: Tensors, context: Context) -> Tensors:
        return Tensors.trusted({"y": inputs["x"] * 2})


class Fails(Double):
    async def predict(self, inputs: Tensors, context: Context) -> Tensors:
        raise KeyError("y")


class LosesARow(Double):
    async def predict(self, inputs: Tensors, context: Context) -> Tensors:
        return Tensors({"y": inputs["x"][1:]})


class NeedsARow(Double):
    async def predict(self, inputs: Tensors, context: Context) -> Tensors:
        return Tensors({"y": inputs["x"] + inputs["x"][0] * 0})


class LooksAtNeighbours(Double):
    async def predict(self, inputs: Tensors, context: Context) -> Tensors:
        return Tensors({"y": inputs["x"] - (inputs["x"].mean() if len(inputs["x"]) else 0)})


class Reverses(Double):
    async def predict(self, inputs: Tensors, context: Context) -> Tensors:
        return Tensors({"y": inputs["x"][::-1].copy()})


class WritesToItsInput(Double):
    async def predict(self, inputs: Tensors, context: Context) -> Tensors:
        x = inputs["x"]
        for owner in (x.base, x):
            if isinstance(owner, np.ndarray):
                owner.flags.writeable = True
        x *= 2
        return Tensors({"y": x.copy()})


class SharesAScratch(Double):
    def __init__(self) -> None:
        self.scratch = np.zeros(0)

    async def predict(self, inputs: Tensors, context: Context) -> Tensors:
        self.scratch = inputs["x"] * 2
        await asyncio.sleep(0)
        return Tensors({"y": self.scratch})


class Blocks(Double):
    async def predict(self, inputs: Tensors, context: Context) -> Tensors:
        time.sleep(0.03)  # noqa: ASYNC251 - the fault
        return await super().predict(inputs, context)


class SwallowsCancellation(Double):
    async def predict(self, inputs: Tensors, context: Context) -> Tensors:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0.001)
        return await super().predict(inputs, context)


class OutlivesCancellation(Double):
    async def predict(self, inputs: Tensors, context: Context) -> Tensors:
        try:
            await asyncio.sleep(0.001)
        except asyncio.CancelledError:
            await asyncio.sleep(5)
            raise
        return await super().predict(inputs, context)


class BreaksWhenCancelled(Double):
    broken = False

    async def predict(self, inputs: Tensors, context: Context) -> Tensors:
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            self.broken = True
            raise
        if self.broken:
            raise RuntimeError("left half done")
        return await super().predict(inputs, context)


class BreaksOnBadInput(Double):
    broken = False

    async def predict(self, inputs: Tensors, context: Context) -> Tensors:
        self.broken = self.broken or "x" not in inputs
        if self.broken:
            raise RuntimeError("gone")
        return await super().predict(inputs, context)


class Hangs(Double):
    async def predict(self, inputs: Tensors, context: Context) -> Tensors:
        await asyncio.Event().wait()
        return inputs


BROKEN: dict[type[Node], str] = {
    Kindless: "construct",
    OtherDigest: "construct",
    NoRows: "signature",
    OtherExample: "signature",
    DoesNotLoad: "load",
    LoadsSomethingElse: "load",
    LoadsOnce: "load",
    LeavesAThread: "unload",
    LeavesATask: "unload",
    GivesADict: "answer",
    GivesOtherNames: "answer",
    GivesOtherDatatype: "answer",
    GivesOtherShape: "answer",
    GivesOtherRest: "answer",
    GivesWriteable: "answer",
    Fails: "answer",
    LosesARow: "rows",
    NeedsARow: "zero rows",
    LooksAtNeighbours: "rows alone",
    Reverses: "rows alone",
    WritesToItsInput: "inputs unchanged",
    SharesAScratch: "concurrency",
    Blocks: "event loop",
    SwallowsCancellation: "cancellation",
    OutlivesCancellation: "cancellation",
    BreaksWhenCancelled: "cancellation",
    BreaksOnBadInput: "bad input",
    Hangs: "in time",
}


@pytest.mark.parametrize(("broken", "rule"), BROKEN.items(), ids=[broken.__name__ for broken in BROKEN])
async def test_a_node_that_breaks_a_rule_is_caught_by_that_rule(broken: type[Node], rule: str) -> None:
    example = Tensors({"x": EXAMPLE["x"].copy()})
    before = asyncio.all_tasks()
    try:
        with pytest.raises(NodeContractError, match=f"{broken.__name__} breaks the rule '{rule}': "):
            await check_node(
                broken,
                example,
                blocks_at_most_s=0.02 if rule == "event loop" else 0.25,
                answers_within_s=0.5 if rule in ("cancellation", "in time") else 30,
            )
    finally:
        for task in asyncio.all_tasks() - before:
            task.cancel()


async def test_a_cache_node_is_sent_elsewhere() -> None:
    with pytest.raises(NodeContractError, match="rule 'construct': a cache takes no tensors"):
        await check_node(MemoryCache, Tensors({"x": [[1.0], [2.0]]}))


async def test_the_same_node_twice_is_caught() -> None:
    node = Double()
    with pytest.raises(NodeContractError, match="rule 'construct': make\\(\\) gave the same node twice"):
        await check_node(lambda: node, EXAMPLE)
