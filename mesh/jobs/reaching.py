"""`Reaching`: a store that is entered as soon as it can be, while everything else goes on."""

from __future__ import annotations

import asyncio
import logging
import random
from typing import Self

from mesh.context import SYSTEM_CLOCK, Clock
from mesh.errors import RequestError, SetupError
from mesh.jobs.store.job_store import JobStore
from mesh.jobs.work.backoff import Backoff
from mesh.jobs.work.pausing import happens

__all__ = ["Reaching"]

log = logging.getLogger("mesh.jobs")

_AGAIN = Backoff(first_s=0.2, most_s=5.0)
"""Waits between two tries, in seconds."""


class Reaching:
    """Enters a store, again and again until it is there; until then whoever asks it is told Unavailable.

    An async context manager; leaving it leaves the store.

    Args:
        store: Not entered.
        clock: What waits are measured by.
    """

    def __init__(self, store: JobStore, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._store = store
        self._clock = clock
        self._leaving = asyncio.Event()
        self._trying: asyncio.Task[None] | None = None
        self.reached = asyncio.Event()
        """Set once the store is entered."""
        self.tried = asyncio.Event()
        """Set once it was tried, and entered or not."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._leaving.set()
        if self._trying is not None:
            self._trying.cancel()
            await asyncio.wait((self._trying,))
        if self.reached.is_set():
            await self._store.__aexit__(None, None, None)

    async def begin(self) -> None:
        """Try once, and go on trying from then on.

        Raises:
            SetupError: The store is there, and will not have us, or is none for us.
        """
        try:
            await self._enter()
        except RequestError as error:
            log.warning("the store cannot be reached, and is tried again until it is: %s", error)
            self._trying = asyncio.create_task(self._go_on(), name="reach the store")

    def begin_later(self) -> None:
        """The same without waiting for the first try; what is set up wrongly is told in the log."""
        self._trying = asyncio.create_task(self._go_on(), name="reach the store")

    async def _enter(self) -> None:
        try:
            await self._store.__aenter__()
            self.reached.set()
        finally:
            self.tried.set()

    async def _go_on(self) -> None:
        tries, told = 0, ""
        chance = random.Random()
        while True:
            tries += 1
            try:
                await self._enter()
            except (RequestError, SetupError) as error:
                if str(error) != told:
                    told = str(error)
                    log.warning("jobs cannot be stored now: %s", error)
            else:
                log.info("the store is there")
                return
            if await happens(self._leaving, self._clock, _AGAIN.delay_s(tries, chance)):
                return
