"""Whatever is slow, fails or leaves: each call ends once, with its own answer, and few of them are made twice."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.context import Context
from mesh.errors import InvalidInput, NodeFailed, Unavailable
from mesh.handler import stack
from mesh.layers import Batch, Hedge, Limit, Retry, Timeout
from mesh.tensors import Tensors
from mesh.testing import ManualClock, settle
from tests.unit.layers.given import rows, values


@dataclass
class Replicas:
    """A node that takes as long as chance says, and now and then fails."""

    clock: ManualClock
    chance: random.Random
    fails: float
    running: int = 0

    def __post_init__(self) -> None:
        self.attempts: Counter[str] = Counter()

    async def __call__(self, request: Tensors, context: Context, /) -> Tensors:
        self.attempts[context.request_id] += 1
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        takes_s = self.chance.choice([0.125, 0.25, 0.25, 4.0])
        timer = self.clock.call_at(self.clock.now() + takes_s, lambda: over.done() or over.set_result(None))
        self.running += 1
        try:
            await over
        finally:
            timer.cancel()
            self.running -= 1
        if self.chance.random() < self.fails:
            raise self.chance.choice([Unavailable, NodeFailed, InvalidInput])("why")
        return Tensors({"x": request["x"] * 2})


@settings(max_examples=80, deadline=None)
@given(
    after=st.sampled_from(["p50", "p90", 0.125, 0.3]),
    min_samples=st.integers(1, 5),
    share=st.sampled_from([0.1, 0.5, 1.0]),
    fails=st.sampled_from([0.0, 0.3]),
    wrapped=st.booleans(),
    calls=st.integers(1, 40),
    seed=st.integers(0, 2**32),
)
async def test_each_call_ends_once_with_its_own_answer_and_seconds_are_a_share(
    after: str | float, min_samples: int, share: float, fails: float, wrapped: bool, calls: int, seed: int
) -> None:
    clock, chance = ManualClock(), random.Random(seed)
    before = asyncio.all_tasks()
    node = Replicas(clock, chance, fails)
    hedge = Hedge(after=after, min_samples=min_samples, max_share=share)
    inner = (Timeout(after_s=3.0), Limit(max_concurrent=5, max_wait_s=1.0)) if wrapped else ()
    handler = stack(node, hedge, *inner)

    async def ask(index: int, within_s: float | None) -> Tensors:
        context = Context(request_id=f"{index}", clock=clock)
        return await handler(rows(index), context if within_s is None else context.within(within_s))

    tasks: list[asyncio.Task[Tensors]] = []
    left: set[int] = set()
    for index in range(calls):
        tasks.append(asyncio.create_task(ask(index, chance.choice([None, None, 2.0]))))
        if chance.random() < 0.2:
            leaving = chance.randrange(len(tasks))
            if tasks[leaving].cancel():
                left.add(leaving)
        await clock.advance(chance.choice([0.0, 0.125, 0.3, 1.0]))
        assert sum(node.attempts.values()) - len(node.attempts) <= share * (index + 1)
    await clock.advance(60.0)
    for index, outcome in enumerate(await asyncio.gather(*tasks, return_exceptions=True)):
        if isinstance(outcome, Tensors):
            assert values(outcome) == [2.0 * index]
        elif index in left:
            assert isinstance(outcome, asyncio.CancelledError)
        else:
            assert fails or wrapped, f"call {index} ended in {outcome!r}"
        assert tasks[index].cancelling() == (index in left)
    assert max(node.attempts.values(), default=0) <= 2
    assert node.running == 0
    assert asyncio.all_tasks() == before
    assert clock.planned == 0


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=80), st.sampled_from([50, 75, 90, 99]), st.integers(1, 40))
async def test_a_call_is_late_exactly_when_it_takes_longer_than_so_many_of_the_others(
    latencies: list[int], percentile: int, min_samples: int
) -> None:
    planned: list[float] = []
    node_takes = attempts = 0

    class WatchedClock(ManualClock):
        def call_at(self, when: float, callback: Callable[[], object]):
            planned.append(when - self.now())
            return super().call_at(when, callback)

    clock = WatchedClock(0.0)

    async def node(request: Tensors, context: Context, /) -> Tensors:
        nonlocal attempts
        attempts += 1
        if attempts > 1:
            # A second attempt must not move the clock: the first would seem to have taken longer than it did.
            await asyncio.Event().wait()
        await clock.advance(node_takes)
        return request

    handler = Hedge(after=f"p{percentile}", min_samples=min_samples)(node)
    known: list[int] = []
    for node_takes in latencies:
        planned.clear()
        attempts = 0
        await handler(rows(1), Context(clock=clock))
        if len(known) < min_samples:
            assert planned == []
        else:
            (late_s,) = planned
            assert late_s in known
            assert sum(one <= late_s for one in known) >= percentile / 100 * len(known)
            assert sum(one < late_s for one in known) < percentile / 100 * len(known)
        known.append(node_takes)


async def test_a_stack_of_every_policy_leaves_nothing_behind_after_a_thousand_calls() -> None:
    clock, chance = ManualClock(), random.Random(5)
    before = asyncio.all_tasks()
    node = Replicas(clock, chance, fails=0.2)
    handler = stack(
        node,
        Retry(seed=1),
        Hedge(after="p90", min_samples=10),
        Timeout(after_s=3.0),
        Limit(max_concurrent=20, max_waiting=10, max_wait_s=0.5),
        Batch(max_rows=4, max_concurrent=20),
    )

    async def ask(index: int) -> Tensors:
        return await handler(rows(index), Context(clock=clock))

    tasks: list[asyncio.Task[Tensors]] = []
    for index in range(1000):
        tasks.append(asyncio.create_task(ask(index)))
        if chance.random() < 0.1:
            tasks[-1 - chance.randrange(min(len(tasks), 20))].cancel()
        if chance.random() < 0.2:
            await clock.advance(0.25)
    await clock.advance(60.0)
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    answered = [index for index, outcome in enumerate(outcomes) if isinstance(outcome, Tensors)]
    assert all(
        values(outcome) == [2.0 * index] for index, outcome in enumerate(outcomes) if isinstance(outcome, Tensors)
    )
    assert len(answered) > 300
    await settle()
    assert node.running == 0
    assert asyncio.all_tasks() == before
    assert clock.planned == 0
