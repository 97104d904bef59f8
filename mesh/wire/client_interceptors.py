"""Calls that go through interceptors: `grpc.aio`'s four kinds of them, with their rules.

An interceptor may wait before it lets a call begin, so the call is made by a task, and what is given to the caller is a
handle that stands for the call until there is one. Nothing of this is paid for without interceptors.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Sequence
from typing import TYPE_CHECKING, Any, Final

import grpc

from mesh.wire.client_requests import FINISHED, HALF_CLOSED, MIXED
from mesh.wire.client_substitutes import Answered, IteratedStreamStream, IteratedUnaryStream

__all__ = [
    "InterceptedStreamStreamCall",
    "InterceptedStreamUnaryCall",
    "InterceptedUnaryStreamCall",
    "InterceptedUnaryUnaryCall",
    "Interceptors",
]

Make = Callable[[Any, Any], Any]
"""Makes the call itself out of `grpc.aio.ClientCallDetails` and the request or the requests."""

LOCALLY: Final = "Locally cancelled by application!"


class Interceptors:
    """The interceptors of a channel, by cardinality. As with grpc.aio, one that is of several kinds counts as the first
    of them in the order in which they stand here.

    Args:
        given: All of them, the outermost first.

    Raises:
        ValueError: One that is of no kind.
    """

    def __init__(self, given: Sequence[Any] | None) -> None:
        self.unary_unary: list[Any] = []
        self.unary_stream: list[Any] = []
        self.stream_unary: list[Any] = []
        self.stream_stream: list[Any] = []
        for interceptor in given or ():
            if isinstance(interceptor, grpc.aio.UnaryUnaryClientInterceptor):
                self.unary_unary.append(interceptor)
            elif isinstance(interceptor, grpc.aio.UnaryStreamClientInterceptor):
                self.unary_stream.append(interceptor)
            elif isinstance(interceptor, grpc.aio.StreamUnaryClientInterceptor):
                self.stream_unary.append(interceptor)
            elif isinstance(interceptor, grpc.aio.StreamStreamClientInterceptor):
                self.stream_stream.append(interceptor)
            else:
                raise ValueError(f"the interceptor {interceptor!r} is none of grpc.aio's four kinds")


async def _through(interceptors: Sequence[Any], hook: str, make: Make, details: Any, request: Any) -> Any:
    """Ask one interceptor after the other, and make the call. What an interceptor gives in its place is wrapped."""
    last_call: Any = None

    async def ask(index: int, details: Any, request: Any) -> Any:
        nonlocal last_call
        if index == len(interceptors):
            last_call = make(details, request)
            return last_call

        async def onwards(changed: Any, request: Any) -> Any:
            return await ask(index + 1, changed, request)

        given = await getattr(interceptors[index], hook)(onwards, details, request)
        if hook == "intercept_unary_unary" and not isinstance(given, grpc.aio.UnaryUnaryCall):
            last_call = Answered(given)
        elif hook == "intercept_unary_stream" and not isinstance(given, grpc.aio.UnaryStreamCall):
            last_call = IteratedUnaryStream(last_call, given)
        elif hook == "intercept_stream_stream" and not isinstance(given, grpc.aio.StreamStreamCall):
            last_call = IteratedStreamStream(last_call, given)
        else:
            last_call = given
        return last_call

    return await ask(0, details, request)


class _Intercepted:
    """What the four have in common: everything is asked of the call, once there is one."""

    _task: asyncio.Task[Any]

    def _start(self, work: Coroutine[Any, Any, Any]) -> None:
        self._task = asyncio.get_running_loop().create_task(work)

    def __del__(self) -> None:
        task = getattr(self, "_task", None)
        if task is not None and not task.get_loop().is_closed():
            self.cancel()

    def _call(self) -> Any:
        """The call, or None where there is none yet or never will be."""
        task = self._task
        return task.result() if task.done() and not task.cancelled() and task.exception() is None else None

    def cancel(self) -> bool:
        """End it; False where it was over."""
        if not self._task.done():
            return self._task.cancel()
        call = self._call()
        return False if call is None else call.cancel()

    def cancelled(self) -> bool:
        """Whether it ended as CANCELLED."""
        task = self._task
        if not task.done():
            return False
        if task.cancelled():
            return True
        error = task.exception()
        if error is not None:
            return isinstance(error, grpc.aio.AioRpcError) and error.code() is grpc.StatusCode.CANCELLED
        return task.result().cancelled()

    def done(self) -> bool:
        """Whether it is over."""
        call = self._call()
        return self._task.done() if call is None else call.done()

    def time_remaining(self) -> float | None:
        """Seconds until the deadline; None where there is none, or the interceptors have not let the call begin."""
        call = self._call()
        return None if call is None else call.time_remaining()

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Call back, with this call, when it is over."""

        def when_over(_: Any) -> None:
            callback(self)

        def when_made(_: Any) -> None:
            call = self._call()
            if call is None:
                callback(self)
            else:
                call.add_done_callback(when_over)

        if self._task.done():
            when_made(None)
        else:
            self._task.add_done_callback(when_made)

    async def _ask(self, question: str, of_error: Callable[[grpc.aio.AioRpcError], Any], cancelled: Any) -> Any:
        try:
            call = await asyncio.shield(self._task)
        except grpc.aio.AioRpcError as error:
            return of_error(error)
        except asyncio.CancelledError:
            if not self._task.done():
                raise  # who asks was cancelled, not the call
            return cancelled
        return await getattr(call, question)()

    async def initial_metadata(self) -> Any:
        """What came before the responses."""
        return await self._ask("initial_metadata", lambda error: error.initial_metadata(), None)

    async def trailing_metadata(self) -> Any:
        """What came with the status."""
        return await self._ask("trailing_metadata", lambda error: error.trailing_metadata(), None)

    async def code(self) -> grpc.StatusCode:
        """The status."""
        return await self._ask("code", lambda error: error.code(), grpc.StatusCode.CANCELLED)

    async def details(self) -> str:
        """The text beside the status."""
        return await self._ask("details", lambda error: error.details(), LOCALLY)

    async def debug_error_string(self) -> str:
        """The end in one line, for people."""
        return await self._ask("debug_error_string", lambda error: error.debug_error_string(), "")

    async def wait_for_connection(self) -> None:
        """Wait until it is on a connection."""
        call = await self._task
        await call.wait_for_connection()


