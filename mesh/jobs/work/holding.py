"""Holding a job while it is worked on, and handing its result in."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Protocol

from mesh.context import Clock
from mesh.errors import Overloaded, RequestError, Unavailable
from mesh.jobs.work.backoff import Backoff
from mesh.jobs.work.pausing import pause

__all__ = ["Held", "Unwritten", "hand_in", "hold"]

log = logging.getLogger("mesh.jobs")

BEATS_A_LEASE = 3
"""Two heartbeats may be lost, and the job is kept."""
_AGAIN = Backoff(first_s=0.1, most_s=2.0)
"""Waits between attempts to reach the store, in seconds."""


class Held(Protocol):
    """What is held: `mesh.jobs.store.job_store.Lease`."""

    @property
    def cancelled(self) -> asyncio.Event:
        """Set once it is somebody else's, or nobody's."""
        ...

    async def extend(self) -> object:
        """Hold it for another lease from now on."""
        ...


class Unwritten(Exception):
    """The store could not be reached for as long as it was tried."""


async def hold(held: Held, *, lease_s: float, clock: Clock) -> None:
    """Extend a lease every third of it until it is gone, or this is cancelled. Nothing else ends it.

    A store that cannot be reached gives the job to nobody else either, so the work goes on: when the store is back, the
    lease is extended, or turns out to be gone.
    """
    silent = False
    while not held.cancelled.is_set():
        await pause(clock, lease_s / BEATS_A_LEASE)
        try:
            await held.extend()
            silent = False
        except RequestError as error:
            if not silent:
                log.warning("a lease could not be extended, and is tried on: %s", error)
            silent = True
        except Exception:
            log.exception("a lease could not be extended, and is tried on")


async def hand_in(
    write: Callable[[], Awaitable[bool]], *, patience_s: float, clock: Clock, chance: random.Random
) -> bool:
    """Write how an attempt ended. A store that cannot be reached or is full is asked again, with waits in between.

    Args:
        write: Writes it; whether it was taken. Harmless to repeat.
        patience_s: For how long it is tried.
        clock: What that is measured by.
        chance: Where the jitter of the waits comes from.

    Raises:
        Unwritten: It was not to be done in that time.
        RequestError: The store does not take it, and never will.
    """
    until = clock.now() + patience_s
    made = 0
    while True:
        try:
            return await write()
        except (Unavailable, Overloaded) as error:
            made += 1
            delay_s = _AGAIN.delay_s(made, chance, hint_s=min(error.retry_after_s, _AGAIN.most_s))
            if clock.now() + delay_s > until:
                raise Unwritten(str(error)) from error
            if made == 1:
                log.warning("the end of an attempt could not be written, and is tried on: %s", error)
            await pause(clock, delay_s)
