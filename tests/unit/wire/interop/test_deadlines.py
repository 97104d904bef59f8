"""Deadlines: before anything was sent, while somebody waits, between messages; told to the server, kept by both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.unit.wire.interop.matrix import (
    CLIENTS,
    KINDS,
    STREAMED,
    Code,
    Crossed,
    TooSoon,
    as_grpcio,
    ask,
    ending,
    handler,
    pair,
    soon,
)
from tests.unit.wire.interop.test_cancelling import Held


@pytest.mark.parametrize("until", ["running", "head", "reading"])
@pytest.mark.parametrize("kind", KINDS)
@as_grpcio
async def test_nobody_answers_in_time(engines: str, kind: str, until: str) -> Any:
    held = Held(until)
    async with pair(engines, **handler(kind, held.behave)) as channel:
        found = await ending(ask(channel, kind, timeout=soon()))
        if not held.began:
            raise TooSoon
        seen = await held.observed()
    assert (found.code, seen) == (Code.DEADLINE_EXCEEDED, ["cancelled", "done"])
    assert "Deadline Exceeded" in found.details  # grpcio's client says more or less of it, by chance
    return found.code, found.raised, found.messages, found.cancelled, seen


@pytest.mark.parametrize("kind", STREAMED)
@as_grpcio
async def test_no_more_answers_in_time(engines: str, kind: str) -> Any:
    held = Held("message")
    async with pair(engines, **handler(kind, held.behave)) as channel:
        found = await ending(ask(channel, kind, timeout=soon()))
        if not found.messages or not held.there.is_set():
            raise TooSoon
        seen = await held.observed()
    assert found.messages == (b"one",)
    return found.code, found.raised, found.messages, seen


@pytest.mark.parametrize("kind", ["stream_unary", "stream_stream"])
@as_grpcio
async def test_no_more_requests_in_time(engines: str, kind: str) -> Any:
    held = Held("reading")
    async with pair(engines, **handler(kind, held.behave)) as channel:
        call = getattr(channel, kind)(f"/test/{kind}")(timeout=soon())
        await call.write(b"one")
        found = await ending(call)
        if not held.began:
            raise TooSoon
        seen = await held.observed()
    return found.code, found.raised, seen


@pytest.mark.parametrize("seconds", [0, -1, 1e-9])
@pytest.mark.parametrize("kind", KINDS)
@as_grpcio
async def test_a_deadline_that_has_passed(engines: str, kind: str, seconds: float) -> Any:
    async def hang(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        await asyncio.Event().wait()
        yield b""

    async with pair(engines, **handler(kind, hang)) as channel:
        await channel.channel_ready()
        found = await ending(ask(channel, kind, timeout=seconds))
    if found.cancelled and kind.startswith("stream"):
        raise Crossed  # nobody cancelled it: its status came while the first request was written
    assert found.code is Code.DEADLINE_EXCEEDED
    return found.code, found.raised, found.messages


@pytest.mark.parametrize("seconds", [None, 5.0, 100.0, 7200.0, 1e6])
@pytest.mark.parametrize("kind", KINDS)
@as_grpcio
async def test_the_server_is_told(engines: str, kind: str, seconds: float | None) -> Any:
    async def left(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        remaining = context.time_remaining()
        yield repr(None if remaining is None else round(remaining / (seconds or 1), 1)).encode()

    async with pair(engines, **handler(kind, left)) as channel:
        found = await ending(ask(channel, kind, timeout=seconds))
    assert found.messages == (b"None" if seconds is None else b"1.0",)
    return found


@pytest.mark.parametrize("kind", KINDS)
@as_grpcio
async def test_an_answer_in_time_is_no_error_later(engines: str, kind: str) -> Any:
    async def echo(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            yield request

    async with pair(engines, **handler(kind, echo)) as channel:
        call = ask(channel, kind, timeout=20)
        found = await ending(call)
        assert (call.time_remaining() or 0) <= 20
        return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("client", CLIENTS)
async def test_no_connection_in_time(client: str, kind: str) -> None:
    async with CLIENTS[client]("127.0.0.1:1") as channel:  # nobody listens there
        found = await ending(ask(channel, kind, wait_for_ready=True, timeout=soon()))
    assert (found.code, found.raised) == (Code.DEADLINE_EXCEEDED, "AioRpcError")
