"""Whatever a server says and whenever a call is cancelled: nothing raises, every call ends, nothing is left behind."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.wire import frames
from mesh.wire.messages import encode_message
from tests.unit.wire.client.handlers import chat, count, echo, join
from tests.unit.wire.client.pairs import WIRE_CLIENT, Code, pair
from tests.unit.wire.client.scripted import OK, scripted
from tests.unit.wire.core.given import RESPONSE, data, frame, goaway, headers, ping, reset, window_update
from tests.unit.wire.core.given import settings as settings_frame

STREAMS = st.sampled_from([0, 1, 2, 3, 5, 7, 9])


def head(stream_id: int, end: bool) -> bytes:
    return headers(stream_id, RESPONSE, end=end)


def trailers(stream_id: int, end: bool) -> bytes:
    return headers(stream_id, OK, end=end)


def status_alone(stream_id: int, status: bytes) -> bytes:
    return headers(stream_id, (*RESPONSE, (b"grpc-status", status)), end=True)


def message(stream_id: int, text: bytes, end: bool) -> bytes:
    return data(stream_id, encode_message(text), end=end)


def streams_taken(count: int) -> bytes:
    return settings_frame((frames.MAX_CONCURRENT_STREAMS, count))


SAID = st.one_of(
    st.builds(head, STREAMS, st.booleans()),
    st.builds(trailers, STREAMS, st.booleans()),
    st.builds(status_alone, STREAMS, st.sampled_from([b"0", b"14", b"99", b"x"])),
    st.builds(message, STREAMS, st.binary(max_size=20), st.booleans()),
    st.builds(data, STREAMS, st.binary(max_size=8)),
    st.builds(reset, STREAMS, st.integers(0, 15)),
    st.builds(goaway, STREAMS, st.integers(0, 15)),
    st.builds(window_update, STREAMS, st.integers(0, 1 << 20)),
    st.just(ping()),
    st.builds(streams_taken, st.integers(0, 3)),
    st.builds(frame, st.integers(0, 12), st.integers(0, 255), STREAMS, st.binary(max_size=12)),
    st.binary(min_size=1, max_size=20),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(SAID, max_size=12), st.integers(1, 64), st.booleans())
def test_every_call_ends_whatever_the_server_says(said: list[bytes], cut: int, hangs_up: bool) -> None:
    async def run() -> None:
        broken: list[Any] = []

        def note(loop: asyncio.AbstractEventLoop, context: Any) -> None:
            broken.append(context)

        asyncio.get_running_loop().set_exception_handler(note)
        async with scripted() as (server, channel):
            await channel.channel_ready()
            connection = await server.connection()
            unary = [channel.unary_unary("/test/unary_unary")(b"x", timeout=0.2) for _ in range(2)]
            stream: Any = channel.unary_stream("/test/unary_stream")(b"x", timeout=0.2)
            talk: Any = channel.stream_stream("/test/stream_stream")(iter([b"x"]), timeout=0.2)
            await connection.request(3)
            out = b"".join(said)
            for place in range(0, len(out), cut):
                connection.send(out[place : place + cut])
            if hangs_up:
                await asyncio.sleep(0)
                connection.hang_up()
            for call in (stream, talk):
                with contextlib.suppress(grpc.aio.AioRpcError):
                    async with asyncio.timeout(10):
                        _ = [one async for one in call]
                assert call.done()
            for call in unary:
                async with asyncio.timeout(10):
                    code = await call.code()
                assert call.done()
                if code is Code.OK:
                    assert isinstance(await call, bytes)
            core: Any = channel._core  # pyright: ignore[reportPrivateUsage]
            assert not core.line
            assert core.deadlines.held == 0
            assert not any(protocol.calls for protocol in core._balancer.protocols)
        assert broken == []

    asyncio.run(run())


@WIRE_CLIENT
@pytest.mark.parametrize("kind", ["unary_unary", "unary_stream", "stream_unary", "stream_stream"])
async def test_a_call_may_be_cancelled_at_any_moment(engines: str, kind: str) -> None:
    handlers: dict[str, Any] = {
        "unary_unary": echo,
        "unary_stream": count,
        "stream_unary": join,
        "stream_stream": chat,
    }
    async with pair(engines, **handlers) as channel:
        method: Any = getattr(channel, kind)(f"/test/{kind}")
        core: Any = channel._core  # pyright: ignore[reportAttributeAccessIssue]
        for turns in range(40):
            call = method(b"3" if kind.startswith("unary") else iter([b"1", b"2"]), timeout=20)
            for _ in range(turns):
                await asyncio.sleep(0)
            was_done = call.done()
            assert call.cancel() != was_done
            assert await call.code() is (Code.OK if was_done else Code.CANCELLED)
        for _ in range(2):
            await asyncio.sleep(0)
        assert core.deadlines.held == 0
        assert not core.line
        assert not any(protocol.calls for protocol in core._balancer.protocols)
        assert await channel.unary_unary("/test/unary_unary")(b"still there") == b"still there"
