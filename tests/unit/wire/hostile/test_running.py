"""What a client can set in motion is bounded by the calls that it may have open, whatever it takes back."""

from __future__ import annotations

from mesh.wire import frames
from mesh.wire.faults import ErrorCode
from mesh.wire.limits import WireLimits
from tests.unit.wire.core.given import headers, reset, window_update
from tests.unit.wire.raw import RawClient, raw_client, request
from tests.unit.wire.serving import eventually, serving

LIMITS = WireLimits(max_concurrent_streams=8)


async def quiet(client: RawClient) -> None:
    """Wait until the server has done what it was asked."""
    client.frames.clear()
    await client.send(b"\0\0\x08\x06\0\0\0\0\0quiet...")
    await client.frame(frames.PING)


async def test_more_calls_than_are_taken_are_refused_and_may_be_tried_again() -> None:
    async with serving(LIMITS) as server, raw_client(server.port) as client, raw_client(server.port) as neighbour:
        await client.send(*[request(stream_id, path=b"/test/wait") for stream_id in range(1, 25, 2)])
        refused = [await client.frame(frames.RST_STREAM, stream_id) for stream_id in range(17, 25, 2)]
        assert {one.code for one in refused} == {ErrorCode.REFUSED_STREAM}
        assert server.handlers.running == server.handlers.started == 8
        assert await neighbour.ask() == b"hello"
        server.handlers.let_go.set()
        await eventually(lambda: server.handlers.running == 0)
        assert await client.ask() == b"hello"


async def test_calls_that_are_taken_back_once_they_run_stop() -> None:
    # CVE-2023-44487, by a client that lets each call be looked at first.
    async with serving(LIMITS) as server, raw_client(server.port) as client, raw_client(server.port) as neighbour:
        for index in range(300):
            await client.send(request(2 * index + 1, path=b"/test/wait"))
            await quiet(client)
            await client.send(reset(2 * index + 1))
            if index % 50 == 0:
                assert await neighbour.ask() == b"hello"
        await quiet(client)
        assert server.handlers.most_running <= 2
        assert server.handlers.running == 0
        assert server.handlers.cancelled == 300


async def test_calls_that_are_taken_back_and_do_not_stop_count_as_open() -> None:
    async with serving(LIMITS) as server, raw_client(server.port) as client, raw_client(server.port) as neighbour:
        for index in range(50):
            await client.send(request(2 * index + 1, path=b"/test/stubborn"))
            await quiet(client)
            await client.send(reset(2 * index + 1))
        await quiet(client)
        # Those that were taken back in the same read as others began are not counted yet; after that they are.
        assert 8 <= server.handlers.running <= 16
        await client.send(request(201))
        assert (await client.frame(frames.RST_STREAM, 201)).code == ErrorCode.REFUSED_STREAM
        assert await neighbour.ask() == b"hello"
        server.handlers.let_go.set()
        await quiet(client)
        assert server.handlers.running == 0
        assert await client.ask() == b"hello"


async def test_calls_that_the_server_is_made_to_reset_do_not_run_on() -> None:
    # CVE-2025-8671: the client breaks a rule of each stream once its handler runs.
    async with serving(LIMITS) as server, raw_client(server.port) as client, raw_client(server.port) as neighbour:
        for index in range(100):
            await client.send(request(2 * index + 1, path=b"/test/wait"))
            await quiet(client)
            await client.send(window_update(2 * index + 1, 0))
            assert (await client.frame(frames.RST_STREAM, 2 * index + 1)).code == ErrorCode.PROTOCOL_ERROR
        await quiet(client)
        assert (server.handlers.running, server.handlers.cancelled) == (0, 100)
        assert server.handlers.most_running <= 2
        assert await neighbour.ask() == b"hello"


async def test_handlers_of_all_connections_are_no_more_than_the_server_takes() -> None:
    async with (
        serving(maximum_concurrent_rpcs=5) as server,
        raw_client(server.port) as one,
        raw_client(server.port) as two,
    ):
        for client in (one, two):
            await client.send(*[request(stream_id, path=b"/test/wait") for stream_id in range(1, 13, 2)])
            await quiet(client)
        assert server.handlers.running == 5
        server.handlers.let_go.set()
        await eventually(lambda: server.handlers.running == 0)
        assert await two.ask() == b"hello"


async def test_calls_that_wait_for_their_requests_are_no_more_than_may_be_open() -> None:
    async with serving(LIMITS) as server, raw_client(server.port) as client, raw_client(server.port) as neighbour:
        await client.send(*[headers(stream_id, end=False) for stream_id in range(1, 1001, 2)])
        await client.ended(999)
        assert max(len(one.calls) for one in server.connections) <= 8
        assert await neighbour.ask() == b"hello"
