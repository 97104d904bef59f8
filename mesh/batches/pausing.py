"""Waiting for threads, whose work cannot be cancelled."""

from __future__ import annotations

import asyncio

__all__ = ["to_the_end"]


async def to_the_end(work: asyncio.Future[None]) -> None:
    """Wait for a thread, also where this is cancelled meanwhile."""
    while not work.done():
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            continue
