"""Ten thousand requests through joins whose branches hang, die and dawdle, and whose callers go away."""

from __future__ import annotations

import asyncio
import gc
import random
import sys
from contextlib import aclosing

import pytest

from mesh.context import Context
from mesh.errors import RequestError, Unavailable
from mesh.handler import Handler
from mesh.tensors import Tensors
from mesh.testing import ManualClock
from tests.unit.runtime.given import Flow, flow, numbers

REQUESTS = 10_000
AT_ONCE = 100
WARM_ROUNDS = 20
DEADLINE_S = 0.5
SHADOW_TIMEOUT_S = 30.0
NODES = {
    "before": "Affine, inputs: {x: x}",
    "a": "Affine, inputs: {x: before.x}",
    "b": 'Affine, inputs: {x: before.x}, when: "x > 0"',
    "c": "Affine, inputs: {x: x}",
    "deep": "Affine, inputs: {x: c.x}",
    "new": "Affine, inputs: {x: before.x}, shadow: a",
    "quick": "FirstOf, inputs: [a, c], join: first",
    "some": "Max, inputs: [a, b, deep], join: {quorum: 2, deadline: 80ms, timeouts: {deep: 50ms}}",
    "out": "Mean, inputs: [quick, some], join: {required: [some], deadline: 100ms}",
}


def erratic(chance: random.Random) -> Handler[Tensors]:
    """A node that answers at once, later, wrongly, not at all, or fails."""

    async def call(request: Tensors, context: Context, /) -> Tensors:
        match chance.randrange(8):
            case 0:
                raise Unavailable("gone")
            case 1:
                await asyncio.Event().wait()
            case 2:
                return numbers(*range(request.rows + 1))
            case 3:
                await later(context, chance.random() / 10)
            case 4:
                try:
                    await asyncio.Event().wait()
                finally:
                    await asyncio.sleep(0)  # it takes a while to end
            case _:
                pass
        return request

    return call


async def later(context: Context, seconds: float) -> None:
    """Come back when so much time has passed."""
    passed = asyncio.Event()
    timer = context.clock.call_at(context.clock.now() + seconds, passed.set)
    try:
        await passed.wait()
    finally:
        timer.cancel()


async def one(given: Flow, chance: random.Random) -> str:
    """One request, as a call or as a stream that may be left in the middle; how it ended."""
    context = given.context().within(DEADLINE_S)
    request = numbers(*(chance.randint(-1, 1) for _ in range(3)))
    try:
        if chance.random() < 0.5:
            await context.run(given.executor(request, context))
            return "answered"
        last: RequestError | None = None
        async with aclosing(given.executor.stream(request, context)) as events:
            async for _, result in events:
                if chance.random() < 0.1:
                    return "left"
                last = result if isinstance(result, RequestError) else None
            return "failed" if last else "answered"
    except RequestError:
        return "failed"


async def several(given: Flow, chance: random.Random, ended: dict[str, int]) -> None:
    """Some at once, of which a few are cancelled at one moment or another."""
    asking = [asyncio.ensure_future(one(given, chance)) for _ in range(AT_ONCE)]
    for _ in range(12):
        await given.clock.advance(0.01)
        asking[chance.randrange(AT_ONCE)].cancel()
    await given.clock.advance(DEADLINE_S)
    done, running = await asyncio.wait(asking, timeout=10)
    assert not running
    for task in done:
        how = "cancelled" if task.cancelled() else task.result()
        ended[how] = ended.get(how, 0) + 1


@pytest.mark.filterwarnings("error")
async def test_ten_thousand_requests_leave_nothing_behind(caplog: pytest.LogCaptureFixture) -> None:
    chance = random.Random(4)
    names = [name for name in NODES if name not in ("quick", "some", "out", "before")]
    ended: dict[str, int] = {}
    async with flow(NODES, handlers={name: erratic(chance) for name in names}) as given:
        before = asyncio.all_tasks()
        blocks = 0
        for index in range(REQUESTS // AT_ONCE):
            await several(given, chance, ended)
            await given.clock.advance(SHADOW_TIMEOUT_S)
            await given.shadow.settled()
            assert asyncio.all_tasks() == before
            assert isinstance(given.clock, ManualClock)
            assert given.clock.planned == 0
            caplog.clear()
            if index == WARM_ROUNDS:
                gc.collect()
                blocks = sys.getallocatedblocks()
        gc.collect()
        # Every request makes hundreds of objects: one that each left behind would show.
        assert sys.getallocatedblocks() - blocks < REQUESTS // 2
        mirrored = given.shadow.comparison
        assert min(mirrored.rows_alike, mirrored.failed) > 0
    assert sum(ended.values()) == REQUESTS
    assert all(ended[how] > REQUESTS / 100 for how in ("answered", "failed", "left", "cancelled")), ended
