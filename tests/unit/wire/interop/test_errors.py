"""Handlers that fail: before they read, while they do, and after."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from tests.unit.wire.interop.matrix import KINDS, STREAMED, Code, as_grpcio, ask, ending, handler, pair

REQUESTS = [b"one", b"two", b"three"]
WHEN = ("before reading", "after the first request", "after all requests", "after an answer")


async def _until(when: str, requests: AsyncIterator[bytes]) -> None:
    if when == "before reading":
        return
    async for _ in requests:
        if when == "after the first request":
            return


@pytest.mark.parametrize("how", ["aborts", "raises", "sets a code and raises"])
@pytest.mark.parametrize("when", WHEN)
@pytest.mark.parametrize("kind", KINDS)
@as_grpcio
async def test_a_handler_that_fails(engines: str, kind: str, when: str, how: str) -> Any:
    async def behave(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        await _until(when, requests)
        if when == "after an answer":
            yield b"answer"
        if how == "aborts":
            await context.abort(Code.FAILED_PRECONDITION, "not like this", (("why", "so"),))
        if how == "sets a code and raises":
            context.set_code(Code.DATA_LOSS)
            context.set_details("lost")
        raise LookupError("nowhere")

    async with pair(engines, **handler(kind, behave)) as channel:
        found = await ending(ask(channel, kind, REQUESTS))
    assert found.raised == "AioRpcError"
    assert bool(found.messages) == (when == "after an answer" and kind in STREAMED)
    return found


@pytest.mark.parametrize("kind", KINDS)
@as_grpcio
async def test_an_initial_head_goes_before_the_error(engines: str, kind: str) -> Any:
    seen = asyncio.Event()

    async def behave(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        await context.send_initial_metadata((("first", "1"),))
        await seen.wait()  # grpcio's client forgets the head where both come at once
        await context.abort(Code.ABORTED, "no", (("last", "2"),))
        yield b""

    async with pair(engines, **handler(kind, behave)) as channel:
        call = ask(channel, kind)
        if kind == "unary_unary":
            seen.set()  # grpcio's client shows the head of such a call with its end only
        await call.initial_metadata()
        seen.set()
        found = await ending(call)
    assert (found.initial, found.trailing) == ((("first", "1"),), (("last", "2"),))
    return found


@pytest.mark.parametrize("side", ["request_deserializer", "response_serializer"])
@pytest.mark.parametrize("kind", KINDS)
@as_grpcio
async def test_a_server_that_cannot_read_or_write_a_message(engines: str, kind: str, side: str) -> Any:
    async def behave(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            yield request

    def spoilt(_: Any) -> Any:
        raise ValueError("cannot be told")

    made = getattr(grpc, f"{kind}_rpc_method_handler")(handler(kind, behave)[kind], **{side: spoilt})
    async with pair(engines, **{kind: made}) as channel:
        found = await ending(ask(channel, kind))
    return found.code, found.details, found.messages


@as_grpcio
async def test_a_handler_that_swallows_its_abort(engines: str) -> Any:
    async def behave(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        try:
            await context.abort(Code.ABORTED, "no")
        except grpc.aio.AbortError:
            yield b"all the same"

    async with pair(engines, **handler("unary_unary", behave)) as channel:
        found = await ending(ask(channel, "unary_unary"))
    return found.code
