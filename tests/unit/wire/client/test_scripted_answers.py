"""What a client makes of a server's frames, right and wrong ones: statuses, resets, and answers that are none."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from mesh.wire import frames
from mesh.wire.channel import WireChannel
from mesh.wire.decoding import Decoder
from mesh.wire.faults import ErrorCode
from mesh.wire.messages import encode_message
from tests.unit.wire.client.pairs import Code
from tests.unit.wire.client.scripted import OK, answer, scripted, trailers_only
from tests.unit.wire.core.given import RESPONSE, data, headers, reset, settings, window_update

HTML = ((b":status", b"200"), (b"content-type", b"text/html"))


def call_of(channel: WireChannel, message: bytes = b"question") -> Any:
    return channel.unary_unary("/test/unary_unary")(message, timeout=20)


async def failure(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return raised.value


async def test_what_a_request_looks_like() -> None:
    async with scripted(("grpc.primary_user_agent", "mine"), ("grpc.default_authority", "elsewhere")) as (
        server,
        channel,
    ):
        call = channel.unary_unary("/test/unary_unary")(
            b"question", metadata=(("key", "value"), ("bytes-bin", b"\xff"))
        )
        connection = await server.connection()
        stream_id = await connection.request()
        assert stream_id == 1
        head = await connection.frame(frames.HEADERS, 1)
        assert Decoder(65_536).decode(head.payload) == (
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", b"/test/unary_unary"),
            (b":authority", b"elsewhere"),
            (b"te", b"trailers"),
            (b"content-type", b"application/grpc"),
            (b"user-agent", b"mine mesh-wire"),
            (b"grpc-accept-encoding", b"identity, deflate, gzip"),
            (b"key", b"value"),
            (b"bytes-bin", b"/w"),
        )
        assert (await connection.frame(frames.DATA, 1)).payload == encode_message(b"question")
        connection.send(answer(1))
        assert await call == b"answer"


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, Code.INTERNAL),
        (401, Code.UNAUTHENTICATED),
        (403, Code.PERMISSION_DENIED),
        (404, Code.UNIMPLEMENTED),
        (429, Code.UNAVAILABLE),
        (502, Code.UNAVAILABLE),
        (503, Code.UNAVAILABLE),
        (504, Code.UNAVAILABLE),
        (418, Code.UNKNOWN),
    ],
)
@pytest.mark.parametrize("with_body", [False, True])
async def test_a_proxy_answers(status: int, code: grpc.StatusCode, with_body: bool) -> None:
    async with scripted() as (server, channel):
        call = call_of(channel)
        connection = await server.connection()
        stream_id = await connection.request()
        head = ((b":status", b"%d" % status), (b"content-type", b"text/html"))
        body = data(stream_id, b"<html>", end=True) if with_body else b""
        connection.send(headers(stream_id, head, end=not with_body), body)
        error = await failure(call)
        assert error.code() is code
        assert str(status) in (error.details() or "")
        connection.send(answer(await answered_next(connection, channel)))


async def answered_next(connection: Any, channel: WireChannel) -> int:
    """The connection still serves: a new call's stream."""
    before = len(connection.requests())
    call = call_of(channel)
    stream_id = await connection.request(before + 1)
    connection.send(answer(stream_id))
    assert await call == b"answer"
    return stream_id


