"""`Teller`: those who want to be told of a job's end, told.

At least once: told again, with waits in between that grow, until they say that they heard it, as often as the topology
says. What is given up then is told of in one line of the log, and counted.
"""

from __future__ import annotations

import importlib.util
import logging
import random
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING

from mesh.context import SYSTEM_CLOCK, Clock, Context
from mesh.errors import InvalidInput, Overloaded, RequestError, SetupError, Unavailable
from mesh.jobs.callbacks.event import job_ended, post_of
from mesh.jobs.callbacks.over_grpc import tell_listener
from mesh.jobs.callbacks.targets import CallbackSettings, Target, check_callback
from mesh.jobs.records import Job
from mesh.jobs.store.job_store import Notice
from mesh.jobs.work.counts import WorkCounter
from mesh.jobs.work.holding import Unwritten, hand_in

if TYPE_CHECKING:
    from mesh.jobs.callbacks.over_http import HttpTeller

__all__ = ["Teller"]

log = logging.getLogger("mesh.jobs")

PATIENCE_S = 30.0
"""For how long the store is asked to keep that somebody was told. They are told again where it cannot."""


class Teller:
    """Tells of jobs that are over.

    Args:
        settings: Who may be told, and how hard it is tried.
        counter: What it counts in.
        clock: What durations are measured by.
        wall: The time of day, for signatures.
        chance: Where the jitter of waits comes from.

    Raises:
        SetupError: Somebody may be told, and aiohttp is not installed.
    """

    def __init__(
        self,
        settings: CallbackSettings,
        counter: WorkCounter,
        *,
        clock: Clock = SYSTEM_CLOCK,
        wall: Callable[[], float] = time.time,
        chance: random.Random | None = None,
    ) -> None:
        if settings.hosts and importlib.util.find_spec("aiohttp") is None:
            raise SetupError("callbacks need aiohttp: pip install 'inference-mesh[fetch]'")
        self._settings = settings
        self._counter = counter
        self._clock = clock
        self._wall = wall
        self._chance = chance or random.Random()
        self._http: HttpTeller | None = None

    async def __call__(self, notice: Notice) -> None:
        """Make one attempt at a callback. Raises nothing but its own cancellation."""
        try:
            target = check_callback(notice.callback, self._settings)
        except InvalidInput as error:
            # Allowed when the job was submitted, and not any more.
            await self._give_up(notice, error)
            return
        error = await self._attempt(target, notice.job)
        if error is None:
            self._counter.add("callbacks_told")
            await self._keep(notice, notice.told)
        elif isinstance(error, InvalidInput) or notice.number >= self._settings.attempts:
            await self._give_up(notice, error)
        else:
            hint_s = error.retry_after_s if isinstance(error, Overloaded | Unavailable) else 0.0
            delay_s = self._settings.backoff.delay_s(notice.number, self._chance, hint_s=hint_s)
            log.debug("callback of job %s, attempt %d: %s", notice.job.id, notice.number, error)
            self._counter.add("callbacks_retried")
            await self._keep(notice, partial(notice.again, delay_s))

    async def _attempt(self, target: Target, job: Job) -> RequestError | None:
        """Why it was not heard; None where it was."""
        try:
            await Context(clock=self._clock).within(self._settings.timeout_s).run(self._tell(target, job))
        except RequestError as error:
            return error
        except Exception as error:
            log.exception("callback of job %s to %s", job.id, target)
            return Unavailable(f"the attempt raised {type(error).__name__}")
        return None

    async def _tell(self, target: Target, job: Job) -> None:
        keys, now = self._settings.keys, self._wall()
        if target.scheme == "grpc":
            request, metadata = job_ended(job, keys, now)
            await tell_listener(target, request, metadata, self._settings.timeout_s)
            return
        if self._http is None:
            # Not before: it takes a moment to import, and reads the certificates of the system.
            from mesh.jobs.callbacks.over_http import HttpTeller

            self._http = HttpTeller()
        await self._http.tell(target, post_of(job, keys, now))

    async def _give_up(self, notice: Notice, error: RequestError) -> None:
        log.warning("callback of job %s given up after %d attempts: %s", notice.job.id, notice.number, error)
        self._counter.add("callbacks_failed")
        await self._keep(notice, partial(notice.give_up, error))

    async def _keep(self, notice: Notice, write: Callable[[], Awaitable[None]]) -> None:
        """Have the store keep what came of it."""

        async def written() -> bool:
            await write()
            return True

        try:
            await hand_in(written, patience_s=PATIENCE_S, clock=self._clock, chance=self._chance)
        except (Unwritten, RequestError) as error:
            text = "callback of job %s will be tried again, for the store did not take its end: %s"
            log.warning(text, notice.job.id, error)
