"""How a channel connects, loses connections and makes them again, against servers that are scripted frame by frame."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import ChannelConnectivity as State

import mesh.wire
from mesh.wire import frames
from mesh.wire.channel import WireChannel
from mesh.wire.faults import ErrorCode
from mesh.wire.subchannel import Backoff
from tests.unit.wire.client.handlers import echo
from tests.unit.wire.client.pairs import WIRE_CLIENT, Code, service
from tests.unit.wire.client.scripted import OK, SETTLED, Scripted, answer, scripted
from tests.unit.wire.core.given import RESPONSE, data, goaway, headers, ping, reset, settings, window_update
from tests.unit.wire.server.engines import SERVERS, Methods


def call_of(channel: WireChannel, **given: Any) -> Any:
    made: Any = channel.unary_unary("/test/unary_unary")
    return made(b"question", **{"timeout": 20, **given})


async def failure(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return raised.value


async def state(channel: WireChannel, wanted: State) -> None:
    async with asyncio.timeout(20):
        while (now := channel.get_state()) is not wanted:
            await channel.wait_for_state_change(now)


# States, and the first connection.


async def test_a_channel_is_idle_until_it_is_used() -> None:
    async with scripted() as (server, channel):
        assert channel.get_state() is State.IDLE
        assert channel.get_state(try_to_connect=True) is State.IDLE
        assert channel.get_state() is State.CONNECTING
        await channel.channel_ready()
        assert channel.get_state() is State.READY
        (await server.connection()).hang_up()
        await state(channel, State.IDLE)
    assert channel.get_state() is State.SHUTDOWN


async def test_close_wakes_who_waits_for_a_change() -> None:
    async with scripted() as (_, channel):
        waiting = asyncio.create_task(channel.wait_for_state_change(State.IDLE))
        await asyncio.sleep(0)
        await channel.close()
        async with asyncio.timeout(10):
            await waiting


async def test_a_server_counts_as_there_only_once_it_has_spoken() -> None:
    async with scripted(greeting=b"") as (server, channel):
        call = call_of(channel)
        connection = await server.connection()
        await connection.frame(frames.SETTINGS)
        assert channel.get_state() is State.CONNECTING
        assert connection.requests() == []
        connection.send(SETTLED)
        connection.send(answer(await connection.request()))
        assert await call == b"answer"


async def test_a_server_that_never_speaks_is_given_up() -> None:
    async with scripted(("grpc.min_reconnect_backoff_ms", 50), greeting=b"") as (server, channel):
        error = await failure(call_of(channel))
        assert error.code() is Code.UNAVAILABLE
        assert "no connection within 0.05 s" in (error.details() or "")
        await (await server.connection()).gone()


@pytest.mark.parametrize("greeting", [b"HTTP/1.1 400 Bad Request\r\n\r\n", ping(), b"\0" * 100])
async def test_a_server_that_speaks_something_else_is_unavailable(greeting: bytes) -> None:
    async with scripted(greeting=greeting) as (_, channel):
        error = await failure(call_of(channel))
        assert error.code() is Code.UNAVAILABLE
        assert "HTTP/2" in (error.details() or "")


async def test_no_server_fails_calls_at_once_unless_they_wait_for_it() -> None:
    async with scripted() as (server, channel):
        server.deaf()
        error = await failure(call_of(channel))
        assert error.code() is Code.UNAVAILABLE
        assert "failed to connect to all addresses" in (error.details() or "")
        assert channel.get_state() is State.TRANSIENT_FAILURE
        patient = call_of(channel, wait_for_ready=True)
        assert (await failure(call_of(channel))).code() is Code.UNAVAILABLE
        assert not patient.done()
        await server.listen()
        connection = await server.connection()
        connection.send(answer(await connection.request()))
        assert await patient == b"answer"


async def test_a_call_that_waits_for_a_server_keeps_to_its_deadline() -> None:
    async with scripted() as (server, channel):
        server.deaf()
        error = await failure(call_of(channel, wait_for_ready=True, timeout=0.1))
        assert error.code() is Code.DEADLINE_EXCEEDED


async def test_a_stream_waits_for_its_connection_before_it_writes() -> None:
    async with scripted() as (server, channel):
        server.deaf()
        call = channel.stream_stream("/test/stream_stream")(wait_for_ready=True, timeout=20)
        writing = asyncio.create_task(call.write(b"one"))
        await state(channel, State.TRANSIENT_FAILURE)
        assert not writing.done()
        await server.listen()
        await writing
        connection = await server.connection()
        await connection.frame(frames.DATA, 1)
        await call.done_writing()
        connection.send(answer(await connection.request()))
        assert [await call.read(), await call.read()] == [b"answer", grpc.aio.EOF]


# Losing connections.


async def test_a_lost_connection_fails_its_calls_and_is_made_again() -> None:
    async with scripted() as (server, channel):
        for _ in range(3):
            calls = [call_of(channel) for _ in range(3)]
            connection = await server.connection()
            await connection.request(3)
            connection.send(*[headers(stream_id, RESPONSE) for stream_id in (1, 3, 5)])
            connection.hang_up()
            assert {(await failure(call)).code() for call in calls} == {Code.UNAVAILABLE}


async def test_back_off_grows_and_has_a_bound() -> None:
    backoff = Backoff(1.0, 10.0)
    delays = [backoff.next_s() for _ in range(12)]
    expected = [min(1.6**attempt, 10.0) for attempt in range(12)]
    for delay, wanted in zip(delays, expected, strict=True):
        assert wanted * 0.8 <= delay <= wanted * 1.2
    assert len(set(delays)) == 12
    backoff.reset()
    assert 0.8 <= backoff.next_s() <= 1.2


async def test_a_server_that_always_hangs_up_is_not_asked_without_pause() -> None:
    async with scripted(("grpc.initial_reconnect_backoff_ms", 200), ("grpc.max_reconnect_backoff_ms", 200)) as (
        server,
        channel,
    ):
        loop = asyncio.get_running_loop()
        began = loop.time()
        for _ in range(3):
            await channel.channel_ready()
            (await server.connection()).hang_up()
            await state(channel, State.IDLE)
        assert loop.time() - began >= 2 * 200 * 0.8 / 1e3


async def test_going_away_lets_calls_end_and_moves_new_ones() -> None:
    async with scripted() as (server, channel):
        old_call = call_of(channel)
        old = await server.connection()
        await old.request()
        old.send(goaway(1))
        await state(channel, State.IDLE)
        new_call = call_of(channel)
        new = await server.connection()
        new.send(answer(await new.request(), b"new"))
        assert await new_call == b"new"
        old.send(answer(1, b"old"))
        assert await old_call == b"old"
        await old.gone()


async def test_calls_beyond_what_a_server_takes_are_made_again_elsewhere() -> None:
    async with scripted() as (server, channel):
        calls = [call_of(channel) for _ in range(3)]
        old = await server.connection()
        await old.request(3)
        old.send(goaway(1), answer(1, b"old"))
        new = await server.connection()
        await new.request(2)
        new.send(answer(1, b"new"), answer(3, b"new"))
        assert [await call for call in calls] == [b"old", b"new", b"new"]


async def test_a_refused_stream_is_tried_once_more_and_then_reported() -> None:
    async with scripted() as (server, channel):
        call = call_of(channel)
        connection = await server.connection()
        connection.send(reset(await connection.request(1), ErrorCode.REFUSED_STREAM))
        connection.send(answer(await connection.request(2), b"second"))
        assert await call == b"second"
        call = call_of(channel)
        connection.send(reset(await connection.request(3), ErrorCode.REFUSED_STREAM))
        connection.send(reset(await connection.request(4), ErrorCode.REFUSED_STREAM))
        error = await failure(call)
        assert error.code() is Code.UNAVAILABLE
        assert "REFUSED_STREAM" in (error.details() or "")


async def test_what_was_answered_is_not_tried_again() -> None:
    async with scripted() as (server, channel):
        call = channel.unary_stream("/test/unary_stream")(b"", timeout=20)
        connection = await server.connection()
        await connection.request()
        connection.send(headers(1, RESPONSE), reset(1, ErrorCode.REFUSED_STREAM))
        with pytest.raises(grpc.aio.AioRpcError):
            await call.read()
        assert len(connection.requests()) == 1


async def test_a_refused_stream_of_requests_is_sent_again_whole() -> None:
    async with scripted() as (server, channel):
        call = channel.stream_unary("/test/stream_unary")(timeout=20)
        await call.write(b"one")
        await call.write(b"two")
        connection = await server.connection()
        await connection.until(lambda read: sum(one.kind == frames.DATA for one in read) == 2)
        connection.send(reset(1, ErrorCode.REFUSED_STREAM))
        await connection.until(lambda read: sum(one.kind == frames.DATA and one.stream_id == 3 for one in read) == 2)
        await call.write(b"three")
        await call.done_writing()
        connection.send(answer(await connection.request()))
        assert await call == b"answer"
        sent = [one.payload[5:] for one in connection.frames if one.kind == frames.DATA and one.stream_id == 3]
        assert sent == [b"one", b"two", b"three", b""]


async def test_a_writer_that_waits_for_room_finds_it_on_the_next_connection() -> None:
    async with scripted(greeting=settings((frames.INITIAL_WINDOW_SIZE, 10)) + settings(ack=True)) as (server, channel):
        call = channel.stream_unary("/test/stream_unary")(timeout=20)
        writing = asyncio.create_task(call.write(bytes(100_000)))
        old = await server.connection()
        await old.frame(frames.DATA, 1)
        assert not writing.done()
        room = settings((frames.INITIAL_WINDOW_SIZE, 1 << 20)) + window_update(0, 1 << 20)
        server.greeting = room + settings(ack=True)
        old.send(goaway(0))
        new = await server.connection()
        await writing
        await call.done_writing()
        new.send(answer(await new.request()))
        assert await call == b"answer"
        assert sum(len(one.payload) for one in new.frames if one.kind == frames.DATA) == 100_005


async def test_more_than_is_kept_is_not_sent_again() -> None:
    async with scripted(("grpc.per_rpc_retry_buffer_size", 10)) as (server, channel):
        call = call_of(channel)
        connection = await server.connection()
        connection.send(reset(await connection.request(), ErrorCode.REFUSED_STREAM))
        assert (await failure(call)).code() is Code.UNAVAILABLE


# Keepalive: peers that are there and say nothing.

KEEPALIVE = (("grpc.keepalive_time_ms", 50), ("grpc.keepalive_timeout_ms", 100))


async def test_a_frozen_server_is_noticed() -> None:
    async with scripted(*KEEPALIVE) as (server, channel):
        call = call_of(channel)
        connection = await server.connection()
        await connection.request()
        error = await failure(call)
        assert error.code() is Code.UNAVAILABLE
        assert "does not answer pings" in (error.details() or "")
        await connection.frame(frames.PING)
        await connection.gone()


async def test_a_slow_server_that_answers_pings_is_let_be() -> None:
    async with scripted(*KEEPALIVE) as (server, channel):
        call = call_of(channel)
        connection = await server.connection()
        await connection.request()
        for count in range(1, 4):

            def pings(read: Any, count: int = count) -> Any:
                found = [one for one in read if one.kind == frames.PING]
                return found if len(found) >= count else None

            connection.send(ping((await connection.until(pings))[-1].payload, ack=True))
        connection.send(answer(1))
        assert await call == b"answer"


async def test_a_channel_without_calls_pings_only_where_it_may() -> None:
    async with scripted(*KEEPALIVE, ("grpc.keepalive_permit_without_calls", 1)) as (server, channel):
        await channel.channel_ready()
        connection = await server.connection()
        await connection.frame(frames.PING)
        await connection.gone()
    async with scripted(*KEEPALIVE) as (server, channel):
        await channel.channel_ready()
        connection = await server.connection()
        await asyncio.wait({asyncio.create_task(connection.gone())}, timeout=0.3)
        assert not connection.lost.is_set()
        assert frames.PING not in [one.kind for one in connection.frames]


async def test_a_server_that_is_asked_too_often_is_asked_half_as_often() -> None:
    async with scripted(*KEEPALIVE) as (server, channel):
        await channel.channel_ready()
        connection = await server.connection()
        connection.send(goaway(0, ErrorCode.ENHANCE_YOUR_CALM, debug=b"too_many_pings"))
        await state(channel, State.IDLE)
        subchannel: Any = channel._core._balancer._only  # pyright: ignore
        assert subchannel._keepalive_s == pytest.approx(0.1)


async def test_an_idle_channel_hangs_up_and_comes_back() -> None:
    async with scripted(("grpc.client_idle_timeout_ms", 40)) as (server, channel):
        call = call_of(channel)
        first = await server.connection()
        first.send(answer(await first.request()))
        assert await call == b"answer"
        await first.gone()
        assert channel.get_state() is State.IDLE
        call = call_of(channel)
        second = await server.connection()
        second.send(answer(await second.request()))
        assert await call == b"answer"


async def test_hanging_up_says_goodbye() -> None:
    async with scripted() as (server, channel):
        await channel.channel_ready()
        connection = await server.connection()
        await channel.close()
        await connection.gone()
        assert [one.kind for one in connection.frames][-1] == frames.GOAWAY


async def test_a_server_that_does_not_read_holds_up_new_calls_not_memory() -> None:
    greeting = settings((frames.INITIAL_WINDOW_SIZE, frames.MAX_WINDOW)) + settings(ack=True)
    async with scripted(("mesh.max_waiting_calls", 2), greeting=greeting) as (server, channel):
        await channel.channel_ready()
        connection = await server.connection()
        connection.transport.pause_reading()
        connection.send(frames.window_update(0, 1 << 30))
        method = channel.unary_unary("/test/unary_unary")
        calls: list[Any] = []
        for _ in range(40):
            calls.append(method(bytes(1 << 20)))
            await asyncio.sleep(0.001)
            if calls[-1].done():
                break
        assert await calls[-1].code() is Code.RESOURCE_EXHAUSTED
        assert len(calls) < 30


# Targets.


@pytest.mark.parametrize("server_engine", list(SERVERS))
async def test_unix_sockets(server_engine: str, tmp_path: Path) -> None:
    server = SERVERS[server_engine](handlers=[Methods({"unary_unary": echo})])
    place = f"{tmp_path}/socket"
    server.add_insecure_port(f"unix:{place}")
    await server.start()
    for target in (f"unix:{place}", f"unix://{place}"):
        async with mesh.wire.insecure_channel(target) as channel:
            assert await channel.unary_unary("/test/unary_unary")(b"x") == b"x"
    await server.stop(None)


@WIRE_CLIENT
async def test_names_and_addresses(engines: str) -> None:
    async with service(engines.removeprefix("wire to "), unary_unary=echo) as place:
        port = place.rpartition(":")[2]
        for target in (
            f"localhost:{port}",
            f"dns:localhost:{port}",
            f"dns:///localhost:{port}",
            f"ipv4:127.0.0.1:{port}",
            f"ipv4:127.0.0.1:1,127.0.0.1:{port}",
        ):
            async with mesh.wire.insecure_channel(target) as channel:
                assert await channel.unary_unary("/test/unary_unary")(b"x", timeout=20) == b"x"


async def test_a_name_that_is_not_known_is_unavailable() -> None:
    for policy in ("pick_first", "round_robin"):
        options = [("grpc.lb_policy_name", policy), ("grpc.initial_reconnect_backoff_ms", 20)]
        async with mesh.wire.insecure_channel("nothing.invalid:1", options) as channel:
            error = await failure(call_of(channel))
            assert error.code() is Code.UNAVAILABLE
            assert "nothing.invalid" in (error.details() or "")


async def test_an_address_that_hangs_does_not_hold_up_the_next() -> None:
    silent = Scripted(b"")
    await silent.listen()
    async with scripted() as (server, _):
        target = f"ipv4:127.0.0.1:{silent.port},127.0.0.1:{server.port}"
        async with mesh.wire.insecure_channel(target) as channel:
            call = call_of(channel)
            connection = await server.connection()
            connection.send(answer(await connection.request()))
            assert await call == b"answer"
            await (await silent.connection()).gone()
    silent.deaf()


async def test_data_of_no_call_is_acknowledged() -> None:
    async with scripted() as (server, channel):
        call = channel.unary_stream("/test/unary_stream")(b"", timeout=20)
        connection = await server.connection()
        await connection.request()
        call.cancel()
        await connection.frame(frames.RST_STREAM, 1)
        connection.send(headers(1, RESPONSE), *[data(1, bytes(16_000))] * 1100)
        await connection.frame(frames.WINDOW_UPDATE, 0, 0)
        second = call_of(channel)
        await connection.request(2)
        connection.send(headers(3, RESPONSE), data(3, b"\0\0\0\0\0"), headers(3, OK, end=True))
        assert await second == b""


async def test_a_connection_whose_stream_numbers_are_used_up_makes_room_for_the_next() -> None:
    async with scripted() as (server, channel):
        await channel.channel_ready()
        old = await server.connection()
        core: Any = channel._core  # pyright: ignore[reportPrivateUsage]
        core._balancer._only.protocol.connection._state.next_id = frames.MAX_STREAM_ID - 2
        calls = [call_of(channel) for _ in range(4)]
        await old.request(2)
        assert old.requests() == [frames.MAX_STREAM_ID - 2, frames.MAX_STREAM_ID]
        new = await server.connection()
        await new.request(2)
        assert new.requests() == [1, 3]
        for connection in (new, old):
            connection.send(*[answer(stream_id) for stream_id in connection.requests()])
        assert [await call for call in calls] == [b"answer"] * 4
        await old.gone()


async def test_a_server_that_sends_much_need_not_answer_pings_at_once() -> None:
    async with scripted(*KEEPALIVE) as (server, channel):
        call = channel.unary_stream("/test/unary_stream")(b"", timeout=20)
        connection = await server.connection()
        await connection.request()
        connection.send(headers(1, RESPONSE))
        await connection.frame(frames.PING)
        for _ in range(20):
            connection.send(data(1, b"\0\0\0\0\0"))
            assert await call.read() == b""
            await asyncio.wait({asyncio.ensure_future(connection.lost.wait())}, timeout=0.02)
        assert not connection.lost.is_set()
        connection.send(headers(1, OK, end=True))
        assert await call.read() is grpc.aio.EOF


async def test_a_failure_stays_one_until_there_is_a_connection() -> None:
    async with scripted(("grpc.min_reconnect_backoff_ms", 5000), greeting=b"") as (server, channel):
        call = call_of(channel)
        (await server.connection()).hang_up()
        assert (await failure(call)).code() is Code.UNAVAILABLE
        later = await server.connection()  # tries again, and waits for the server to speak
        assert channel.get_state() is State.TRANSIENT_FAILURE
        assert (await failure(call_of(channel))).code() is Code.UNAVAILABLE
        later.send(SETTLED)
        await state(channel, State.READY)


async def test_whoever_waits_for_a_change_hears_of_a_name_that_is_not_known() -> None:
    options = [("grpc.lb_policy_name", "round_robin")]
    async with mesh.wire.insecure_channel("nothing.invalid:1", options) as channel:
        channel.get_state(try_to_connect=True)
        await state(channel, State.TRANSIENT_FAILURE)
