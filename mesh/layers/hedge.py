"""`hedge: {after: p95}`: a second attempt for a call that takes longer than most; the first answer wins.

Slow calls are often slow by chance: a replica that collects garbage, a full queue, a lost packet. A second attempt is
then likely to be quick, and made only for the slowest few it costs little (J. Dean and L. A. Barroso, "The Tail at
Scale", 2013: wait for the 95th percentile, and the load grows by a twentieth). The layer keeps the latencies of the
last 512 calls to know what is slow. It helps only where two attempts fare differently, as over replicas; and a node
that must not see the same request twice should not have it.

The loser is cancelled. An attempt that fails leaves it to the other one, unless the fault is the caller's: InvalidInput
and NotFound would be the other's answer, too. When both fail, the error is that of the first. A first attempt that
fails before the second begins ends the call: another attempt after an error is what `retry` is for.
"""

from __future__ import annotations

import asyncio
import re
from bisect import bisect_left, insort
from collections import deque
from dataclasses import replace
from math import ceil
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationInfo, WithJsonSchema

from mesh.context import Context
from mesh.errors import InvalidInput, NotFound
from mesh.handler import Handler
from mesh.tensors import Tensors
from mesh.units import Duration

__all__ = ["Hedge"]

_SAMPLES = 512
"""Latencies that are kept: the percentile is that of so many calls."""
_BURST = 10.0
"""Most second attempts that calls without one save up for."""
_PERCENTILE = re.compile(r"p([5-9]\d(?:\.\d)?)")
_DURATION: TypeAdapter[float] = TypeAdapter(Annotated[Duration, Field(gt=0, le=3600)])


def _after(value: object, info: ValidationInfo) -> str | float:
    if isinstance(value, str) and _PERCENTILE.fullmatch(value):
        return value
    if isinstance(value, str) and value[:1] == "p":
        raise ValueError(f"{value!r} is not a percentile: write p50 to p99.9, as in p95")
    return _DURATION.validate_python(value, context=info.context)


After = Annotated[
    str | float,
    BeforeValidator(_after),
    WithJsonSchema({"type": "string", "pattern": rf"^({_PERCENTILE.pattern}|\d+(\.\d+)?\s?(us|ms|s|m|h|d))$"}),
]


class Hedge(BaseModel):
    """Make a second attempt when the first is late.

    Raises, when called through: what the first attempt raises, where the second does not answer.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    after: After = "p95"
    """When an attempt is late: a percentile of the calls of late, from p50 to p99.9, or a duration."""
    min_samples: Annotated[int, Field(ge=1, le=_SAMPLES)] = 50
    """Latencies that have to be known before their percentile means anything; no call is hedged before."""
    max_share: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Most second attempts, as a share of the calls. When the node is slow as a whole, twice the work is no cure."""

    def __call__(self, handler: Handler[Tensors], /) -> Handler[Tensors]:
        return _Hedging(self, handler)


class _Hedging:
    def __init__(self, settings: Hedge, handler: Handler[Tensors]) -> None:
        self.handler = handler
        self._share = settings.max_share
        self._tokens = 0.0
        percentile = _PERCENTILE.fullmatch(settings.after) if isinstance(settings.after, str) else None
        self._fraction = float(percentile[1]) / 100 if percentile else 0.0
        self._fixed_s = settings.after if isinstance(settings.after, float) else 0.0
        self._min_samples = settings.min_samples
        self._latencies = _Latencies()
        self._seconds: set[asyncio.Task[Tensors]] = set()
        """Second attempts that run, so that none is collected as garbage."""

    async def __call__(self, request: Tensors, context: Context, /) -> Tensors:
        self._tokens = min(_BURST, self._tokens + self._share)
        clock = context.clock
        started = clock.now()
        when = self._late_at(started, context.deadline)
        if when is None:
            answer = await self.handler(request, context)
        else:
            answer = await _Race(self, request, context).run(when)
        # Where the second won this is less than the first would have taken, but above what was taken to be late: left
        # out, the slowest would be missing, and ever quicker calls be taken for slow ones.
        self._latencies.add(clock.now() - started)
        return answer

    def _late_at(self, started: float, deadline: float | None) -> float | None:
        """When the call is to have its second attempt; None where there is to be none."""
        known = len(self._latencies) >= self._min_samples
        if self._fraction and not known:
            return None
        when = started + (self._latencies.quantile(self._fraction) if self._fraction else self._fixed_s)
        if deadline is not None:
            typical_s = self._latencies.quantile(0.5) if known else 0.0
            if when + typical_s >= deadline:
                return None  # it would come too late
        return when

    def begin(self, request: Tensors, context: Context) -> asyncio.Task[Tensors] | None:
        """The second attempt, if the share of the traffic allows for it."""
        if self._tokens < 1.0:
            return None
        self._tokens -= 1.0

        async def attempt() -> Tensors:
            return await self.handler(request, context)

        second = asyncio.get_running_loop().create_task(attempt())
        self._seconds.add(second)
        second.add_done_callback(self._seconds.discard)
        return second


