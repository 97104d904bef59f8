"""A handler whose answers a test gives by hand, in place of patching.

    script = ScriptedHandler()
    handler = Batch(max_rows=8)(script)
    asking = asyncio.ensure_future(handler(request, Context()))
    call = await script.request()           # what arrived, once it has
    assert call.request == request
    call.reply(answer)                      # or call.fail(Overloaded("full"))
    assert await asking == answer

A test so decides which call ends first, what is still running when another arrives, and which is cancelled.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from mesh.context import Context
from mesh.tensors import Tensors

__all__ = ["ScriptedCall", "ScriptedHandler"]

_WITHIN_S = 10.0
"""How long to wait for something that has to happen before the test is called failed."""


class ScriptedCall:
    """One call that arrived, and waits for the test to end it."""

    def __init__(self, request: Tensors, context: Context) -> None:
        self.request = request
        """What arrived. (An aggregate's branches, where the handler stands in for one.)"""
        self.context = context
        self._answer: asyncio.Future[Tensors] = asyncio.get_running_loop().create_future()
        self._ended = asyncio.Event()
        self._cancelled = False

    @property
    def cancelled(self) -> bool:
        """Whether the caller cancelled it before it was answered."""
        return self._cancelled

    def reply(self, answer: Tensors) -> None:
        """Answer it."""
        self._open().set_result(answer)

    def echo(self) -> None:
        """Answer it with what it asked."""
        self.reply(self.request)

    def fail(self, error: BaseException) -> None:
        """End it by raising `error`."""
        if isinstance(error, asyncio.CancelledError):
            self._open().cancel()
        else:
            self._open().set_exception(error)

    async def ended(self) -> None:
        """Return once the handler has returned, raised or been cancelled."""
        async with _promptly("the call did not end"):
            await self._ended.wait()

    def _open(self) -> asyncio.Future[Tensors]:
        if self._answer.done():
            raise AssertionError("the call was cancelled" if self._cancelled else "the call was answered before")
        return self._answer

    async def wait(self) -> Tensors:
        """What the handler does with the call."""
        try:
            # Not the future itself: a cancelled caller and an answer that is a cancellation have to look different.
            await asyncio.wait((self._answer,))
        except asyncio.CancelledError:
            self._cancelled = self._answer.cancel()
            if not self._answer.cancelled():
                self._answer.exception()  # answered in the same turn: nobody reads it
            raise
        finally:
            self._ended.set()
        return self._answer.result()


class ScriptedHandler:
    """A `Handler` that does what the test says, call by call. Good for any number of calls at once."""

    def __init__(self) -> None:
        self.calls: list[ScriptedCall] = []
        """Every call so far, in the order of arrival."""
        self._inbox: deque[ScriptedCall] = deque()
        self._arrived = asyncio.Event()

    async def __call__(self, request: Tensors, context: Context, /) -> Tensors:
        """Wait for the test to answer."""
        call = ScriptedCall(request, context)
        self.calls.append(call)
        self._inbox.append(call)
        self._arrived.set()
        return await call.wait()

    @property
    def pending(self) -> int:
        """Calls that arrived and that the test has not looked at with `request`."""
        return len(self._inbox)

    async def request(self) -> ScriptedCall:
        """The next call, in the order of arrival; waits for it if there is none.

        Raises:
            AssertionError: None came within ten seconds.
        """
        async with _promptly("no request arrived"):
            while not self._inbox:
                self._arrived.clear()
                await self._arrived.wait()
        return self._inbox.popleft()


@asynccontextmanager
async def _promptly(otherwise: str) -> AsyncGenerator[None]:
    """Bound the wait for something that has to happen."""
    try:
        async with asyncio.timeout(_WITHIN_S):
            yield
    except TimeoutError:
        raise AssertionError(f"{otherwise} within {_WITHIN_S:.0f} seconds") from None
