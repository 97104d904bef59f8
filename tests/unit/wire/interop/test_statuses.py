"""Every status, by every way to say it, in every kind of call."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from tests.unit.wire.interop.matrix import KINDS, Code, as_grpcio, ask, ending, handler, pair

TEXT = "cafés, 100 % of them\n\t\x7f"
TRAILING = (("why", "so"), ("raw-bin", b"\x00\xff"))


@pytest.mark.parametrize("code", list(Code), ids=lambda code: code.name)
@pytest.mark.parametrize("kind", KINDS)
@as_grpcio
async def test_a_code_that_is_set(engines: str, kind: str, code: grpc.StatusCode) -> Any:
    async def behave(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        context.set_code(code)
        context.set_details(TEXT)
        context.set_trailing_metadata(TRAILING)
        yield b"answer"

    async with pair(engines, **handler(kind, behave)) as channel:
        found = await ending(ask(channel, kind))
    assert (found.code, found.trailing) == (code, TRAILING)
    return found


@pytest.mark.parametrize("code", [code for code in Code if code is not Code.OK], ids=lambda code: code.name)
@pytest.mark.parametrize("kind", KINDS)
@as_grpcio
async def test_abort(engines: str, kind: str, code: grpc.StatusCode) -> Any:
    async def behave(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            yield request
        await context.abort(code, TEXT, TRAILING)

    async with pair(engines, **handler(kind, behave)) as channel:
        found = await ending(ask(channel, kind))
    assert (found.code, found.details, found.trailing) == (code, TEXT, TRAILING)
    return found


@pytest.mark.parametrize("details", ["", "x", "%", "%41", "ü" * 500, "\U0001f600", " spaced ", "\0"])
@as_grpcio
async def test_details_of_any_text(engines: str, details: str) -> Any:
    async def behave(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        await context.abort(Code.ABORTED, details)
        yield b""

    async with pair(engines, **handler("unary_unary", behave)) as channel:
        found = await ending(ask(channel, "unary_unary"))
    assert found.code is Code.ABORTED
    return found


@pytest.mark.parametrize("path", ["/test/missing", "/missing/unary_unary", "/", "//"])
@pytest.mark.parametrize("kind", KINDS)
@as_grpcio
async def test_a_method_that_is_not_there(engines: str, kind: str, path: str) -> Any:
    async with pair(engines) as channel:
        method = getattr(channel, kind)(path)
        found = await ending(method(iter([b"x"]) if kind.startswith("stream") else b"x"))
    assert found.code is Code.UNIMPLEMENTED
    return found