ANSWERS = {
    "not gRPC": (headers(1, HTML) + data(1, b"<html>", end=True), Code.UNKNOWN, "text/html"),
    "no status": (headers(1, RESPONSE) + data(1, encode_message(b""), end=True), Code.UNKNOWN, "without a status"),
    "no response": (headers(1, RESPONSE) + headers(1, OK, end=True), Code.UNIMPLEMENTED, "no response"),
    "an OK that is all": (trailers_only(1, 0), Code.UNIMPLEMENTED, "no response"),
    "two responses": (
        headers(1, RESPONSE) + data(1, encode_message(b"a") + encode_message(b"b")) + headers(1, OK, end=True),
        Code.UNIMPLEMENTED,
        "more responses",
    ),
    "two responses in two frames": (
        headers(1, RESPONSE) + data(1, encode_message(b"a")) + data(1, encode_message(b"b")) + headers(1, OK, end=True),
        Code.UNIMPLEMENTED,
        "more responses",
    ),
    "a response that is cut off": (
        headers(1, RESPONSE) + data(1, encode_message(b"long")[:-1]) + headers(1, OK, end=True),
        Code.INTERNAL,
        "cut off",
    ),
    "a status that is no number": (
        headers(1, (*RESPONSE, (b"grpc-status", b"x")), end=True),
        Code.UNKNOWN,
        "",
    ),
    "a status that is not known": (trailers_only(1, 99), Code.UNKNOWN, ""),
    "an unknown encoding": (
        headers(1, (*RESPONSE, (b"grpc-encoding", b"br"))) + data(1, encode_message(b"")),
        Code.INTERNAL,
        "'br'",
    ),
    "compressed without a word": (
        headers(1, RESPONSE) + data(1, encode_message(b"x", compress=True)),
        Code.INTERNAL,
        "no compression was announced",
    ),
    "nothing compressed": (
        headers(1, (*RESPONSE, (b"grpc-encoding", b"gzip"))) + data(1, b"\x01\0\0\0\x03abc"),
        Code.INTERNAL,
        "cannot be decompressed",
    ),
    "a wrong pseudo-header": (headers(1, ((b":path", b"/"), *RESPONSE)), Code.INTERNAL, "8.3"),
    "data before the head": (data(1, encode_message(b"")), Code.INTERNAL, "8.1"),
    "too much metadata": (
        headers(1, (*RESPONSE, *[(b"key%d" % one, bytes(500).replace(b"\0", b"x")) for one in range(40)])),
        Code.RESOURCE_EXHAUSTED,
        "metadata",
    ),
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_an_answer_that_is_none_ends_the_call_and_no_other(name: str) -> None:
    said, code, text = ANSWERS[name]
    async with scripted() as (server, channel):
        call = call_of(channel)
        connection = await server.connection()
        await connection.request()
        connection.send(said)
        error = await failure(call)
        assert error.code() is code
        assert text in (error.details() or "")
        await answered_next(connection, channel)


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (ErrorCode.NO_ERROR, Code.INTERNAL),
        (ErrorCode.PROTOCOL_ERROR, Code.INTERNAL),
        (ErrorCode.INTERNAL_ERROR, Code.INTERNAL),
        (ErrorCode.FLOW_CONTROL_ERROR, Code.INTERNAL),
        (ErrorCode.CANCEL, Code.CANCELLED),
        (ErrorCode.ENHANCE_YOUR_CALM, Code.RESOURCE_EXHAUSTED),
        (ErrorCode.INADEQUATE_SECURITY, Code.PERMISSION_DENIED),
        (0xBEEF, Code.INTERNAL),
    ],
)
async def test_a_stream_that_is_reset(code: int, status: grpc.StatusCode) -> None:
    async with scripted() as (server, channel):
        call = call_of(channel)
        connection = await server.connection()
        connection.send(headers(await connection.request(), RESPONSE), reset(1, code))
        assert (await failure(call)).code() is status
        await answered_next(connection, channel)


async def test_trailers_before_the_requests_are_over_end_the_stream() -> None:
    async with scripted() as (server, channel):
        call = channel.stream_unary("/test/stream_unary")()
        await call.write(b"one")
        connection = await server.connection()
        await connection.frame(frames.DATA, 1)
        connection.send(answer(1))
        assert await call == b"answer"
        assert (await connection.frame(frames.RST_STREAM, 1)).code == ErrorCode.CANCEL
        await answered_next(connection, channel)


async def test_a_cancelled_call_resets_its_stream_and_late_frames_are_ignored() -> None:
    async with scripted() as (server, channel):
        call = call_of(channel)
        connection = await server.connection()
        await connection.request()
        call.cancel()
        assert (await connection.frame(frames.RST_STREAM, 1)).code == ErrorCode.CANCEL
        connection.send(answer(1))
        await answered_next(connection, channel)


async def test_a_call_that_is_cancelled_while_it_waits_is_never_sent() -> None:
    async with scripted(greeting=b"") as (server, channel):
        cancelled, other = call_of(channel, b"cancelled"), call_of(channel, b"other")
        connection = await server.connection()
        cancelled.cancel()
        connection.send(settings(), settings(ack=True))
        stream_id = await connection.request()
        assert (await connection.frame(frames.DATA, stream_id)).payload == encode_message(b"other")
        connection.send(answer(stream_id))
        assert await other == b"answer"
        assert len(connection.requests()) == 1


