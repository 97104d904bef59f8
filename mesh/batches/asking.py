"""`Asking`: some rows through a graph, until each has an answer or an error.

What may pass is waited for and asked again. What may not is somebody's fault: of the row that the error names, which
is then left out; else of one of the rows, which are asked in halves until each culprit is by itself. A request of n
rows, however many of them are bad, so costs at most 4 n log2 n rows of asking.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from mesh.context import SYSTEM_CLOCK, Clock, Context, Parameter
from mesh.errors import DeadlineExceeded, NodeFailed, NotFound, Overloaded, RequestError, Unavailable
from mesh.handler import Handler
from mesh.tensors import Array, Tensors
from mesh.transports.status import BROKEN_OFF

__all__ = ["Answers", "Asking", "Patience"]

_NAMED = 3
"""Rows that may be left out of one request, one by one, before it is halved."""
_MOST_REQUEST_S = 3600.0
_OVERLOADED = 3
"""Refusals after which a request is halved: it may be too large for whoever is overloaded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How often, and after what waits, a request is asked again. Full jitter."""

    attempts: int = 8
    first_s: float = 0.1
    most_s: float = 10.0
    """The longest wait; also what a hint is cut to."""
    row_timeout_s: float = 30.0
    """Time for a request is this, for each of its rows, and at most an hour."""

    def delay_s(self, made: int, error: RequestError, chance: random.Random) -> float:
        """How long to wait, after so many attempts."""
        hint_s = error.retry_after_s if isinstance(error, Overloaded | Unavailable) else 0.0
        return min(hint_s, self.most_s) + min(self.first_s * 2.0 ** (made - 1), self.most_s) * chance.random()


@dataclass(slots=True)
class Answers:
    """What became of the rows of some requests."""

    parts: list[tuple[Array, Tensors]] = field(default_factory=list[tuple[Array, Tensors]])
    """For each row of an answer, the position of the row that it answers; ascending."""
    failed: dict[int, RequestError] = field(default_factory=dict[int, RequestError])
    """Position -> why that row has none."""


class Asking:
    """Asks one graph.

    Args:
        handler: The graph.
        outputs: The outputs that are wanted.
        parameters: What every request carries.
        patience: How often it is asked.
        clock: What waits are measured by.
        chance: Where jitter comes from.
    """

    def __init__(
        self,
        handler: Handler[Tensors],
        outputs: Sequence[str],
        *,
        parameters: Mapping[str, Parameter] | None = None,
        patience: Patience | None = None,
        clock: Clock = SYSTEM_CLOCK,
        chance: random.Random | None = None,
    ) -> None:
        self._handler = handler
        self._outputs = tuple(outputs)
        self._parameters = dict(parameters or {})
        self._patience = patience or Patience()
        self._clock = clock
        self._chance = chance or random.Random()

    async def __call__(self, places: Array, tensors: Tensors, answers: Answers) -> None:
        """Ask until each row has an answer or an error.

        Args:
            places: The position of each row, ascending.
            tensors: The rows.
            answers: Where what became of them is added.

        Raises:
            RequestError: One that may pass, and did not as long as patience went.
        """
        waiting = [(places, tensors, _NAMED)]
        while waiting:
            places, tensors, named = waiting.pop()
            count = len(places)
            try:
                self._add(places, await self._patiently(tensors, count), answers)
                continue
            except RequestError as error:
                if error.retryable and not (isinstance(error, Overloaded) and count > 1):
                    raise
                row = error.row
                if count == 1:
                    answers.failed[int(places[0])] = error
                    continue
                if row is not None and 0 <= row < count and named and not error.retryable:
                    answers.failed[int(places[row])] = error
                    rest = np.delete(np.arange(count), row)
                    waiting.append((places[rest], _taken(tensors, rest), named - 1))
                    continue
            half = count // 2
            waiting.append((places[half:], tensors.take(half, count), _NAMED))
            waiting.append((places[:half], tensors.take(0, half), _NAMED))

    async def _patiently(self, tensors: Tensors, count: int) -> Tensors:
        made = 0
        while True:
            made += 1
            seconds = min(self._patience.row_timeout_s * count, _MOST_REQUEST_S)
            context = Context(parameters=self._parameters, clock=self._clock).within(seconds)
            try:
                return await self._handler(tensors, context)
            except RequestError as error:
                if not self._again(error, made, count):
                    raise
                delay_s = self._patience.delay_s(made, error, self._chance)
            await _pause(self._clock, delay_s)

    def _again(self, error: RequestError, made: int, count: int) -> bool:
        if isinstance(error, Overloaded) and count > 1:
            return made < min(_OVERLOADED, self._patience.attempts)
        if isinstance(error, DeadlineExceeded):
            # Of many rows, some may be slow; of one, the machine may have been.
            return count == 1 and made < min(2, self._patience.attempts)
        broken_off = isinstance(error, NodeFailed) and error.text == BROKEN_OFF
        return (error.retryable or broken_off) and made < self._patience.attempts

    def _add(self, places: Array, answer: Tensors, answers: Answers) -> None:
        """Take an answer, if it is one to these rows. Raises NodeFailed."""
        for name in self._outputs:
            if name not in answer:
                raise NodeFailed(f"the graph gave no output {name!r}", tensor=name)
        rows, count, sources = answer.rows, len(places), answer.sources
        if sources is None:
            if rows != count:
                raise NodeFailed(f"the graph answered {rows} of {count} rows")
            answers.parts.append((places, answer))
            return
        if len(sources) and int(sources[-1]) >= count:
            raise NodeFailed(f"the graph answered row {int(sources[-1])} of {count} rows")
        for row in np.setdiff1d(np.arange(count), sources).tolist():
            answers.failed[int(places[row])] = NotFound("the graph has no answer for this row")
        answers.parts.append((places[sources], answer))


def _taken(tensors: Tensors, rows: Array) -> Tensors:
    return Tensors({name: array[rows] for name, array in tensors.items()})


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
