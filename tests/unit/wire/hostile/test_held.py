"""Peers that would have a server hold things: requests that are never whole, answers that are never read, bombs."""

from __future__ import annotations

import gzip
import struct
import tracemalloc
from collections.abc import Generator
from contextlib import contextmanager

import pytest

from mesh.wire import frames
from mesh.wire.faults import ErrorCode
from mesh.wire.headers import encode_block
from mesh.wire.limits import WireLimits
from tests.unit.wire.core.given import REQUEST, data, headers, reset, settings, window_update
from tests.unit.wire.raw import RawClient, raw_client, request
from tests.unit.wire.serving import eventually, serving

MIB = 1 << 20


@contextmanager
def flat(most_bytes: int) -> Generator[None]:
    """Python's memory may grow by so much within."""
    tracemalloc.start(1)
    try:
        before, _ = tracemalloc.get_traced_memory()
        yield
        _, peak = tracemalloc.get_traced_memory()
        assert peak - before <= most_bytes
    finally:
        tracemalloc.stop()


def to(path: bytes, *more: tuple[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    return [*[(name, path if name == b":path" else value) for name, value in REQUEST], *more]


def status(client: RawClient, stream_id: int) -> bytes:
    """The last header block of a stream, in which a status stands in plain form."""
    return [one.payload for one in client.frames if one.stream_id == stream_id and one.kind == frames.HEADERS][-1]


def with_code(code: int) -> bytes:
    return encode_block([(b"grpc-status", b"%d" % code)])


async def wide(client: RawClient) -> None:
    """Let the server send as much as it likes."""
    await client.send(settings((frames.INITIAL_WINDOW_SIZE, (1 << 31) - 1)), window_update(0, (1 << 31) - 65_536))


async def test_a_client_that_never_reads_is_held_little_for_and_then_cut() -> None:
    limits = WireLimits(max_waiting_bytes=4 * MIB, stalled_s=30.0)
    async with serving(limits) as server, raw_client(server.port) as neighbour, raw_client(server.port) as deaf:
        assert await neighbour.ask() == b"hello"
        await wide(deaf)
        deaf.transport.pause_reading()
        with flat(40 * MIB):
            for stream_id in range(1, 401, 2):
                await deaf.send(request(stream_id, b"1048576", path=b"/test/large"))
                if stream_id % 50 == 1:
                    assert await neighbour.ask() == b"hello"
            await server.pass_time(25)
            assert len(server.connections) == 2
            paused = [one for one in server.connections if one.paused]
            assert len(paused) == 1
            # It is not read any more: of 200 MiB of answers, what the system and we hold is what was asked for so far.
            # How much the system takes, and how much was read by then, is not ours to say: about 50 or 60 as a rule.
            assert server.handlers.started < 100
            await server.pass_time(10)
        deaf.transport.resume_reading()
        await deaf.gone()
        assert len(server.connections) == 1
        assert await neighbour.ask() == b"hello"


async def test_answers_of_one_turn_are_bounded_as_well() -> None:
    # All requests come in one read, and their answers before anything can be written.
    limits = WireLimits(max_waiting_bytes=5 * MIB)
    async with serving(limits) as server, raw_client(server.port) as client:
        await wide(client)
        with flat(40 * MIB):
            await client.send(*[request(stream_id, b"1048576", path=b"/test/large") for stream_id in range(1, 201, 2)])
            for stream_id in range(1, 201, 2):
                await client.ended(stream_id)
        whole = [one for one in client.frames if one.kind == frames.HEADERS and one.flags & frames.END_STREAM]
        calm = [
            one for one in client.frames if one.kind == frames.RST_STREAM and one.code == ErrorCode.ENHANCE_YOUR_CALM
        ]
        assert len(whole) >= 4
        assert len(whole) + len(calm) == 100
        assert await client.ask(b"still served") == b"still served"


async def test_a_client_that_opens_no_window_is_held_little_for() -> None:
    # CVE-2019-9517 and slow reads: answers wait for a window that never opens.
    limits = WireLimits(max_waiting_bytes=2 * MIB, max_concurrent_streams=100)
    greeting = settings((frames.INITIAL_WINDOW_SIZE, 0))
    async with (
        serving(limits) as server,
        raw_client(server.port, greeting=greeting) as slow,
        raw_client(server.port) as neighbour,
    ):
        with flat(12 * MIB):
            for stream_id in range(1, 1001, 2):
                await slow.send(request(stream_id, b"100000", path=b"/test/large"))
                if stream_id % 100 == 1:
                    assert await neighbour.ask() == b"hello"
            await slow.ended(999)
            wires = [one.connection for one in server.connections]
            assert max(wire.sender.waiting_bytes for wire in wires) <= 2 * MIB
            assert max(len(wire.streams) for wire in wires) <= 100
        reset_as = {one.code for one in slow.frames if one.kind == frames.RST_STREAM}
        assert reset_as <= {ErrorCode.ENHANCE_YOUR_CALM, ErrorCode.REFUSED_STREAM}


async def test_a_stream_that_nobody_reads_makes_its_handler_wait() -> None:
    greeting = settings((frames.INITIAL_WINDOW_SIZE, 1000))
    async with serving() as server, raw_client(server.port, greeting=greeting) as slow:
        with flat(8 * MIB):
            for stream_id in (1, 3, 5):
                await slow.send(request(stream_id, b"10000", path=b"/test/endless"))
            for stream_id in (1, 3, 5):
                await slow.frame(frames.DATA, stream_id)
            (connection,) = server.connections
            assert connection.connection.sender.waiting_bytes <= 3 * 80_000
            await slow.send(reset(1), reset(3), reset(5))
            await slow.ask(path=b"/test/none")
            assert connection.connection.sender.waiting_bytes == 0
            assert server.handlers.running == 0


async def test_requests_that_are_never_whole_are_bounded_over_all_calls() -> None:
    limits = WireLimits(max_held_bytes=2 * MIB)
    piece = bytes(16_000)
    async with serving(limits) as server, raw_client(server.port) as neighbour, raw_client(server.port) as client:
        with flat(16 * MIB):
            for stream_id in range(1, 201, 2):
                begun = struct.pack(">BI", 0, MIB) + piece
                await client.send(headers(stream_id, to(b"/test/echo")), data(stream_id, begun), data(stream_id, piece))
            await client.ended(199)
            (held,) = [one.held_bytes for one in server.connections if one.held_bytes]
            assert held <= 2 * MIB
            assert with_code(8) in status(client, 199)
            assert await neighbour.ask() == b"hello"
            # The others may still be finished or given up.
            await client.send(*[reset(stream_id) for stream_id in range(1, 201, 2)])
            assert await client.ask(path=b"/test/none") == b""
            assert await client.ask(bytes(16_000)) == bytes(16_000)
            assert [one.held_bytes for one in server.connections] == [0, 0]


async def test_what_was_held_of_a_call_that_is_refused_is_forgotten() -> None:
    async with serving() as server, raw_client(server.port) as client:
        for stream_id, wrong in ((1, b"\7\0\0\0\1x"), (3, b"\0\xff\xff\xff\xff"), (5, b"\1\0\0\0\1x")):
            sound = struct.pack(">BI", 0, 1000) + bytes(1000)
            await client.send(
                headers(stream_id, to(b"/test/unread")), data(stream_id, sound), data(stream_id, sound + wrong)
            )
            await client.ended(stream_id)
        (connection,) = server.connections
        assert connection.held_bytes == 0
        assert not connection.calls
        # Nor is any of the connection's window lost.
        state = connection.connection._state  # pyright: ignore[reportPrivateUsage]
        assert state.receive_window + state.unacknowledged == state.limits.connection_window_bytes


async def test_a_handler_that_never_waits_lets_others_run_and_fills_no_memory() -> None:
    async with serving() as server, raw_client(server.port) as neighbour, raw_client(server.port) as client:
        await wide(client)
        with flat(16 * MIB):
            await client.send(request(1, b"100000", path=b"/test/endless"))
            for _ in range(20):
                assert await neighbour.ask() == b"hello"
                client.frames.clear()
            await client.send(reset(1))
            await eventually(lambda: server.handlers.running == 0)


async def test_a_stream_whose_answers_are_too_much_to_hold_is_ended() -> None:
    # A handler that writes without end, to a client whose windows are wide and that does not read.
    limits = WireLimits(max_waiting_bytes=MIB)
    greeting = settings((frames.INITIAL_WINDOW_SIZE, 0))
    async with serving(limits) as server, raw_client(server.port, greeting=greeting) as client:
        await client.send(request(1, b"900000", path=b"/test/large"), request(3, b"400000", path=b"/test/endless"))
        await client.ended(3)
        await eventually(lambda: server.handlers.running == 0)
        assert server.connections[0].connection.sender.waiting_bytes <= MIB
        await client.send(window_update(1, 1 << 20), window_update(0, 1 << 20))
        answered = await client.ended(1)
        assert sum(len(one.payload) for one in answered if one.kind == frames.DATA) == 900_005


async def test_a_message_in_single_bytes_takes_little_more_than_its_bytes() -> None:
    async with serving() as server, raw_client(server.port) as client:
        await client.send(headers(1, to(b"/test/size")), data(1, struct.pack(">BI", 0, 100_000)))
        with flat(12 * MIB):
            for _ in range(100):
                await client.send(*[data(1, b"x")] * 1000)
            await client.send(data(1, end=True))
            answered = await client.ended(1)
        assert b"100000" in b"".join(one.payload for one in answered)


async def test_messages_that_nobody_reads_stop_at_the_window() -> None:
    limits = WireLimits(stream_window_bytes=65_535, connection_window_bytes=200_000)
    async with serving(limits) as server, raw_client(server.port) as neighbour, raw_client(server.port) as client:
        message = struct.pack(">BI", 0, 1000) + bytes(1000)
        await client.send(headers(1, to(b"/test/unread")))
        with flat(4 * MIB):
            sent = 0
            while sent + 15 * len(message) <= 65_535 + 2 * len(message):
                await client.send(data(1, message * 15))
                sent += 15 * len(message)
                assert await neighbour.ask() == b"hello"
            # No window was given back for more than the message that its handler may look at next.
            given = [one for one in client.frames if one.kind == frames.WINDOW_UPDATE and one.stream_id == 1]
            assert given == []
        server.handlers.let_go.set()
        await client.send(data(1, end=True))
        answered = await client.ended(1)
        assert str(sent // len(message)).encode() in b"".join(one.payload for one in answered)


async def test_a_unary_call_of_many_messages_ends_at_the_second() -> None:
    async with serving() as server, raw_client(server.port) as client:
        await client.send(headers(1, to(b"/test/echo")))
        with flat(4 * MIB):
            for _ in range(100):
                await client.send(data(1, b"\0\0\0\0\0" * 3000))
            await client.ended(1)
        assert with_code(12) in status(client, 1)
        assert server.handlers.started == 0


@pytest.mark.parametrize("path", [b"/test/echo", b"/test/join"])
async def test_a_message_that_announces_four_gigabytes_is_refused_by_its_prefix(path: bytes) -> None:
    async with serving() as server, raw_client(server.port) as client:
        await client.send(headers(1, to(path)), data(1, b"\0\xff\xff\xff\xff" + bytes(10)))
        await client.ended(1)
        assert with_code(8) in status(client, 1)
        assert await client.ask(path=b"/test/none") == b""
        assert server.handlers.running == 0


@pytest.mark.parametrize("path", [b"/test/echo", b"/test/join"])
async def test_a_compressed_bomb_is_unpacked_no_further_than_a_message_may_be(path: bytes) -> None:
    bomb = gzip.compress(bytes(200 * MIB), 9)
    options = [("grpc.max_receive_message_length", MIB)]
    async with serving(options=options) as server, raw_client(server.port) as client:
        with flat(8 * MIB):
            fields = to(path, (b"grpc-encoding", b"gzip"))
            body = struct.pack(">BI", 1, len(bomb)) + bomb
            await client.send(headers(1, fields))
            for start in range(0, len(body), 16_000):
                await client.send(data(1, body[start : start + 16_000], end=start + 16_000 >= len(body)))
            await client.ended(1)
        assert with_code(8) in status(client, 1)


async def test_bombs_are_unpacked_one_at_a_time() -> None:
    bomb = gzip.compress(bytes(4 * MIB), 9)
    body = (struct.pack(">BI", 1, len(bomb)) + bomb) * 3
    async with serving() as server, raw_client(server.port) as neighbour, raw_client(server.port) as client:
        await client.send(headers(1, to(b"/test/unread", (b"grpc-encoding", b"gzip"))))
        with flat(4 * MIB):
            for _ in range(50):
                await client.send(data(1, body))
            assert await neighbour.ask() == b"hello"
        with flat(24 * MIB):
            await client.send(reset(1))
            assert await client.ask(b"still served") == b"still served"
        assert server.handlers.running == 0


async def test_metadata_that_is_too_long_ends_its_call_alone() -> None:
    async with serving() as server, raw_client(server.port) as client:
        await client.send(headers(1, to(b"/test/echo", (b"long", b"x" * 17_000))))
        await client.ended(1)
        assert with_code(8) in status(client, 1)
        await client.send(request(3, b"still served"))
        assert b"still served" in b"".join(one.payload for one in await client.ended(3))
        assert server.handlers.started == 1


async def test_headers_that_repeat_take_no_more_than_what_may_be_remembered() -> None:
    limits = WireLimits(remembered_bytes=100_000)
    async with serving(limits) as server, raw_client(server.port) as client:
        with flat(4 * MIB):
            for index in range(1000):
                stream_id = 2 * index + 1
                fields = to(b"/test/none", (b"id", b"%d" % index), (b"long", b"x" * 2000))
                await client.send(headers(stream_id, fields, end=True))
                if index % 50 == 49:
                    await client.ended(stream_id)
                    client.frames.clear()
        (connection,) = server.connections
        reader = connection.connection._state.reader  # pyright: ignore[reportPrivateUsage]
        assert reader._held_bytes <= 100_000  # pyright: ignore[reportPrivateUsage]