async def test_no_more_streams_than_the_server_takes() -> None:
    greeting = settings((frames.MAX_CONCURRENT_STREAMS, 2)) + settings(ack=True)
    async with scripted(("mesh.max_waiting_calls", 3), greeting=greeting) as (server, channel):
        await channel.channel_ready()
        calls = [call_of(channel, b"%d" % number) for number in range(6)]
        error = await failure(calls[5])
        assert error.code() is Code.RESOURCE_EXHAUSTED
        assert "3 calls wait" in (error.details() or "")
        connection = await server.connection()
        answers: list[Any] = []
        for number in range(5):
            stream_id = await connection.request(number + 1)
            assert len(connection.requests()) <= number + 2
            connection.send(answer(stream_id, b"%d" % number))
            answers.append(await calls[number])
        assert answers == [b"0", b"1", b"2", b"3", b"4"]


async def test_the_server_may_take_more_streams_later() -> None:
    greeting = settings((frames.MAX_CONCURRENT_STREAMS, 0)) + settings(ack=True)
    async with scripted(greeting=greeting) as (server, channel):
        call = call_of(channel)
        connection = await server.connection()
        await connection.frame(frames.SETTINGS, flags=frames.ACK)
        assert connection.requests() == []
        connection.send(settings((frames.MAX_CONCURRENT_STREAMS, 1)))
        connection.send(answer(await connection.request()))
        assert await call == b"answer"


async def test_a_long_request_keeps_to_the_windows() -> None:
    async with scripted(greeting=settings((frames.INITIAL_WINDOW_SIZE, 10)) + settings(ack=True)) as (server, channel):
        call = call_of(channel, bytes(100))
        connection = await server.connection()
        sent = await connection.frame(frames.DATA, 1)
        assert len(sent.payload) == 10
        connection.send(window_update(1, 95))
        connection.send(answer(await connection.request()))
        assert await call == b"answer"
        assert sum(len(one.payload) for one in connection.frames if one.kind == frames.DATA) == 105


async def test_responses_that_nobody_reads_are_not_let_in_without_end() -> None:
    async with scripted() as (server, channel):
        call = channel.unary_stream("/test/unary_stream")(b"")
        connection = await server.connection()
        await connection.request()
        piece = data(1, encode_message(bytes(16_000)))
        connection.send(headers(1, RESPONSE), *[piece] * 250)
        assert await call.read() == bytes(16_000)
        granted = [one for one in connection.frames if one.kind == frames.WINDOW_UPDATE and one.stream_id == 1]
        assert granted == []
        for _ in range(249):
            assert await call.read() == bytes(16_000)
        await connection.frame(frames.WINDOW_UPDATE, 1)
        connection.send(headers(1, OK, end=True))
        assert await call.read() is grpc.aio.EOF


async def test_an_answer_may_come_byte_by_byte() -> None:
    async with scripted() as (server, channel):
        call = call_of(channel)
        connection = await server.connection()
        for byte in answer(await connection.request(), b"x" * 20):
            connection.send(bytes((byte,)))
            await asyncio.sleep(0)
        assert await call == b"x" * 20


async def test_interim_responses_are_passed_over() -> None:
    async with scripted() as (server, channel):
        call = call_of(channel)
        connection = await server.connection()
        connection.send(headers(await connection.request(), ((b":status", b"103"),)), answer(1))
        assert await call == b"answer"


async def test_a_broken_connection_ends_every_call_and_the_next_gets_a_new_one() -> None:
    async with scripted() as (server, channel):
        calls = [call_of(channel) for _ in range(3)]
        connection = await server.connection()
        await connection.request(3)
        connection.send(headers(1, RESPONSE), headers(3, RESPONSE), headers(5, RESPONSE), b"\xff" * 50)
        for call in calls:
            error = await failure(call)
            assert error.code() is Code.UNAVAILABLE
            assert "HTTP/2" in (error.details() or "")
        await connection.gone()
        call = call_of(channel)
        again = await server.connection()
        again.send(answer(await again.request()))
        assert await call == b"answer"
