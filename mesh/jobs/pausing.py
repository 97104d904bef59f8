"""Waiting on a clock that tests can move."""

from __future__ import annotations

import asyncio

from mesh.context import Clock

__all__ = ["happens", "pause"]


async def pause(clock: Clock, seconds: float) -> None:
    """Return after so many seconds."""
    await happens(asyncio.Event(), clock, seconds)


async def happens(event: asyncio.Event, clock: Clock, seconds: float) -> bool:
    """Return once `event` is set, or after so many seconds; whether it is set."""
    if event.is_set():
        return True
    woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def wake(*_: object) -> None:
        if not woken.done():
            woken.set_result(None)

    timer = clock.call_at(clock.now() + seconds, wake)
    waiting = asyncio.ensure_future(event.wait())
    waiting.add_done_callback(wake)
    try:
        await woken
    finally:
        timer.cancel()
        waiting.cancel()
    return event.is_set()
