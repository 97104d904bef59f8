"""How connections end: stop with and without grace, age, idleness, keepalive. By a clock that a test moves."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from mesh.wire import frames
from mesh.wire.faults import ErrorCode
from tests.unit.wire.core.given import ping
from tests.unit.wire.raw import raw_client, request
from tests.unit.wire.serving import Serving, eventually, serving

Code = grpc.StatusCode


async def begun(server: Serving, calls: int = 1) -> None:
    await eventually(lambda: server.handlers.running == calls)


async def test_stop_with_grace_finishes_what_was_begun() -> None:
    async with serving() as server, grpc.aio.insecure_channel(server.target) as channel:
        calls = [asyncio.ensure_future(channel.unary_unary("/test/wait")(b"%d" % number)) for number in range(5)]
        await begun(server, 5)
        stopping = asyncio.ensure_future(server.server.stop(30))
        await eventually(lambda: server.connections[0].draining_at is not None)
        assert not stopping.done()
        server.handlers.let_go.set()
        assert await asyncio.gather(*calls) == [b"%d" % number for number in range(5)]
        async with asyncio.timeout(5):
            await stopping
        assert server.connections == []


async def test_stop_with_grace_announces_itself_and_takes_what_is_on_its_way() -> None:
    async with serving() as server, raw_client(server.port) as client:
        await client.send(request(1, path=b"/test/wait"))
        await begun(server)
        stopping = asyncio.ensure_future(server.server.stop(30))
        warned = await client.frame(frames.GOAWAY)
        assert int.from_bytes(warned.payload[:4], "big") == (1 << 31) - 1
        asked = await client.frame(frames.PING)
        # This one was on its way; the next one comes after the final word.
        await client.send(request(3, b"on its way"), ping(asked.payload, ack=True))
        await client.until(lambda read: len([one for one in read if one.kind == frames.GOAWAY]) == 2)
        last = client.goaway()
        assert last is not None
        assert (int.from_bytes(last.payload[:4], "big"), last.code) == (3, ErrorCode.NO_ERROR)
        await client.send(request(5, b"too late"))
        assert b"on its way" in b"".join(one.payload for one in await client.ended(3))
        server.handlers.let_go.set()
        await client.gone()
        assert not [one for one in client.frames if one.stream_id == 5]
        assert server.handlers.started == 2
        await stopping


async def test_stop_refuses_new_connections_at_once() -> None:
    async with serving() as server, raw_client(server.port) as client:
        await client.send(request(1, path=b"/test/wait"))
        await begun(server)
        stopping = asyncio.ensure_future(server.server.stop(30))
        await client.frame(frames.GOAWAY)
        with pytest.raises(ConnectionError):
            await asyncio.open_connection("127.0.0.1", server.port)
        server.handlers.let_go.set()
        await stopping


@pytest.mark.parametrize("grace", [None, 0, 0.05])
async def test_stop_ends_what_does_not_end_by_itself_as_unavailable(grace: float | None) -> None:
    async with serving() as server, grpc.aio.insecure_channel(server.target) as channel:
        call = channel.unary_unary("/test/wait")(b"")
        await begun(server)
        async with asyncio.timeout(5):
            await server.server.stop(grace)
        assert await call.code() is Code.UNAVAILABLE
        assert (server.handlers.running, server.handlers.cancelled) == (0, 1)


async def test_stop_hangs_up_on_the_idle_at_once() -> None:
    async with serving() as server, raw_client(server.port) as client:
        await client.ask()
        async with asyncio.timeout(5):
            await server.server.stop(30)
        away = client.goaway()
        await client.gone()
        assert away is not None


async def test_a_second_stop_may_be_more_impatient() -> None:
    async with serving() as server, grpc.aio.insecure_channel(server.target) as channel:
        call = channel.unary_unary("/test/wait")(b"")
        await begun(server)
        patient = asyncio.ensure_future(server.server.stop(60))
        await asyncio.sleep(0)
        async with asyncio.timeout(5):
            await server.server.stop(None)
            await patient
        assert await call.code() is Code.UNAVAILABLE


async def test_termination_can_be_waited_for() -> None:
    async with serving() as server:
        assert await server.server.wait_for_termination(0.01) is True
        waiting = asyncio.ensure_future(server.server.wait_for_termination())
        await asyncio.sleep(0)
        await server.server.stop(None)
        async with asyncio.timeout(5):
            assert await waiting is False
        assert await server.server.wait_for_termination(5) is False


async def test_a_server_that_was_never_started_stops() -> None:
    from mesh.wire.server import server

    made = server()
    made.add_insecure_port("127.0.0.1:0")
    async with asyncio.timeout(5):
        await made.stop(None)
        assert await made.wait_for_termination() is False


def arguments(**milliseconds: int) -> dict[str, Any]:
    return {"options": [(f"grpc.{name}_ms", value) for name, value in milliseconds.items()]}


async def test_an_old_connection_is_sent_away_and_its_calls_end() -> None:
    async with (
        serving(**arguments(max_connection_age=60_000, max_connection_age_grace=30_000)) as server,
        raw_client(server.port) as client,
    ):
        await client.send(request(1, path=b"/test/wait"))
        await begun(server)
        await server.pass_time(53)
        assert client.goaway() is None
        await server.pass_time(14)
        await client.frame(frames.GOAWAY)
        server.handlers.let_go.set()
        await client.ended(1)
        await client.gone()


async def test_an_old_connection_whose_calls_do_not_end_is_closed_after_its_grace() -> None:
    async with (
        serving(**arguments(max_connection_age=60_000, max_connection_age_grace=30_000)) as server,
        raw_client(server.port) as client,
        raw_client(server.port) as young,
    ):
        await client.send(request(1, path=b"/test/wait"))
        await begun(server)
        await server.pass_time(67)
        async with raw_client(server.port) as fresh:
            await server.pass_time(16)
            assert not client.lost.done()
            await server.pass_time(15)
            await client.gone()
            assert server.handlers.cancelled == 1
            await young.gone()
            assert await fresh.ask() == b"hello"


async def test_ages_are_spread() -> None:
    async with (
        serving(**arguments(max_connection_age=100_000)) as server,
        raw_client(server.port),
        raw_client(server.port),
        raw_client(server.port),
    ):
        factors = {one.age_factor for one in server.connections}
        assert len(factors) == 3
        assert all(0.9 <= factor <= 1.1 for factor in factors)


async def test_an_idle_connection_is_closed() -> None:
    async with (
        serving(**arguments(max_connection_idle=10_000)) as server,
        raw_client(server.port) as idle,
        raw_client(server.port) as busy,
        raw_client(server.port) as waiting,
    ):
        await idle.ask()
        await waiting.send(request(1, path=b"/test/wait"))
        await begun(server)
        for _ in range(5):
            await busy.ask()
            await server.pass_time(3)
        await idle.gone()
        assert idle.goaway() is not None
        assert await busy.ask() == b"hello"
        # A call that takes long is no idleness.
        assert not waiting.lost.done()


async def test_a_client_that_answers_pings_is_kept_and_one_that_does_not_is_cut() -> None:
    async with (
        serving(**arguments(keepalive_time=10_000, keepalive_timeout=5_000)) as server,
        raw_client(server.port) as alive,
        raw_client(server.port) as dead,
    ):
        await server.pass_time(11)
        for round_ in range(1, 4):
            await alive.until(lambda read, n=round_: len([one for one in read if one.kind == frames.PING]) >= n)
            await alive.send(ping(b"keepaliv", ack=True))
            await eventually(lambda: any(one.pinged_at is None for one in server.connections))
            await server.pass_time(11)
        await dead.gone()
        assert dead.goaway() is None
        assert len([one for one in dead.frames if one.kind == frames.PING]) == 1
        assert not alive.lost.done()


async def test_grpcio_lives_with_keepalive_age_and_stop() -> None:
    # Its channel finds its way back each time a connection goes away beneath it.
    async with (
        serving(**arguments(max_connection_age=10_000, keepalive_time=5_000)) as server,
        grpc.aio.insecure_channel(server.target) as channel,
    ):
        for number in range(30):
            assert await channel.unary_unary("/test/echo")(b"%d" % number, wait_for_ready=True) == b"%d" % number
            await server.pass_time(1)
        assert server.handlers.started == 30
