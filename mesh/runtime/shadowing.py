"""Shadows: nodes that are given what another is given, after the answer is out, and compared with it row by row."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from mesh.errors import RequestError
from mesh.runtime.rows import Rows, intersection
from mesh.runtime.state import State
from mesh.runtime.steps import NodeStep
from mesh.tensors import Array

__all__ = ["Comparison", "Shadow"]

MAX_IN_FLIGHT = 16
"""Requests of one shadow at once; those past it are not mirrored, and counted."""
CUT_OFF_S = 1.0
"""How long a shadow that was cancelled may take to end."""
TOLERANCE = 1e-5
"""How far floating point numbers may differ, relative or absolute, and count as the same: what another batch does."""


@dataclass(slots=True)
class Comparison:
    """What a shadow has shown so far."""

    rows_alike: int = 0
    rows_unlike: int = 0
    """Rows of which any tensor differs."""
    failed: int = 0
    """Requests that it failed on."""
    dropped: int = 0
    """Requests that it was not given, because as many as may be were with it."""


class Shadow:
    """One shadow of an executor.

    Args:
        step: The shadow's own step, which gives every tensor that is compared.
        beside: Edge of the shadow -> edge that it is compared with.
        target: The node that gives those.
        timeout_s: How long one request may take it; the caller's own deadline is past by then.
    """

    def __init__(self, step: NodeStep, beside: Mapping[str, str], *, target: str, timeout_s: float) -> None:
        self._step = step
        self._beside = dict(beside)
        self._target = target
        self._timeout_s = timeout_s
        self._needed = [*step.reads, *self._beside.values()]
        self._running: set[asyncio.Task[None]] = set()
        self._closed = False
        self.comparison = Comparison()

    @property
    def name(self) -> str:
        """The node."""
        return self._step.name

    @property
    def target(self) -> str:
        """The node that it is compared with."""
        return self._target

    def begin(self, state: State) -> None:
        """Mirror a request that has been answered; nobody waits for it."""
        if self._closed or any(edge not in state.arrays for edge in self._needed):
            return  # its target gave nothing, or what feeds it
        if len(self._running) >= MAX_IN_FLIGHT:
            self.comparison.dropped += 1
            return
        context = replace(state.context, deadline=None, timings=None).within(self._timeout_s)
        task = asyncio.ensure_future(self._run(state.mirrored(context)))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def close(self) -> None:
        """Give up what runs, and take nothing more."""
        self._closed = True
        left = list(self._running)
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=CUT_OFF_S)

    async def settled(self) -> None:
        """Return once nothing runs."""
        while self._running:
            await asyncio.wait(list(self._running))

    async def _run(self, state: State) -> None:
        try:
            await state.context.run(self._step.run(state))
        except RequestError:
            self.comparison.failed += 1
            return
        rows = intersection(state.given_by(self._target), state.given_by(self.name))
        alike = self._alike(state, rows)
        self.comparison.rows_alike += int(np.count_nonzero(alike))
        self.comparison.rows_unlike += int(rows.count - np.count_nonzero(alike))

    def _alike(self, state: State, rows: Rows) -> Array:
        alike: Array = np.ones(rows.count, np.bool_)
        for mine, theirs in self._beside.items():
            one, other = state.take(mine, rows), state.take(theirs, rows)
            if one.shape != other.shape:
                return np.zeros(rows.count, np.bool_)
            same: Array
            if one.dtype.hasobject or one.dtype.kind in "biu":
                same = one == other
            else:
                wide = (one.astype(np.float64), other.astype(np.float64))
                same = np.isclose(*wide, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True)
            alike &= same.reshape(rows.count, -1).all(axis=1) if rows.count else True
        return alike
