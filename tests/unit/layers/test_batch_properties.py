"""Whatever arrives, leaves and fails in whatever order: each caller gets exactly its own rows, or its own error."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.context import Context
from mesh.errors import DeadlineExceeded, InvalidInput, NodeFailed, Unavailable
from mesh.layers import Batch, Queue
from mesh.partial import rows_failed
from mesh.tensors import Tensors
from mesh.testing import ManualClock, ScriptedHandler, settle


@dataclass(frozen=True)
class Caller:
    """One request: how many rows of what width, what its rows do to the node, when it leaves, how long it waits."""

    rows: int
    width: int
    harm: str
    leaves: bool
    within_s: float | None


callers = st.builds(
    Caller,
    rows=st.integers(0, 5),
    width=st.integers(1, 2),
    harm=st.sampled_from(["none"] * 6 + ["invalid", "spoiled", "foreign"]),
    leaves=st.sampled_from([False, False, False, True]),
    within_s=st.sampled_from([None, None, 2.0, 50.0]),
)
batches = st.builds(
    Batch, max_rows=st.integers(1, 6), max_delay_s=st.sampled_from([0.0, 0.0, 3.0]), max_concurrent=st.integers(1, 3)
)
# Not hypothesis's own randoms: those may say the same for ever, and then nothing would happen.
chances = st.integers(0, 2**32).map(random.Random)
HARMS = {"none": 0.0, "invalid": 1.0, "foreign": 2.0, "spoiled": 3.0}


def request_of(index: int, caller: Caller) -> Tensors:
    """Row j of caller i holds i, j and its harm, in the last row only."""
    data = np.zeros((caller.rows, caller.width, 3), np.float32)
    data[:, :, 0] = index
    data[:, :, 1] = np.arange(caller.rows)[:, None]
    data[-1:, :, 2] = HARMS[caller.harm]
    return Tensors({"x": data})


def answer(request: Tensors, context: Context) -> Tensors | Exception:
    """What the node makes of a batch: fails for the first row that harms it.

    Where that is a spoiled one it tells what became of the others: answered, spoiled as well, or left alone.
    """
    data = request["x"]
    harmed = np.flatnonzero(data[:, 0, 2]).tolist()
    if not harmed:
        return Tensors({"y": data[:, 0, :2] * 2})
    if data[harmed[0], 0, 2] == HARMS["invalid"]:
        return InvalidInput("invalid", tensor="x", row=harmed[0])
    if data[harmed[0], 0, 2] == HARMS["spoiled"]:
        spoiled = np.flatnonzero(data[:, 0, 2] == HARMS["spoiled"]).tolist()
        good = [row for row in range(len(data)) if row not in harmed][len(harmed) % 2 :]
        errors = dict.fromkeys(spoiled, InvalidInput("invalid", tensor="x"))
        return rows_failed(errors, good, Tensors({"y": data[good, 0, :2] * 2}), context)
    return ValueError("foreign")


def check(index: int, caller: Caller, outcome: Tensors | BaseException, went: str) -> None:
    if isinstance(outcome, asyncio.CancelledError):
        assert caller.leaves
    elif isinstance(outcome, DeadlineExceeded):
        assert caller.within_s is not None
        assert outcome.request_id == str(index)
    elif caller.harm == "none" or caller.rows == 0:
        assert isinstance(outcome, Tensors), f"a good request ended in {outcome!r} ({went})"
        expected = [[2.0 * index, 2.0 * row] for row in range(caller.rows)]
        assert outcome["y"].tolist() == expected
    elif caller.harm in ("invalid", "spoiled"):
        assert isinstance(outcome, InvalidInput)
        assert outcome.row == caller.rows - 1, "counted from the caller's own first row"
        # A request that ran alone at once was not touched: whoever called the layer knows whose it is.
        assert outcome.request_id in ("", str(index))
    else:
        assert isinstance(outcome, NodeFailed | ValueError)
        assert isinstance(outcome, ValueError) or outcome.request_id == str(index)


@settings(max_examples=150, deadline=None)
@given(st.lists(callers, max_size=12), batches, st.booleans(), chances)
async def test_each_caller_gets_its_own_rows_or_its_own_error(
    asked: list[Caller], batch: Batch, queued: bool, chance: random.Random
) -> None:
    clock, script = ManualClock(), ScriptedHandler()
    before = asyncio.all_tasks()
    handler = batch(script)
    if queued:
        handler = Queue(max_rows=64, when_full="wait")(handler)

    async def call(index: int, caller: Caller) -> Tensors:
        context = Context(request_id=str(index), clock=clock)
        context = context if caller.within_s is None else context.within(caller.within_s)
        return await handler(request_of(index, caller), context)

    tasks: list[asyncio.Task[Tensors]] = []
    coming = list(enumerate(asked))
    for _ in range(2000):
        if not coming and all(task.done() for task in tasks):
            break
        match chance.randrange(5):
            case 0 if coming:
                tasks.append(asyncio.create_task(call(*coming.pop(0))))
            case 1:
                leaving = [i for i, task in enumerate(tasks) if asked[i].leaves and not task.done()]
                if leaving:
                    tasks[chance.choice(leaving)].cancel()
            case 2:
                await clock.advance(0.5)
            case 3:
                await settle(chance.randrange(4))
            case _:
                if script.pending:
                    running = await script.request()
                    if not running.cancelled:
                        made = answer(running.request, running.context)
                        running.reply(made) if isinstance(made, Tensors) else running.fail(made)
    await settle()
    assert all(task.done() for task in tasks), "somebody was forgotten"
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    for index, (caller, outcome) in enumerate(zip(asked, outcomes, strict=True)):
        check(index, caller, outcome, f"{batch!r}, queued {queued}")
    for running in script.calls:
        assert running.request.rows <= batch.max_rows
        assert len({array.shape[1] for array in running.request.values()}) == 1
    assert asyncio.all_tasks() == before
    assert clock.planned == 0


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 4), st.lists(st.integers(0, 3), min_size=1, max_size=30), chances)
async def test_at_most_as_many_batches_run_as_the_node_allows_and_none_waits_for_nothing(
    concurrent: int, sizes: list[int], chance: random.Random
) -> None:
    clock, script = ManualClock(), ScriptedHandler()
    handler = Batch(max_rows=3, max_concurrent=concurrent)(script)
    tasks: list[asyncio.Task[Tensors]] = []
    running: list[int] = []
    while len(tasks) < len(sizes) or not all(task.done() for task in tasks):
        if len(tasks) < len(sizes) and chance.random() < 0.7:
            size = sizes[len(tasks)]
            request = Tensors({"x": np.full((size, 1), len(tasks))})

            async def call(request: Tensors = request) -> Tensors:
                return await handler(request, Context(clock=clock))

            tasks.append(asyncio.create_task(call()))
        await settle(10)
        while script.pending:
            await script.request()
            running.append(len(script.calls) - 1 - script.pending)
        assert len(running) <= concurrent
        unanswered = sum(not task.done() for task in tasks)
        assert bool(running) == bool(unanswered), "the node is idle, and somebody waits"
        if running and chance.random() < 0.6:
            ended = script.calls[running.pop(chance.randrange(len(running)))]
            if chance.random() < 0.2:
                ended.fail(Unavailable("gone"))
            else:
                ended.echo()
            await settle(10)
    for index, outcome in enumerate(await asyncio.gather(*tasks, return_exceptions=True)):
        assert isinstance(outcome, Unavailable) or outcome == Tensors({"x": np.full((sizes[index], 1), index)})
