"""Metadata: text and bytes, keys more than once, both ways, at the head and at the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest

from tests.unit.wire.interop.matrix import CLIENTS, KINDS, Code, as_grpcio, ask, ending, handler, pair

SETS: dict[str, tuple[tuple[str, str | bytes], ...]] = {
    "none": (),
    "text": (("x-a", "one"), ("x-b.c_d-0", "two, three; ~!")),
    "bytes": (("x-bin", bytes(range(256))), ("x-empty-bin", b""), ("x-comma-bin", b"a,b")),
    "bytes of every length": tuple((f"x-{size}-bin", bytes(size)) for size in range(1, 9)),
    "a key more than once": (("x-a", "1"), ("x-a", "3"), ("x-b", "2"), ("x-bin", b"\0"), ("x-bin", b"\1")),
    "empty and spaced": (("x-empty", ""), ("x-inside", "a  b")),
    "much": tuple((f"x-{number}", "v" * 50) for number in range(60)),
}


def own(metadata: Any) -> tuple[tuple[str, Any], ...]:
    return tuple((key, value) for key, value in metadata if key.startswith("x-"))


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("kind", KINDS)
@as_grpcio
async def test_both_ways(engines: str, kind: str, name: str) -> Any:
    given = SETS[name]
    received: list[Any] = []

    async def behave(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        received.append(own(context.invocation_metadata()))
        await context.send_initial_metadata(given)
        context.set_trailing_metadata(given)
        async for request in requests:
            yield request

    async with pair(engines, **handler(kind, behave)) as channel:
        found = await ending(ask(channel, kind, metadata=given))
    assert (received, found.initial, found.trailing) == ([given], given, given)
    return found, received


@pytest.mark.parametrize("kind", KINDS)
@as_grpcio
async def test_trailing_alone(engines: str, kind: str) -> Any:
    async def behave(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        context.set_trailing_metadata(SETS["bytes"])
        yield b"answer"

    async with pair(engines, **handler(kind, behave)) as channel:
        return await ending(ask(channel, kind))


@pytest.mark.parametrize("kind", KINDS)
@as_grpcio
async def test_an_initial_head_comes_before_any_message(engines: str, kind: str) -> Any:
    async def behave(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        await context.send_initial_metadata((("x-a", "1"),))
        async for request in requests:
            yield request

    async with pair(engines, **handler(kind, behave)) as channel:
        if not kind.startswith("stream"):
            call = ask(channel, kind)
            return tuple(await call.initial_metadata()), await ending(call)
        call = getattr(channel, kind)(f"/test/{kind}")()
        early = tuple(await call.initial_metadata())
        await call.write(b"x")
        await call.done_writing()
        return early, await ending(call)


RESERVED = "a key of the protocol"
"""grpcio takes it; ours refuses what PROTOCOL-HTTP2.md reserves."""
WRONG: dict[str, tuple[tuple[str, Any], ...]] = {
    "upper case": (("X-A", "1"),),
    "space in a key": (("x a", "1"),),
    "empty key": (("", "1"),),
    "pseudo": ((":path", "/x"),),
    "beyond ASCII": (("x-a", "ü"),),
    "line break": (("x-a", "a\nb"),),
    "bytes under a text key": (("x-a", b"1"),),
    "text under a binary key": (("x-bin", "1"),),
    "a number": (("x-a", 1),),
    RESERVED: (("grpc-own", "1"),),
}


async def is_taken(act: Callable[[], Awaitable[Any]]) -> bool:
    try:
        await act()
    except Exception:
        return False
    return True


@pytest.mark.parametrize("name", [name for name in WRONG if name != RESERVED])
@as_grpcio
async def test_what_a_client_refuses(engines: str, name: str) -> Any:
    async def behave(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        yield repr(own(context.invocation_metadata())).encode()

    async with pair(engines, **handler("unary_unary", behave)) as channel:

        async def attempt() -> Any:
            return await ask(channel, "unary_unary", metadata=WRONG[name])

        return await is_taken(attempt), await ending(ask(channel, "unary_unary"))


@pytest.mark.parametrize("name", [name for name in WRONG if name != "bytes under a text key"])
@pytest.mark.parametrize(("where", "code"), [("initial", Code.UNKNOWN), ("trailing", Code.INTERNAL)])
@pytest.mark.parametrize("client", CLIENTS)
async def test_what_our_server_refuses(client: str, where: str, code: grpc.StatusCode, name: str) -> None:
    # Not held against grpcio's server: some of these make it end no call at all.
    async def behave(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        if where == "initial":
            await context.send_initial_metadata(WRONG[name])
        else:
            context.set_trailing_metadata(WRONG[name])
        yield b"answer"

    async with asyncio.timeout(20), pair(f"{client} to wire", **handler("unary_unary", behave)) as channel:
        found = await ending(ask(channel, "unary_unary"))
    assert found.code is code
    assert WRONG[name][0][0] in found.details
