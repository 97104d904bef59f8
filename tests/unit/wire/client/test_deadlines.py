"""Many deadlines behind one timer."""

from __future__ import annotations

import asyncio
import time

from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.wire.deadlines import Deadlines
from tests.unit.wire.serving import eventually


class Timed:
    """Notes when it was expired."""

    def __init__(self, in_s: float) -> None:
        self.deadline: float | None = time.monotonic() + in_s
        self.expired_at: float | None = None

    def expire(self) -> None:
        self.expired_at = time.monotonic()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.booleans()), max_size=30))
def test_whoever_is_left_expires_in_time_and_nobody_before(given_ms: list[tuple[int, bool]]) -> None:
    async def run() -> None:
        deadlines = Deadlines(asyncio.get_running_loop())
        calls = [(Timed(ms / 1e3), leaves) for ms, leaves in given_ms]
        for call, _ in calls:
            assert call.deadline is not None
            deadlines.add(call, call.deadline)
        for call, leaves in calls:
            if leaves:
                deadlines.discard(call)
        await eventually(lambda: not deadlines.held)
        for call, leaves in calls:
            assert call.deadline is not None
            if leaves:
                assert call.expired_at is None
            else:
                assert call.expired_at is not None
                assert call.expired_at >= call.deadline

    asyncio.run(run())


async def test_calls_that_end_in_time_move_no_timer() -> None:
    loop = asyncio.get_running_loop()
    deadlines = Deadlines(loop)
    timers = 0
    call_later = loop.call_later

    def counting(*given: object) -> asyncio.TimerHandle:
        nonlocal timers
        timers += 1
        return call_later(*given)  # pyright: ignore[reportArgumentType, reportCallIssue, reportUnknownVariableType]

    loop.call_later = counting  # pyright: ignore[reportAttributeAccessIssue]
    for _ in range(1000):
        call = Timed(60)
        assert call.deadline is not None
        deadlines.add(call, call.deadline)
        deadlines.discard(call)
    assert timers == 1
    deadlines.close()


async def test_an_earlier_deadline_is_not_held_up_by_a_later_one() -> None:
    deadlines = Deadlines(asyncio.get_running_loop())
    late, soon = Timed(60), Timed(0.01)
    for call in (late, soon):
        assert call.deadline is not None
        deadlines.add(call, call.deadline)
    await eventually(lambda: soon.expired_at is not None)
    assert late.expired_at is None
    assert deadlines.held == 1
    deadlines.close()
    assert deadlines.held == 0
