"""Waiting on a clock that tests can move."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any

from mesh.context import Clock

__all__ = ["ended", "happens", "pause"]


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


async def ended(tasks: Collection[asyncio.Future[Any]], clock: Clock, seconds: float) -> bool:
    """Return once all tasks have ended, in whatever way, or after so many seconds; whether they have."""
    over = asyncio.Event()

    def look(*_: object) -> None:
        if all(task.done() for task in tasks):
            over.set()

    for task in tasks:
        task.add_done_callback(look)
    try:
        look()
        return await happens(over, clock, seconds)
    finally:
        for task in tasks:
            task.remove_done_callback(look)