class _OneResponse(_Intercepted):
    def __await__(self) -> Generator[Any, None, Any]:
        call = yield from self._task.__await__()
        return (yield from call.__await__())


class _Responses(_Intercepted):
    _iterator: AsyncIterator[Any] | None = None

    def __aiter__(self) -> Any:
        if self._iterator is None:
            self._iterator = _responses(self._task)
        return self._iterator

    async def read(self) -> Any:
        """The next response, or `grpc.aio.EOF` after the last."""
        try:
            return await anext(self.__aiter__())
        except StopAsyncIteration:
            return grpc.aio.EOF


async def _responses(task: asyncio.Task[Any]) -> AsyncIterator[Any]:
    call = await task
    async for response in call:
        yield response


class _Pipe:
    """Requests that are written, as the iterator that interceptors are given. Holds one."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[tuple[Any, bool]] = asyncio.Queue(maxsize=1)
        self.ended = False

    def __aiter__(self) -> _Pipe:
        return self

    async def __anext__(self) -> Any:
        request, last = await self._queue.get()
        if last:
            raise StopAsyncIteration
        return request

    async def put(self, request: Any, call: Any, *, last: bool = False) -> None:
        """Hand a request over, or the end of them; gives up when the call is over."""
        over = asyncio.get_running_loop().create_task(call.code())
        put = asyncio.get_running_loop().create_task(self._queue.put((request, last)))
        try:
            await asyncio.wait({over, put}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            put.cancel()
            over.cancel()


class _Requests(_Intercepted):
    _pipe: _Pipe | None = None

    def _source(self, requests: Any) -> Any:
        if requests is not None:
            return requests
        self._pipe = _Pipe()
        return self._pipe

    async def write(self, request: Any) -> None:
        """Send a request. Raises asyncio.InvalidStateError once the call is over or its requests are."""
        pipe = self._pipe
        if pipe is None:
            raise grpc.aio.UsageError(MIXED)
        call = await self._made()
        if call.done():
            raise asyncio.InvalidStateError(FINISHED)
        if pipe.ended:
            raise asyncio.InvalidStateError(HALF_CLOSED)
        await pipe.put(request, call)
        if call.done():
            raise asyncio.InvalidStateError(FINISHED)

    async def done_writing(self) -> None:
        """There are no more requests."""
        pipe = self._pipe
        if pipe is None:
            raise grpc.aio.UsageError(MIXED)
        call = await self._made()
        if not pipe.ended:
            pipe.ended = True
            await pipe.put(None, call, last=True)

    async def _made(self) -> Any:
        try:
            return await asyncio.shield(self._task)
        except (asyncio.CancelledError, grpc.aio.AioRpcError):
            if not self._task.done():
                raise
            raise asyncio.InvalidStateError(FINISHED) from None


class InterceptedUnaryUnaryCall(
    _OneResponse, grpc.aio.UnaryUnaryCall[Any, Any] if TYPE_CHECKING else grpc.aio.UnaryUnaryCall
):
    """One request, one response."""

    def __init__(self, interceptors: Sequence[Any], make: Make, details: Any, request: Any) -> None:
        self._start(_through(interceptors, "intercept_unary_unary", make, details, request))


class InterceptedUnaryStreamCall(
    _Responses, grpc.aio.UnaryStreamCall[Any, Any] if TYPE_CHECKING else grpc.aio.UnaryStreamCall
):
    """One request, any number of responses."""

    def __init__(self, interceptors: Sequence[Any], make: Make, details: Any, request: Any) -> None:
        self._start(_through(interceptors, "intercept_unary_stream", make, details, request))


class InterceptedStreamUnaryCall(
    _OneResponse, _Requests, grpc.aio.StreamUnaryCall[Any, Any] if TYPE_CHECKING else grpc.aio.StreamUnaryCall
):
    """Any number of requests, one response."""

    def __init__(self, interceptors: Sequence[Any], make: Make, details: Any, requests: Any) -> None:
        self._start(_through(interceptors, "intercept_stream_unary", make, details, self._source(requests)))


class InterceptedStreamStreamCall(
    _Responses, _Requests, grpc.aio.StreamStreamCall[Any, Any] if TYPE_CHECKING else grpc.aio.StreamStreamCall
):
    """Any number of requests and responses."""

    def __init__(self, interceptors: Sequence[Any], make: Make, details: Any, requests: Any) -> None:
        self._start(_through(interceptors, "intercept_stream_stream", make, details, self._source(requests)))
