"""An error without a head is one block of headers on the wire, with any other end there are two."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from hpack import Decoder

from mesh.wire import frames
from tests.unit.wire.client.pairs import service
from tests.unit.wire.interop.matrix import KINDS, Code, handler
from tests.unit.wire.raw import raw_client, request
from tests.unit.wire.server.engines import BOTH

pytestmark = BOTH


async def response(engine: str, kind: str, behave: Any) -> tuple[list[int], dict[str, str]]:
    """The kinds of frames that a call is answered with, up to the end, and the fields of the last block."""
    async with service(engine, **handler(kind, behave)) as target, raw_client(int(target.rpartition(":")[2])) as client:
        await client.send(request(1, b"x", path=f"/test/{kind}".encode()))
        answered = await client.ended(1)
    decoder = Decoder()
    fields: dict[str, str] = {}
    for one in answered:
        if one.kind == frames.HEADERS:
            fields = {str(name): str(value) for name, value in decoder.decode(one.payload)}
    # grpcio's server resets a stream once it has ended it; that says nothing more.
    kinds = [one.kind for one in answered if one.kind != frames.RST_STREAM]
    return kinds, fields


@pytest.mark.parametrize("kind", KINDS)
async def test_an_error_before_any_head(engine: str, kind: str) -> None:
    async def refuse(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        await context.abort(Code.ABORTED, "no", (("x-last", "1"),))
        yield b""

    kinds, fields = await response(engine, kind, refuse)
    assert kinds == [frames.HEADERS]
    told = {"grpc-status": "10", "grpc-message": "no", "x-last": "1", ":status": "200"}
    assert told.items() <= fields.items()
    assert fields["content-type"] == "application/grpc"


@pytest.mark.parametrize("kind", KINDS)
async def test_an_error_behind_a_head(engine: str, kind: str) -> None:
    async def refuse(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        await context.send_initial_metadata((("x-first", "1"),))
        await context.abort(Code.ABORTED, "no")
        yield b""

    kinds, fields = await response(engine, kind, refuse)
    assert kinds == [frames.HEADERS, frames.HEADERS]
    assert fields == {"grpc-status": "10", "grpc-message": "no"}


@pytest.mark.parametrize("kind", KINDS)
async def test_an_answer(engine: str, kind: str) -> None:
    async def answer(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        yield b"x"

    kinds, fields = await response(engine, kind, answer)
    assert kinds == [frames.HEADERS, frames.DATA, frames.HEADERS]
    assert fields["grpc-status"] == "0"
