"""`retry: {attempts: 3, first_delay: 10ms}`: another attempt, where the table of errors says that it may help.

Only an error that `mesh.errors` calls retryable is followed by another attempt, so a request that was refused for what
it holds, or that a node choked on, is not sent again; nor is one whose time has run out. A node that must not see the
same request twice should not have this layer: a worker that died with the call in flight may have done the work.

Waits grow as in gRFC A6 (https://github.com/grpc/proposal/blob/master/A6-client-retries.md): exponential, bounded, with
jitter. So does the budget that keeps retries from making an outage worse: a bucket of tokens, one taken by each attempt
that failed in a retryable way, a part of one given back by each that succeeded. While no more than half of them are
left, errors are passed on at once. In the long run a node so sees at most `1 + refill` attempts a request, however many
of them fail.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from mesh.context import Clock, Context
from mesh.errors import Overloaded, RequestError, Unavailable
from mesh.handler import Handler
from mesh.tensors import Tensors
from mesh.units import Duration

__all__ = ["Retry"]


class Retry(BaseModel):
    """Try again when the node could not be reached.

    Raises, when called through: the error of the last attempt.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    attempts: Annotated[int, Field(ge=2, le=5)] = 3
    """Most attempts for one request, the first one included. (gRPC allows five at most, too.)"""
    first_delay_s: Annotated[Duration, Field(gt=0, le=60, alias="first_delay")] = 0.01
    """Longest wait before the second attempt."""
    factor: Annotated[float, Field(ge=1, le=10)] = 2.0
    """By how much the wait grows from one attempt to the next."""
    max_delay_s: Annotated[Duration, Field(gt=0, le=60, alias="max_delay")] = 1.0
    """What no wait grows beyond. A hint that is longer is not waited for."""
    jitter: Annotated[float, Field(ge=0, le=1)] = 0.5
    """The part of each wait that is left to chance: with 0.5 it takes from half of its length to the whole."""
    wait_for_hint: bool = False
    """Whether an error that says when to come back (`Overloaded`, or an open breaker's `Unavailable`) is followed by
    another attempt, then and no sooner. Left out, it is passed on: whoever is overloaded is not asked again."""
    budget: Annotated[int, Field(ge=1, le=1000)] = 10
    """Tokens in the full bucket: about half as many requests may be tried again in a row before any succeeds."""
    refill: Annotated[float, Field(gt=0, le=1)] = 0.1
    """The part of a token that an attempt gives back when it succeeds: the share of retries in the long run."""
    seed: Annotated[int | None, Field(ge=0)] = None
    """Makes the jitter repeatable."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.first_delay_s > self.max_delay_s:
            raise ValueError("first_delay is longer than max_delay")
        return self

    def __call__(self, handler: Handler[Tensors], /) -> Handler[Tensors]:
        return _Retrying(self, handler)


class _Retrying:
    def __init__(self, settings: Retry, handler: Handler[Tensors]) -> None:
        self._settings = settings
        self._handler = handler
        self._tokens = float(settings.budget)
        self._chance = random.Random(settings.seed)

    async def __call__(self, request: Tensors, context: Context, /) -> Tensors:
        made = 0
        while True:
            made += 1
            # An attempt that failed half way must not leave its part of the report.
            attempt = context if context.timings is None else replace(context, timings=[])
            try:
                answer = await self._handler(request, attempt)
            except RequestError as error:
                if not error.retryable:
                    raise
                self._tokens = max(0.0, self._tokens - 1.0)
                delay_s = self._delay_s(error, made)
                if delay_s is None or not _leaves_time(context, delay_s):
                    raise
            else:
                self._tokens = min(float(self._settings.budget), self._tokens + self._settings.refill)
                if context.timings is not None and attempt.timings is not None:
                    context.timings.extend(attempt.timings)
                return answer
            await _pause(context.clock, delay_s)

    def _delay_s(self, error: RequestError, made: int) -> float | None:
        """How long to wait before the next attempt; None when there is to be none."""
        settings = self._settings
        if made >= settings.attempts or self._tokens <= settings.budget / 2:
            return None
        hint_s = error.retry_after_s if isinstance(error, Overloaded | Unavailable) else 0.0
        hinted = isinstance(error, Overloaded) or hint_s > 0
        if hinted and not (settings.wait_for_hint and hint_s <= settings.max_delay_s):
            return None
        longest_s = min(settings.first_delay_s * settings.factor ** (made - 1), settings.max_delay_s)
        # After the hint and not instead: those who were given the same one should not come back together.
        return hint_s + longest_s * (1.0 - settings.jitter * self._chance.random())


def _leaves_time(context: Context, delay_s: float) -> bool:
    remaining_s = context.remaining_s()
    return remaining_s is None or delay_s < remaining_s


async def _pause(clock: Clock, seconds: float) -> None:
    over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def end() -> None:
        if not over.done():
            over.set_result(None)

    timer = clock.call_at(clock.now() + seconds, end)
    try:
        await over
    finally:
        timer.cancel()
