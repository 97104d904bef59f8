"""A breaker against one that is written down as plainly as can be, and in the middle of anything."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.context import Context
from mesh.errors import InvalidInput, Unavailable
from mesh.layers import Breaker
from mesh.tensors import Tensors
from mesh.testing import ManualClock, settle
from tests.unit.layers.given import Asking, rows

GOOD = rows(1)
BAD = Unavailable("gone")


@dataclass
class Plain:
    """The same breaker, written down as plainly as can be: it keeps every call."""

    breaker: Breaker
    state: str = "closed"
    opened: float = 0.0
    row: int = 0
    passed: int = 0
    calls: list[tuple[int, bool]] = field(default_factory=list[tuple[int, bool]])

    def lets_through(self, now: float) -> bool:
        if self.state == "open" and now >= self.opened + self.breaker.open_for_s:
            self.state, self.passed = "half open", 0
        return self.state != "open"

    def ended(self, now: float, outcome: str) -> None:
        if outcome == "neutral":
            return
        failed = outcome == "bad"
        self.row = self.row + 1 if failed else 0
        tenth = int(now / (self.breaker.window_s / 10))
        self.calls.append((tenth, failed))
        recent = [bad for when, bad in self.calls if when > tenth - 10]
        if self.state == "half open":
            self.passed += not failed
            if failed or self.passed == self.breaker.probes:
                self.turn("open" if failed else "closed", now)
            return
        if not failed:
            return
        by_row = self.breaker.failures is not None and self.row >= self.breaker.failures
        rate = self.breaker.error_rate
        if by_row or (rate is not None and len(recent) >= self.breaker.min_calls and sum(recent) >= rate * len(recent)):
            self.turn("open", now)

    def turn(self, state: str, now: float) -> None:
        self.state, self.opened, self.row = state, now, 0
        self.calls.clear()


breakers = st.builds(
    Breaker,
    failures=st.integers(1, 6),
    error_rate=st.sampled_from([None, 0.25, 0.5, 1.0]),
    window_s=st.sampled_from([1.25, 10.0]),
    min_calls=st.integers(1, 12),
    open_for_s=st.sampled_from([0.5, 4.0]),
    probes=st.integers(1, 3),
) | st.builds(
    Breaker,
    failures=st.none(),
    error_rate=st.sampled_from([0.25, 0.5, 1.0]),
    window_s=st.sampled_from([1.25, 10.0]),
    min_calls=st.integers(1, 12),
    open_for_s=st.sampled_from([0.5, 4.0]),
)
OUTCOMES = {"bad": BAD, "neutral": InvalidInput("why")}


@settings(max_examples=40, deadline=None)
@given(breakers, st.integers(0, 2**32))
async def test_calls_one_after_another_go_through_exactly_when_the_plain_breaker_says(
    breaker: Breaker, seed: int
) -> None:
    clock, plain, chance = ManualClock(), Plain(breaker), random.Random(seed)
    outcome = ""

    async def node(request: Tensors, context: Context, /) -> Tensors:
        if outcome in OUTCOMES:
            raise OUTCOMES[outcome]
        return request

    handler = breaker(node)
    bad, step_s = 0.0, 0.0
    for index in range(200):
        if index % 20 == 0:  # better days and worse ones, busy ones and quiet ones
            bad, step_s = chance.choice([0.1, 0.3, 0.6]), chance.choice([0.05, 0.3, 1.0])
        if chance.random() < 0.7:
            await clock.advance(chance.random() * step_s)
        outcome = "neutral" if chance.random() < 0.1 else "bad" if chance.random() < bad else "good"
        (ended,) = await asyncio.gather(handler(rows(1), Context(clock=clock)), return_exceptions=True)
        if plain.lets_through(clock.now()):
            assert ended == OUTCOMES.get(outcome, rows(1))
            plain.ended(clock.now(), outcome)
        else:
            assert isinstance(ended, Unavailable)
            assert ended.retry_after_s == pytest.approx(plain.opened + breaker.open_for_s - clock.now(), abs=1e-8)


@settings(max_examples=80, deadline=None)
@given(breakers, st.integers(0, 2**32), st.integers(1, 60))
async def test_whatever_meets_a_node_that_is_well_again_is_found_so(breaker: Breaker, seed: int, calls: int) -> None:
    asking, chance = Asking(breaker), random.Random(seed)
    before = asyncio.all_tasks()
    tasks: list[asyncio.Task[Tensors]] = []
    for _ in range(calls):
        tasks.append(await asking.ask(rows(1)))
        match chance.randrange(6):
            case 0:
                await asking.clock.advance(chance.choice([0.125, 0.5, 4.0]))
            case 1:
                chance.choice(tasks).cancel()
            case 2 | 3 | 4 if asking.script.pending:
                running = await asking.running()
                if not running.cancelled:
                    outcome = chance.choice([GOOD, BAD, BAD, BAD, InvalidInput("why")])
                    running.reply(outcome) if isinstance(outcome, Tensors) else running.fail(outcome)
            case _:
                pass
        await settle(chance.choice([1, 20]))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    while asking.script.pending:
        await asking.script.request()
    await asking.clock.advance(4.0)
    for _ in range(breaker.probes):
        well = await asking.ask(rows(1))
        (await asking.running()).echo()
        assert await well == rows(1), "no place of a probe is lost"
    together = await asking.ask_all([rows(1)] * 5)
    for _ in together:
        (await asking.running()).echo()
    await asyncio.gather(*together)
    assert asyncio.all_tasks() == before
    assert asking.clock.planned == 0
