"""One batch for each due time, however many workers look, and whichever of them dies when."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.errors import InvalidInput, Overloaded, RequestError, Unavailable
from mesh.jobs.schedules.firing import FiringState, Seen
from mesh.jobs.schedules.scheduler import HEAL_AFTER_S, Scheduler
from mesh.testing import ManualClock
from mesh.v1.batch_service_pb2 import BatchSpec
from tests.unit.jobs.scheduled import BATCH, HOUR, Batches, Store, hourly, record_of, serving

T = TypeVar("T")


class Crash(BaseException):
    """The worker is gone."""


@pytest.mark.parametrize("workers", [1, 5])
async def test_each_due_time_begins_one_batch_however_many_workers_look(workers: int) -> None:
    store, batches, clock = Store(), Batches(), ManualClock(now=0.5)
    async with serving(store, batches, clock, hourly(), workers=workers):
        await clock.advance(HOUR - 1.0)
        assert batches.begun == {}
        for hour in (1, 2, 3):
            await clock.advance(0.5 + 60)
            assert len(batches.begun) == hour
            batches.end()
            await clock.advance(HOUR - 60.5)
    assert list(batches.begun) == [f"schedule/nightly/{hour * HOUR}" for hour in (1, 2, 3)]
    record = record_of(store)
    assert [(run.due // HOUR, run.state, run.batch) for run in record.runs] == [
        (hour, FiringState.DONE, f"batch-{hour}") for hour in (3, 2, 1)
    ]


async def test_a_batch_is_told_what_to_do_for_the_time_that_was_due() -> None:
    store, batches, clock = Store(), Batches(), ManualClock(now=0.5)
    async with serving(store, batches, clock, hourly()):
        await clock.advance(2.0 * HOUR)
    spec = BatchSpec.FromString(batches.begun[f"schedule/nightly/{HOUR}"][1])
    assert (spec.graph, spec.input, spec.output) == ("digits", "/in/1970-01-01", "/out/nightly/1970-01-01T0100")
    assert dict(spec.columns) == {"text": "t"}
    assert spec.on_error.stop_after == 3


async def test_schedules_do_not_wait_for_each_other() -> None:
    store, batches, clock = Store(), Batches(), ManualClock(now=0.5)
    other = replace(hourly(overlap="wait"), name="other")
    async with serving(store, batches, clock, hourly(), other):
        await clock.advance(1.5 * HOUR)
    assert set(batches.begun) == {f"schedule/nightly/{HOUR}", f"schedule/other/{HOUR}"}


async def test_a_batch_past_its_window_is_cancelled_and_the_next_begins() -> None:
    store, batches, clock = Store(), Batches(), ManualClock(now=0.5)
    async with serving(store, batches, clock, hourly(window_s=600.0), workers=2):
        await clock.advance(HOUR + 590.0)
        assert batches.cancelled == []
        await clock.advance(30.0)
        assert set(batches.cancelled) == {"batch-1"}
        await clock.advance(HOUR)
        assert len(batches.begun) == 2
    (run, *_) = record_of(store).runs
    assert (run.state, run.ending) == (FiringState.CANCELLED, "its window ended")


async def test_what_no_batch_can_be_made_of_has_failed_and_says_why(caplog: pytest.LogCaptureFixture) -> None:
    store, batches, clock = Store(), Batches(refusal=InvalidInput("there is no folder /in")), ManualClock(now=0.5)
    async with serving(store, batches, clock, hourly()):
        await clock.advance(HOUR + 1.0)
        batches.refusal = None
        await clock.advance(HOUR)
    record = record_of(store)
    assert (record.runs[0].state, record.runs[0].error) == (FiringState.FAILED, "there is no folder /in")
    assert list(batches.begun) == [f"schedule/nightly/{2 * HOUR}"]
    assert "there is no folder /in" in caplog.text


@pytest.mark.parametrize("refusal", [Overloaded("full", retry_after_s=1.0), Unavailable("gone")], ids=["full", "gone"])
async def test_one_that_cannot_begin_now_begins_later_and_is_complained_of_once(
    refusal: RequestError, caplog: pytest.LogCaptureFixture
) -> None:
    store, batches, clock = Store(), Batches(refusal=refusal), ManualClock(now=0.5)
    async with serving(store, batches, clock, hourly()):
        await clock.advance(HOUR + 300.0)
        assert record_of(store).current is not None
        batches.refusal = None
        await clock.advance(60.0)
        assert list(batches.begun) == [f"schedule/nightly/{HOUR}"]
    assert caplog.text.count("could not begin its batch") == 1


async def test_a_store_that_is_away_loses_nothing(caplog: pytest.LogCaptureFixture) -> None:
    store, batches, clock = Store(), Batches(), ManualClock(now=0.5)
    async with serving(store, batches, clock, hourly(catch_up="all")):
        store.down = True
        await clock.advance(2.5 * HOUR)
        assert batches.begun == {}
        store.down = False
        for _ in range(3):
            await clock.advance(60.0)
            batches.end()
    assert list(batches.begun) == [f"schedule/nightly/{hour * HOUR}" for hour in (1, 2)]
    assert caplog.text.count("could not be looked at") == 1


async def test_what_is_left_out_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    store, batches, clock = Store(), Batches(), ManualClock(now=0.5)
    async with serving(store, batches, clock, hourly(), workers=3):
        await clock.advance(3.5 * HOUR)
    assert [message for message in caplog.messages if "leaves out" in message] == [
        f"schedule nightly leaves out 1970-01-01 0{hour}:00+00:00: the one before was not over" for hour in (2, 3)
    ]


async def test_without_schedules_there_is_nothing_to_serve() -> None:
    await asyncio.wait_for(Scheduler((), Store(), Batches()).serve(asyncio.Event()), 30.0)


# ===== Workers that die =====


class Dying:
    """A store and batches as a worker sees them that dies at its n-th operation, before or after it was done."""

    def __init__(self, store: Store, batches: Batches, operations: int, *, after: bool) -> None:
        self._store, self._batches = store, batches
        self._left, self._after = operations, after

    async def keep(self, key: str, data: bytes, expected: int | None = None) -> int:
        return await self._last(self._store.keep(key, data, expected))

    async def read(self, key: str) -> tuple[bytes, int] | None:
        return await self._last(self._store.read(key))

    async def start(self, spec: BatchSpec, key: str, *, schedule: str, due_time: float) -> str:
        return await self._last(self._batches.start(spec, key, schedule=schedule, due_time=due_time))

    async def state(self, batch: str) -> Seen | None:
        return await self._last(self._batches.state(batch))

    async def cancel(self, batch: str) -> None:
        await self._last(self._batches.cancel(batch))

    async def _last(self, operation: Coroutine[Any, Any, T]) -> T:
        self._left -= 1
        if self._left < 0 and not self._after:
            operation.close()
            raise Crash
        done = await operation
        if self._left < 0:
            raise Crash
        return done


DEATHS = st.lists(
    st.tuples(st.sampled_from([0.0, 15.0, 40.0, 1800.0, 3600.0]), st.integers(0, 6), st.booleans(), st.booleans()),
    max_size=12,
)
"""Of each worker: how long after the one before it looks, at which operation it dies and whether that was done, and
whether batches end before it looks."""


@given(DEATHS, st.sampled_from([None, 5400.0]))
async def test_whichever_workers_die_each_due_time_has_one_batch(
    deaths: list[tuple[float, int, bool, bool]], window_s: float | None
) -> None:
    store, batches, now = Store(), Batches(), 0.5
    schedule = hourly(catch_up="all", overlap="wait", window_s=window_s)

    def worker(sees: Any) -> Scheduler:
        return Scheduler([schedule], sees, sees, wall=lambda: now)

    await worker(Dying(store, batches, 100, after=False)).look(schedule)
    for delay, operations, after, ends in deaths:
        now += delay
        if ends:
            batches.end()
        with suppress(Crash):
            await worker(Dying(store, batches, operations, after=after)).look(schedule)
    last = Scheduler([schedule], store, batches, wall=lambda: now)
    for _ in range(60):
        now += HEAL_AFTER_S
        await last.look(schedule)
        batches.end()
    now += HEAL_AFTER_S
    await last.look(schedule)
    record = record_of(store)
    assert record.current is None
    assert record.waiting == ()
    dues = [due * HOUR for due in range(1, int(now // HOUR) + 1)]
    begun = [int(key.rpartition("/")[2]) for key in batches.begun]
    assert begun == sorted(begun), "oldest first"
    assert sorted([*begun, *(skip.due for skip in record.skips)]) == dues
    assert [(run.due, run.batch) for run in reversed(record.runs)] == [
        (due, batch) for due, (batch, _) in zip(begun, batches.begun.values(), strict=True)
    ]
    if window_s is None:
        assert record.skips == ()


async def test_a_worker_that_is_late_to_write_changes_nothing() -> None:
    store, batches, now = Store(), Batches(), 0.5
    schedule = hourly()
    quick = Scheduler([schedule], store, batches, wall=lambda: now)
    await quick.look(schedule)
    now = HOUR + 1.0
    let_write = asyncio.Event()

    class Slow(Store):
        async def keep(self, key: str, data: bytes, expected: int | None = None) -> int:
            await let_write.wait()
            return await super().keep(key, data, expected)

    late = asyncio.create_task(
        Scheduler([schedule], Slow(store.documents), batches, wall=lambda: HOUR + 1.0).look(schedule)
    )
    for _ in range(3):
        await quick.look(schedule)
        batches.end()
        now += 1.0
    written = record_of(store)
    assert [run.due for run in written.runs] == [HOUR]
    let_write.set()
    assert await late == 0, "it looks again at once"
    assert record_of(store) == written


async def test_a_firing_is_left_to_the_worker_that_claimed_it_for_a_while() -> None:
    store, batches, now = Store(), Batches(), 0.5
    schedule = hourly()
    other = Scheduler([schedule], store, batches, wall=lambda: now)
    await other.look(schedule)
    now = HOUR + 1.0
    dying = Dying(store, batches, 2, after=False)
    with pytest.raises(Crash):
        await Scheduler([schedule], dying, dying, wall=lambda: now).look(schedule)
    assert record_of(store).current is not None, "it was claimed"
    now += HEAL_AFTER_S - 1
    await other.look(schedule)
    assert batches.begun == {}
    now += 1
    await other.look(schedule)
    assert list(batches.begun) == [f"schedule/nightly/{HOUR}"]


async def test_a_firing_begins_with_what_it_was_claimed_for_though_the_topology_was_changed() -> None:
    store, batches, now = Store(), Batches(), 0.5
    schedule = hourly()
    dying = Dying(store, batches, 100, after=False)
    await Scheduler([schedule], dying, dying, wall=lambda: now).look(schedule)
    now = HOUR + 1.0
    dying = Dying(store, batches, 2, after=True)
    with pytest.raises(Crash):
        await Scheduler([schedule], dying, dying, wall=lambda: now).look(schedule)
    assert len(batches.begun) == 1, "it began, and nobody wrote down what"
    changed = replace(schedule, batch=replace(BATCH, input="/elsewhere"))
    now += HEAL_AFTER_S
    await Scheduler([changed], store, batches, wall=lambda: now).look(changed)
    assert len(batches.begun) == 1
    current = record_of(store).current
    assert current is not None
    assert current.batch == "batch-1"
