"""When a backend that fails is left alone."""

from __future__ import annotations

from mesh.caches.rest import Rest
from mesh.testing import ManualClock


async def test_three_failures_in_a_row_begin_a_rest_and_one_try_ends_it() -> None:
    clock = ManualClock()
    rest = Rest(clock)
    assert [rest.failed() for _ in range(2)] == [True, False]
    assert rest.may_try()
    assert not rest.resting
    rest.failed()
    assert rest.resting
    assert not rest.may_try()
    await clock.advance(1.0)
    assert [rest.may_try() for _ in range(3)] == [True, False, False]
    assert rest.succeeded()
    assert [rest.may_try() for _ in range(3)] == [True] * 3


async def test_a_try_that_fails_begins_another_rest() -> None:
    clock = ManualClock()
    rest = Rest(clock, after=1, rest_s=2.0)
    rest.failed()
    await clock.advance(2.0)
    assert rest.may_try()
    assert not rest.failed()
    await clock.advance(1.9)
    assert not rest.may_try()
    await clock.advance(0.1)
    assert rest.may_try()


async def test_a_try_that_never_reports_is_followed_by_another() -> None:
    clock = ManualClock()
    rest = Rest(clock, after=1)
    rest.failed()
    await clock.advance(1.0)
    assert rest.may_try()
    await clock.advance(1.0)
    assert rest.may_try()


def test_failures_with_successes_between_begin_no_rest() -> None:
    rest = Rest(ManualClock())
    for _ in range(10):
        assert rest.failed()
        rest.failed()
        assert rest.succeeded()
        assert not rest.succeeded()
    assert rest.may_try()
