"""A call that is cancelled: at every point of its life, in every kind of call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.unit.wire.interop.matrix import CLIENTS, KINDS, STREAMED, Code, as_grpcio, ask, ending, handler, pair

PATIENCE_S = 20.0


class Held:
    """A handler that goes as far as it is told, then waits until it is cancelled; and what it saw."""

    def __init__(self, until: str) -> None:
        self._until = until
        self.began = False
        self.there = asyncio.Event()
        self.gone = asyncio.Event()
        self.seen: list[Any] = []
        self._over = asyncio.Event()

    async def behave(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        self.began = True

        def done(_: Any) -> None:
            self.seen.append("done")
            self._over.set()

        context.add_done_callback(done)
        try:
            if self._until in ("head", "reading", "message"):
                await context.send_initial_metadata((("x-first", "1"),))
            if self._until == "reading":
                self.there.set()
                async for _ in requests:
                    pass
            elif self._until == "message":
                yield b"one"
            self.there.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.seen.append("cancelled")
            raise
        finally:
            self.gone.set()

    async def observed(self) -> list[Any]:
        """What it saw, once it is over."""
        async with asyncio.timeout(PATIENCE_S):
            await self.gone.wait()
            await self._over.wait()
        return sorted(self.seen)


@pytest.mark.parametrize("until", ["running", "head"])
@pytest.mark.parametrize("kind", KINDS)
@as_grpcio
async def test_before_an_answer(engines: str, kind: str, until: str) -> Any:
    held = Held(until)
    async with pair(engines, **handler(kind, held.behave)) as channel:
        call = ask(channel, kind)
        if until == "head" and kind != "unary_unary":
            await call.initial_metadata()
        await held.there.wait()
        cancelled = call.cancel(), call.cancel(), call.cancelled(), call.done()
        seen = await held.observed()
        ended = await ending(call)
    assert (ended.code, ended.raised, seen) == (Code.CANCELLED, "CancelledError", ["cancelled", "done"])
    return cancelled, seen, ended.code, ended.details, ended.raised, ended.cancelled


@pytest.mark.parametrize("kind", STREAMED)
@as_grpcio
async def test_between_two_answers(engines: str, kind: str) -> Any:
    held = Held("message")
    async with pair(engines, **handler(kind, held.behave)) as channel:
        call = ask(channel, kind)
        first = await call.read()
        await held.there.wait()
        cancelled = call.cancel(), call.cancelled(), call.done()
        seen = await held.observed()
        ended = await ending(call)
    return first, cancelled, seen, ended


@pytest.mark.parametrize("kind", STREAMED)
@as_grpcio
async def test_while_an_answer_is_awaited(engines: str, kind: str) -> Any:
    held = Held("message")
    async with pair(engines, **handler(kind, held.behave)) as channel:
        call = ask(channel, kind)
        await call.read()
        reading = asyncio.ensure_future(call.read())
        await held.there.wait()
        await asyncio.sleep(0)
        cancelled = call.cancel()
        found = await asyncio.gather(reading, return_exceptions=True)
        seen = await held.observed()
    assert isinstance(found[0], asyncio.CancelledError)
    return cancelled, seen, await call.code()


@pytest.mark.parametrize("kind", ["stream_unary", "stream_stream"])
@pytest.mark.parametrize("ended", [False, True], ids=["still sending", "half closed"])
@as_grpcio
async def test_between_two_requests(engines: str, kind: str, ended: bool) -> Any:
    held = Held("running" if ended else "reading")
    async with pair(engines, **handler(kind, held.behave)) as channel:
        call = getattr(channel, kind)(f"/test/{kind}")()
        await call.write(b"one")
        if ended:
            await call.done_writing()
        await held.there.wait()
        cancelled = call.cancel(), call.cancelled(), call.done()
        seen = await held.observed()
        found = await ending(call)
    return cancelled, seen, found.code, found.details, found.raised


@pytest.mark.parametrize("kind", ["stream_unary", "stream_stream"])
@as_grpcio
async def test_while_a_request_does_not_go_out(engines: str, kind: str) -> Any:
    held = Held("running")
    async with pair(engines, **handler(kind, held.behave)) as channel:
        call = getattr(channel, kind)(f"/test/{kind}")()

        async def write() -> None:
            while True:  # a server that reads nothing stops it by its window
                await call.write(bytes(1 << 20))

        writing = asyncio.ensure_future(write())
        await held.there.wait()
        await asyncio.wait({writing}, timeout=0.1)
        assert not writing.done()
        cancelled = call.cancel()
        async with asyncio.timeout(PATIENCE_S):
            (raised,) = await asyncio.gather(writing, return_exceptions=True)
        seen = await held.observed()
        code = await call.code()
    assert isinstance(raised, BaseException)
    # grpcio's client calls this an internal error.
    assert code is Code.CANCELLED or engines.startswith("grpcio")
    return cancelled, seen


@pytest.mark.parametrize("kind", ["unary_unary", "stream_unary"])
@as_grpcio
async def test_by_cancelling_whoever_awaits_it(engines: str, kind: str) -> Any:
    held = Held("running")
    async with pair(engines, **handler(kind, held.behave)) as channel:
        call = ask(channel, kind)

        async def wait() -> Any:
            return await call

        waiting = asyncio.ensure_future(wait())
        await held.there.wait()
        waiting.cancel()
        await asyncio.wait({waiting})
        seen = await held.observed()
    return waiting.cancelled(), call.cancelled(), await call.code(), seen


@pytest.mark.parametrize("kind", STREAMED)
@as_grpcio
async def test_by_leaving_the_loop_over_its_answers(engines: str, kind: str) -> Any:
    held = Held("message")
    async with pair(engines, **handler(kind, held.behave)) as channel:
        call = ask(channel, kind)
        async for message in call:
            assert message == b"one"
            break
        await held.there.wait()
        call.cancel()
        return await held.observed(), await call.code(), await call.details()


@pytest.mark.parametrize("turns", [0, 1, 2])
@pytest.mark.parametrize("kind", KINDS)
@as_grpcio
async def test_at_once(engines: str, kind: str, turns: int) -> Any:
    # Whether a server ever hears of it is a matter of chance; the next call is not.
    let_go = asyncio.Event()

    async def late(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        await let_go.wait()
        async for request in requests:
            yield request

    async with pair(engines, **handler(kind, late)) as channel:
        await channel.channel_ready()
        call = ask(channel, kind)
        for _ in range(turns):
            await asyncio.sleep(0)
        cancelled = call.cancel(), call.cancelled(), call.done()
        ended = await ending(call)
        let_go.set()
        after = await ending(ask(channel, kind))
    assert after.messages == (b"request",)
    return cancelled, ended.code, ended.details, ended.raised, after


@pytest.mark.parametrize("kind", KINDS)
@as_grpcio
async def test_after_the_end(engines: str, kind: str) -> Any:
    async def echo(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            yield request

    async with pair(engines, **handler(kind, echo)) as channel:
        call = ask(channel, kind)
        ended = await ending(call)
        return ended, call.cancel(), call.cancelled(), call.done(), await call.code()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("client", CLIENTS)
async def test_before_there_is_a_connection(client: str, kind: str) -> None:
    async with CLIENTS[client]("127.0.0.1:1") as channel:  # nobody listens there
        call = ask(channel, kind, wait_for_ready=True)
        await asyncio.sleep(0)
        assert call.cancel()
        found = await ending(call)
    assert (found.code, found.raised) == (Code.CANCELLED, "CancelledError")


@pytest.mark.parametrize("kind", STREAMED)
@as_grpcio
async def test_a_writer_that_nobody_reads_hears_of_it(engines: str, kind: str) -> Any:
    gone = asyncio.Event()

    async def endless(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        try:
            while True:
                yield bytes(100_000)
        finally:
            gone.set()

    async with pair(engines, **handler(kind, endless)) as channel:
        call = ask(channel, kind)
        first = len(await call.read())
        cancelled = call.cancel()
        async with asyncio.timeout(PATIENCE_S):
            await gone.wait()
        return first, cancelled, await call.code()
