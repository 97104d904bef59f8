"""`breaker: {failures: 5, open_for: 5s}`: nobody waits for a node that has stopped working.

A breaker is closed, open or half open. Closed, it lets every call through and counts how they end: it opens after so
many failures one after another, or when too large a share of the calls of late have failed. Open, it refuses at once,
with a hint when to come back. When `open_for` is over it is half open: a few calls are let through to probe the node.
When they succeed it closes, and with the first that fails it opens again.

A failure is what speaks against the node: Unavailable, NodeFailed, an exception that is no request error, and
DeadlineExceeded, unless the caller's own time ran out (a caller in a hurry says nothing of the node; a `timeout` inside
the breaker makes slow answers count). What a caller is to blame for (InvalidInput, NotFound), what bounds have refused
(Overloaded) and calls whose caller went away count neither for nor against it.

The state machine is M. Nygard's ("Release It!", 2007). The defaults are those of Hystrix (20 calls in 10 s, half of
them failed, 5 s open; https://github.com/Netflix/Hystrix/wiki/Configuration) and Envoy (5 failures one after another;
its outlier detection).
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from mesh.context import Context, cancel_requested
from mesh.errors import Cancelled, DeadlineExceeded, InvalidInput, NotFound, Overloaded, Unavailable
from mesh.handler import Handler
from mesh.tensors import Tensors
from mesh.units import Duration

__all__ = ["Breaker"]

_BUCKETS = 10
"""Parts of the window, the oldest of which is forgotten as a whole (as in Hystrix)."""
_SLACK_S = 0.005
"""How much before a deadline an error may still come of it: the far end of a link has a clock of its own."""


class Breaker(BaseModel):
    """Refuse calls at once while the node is down.

    Raises, when called through: Unavailable while the breaker is open, its hint the time until the node is probed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    failures: Annotated[int | None, Field(ge=1, le=10_000)] = 5
    """Open after so many failures one after another; null: never for that reason."""
    error_rate: Annotated[float | None, Field(gt=0, le=1)] = 0.5
    """Open when this share of the calls in the window failed; null: never for that reason."""
    window_s: Annotated[Duration, Field(ge=0.001, le=3600, alias="window")] = 10.0
    """How long a call counts for the error rate, to a tenth."""
    min_calls: Annotated[int, Field(ge=1, le=1_000_000)] = 20
    """Calls that have to be in the window before their error rate means anything."""
    open_for_s: Annotated[Duration, Field(ge=0.001, le=3600, alias="open_for")] = 5.0
    """How long an open breaker refuses before it probes, and how long a probe may take before others may go."""
    probes: Annotated[int, Field(ge=1, le=1000)] = 1
    """Calls that a half open breaker lets through, all of which have to succeed."""

    @model_validator(mode="after")
    def _opens(self) -> Self:
        if self.failures is None and self.error_rate is None:
            raise ValueError("a breaker without failures and error_rate never opens")
        return self

    def __call__(self, handler: Handler[Tensors], /) -> Handler[Tensors]:
        return _Breaking(self, handler)


class _Breaking:
    def __init__(self, settings: Breaker, handler: Handler[Tensors]) -> None:
        self._settings = settings
        self._handler = handler
        self._state = _CLOSED
        self._era = 0
        """Grows with every change of state: how a call ends counts only in the era in which it began."""
        self._until = 0.0
        """When an open breaker probes, and when a half open one stops waiting for its probes."""
        self._probing = 0
        """Probes let through and not ended, or ended well."""
        self._passed = 0
        """Probes that ended well."""
        self._in_a_row = 0
        self._window = _Window(settings.window_s)

    async def __call__(self, request: Tensors, context: Context, /) -> Tensors:
        if self._state is not _CLOSED:
            self._probe(context)
        era = self._era
        try:
            answer = await self._handler(request, context)
        except BaseException as error:
            if era == self._era:
                if _speaks_against_the_node(error, context):
                    self._failed(context.clock.now())
                elif self._state is _HALF_OPEN:
                    self._probing -= 1  # it told nothing: another may go
            raise
        if era == self._era:
            self._succeeded(context.clock.now())
        return answer

    def _probe(self, context: Context) -> None:
        """Count a call in as a probe, or refuse it."""
        now = context.clock.now()
        room = self._state is _HALF_OPEN and self._probing < self._settings.probes
        if not room and now >= self._until:
            # After the time open, or because the probes take too long.
            self._turn(_HALF_OPEN, now)
            room = True
        if room:
            self._probing += 1
            return
        text = "the node has failed too often of late and is left alone for a while"
        raise Unavailable(text, retry_after_s=self._until - now, request_id=context.request_id)

    def _turn(self, state: str, now: float) -> None:
        self._state = state
        self._era += 1
        self._until = now + self._settings.open_for_s
        self._probing = self._passed = self._in_a_row = 0
        self._window.clear()

    def _succeeded(self, now: float) -> None:
        self._in_a_row = 0
        if self._state is _HALF_OPEN:
            self._passed += 1
            if self._passed >= self._settings.probes:
                self._turn(_CLOSED, now)
        elif self._settings.error_rate is not None:
            self._window.count(now, failed=False)

    def _failed(self, now: float) -> None:
        self._in_a_row += 1
        if self._state is _HALF_OPEN or self._too_many(now):
            self._turn(_OPEN, now)

    def _too_many(self, now: float) -> bool:
        settings = self._settings
        if settings.failures is not None and self._in_a_row >= settings.failures:
            return True
        if settings.error_rate is None:
            return False
        self._window.count(now, failed=True)
        calls, failed = self._window.calls, self._window.failed
        return calls >= settings.min_calls and failed >= settings.error_rate * calls


_CLOSED, _OPEN, _HALF_OPEN = "closed", "open", "half open"


class _Window:
    """Calls and failures of the last while, in buckets: the same small memory for any number of calls."""

    def __init__(self, window_s: float) -> None:
        self._bucket_s = window_s / _BUCKETS
        self.clear()

    def clear(self) -> None:
        self.calls = 0
        self.failed = 0
        self._newest = 0
        """Which bucket on the time axis the newest one is; those before it are the other nine."""
        self._calls = [0] * _BUCKETS
        self._failures = [0] * _BUCKETS

    def count(self, now: float, *, failed: bool) -> None:
        """Count one call, and forget those that have grown too old."""
        bucket = int(now / self._bucket_s)
        if bucket != self._newest:
            self._move(bucket)
        place = bucket % _BUCKETS
        self._calls[place] += 1
        self.calls += 1
        if failed:
            self._failures[place] += 1
            self.failed += 1

    def _move(self, bucket: int) -> None:
        for passed in range(min(bucket - self._newest, _BUCKETS)):
            place = (bucket - passed) % _BUCKETS
            self.calls -= self._calls[place]
            self.failed -= self._failures[place]
            self._calls[place] = self._failures[place] = 0
        self._newest = bucket


def _speaks_against_the_node(error: BaseException, context: Context) -> bool:
    if isinstance(error, asyncio.CancelledError):
        return not cancel_requested()
    if isinstance(error, DeadlineExceeded):
        remaining_s = context.remaining_s()
        return remaining_s is None or remaining_s > _SLACK_S
    return isinstance(error, Exception) and not isinstance(error, InvalidInput | NotFound | Overloaded | Cancelled)
