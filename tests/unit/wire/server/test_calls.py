"""Calls of grpcio's client, to our server and to grpcio's: the four cardinalities, and all that a context offers."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from tests.unit.wire.server.engines import BOTH, up

pytestmark = BOTH
Code = grpc.StatusCode


async def echo(request: bytes, context: Any) -> bytes:
    return request


async def chat(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
    async for request in requests:
        yield request


async def join(requests: AsyncIterator[bytes], context: Any) -> bytes:
    return b"".join([request async for request in requests])


async def count(request: bytes, context: Any) -> AsyncIterator[bytes]:
    for number in range(int(request)):
        yield b"%d" % number


async def ending(call: Any) -> tuple[grpc.StatusCode, str]:
    """How a call ends."""
    with contextlib.suppress(grpc.aio.AioRpcError):
        if isinstance(call, grpc.aio.UnaryUnaryCall | grpc.aio.StreamUnaryCall):
            await call
        else:
            async for _ in call:
                pass
    return await call.code(), await call.details()


# Messages and cardinalities.


@pytest.mark.parametrize("size", [0, 1, 100, 16_379, 16_380, 65_531, 70_000, 3 << 20])
async def test_a_message_of_any_size_comes_back(engine: str, size: int) -> None:
    message = bytes(index & 0xFF for index in range(256)) * (size // 256 + 1)
    async with up(engine, unary_unary=echo) as channel:
        assert await channel.unary_unary("/test/unary_unary")(message[:size]) == message[:size]


async def test_a_large_message_comes_back_where_both_sides_take_it(engine: str) -> None:
    message = bytes(20 << 20)
    async with up(engine, {"options": [("grpc.max_receive_message_length", -1)]}, unary_unary=echo) as channel:
        assert await channel.unary_unary("/test/unary_unary")(message) == message


async def test_many_calls_at_once(engine: str) -> None:
    async with up(engine, unary_unary=echo) as channel:
        ask = channel.unary_unary("/test/unary_unary")
        assert await asyncio.gather(*[ask(b"%d" % index) for index in range(300)]) == [
            b"%d" % index for index in range(300)
        ]


@pytest.mark.parametrize("many", [0, 1, 5, 200])
async def test_streams_of_answers(engine: str, many: int) -> None:
    async with up(engine, unary_stream=count) as channel:
        call = channel.unary_stream("/test/unary_stream")(b"%d" % many)
        assert [one async for one in call] == [b"%d" % number for number in range(many)]
        assert await call.code() is Code.OK


@pytest.mark.parametrize("many", [0, 1, 5, 200])
async def test_streams_of_requests(engine: str, many: int) -> None:
    async with up(engine, stream_unary=join, stream_stream=chat) as channel:
        sent = [b"%d," % number for number in range(many)]
        assert await channel.stream_unary("/test/stream_unary")(iter(sent)) == b"".join(sent)
        assert [one async for one in channel.stream_stream("/test/stream_stream")(iter(sent))] == sent


async def test_a_conversation_goes_to_and_fro(engine: str) -> None:
    async with up(engine, stream_stream=chat) as channel:
        call = channel.stream_stream("/test/stream_stream")()
        for number in range(20):
            await call.write(b"%d" % number)
            assert await call.read() == b"%d" % number
        await call.done_writing()
        assert await call.read() == grpc.aio.EOF
        assert await call.code() is Code.OK


async def test_large_streams_both_ways(engine: str) -> None:
    sent = [bytes((number,)) * (number * 10_000) for number in range(100)]
    async with up(engine, stream_stream=chat) as channel:
        assert [one async for one in channel.stream_stream("/test/stream_stream")(iter(sent))] == sent


async def test_handlers_that_read_and_write_by_themselves(engine: str) -> None:
    async def half(requests: Any, context: Any) -> None:
        while (request := await context.read()) != grpc.aio.EOF:
            await context.write(request[: len(request) // 2])

    async def none(requests: Any, context: Any) -> bytes:
        return await context.read()

    async def three(request: bytes, context: Any) -> None:
        for _ in range(3):
            await context.write(request)

    async with up(engine, stream_stream=half, stream_unary=none, unary_stream=three) as channel:
        assert [one async for one in channel.stream_stream("/test/stream_stream")(iter([b"1234", b"56"]))] == [
            b"12",
            b"5",
        ]
        assert await channel.stream_unary("/test/stream_unary")(iter([b"first", b"second"])) == b"first"
        assert [one async for one in channel.unary_stream("/test/unary_stream")(b"x")] == [b"x"] * 3


async def test_an_answer_may_come_before_the_requests_are_over(engine: str) -> None:
    async def early(requests: Any, context: Any) -> bytes:
        return b"early"

    async def early_stream(requests: Any, context: Any) -> AsyncIterator[bytes]:
        yield b"early"

    async with up(engine, stream_unary=early, stream_stream=early_stream) as channel:
        assert await channel.stream_unary("/test/stream_unary")() == b"early"
        call = channel.stream_stream("/test/stream_stream")()
        assert [one async for one in call] == [b"early"]
        assert await call.code() is Code.OK


# Statuses.


@pytest.mark.parametrize("code", [code for code in Code if code is not Code.OK], ids=lambda code: code.name)
@pytest.mark.parametrize("kind", ["unary_unary", "stream_stream"])
async def test_abort_ends_with_code_details_and_metadata(engine: str, kind: str, code: grpc.StatusCode) -> None:
    async def abort(request: Any, context: Any) -> Any:
        await context.abort(code, "weil ä % \n", (("why", "x"), ("raw-bin", b"\0\xff")))

    async with up(engine, None, **{kind: abort}) as channel:
        call = (
            channel.unary_unary("/test/unary_unary")(b"")
            if kind == "unary_unary"
            else channel.stream_stream("/test/stream_stream")()
        )
        assert await ending(call) == (code, "weil ä % \n")
        trailing = tuple((key, value) for key, value in await call.trailing_metadata())
        assert trailing == (("why", "x"), ("raw-bin", b"\0\xff"))


async def test_abort_after_an_answer(engine: str) -> None:
    async def abort(request: Any, context: Any) -> AsyncIterator[bytes]:
        yield b"one"
        await context.abort(Code.ABORTED, "no more")

    async with up(engine, unary_stream=abort) as channel:
        call = channel.unary_stream("/test/unary_stream")(b"")
        assert await call.read() == b"one"
        assert (await call.code(), await call.details()) == (Code.ABORTED, "no more")


async def test_a_code_that_was_set_ends_the_call(engine: str) -> None:
    seen: list[Any] = []

    async def set_code(request: bytes, context: Any) -> bytes:
        context.set_code(Code.ALREADY_EXISTS)
        context.set_details("there")
        context.set_trailing_metadata((("a", "b"),))
        seen.append((context.code(), context.details(), tuple(context.trailing_metadata())))
        return b"ignored"

    async with up(engine, unary_unary=set_code) as channel:
        call = channel.unary_unary("/test/unary_unary")(b"")
        assert await ending(call) == (Code.ALREADY_EXISTS, "there")
        assert tuple(await call.trailing_metadata()) == (("a", "b"),)
    # grpcio keeps the number of the code here, we its name.
    code = seen[0][0]
    assert (code.value[0] if isinstance(code, grpc.StatusCode) else code) == Code.ALREADY_EXISTS.value[0]
    assert seen[0][1:] == ("there", (("a", "b"),))


async def test_details_that_were_set_make_no_error(engine: str) -> None:
    async def set_details(request: bytes, context: Any) -> bytes:
        context.set_details("all is well")
        return b"answer"

    async with up(engine, unary_unary=set_details) as channel:
        call = channel.unary_unary("/test/unary_unary")(b"")
        assert await call == b"answer"
        assert await call.code() is Code.OK


async def test_abort_with_ok_is_no_success(engine: str) -> None:
    if engine == "grpcio":
        pytest.skip("its client waits for ever")

    async def abort(request: bytes, context: Any) -> bytes:
        await context.abort(Code.OK, "fine")
        return b""

    async with up(engine, unary_unary=abort) as channel:
        code, _ = await ending(channel.unary_unary("/test/unary_unary")(b""))
        assert code is Code.UNKNOWN


async def test_an_exception_is_unknown_and_a_code_that_was_set_holds(engine: str) -> None:
    async def fail(request: bytes, context: Any) -> bytes:
        raise ValueError("broken")

    async def fail_with_code(request: bytes, context: Any) -> bytes:
        context.set_code(Code.DATA_LOSS)
        context.set_details("lost")
        raise ValueError("broken")

    async with up(engine, unary_unary=fail, unary_unary_code=fail_with_code, unary_stream=fail) as channel:
        expected = (Code.UNKNOWN, "Unexpected <class 'ValueError'>: broken")
        assert await ending(channel.unary_unary("/test/unary_unary")(b"")) == expected
        assert await ending(channel.unary_unary("/test/unary_unary_code")(b"")) == (Code.DATA_LOSS, expected[1])
        code, _ = await ending(channel.unary_stream("/test/unary_stream")(b""))
        assert code is Code.UNKNOWN


async def test_a_method_that_is_not_there_is_unimplemented(engine: str) -> None:
    async with up(engine, unary_unary=echo) as channel:
        for call in (channel.unary_unary("/test/none")(b""), channel.stream_stream("/none/none")()):
            code, details = await ending(call)
            assert (code, details) == (Code.UNIMPLEMENTED, "Method not found!")


# Metadata.


async def test_metadata_goes_both_ways(engine: str) -> None:
    seen: list[Any] = []

    async def metadata(request: bytes, context: Any) -> bytes:
        seen.extend(context.invocation_metadata())
        await context.send_initial_metadata((("initial", "1"), ("initial", "2"), ("initial-bin", bytes(range(256)))))
        context.set_trailing_metadata((("trailing", "3"), ("trailing-bin", b"")))
        return b""

    async with up(engine, unary_unary=metadata) as channel:
        sent = (
            ("key", "value"),
            ("key", "again"),
            ("blob-bin", bytes(range(256))),
            ("empty", ""),
            ("spaces", "a b  c"),
        )
        call = channel.unary_unary("/test/unary_unary")(b"", metadata=sent)
        await call
        initial = [(key, value) for key, value in await call.initial_metadata() if key.startswith("initial")]
        assert initial == [("initial", "1"), ("initial", "2"), ("initial-bin", bytes(range(256)))]
        assert tuple(await call.trailing_metadata()) == (("trailing", "3"), ("trailing-bin", b""))
    found = [(key, value) for key, value in seen if key in dict(sent)]
    assert found == list(sent)
    assert "user-agent" in dict(seen)
    assert not [key for key, _ in seen if key.startswith(("grpc-", ":")) or key in ("te", "content-type")]


async def test_initial_metadata_comes_before_any_answer(engine: str) -> None:
    go_on = asyncio.Event()

    async def head_first(request: bytes, context: Any) -> AsyncIterator[bytes]:
        await context.send_initial_metadata((("early", "yes"),))
        await go_on.wait()
        yield b"late"

    async with up(engine, unary_stream=head_first) as channel:
        call = channel.unary_stream("/test/unary_stream")(b"")
        assert ("early", "yes") in tuple(await call.initial_metadata())
        go_on.set()
        assert [one async for one in call] == [b"late"]


async def test_initial_metadata_is_sent_once(engine: str) -> None:
    raised: list[BaseException] = []

    async def twice(request: bytes, context: Any) -> bytes:
        await context.send_initial_metadata((("a", "1"),))
        try:
            await context.send_initial_metadata((("a", "2"),))
        except BaseException as error:
            raised.append(error)
        return b""

    async with up(engine, unary_unary=twice) as channel:
        await channel.unary_unary("/test/unary_unary")(b"")
    assert len(raised) == 1


# Compression and sizes.


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
async def test_requests_may_be_compressed(engine: str, compression: grpc.Compression) -> None:
    async with up(engine, unary_unary=echo, stream_stream=chat) as channel:
        message = b"again and again " * 1000
        assert await channel.unary_unary("/test/unary_unary")(message, compression=compression) == message
        call = channel.stream_stream("/test/stream_stream")(iter([message] * 3), compression=compression)
        assert [one async for one in call] == [message] * 3


async def test_answers_may_be_compressed(engine: str) -> None:
    async def one_of_each(request: bytes, context: Any) -> AsyncIterator[bytes]:
        context.set_compression(grpc.Compression.Gzip)
        yield request
        context.disable_next_message_compression()
        yield request

    message = b"again and again " * 1000
    async with up(
        engine, {"compression": grpc.Compression.Gzip}, unary_unary=echo, unary_stream=one_of_each
    ) as channel:
        assert await channel.unary_unary("/test/unary_unary")(message) == message
        assert [one async for one in channel.unary_stream("/test/unary_stream")(message)] == [message] * 2


async def test_a_request_that_is_too_long_is_refused(engine: str) -> None:
    options = [("grpc.max_receive_message_length", 1000)]
    async with up(engine, {"options": options}, unary_unary=echo, stream_unary=join) as channel:
        ask = channel.unary_unary("/test/unary_unary")
        assert await ask(bytes(1000)) == bytes(1000)
        assert (await ending(ask(bytes(1001))))[0] is Code.RESOURCE_EXHAUSTED
        call = channel.stream_unary("/test/stream_unary")(iter([bytes(1000), bytes(2000)]))
        assert (await ending(call))[0] is Code.RESOURCE_EXHAUSTED
        compressed = ask(bytes(100_000), compression=grpc.Compression.Gzip)
        assert (await ending(compressed))[0] is Code.RESOURCE_EXHAUSTED


async def test_an_answer_that_is_too_long_is_refused(engine: str) -> None:
    async with up(engine, {"options": [("grpc.max_send_message_length", 1000)]}, unary_unary=echo) as channel:
        ask = channel.unary_unary("/test/unary_unary")
        assert await ask(bytes(1000)) == bytes(1000)
        assert (await ending(ask(bytes(1001))))[0] is Code.RESOURCE_EXHAUSTED


# Time and leaving.


async def test_a_deadline_ends_the_call_and_stops_the_handler(engine: str) -> None:
    stopped = asyncio.Event()

    async def wait(request: bytes, context: Any) -> bytes:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()
        return b""

    async with up(engine, unary_unary=wait) as channel:
        call = channel.unary_unary("/test/unary_unary")(b"", timeout=0.05)
        assert (await ending(call))[0] is Code.DEADLINE_EXCEEDED
        async with asyncio.timeout(5):
            await stopped.wait()


async def test_the_time_that_is_left_is_told(engine: str) -> None:
    left: list[float | None] = []

    async def remaining(request: bytes, context: Any) -> bytes:
        left.append(context.time_remaining())
        return b""

    async with up(engine, unary_unary=remaining) as channel:
        await channel.unary_unary("/test/unary_unary")(b"", timeout=100)
        await channel.unary_unary("/test/unary_unary")(b"")
    assert left[0] is not None
    assert 90 < left[0] <= 102
    assert left[1] is None


async def test_a_client_that_cancels_stops_the_handler(engine: str) -> None:
    begun, stopped = asyncio.Event(), asyncio.Event()
    contexts: list[Any] = []

    async def wait(request: bytes, context: Any) -> bytes:
        contexts.append(context)
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            stopped.set()
            raise
        return b""

    async with up(engine, unary_unary=wait) as channel:
        call = channel.unary_unary("/test/unary_unary")(b"")
        async with asyncio.timeout(5):
            await begun.wait()
            assert not contexts[0].cancelled()
            assert not contexts[0].done()
            call.cancel()
            await stopped.wait()
        with pytest.raises(asyncio.CancelledError):
            await call


async def test_a_client_that_leaves_a_stream_stops_its_handler(engine: str) -> None:
    stopped = asyncio.Event()

    async def endless(request: bytes, context: Any) -> AsyncIterator[bytes]:
        try:
            while True:
                yield bytes(1000)
        finally:
            stopped.set()

    async def never_ending(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        try:
            async for request in requests:
                yield request
        finally:
            stopped.set()

    async with up(engine, unary_stream=endless, stream_stream=never_ending) as channel:
        call: Any
        for call in (channel.unary_stream("/test/unary_stream")(b""), channel.stream_stream("/test/stream_stream")()):
            stopped.clear()
            if isinstance(call, grpc.aio.StreamStreamCall):
                await call.write(b"x")
            await call.read()
            call.cancel()
            async with asyncio.timeout(5):
                await stopped.wait()


async def test_done_callbacks_are_called_in_the_end(engine: str) -> None:
    told: asyncio.Queue[Any] = asyncio.Queue()

    async def register(request: bytes, context: Any) -> bytes:
        context.add_done_callback(told.put_nowait)
        if request:
            await context.abort(Code.INTERNAL, "")
        return b""

    async with up(engine, unary_unary=register) as channel:
        for request in (b"", b"x"):
            await ending(channel.unary_unary("/test/unary_unary")(request))
            async with asyncio.timeout(5):
                context = await told.get()
            assert context.done()
            assert not context.cancelled()


async def test_the_peer_is_told(engine: str) -> None:
    seen: list[Any] = []

    async def peer(request: bytes, context: Any) -> bytes:
        seen.append((context.peer(), context.auth_context(), context.peer_identities(), context.peer_identity_key()))
        return b""

    async with up(engine, unary_unary=peer) as channel:
        await channel.unary_unary("/test/unary_unary")(b"")
    name, known, identities, key = seen[0]
    assert name.startswith("ipv4:127.0.0.1:")
    assert not identities
    assert key is None
    assert known.get("transport_security_type", [b"insecure"]) == [b"insecure"]


async def test_calls_beyond_what_the_server_takes_are_refused(engine: str) -> None:
    go_on = asyncio.Event()

    async def wait(request: bytes, context: Any) -> bytes:
        await go_on.wait()
        return request

    async with up(engine, {"maximum_concurrent_rpcs": 3}, unary_unary=wait) as channel:
        calls = [channel.unary_unary("/test/unary_unary")(b"x") for _ in range(5)]
        done, _ = await asyncio.wait(
            [asyncio.ensure_future(ending(call)) for call in calls], timeout=1, return_when="FIRST_COMPLETED"
        )
        assert {task.result()[0] for task in done} == {Code.RESOURCE_EXHAUSTED}
        go_on.set()
        codes = [(await ending(call))[0] for call in calls]
        assert sorted(code.name for code in codes) == ["OK"] * 3 + ["RESOURCE_EXHAUSTED"] * 2


async def test_context_variables_and_tasks_work_inside_a_handler(engine: str) -> None:
    async def inner(request: bytes, context: Any) -> bytes:
        assert asyncio.current_task() is not None
        async with asyncio.timeout(5), asyncio.TaskGroup() as group:
            tasks = [group.create_task(asyncio.sleep(0, number)) for number in range(3)]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await asyncio.Event().wait()
        begun = time.monotonic()
        await asyncio.to_thread(time.sleep, 0.01)
        assert time.monotonic() - begun >= 0.01
        return b"%d" % sum(task.result() for task in tasks)

    async with up(engine, unary_unary=inner) as channel:
        assert await channel.unary_unary("/test/unary_unary")(b"") == b"3"
