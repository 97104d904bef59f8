"""The surface of calls and their errors, as grpc.aio has it: every test holds of both clients against both servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from tests.unit.wire.client.handlers import Hanging, chat, count, echo, echo_once, join
from tests.unit.wire.client.pairs import ALL, Code, ending, pair

pytestmark = ALL


# The four cardinalities.


@pytest.mark.parametrize("size", [0, 1, 16_379, 70_000, 3 << 20])
async def test_a_message_of_any_size_comes_back(engines: str, size: int) -> None:
    message = (bytes(range(256)) * (size // 256 + 1))[:size]
    async with pair(engines, unary_unary=echo) as channel:
        assert await channel.unary_unary("/test/unary_unary")(message) == message


async def test_many_calls_at_once_get_each_its_own_answer(engines: str) -> None:
    async with pair(engines, unary_unary=echo) as channel:
        call = channel.unary_unary("/test/unary_unary")
        sent = [b"%d" % number for number in range(300)]
        assert await asyncio.gather(*[call(one) for one in sent]) == sent


async def test_responses_are_iterated(engines: str) -> None:
    async with pair(engines, unary_stream=count) as channel:
        call = channel.unary_stream("/test/unary_stream")(b"5")
        assert [one async for one in call] == [b"0", b"1", b"2", b"3", b"4"]
        assert await ending(call) == (Code.OK, "")
        assert [one async for one in call] == []


async def test_responses_are_read_until_the_end_which_stays(engines: str) -> None:
    async with pair(engines, unary_stream=count) as channel:
        call = channel.unary_stream("/test/unary_stream")(b"2")
        assert [await call.read() for _ in range(2)] == [b"0", b"1"]
        for _ in range(3):
            assert await call.read() is grpc.aio.EOF


@pytest.mark.parametrize("kind", ["iterator", "async iterator", "written"])
async def test_requests_come_out_of_an_iterator_or_are_written(engines: str, kind: str) -> None:
    pieces = [b"a", b"b" * 100_000, b"", b"c"]

    async def source() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    async with pair(engines, stream_unary=join) as channel:
        method = channel.stream_unary("/test/stream_unary")
        if kind == "written":
            call = method()
            for piece in pieces:
                await call.write(piece)
            await call.done_writing()
            await call.done_writing()
        else:
            call = method(iter(pieces) if kind == "iterator" else source())
        assert await call == b"".join(pieces)


async def test_no_requests_at_all(engines: str) -> None:
    async with pair(engines, stream_unary=join, stream_stream=chat) as channel:
        assert await channel.stream_unary("/test/stream_unary")(iter(())) == b""
        assert [one async for one in channel.stream_stream("/test/stream_stream")(iter(()))] == []


async def test_requests_and_responses_take_turns(engines: str) -> None:
    async with pair(engines, stream_stream=chat) as channel:
        call = channel.stream_stream("/test/stream_stream")()
        for number in range(20):
            await call.write(b"%d" % number)
            assert await call.read() == b"%d" % number
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
        assert await ending(call) == (Code.OK, "")


async def test_a_writer_is_held_up_by_a_server_that_does_not_read(engines: str) -> None:
    let_go = asyncio.Event()

    async def late(requests: AsyncIterator[bytes], context: Any) -> bytes:
        await let_go.wait()
        return b"%d" % sum([len(request) async for request in requests])

    async with pair(engines, stream_unary=late) as channel:
        call = channel.stream_unary("/test/stream_unary")()
        written = 0

        async def write() -> None:
            nonlocal written
            for _ in range(400):
                await call.write(bytes(100_000))
                written += 100_000
            await call.done_writing()

        writing = asyncio.create_task(write())
        before = -1
        while written != before:  # until a tenth of a second brings nothing more
            before = written
            await asyncio.wait({writing}, timeout=0.1)
        assert written < 30_000_000
        let_go.set()
        await writing
        assert await call == b"40000000"


async def test_generated_code_may_say_that_a_method_is_registered(engines: str) -> None:
    async with pair(engines, unary_unary=echo, unary_stream=count, stream_unary=join, stream_stream=chat) as channel:
        made: Any = channel
        assert await made.unary_unary("/test/unary_unary", _registered_method=True)(b"x") == b"x"
        assert [one async for one in made.unary_stream("/test/unary_stream", _registered_method=True)(b"1")] == [b"0"]
        assert await made.stream_unary("/test/stream_unary", _registered_method=True)(iter([b"x"])) == b"x"
        chatted = made.stream_stream("/test/stream_stream", _registered_method=True)(iter([b"x"]))
        assert [one async for one in chatted] == [b"x"]


# Statuses and metadata.


@pytest.mark.parametrize("code", [code for code in Code if code is not Code.OK])
async def test_every_status_is_raised_with_its_details_and_metadata(engines: str, code: grpc.StatusCode) -> None:
    async def refuse(request: bytes, context: Any) -> bytes:
        await context.abort(code, "cafés, 100 % of them\n", (("why", "so"), ("what-bin", b"\x00\xff")))
        return b""

    async with pair(engines, unary_unary=refuse) as channel:
        call = channel.unary_unary("/test/unary_unary")(b"")
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call
        error = raised.value
        assert (error.code(), error.details()) == (code, "cafés, 100 % of them\n")
        assert tuple(error.trailing_metadata()) == (("why", "so"), ("what-bin", b"\x00\xff"))
        assert tuple(error.initial_metadata()) == ()
        assert code.name in (error.debug_error_string() or "")
        assert await ending(call) == (code, "cafés, 100 % of them\n")
        assert call.done()
        assert call.cancelled() == (code is Code.CANCELLED)


async def test_a_stream_gives_its_responses_before_its_error(engines: str) -> None:
    async def some(request: bytes, context: Any) -> AsyncIterator[bytes]:
        yield b"one"
        yield b"two"
        await context.abort(Code.DATA_LOSS, "no more")

    async with pair(engines, unary_stream=some) as channel:
        method = channel.unary_stream("/test/unary_stream")
        seen: list[Any] = []
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            seen += [one async for one in method(b"")]
        assert raised.value.code() is Code.DATA_LOSS
        call = method(b"")
        assert [await call.read(), await call.read()] == [b"one", b"two"]
        with pytest.raises(grpc.aio.AioRpcError):
            await call.read()


async def test_metadata_goes_both_ways(engines: str) -> None:
    async def tell(request: bytes, context: Any) -> bytes:
        sent = [tuple(pair) for pair in context.invocation_metadata() if pair[0].startswith("x-")]
        await context.send_initial_metadata((("x-first", "1"), ("x-bin", bytes(range(256)))))
        context.set_trailing_metadata((("x-last", "2"), ("x-last", "3"), ("x-bin", b"")))
        return repr(sorted(sent)).encode()

    async with pair(engines, unary_unary=tell) as channel:
        given = (("x-a", "one, two"), ("x-a", "three"), ("x-b-bin", b"\x00\x01\xff"), ("x-empty", ""))
        for metadata in (given, grpc.aio.Metadata(*given), list(given)):
            call = channel.unary_unary("/test/unary_unary")(b"", metadata=metadata)
            assert await call == repr(sorted(given)).encode()
            assert tuple(await call.initial_metadata()) == (("x-first", "1"), ("x-bin", bytes(range(256))))
            assert tuple(await call.trailing_metadata()) == (("x-last", "2"), ("x-last", "3"), ("x-bin", b""))
            assert isinstance(await call.initial_metadata(), grpc.aio.Metadata)


@pytest.mark.parametrize("key", ["te", "content-type", "content-length", "user-agent", "grpc-timeout"])
async def test_keys_of_the_protocol_are_left_out(engines: str, key: str) -> None:
    async def tell(request: bytes, context: Any) -> bytes:
        sent = [tuple(pair) for pair in context.invocation_metadata()]
        return repr([pair for pair in sent if pair[1] in ("mine", "x")]).encode()

    async with pair(engines, unary_unary=tell) as channel:
        method = channel.unary_unary("/test/unary_unary")
        assert await method(b"", metadata=((key, "mine"), ("other", "x"))) == repr([("other", "x")]).encode()


async def test_a_method_that_is_not_there(engines: str) -> None:
    async with pair(engines) as channel:
        call = channel.unary_unary("/test/nothing")(b"")
        with pytest.raises(grpc.aio.AioRpcError):
            await call
        assert await call.code() is Code.UNIMPLEMENTED


# Deadlines.


async def test_a_deadline_ends_the_call_here_and_there(engines: str) -> None:
    hanging = Hanging()
    async with pair(engines, unary_unary=hanging.unary) as channel:
        call = channel.unary_unary("/test/unary_unary")(b"", timeout=0.3)
        left = call.time_remaining()
        assert left is not None
        assert 0 < left <= 0.3
        with pytest.raises(grpc.aio.AioRpcError):
            await call
        assert await ending(call) == (Code.DEADLINE_EXCEEDED, "Deadline Exceeded")
        async with asyncio.timeout(10):
            await hanging.ended.wait()


async def test_the_server_is_told_of_the_deadline(engines: str) -> None:
    async def left(request: bytes, context: Any) -> bytes:
        remaining = context.time_remaining()
        return b"" if remaining is None else b"%d" % round(remaining)

    async with pair(engines, unary_unary=left) as channel:
        method = channel.unary_unary("/test/unary_unary")
        assert await method(b"", timeout=60) == b"60"
        assert method(b"").time_remaining() is None


async def test_a_deadline_ends_a_stream(engines: str) -> None:
    async with pair(engines, unary_stream=Hanging().stream) as channel:
        call = channel.unary_stream("/test/unary_stream")(b"", timeout=0.3)
        assert await call.read() == b"one"
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call.read()
        assert raised.value.code() is Code.DEADLINE_EXCEEDED


# Cancelling.


async def test_a_call_that_is_cancelled_ends_here_and_there(engines: str) -> None:
    hanging = Hanging()
    async with pair(engines, unary_unary=hanging.unary) as channel:
        call = channel.unary_unary("/test/unary_unary")(b"")
        await hanging.began.wait()
        assert not call.cancelled()
        assert call.cancel()
        assert not call.cancel()
        assert call.cancelled()
        assert call.done()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert await ending(call) == (Code.CANCELLED, "Locally cancelled by application!")
        async with asyncio.timeout(10):
            await hanging.ended.wait()


async def test_whoever_awaits_a_call_cancels_it_when_cancelled(engines: str) -> None:
    hanging = Hanging()
    async with pair(engines, unary_unary=hanging.unary) as channel:
        call = channel.unary_unary("/test/unary_unary")(b"")

        async def ask() -> Any:
            return await call

        asking = asyncio.create_task(ask())
        await hanging.began.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert call.cancelled()
        async with asyncio.timeout(10):
            await hanging.ended.wait()


async def test_whoever_asks_for_the_code_only_does_not(engines: str) -> None:
    hanging = Hanging()
    async with pair(engines, unary_unary=hanging.unary) as channel:
        call = channel.unary_unary("/test/unary_unary")(b"")
        asking = asyncio.create_task(call.code())
        await hanging.began.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert not call.done()
        call.cancel()


async def test_a_stream_is_cancelled_between_two_responses(engines: str) -> None:
    hanging = Hanging()
    async with pair(engines, unary_stream=hanging.stream) as channel:
        call = channel.unary_stream("/test/unary_stream")(b"")
        assert await call.read() == b"one"
        assert call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call.read()
        async with asyncio.timeout(10):
            await hanging.ended.wait()


async def test_a_source_of_requests_that_fails_cancels_the_call(engines: str) -> None:
    async def source() -> AsyncIterator[bytes]:
        yield b"one"
        raise ValueError("no more")

    async with pair(engines, stream_unary=join) as channel:
        call = channel.stream_unary("/test/stream_unary")(source())
        with pytest.raises(asyncio.CancelledError):
            await call
        assert await call.code() is Code.CANCELLED


async def test_requests_that_come_from_a_call_that_fails_cancel_the_call(engines: str) -> None:
    async def refuse(request: bytes, context: Any) -> AsyncIterator[bytes]:
        yield b"one"
        await context.abort(Code.ABORTED, "no more")

    async with pair(engines, unary_stream=refuse, stream_unary=join) as channel:
        source = channel.unary_stream("/test/unary_stream")(b"")
        call = channel.stream_unary("/test/stream_unary")(aiter(source))
        with pytest.raises(asyncio.CancelledError):
            await call


async def test_cancelling_what_is_over_changes_nothing(engines: str) -> None:
    async with pair(engines, unary_unary=echo) as channel:
        call = channel.unary_unary("/test/unary_unary")(b"x")
        assert await call == b"x"
        assert not call.cancel()
        assert not call.cancelled()
        assert await call == b"x"


# What may not be done, and callbacks.


async def test_iterating_and_reading_do_not_mix(engines: str) -> None:
    async with pair(engines, stream_stream=chat) as channel:
        call = channel.stream_stream("/test/stream_stream")()
        await call.write(b"x")
        assert await call.read() == b"x"
        with pytest.raises(grpc.aio.UsageError):
            call.__aiter__()
        with pytest.raises(grpc.aio.UsageError):
            await channel.stream_stream("/test/stream_stream")(iter([b"x"])).write(b"y")


async def test_writing_after_the_end(engines: str) -> None:
    async with pair(engines, stream_stream=chat) as channel:
        call = channel.stream_stream("/test/stream_stream")()
        await call.done_writing()
        with pytest.raises(asyncio.InvalidStateError):
            await call.write(b"x")
        assert await call.read() is grpc.aio.EOF
        with pytest.raises(asyncio.InvalidStateError):
            await call.write(b"x")
        await call.done_writing()


async def test_a_server_that_answers_early_ends_the_requests(engines: str) -> None:
    async def early(requests: AsyncIterator[bytes], context: Any) -> bytes:
        return b"enough"

    async with pair(engines, stream_unary=early) as channel:
        call = channel.stream_unary("/test/stream_unary")()
        assert await call == b"enough"
        with pytest.raises(asyncio.InvalidStateError):
            await call.write(b"x")


async def test_callbacks_are_told_of_the_end_once(engines: str) -> None:
    async with pair(engines, unary_unary=echo, unary_stream=count) as channel:
        told: list[Any] = []
        call = channel.unary_unary("/test/unary_unary")(b"x")
        call.add_done_callback(told.append)
        await call
        assert told == [call]
        call.add_done_callback(told.append)
        assert told == [call, call]
        stream = channel.unary_stream("/test/unary_stream")(b"1")
        stream.add_done_callback(told.append)
        assert [one async for one in stream] == [b"0"]
        assert await stream.code() is Code.OK
        assert told == [call, call, stream]


async def test_waiting_for_the_connection(engines: str) -> None:
    async with pair(engines, unary_unary=echo, unary_stream=count, stream_stream=chat) as channel:
        for call in (
            channel.unary_unary("/test/unary_unary")(b"x"),
            channel.unary_stream("/test/unary_stream")(b"1"),
            channel.stream_stream("/test/stream_stream")(iter([b"x"])),
        ):
            await call.wait_for_connection()


# Serializers.


def spoilt(_: Any) -> Any:
    raise ValueError("cannot be told")


async def test_a_response_that_cannot_be_read_is_none(engines: str) -> None:
    async with pair(engines, unary_unary=echo, unary_stream=count) as channel:
        call = channel.unary_unary("/test/unary_unary", None, spoilt)(b"x")
        assert await call is None
        assert await call.code() is Code.OK
        assert [one async for one in channel.unary_stream("/test/unary_stream", None, spoilt)(b"2")] == [None, None]


async def test_a_request_that_cannot_be_written_is_empty(engines: str) -> None:
    async with pair(engines, unary_unary=echo, stream_unary=join) as channel:
        assert await channel.unary_unary("/test/unary_unary", spoilt)(b"x") == b""
        assert await channel.stream_unary("/test/stream_unary", spoilt)(iter([b"x"])) == b""


async def test_serializers_are_used(engines: str) -> None:
    async with pair(engines, unary_unary=echo) as channel:
        method = channel.unary_unary("/test/unary_unary", str.encode, bytes.decode)
        assert await method("grüße") == "grüße"


# Compression and bounds.


@pytest.mark.parametrize("of", ["channel", "call"])
async def test_requests_are_compressed(engines: str, of: str) -> None:
    seen: list[Any] = []

    async def note(request: bytes, context: Any) -> bytes:
        seen.extend(dict(context.invocation_metadata()).items())
        context.set_compression(grpc.Compression.Gzip)
        return request * 2

    gzip: dict[str, Any] = {"compression": grpc.Compression.Gzip}
    async with pair(engines, channel=gzip if of == "channel" else {}, unary_unary=note) as channel:
        message = b"again and " * 10_000
        method = channel.unary_unary("/test/unary_unary")
        assert await method(message, **(gzip if of == "call" else {})) == message * 2


async def test_a_response_longer_than_is_taken(engines: str) -> None:
    options = {"options": [("grpc.max_receive_message_length", 1000)]}
    async with pair(engines, channel=options, unary_unary=echo, unary_stream=echo_once) as channel:
        method = channel.unary_unary("/test/unary_unary")
        assert len(await method(bytes(1000))) == 1000
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await method(bytes(1001))
        assert raised.value.code() is Code.RESOURCE_EXHAUSTED
        assert "(1001 vs. 1000)" in (raised.value.details() or "")
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await channel.unary_stream("/test/unary_stream")(bytes(1001)).read()
        assert raised.value.code() is Code.RESOURCE_EXHAUSTED


async def test_a_request_longer_than_may_be_sent(engines: str) -> None:
    options = {"options": [("grpc.max_send_message_length", 1000)]}
    async with pair(engines, channel=options, unary_unary=echo, stream_unary=join) as channel:
        method = channel.unary_unary("/test/unary_unary")
        assert len(await method(bytes(1000))) == 1000
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await method(bytes(1001))
        assert raised.value.code() is Code.RESOURCE_EXHAUSTED
        assert "(1001 vs. 1000)" in (raised.value.details() or "")
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await channel.stream_unary("/test/stream_unary")(iter([bytes(1001)]))
        assert raised.value.code() is Code.RESOURCE_EXHAUSTED
