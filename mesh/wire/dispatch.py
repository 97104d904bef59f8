"""Runs handlers: the four cardinalities, and what their ends mean."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator
from types import CoroutineType
from typing import Any

import grpc

from mesh.wire.messages import MessageError
from mesh.wire.server_call import ServerCall
from mesh.wire.stepping import StepTask

__all__ = ["answer_at_once", "ready_to_start", "start"]

log = logging.getLogger("mesh.wire")


def ready_to_start(call: ServerCall) -> bool:
    """Whether the handler can begin: one that takes a single request waits until that is whole and the last."""
    return call.streams_in or call.received_end


def start(call: ServerCall) -> None:
    """Begin the handler: in place for as long as it does not wait."""
    task = StepTask(_serve(call), call.protocol.loop)
    call.task = task
    if not task.start():
        call.arm()


def answer_at_once(call: ServerCall, raw: bytes) -> bool:
    """`start` where the handler takes one request, which is there, and gives one response. Whether it did not wait."""
    task = call.task = StepTask(_serve_one(call, raw), call.protocol.loop)
    return task.start()


async def _serve_one(call: ServerCall, raw: bytes) -> None:
    """`_serve` for the commonest of handlers."""
    try:
        method = call.handler.unary_unary
        answer = method(call.deserialized(raw), call)
        if type(answer) is not CoroutineType:
            _check_awaitable(answer, method)
        call.answer(await answer)
    except BaseException as error:
        _fail(call, error)


def _check_awaitable(answer: Any, method: Any) -> None:
    if not inspect.isawaitable(answer):
        raise TypeError(f"{method!r} is not async: this server takes no blocking handlers, it is on the event loop")


async def _serve(call: ServerCall) -> None:
    """Everything from handler to trailers. Never raises: nobody would hear it."""
    try:
        handler = call.handler
        given: Any = _Requests(call) if handler.request_streaming else call.only_request()
        if handler.response_streaming:
            method = handler.stream_stream if handler.request_streaming else handler.unary_stream
            await _send_all(call, method(given, call))
        else:
            method = handler.stream_unary if handler.request_streaming else handler.unary_unary
            answer = method(given, call)
            _check_awaitable(answer, method)
            call.answer(await answer)
    except BaseException as error:
        _fail(call, error)


def _fail(call: ServerCall, error: BaseException) -> None:
    """End a call as what its handler raised wants it. Called while that is handled."""
    if isinstance(error, asyncio.CancelledError):
        if not call.over:
            call.finish(grpc.StatusCode.UNKNOWN, "the handler was cancelled")
    elif isinstance(error, grpc.aio.AbortError):
        code, details = call.status_of_end()
        call.finish(grpc.StatusCode.UNKNOWN if code is grpc.StatusCode.OK else code, details)
    elif isinstance(error, MessageError):
        call.finish(error.code, error.text)
    elif isinstance(error, Exception):
        log.error("the handler of %s raised", call.route.details.method, exc_info=error)
        code, _ = call.status_of_end()
        code = grpc.StatusCode.UNKNOWN if code is grpc.StatusCode.OK else code
        call.finish(code, f"Unexpected {type(error)}: {error}")
    else:
        raise error


async def _send_all(call: ServerCall, answers: Any) -> None:
    if hasattr(answers, "__aiter__"):
        iterator: AsyncIterator[Any] = answers
        try:
            async for message in iterator:
                await call.write(message)
        finally:
            # A generator that was left between two answers would stay as it is until somebody collects it.
            if (close := getattr(iterator, "aclose", None)) is not None:
                await close()
    elif inspect.isawaitable(answers):
        await answers  # a handler that writes by itself
    else:
        raise TypeError("a streaming handler has to be an async generator, or a coroutine that writes")
    call.finish(*call.status_of_end())


class _Requests:
    """The requests of a stream, as an async iterator."""

    __slots__ = ("_call",)

    def __init__(self, call: ServerCall) -> None:
        self._call = call

    def __aiter__(self) -> _Requests:
        return self

    async def __anext__(self) -> Any:
        raw = await self._call.next_message()
        if raw is None:
            raise StopAsyncIteration
        return self._call.deserialized(raw)
