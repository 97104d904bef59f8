from __future__ import annotations

import asyncio
import random

import pytest

from mesh.errors import InvalidInput, Overloaded, Unavailable
from mesh.jobs.work.holding import Unwritten, hand_in, hold
from mesh.jobs.work.pausing import happens, pause
from mesh.testing import ManualClock, settle


class Scripted:
    """Something held whose heartbeats end as a test says."""

    def __init__(self, *ends: BaseException | None) -> None:
        self.cancelled = asyncio.Event()
        self.beats = 0
        self._ends = list(ends)

    async def extend(self) -> None:
        self.beats += 1
        end = self._ends.pop(0) if self._ends else None
        if end is not None:
            raise end


async def test_a_lease_is_extended_every_third_of_it() -> None:
    clock, held = ManualClock(), Scripted()
    holding = asyncio.ensure_future(hold(held, lease_s=30, clock=clock))
    await clock.advance(9.9)
    assert held.beats == 0
    await clock.advance(0.1)
    assert held.beats == 1
    await clock.advance(90)
    assert held.beats == 10
    holding.cancel()
    await asyncio.wait((holding,))
    assert clock.planned == 0


async def test_no_error_ends_the_heartbeat() -> None:
    clock = ManualClock()
    held = Scripted(Unavailable("gone"), RuntimeError("odd"), TimeoutError(), InvalidInput("what?"))
    holding = asyncio.ensure_future(hold(held, lease_s=3, clock=clock))
    await clock.advance(6)
    assert held.beats == 6
    assert not holding.done()
    holding.cancel()


async def test_the_heartbeat_ends_where_the_lease_is_gone() -> None:
    clock, held = ManualClock(), Scripted()
    holding = asyncio.ensure_future(hold(held, lease_s=3, clock=clock))
    await clock.advance(1)
    held.cancelled.set()
    await clock.advance(1)
    await holding
    assert held.beats == 2


class Store:
    """A store that takes a result after so many failures."""

    def __init__(self, *failures: Exception, taken: bool = True) -> None:
        self._failures = list(failures)
        self._taken = taken
        self.writes = 0

    async def write(self) -> bool:
        self.writes += 1
        if self._failures:
            raise self._failures.pop(0)
        return self._taken


def handing_in(store: Store, clock: ManualClock, patience_s: float = 60) -> asyncio.Task[bool]:
    return asyncio.ensure_future(hand_in(store.write, patience_s=patience_s, clock=clock, chance=random.Random(1)))


async def test_a_result_outlives_an_outage_of_the_store() -> None:
    clock, store = ManualClock(), Store(*(Unavailable("gone") for _ in range(20)), Overloaded("full", retry_after_s=1))
    handing = handing_in(store, clock)
    await clock.advance(60)
    assert await handing
    assert store.writes == 22


@pytest.mark.parametrize("taken", [True, False])
async def test_what_the_store_says_is_returned_at_once(taken: bool) -> None:
    assert await handing_in(Store(taken=taken), ManualClock()) is taken


async def test_an_outage_that_does_not_end_is_given_up_in_time() -> None:
    clock, store = ManualClock(), Store(*(Unavailable("gone") for _ in range(1000)))
    handing = handing_in(store, clock, patience_s=10)
    await clock.advance(8)
    assert not handing.done()
    await clock.advance(2)
    with pytest.raises(Unwritten, match="gone"):
        await handing
    assert clock.planned == 0


async def test_a_result_that_is_never_taken_is_not_tried_again() -> None:
    store = Store(InvalidInput("too large"))
    with pytest.raises(InvalidInput):
        await handing_in(store, ManualClock())
    assert store.writes == 1


async def test_a_pause_takes_its_time_and_leaves_nothing() -> None:
    clock = ManualClock()
    pausing = asyncio.ensure_future(pause(clock, 5))
    await clock.advance(4.9)
    assert not pausing.done()
    await clock.advance(0.1)
    assert pausing.done()
    assert clock.planned == 0


async def test_what_happens_in_time_ends_the_wait() -> None:
    clock, event = ManualClock(), asyncio.Event()
    waiting = asyncio.ensure_future(happens(event, clock, 5))
    await settle()
    event.set()
    assert await waiting
    assert await happens(event, clock, 5)
    assert clock.planned == 0
    assert not await _in_time(clock)


async def _in_time(clock: ManualClock) -> bool:
    waiting = asyncio.ensure_future(happens(asyncio.Event(), clock, 5))
    await clock.advance(5)
    return await waiting
