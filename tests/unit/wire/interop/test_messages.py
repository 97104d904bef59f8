"""Messages of every size and number, in every kind of call."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.unit.wire.interop.matrix import KINDS, UNBOUNDED, Ending, as_grpcio, ask, ending, handler, pair

FRAMES = (0, 1, 16_378, 16_379, 16_380, 65_529, 65_530, 65_531, 1 << 20)
"""Around the first frame and the first window, of which a message's prefix takes five bytes."""
LARGE = 64 << 20


async def echo(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
    async for request in requests:
        yield request


def some_bytes(size: int) -> bytes:
    return (bytes(range(251)) * (size // 251 + 1))[:size]


def digested(found: Ending) -> list[tuple[int, str]]:
    return [(len(message), hashlib.sha256(message).hexdigest()) for message in found.messages]


@pytest.mark.parametrize("size", FRAMES)
@pytest.mark.parametrize("kind", KINDS)
@as_grpcio
async def test_a_message_of_any_size(engines: str, kind: str, size: int) -> Any:
    message = some_bytes(size)
    async with pair(engines, **handler(kind, echo)) as channel:
        found = await ending(ask(channel, kind, [message]))
    assert found.messages == (message,)
    return digested(found), found.code


@pytest.mark.parametrize("kind", ["unary_unary", "stream_stream"])
@as_grpcio
async def test_a_message_of_64_mib(engines: str, kind: str) -> Any:
    async with pair(engines, UNBOUNDED, {"options": UNBOUNDED}, **handler(kind, echo)) as channel:
        found = await ending(ask(channel, kind, [some_bytes(LARGE)]))
    assert [len(message) for message in found.messages] == [LARGE]
    return digested(found), found.code


@pytest.mark.parametrize("many", [0, 1, 2, 300])
@pytest.mark.parametrize("kind", ["stream_unary", "stream_stream"])
@as_grpcio
async def test_any_number_of_messages(engines: str, kind: str, many: int) -> Any:
    sent = [some_bytes(place * 37) for place in range(many)]
    async with pair(engines, **handler(kind, echo)) as channel:
        return await ending(ask(channel, kind, sent))


@pytest.mark.parametrize("kind", KINDS)
@as_grpcio
async def test_a_request_beyond_the_servers_bound(engines: str, kind: str) -> Any:
    options = [("grpc.max_receive_message_length", 1000)]
    async with pair(engines, options, **handler(kind, echo)) as channel:
        fits = await ending(ask(channel, kind, [bytes(1000)]))
        refused = await ending(ask(channel, kind, [bytes(1001)]))
    return fits, (refused.messages, refused.raised, refused.code)


@pytest.mark.parametrize("kind", KINDS)
@as_grpcio
async def test_a_response_beyond_the_servers_bound(engines: str, kind: str) -> Any:
    options = [("grpc.max_send_message_length", 1000)]
    async with pair(engines, options, **handler(kind, echo)) as channel:
        fits = await ending(ask(channel, kind, [bytes(1000)]))
        refused = await ending(ask(channel, kind, [bytes(1001)]))
    return fits, (refused.messages, refused.raised, refused.code)


@pytest.mark.parametrize("kind", KINDS)
@as_grpcio
async def test_a_response_beyond_the_clients_bound(engines: str, kind: str) -> Any:
    channel_options = {"options": [("grpc.max_receive_message_length", 1000)]}
    async with pair(engines, (), channel_options, **handler(kind, echo)) as channel:
        fits = await ending(ask(channel, kind, [bytes(1000)]))
        refused = await ending(ask(channel, kind, [bytes(1001)]))
    return fits, (refused.messages, refused.raised, refused.code)
