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
from mesh.wire.server_call import Aborted, ServerCall
from mesh.wire.stepping import StepTask

__all__ = ["ready_to_start", "start"]

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
            if type(answer) is not CoroutineType and not inspect.isawaitable(answer):
                raise TypeError(
                    f"{method!r} is not async: this server takes no blocking handlers, it is on the event loop"
                )
            call.answer(await answer)
    except asyncio.CancelledError:
        if not call.over:
            call.finish(grpc.StatusCode.UNKNOWN, "the handler was cancelled")
        return
    except (Aborted, grpc.aio.AbortError):
        code, details = call.status_of_end()
        call.finish(grpc.StatusCode.UNKNOWN if code is grpc.StatusCode.OK else code, details)
    except MessageError as error:
        call.finish(error.code, error.text)
    except Exception as error:
        log.exception("the handler of %s raised", call.route.details.method)
        code, _ = call.status_of_end()
        code = grpc.StatusCode.UNKNOWN if code is grpc.StatusCode.OK else code
        call.finish(code, f"Unexpected {type(error)}: {error}")


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
