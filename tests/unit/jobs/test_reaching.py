"""A store that is tried until it is there: what is told meanwhile, and that it is left."""

from __future__ import annotations

import logging
from types import TracebackType

import pytest

from mesh.errors import MeshError, SetupError, Unavailable
from mesh.jobs.reaching import Reaching
from mesh.jobs.store.job_store import JobStore
from mesh.jobs.store.settings import StoreSettings
from mesh.testing import ManualClock

SETTINGS = StoreSettings(graph="g", servers=("nats://a",))


class Slow(JobStore):
    """Is there once it was tried as often as it has errors."""

    def __init__(self, *errors: MeshError) -> None:
        super().__init__(SETTINGS)
        self.errors = list(errors)
        self.entered = 0

    async def __aenter__(self) -> JobStore:
        if self.errors:
            raise self.errors.pop(0)
        self.entered += 1
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.entered -= 1


async def test_a_store_that_is_there_is_entered_at_once_and_left() -> None:
    store = Slow()
    async with Reaching(store, clock=ManualClock()) as reaching:
        await reaching.begin()
        assert reaching.reached.is_set()
        assert store.entered == 1
    assert store.entered == 0


@pytest.mark.parametrize("later", [False, True])
async def test_a_store_that_is_not_there_is_tried_until_it_is(later: bool) -> None:
    clock = ManualClock()
    store = Slow(*[Unavailable("not there")] * 3)
    async with Reaching(store, clock=clock) as reaching:
        if later:
            reaching.begin_later()
        else:
            await reaching.begin()
        await reaching.tried.wait()
        assert not reaching.reached.is_set()
        for _ in range(4):
            await clock.advance(5.0)
        assert reaching.reached.is_set()
        assert store.entered == 1
    assert store.entered == 0


async def test_a_store_that_will_not_have_us_is_told_at_once_where_somebody_waits() -> None:
    store = Slow(SetupError("wrong password"))
    async with Reaching(store, clock=ManualClock()) as reaching:
        with pytest.raises(SetupError, match="wrong password"):
            await reaching.begin()
    assert store.entered == 0


async def test_else_it_is_told_once_in_the_log_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "mesh.jobs")
    clock = ManualClock()
    store = Slow(*[SetupError("wrong password")] * 3)
    async with Reaching(store, clock=clock) as reaching:
        reaching.begin_later()
        for _ in range(4):
            await clock.advance(5.0)
        assert reaching.reached.is_set()
    assert [record.getMessage() for record in caplog.records] == ["jobs cannot be stored now: wrong password"]


async def test_leaving_ends_what_is_being_tried() -> None:
    store = Slow(*[Unavailable("not there")] * 3)
    async with Reaching(store, clock=ManualClock()) as reaching:
        await reaching.begin()
        assert not reaching.reached.is_set()
    assert store.entered == 0