class _Race:
    """One call: its first attempt, in the task of the caller, and its second one, which few calls come to."""

    def __init__(self, hedging: _Hedging, request: Tensors, context: Context) -> None:
        self._hedging = hedging
        self._request = request
        self._context = context
        self._caller: asyncio.Task[object] | None = None
        """The task to cancel when the second attempt wins; None while there is nothing to cancel in it."""
        self._second: asyncio.Task[Tensors] | None = None
        self._second_context = context
        self._won = False

    async def run(self, when: float) -> Tensors:
        task = self._caller = asyncio.current_task()
        if task is None:  # pragma: no cover - an await outside any task has nobody to cancel
            return await self._hedging.handler(self._request, self._context)
        before = task.cancelling()
        first = self._with_own_report()
        timer = self._context.clock.call_at(when, self._late)
        try:
            try:
                answer = await self._hedging.handler(self._request, first)
            finally:
                self._caller = None
                timer.cancel()
        except (asyncio.CancelledError, Exception) as error:
            # Ours alone: a caller's own cancellation that came as well must go on up.
            if self._won and task.uncancel() <= before:
                return self._answer_of_second()
            if task.cancelling() > before or self._second is None or isinstance(error, InvalidInput | NotFound):
                raise
            try:
                await self._second
            except (asyncio.CancelledError, Exception):
                if task.cancelling() > before:
                    raise
                raise error from None
            return self._answer_of_second()
        finally:
            if self._second is not None:
                self._second.cancel()
        if self._won:
            task.uncancel()  # it answered although it was told to stop
        self._report(first)
        return answer

    def _late(self) -> None:
        self._second_context = self._with_own_report()
        self._second = self._hedging.begin(self._request, self._second_context)
        if self._second is not None:
            self._second.add_done_callback(self._second_ended)

    def _second_ended(self, second: asyncio.Task[Tensors]) -> None:
        # Its exception is looked at in any case: one that nobody reads would be logged as lost.
        if second.cancelled() or second.exception() is not None or self._caller is None:
            return
        self._won = True
        self._caller.cancel()

    def _answer_of_second(self) -> Tensors:
        assert self._second is not None
        self._report(self._second_context)
        return self._second.result()

    def _with_own_report(self) -> Context:
        """The context of an attempt: the caller is told of the time of the one that won, and of no other."""
        return self._context if self._context.timings is None else replace(self._context, timings=[])

    def _report(self, attempt: Context) -> None:
        if self._context.timings is not None:
            self._context.timings.extend(attempt.timings or ())


class _Latencies:
    """The last latencies, in the order of their arrival and in that of their size. Seconds."""

    def __init__(self) -> None:
        self._arrived: deque[float] = deque()
        self._sorted: list[float] = []

    def __len__(self) -> int:
        return len(self._sorted)

    def add(self, latency_s: float) -> None:
        if len(self._arrived) == _SAMPLES:
            del self._sorted[bisect_left(self._sorted, self._arrived.popleft())]
        self._arrived.append(latency_s)
        insort(self._sorted, latency_s)

    def quantile(self, fraction: float) -> float:
        """The smallest latency that at least `fraction` of them do not exceed."""
        return self._sorted[ceil(fraction * len(self._sorted)) - 1]
