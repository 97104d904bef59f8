"""Peers that say nothing, or never end what they have begun; by the server's clock, which a test moves."""

from __future__ import annotations

import asyncio
import logging

import pytest

from mesh.wire import frames
from mesh.wire.limits import WireLimits
from tests.unit.wire.core.given import REQUEST, continuation, data, frame, headers, ping, settings
from tests.unit.wire.raw import raw_client, request
from tests.unit.wire.serving import eventually, serving

LIMITS = WireLimits(hello_s=10.0, slow_frame_s=10.0, stalled_s=10.0)


@pytest.mark.parametrize(
    "said",
    [b"", frames.PREFACE[:5], frames.PREFACE, frames.PREFACE + settings((3, 3))[:10]],
    ids=["nothing", "a part of the preface", "the preface", "a part of its settings"],
)
async def test_a_connection_that_does_not_say_hello_is_closed(said: bytes) -> None:
    async with (
        serving(LIMITS) as server,
        raw_client(server.port) as neighbour,
        raw_client(server.port, hello=False) as mute,
    ):
        await mute.send(said)
        assert await neighbour.ask() == b"hello"
        await server.pass_time(10)
        assert len(server.connections) == 2
        await server.pass_time(1)
        await mute.gone()
        assert len(server.connections) == 1
        assert await neighbour.ask() == b"hello"


BLOCK = headers(1, REQUEST)[9:]


@pytest.mark.parametrize(
    ("begun", "dribble"),
    [
        (headers(1)[:3], b""),
        (headers(1)[:9], BLOCK[:40]),
        (headers(1, block=BLOCK[:2], more=True), b""),
        (headers(1, block=BLOCK[:2], more=True), continuation(1, b"\x00\x01a\x01b" * 2, more=True)[:40]),
        (headers(1) + data(1, bytes(10_000))[:20], bytes(40)),
        (frame(0xEE, 0, 0, bytes(10_000))[:20], bytes(40)),
    ],
    ids=["a head cut off", "slow headers", "a block left off", "a slow block", "slow data", "a slow unknown frame"],
)
async def test_a_frame_that_never_ends_ends_the_connection(begun: bytes, dribble: bytes) -> None:
    async with serving(LIMITS) as server, raw_client(server.port) as neighbour, raw_client(server.port) as slow:
        await slow.send(begun)
        assert await neighbour.ask() == b"hello"
        for second in range(12):
            await slow.send(dribble[second : second + 1])
            assert await neighbour.ask() == b"hello"
            await server.pass_time(1)
            if second < 9:
                assert not slow.lost.done()
        await slow.gone()
        assert len(server.connections) == 1


async def test_a_client_that_is_slow_but_gets_on_is_left_alone() -> None:
    # At every look something is unfinished, but never the same thing.
    async with serving(LIMITS) as server, raw_client(server.port) as slow:
        await slow.send(headers(1, [(n, b"/test/size" if n == b":path" else v) for n, v in REQUEST]))
        body = b"".join(data(1, one) for one in [b"\0\0\x00\x03\xe8", *[bytes(20)] * 50])
        for start in range(0, len(body), 30):
            await slow.send(body[start : start + 30])
            await server.pass_time(5)
        await slow.send(data(1, end=True))
        assert b"1000" in b"".join(one.payload for one in await slow.ended(1))


async def test_a_call_whose_request_never_comes_ends_with_its_deadline() -> None:
    async with serving() as server, raw_client(server.port) as client:
        await client.send(
            headers(1, [(n, b"/test/echo" if n == b":path" else v) for n, v in REQUEST] + [(b"grpc-timeout", b"20m")])
        )
        (trailers,) = await client.ended(1)
        assert b"grpc-status\x014" in trailers.payload
        # Whoever does not end its own side is reset, a little after the answer.
        assert (await client.frame(frames.RST_STREAM, 1)).payload == bytes(4)
        assert server.handlers.started == 0
        assert not server.connections[0].calls


async def test_half_open_connections_are_no_more_than_may_be_open(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "mesh.wire")
    async with serving(LIMITS, max_connections=20) as server, raw_client(server.port) as neighbour:
        opened = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(60)]
        for reader, _ in opened[19:]:
            assert await reader.read() == b""
        assert len(server.connections) == 20
        assert await neighbour.ask() == b"hello"
        await server.pass_time(11)
        for reader, writer in opened:
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await reader.readexactly(1000)
            writer.close()
        assert len(server.connections) == 1
        assert await neighbour.ask() == b"hello"
        async with raw_client(server.port) as other:
            assert await other.ask() == b"hello"
    assert len(caplog.records) == 1


async def test_a_client_that_is_told_to_go_and_does_not_read_is_cut_after_a_while() -> None:
    async with serving(WireLimits(linger_s=0.05)) as server, raw_client(server.port) as deaf:
        await deaf.send(settings((frames.INITIAL_WINDOW_SIZE, (1 << 31) - 1)), b"\0\0\4\x08\0\0\0\0\0\x7f\xff\0\0")
        deaf.transport.pause_reading()
        await deaf.send(request(1, b"20000000", path=b"/test/large"))
        await deaf.send(ping())
        await eventually(lambda: server.connections[0].paused)
        async with asyncio.timeout(10):
            await server.server.stop(None)
        assert server.connections == []


async def test_a_client_that_goes_away_in_the_middle_of_anything_leaves_nothing() -> None:
    async with serving() as server:
        for cut in range(0, 200, 7):
            async with raw_client(server.port) as client:
                await client.send(
                    (request(1, b"x" * 50, path=b"/test/wait") + request(3, path=b"/test/join", end=False))[:cut]
                )
        await eventually(lambda: not server.connections and not server.handlers.running)
        assert server.handlers.started == server.handlers.cancelled > 0
        assert server.server._shared.calls == 0  # pyright: ignore[reportPrivateUsage]
