"""Requests of the layers' tests, and what is asked of a layer around a scripted handler."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import numpy as np

from mesh.context import Context
from mesh.handler import Handler, Layer
from mesh.tensors import Tensors
from mesh.testing import ManualClock, ScriptedCall, ScriptedHandler, settle

__all__ = ["Asking", "HandClock", "doubled", "rows", "values"]


def rows(*numbers: float) -> Tensors:
    """One row for each number."""
    return Tensors({"x": np.array(numbers, np.float32).reshape(-1, 1)})


def values(tensors: Tensors) -> list[float]:
    """The numbers again."""
    return tensors["x"].ravel().tolist()


def doubled(request: Tensors) -> Tensors:
    """What the handlers of these tests answer."""
    return Tensors({"x": request["x"] * 2})


class HandTimer:
    """A timer that the test runs."""

    def __init__(self, when: float, callback: Callable[[], object]) -> None:
        self.when = when
        self._callback: Callable[[], object] | None = callback

    def fire(self) -> None:
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()

    def cancel(self) -> None:
        self._callback = None


class HandClock:
    """Time stands still, and each timer runs when the test says so, in the middle of anything."""

    def __init__(self) -> None:
        self.timers: list[HandTimer] = []

    def now(self) -> float:
        return 1000.0

    def call_at(self, when: float, callback: Callable[[], object]) -> HandTimer:
        self.timers.append(HandTimer(when, callback))
        return self.timers[-1]


class Asking:
    """A layer around a scripted handler, and calls to it."""

    def __init__(self, layer: Layer) -> None:
        self.clock = ManualClock()
        self.script = ScriptedHandler()
        self.handler: Handler[Tensors] = layer(self.script)

    def context(self, request_id: str = "r", within_s: float | None = None) -> Context:
        context = Context(request_id=request_id, clock=self.clock)
        return context if within_s is None else context.within(within_s)

    async def ask(self, request: Tensors, context: Context | None = None) -> asyncio.Task[Tensors]:
        """A call that has got as far as it gets by itself."""

        async def call() -> Tensors:
            return await self.handler(request, context or self.context())

        task = asyncio.create_task(call())
        await settle()
        return task

    async def ask_all(self, requests: Sequence[Tensors]) -> list[asyncio.Task[Tensors]]:
        """Calls one after another, named by their place."""
        return [await self.ask(request, self.context(str(index))) for index, request in enumerate(requests)]

    async def double(self) -> list[float]:
        """Answer what the handler was asked next; the rows that it was asked."""
        call = await self.running()
        call.reply(doubled(call.request))
        await settle()
        return values(call.request)

    async def running(self) -> ScriptedCall:
        """The call that the handler has been given, which has to be there by now."""
        assert self.script.pending, "the handler was not called"
        return await self.script.request()
